"""Events on core NATS, dead letters in their stream."""

from aj_sdk.dead import DeadLetters
from aj_sdk.errors import MessageTooLargeError, NotConnectedError
from aj_sdk.ids import new_id
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.names import attempts_subject, task_event_subject
from aj_sdk.wire.task import TaskRecord

__all__ = ["JetStreamNotices"]


class JetStreamNotices:
    """`Notices` over NATS.

    Args:
        jetstream: the API of the account.
    """

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
        self._dead = DeadLetters(jetstream, Store(jetstream))

    async def state_changed(self, record: TaskRecord, now_ns: int) -> None:
        """See `Notices`."""
        event = TaskStateEvent.of(record, new_id(), now_ns)
        try:  # noqa: SIM105 - `suppress` is three calls more, twice a task
            await self._jetstream.transport.publish(task_event_subject(record.id), event.to_wire())
        except (NotConnectedError, MessageTooLargeError):
            pass

    async def attempted(self, attempt: Attempt) -> None:
        """See `Notices`."""
        await self._jetstream.publish(attempts_subject(attempt.task_id), attempt.to_wire())

    async def bury(self, letter: DeadLetter) -> bool:
        """See `Notices`."""
        return await self._dead.bury(letter)

    async def buried(self, letter: DeadLetter) -> bool:
        """See `DeadLetters`."""
        return await self._dead.buried(letter)
