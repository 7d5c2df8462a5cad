"""Telling others how far a call has come: `CHORIA_AJ.P.<task id>`, best effort."""

import asyncio
import contextlib
from typing import Final

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.router import Invocation
from aj_sdk.errors import NotConnectedError
from aj_sdk.transport import Transport
from aj_sdk.wire.headers import header_text
from aj_sdk.wire.interim import MAX_NOTE, Interim, Progress
from aj_sdk.wire.names import progress_subject

__all__ = ["ProgressTeller"]

_MOST_ON_THEIR_WAY: Final = 1000


class ProgressTeller:
    """Publishes the progress of calls, from callbacks that must not wait.

    Args:
        transport: the connection.
        clock: the time.
    """

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._on_their_way: set[asyncio.Task[None]] = set()

    def tell(self, invocation: Invocation, interim: Interim) -> None:
        """Tell the progress of a call; a mere sign of life is told nobody, as is what comes too fast to be sent."""
        if interim.fraction is None or len(self._on_their_way) >= _MOST_ON_THEIR_WAY:
            return
        task = invocation.task
        progress = Progress(
            task_id=task.id,
            task_type=task.type,
            queue=task.queue,
            try_=task.tries,
            invocation=invocation.id,
            fraction=interim.fraction,
            note=header_text(interim.note, MAX_NOTE),
            timestamp_ns=self._clock.now_ns(),
        )
        publishing = asyncio.create_task(self._publish(progress))
        self._on_their_way.add(publishing)
        publishing.add_done_callback(self._on_their_way.discard)

    async def _publish(self, progress: Progress) -> None:
        with contextlib.suppress(NotConnectedError):
            await self._transport.publish(progress_subject(progress.task_id), progress.to_wire())
