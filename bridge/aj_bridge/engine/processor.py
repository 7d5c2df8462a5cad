"""One queue's work: each claim from its delivery to its end, as the core decides.

Knows the order of the steps and what each failure of storage means for them; knows no rule of its own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from typing import Any, Final

import msgspec

from aj_bridge.core.decision import (
    Ack,
    Aftercare,
    Decision,
    Drop,
    Finish,
    Look,
    Park,
    Quarantine,
    Start,
    dead_reason,
)
from aj_bridge.core.deliver import NOT_FOUND, Holder, Known, decide
from aj_bridge.core.lifecycle import Event, is_edge
from aj_bridge.core.retry import RetryPolicy
from aj_bridge.core.settle import NoResponders, settle, too_large, too_late
from aj_bridge.engine import meter as m
from aj_bridge.engine.breakers import Breakers
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.dispatch import Dispatch, Nobody
from aj_bridge.engine.held import Held, HeldClaims
from aj_bridge.engine.meter import Meter
from aj_bridge.engine.peers import ASK_TIMEOUT_S, Peers
from aj_bridge.engine.router import Router
from aj_bridge.storage.protocols import DeadLetter, Parked, Storage
from aj_sdk.errors import ConflictError, OutcomeUnknownError, StoreError, TaskTooLargeError
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.names import is_name
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["Parts", "Processor"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_WAKES_AT_ONCE: Final = 64
_LOOK_EVERY_S: Final = 0.5
_PAUSES_SAVING_AGAIN_S: Final = (0.1, 0.3, 0.9, 0.0)


class _Lost(Exception):  # noqa: N818 - flow: somebody else wrote
    """A save was refused.

    Args:
        stored: the record as it is now, None when it is gone.
    """

    def __init__(self, stored: Stored | None) -> None:
        super().__init__()
        self.stored = stored


class _LeaseOver(Exception):  # noqa: N818 - flow: the lease may have passed
    """The claim is not surely ours any more."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a processor is made of.

    Attributes:
        owner: id of the bridge.
        storage: the queue.
        dispatch: how a task gets to its handler.
        peers: the other bridges.
        router: which route a type takes.
        policy: the backoff.
        meter: what is counted.
        clock: the time.
        random: gives a number in [0, 1).
    """

    owner: str
    storage: Storage
    dispatch: Dispatch
    peers: Peers
    router: Router
    policy: RetryPolicy
    meter: Meter
    clock: Clock
    random: Callable[[], float]


class Processor:
    """Works on one queue.

    Args:
        parts: what it is made of.
        held: the claims in hand, shared with those who answer for them.
        concurrency: how many claims are worked on at once.
    """

    def __init__(self, parts: Parts, held: HeldClaims, concurrency: int) -> None:
        self._parts = parts
        self._storage = parts.storage
        self._held = held
        self._concurrency = concurrency
        self._queue = parts.storage.items.settings
        self._breakers = Breakers(parts.clock.monotonic, parts.random)
        self._slots = asyncio.Semaphore(concurrency)
        self._invocations = count(1)
        self._calls = 0
        self._work: set[asyncio.Task[None]] = set()
        self._steadying = asyncio.Lock()
        self._standstills = parts.storage.pulse.standstills
        self._stopping = False

    @property
    def busy(self) -> int:
        """Claims in hand."""
        return len(self._held)

    async def run(self, stop: asyncio.Event, grace_s: float, hurry: asyncio.Event | None = None) -> int:
        """Take and work on claims until told to stop.

        Stopping: no new claims; what came and was not begun is given back; what is in hand may finish within the
        grace period; what then remains is cancelled and left to its lease.

        Args:
            stop: set to stop.
            grace_s: seconds that claims in hand may take after that.
            hurry: set to end the grace period at once.

        Returns:
            How many claims were cancelled.
        """
        loop = asyncio.get_running_loop()
        self._create_task = loop.create_task
        left: set[asyncio.Task[None]] = set()
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self._held.keep(), name="leases")
                steadying = group.create_task(self._stay_steady(), name="standstills")
                taking = group.create_task(self._take(), name="intake")
                await stop.wait()
                self._stopping = True
                taking.cancel()
                await asyncio.wait((taking,))
                for claim in await self._storage.items.close():
                    held = self._held.take(claim)
                    if self._held.valid(held):
                        await self._quietly(self._storage.items.give_back(claim))
                    self._held.drop(held)
                left = await self._finish_in_hand(grace_s, hurry or asyncio.Event())
                steadying.cancel()
                keeping.cancel()
        finally:
            work = set(self._work)
            for task in work:
                task.cancel()
            if work:
                await asyncio.wait(work)
        return len(left)

    async def _finish_in_hand(self, grace_s: float, hurry: asyncio.Event) -> set[asyncio.Task[None]]:
        if self._work:
            _log.info("waiting for %d tasks in hand", len(self._held))
        ending = asyncio.ensure_future(self._work_ends())
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait((ending, hurried), timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        hurried.cancel()
        return set(self._work)

    async def _work_ends(self) -> None:
        # What is in hand may bring more: a burst that is being loaded becomes claims.
        while self._work:
            await asyncio.wait(self._work)

    async def _take(self) -> None:
        items = self._storage.items
        while True:
            items.want(self._concurrency - len(self._held))
            claims = await items.next()
            # Held from here on, so that leases are renewed while the records are loaded.
            burst = [self._held.take(claim) for claim in claims]
            self._spawn(self._load(burst))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        # Not in the task group: its bookkeeping for each task costs more than this set's.
        task = self._create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _load(self, burst: list[Held]) -> None:
        try:
            found = await self._patiently(
                lambda: self._storage.records.load_many([held.claim.task_id for held in burst if _named(held)]),
                lambda: any(self._held.valid(held) for held in burst),
            )
        except BaseException as err:
            for held in burst:
                self._let_go(held)
            if isinstance(err, _LeaseOver):
                _log.warning("loading %d tasks took longer than a lease, their items come again", len(burst))
                return
            if isinstance(err, Exception):  # as in `_claim`
                _log.exception("a defect of the bridge, %d items come again when their leases are over", len(burst))
                return
            raise
        for held in burst:
            self._spawn(self._claim(held, found.get(held.claim.task_id)))

    async def _claim(self, held: Held, stored: Stored | None) -> None:
        try:
            await self._slots.acquire()
            try:
                await self._work_on(held, stored)
            except _Lost as lost:
                await self._after_refusal(held, lost.stored)
            finally:
                self._slots.release()
        except _LeaseOver:
            self._dropped("lease", held, "the lease may have passed")
        except StoreError as err:
            # Not acknowledged, so it comes again when the lease is over.
            _log.warning("storage failed, the item comes again: %s", err, extra=_fields(held))
            self._parts.meter.inc(m.DROPPED, queue=self._queue.name, why="storage")
        except asyncio.CancelledError:
            _log.warning("gave up a task in hand, it comes again when its lease is over", extra=_fields(held))
            raise
        except Exception:  # noqa: BLE001 - the task boundary: one task's defect must not end the others
            _log.exception("a defect of the bridge, the item comes again when its lease is over", extra=_fields(held))
        finally:
            self._let_go(held)

    def _let_go(self, held: Held) -> None:
        self._held.drop(held)
        self._storage.items.want(self._concurrency - len(self._held))

    # Decisions.

    async def _work_on(self, held: Held, stored: Stored | None) -> None:
        if self._stopping:
            self._check_lease(held)
            await self._storage.items.give_back(held.claim)
            return
        if stored is not None:
            held.sequence = stored.sequence
        known = Known(
            claim=held.claim,
            stored=stored,
            queue=self._queue,
            ack_wait_ns=self._storage.items.ack_wait_ns,
            now_ns=self._parts.clock.now_ns(),
            schedules=self._storage.waiting.schedules,
        )
        while True:
            self._check_lease(held)
            decision = decide(known)
            if isinstance(decision, Look):
                known = await self._look(held, known, decision)
                continue
            if isinstance(decision, Start) and known.closed_for_ns is None:
                closed = self._closed(decision.record.type)
                if closed is not None:
                    known = msgspec.structs.replace(known, closed_for_ns=closed[0], nobody=closed[1])
                    continue
            break
        await self._carry_out(held, stored, decision)

    def _closed(self, task_type: str) -> tuple[int, str] | None:
        # Whether a task of this type must wait because nobody answers, for how long, and why.
        if self._parts.router.route(task_type) is None:
            self._breakers.missed(task_type)
            self._breakers.admit(task_type)  # counts the seconds; there is nobody to try
            return self._breakers.delay_ns(task_type), f"no route for task type {task_type!r}"
        if self._breakers.admit(task_type):
            return None
        return self._breakers.delay_ns(task_type), f"no handler for task type {task_type!r}"

    async def _look(self, held: Held, known: Known, look: Look) -> Known:
        stored = known.stored
        assert stored is not None
        assert stored.record is not None
        now = {"now_ns": self._parts.clock.now_ns()}
        if look is Look.SCHEDULE:
            standing = await self._storage.waiting.standing(held.claim.queue, held.claim.task_id)
            return msgspec.structs.replace(known, standing=standing, **now)
        if look is Look.OWNER:
            assert stored.stamp is not None
            holder = await self._parts.peers.ask(stored.stamp.owner, stored.task_id, stored.stamp.item)
            now["now_ns"] = self._parts.clock.now_ns()
            pulse = self._storage.pulse
            if holder is Holder.SILENT and self._parts.clock.monotonic() - pulse.since > ASK_TIMEOUT_S / 2:
                # The silence may be our own: an answer did not come, but neither did anything else. Ask again.
                await pulse.beat()
                return msgspec.structs.replace(known, **now)
            return msgspec.structs.replace(known, holder=holder, **now)
        parents = await self._storage.records.load_many(stored.record.dependencies)
        by_id = {
            parent_id: parents[parent_id].record if parent_id in parents else None
            for parent_id in stored.record.dependencies
        }
        return msgspec.structs.replace(known, parents=by_id, **now)

    async def _carry_out(self, held: Held, stored: Stored | None, decision: Decision) -> None:
        if isinstance(decision, Quarantine):
            await self._quarantine(held, stored, decision.reason)
            return
        assert stored is not None
        assert stored.record is not None
        match decision:
            case Ack(why):
                _log.debug("acknowledging an item: %s", why, extra={"task_id": held.claim.task_id})
                await self._storage.items.ack(held.claim)
            case Drop(why):
                self._dropped("late", held, why)
            case Aftercare(record):
                await self._after_final(held, record, record)
                await self._storage.items.ack(held.claim)
            case Park():
                await self._park(held, stored.record, decision)
            case Finish(record, event):
                await self._finish(held, stored.record, record, event)
            case Start(record, event):
                await self._start(held, stored.record, record, event)

    async def _start(self, held: Held, before: TaskRecord, record: TaskRecord, event: Event) -> None:
        if event is Event.TAKEN_OVER:
            self._parts.meter.inc(m.TAKEN_OVER, queue=self._queue.name)
        try:
            await self._save(held, before, record, event)
        except TaskTooLargeError as err:
            # It never got as far as a call, so no try is counted.
            finish = too_large(before, err.size, err.limit)
            await self._finish(held, before, finish.record, finish.event)
            return
        if self._stood_still():
            await self._steady()
        self._check_lease(held)
        late = too_late(record, self._parts.clock.now_ns())
        if late is not None:
            await self._finish(held, record, late.record, late.event)
            return
        outcome = await self._call(record)
        decision = settle(
            record,
            outcome,
            queue=self._queue,
            policy=self._parts.policy,
            attempt=record.tries if self._storage.waiting.schedules else held.claim.item.delivery,
            now_ns=self._parts.clock.now_ns(),
            random=self._parts.random,
        )
        if isinstance(decision, Finish):
            await self._finish(held, record, decision.record, decision.event)
        else:
            await self._park(held, record, decision)

    async def _call(self, record: TaskRecord) -> Completed | Failed | Terminated | NoResponders:
        route = self._parts.router.route(record.type)
        assert route is not None
        meter = self._parts.meter
        labels = {"queue": record.queue, "type": record.type}
        began = self._parts.clock.monotonic()
        self._calls += 1
        meter.set(m.BUSY, self._calls)
        try:
            invocation = f"{self._parts.owner}.{next(self._invocations)}"
            outcome = await self._parts.dispatch.call(record, route, invocation, self._queue.max_run_time_ns)
        except Nobody as nobody:
            meter.inc(m.NO_RESPONDERS, **labels)
            return NoResponders(nobody.subject, self._breakers.missed(record.type))
        finally:
            self._calls -= 1
            meter.set(m.BUSY, self._calls)
        meter.observe(m.HANDLER_RUNTIME, self._parts.clock.monotonic() - began, **labels)
        if not isinstance(outcome, Completed):
            meter.inc(m.HANDLER_ERRORS, **labels)
            _log.info(
                "a handler %s: %s",
                "terminated a task" if isinstance(outcome, Terminated) else "failed",
                outcome.error,
                extra={"task_id": record.id, "task_type": record.type, "queue": record.queue, "tries": record.tries},
            )
        released = self._breakers.answered(record.type)
        if released:
            self._spawn(self._release(record.type, released))
        return outcome

    async def _release(self, task_type: str, released: list[Parked]) -> None:
        _log.info("a handler of %s is there again, releasing %d tasks", task_type, len(released))
        waiting = self._storage.waiting
        for start in range(0, len(released), _WAKES_AT_ONCE):
            part = released[start : start + _WAKES_AT_ONCE]
            await asyncio.gather(*(self._quietly(waiting.wake(parked)) for parked in part))

    # Ends.

    async def _park(self, held: Held, before: TaskRecord, park: Park) -> None:
        # The order is the rule: the schedule, then the record, then the acknowledgement.
        waiting = self._storage.waiting
        if self._stood_still():
            await self._steady()
        self._check_lease(held)
        parked = await self._patiently(
            lambda: waiting.park(held.claim, park.due_ns, park.silent), lambda: self._held.valid(held)
        )
        self._parts.meter.inc(m.PARKED, queue=self._queue.name, why=park.event.name.lower() if park.event else "wait")
        answered_meanwhile = False
        if park.record is not None:
            assert park.event is not None
            try:
                await self._save(held, before, park.record, park.event)
            except TaskTooLargeError as err:
                # The schedule stands, and will fire into a final record: harmless.
                finish = too_large(before, err.size, err.limit)
                await self._finish(held, before, finish.record, finish.event)
                return
            if park.event is Event.NO_HANDLER:
                answered_meanwhile = not self._breakers.parked(park.record.type, parked)
        if not waiting.schedules:
            # What is said of an item means whoever has it by then: said late, this would take it from its next owner.
            await self._storage.pulse.beat()
            self._check_lease(held)
        await waiting.leave(held.claim, parked)
        if answered_meanwhile:
            await self._quietly(waiting.wake(parked))
        _log.debug("parked: %s", park.why, extra={"task_id": held.claim.task_id})

    async def _finish(self, held: Held, before: TaskRecord, record: TaskRecord, event: Event) -> None:
        while True:
            try:
                await self._save(held, before, record, event)
                break
            except TaskTooLargeError as err:
                finish = too_large(record, err.size, err.limit)
                record, event = finish.record, finish.event
        self._count_end(event)
        # A record that was cut down to fit is buried as it was before.
        await self._after_final(held, record, before if event is Event.TOO_LARGE else record)
        await self._storage.items.ack(held.claim)

    def _count_end(self, event: Event) -> None:
        if event is Event.PAST_DEADLINE:
            self._parts.meter.inc(m.PAST_DEADLINE, queue=self._queue.name)
        elif event is Event.TRIES_USED_UP:
            self._parts.meter.inc(m.PAST_MAX_TRIES, queue=self._queue.name)
        elif event is Event.PARENT_FAILED:
            self._parts.meter.inc(m.DEPENDENCIES_FAILED)

    async def _after_final(self, held: Held, record: TaskRecord, buried: TaskRecord) -> None:
        # Everything here may be repeated: a crash before the acknowledgement brings the item, and it, again.
        reason = dead_reason(record.state)
        if reason is not None:
            await self._bury(held, reason, record.last_err, record, buried.to_wire())

    async def _quarantine(self, held: Held, stored: Stored | None, reason: str) -> None:
        meter = self._parts.meter
        meter.inc(m.TASK_NOT_FOUND if reason == NOT_FOUND else m.ITEM_CORRUPT, queue=self._queue.name)
        meter.inc(m.QUARANTINED, queue=self._queue.name)
        _log.warning("quarantined an item: %s", reason, extra={"task_id": held.claim.task_id})
        record = None if stored is None else stored.record
        body = held.claim.body if stored is None or record is not None else stored.body
        await self._bury(held, "quarantined", reason, record, body)
        await self._storage.items.discard(held.claim, reason)

    async def _bury(self, held: Held, reason: str, detail: str, record: TaskRecord | None, body: bytes) -> None:
        letter = DeadLetter(
            reason=reason,
            detail=detail,
            queue=held.claim.queue,
            task_id=held.claim.task_id,
            task_type="" if record is None else record.type,
            tries=0 if record is None else record.tries,
            body=body,
            at_ns=self._parts.clock.now_ns(),
        )
        await self._patiently(lambda: self._storage.notices.bury(letter), lambda: self._held.valid(held))

    async def _after_refusal(self, held: Held, stored: Stored | None) -> None:
        # Somebody else wrote. A final record is finished with, so that its item does not hold a slot for a lease;
        # in all other cases whoever wrote owns the item.
        self._parts.meter.inc(m.REFUSED, queue=self._queue.name)
        if stored is None or stored.record is None or not stored.record.state.final:
            self._dropped("refused", held, "somebody else saved the task")
            return
        await self._after_final(held, stored.record, stored.record)
        await self._storage.items.ack(held.claim)

    def _dropped(self, why: str, held: Held, text: str) -> None:
        self._parts.meter.inc(m.DROPPED, queue=self._queue.name, why=why)
        _log.info("dropped an item: %s", text, extra=_fields(held))

    # Saving.

    async def _save(self, held: Held, before: TaskRecord, record: TaskRecord, event: Event) -> None:
        """Save a record; when it returns, it is saved by us.

        A save before the handler ran needs a valid lease; the outcome of a handler that has run is saved in any case,
        under compare-and-set.

        Raises:
            _Lost: somebody else wrote.
            _LeaseOver: the lease may have passed.
            TaskTooLargeError: the record does not fit.
        """
        if not is_edge(before.state, event, record.state):
            raise AssertionError(f"{before.state} -> {record.state} on {event} is not in the table")
        ran = held.active is not None
        if self._stood_still():
            await self._steady()
        pause = _FIRST_PAUSE_S
        while True:
            if not ran:
                self._check_lease(held)
            try:
                held.sequence = await self._storage.records.save(record, expected=held.sequence, stamp=held.stamp)
                break
            except (ConflictError, OutcomeUnknownError) as err:
                if await self._was_saved(held, record, err):
                    break
            except TaskTooLargeError:
                raise
            except StoreError as err:
                self._parts.meter.inc(m.UPDATE_ERRORS)
                _log.warning("saving failed, trying again: %s", err, extra={"task_id": record.id})
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)
        # Only while it is `active` may it be saved so again: a standstill must not undo what we have just saved.
        held.active = record if record.state is TaskState.ACTIVE else None
        self._parts.meter.inc(m.UPDATES, state=record.state.value)
        await self._storage.notices.state_changed(record, self._parts.clock.now_ns())

    async def _was_saved(self, held: Held, record: TaskRecord, refusal: StoreError) -> bool:
        """Find out what became of a save that was refused or not answered; False means save again."""
        try:
            stored = await self._storage.records.load(record.id)
        except StoreError:
            # The sequence still guards the next attempt, which says more.
            return False
        if stored is not None and stored.stamp == held.stamp:
            if stored.body == record.to_wire():
                held.sequence = stored.sequence
                return True
            if held.active is not None and stored.body == held.active.to_wire():
                # Our own `active`, saved again after a standstill.
                held.sequence = stored.sequence
                return False
        if isinstance(refusal, OutcomeUnknownError) and stored is not None and stored.sequence == held.sequence:
            return False
        raise _Lost(stored)

    async def _stay_steady(self) -> None:
        # Also while all that is in hand waits for its handlers: nobody else would notice that we are back.
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._stood_still():
                await self._steady()

    async def _steady(self) -> None:
        """After a standstill, first save again what others may have taken for abandoned.

        A bridge that stood still or was cut off for longer than an ask's timeout may have been silent to one who asks
        twice; a new sequence tells that one that we are back.
        """
        async with self._steadying:
            if not self._stood_still():
                return
            pulse = self._storage.pulse
            _log.warning("stood still or was cut off, saving %d active tasks again", len(self._held))
            await pulse.beat()
            standstills = pulse.standstills
            await asyncio.gather(*(self._save_again(held) for held in self._held if held.active is not None))
            self._standstills = standstills

    def _stood_still(self) -> bool:
        pulse = self._storage.pulse
        return pulse.standstills != self._standstills or self._parts.clock.monotonic() - pulse.since > ASK_TIMEOUT_S

    async def _save_again(self, held: Held) -> None:
        for pause in _PAUSES_SAVING_AGAIN_S:
            record = held.active
            if record is None:
                return  # its outcome was saved meanwhile
            try:
                held.sequence = await self._storage.records.save(record, expected=held.sequence, stamp=held.stamp)
            except ConflictError:
                # Perhaps with ourselves: an earlier attempt without an answer, applied before this standstill.
                if not await self._still_ours(held, record):
                    return
            except (StoreError, TaskTooLargeError) as err:
                _log.info("saving again failed: %s", err, extra={"task_id": record.id})
            else:
                return
            await asyncio.sleep(pause)

    async def _still_ours(self, held: Held, record: TaskRecord) -> bool:
        try:
            stored = await self._storage.records.load(record.id)
        except StoreError:
            return True  # the next attempt will tell
        if stored is None or stored.stamp != held.stamp or stored.body != record.to_wire():
            return False
        held.sequence = stored.sequence
        return True

    def _check_lease(self, held: Held) -> None:
        if not self._held.valid(held):
            raise _LeaseOver

    async def _patiently(self, act: Callable[[], Awaitable[Any]], still: Callable[[], bool]) -> Any:
        """Repeat an act that may be repeated, while it is ours to do."""
        pause = _FIRST_PAUSE_S
        while True:
            if not still():
                raise _LeaseOver
            try:
                return await act()
            except StoreError as err:
                _log.warning("storage failed, trying again: %s", err)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _quietly(self, act: Awaitable[Any]) -> None:
        try:
            await act
        except StoreError as err:
            _log.info("storage failed: %s", err)


def _named(held: Held) -> bool:

    return is_name(held.claim.task_id)


def _fields(held: Held) -> dict[str, str]:
    return {"task_id": held.claim.task_id, "queue": held.claim.queue, "item": str(held.claim.item)}
