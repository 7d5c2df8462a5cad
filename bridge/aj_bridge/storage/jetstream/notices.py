"""Events on core NATS, dead letters in their stream."""

import contextlib

from aj_bridge.storage.protocols import DeadLetter
from aj_sdk.errors import MessageTooLargeError, NoRespondersError, NotConnectedError, RefusedError
from aj_sdk.ids import new_id
from aj_sdk.jetstream import JetStream
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.headers import header_text
from aj_sdk.wire.names import DEAD_STREAM, dead_subject, task_event_subject
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import format_time

__all__ = ["JetStreamNotices"]

_HEADER_ROOM = 16 * 1024


class JetStreamNotices:
    """`Notices` over NATS.

    Args:
        jetstream: the API of the account.
    """

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream

    async def state_changed(self, record: TaskRecord, now_ns: int) -> None:
        """See `Notices`."""
        event = TaskStateEvent.of(record, new_id(), now_ns)
        with contextlib.suppress(NotConnectedError, MessageTooLargeError):
            await self._jetstream.transport.publish(task_event_subject(record.id), event.to_wire())

    async def bury(self, letter: DeadLetter) -> None:
        """See `Notices`."""
        headers = {
            "AJ-Dead-Reason": letter.reason,
            "AJ-Dead-Detail": header_text(letter.detail),
            "AJ-Dead-At": format_time(letter.at_ns),
            "AJ-Task-Type": header_text(letter.task_type),
            "AJ-Task-Tries": str(letter.tries),
        }
        body = letter.body
        room = self._jetstream.transport.max_payload - _HEADER_ROOM
        if len(body) > room:
            headers["AJ-Dead-Truncated"] = str(len(body))
            body = body[:room]
        subject = dead_subject(letter.reason, letter.queue, letter.task_id)
        try:
            await self._jetstream.publish(subject, body, headers)
        except NoRespondersError as err:
            raise RefusedError("storing a dead letter", 0, f"there is no stream {DEAD_STREAM}") from err
