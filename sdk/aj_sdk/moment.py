"""A moment as a program writes it down: a point in time, or a span from now."""

from datetime import datetime, timedelta
from typing import TypeAlias

from aj_sdk.errors import UsageError
from aj_sdk.wire.times import from_datetime, to_timedelta_ns

__all__ = ["Moment", "deadline_ns", "moment_ns"]

Moment: TypeAlias = datetime | timedelta
"""A point in time with a time zone, or a span from now."""


def moment_ns(moment: Moment, now_ns: int, what: str) -> int:
    """Turn a moment into nanoseconds since the epoch.

    Args:
        moment: the moment.
        now_ns: from when a span counts.
        what: what it is, for the error: `deadline`.

    Raises:
        UsageError: it is neither a datetime with a time zone nor a timedelta, or too far away.
    """
    if not isinstance(moment, datetime | timedelta):
        raise UsageError(f"the {what} must be a datetime or a timedelta, not {type(moment).__name__}")
    try:
        return now_ns + to_timedelta_ns(moment) if isinstance(moment, timedelta) else from_datetime(moment)
    except ValueError as err:
        raise UsageError(f"the {what} {err}") from None


def deadline_ns(deadline: Moment, now_ns: int) -> int:
    """Turn a deadline into nanoseconds since the epoch.

    Raises:
        UsageError: it is no moment, or one in the past.
    """
    when = moment_ns(deadline, now_ns, "deadline")
    if when <= now_ns:
        raise UsageError("the deadline lies in the past: no try could begin")
    return when
