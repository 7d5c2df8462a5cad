"""What the engine asks of storage, in the queue's words. No type of JetStream's appears here.

`tests/contract` is one suite that every storage passes.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

import msgspec

from aj_bridge.core.claim import Claim, not_before_ns
from aj_bridge.core.sweep import Whereabouts
from aj_sdk.dependents import EdgeIndex, StoredEdge
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import Stamp
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["Items", "Notices", "Parked", "Pulse", "Records", "Storage", "Survey", "SweptItem", "Waiting"]


class Records(Protocol):
    """The task records, under compare-and-set."""

    async def load(self, task_id: str) -> Stored | None:
        """Read a record as its last writer left it, None when there is none.

        Raises:
            StoreError: the store failed.
        """

    async def load_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        """Read records; one that is absent is certainly absent, a found one may be a little old.

        Raises:
            StoreError: the store failed.
        """

    async def save(self, record: TaskRecord, *, expected: int, stamp: Stamp, ttl_s: int | None = None) -> int:
        """Save a record once, and return its new sequence.

        Args:
            record: the task.
            expected: the sequence at which it was loaded or saved.
            stamp: the owner.
            ttl_s: seconds after which this record goes, unless another is saved; None for no time of its own.

        Raises:
            ConflictError: somebody else wrote since `expected`.
            OutcomeUnknownError: no answer in time; it may be saved.
            TaskTooLargeError: the record does not fit.
            StoreError: the store said no, or is not there.
        """

    async def discard(self, task_id: str, sequence: int) -> None:
        """Remove a record, if it is still the one that was saved at this sequence.

        Raises:
            StoreError: the store failed.
        """


class Items(Protocol):
    """The work items of one queue."""

    @property
    def settings(self) -> QueueSettings:
        """The queue's settings as they are now; never to be kept, they may be configured at any time."""

    @property
    def ack_wait_ns(self) -> int:
        """How long an item stays with its owner without a sign of life: the lease."""

    @property
    def more(self) -> bool:
        """Whether more items may be there than came: a backlog is known of, or nothing is known yet."""

    def want(self, free: int) -> None:
        """Say how many more items can be started now; no more than that are asked for."""

    @property
    def asked(self) -> int:
        """How many items were asked for and have not come."""

    async def take_back(self) -> None:
        """Take back what was asked for and did not come; `want` asks anew."""

    async def next(self) -> list[Claim]:
        """Wait for items; all that came together are given together.

        They use up what was wanted: say it again with `want`.
        """

    async def close(self) -> list[Claim]:
        """Take no more; return the claims that came and were not taken."""

    async def ack(self, claim: Claim) -> None:
        """Take the item out of the queue, without waiting for the confirmation.

        Lost on the way, the item comes again and meets a final record.
        """

    async def ack_surely(self, claim: Claim) -> None:
        """Take the item out of the queue; returns when the server has taken it down.

        Raises:
            StoreError: no confirmation in time.
        """

    async def renew(self, claim: Claim) -> None:
        """Prove that the claim is alive; returns when the server has taken it down.

        Raises:
            StoreError: no confirmation in time.
        """

    async def give_back(self, claim: Claim) -> None:
        """Let somebody else have the item at once."""

    async def discard(self, claim: Claim, reason: str) -> None:
        """Take an item out that can't be processed."""

    def watch_dropped(self, callback: Callable[[int], None]) -> AbstractAsyncContextManager[None]:
        """While inside, call back with the sequence of each item that went while it was in flight, without an ack.

        A queue that discards old items drops them, to make room; but whatever takes an item away is told.
        """

    async def put_back(self, claim: Claim) -> bool:
        """Put the item of a claim in hand into the queue again, unless the task has one there; returns whether it did.

        Raises:
            StoreError: the store failed.
        """


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """An item that waits, or is about to.

    Attributes:
        queue: its queue.
        task_id: its task.
        due_ns: when it comes back, nanoseconds since the epoch.
        sequence: sequence of its schedule, of its item where it waits inside the queue.
        silent: the `AJ-Silent` text that it comes back with.
        not_before_ns: the task is not to run before that, even when it comes back earlier; 0 for no such time.
    """

    queue: str
    task_id: str
    due_ns: int
    sequence: int = 0
    silent: str = ""
    not_before_ns: int = 0

    @classmethod
    def of(cls, claim: Claim, due_ns: int, silent: str) -> Self:
        """Return what becomes of a claim that is parked; a schedule's sequence is not known before it is stored."""
        return cls(
            queue=claim.queue,
            task_id=claim.task_id,
            due_ns=due_ns,
            sequence=claim.item.sequence,
            silent=silent,
            not_before_ns=not_before_ns(claim, due_ns),
        )


class Waiting(Protocol):
    """The items that wait."""

    @property
    def schedules(self) -> bool:
        """Whether items wait outside the queue; else they stay in it and come back with a delay."""

    async def park(self, claim: Claim, due_ns: int, silent: str = "") -> Parked:
        """Make sure that the item will come back; the claim is still held.

        Raises:
            StoreError: the store failed; nothing changed, or a schedule stands that does no harm.
        """

    async def leave(self, claim: Claim, parked: Parked) -> None:
        """Let go of a claim whose item is parked."""

    async def standing(self, queue: str, task_id: str) -> bool:
        """Say whether the task's item waits and is not due.

        Raises:
            StoreError: the store failed.
        """

    async def wake(self, parked: Parked) -> bool:
        """Bring a parked item back now; of several who try, one wins.

        Raises:
            StoreError: the store failed.
        """

    async def wake_task(self, queue: str, task_id: str) -> bool:
        """Bring back the item of a task that waits for others, whoever parked it, in whichever queue.

        Returns:
            Whether one was brought back; False when none waits.

        Raises:
            StoreError: the store failed.
        """


