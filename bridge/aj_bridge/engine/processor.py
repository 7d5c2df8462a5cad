"""One queue's work: each claim from its delivery to its end, as the core decides.

Knows the order of the steps and what each failure of storage means for them; knows no rule of its own.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from aj_bridge.core.decision import Ack, Aftercare, Decision, Drop, Finish, Look, Park, Quarantine, Start
from aj_bridge.core.deliver import Holder, Known, decide
from aj_bridge.core.lifecycle import Event
from aj_bridge.core.settle import settle, too_large, too_late
from aj_bridge.engine import meter as m
from aj_bridge.engine.calls import Calls
from aj_bridge.engine.endings import Endings
from aj_bridge.engine.held import Held, HeldClaims
from aj_bridge.engine.ledger import Ledger
from aj_bridge.engine.limits import Room
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.patience import LeaseOver, Lost, Stopped, patiently, quietly
from aj_bridge.engine.peers import ASK_TIMEOUT_S
from aj_bridge.engine.rates import Tally
from aj_bridge.engine.saves import Saves
from aj_bridge.engine.slots import Seat
from aj_sdk.dependents import Dependents
from aj_sdk.errors import SignatureError, StoreError, TaskTooLargeError
from aj_sdk.wire.attempt import AttemptOutcome
from aj_sdk.wire.names import is_name
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["Processor"]

_log = logging.getLogger(__name__)

_LAST_WORDS_S: Final = 1.0


class Processor:
    """Works on one queue.

    Args:
        parts: what it is made of.
        held: the claims in hand, shared with those who answer for them.
        seat: the queue's place at the bridge's slots.
    """

    def __init__(self, parts: Parts, held: HeldClaims, seat: Seat) -> None:
        self._parts = parts
        self._storage = parts.storage
        self._held = held
        self._seat = seat
        self._name = parts.storage.items.settings.name
        self._saves = Saves(parts, held)
        self._calls = Calls(parts, self._spawn)
        self._dependents = Dependents(parts.storage.edges, self._wake)
        self._endings = Endings(parts, held, self._dependents)
        self._ledger = Ledger(parts, self._spawn)
        self._journal = parts.journal
        self._work: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def tally(self) -> Tally:
        """What the calls of handlers came to."""
        return self._calls.tally

    @property
    def busy(self) -> int:
        """Claims in hand."""
        return len(self._held)

    def cancelled(self, task_id: str) -> None:
        """Somebody says that a task was cancelled; where that is so, its call is stopped. Costs nothing otherwise.

        A claim whose call has not begun needs no telling: its save is refused.
        """
        self._calls.reconsider(task_id)

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
                steadying = group.create_task(self._saves.stay_steady(), name="standstills")
                taking = group.create_task(self._take(), name="intake")
                await stop.wait()
                self._stopping = True
                taking.cancel()
                await asyncio.wait((taking,))
                for claim in await self._storage.items.close():
                    held = self._held.take(claim)
                    if self._held.valid(held):
                        await quietly(self._storage.items.give_back(claim))
                    self._held.drop(held)
                self._seat.dismiss()  # only now, or we would be handed again what is given back
                left = await self._finish_in_hand(grace_s, hurry or asyncio.Event())
                steadying.cancel()
                keeping.cancel()
        finally:
            work = set(self._work)
            for task in work:
                task.cancel()
            if work:
                await asyncio.wait(work)
            if self._work:
                # What those who were cancelled have to tell.
                await asyncio.wait(set(self._work), timeout=_LAST_WORDS_S)
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
            self._seat.ask()
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
            found = await patiently(
                lambda: self._storage.records.load_many([held.claim.task_id for held in burst if _named(held)]),
                lambda: any(self._held.valid(held) for held in burst),
            )
        except BaseException as err:
            for held in burst:
                self._let_go(held)
            if isinstance(err, LeaseOver):
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
            entered = await self._seat.enter()
            try:
                await self._work_on(held, stored)
            except Lost as lost:
                await self._after_refusal(held, lost)
            finally:
                if entered:
                    self._seat.leave()
        except LeaseOver:
            self._dropped("lease", held, "the lease may have passed")
        except StoreError as err:
            # Not acknowledged, so it comes again when the lease is over.
            _log.warning("storage failed, the item comes again: %s", err, extra=_fields(held))
            self._parts.meter.inc(m.DROPPED, queue=self._name, why="storage")
        except asyncio.CancelledError:
            _log.warning("gave up a task in hand, it comes again when its lease is over", extra=_fields(held))
            raise
        except Exception:  # noqa: BLE001 - the task boundary: one task's defect must not end the others
            _log.exception("a defect of the bridge, the item comes again when its lease is over", extra=_fields(held))
        finally:
            self._let_go(held)

    def _let_go(self, held: Held) -> None:
        self._held.drop(held)
        self._seat.ask()

    # Decisions.

    async def _work_on(self, held: Held, stored: Stored | None) -> None:
        if self._stopping:
            self._saves.check_lease(held)
            await self._storage.items.give_back(held.claim)
            return
        if stored is not None:
            held.sequence = stored.sequence
        known = Known(
            claim=held.claim,
            stored=stored,
            queue=self._storage.items.settings,
            ack_wait_ns=self._storage.items.ack_wait_ns,
            now_ns=self._parts.clock.now_ns(),
            schedules=self._storage.waiting.schedules,
            verifies=self._parts.verifier is not None,
        )
        room: Room | None = None
        while True:
            self._saves.check_lease(held)
            decision = decide(known)
            if isinstance(decision, Look):
                known = await self._look(held, known, decision)
                continue
            if isinstance(decision, Start) and known.closed_for_ns is None:
                closed = self._calls.closed(decision.record.type)
                if closed is not None:
                    known = msgspec.structs.replace(known, closed_for_ns=closed[0], nobody=closed[1])
                    continue
                room = self._calls.room(decision.record.type)
                if room is not None and not room.enter():
                    known = msgspec.structs.replace(known, full_for_ns=room.delay_ns(self._parts.random))
                    room = None
                    continue
            break
        if self._journal is not None:
            self._journal.decided(held.claim, decision)
        try:
            await self._carry_out(held, stored, decision)
        finally:
            if room is not None:
                room.leave()

    async def _look(self, held: Held, known: Known, look: Look) -> Known:
        stored = known.stored
        assert stored is not None
        assert stored.record is not None
        now = {"now_ns": self._parts.clock.now_ns()}
        if look is Look.SCHEDULE:
            standing = await self._storage.waiting.standing(held.claim.queue, held.claim.task_id)
            return msgspec.structs.replace(known, standing=standing, **now)
        if look is Look.SIGNATURE:
            return msgspec.structs.replace(known, signature=self._signature_fault(stored.record))
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
        if look is Look.EDGES:
            free = await self._dependents.free(stored.task_id)
            return msgspec.structs.replace(known, free=free, **now)
        parents = await self._dependents.parents(stored.record, self._storage.records.load_many)
        now["now_ns"] = self._parts.clock.now_ns()
        return msgspec.structs.replace(known, parents=parents, **now)

    def _signature_fault(self, record: TaskRecord) -> str:
        assert self._parts.verifier is not None
        try:
            self._parts.verifier.verify(record)
        except SignatureError as err:
            return err.reason
        return ""

    async def _carry_out(self, held: Held, stored: Stored | None, decision: Decision) -> None:
        if isinstance(decision, Quarantine):
            await self._endings.quarantine(held, stored, decision.reason)
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
                await self._endings.after_final(held, record, record)
                await self._endings.leave(held, record, held.sequence)
            case Park():
                await self._park(held, stored.record, decision)
            case Finish(record, event):
                await self._finish(held, stored.record, record, event)
                if stored.record.state is TaskState.ACTIVE:
                    self._ledger.lost(stored)
            case Start(record, event):
                await self._start(held, stored, stored.record, record, event)

    async def _start(self, held: Held, stored: Stored, before: TaskRecord, record: TaskRecord, event: Event) -> None:
        if event is Event.TAKEN_OVER:
            self._parts.meter.inc(m.TAKEN_OVER, queue=self._name)
        try:
            await self._saves.save(held, before, record, event)
        except TaskTooLargeError as err:
            # It never got as far as a call, so no try is counted.
            finish = too_large(before, err.size, err.limit)
            await self._finish(held, before, finish.record, finish.event)
            return
        if event is Event.TAKEN_OVER:
            self._ledger.lost(stored)
        if self._saves.stood_still():
            await self._saves.steady()
        self._saves.check_lease(held)
        late = too_late(record, self._parts.clock.now_ns())
        if late is not None:
            await self._finish(held, record, late.record, late.event)
            return
        try:
            outcome = await self._calls.call(held, record)
        except Stopped:
            self._ledger.broken_off(held, record, AttemptOutcome.CANCELLED, "somebody else changed the task")
            raise
        except asyncio.CancelledError:
            self._ledger.broken_off(held, record, AttemptOutcome.DRAINED, "its bridge stopped before it had ended")
            raise
        decision = settle(
            record,
            outcome,
            queue=self._storage.items.settings,
            policy=self._calls.policy(record.type),
            attempt=record.tries if self._storage.waiting.schedules else held.claim.item.delivery,
            now_ns=self._parts.clock.now_ns(),
            random=self._parts.random,
        )
        if self._journal is not None:
            self._journal.decided(held.claim, decision)
        try:
            if isinstance(decision, Finish):
                await self._finish(held, record, decision.record, decision.event)
            else:
                await self._park(held, record, decision)
        except Lost:
            self._ledger.broken_off(
                held, record, AttemptOutcome.REFUSED, "its outcome was not saved: somebody else changed the task"
            )
            raise
        self._ledger.ended(held, record, outcome)

    # Ends.

    async def _park(self, held: Held, before: TaskRecord, park: Park) -> None:
        # The order is the rule: the schedule, then the record, then the acknowledgement.
        waiting = self._storage.waiting
        if self._saves.stood_still():
            await self._saves.steady()
        self._saves.check_lease(held)
        parked = await patiently(
            lambda: waiting.park(held.claim, park.due_ns, park.silent), lambda: self._held.valid(held)
        )
        self._parts.meter.inc(m.PARKED, queue=self._name, why=park.event.name.lower() if park.event else "wait")
        answered_meanwhile = False
        if park.record is not None:
            assert park.event is not None
            try:
                await self._saves.save(held, before, park.record, park.event)
            except TaskTooLargeError as err:
                # The schedule stands, and will fire into a final record: harmless.
                finish = too_large(before, err.size, err.limit)
                await self._finish(held, before, finish.record, finish.event)
                return
            if park.event is Event.NO_HANDLER:
                answered_meanwhile = not self._calls.parked(park.record.type, parked)
        if park.for_parents and await patiently(
            lambda: self._dependents.free(before.id), lambda: self._held.valid(held)
        ):
            # Whoever ended the last parent may have looked before our schedule stood.
            if waiting.schedules:
                await patiently(lambda: waiting.wake(parked), lambda: self._held.valid(held))
            else:
                parked = msgspec.structs.replace(parked, due_ns=self._parts.clock.now_ns())
        if not waiting.schedules:
            # What is said of an item means whoever has it by then: said late, this would take it from its next owner.
            await self._storage.pulse.beat()
            self._saves.check_lease(held)
        await waiting.leave(held.claim, parked)
        if answered_meanwhile:
            await quietly(waiting.wake(parked))
        if park.for_room:
            self._calls.waits_for_room(before.type, parked)
        _log.debug("parked: %s", park.why, extra={"task_id": held.claim.task_id})

    async def _wake(self, queue: str, task_id: str) -> bool:
        # Asked for anew each time: the queue may have been bound again.
        return await self._storage.waiting.wake_task(queue, task_id)

    async def _finish(self, held: Held, before: TaskRecord, record: TaskRecord, event: Event) -> None:
        while True:
            try:
                await self._saves.save(held, before, record, event)
                break
            except TaskTooLargeError as err:
                finish = too_large(record, err.size, err.limit)
                record, event = finish.record, finish.event
        self._count_end(event)
        # A record that was cut down to fit is buried as it was before.
        await self._endings.after_final(held, record, before if event is Event.TOO_LARGE else record)
        await self._endings.leave(held, record, held.sequence)

    def _count_end(self, event: Event) -> None:
        if event is Event.PAST_DEADLINE:
            self._parts.meter.inc(m.PAST_DEADLINE, queue=self._name)
        elif event is Event.TRIES_USED_UP:
            self._parts.meter.inc(m.PAST_MAX_TRIES, queue=self._name)
        elif event is Event.PARENT_FAILED:
            self._parts.meter.inc(m.DEPENDENCIES_FAILED)
        elif event is Event.TOO_LARGE:
            self._parts.meter.inc(m.TOO_LARGE, queue=self._name)

    async def _after_refusal(self, held: Held, lost: Lost) -> None:
        # Somebody else wrote. A final record is finished with, so that its item does not hold a slot for a lease;
        # in all other cases whoever wrote owns the item.
        stored = lost.stored
        self._parts.meter.inc(m.STOPPED if isinstance(lost, Stopped) else m.REFUSED, queue=self._name)
        if self._journal is not None:
            self._journal.of(held.claim, "lost", stopped=isinstance(lost, Stopped))
        if stored is None or stored.record is None or not stored.record.state.final:
            self._dropped("refused", held, "somebody else saved the task")
            return
        await self._endings.after_final(held, stored.record, stored.record)
        await self._endings.leave(held, stored.record, stored.sequence)

    def _dropped(self, why: str, held: Held, text: str) -> None:
        self._parts.meter.inc(m.DROPPED, queue=self._name, why=why)
        if self._journal is not None:
            self._journal.of(held.claim, "drop", why=why)
        _log.info("dropped an item: %s", text, extra=_fields(held))


def _named(held: Held) -> bool:
    return is_name(held.claim.task_id)


def _fields(held: Held) -> dict[str, str]:
    return {"task_id": held.claim.task_id, "queue": held.claim.queue, "item": str(held.claim.item)}
