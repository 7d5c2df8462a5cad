"""Listening for cancelled tasks: `CHORIA_AJ.C.<task id>`, and who is told of them here.

The message says that a record was changed, and nothing more: whether a call has to stop is read from the record.
"""

import asyncio
from collections.abc import Callable, Iterable

from aj_sdk.transport import Message, Transport
from aj_sdk.wire.names import CANCEL_SUBJECTS, task_id_of_subject

__all__ = ["Cancels"]


class Cancels:
    """The duty that listens.

    Args:
        transport: the connection.
        told: called with the id of each task that somebody cancelled, took away or started over; must be quick.
    """

    name = "cancels"

    def __init__(self, transport: Transport, told: Iterable[Callable[[str], None]]) -> None:
        self._transport = transport
        self._told = tuple(told)

    async def run(self) -> None:
        """See `Duty`."""
        subscription = await self._transport.subscribe(CANCEL_SUBJECTS, self._on_message)
        try:
            await asyncio.Event().wait()
        finally:
            await subscription.close()

    def _on_message(self, message: Message) -> None:
        task_id = task_id_of_subject(message.subject)
        for tell in self._told:
            tell(task_id)
