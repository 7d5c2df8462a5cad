"""What producers and bridges do with tasks in JetStream: load and save a record, publish an item, park an item.

Each call is one act with one meaning; when to do which is decided above. Nothing here retries, except where an answer
that did not come must be told from a refusal (`Store.save_surely`).
"""

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from aj_sdk.dependents import Dependents, EdgeIndex
from aj_sdk.edges import Edges
from aj_sdk.errors import (
    ConflictError,
    MessageTooLargeError,
    NoRespondersError,
    NotConnectedError,
    OutcomeUnknownError,
    QueueFullError,
    QueueNotFoundError,
    RefusedError,
    StoreError,
    TaskNotFoundError,
    TaskTooLargeError,
)
from aj_sdk.jetstream import (
    ALL_SUBJECTS,
    EXPECTED_LAST_SUBJECT_SEQUENCE,
    NO_MESSAGE_SPACE,
    STREAM_NOT_FOUND,
    WRONG_LAST_SEQUENCE,
    JetStream,
    StoredMessage,
)
from aj_sdk.transport import Headers
from aj_sdk.wire.frames import HeaderForm
from aj_sdk.wire.item import WorkItem
from aj_sdk.wire.names import (
    ATTEMPTS_STREAM,
    DELAYED_STREAM,
    H_DUE,
    H_ITEM,
    H_OWNER,
    TASK_PREFIX,
    TASKS_STREAM,
    attempts_subject,
    cancel_subject,
    fired_subject,
    item_subject,
    queue_stream,
    schedule_subject,
    task_subject,
)
from aj_sdk.wire.stamp import Stamp
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import format_time

__all__ = ["FIRED_TTL", "HEADROOM", "Place", "Standing", "Store", "no_task_store"]

HEADROOM: Final = 32 * 1024
"""What enqueue leaves free below max_payload: a record grows by its state, its error and its headers."""

FIRED_TTL: Final = "24h"
"""How long a fired item waits for room in a full queue (with a short time one was gone for good: seen)."""

_OWNED: Final = HeaderForm(EXPECTED_LAST_SUBJECT_SEQUENCE, H_OWNER, H_ITEM)
"""The headers of nearly all saves of a bridge."""

_FIRST: Final = HeaderForm(EXPECTED_LAST_SUBJECT_SEQUENCE).block(0)
"""The headers of a message that must be the first of its subject: a new record, an item."""

_SAVE_ATTEMPTS: Final = 3
_WAKE_ATTEMPTS: Final = 5


class Standing(msgspec.Struct, frozen=True):
    """A schedule that stands: it has not fired.

    Attributes:
        sequence: its sequence in the stream of waiting items.
        headers: its headers.
    """

    sequence: int
    headers: Mapping[str, str]


class Place(msgspec.Struct, frozen=True):
    """Where an item or a schedule of a task stands."""

    stream: str
    subject: str
    sequence: int


