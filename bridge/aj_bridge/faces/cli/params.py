"""How values are written on a command line."""

import os
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from aj_sdk.wire.times import NS_PER_S, parse_duration

__all__ = ["DURATION", "INSTANT", "MAX_PAYLOAD_FILE", "Duration", "Instant", "payload_bytes"]

_DAY_NS: Final = 86_400 * NS_PER_S
_LONG_UNITS: Final = {"d": _DAY_NS, "w": 7 * _DAY_NS, "M": 30 * _DAY_NS, "y": 365 * _DAY_NS}
MAX_PAYLOAD_FILE: Final = 64 * 1024 * 1024
"""More than any server takes in a message."""

_LONG_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([dDwWMyY])")


class Duration(click.ParamType[timedelta]):
    """A length of time: Go's units, and those that the Go project's command has beside them (d, w, M, y)."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read a duration."""
        if isinstance(value, timedelta):
            return value
        try:
            return timedelta(microseconds=_duration_ns(str(value)) // 1000)
        except (ValueError, OverflowError):
            self.fail(f"{str(value)[:60]!r} is not a duration; write it like 30s, 250ms, 1h30m or 7d", param, ctx)


DURATION: Final = Duration()


class Instant(click.ParamType[datetime]):
    """A point in time: RFC 3339 or ISO 8601; without a zone it is this machine's."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read a point in time."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(str(value).strip()).astimezone()
        except (ValueError, OverflowError):
            self.fail(
                f"{str(value)[:60]!r} is not a time; write it like 2026-12-24T18:00:00Z or '2026-12-24 18:00'",
                param,
                ctx,
            )


INSTANT: Final = Instant()


def payload_bytes(text: str) -> bytes:
    """Read a payload that stands on the command line as it is, in a file (`@FILE`), or on standard input (`-`).

    Raises:
        click.BadParameter: the file can't be read, or there is more than 64 MiB of it.
    """
    if text != "-" and not text.startswith("@"):
        return os.fsencode(text)
    try:
        with sys.stdin.buffer if text == "-" else Path(text[1:]).open("rb") as source:
            data = source.read(MAX_PAYLOAD_FILE + 1)
    except OSError as err:
        raise click.BadParameter(f"cannot read {text[1:]}: {err.strerror}", param_hint="PAYLOAD") from None
    if len(data) > MAX_PAYLOAD_FILE:
        raise click.BadParameter(f"it has more than {MAX_PAYLOAD_FILE // 1024**2} MiB", param_hint="PAYLOAD")
    return data


def _duration_ns(text: str) -> int:
    sign, body = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    total = 0

    def take(match: re.Match[str]) -> str:
        nonlocal total
        unit = match[2] if match[2] == "M" else match[2].lower()
        total += round(float(match[1]) * _LONG_UNITS[unit])
        return ""

    rest = _LONG_PART.sub(take, body)
    if not body or rest[:1] in ("-", "+"):
        return parse_duration(text)  # refuses it
    if rest:
        total += parse_duration(rest)
    return -total if sign == "-" else total
