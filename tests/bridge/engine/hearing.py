"""Who hears what is published, where a test has no server: a transport that keeps messages instead of sending them."""

import asyncio
from typing import Any

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.progress import ProgressTeller
from aj_sdk.wire.interim import Progress

__all__ = ["Hearing"]


class Hearing:
    """What is told of the progress of calls.

    Attributes:
        told: the progress in the order it was told, with the subjects.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, Progress]] = []
        self.came = asyncio.Event()

    async def publish(self, subject: str, data: bytes = b"", **_: Any) -> None:
        """Take a message."""
        self.told.append((subject, Progress.from_wire(data)))
        self.came.set()

    def teller(self) -> ProgressTeller:
        """Return what tells us."""
        return ProgressTeller(self, Clock())  # type: ignore[arg-type]
