"""What a sweeper asks of JetStream.

Never STREAM.INFO with the subjects of the task store: at a million tasks that took 17 s of the server's CPU (seen).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from aj_bridge.core.sweep import Whereabouts
from aj_bridge.storage.jetstream.acks import read_exhausted
from aj_bridge.storage.jetstream.notices import JetStreamNotices
from aj_bridge.storage.jetstream.reading import StreamReading
from aj_bridge.storage.protocols import SweptItem
from aj_sdk.admin import Admin
from aj_sdk.dependents import StoredEdge
from aj_sdk.edges import Edges
from aj_sdk.errors import OutcomeUnknownError, QueueNotFoundError, RefusedError, StoreError
from aj_sdk.jetstream import ALL_SUBJECTS, STREAM_NOT_FOUND, JetStream, StoredMessage
from aj_sdk.store import Store
from aj_sdk.transport import Message
from aj_sdk.wire.names import (
    CONSUMER,
    DELAYED_STREAM,
    QUEUE_STREAM_PREFIX,
    TASK_PREFIX,
    TASKS_STREAM,
    is_name,
    item_subject,
    queue_of_stream,
    queue_stream,
    schedule_subject,
    task_id_of_subject,
)
from aj_sdk.wire.queue import QueueSettings, read_settings
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["JetStreamSurvey", "open_survey"]

_log = logging.getLogger(__name__)

_EXHAUSTED: Final = "ADVISORY.CONSUMER.MAX_DELIVERIES"
_REMEMBERED: Final = 10_000
_READ_AGAIN_S: Final = 600.0
"""How long after a refused consumer none is tried."""


class _Progress(msgspec.Struct, frozen=True):
    """How far a queue's consumer has come."""

    delivered: int
    acked: int
    in_hand: int

    @classmethod
    def read(cls, info: Mapping[str, Any]) -> "_Progress":
        return cls(
            int((info.get("delivered") or {}).get("stream_seq", 0)),
            int((info.get("ack_floor") or {}).get("stream_seq", 0)),
            int(info.get("num_ack_pending") or 0),
        )

    def idle(self, sequence: int) -> bool:
        """Say whether nobody has an item in hand."""
        return sequence > self.delivered or self.behind(sequence)

    def behind(self, sequence: int) -> bool:
        """Say whether the consumer has done with an item."""
        return sequence <= self.acked or (sequence <= self.delivered and not self.in_hand)


