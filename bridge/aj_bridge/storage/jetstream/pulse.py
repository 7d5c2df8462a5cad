"""A sign of life of the connection, a few times a second.

Rests on the order of messages on a connection: what is read after an answer was sent after the question.
"""

import asyncio
import contextlib
import time
from typing import Final

from aj_sdk.errors import StoreError
from aj_sdk.transport import Transport

__all__ = ["EVERY_S", "NatsPulse"]

EVERY_S: Final = 0.25
_TIMEOUT_S: Final = 2.0


class NatsPulse:
    """`Pulse` by pings; `run` is its background task.

    Args:
        transport: the connection.
        every_s: seconds between two beats.
    """

    def __init__(self, transport: Transport, every_s: float = EVERY_S) -> None:
        self._transport = transport
        self.every_s = every_s
        self.since = time.monotonic()
        self.standstills = 0

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self._try()
            await asyncio.sleep(self.every_s)

    async def beat(self) -> None:
        """See `Pulse`."""
        asked = time.monotonic()
        while self.since < asked:
            if not await self._try():
                await asyncio.sleep(self.every_s)

    async def _try(self) -> bool:
        sent = time.monotonic()
        with contextlib.suppress(StoreError):
            await self._transport.ping(_TIMEOUT_S)
            if sent - self.since > _TIMEOUT_S:
                self.standstills += 1
            self.since = max(self.since, sent)
            return True
        return False