class Store:
    """Tasks, items and waiting items in JetStream.

    Args:
        jetstream: the API of the account.

    Attributes:
        edges: which task waits for which.
        dependents: what follows for those that wait.
    """

    def __init__(self, jetstream: JetStream) -> None:
        self.jetstream = jetstream
        self.edges: EdgeIndex = Edges(jetstream)
        self.dependents = Dependents(self.edges, self.wake_task)

    def now_ns(self) -> int:
        """Return what the wall clock shows, nanoseconds since the epoch."""
        return time.time_ns()

    async def load(self, task_id: str) -> Stored | None:
        """Read a task from the leader, None when there is none.

        Raises:
            InvalidNameError: not a task id.
            StoreError: the store failed.
        """
        with _task_store():
            message = await self.jetstream.last(TASKS_STREAM, task_subject(task_id))
        return None if message is None else _checked(_read(message), task_id)

    async def load_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        """Read many tasks; one that is absent was confirmed absent by the leader, a found one may be a little old.

        Raises:
            InvalidNameError: not a task id.
            StoreError: the store failed.
        """
        subjects = [task_subject(task_id) for task_id in dict.fromkeys(task_ids)]
        with _task_store():
            found = await self.jetstream.last_many(TASKS_STREAM, subjects)
        return {stored.task_id: stored for stored in map(_read, found.values())}

    async def scan(self, start: int = 1) -> AsyncIterator[Stored]:
        """Read all tasks, the one that was saved longest ago first.

        A save of just now may be missing, where a replica that lags answers.

        Args:
            start: begin with records that were saved at this stream sequence or later.

        Raises:
            StoreError: the store failed.
        """
        with _task_store():
            async for message in self.jetstream.scan(TASKS_STREAM, ALL_SUBJECTS, start):
                if message.subject.startswith(TASK_PREFIX):  # the stream has no others, unless somebody gave it some
                    yield _read(message)

    async def save(
        self, record: TaskRecord, *, expected: int, stamp: Stamp | None = None, ttl_s: int | None = None
    ) -> int:
        """Save a record under compare-and-set.

        Args:
            record: the task.
            expected: the sequence at which it was loaded or saved, 0 for one that is not stored.
            stamp: the owner, for a bridge's save.
            ttl_s: seconds after which this record goes, unless another is saved; None for no time of its own. The
                task store must allow it (`Admin.enable_task_ttls`).

        Returns:
            The record's new sequence.

        Raises:
            ConflictError: somebody else wrote.
            OutcomeUnknownError: no answer in time; it may be saved.
            TaskTooLargeError: the record does not fit a message.
            RefusedError: the stream said no.
        """
        return await self._save(record.id, record.to_wire(), expected, stamp, ttl_s)

    async def save_surely(self, record: TaskRecord, *, expected: int, stamp: Stamp | None = None) -> int:
        """Save a record; when no answer comes, find out what happened.

        Returns:
            The record's new sequence.

        Raises:
            ConflictError: somebody else wrote.
            OutcomeUnknownError: not even the look gave an answer, several times over.
            TaskTooLargeError: the record does not fit a message.
            RefusedError: the stream said no.
        """
        body = record.to_wire()
        for _ in range(_SAVE_ATTEMPTS):
            try:
                return await self._save(record.id, body, expected, stamp)
            except (OutcomeUnknownError, ConflictError) as err:
                # A conflict may be with our own earlier attempt, which was late.
                try:
                    stored = await self.load(record.id)
                except OutcomeUnknownError:
                    continue
                if stored is not None and stored.body == body and stored.stamp == stamp:
                    return stored.sequence
                if isinstance(err, ConflictError) or (0 if stored is None else stored.sequence) != expected:
                    raise ConflictError(record.id, expected) from err
        raise OutcomeUnknownError(f"saving task {record.id}")

    async def discard(self, task_id: str, sequence: int) -> None:
        """Remove a record, if it is still the one that was saved at this sequence.

        Raises:
            StoreError: the store failed.
        """
        with suppress(TaskNotFoundError, ConflictError):
            await self.remove(task_id, sequence)

    async def remove(self, task_id: str, sequence: int) -> None:
        """Remove a record, if it is still the one that was saved at this sequence.

        Raises:
            TaskNotFoundError: it is gone.
            ConflictError: somebody else wrote.
            StoreError: the store failed or said no.
        """
        try:
            await self.jetstream.delete_message(TASKS_STREAM, sequence)
        except RefusedError as err:
            # What servers say of a message that is gone differs; where it stands, the refusal is one.
            current = await self.load(task_id)
            if current is None:
                raise TaskNotFoundError(task_id) from err
            if current.sequence == sequence:
                raise
            raise ConflictError(task_id, sequence) from err

    async def _save(
        self, task_id: str, body: bytes, expected: int, stamp: Stamp | None, ttl_s: int | None = None
    ) -> int:
        if stamp is not None and ttl_s is None:
            headers: Headers = _OWNED.block(expected, stamp.owner, str(stamp.item))
        elif not expected and stamp is None and ttl_s is None:
            headers = _FIRST
        else:
            headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}
            if ttl_s is not None:
                headers["Nats-TTL"] = f"{ttl_s}s"
            if stamp is not None:
                headers |= stamp.headers()
        try:
            return await self.jetstream.publish(task_subject(task_id), body, headers)
        except MessageTooLargeError as err:
            raise TaskTooLargeError(task_id, err.size, err.limit) from err
        except RefusedError as err:
            if err.code in WRONG_LAST_SEQUENCE:
                raise ConflictError(task_id, expected) from err
            raise
        except NoRespondersError as err:
            raise no_task_store() from err

    async def publish_item(
        self, queue: str, task_id: str, *, replace: bool = False, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Put a task's item into its queue.

        Args:
            queue: the queue.
            task_id: the task.
            replace: take the place of an item that is there, which loses its lease; else that item stays.
            headers: headers of the item.

        Returns:
            Whether this call put it there; False when an item was there already.

        Raises:
            QueueNotFoundError: there is no such queue.
            QueueFullError: the queue holds as many items as it may.
            OutcomeUnknownError: no answer in time; it may be there.
            RefusedError: the stream said no.
        """
        if not replace:
            all_headers: Headers = {**headers, EXPECTED_LAST_SUBJECT_SEQUENCE: "0"} if headers else _FIRST
        else:
            all_headers = headers or {}
        try:
            await self.jetstream.publish(item_subject(queue, task_id), WorkItem(task_id).to_wire(), all_headers)
        except NoRespondersError as err:
            raise QueueNotFoundError(queue) from err
        except RefusedError as err:
            if err.code in WRONG_LAST_SEQUENCE and not replace:
                return False
            if err.code == NO_MESSAGE_SPACE:
                raise QueueFullError(queue, task_id) from err
            raise
        return True

    async def park_item(
        self,
        queue: str,
        task_id: str,
        due_ns: int,
        *,
        headers: Mapping[str, str] | None = None,
        replace: bool = True,
    ) -> int:
        """Store the schedule that puts a task's item into its queue when it is due; it takes the place of another.

        Args:
            queue: the queue.
            task_id: the task.
            due_ns: when, nanoseconds since the epoch; in the past means now.
            headers: headers of the item.
            replace: take the place of a schedule that stands; else that one stays.

        Returns:
            The schedule's sequence; 0 where another one stays.

        Raises:
            RefusedError: the stream said no, or there is none (server before 2.12).
            OutcomeUnknownError: no answer in time; it may be stored.
        """
        all_headers = {
            **(headers or {}),
            "Nats-Schedule": f"@at {format_time(due_ns)}",
            "Nats-Schedule-Target": fired_subject(queue, task_id),
            "Nats-Schedule-TTL": FIRED_TTL,
        }
        if not replace:
            all_headers[EXPECTED_LAST_SUBJECT_SEQUENCE] = "0"
        try:
            return await self.jetstream.publish(
                schedule_subject(queue, task_id), WorkItem(task_id).to_wire(), all_headers
            )
        except RefusedError as err:
            if err.code in WRONG_LAST_SEQUENCE and not replace:
                return 0
            raise
        except NoRespondersError as err:
            raise RefusedError("parking a task", 0, f"there is no stream {DELAYED_STREAM}") from err

    async def standing(self, queue: str, task_id: str) -> Standing | None:
        """Read a task's schedule, None when none stands."""
        try:
            message = await self.jetstream.last(DELAYED_STREAM, schedule_subject(queue, task_id))
        except RefusedError as err:
            if err.code == STREAM_NOT_FOUND:
                return None
            raise
        return None if message is None else Standing(message.sequence, message.headers)

    async def wake_item(
        self, queue: str, task_id: str, sequence: int, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Fire a schedule now; of several who try, and of the server, one wins.

        Returns:
            Whether this call fired it; False when it had fired, or was replaced or removed.

        Raises:
            RefusedError: the stream said no.
            OutcomeUnknownError: no answer in time; it may have fired.
        """
        subject = schedule_subject(queue, task_id)
        try:
            await self.jetstream.publish(
                fired_subject(queue, task_id),
                WorkItem(task_id).to_wire(),
                {
                    **(headers or {}),
                    "Nats-TTL": FIRED_TTL,
                    "Nats-Scheduler": subject,
                    "Nats-Schedule-Next": "purge",
                    EXPECTED_LAST_SUBJECT_SEQUENCE: str(sequence),
                    EXPECTED_LAST_SUBJECT_SEQUENCE + "-Subject": subject,
                },
            )
        except RefusedError as err:
            if err.code in WRONG_LAST_SEQUENCE:
                return False
            raise
        except NoRespondersError:
            return False
        return True

    async def wake_task(self, queue: str, task_id: str) -> bool:
        """Fire a task's schedule now, whichever stands; the time that it carries comes with the item.

        Not the word that an owner was silent: that one is to be asked a lease later, and not earlier.

        Returns:
            Whether this call fired it; False when none stands.

        Raises:
            RefusedError: the stream said no.
            OutcomeUnknownError: no answer in time; it may have fired.
        """
        for _ in range(_WAKE_ATTEMPTS):
            standing = await self.standing(queue, task_id)
            if standing is None:
                return False
            carried = {H_DUE: standing.headers[H_DUE]} if H_DUE in standing.headers else None
            if await self.wake_item(queue, task_id, standing.sequence, carried):
                return True
        return False  # it is stored anew again and again, by who looks at it each time

    async def find_items(self, queue: str, task_id: str) -> list[Place]:
        """Find where a task's item, its schedule and a fired copy stand.

        Raises:
            StoreError: the store failed.
        """
        places = []
        for stream, subject in (
            (DELAYED_STREAM, schedule_subject(queue, task_id)),
            (DELAYED_STREAM, fired_subject(queue, task_id)),
            (queue_stream(queue), item_subject(queue, task_id)),
        ):
            try:
                message = await self.jetstream.last(stream, subject)
            except RefusedError as err:
                if err.code == STREAM_NOT_FOUND:
                    continue
                raise
            if message is not None:
                places.append(Place(stream, subject, message.sequence))
        return places

    async def remove_items(self, places: Iterable[Place]) -> None:
        """Take items and schedules away that were found; what has taken the place of one survives.

        Raises:
            StoreError: the store failed.
        """
        for place in places:
            await self.jetstream.delete_standing(place.stream, place.subject, place.sequence)

    async def forget_attempts(self, task_id: str) -> None:
        """Remove what is known of the attempts at a task.

        Raises:
            StoreError: the store failed.
        """
        try:
            await self.jetstream.purge(ATTEMPTS_STREAM, attempts_subject(task_id))
        except RefusedError as err:
            if err.code != STREAM_NOT_FOUND:
                raise

    async def tell_bridges(self, task_id: str) -> None:
        """Tell the bridges that a task was taken from whoever is at work on it; best effort, the record decides."""
        with suppress(NotConnectedError):
            await self.jetstream.transport.publish(cancel_subject(task_id))

    async def remove_item(self, queue: str, task_id: str) -> None:
        """Take a task's item and schedule away, up to those that stand now; newer ones survive.

        Raises:
            StoreError: the store failed.
        """
        await self.remove_items(await self.find_items(queue, task_id))


def no_task_store() -> RefusedError:
    """Make the error for a task store that is not there."""
    return RefusedError("task store", STREAM_NOT_FOUND, "not found; `ajc task initialize` makes it")


@contextmanager
def _task_store() -> Iterator[None]:
    try:
        yield
    except RefusedError as err:
        if err.code == STREAM_NOT_FOUND:
            raise no_task_store() from err
        raise


def _read(message: StoredMessage) -> Stored:
    return Stored.read(message.subject, message.sequence, message.data, message.headers)


def _checked(stored: Stored, task_id: str) -> Stored:
    # Server look-ups accept wildcards; names are checked before, and what came is checked here.
    if stored.task_id != task_id:
        raise StoreError(f"asked for task {task_id}, the store gave {stored.task_id}")
    return stored
