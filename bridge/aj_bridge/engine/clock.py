"""The two clocks of the engine, in one value that a test or a simulator replaces."""

import time
from collections.abc import Callable

import msgspec

__all__ = ["Clock"]


class Clock(msgspec.Struct, frozen=True):
    """Where the time comes from.

    Attributes:
        now_ns: the wall clock, nanoseconds since the epoch: deadlines, records.
        monotonic: seconds that only run forward: leases, breakers.
    """

    now_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic
