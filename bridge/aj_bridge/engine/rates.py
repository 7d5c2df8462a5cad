"""How many calls of handlers are answered a second: counts that cost nothing, and the duty that looks at them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

__all__ = ["EVERY_S", "Rates", "Tally"]

EVERY_S: Final = 5.0
_WINDOW: Final = 12
"""So many looks back: a minute."""


class Tally(msgspec.Struct):
    """What one queue's calls came to.

    Attributes:
        calls: calls that were answered.
        failed: those of them that failed.
    """

    calls: int = 0
    failed: int = 0


class Rates:
    """`Duty`: how fast a tally grows, over the last minute or as long as it has been looked at.

    Args:
        tally: what is counted.
        monotonic: seconds that only run forward.
    """

    name = "rates"

    def __init__(self, tally: Tally, monotonic: Callable[[], float]) -> None:
        self._tally = tally
        self._monotonic = monotonic
        self._looks: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW + 1)
        self._look()

    async def run(self) -> None:
        """See `Duty`."""
        while True:
            await asyncio.sleep(EVERY_S)
            self._look()

    @property
    def per_s(self) -> tuple[float, float]:
        """Calls a second, and those of them that failed."""
        at, calls, failed = self._looks[0]
        seconds = self._monotonic() - at
        if seconds <= 0:
            return 0.0, 0.0
        return (self._tally.calls - calls) / seconds, (self._tally.failed - failed) / seconds

    def _look(self) -> None:
        self._looks.append((self._monotonic(), self._tally.calls, self._tally.failed))
