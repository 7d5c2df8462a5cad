"""How the bridge stands, for the metrics: looked at every few seconds, so that it costs no task anything."""

import asyncio
from collections.abc import Callable
from typing import Final

from aj_bridge.engine.meter import CONCURRENCY, IN_HAND, PAUSED, RUNNING, WEIGHT, Meter
from aj_sdk.wire.bridge import BridgeStatus

__all__ = ["Gauges"]

_EVERY_S: Final = 2.0


class Gauges:
    """`Duty`: sets the gauges of one bridge.

    Args:
        status: tells how it stands.
        meter: what shows it.
    """

    name = "gauges"

    def __init__(self, status: Callable[[], BridgeStatus], meter: Meter) -> None:
        self._status = status
        self._meter = meter

    async def run(self) -> None:
        """See `Duty`."""
        while True:
            status = self._status()
            self._meter.set(CONCURRENCY, status.concurrency)
            self._meter.set(PAUSED, status.state == "paused")
            for queue in status.queues:
                self._meter.set(IN_HAND, queue.in_hand, queue=queue.name)
                self._meter.set(RUNNING, queue.running, queue=queue.name)
                self._meter.set(WEIGHT, queue.weight, queue=queue.name)
            await asyncio.sleep(_EVERY_S)