class JetStreamSurvey:
    """`Survey` in JetStream; `open_survey` makes it.

    Args:
        jetstream: the API of the account.
    """

    def __init__(self, jetstream: JetStream) -> None:
        self._js = jetstream
        self._store = Store(jetstream)
        self._admin = Admin(jetstream, self._store)
        self._edges = Edges(jetstream)
        self.ended = self._store.dependents.ended
        self.removed = self._store.dependents.removed
        self._reading: StreamReading | None = None
        self._unread_until = 0.0
        self._exhausted: dict[tuple[str, int], None] = {}
        self.notices = JetStreamNotices(jetstream)

    def on_exhausted(self, message: Message) -> None:
        """Take down an advisory: the deliveries of an item are used up, and it stays where it is, unseen."""
        stream, sequence = read_exhausted(message.data) or ("", 0)
        if stream.startswith(QUEUE_STREAM_PREFIX):
            self._exhausted[queue_of_stream(stream), sequence] = None
            while len(self._exhausted) > _REMEMBERED:
                del self._exhausted[next(iter(self._exhausted))]

    async def last_sequence(self) -> int:
        """See `Survey`."""
        info = await self._js.stream_info(TASKS_STREAM)
        return 0 if info is None else int(info["state"]["last_seq"])

    async def scan(self, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """See `Survey`; by batched direct gets where no consumer may be made."""
        for kept in (self._reading is not None, False):
            reading = await self._open_reading(start)
            if reading is None:
                break
            try:
                async for message in reading.messages(end):
                    if message.subject.startswith(TASK_PREFIX):
                        yield Stored.read(message.subject, message.sequence, message.data, message.headers)
            except StoreError:
                await self.close()
                if not kept:
                    raise
                start = reading.position  # the server has forgotten it between two sweeps, or was started again
            else:
                return
        async for stored in self._store.scan(start):
            if stored.sequence > end:
                return
            yield stored

    async def _open_reading(self, start: int) -> StreamReading | None:
        """Give one that stands at a sequence; None where no consumer may be made."""
        if self._reading is not None and self._reading.position != start:
            await self.close()
        if self._reading is None and time.monotonic() >= self._unread_until:
            try:
                self._reading = await StreamReading.open(self._js, TASKS_STREAM, start)
            except (RefusedError, OutcomeUnknownError) as err:
                _log.info("the task store is read by direct gets: %s", err)
                self._unread_until = time.monotonic() + _READ_AGAIN_S
        return self._reading

    async def close(self) -> None:
        """Leave nothing behind on the server."""
        reading, self._reading = self._reading, None
        if reading is not None:
            await reading.close()

    async def load_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        """See `Survey`."""
        return await self._store.load_many(task_ids)

    async def queues(self) -> Mapping[str, QueueSettings]:
        """See `Survey`; a queue that is half made has the settings that its stream tells."""
        found = {}
        for name in await self._admin.queue_names():
            stream, consumer = await asyncio.gather(
                self._js.stream_info(queue_stream(name)), self._js.consumer_info(queue_stream(name), CONSUMER)
            )
            if stream is not None:
                config = {} if consumer is None else consumer["config"]
                found[name], _ = read_settings(name, stream["config"], config)
        return found

    async def locate(self, queue: str, task_ids: Sequence[str]) -> dict[str, Whereabouts]:
        """See `Survey`."""
        subjects = {item_subject(queue, task_id): task_id for task_id in task_ids}
        items = await self._last_many(queue_stream(queue), list(subjects))
        places = {
            subjects[subject]: Whereabouts(item=message.sequence)
            for subject, message in items.items()
            if subject in subjects
        }
        missing = {schedule_subject(queue, task_id): task_id for task_id in task_ids if task_id not in places}
        schedules = await self._last_many(DELAYED_STREAM, list(missing))
        for subject, task_id in missing.items():
            places[task_id] = Whereabouts(waits=subject in schedules)
        stranded = await self._stranded(queue, [place.item for place in places.values() if place.item])
        return {
            task_id: msgspec.structs.replace(place, stranded=place.item in stranded)
            for task_id, place in places.items()
        }

    async def items(self, queue: str, start: int, limit: int) -> list[SweptItem]:
        """See `Survey`."""
        found: list[tuple[str, int]] = []
        with contextlib.suppress(RefusedError):  # a queue that is being removed
            async for message in self._js.scan(queue_stream(queue), ALL_SUBJECTS, start):
                task_id = task_id_of_subject(message.subject)
                # One that names no task is quarantined by whoever it is handed to.
                if is_name(task_id) and message.subject == item_subject(queue, task_id):
                    found.append((task_id, message.sequence))
                if len(found) == limit:
                    break
        progress = await self._progress(queue)
        stranded = await self._stranded(queue, [sequence for _, sequence in found], progress)
        return [
            SweptItem(task_id, sequence, progress.idle(sequence), sequence in stranded) for task_id, sequence in found
        ]

    async def publish(self, queue: str, task_id: str) -> bool:
        """See `Survey`."""
        return await self._store.publish_item(queue, task_id)

    async def take_out(self, queue: str, task_id: str, sequence: int) -> None:
        """See `Survey`."""
        self._exhausted.pop((queue, sequence), None)
        await self._js.delete_standing(queue_stream(queue), item_subject(queue, task_id), sequence)

    async def save(self, record: TaskRecord, expected: int) -> int:
        """See `Survey`."""
        return await self._store.save_surely(record, expected=expected)

    async def edges(self, start: int, limit: int) -> list[StoredEdge]:
        """See `Survey`."""
        return await self._edges.some(start, limit)

    async def drop_edge(self, edge: StoredEdge) -> None:
        """See `Survey`."""
        await self._edges.drop_standing(edge)

    async def _progress(self, queue: str) -> _Progress:
        info = await self._js.consumer_info(queue_stream(queue), CONSUMER)
        # Without a consumer nobody is handed anything, but the next one will begin with the first item.
        return _Progress(0, 0, 0) if info is None else _Progress.read(info)

    async def _stranded(self, queue: str, sequences: Sequence[int], progress: _Progress | None = None) -> set[int]:
        if not sequences:
            return set()
        progress = progress or await self._progress(queue)
        behind = [sequence for sequence in sequences if progress.behind(sequence)]
        told = {sequence for sequence in sequences if (queue, sequence) in self._exhausted}
        # An acknowledged item that was read before it went is not stranded: look again.
        still = await asyncio.gather(*(self._stands(queue, sequence) for sequence in behind))
        return told | {sequence for sequence, stands in zip(behind, still, strict=True) if stands}

    async def _stands(self, queue: str, sequence: int) -> bool:
        message = await self._js.at(queue_stream(queue), sequence)
        return message is not None

    async def _last_many(self, stream: str, subjects: Sequence[str]) -> dict[str, StoredMessage]:
        try:
            return await self._js.last_many(stream, subjects)
        except RefusedError as err:
            if err.code == STREAM_NOT_FOUND:
                if stream != DELAYED_STREAM:
                    raise QueueNotFoundError(queue_of_stream(stream)) from err
                return {}
            raise


@asynccontextmanager
async def open_survey(jetstream: JetStream) -> AsyncIterator[JetStreamSurvey]:
    """Make a survey that hears of items whose deliveries are used up.

    Raises:
        StoreError: the connection failed.
    """
    survey = JetStreamSurvey(jetstream)
    subject = f"{jetstream.event_prefix}.{_EXHAUSTED}.*.{CONSUMER}"
    subscription = await jetstream.transport.subscribe(subject, survey.on_exhausted)
    try:
        yield survey
    finally:
        await survey.close()
        await subscription.close()
