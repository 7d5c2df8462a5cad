"""Retry policies: how long a failed task waits. Source: the Go project's retrypolicy.go, its names and figures."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from aj_sdk.errors import UsageError
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

__all__ = ["POLICIES", "RetryPolicy", "linear", "policy_named"]

_MIN_NS: Final = 60 * NS_PER_S


class RetryPolicy(msgspec.Struct, frozen=True):
    """A row of intervals and a jitter.

    Attributes:
        intervals_ns: the base delays in nanoseconds; the last one holds for all tries past the end.
        jitter: part of the interval that is always waited; a random part of up to a whole interval comes on top.
    """

    intervals_ns: tuple[int, ...]
    jitter: float

    def duration_ns(self, n: int, random: Callable[[], float]) -> int:
        """Return the delay before the next try.

        Args:
            n: tries so far (deliveries so far where items are NAKed).
            random: gives a number in [0, 1).

        Returns:
            `interval * jitter + random[0, interval)`, rounded to milliseconds; never 0 where the first interval is
            not.
        """
        interval = self.intervals_ns[min(max(n, 0), len(self.intervals_ns) - 1)]
        delay = interval * self.jitter + int(random() * interval)
        rounded = int(delay + NS_PER_MS / 2) // NS_PER_MS * NS_PER_MS
        return rounded or self.intervals_ns[0]


def linear(steps: int, jitter: float, first_ns: int, last_ns: int) -> RetryPolicy:
    """Return a policy of equal steps: `first + i * (last - first) / steps`, i from 0."""
    step = (last_ns - first_ns) // steps
    return RetryPolicy(tuple(first_ns + i * step for i in range(steps)), jitter)


_TEN_MINUTES: Final = linear(50, 0.90, _MIN_NS, 10 * _MIN_NS)

POLICIES: Final[Mapping[str, RetryPolicy]] = {
    "default": _TEN_MINUTES,
    "10m": _TEN_MINUTES,
    "1h": linear(20, 0.90, 10 * _MIN_NS, 60 * _MIN_NS),
    "1m": linear(20, 0.5, NS_PER_S, _MIN_NS),
}


def policy_named(name: str) -> RetryPolicy:
    """Return a policy by its name.

    Raises:
        UsageError: there is no such policy.
    """
    policy = POLICIES.get(name)
    if policy is None:
        raise UsageError(f"unknown retry policy {name!r}; there are {', '.join(sorted(POLICIES))}")
    return policy
