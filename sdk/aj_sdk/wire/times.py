"""Instants and durations as the wire writes them: RFC 3339 with nanoseconds, and Go's duration texts.

An instant is an integer of nanoseconds since the Unix epoch, because signatures cover nanoseconds and a
`datetime` would lose them. Source: Go's time.Time JSON form (RFC3339Nano) and time.ParseDuration.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

__all__ = [
    "NS_PER_MS",
    "NS_PER_S",
    "format_duration",
    "format_time",
    "from_datetime",
    "parse_duration",
    "parse_time",
    "to_datetime",
    "to_timedelta_ns",
]

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
_MAX_DURATION_NS: Final = 2**63 - 1

_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_S: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_MAX_S: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_UNITS: Final = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": NS_PER_MS, "s": NS_PER_S}
_UNITS_LONG: Final = {"m": 60 * NS_PER_S, "h": 3600 * NS_PER_S}
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def parse_time(text: str) -> int:
    """Read an RFC 3339 instant with 0 to 9 fractional digits and any offset.

    Returns:
        Nanoseconds since the epoch; negative before 1970 (Go's zero time is in year 1).

    Raises:
        ValueError: it is not such a time.
    """
    fraction = text[20:-1]
    if len(text) > 21 and text[19] == "." and text[-1] == "Z" and len(fraction) <= 9 and _is_digits(fraction):
        # As Go and we write it; most of many times lie in the same second.
        return _parse_second(text[:19]) + int(fraction.ljust(9, "0"))
    return _parse_any(text)


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


@lru_cache(maxsize=1024)
def _parse_second(text: str) -> int:
    return _parse_any(text + "Z")


def _parse_any(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is not an RFC 3339 time")
    year, month, day, hour, minute, second, fraction, sign, off_hour, off_minute = match.groups()
    instant = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC) - _EPOCH
    seconds = instant.days * 86_400 + instant.seconds
    if sign:
        if int(off_hour) > 23 or int(off_minute) > 59:
            raise ValueError(f"{text!r} has no valid offset")
        offset = int(off_hour) * 3600 + int(off_minute) * 60
        seconds += offset if sign == "-" else -offset
        if not _MIN_S <= seconds <= _MAX_S:
            raise ValueError(f"{text!r} lies outside the years 1 to 9999 in UTC")
    return seconds * NS_PER_S + (int(fraction.ljust(9, "0")) if fraction else 0)


@lru_cache(maxsize=4096)  # a record's times are written at each of its saves
def format_time(instant_ns: int) -> str:
    """Write an instant in UTC, trailing zeros of the fraction dropped, as Go does."""
    seconds, nanos = divmod(instant_ns, NS_PER_S)
    if not nanos:
        return _format_second(seconds) + "Z"
    return f"{_format_second(seconds)}.{nanos:09d}".rstrip("0") + "Z"


@lru_cache(maxsize=1024)  # the times of a task that is worked on lie close together
def _format_second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds")[:19]


def to_datetime(instant_ns: int) -> datetime:
    """Turn an instant into an aware UTC datetime; nanoseconds below a microsecond are cut off."""
    return _EPOCH + timedelta(microseconds=instant_ns // 1000)


def from_datetime(when: datetime) -> int:
    """Turn an aware datetime into an instant.

    Raises:
        ValueError: it is naive, so the instant that it means is not known.
    """
    if when.tzinfo is None:
        raise ValueError("needs a time zone, for example datetime.now(UTC)")
    return (when - _EPOCH) // timedelta(microseconds=1) * 1000


def to_timedelta_ns(span: timedelta) -> int:
    """Length of a timedelta in nanoseconds, exactly."""
    return ((span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds) * 1000


def parse_duration(text: str) -> int:
    """Read a duration as Go writes it (`1m30s`, `250ms`, `-1.5h`, `0`), in nanoseconds.

    Raises:
        ValueError: it is not such a duration, or longer than 292 years.
    """
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0
    total = 0
    position = 0
    while position < len(body):
        match = _DURATION_PART.match(body, position)
        if match is None:
            break
        number, unit = match.groups()
        scale = _UNITS.get(unit) or _UNITS_LONG[unit]
        whole, _, fraction = number.partition(".")
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
        position = match.end()
    if not body or position != len(body):
        raise ValueError(f"{text[:60]!r} is not a duration; write it like 30s, 1m30s or 250ms")
    if total > _MAX_DURATION_NS:
        raise ValueError(f"{text[:60]!r} is too long a duration")
    return -total if text[0] == "-" else total


def format_duration(span_ns: int) -> str:
    """Write a duration as Go does: `1h0m0s`, `1.5s`, `250ms`, `0s`."""
    if span_ns == 0:
        return "0s"
    sign, left = ("-", -span_ns) if span_ns < 0 else ("", span_ns)
    if left < 1000:
        return f"{sign}{left}ns"
    if left < NS_PER_MS:
        return f"{sign}{_decimal(left, 1000)}µs"
    if left < NS_PER_S:
        return f"{sign}{_decimal(left, NS_PER_MS)}ms"
    minutes, rest = divmod(left, 60 * NS_PER_S)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, NS_PER_S) + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _decimal(value: int, scale: int) -> str:
    whole, part = divmod(value, scale)
    if not part:
        return str(whole)
    return f"{whole}.{str(part).rjust(len(str(scale)) - 1, '0').rstrip('0')}"
