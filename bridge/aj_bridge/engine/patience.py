"""Acts that may be repeated, and acts that may fail; and how a claim stops being ours."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aj_sdk.errors import StoreError
from aj_sdk.wire.stored import Stored

__all__ = ["FIRST_PAUSE_S", "LONGEST_PAUSE_S", "LeaseOver", "Lost", "Stopped", "patiently", "quietly"]

_log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0


class Lost(Exception):  # noqa: N818 - flow: somebody else wrote
    """A save was refused.

    Args:
        stored: the record as it is now, None when it is gone.
    """

    def __init__(self, stored: Stored | None) -> None:
        super().__init__()
        self.stored = stored


class Stopped(Lost):
    """A call was stopped, because its record is not ours any more: cancelled, taken away or started over."""


class LeaseOver(Exception):  # noqa: N818 - flow: the lease may have passed
    """The claim is not surely ours any more."""


async def patiently(act: Callable[[], Awaitable[Any]], still: Callable[[], bool]) -> Any:
    """Repeat an act that may be repeated, while it is ours to do.

    Raises:
        LeaseOver: it is not ours to do any more.
    """
    pause = FIRST_PAUSE_S
    while True:
        if not still():
            raise LeaseOver
        try:
            return await act()
        except StoreError as err:
            _log.warning("storage failed, trying again: %s", err)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)


async def quietly(act: Awaitable[Any]) -> None:
    """Do something that may fail: that is logged."""
    try:
        await act
    except StoreError as err:
        _log.info("storage failed: %s", err)
