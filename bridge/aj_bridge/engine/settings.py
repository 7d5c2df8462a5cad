"""Noticing that a queue was configured: the duty that reads its settings again and again."""

import asyncio
import logging
from typing import Final

from aj_bridge.storage.protocols import Storage
from aj_sdk.errors import QueueNotFoundError, StoreError

__all__ = ["LOOK_EVERY_S", "SettingsWatch"]

_log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 10.0


class SettingsWatch:
    """`Duty`: keeps the settings of one queue up to date.

    A queue that was removed is told once, and looked for until it is there again.

    Args:
        storage: the queue.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._trouble = ""
        self.name = f"settings of queue {storage.items.settings.name}"

    async def run(self) -> None:
        """See `Duty`."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._storage.refresh()
            except (QueueNotFoundError, StoreError) as err:
                # Each time the same would hide what else there is to say.
                if str(err) != self._trouble:
                    self._trouble = str(err)
                    _log.warning("%s can't be read, work goes on with those of before: %s", self.name, err)
            else:
                if self._trouble:
                    self._trouble = ""
                    _log.info("%s can be read again", self.name)
