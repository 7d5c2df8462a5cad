"""The seams of a queue's work with a journal behind them: each passes everything on, and writes down what came of it.

Made only where a journal is kept; elsewhere the engine speaks to the storage itself, and nothing of this costs.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from aj_bridge.core.claim import Claim
from aj_bridge.core.deliver import Holder
from aj_bridge.engine.dispatch import Dispatch
from aj_bridge.engine.journal import Journal
from aj_bridge.engine.peers import Peers
from aj_bridge.engine.router import Invocation, Nobody, Outcome, RouteKind
from aj_bridge.storage.protocols import Items, Notices, Parked, Pulse, Records, Storage, Waiting
from aj_sdk.dependents import EdgeIndex
from aj_sdk.errors import ConflictError, OutcomeUnknownError, StoreError
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["JournaledDispatch", "JournaledPeers", "JournaledStorage", "journaled"]


def journaled(dispatch: Mapping[RouteKind, Dispatch], journal: Journal) -> dict[RouteKind, Dispatch]:
    """Return ways to handlers whose calls are written down."""
    return {kind: JournaledDispatch(each, journal) for kind, each in dispatch.items()}


class _Records:
    """`Records`, written down."""

    def __init__(self, records: Records, queue: str, journal: Journal) -> None:
        self._records = records
        self._queue = queue
        self._journal = journal

    async def load(self, task_id: str) -> Stored | None:
        """See `Records`."""
        stored = await self._records.load(task_id)
        self._loaded(task_id, stored)
        return stored

    async def load_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        """See `Records`."""
        wanted = list(task_ids)
        found = await self._records.load_many(wanted)
        for task_id in wanted:
            self._loaded(task_id, found.get(task_id))
        return found

    def _loaded(self, task_id: str, stored: Stored | None) -> None:
        told: dict[str, Any] = {}
        if stored is not None:
            state = "unreadable" if stored.record is None else stored.record.state.value
            told = {"sequence": stored.sequence, "state": state}
            if stored.stamp is not None:
                told |= {"owner": stored.stamp.owner, "owned_item": str(stored.stamp.item)}
        self._journal.note("load", queue=self._queue, task=task_id, **told)

    async def save(self, record: TaskRecord, *, expected: int, stamp: Stamp, ttl_s: int | None = None) -> int:
        """See `Records`."""
        told: dict[str, Any] = {"state": record.state.value, "tries": record.tries, "expected": expected}
        outcome: dict[str, Any] = {"outcome": "failed"}
        try:
            sequence = await self._records.save(record, expected=expected, stamp=stamp, ttl_s=ttl_s)
            outcome = {"outcome": "accepted", "sequence": sequence}
        except ConflictError:
            outcome = {"outcome": "refused"}
            raise
        except OutcomeUnknownError:
            outcome = {"outcome": "unknown"}
            raise
        finally:
            self._journal.note("save", queue=self._queue, task=record.id, item=stamp.item, **told, **outcome)
        return sequence

    async def discard(self, task_id: str, sequence: int) -> None:
        """See `Records`."""
        await self._records.discard(task_id, sequence)
        self._journal.note("discard", queue=self._queue, task=task_id, sequence=sequence)


class _Items:
    """`Items`, written down."""

    def __init__(self, items: Items, journal: Journal) -> None:
        self._items = items
        self._journal = journal
        self.want = items.want
        self.take_back = items.take_back
        self.close = items.close

    @property
    def settings(self) -> QueueSettings:
        """See `Items`."""
        return self._items.settings

    @property
    def ack_wait_ns(self) -> int:
        """See `Items`."""
        return self._items.ack_wait_ns

    @property
    def more(self) -> bool:
        """See `Items`."""
        return self._items.more

    @property
    def asked(self) -> int:
        """See `Items`."""
        return self._items.asked

    async def next(self) -> list[Claim]:
        """See `Items`."""
        claims = await self._items.next()
        for claim in claims:
            self._journal.of(claim, "claim", fired=claim.fired)
        return claims

    async def ack(self, claim: Claim) -> None:
        """See `Items`."""
        await self._items.ack(claim)
        self._journal.of(claim, "ack")

    async def ack_surely(self, claim: Claim) -> None:
        """See `Items`."""
        await self._items.ack_surely(claim)
        self._journal.of(claim, "ack", surely=True)

    async def renew(self, claim: Claim) -> None:
        """See `Items`."""
        sent = self._journal.monotonic()
        try:
            await self._items.renew(claim)
        except StoreError:
            self._journal.of(claim, "progress", outcome="failed", sent=sent)
            raise
        self._journal.of(claim, "progress", outcome="confirmed", sent=sent)

    async def give_back(self, claim: Claim) -> None:
        """See `Items`."""
        await self._items.give_back(claim)
        self._journal.of(claim, "nak")

    async def discard(self, claim: Claim, reason: str) -> None:
        """See `Items`."""
        await self._items.discard(claim, reason)
        self._journal.of(claim, "term")

    def watch_dropped(self, callback: Callable[[int], None]) -> AbstractAsyncContextManager[None]:
        """See `Items`."""
        return self._items.watch_dropped(callback)

    async def put_back(self, claim: Claim) -> bool:
        """See `Items`."""
        done = await self._items.put_back(claim)
        self._journal.of(claim, "put_back", done=done)
        return done


class _Waiting:
    """`Waiting`, written down."""

    def __init__(self, waiting: Waiting, journal: Journal) -> None:
        self._waiting = waiting
        self._journal = journal

    @property
    def schedules(self) -> bool:
        """See `Waiting`."""
        return self._waiting.schedules

    async def park(self, claim: Claim, due_ns: int, silent: str = "") -> Parked:
        """See `Waiting`."""
        parked = await self._waiting.park(claim, due_ns, silent)
        self._journal.of(claim, "park", due=due_ns, sequence=parked.sequence)
        return parked

    async def leave(self, claim: Claim, parked: Parked) -> None:
        """See `Waiting`."""
        await self._waiting.leave(claim, parked)
        self._journal.of(claim, "leave")

    async def standing(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        standing = await self._waiting.standing(queue, task_id)
        self._journal.note("look", queue=queue, task=task_id, standing=standing)
        return standing

    async def wake(self, parked: Parked) -> bool:
        """See `Waiting`."""
        won = await self._waiting.wake(parked)
        self._journal.note("wake", queue=parked.queue, task=parked.task_id, won=won)
        return won

    async def wake_task(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        won = await self._waiting.wake_task(queue, task_id)
        self._journal.note("wake", queue=queue, task=task_id, won=won)
        return won


class _Notices:
    """`Notices`, written down."""

    def __init__(self, notices: Notices, queue: str, journal: Journal) -> None:
        self._notices = notices
        self._queue = queue
        self._journal = journal

    async def state_changed(self, record: TaskRecord, now_ns: int) -> None:
        """See `Notices`."""
        await self._notices.state_changed(record, now_ns)
        self._journal.note("event", queue=self._queue, task=record.id, state=record.state.value, tries=record.tries)

    async def attempted(self, attempt: Attempt) -> None:
        """See `Notices`."""
        await self._notices.attempted(attempt)
        self._journal.note("attempt", queue=self._queue, task=attempt.task_id, outcome=attempt.outcome.value)

    async def bury(self, letter: DeadLetter) -> bool:
        """See `Notices`."""
        stored = await self._notices.bury(letter)
        self._journal.note("dead_letter", queue=self._queue, task=letter.task_id, reason=letter.reason)
        return stored


class JournaledStorage:
    """`Storage` of one queue, written down.

    Args:
        storage: the queue.
        journal: where to.
    """

    def __init__(self, storage: Storage, journal: Journal) -> None:
        queue = storage.items.settings.name
        self._storage = storage
        self._journal = journal
        self._waiting = _Waiting(storage.waiting, journal)
        self._of = storage.waiting
        self.refresh = storage.refresh
        self.records = _Records(storage.records, queue, journal)
        self.items = _Items(storage.items, journal)
        self.notices = _Notices(storage.notices, queue, journal)

    @property
    def pulse(self) -> Pulse:
        """See `Storage`."""
        return self._storage.pulse

    @property
    def edges(self) -> EdgeIndex:
        """See `Storage`."""
        return self._storage.edges

    @property
    def waiting(self) -> _Waiting:
        """See `Storage`; how items wait may change while the queue is served."""
        if self._storage.waiting is not self._of:
            self._of = self._storage.waiting
            self._waiting = _Waiting(self._of, self._journal)
        return self._waiting


class JournaledDispatch:
    """`Dispatch`, written down."""

    def __init__(self, dispatch: Dispatch, journal: Journal) -> None:
        self._dispatch = dispatch
        self._journal = journal

    async def call(self, invocation: Invocation) -> Outcome:
        """See `Dispatch`."""
        task = invocation.task
        told: dict[str, Any] = {"invocation": invocation.id, "try": task.tries}
        self._journal.note("call", queue=task.queue, task=task.id, **told)
        outcome = "broken off"
        try:
            ended = await self._dispatch.call(invocation)
            outcome = type(ended).__name__.lower()
        except Nobody:
            outcome = "nobody"
            raise
        finally:
            self._journal.note("reply", queue=task.queue, task=task.id, **told, outcome=outcome)
        return ended


class JournaledPeers:
    """`Peers`, written down."""

    def __init__(self, peers: Peers, journal: Journal) -> None:
        self._peers = peers
        self._journal = journal

    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        """See `Peers`."""
        answer = await self._peers.ask(owner, task_id, item)
        self._journal.note("ask", task=task_id, item=item, owner=owner, answer=answer.value)
        return answer
