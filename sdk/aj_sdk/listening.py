"""Hearing of tasks: events and progress as they come, and the end of one task.

What is heard is best effort; who waits for an end looks at the record too.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from aj_sdk.errors import DecodeError, NoRespondersError, NotConnectedError, OutcomeUnknownError
from aj_sdk.jetstream import JetStream
from aj_sdk.transport import Message
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.names import task_event_subject
from aj_sdk.wire.task import TaskRecord

__all__ = ["listening", "until_ended"]

_log: Final = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_LOOK_S: Final = 1.0
_LAST_LOOK_S: Final = 10.0
_WATCHED: Final = 10_000
"""Messages that wait for a listener that is slower than they come."""


@asynccontextmanager
async def listening(jetstream: JetStream, subject: str, read: Callable[[bytes], T]) -> AsyncIterator[AsyncIterator[T]]:
    """Listen to a subject while the block lasts.

    Args:
        jetstream: where.
        subject: what to listen to.
        read: reads a message; one that it refuses with a `DecodeError` is skipped.

    Raises:
        StoreError: there is no connection.
    """
    waiting: asyncio.Queue[T] = asyncio.Queue()

    def on_message(message: Message) -> None:
        try:
            found = read(message.data)
        except DecodeError as err:
            _log.debug("skipped a message on %s: %s", message.subject, err)
            return
        if waiting.qsize() >= _WATCHED:
            waiting.get_nowait()
        waiting.put_nowait(found)

    async def found() -> AsyncIterator[T]:
        while True:
            try:
                async with asyncio.timeout(_LAST_LOOK_S):
                    each = await waiting.get()
            except TimeoutError:
                # A connection that was closed for good tells nobody who only listens.
                if jetstream.transport.closed:
                    raise NotConnectedError("the NATS connection was closed for good") from None
                continue
            yield each

    subscription = await jetstream.transport.subscribe(subject, on_message)
    try:
        await jetstream.api_level()  # a round trip: now the server knows the subscription
        yield found()
    finally:
        await subscription.close()


async def until_ended(jetstream: JetStream, task_id: str, load: Callable[[str], Awaitable[TaskRecord]]) -> TaskRecord:
    """Wait until a task is final, for as long as it takes.

    Args:
        jetstream: where.
        task_id: the task.
        load: reads its record; what it raises ends the waiting, but where no answer came.

    Returns:
        The task as it has ended.

    Raises:
        StoreError: there is no connection.
    """
    ended = asyncio.Event()

    def on_event(message: Message) -> None:
        try:
            event = TaskStateEvent.from_wire(message.data)
        except DecodeError:
            return
        if event.state.final:
            ended.set()

    # Listening comes before reading: what happens in between is then heard. Events may get lost, so the record is
    # read again now and then.
    subscription = await jetstream.transport.subscribe(task_event_subject(task_id), on_event)
    try:
        pause = _FIRST_LOOK_S
        while True:
            ended.clear()
            try:
                record = await load(task_id)
            except (OutcomeUnknownError, NoRespondersError) as err:
                _log.debug("waiting for task %s: %s", task_id, err)
            else:
                if record.state.final:
                    return record
            try:
                async with asyncio.timeout(pause):
                    await ended.wait()
            except TimeoutError:
                pause = min(pause * 1.5, _LAST_LOOK_S)
    finally:
        await subscription.close()
