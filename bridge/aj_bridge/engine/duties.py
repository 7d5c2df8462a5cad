"""What a bridge does beside its tasks: each duty in a file of its own, all with one life cycle.

A duty runs until it is cancelled. One that fails is logged and begun again after a pause: none of them may end a
bridge, and none may be missing for long without a word.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Final, Protocol

from aj_sdk.errors import StoreError

__all__ = ["Duty", "on_duty"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


class Duty(Protocol):
    """Something that a bridge does for as long as it runs."""

    @property
    def name(self) -> str:
        """What it is called in the log."""

    async def run(self) -> None:
        """Do it until cancelled.

        Raises:
            StoreError: it can't be done now; it is begun again.
        """


@contextlib.asynccontextmanager
async def on_duty(duties: Iterable[Duty]) -> AsyncIterator[None]:
    """Run duties while inside; leaving cancels them and waits until they have ended."""
    running = [asyncio.create_task(_keep_running(duty), name=duty.name) for duty in duties]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def _keep_running(duty: Duty) -> None:
    pause = _FIRST_PAUSE_S
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            await duty.run()
        except StoreError as err:
            _log.warning("%s: %s; beginning again", duty.name, err)
        except Exception:  # noqa: BLE001 - a duty's defect must not end the bridge
            _log.exception("a defect in %s; beginning again", duty.name)
        if loop.time() - began > _LONGEST_PAUSE_S:
            pause = _FIRST_PAUSE_S
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
