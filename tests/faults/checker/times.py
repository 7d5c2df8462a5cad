"""Times of records: RFC 3339 with up to nine digits of a second, as nanoseconds since the epoch."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["NS", "parse_time"]

NS: Final = 1_000_000_000
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(text: str) -> int:
    """Read a time.

    Raises:
        ValueError: it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no time")
    seconds = (datetime.fromisoformat(found[1] + found[3]) - _EPOCH) // timedelta(seconds=1)
    return seconds * NS + int((found[2] or "").ljust(9, "0"))
