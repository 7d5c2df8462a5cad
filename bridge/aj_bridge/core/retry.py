"""Retry policies: how long a failed task waits. Source: the Go project's retrypolicy.go, its names and figures."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from typing import Final, Self

from aj_sdk.errors import UsageError
from aj_sdk.wire.times import NS_PER_MS, format_duration, parse_duration

__all__ = ["POLICIES", "RetryPolicy", "read_policy", "write_policy"]

_NS_PER_US: Final = 1000
_MICROSECOND: Final = timedelta(microseconds=1)
_LONGEST: Final = timedelta(days=366)
_MAX_INTERVALS: Final = 1000
_MAX_JITTER: Final = 10.0
_PARTS: Final = ("min", "max", "factor", "jitter")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A row of intervals and a jitter.

    Attributes:
        intervals: the base delays, the first for the first retry; the last one holds for all tries past the end.
        jitter: part of the interval that is always waited, 0 to 10; a random part of up to a whole interval comes on
            top. So 0.5 waits half to one and a half times the interval.

    Raises:
        UsageError: there is no interval, there are more than 1000, one is negative or longer than 366 days, or the
            jitter is out of its range.
    """

    intervals: tuple[timedelta, ...]
    jitter: float = 0.5

    def __init__(self, intervals: Iterable[timedelta], jitter: float = 0.5) -> None:
        row = tuple(intervals)
        if not 0 < len(row) <= _MAX_INTERVALS:
            raise UsageError(f"a retry policy has 1 to {_MAX_INTERVALS} intervals, not {len(row)}")
        wrong = next((each for each in row if not timedelta(0) <= each <= _LONGEST), None)
        if wrong is not None:
            raise UsageError(f"an interval of a retry policy lies between 0 and {_LONGEST.days} days, not {wrong}")
        if not 0 <= jitter <= _MAX_JITTER:
            raise UsageError(f"the jitter of a retry policy lies between 0 and {_MAX_JITTER:g}, not {jitter}")
        object.__setattr__(self, "intervals", row)
        object.__setattr__(self, "jitter", jitter)

    @classmethod
    def linear(cls, steps: int, first: timedelta, last: timedelta, jitter: float = 0.5) -> Self:
        """Return a policy of equal steps: `first + i * (last - first) / steps`, i from 0, as in the Go project.

        Raises:
            UsageError: see the class.
        """
        return cls((first + i * (last - first) / steps for i in range(min(steps, _MAX_INTERVALS + 1))), jitter)

    @classmethod
    def exponential(cls, first: timedelta, last: timedelta, factor: float = 2.0, jitter: float = 0.5) -> Self:
        """Return a policy whose intervals grow: `first * factor ** i`, no longer than `last`.

        Raises:
            UsageError: `first` is not above 0 or is longer than `last`, `factor` is not above 1, or it takes more
                than 1000 steps; and as the class.
        """
        if not timedelta(0) < first <= last:
            raise UsageError(f"a retry policy grows from above 0 to its longest interval, not from {first} to {last}")
        if not (isfinite(factor) and factor > 1):
            raise UsageError(f"the factor of a retry policy is above 1, not {factor}")
        row = [first]
        while row[-1] < last and len(row) <= _MAX_INTERVALS:
            row.append(min(last, row[-1] * min(factor, last / row[-1])))
        return cls(row, jitter)

    @property
    def intervals_ns(self) -> tuple[int, ...]:
        """The intervals in nanoseconds."""
        return tuple(_ns(each) for each in self.intervals)

    def duration_ns(self, n: int, random: Callable[[], float]) -> int:
        """Return the delay before the next try.

        Args:
            n: tries so far (deliveries so far where items are NAKed).
            random: gives a number in [0, 1).

        Returns:
            `interval * jitter + random[0, interval)`, rounded to milliseconds; never 0 where the first interval is
            not.
        """
        interval = _ns(self.intervals[min(max(n, 0), len(self.intervals) - 1)])
        delay = interval * self.jitter + int(random() * interval)
        rounded = int(delay + NS_PER_MS / 2) // NS_PER_MS * NS_PER_MS
        return rounded or _ns(self.intervals[0])


def _ns(span: timedelta) -> int:
    return span // _MICROSECOND * _NS_PER_US


_TEN_MINUTES: Final = RetryPolicy.linear(50, timedelta(minutes=1), timedelta(minutes=10), 0.90)

POLICIES: Final[Mapping[str, RetryPolicy]] = {
    "default": _TEN_MINUTES,
    "10m": _TEN_MINUTES,
    "1h": RetryPolicy.linear(20, timedelta(minutes=10), timedelta(hours=1), 0.90),
    "1m": RetryPolicy.linear(20, timedelta(seconds=1), timedelta(minutes=1), 0.5),
}


def read_policy(text: str) -> RetryPolicy:
    """Read a policy: a name, `min=1s,max=10m,factor=2,jitter=0.5`, or intervals such as `1s,5s,1m,jitter=0.5`.

    Factor and jitter may be left out.

    Raises:
        UsageError: it is none of these.
    """
    if text.lower() in POLICIES:
        return POLICIES[text.lower()]
    named: dict[str, str] = {}
    intervals: list[timedelta] = []
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            intervals.append(_span(name, text))
        elif name not in _PARTS or name in named:
            raise _unreadable(text, f"{name[:20]!r} is there twice" if name in named else f"{name[:20]!r} is no part")
        else:
            named[name] = value
    jitter = _number(named.pop("jitter", "0.5"), text)
    if intervals and not named:
        return RetryPolicy(intervals, jitter)
    if intervals or "min" not in named or "max" not in named:
        raise _unreadable(text, "it needs min and max, or intervals alone")
    factor = _number(named.get("factor", "2"), text)
    return RetryPolicy.exponential(_span(named["min"], text), _span(named["max"], text), factor, jitter)


def write_policy(policy: RetryPolicy) -> str:
    """Write a policy as `read_policy` reads it."""
    for name, known in POLICIES.items():
        if policy == known:
            return name
    row = ",".join(format_duration(each) for each in policy.intervals_ns)
    return f"{row},jitter={policy.jitter:g}"


def _span(text: str, whole: str) -> timedelta:
    try:
        return timedelta(microseconds=parse_duration(text) // _NS_PER_US)
    except (ValueError, OverflowError):
        raise _unreadable(whole, f"{text[:20]!r} is no duration such as 1s or 10m") from None


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _unreadable(whole, f"{text[:20]!r} is no number") from None


def _unreadable(text: str, why: str) -> UsageError:
    return UsageError(
        f"{text[:60]!r} is no retry policy: {why}; write {', '.join(POLICIES)}, min=1s,max=10m,factor=2,jitter=0.5 "
        "or intervals such as 1s,5s,1m"
    )