class Notices(Protocol):
    """What is told to others."""

    async def state_changed(self, record: TaskRecord, now_ns: int) -> None:
        """Publish a task's new state; best effort."""

    async def attempted(self, attempt: Attempt) -> None:
        """Store an attempt at a task; best effort.

        Raises:
            StoreError: the store failed.
        """

    async def bury(self, letter: DeadLetter) -> bool:
        """Store a dead letter; returns when it is stored.

        One of a record that can't be read is stored once, whoever finds the record, and under whichever queue.

        Returns:
            Whether it was stored; False where the same record has a letter.

        Raises:
            StoreError: the store failed.
        """


class Pulse(Protocol):
    """Whether the storage can be reached, and since when what comes from it can have been under way."""

    @property
    def since(self) -> float:
        """When the last answered sign of life was sent, seconds of the monotonic clock.

        What is received now was sent after it: a process that stood still reads old deliveries from its socket.
        """

    @property
    def standstills(self) -> int:
        """How often we stood still or were cut off for longer than another bridge waits for an answer."""

    async def beat(self) -> None:
        """Send a sign of life now, and return when one was answered, however long that takes."""


class Storage(Protocol):
    """All of it, for one queue."""

    async def refresh(self) -> None:
        """Read the queue's settings again, and set right what stands in the way of serving it.

        Raises:
            QueueNotFoundError: there is no such queue any more; it may be made again.
            StoreError: the store failed.
        """

    @property
    def pulse(self) -> Pulse:
        """The storage's sign of life."""

    @property
    def records(self) -> Records:
        """The task records."""

    @property
    def items(self) -> Items:
        """The queue's items."""

    @property
    def waiting(self) -> Waiting:
        """The queue's waiting items."""

    @property
    def edges(self) -> EdgeIndex:
        """Which task waits for which."""

    @property
    def notices(self) -> Notices:
        """Events and dead letters."""


class SweptItem(msgspec.Struct, frozen=True):
    """An item that stands in a queue.

    Attributes:
        task_id: the task that its subject names.
        sequence: its sequence.
        idle: whether nobody has it in hand.
        stranded: see `Whereabouts`.
    """

    task_id: str
    sequence: int
    idle: bool
    stranded: bool


class Survey(Protocol):
    """What a sweeper asks of storage: all tasks and all queues, at a cost that it can bound."""

    async def last_sequence(self) -> int:
        """Return the sequence of the last record that was saved.

        Raises:
            StoreError: the store failed.
        """

    def scan(self, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """Read the records that were last saved from one sequence to another, in that order; to be closed.

        One that was saved again while they are read may be given as it was before.

        Raises:
            StoreError: the store failed.
        """

    async def load_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        """See `Records`."""

    async def queues(self) -> Mapping[str, QueueSettings]:
        """Return the settings of all queues.

        Raises:
            StoreError: the store failed.
        """

    async def locate(self, queue: str, task_ids: Sequence[str]) -> dict[str, Whereabouts]:
        """Find where the items of a queue's tasks stand; each task has an entry.

        Raises:
            StoreError: the store failed.
        """

    async def items(self, queue: str, start: int, limit: int) -> list[SweptItem]:
        """Read some of a queue's items, from a sequence on, in their order.

        Raises:
            StoreError: the store failed.
        """

    async def publish(self, queue: str, task_id: str) -> bool:
        """Put a task's item into its queue, unless one is there; returns whether it did.

        Raises:
            QueueNotFoundError: there is no such queue.
            QueueFullError: it is full.
            StoreError: the store failed.
        """

    async def take_out(self, queue: str, task_id: str, sequence: int) -> None:
        """Take an item out, if it still stands at this sequence.

        Raises:
            StoreError: the store failed.
        """

    async def save(self, record: TaskRecord, expected: int) -> int:
        """Save a record under compare-and-set.

        Raises:
            ConflictError: somebody else wrote.
            StoreError: the store failed.
        """

    async def ended(self, record: TaskRecord) -> None:
        """Tell those that wait for a task that has ended, and forget what it waited for.

        Raises:
            StoreError: the store failed.
        """

    async def removed(self, parent_id: str) -> int:
        """Let those look that wait for a task whose record is gone; returns how many were brought back for that.

        Raises:
            StoreError: the store failed.
        """

    async def edges(self, start: int, limit: int) -> list[StoredEdge]:
        """Read some of the edges between tasks, from a sequence on, in their order.

        Raises:
            StoreError: the store failed.
        """

    async def drop_edge(self, edge: StoredEdge) -> None:
        """Remove an edge, if it still stands at this sequence.

        Raises:
            StoreError: the store failed.
        """

    @property
    def notices(self) -> Notices:
        """Events and dead letters."""
