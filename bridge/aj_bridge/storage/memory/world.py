"""What the bridges share, in memory: task records, queues, schedules, dead letters, events."""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec

from aj_bridge.storage.memory.edges import EdgeTable
from aj_bridge.storage.memory.queue import WorkQueue
from aj_sdk.errors import ConflictError, QueueNotFoundError, TaskTooLargeError
from aj_sdk.streams import ATTEMPTS_KEPT
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.names import task_subject
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.times import NS_PER_S

__all__ = ["MemoryWorld"]

_EPOCH_NS: Final = 1_767_225_600 * NS_PER_S
"""What the wall clock shows when the loop's is at 0, where no other clock is given."""

_MAX_PAYLOAD: Final = 1024 * 1024


def _loop_clock() -> int:
    return _EPOCH_NS + int(asyncio.get_running_loop().time() * NS_PER_S)


class _Kept(msgspec.Struct, frozen=True):
    sequence: int
    body: bytes
    stamp: Stamp | None


class _Schedule(msgspec.Struct, frozen=True):
    sequence: int
    due_ns: int
    silent: str
    not_before_ns: int
    timer: asyncio.TimerHandle


class MemoryWorld:
    """What the bridges share: records, queues, schedules, dead letters.

    Attributes:
        saved: called with each record that was saved.
        told: called with each event.
        attempts: the newest 50 of each task.
        dead: dead letters by reason, queue and task.
        edges: which task waits for which.

    Args:
        now_ns: the wall clock, nanoseconds since the epoch; None for one that runs with the loop.
        max_payload: the most bytes that a record may have.
    """

    def __init__(self, now_ns: Callable[[], int] | None = None, max_payload: int = _MAX_PAYLOAD) -> None:
        self.now_ns = now_ns or _loop_clock
        self.max_payload = max_payload
        self.saved: Callable[[Stored], None] = lambda _stored: None
        self.told: Callable[[TaskStateEvent], None] = lambda _event: None
        self.attempts: dict[str, deque[Attempt]] = {}
        self.dead: dict[tuple[str, str, str], DeadLetter] = {}
        self._records: dict[str, _Kept] = {}
        self._queues: dict[str, WorkQueue] = {}
        self._schedules: dict[tuple[str, str], _Schedule] = {}
        self.edges = EdgeTable()
        self._record_numbers = count(1)
        self._schedule_numbers = count(1)

    # What producers and administrators do.

    def add_queue(self, settings: QueueSettings) -> None:
        """Make a queue; one that is there stays as it is."""
        self._queues.setdefault(settings.name, WorkQueue(settings))

    def remove_queue(self, name: str) -> None:
        """Remove a queue with its items."""
        removed = self._queues.pop(name, None)
        if removed is not None:
            removed.clear()

    def queue(self, name: str) -> WorkQueue:
        """Return a queue.

        Raises:
            QueueNotFoundError: there is no such queue.
        """
        found = self._queues.get(name)
        if found is None:
            raise QueueNotFoundError(name)
        return found

    def put(
        self,
        task_id: str,
        body: bytes,
        *,
        expected: int | None = None,
        stamp: Stamp | None = None,
        ttl_s: int | None = None,
    ) -> int:
        """Save a record, under compare-and-set where `expected` is given.

        Raises:
            ConflictError: somebody else wrote.
            TaskTooLargeError: it is bigger than a record may be.
        """
        if len(body) > self.max_payload:
            raise TaskTooLargeError(task_id, len(body), self.max_payload)
        current = self._records.get(task_id)
        if expected is not None and expected != (0 if current is None else current.sequence):
            raise ConflictError(task_id, expected)
        kept = _Kept(next(self._record_numbers), body, stamp)
        self._records[task_id] = kept
        self.saved(_read(task_id, kept))
        if ttl_s is not None:
            asyncio.get_running_loop().call_later(ttl_s, self.remove, task_id, kept.sequence)
        return kept.sequence

    def get(self, task_id: str) -> Stored | None:
        """Read a record, None when there is none."""
        kept = self._records.get(task_id)
        return None if kept is None else _read(task_id, kept)

    @property
    def last_sequence(self) -> int:
        """Sequence of the record that was saved last, 0 when there is none."""
        return max((kept.sequence for kept in self._records.values()), default=0)

    def since(self, start: int) -> list[Stored]:
        """Return the records that were saved at this sequence or later, in that order."""
        found = [_read(task_id, kept) for task_id, kept in self._records.items() if kept.sequence >= start]
        return sorted(found, key=lambda stored: stored.sequence)

    def settings(self) -> dict[str, QueueSettings]:
        """Return the settings of all queues."""
        return {name: queue.settings for name, queue in self._queues.items()}

    def remove(self, task_id: str, sequence: int | None = None) -> None:
        """Remove a record, where a sequence is given only the one that was saved at it."""
        current = self._records.get(task_id)
        if current is not None and sequence in (None, current.sequence):
            del self._records[task_id]

    def bury(self, letter: DeadLetter) -> bool:
        """Store a dead letter, as `DeadLetters.bury` does."""
        if letter.sequence is not None and any(
            other.task_id == letter.task_id and other.sequence == letter.sequence for other in self.dead.values()
        ):
            return False
        self.dead[letter.reason, letter.queue, letter.task_id] = letter
        return True

    def attempted(self, attempt: Attempt) -> None:
        """Take down an attempt at a task."""
        self.attempts.setdefault(attempt.task_id, deque(maxlen=ATTEMPTS_KEPT)).append(attempt)

    def publish(self, queue: str, task_id: str, body: bytes | None = None, *, replace: bool = False) -> bool:
        """Put a task's item into its queue, as `Store.publish_item` does.

        Raises:
            QueueNotFoundError: there is no such queue.
            QueueFullError: it is full, and discards new items.
        """
        return self.queue(queue).publish(task_id, body, expected=None if replace else 0)

    def schedule(self, queue: str, task_id: str, due_ns: int, silent: str = "", not_before_ns: int = 0) -> int:
        """Store the schedule of a task's item, in place of another; returns its sequence.

        Raises:
            QueueNotFoundError: there is no such queue.
        """
        self.queue(queue)
        key = (queue, task_id)
        replaced = self._schedules.pop(key, None)
        if replaced is not None:
            replaced.timer.cancel()
        sequence = next(self._schedule_numbers)
        timer = asyncio.get_running_loop().call_later(
            max(0, due_ns - self.now_ns()) / NS_PER_S, self.fire, queue, task_id, sequence
        )
        self._schedules[key] = _Schedule(sequence, due_ns, silent, not_before_ns, timer)
        return sequence

    def standing(self, queue: str, task_id: str) -> int | None:
        """Say when a task's schedule is due, None when none stands."""
        schedule = self._schedules.get((queue, task_id))
        return None if schedule is None else schedule.due_ns

    def schedule_of(self, queue: str, task_id: str) -> int | None:
        """Return the sequence of a task's schedule, None when none stands."""
        schedule = self._schedules.get((queue, task_id))
        return None if schedule is None else schedule.sequence

    def unschedule(self, queue: str, task_id: str, below: int) -> None:
        """Take a task's schedule away, if its sequence lies below."""
        schedule = self._schedules.get((queue, task_id))
        if schedule is not None and schedule.sequence < below:
            schedule.timer.cancel()
            del self._schedules[queue, task_id]

    def wake(self, queue: str, task_id: str) -> bool:
        """Fire a task's schedule now, whichever stands, but not that an owner was silent; False when none does."""
        schedule = self._schedules.get((queue, task_id))
        return schedule is not None and self.fire(queue, task_id, schedule.sequence, silence=False)

    def wake_inside(self, queue: str, task_id: str) -> bool:
        """As `wake`, where items wait inside their queue: publish the item of a blocked task anew."""
        if self.wake(queue, task_id):
            return True
        stored, item = self.get(task_id), self.queue(queue).item_of(task_id)
        if item is None or stored is None or stored.record is None or stored.record.state is not TaskState.BLOCKED:
            return False
        return self.queue(queue).publish(task_id, due_ns=item.due_ns)

    def fire(self, queue: str, task_id: str, sequence: int, *, silence: bool = True) -> bool:
        """Put a scheduled item into its queue, if this very schedule still stands.

        Args:
            queue: the queue.
            task_id: the task.
            sequence: the schedule.
            silence: whether the item brings back that an owner was silent.
        """
        schedule = self._schedules.get((queue, task_id))
        if schedule is None or schedule.sequence != sequence:
            return False
        del self._schedules[queue, task_id]
        schedule.timer.cancel()
        self.queue(queue).source(task_id, silent=schedule.silent if silence else "", due_ns=schedule.not_before_ns)
        return True


def _read(task_id: str, kept: _Kept) -> Stored:
    headers = {} if kept.stamp is None else kept.stamp.headers()
    return Stored.read(task_subject(task_id), kept.sequence, kept.body, headers)
