"""The breaker of a task type: while nobody answers, one task a second is tried and the others wait outside.

A value with pure steps; times are seconds of a monotonic clock.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from aj_sdk.wire.times import NS_PER_S

__all__ = ["CLOSED", "Breaker"]

_PROBE_EVERY: Final = 1.0
_MARGIN: Final = 0.05
_MAX_DELAY: Final = 30.0
_MAX_DOUBLINGS: Final = 5


class Breaker(msgspec.Struct, frozen=True):
    """Whether calls of a type may be made.

    Attributes:
        misses: rounds in a row that found nobody; 0 = closed, calls are made.
        next_probe: when one call may be tried, while it is open.
    """

    misses: int = 0
    next_probe: float = 0.0

    @property
    def open(self) -> bool:
        """Whether nobody answered last."""
        return self.misses > 0

    def admit(self, now: float) -> tuple["Breaker", bool]:
        """Ask for a call.

        Returns:
            The breaker after it, and whether the call may be made.
        """
        if not self.open:
            return self, True
        if now < self.next_probe:
            return self, False
        return Breaker(self.misses + 1, now + _PROBE_EVERY), True

    def missed(self, now: float) -> "Breaker":
        """Return the breaker after a call that found nobody.

        Calls that were under way together are one round, or a hundred of them would put everything off by 30 s at
        once.
        """
        return self if self.open else Breaker(1, now + _PROBE_EVERY)

    def probe_ns(self, now: float) -> int:
        """Return how long the task of such a call waits: it comes back as the next to be tried."""
        return int((max(0.0, self.next_probe - now) + _MARGIN) * NS_PER_S)

    def delay_ns(self, random: Callable[[], float]) -> int:
        """Return how long a task that may not be tried waits: 1 s, doubling to 30 s, and a random quarter less."""
        base = min(_MAX_DELAY, 2.0 ** min(max(self.misses - 1, 0), _MAX_DOUBLINGS))
        return int(base * (1 - random() / 4) * NS_PER_S)


CLOSED: Final = Breaker()
