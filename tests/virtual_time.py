"""An event loop whose time jumps to the next timer when nothing is ready: hours of backoff pass in no time.

It does no I/O. When nothing is ready and no timer is set, nothing can ever happen again, and it says so.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec

__all__ = ["Deadlock", "VirtualTimeLoop", "virtual_time"]

_P = ParamSpec("_P")

_START: Final = 1_000.0
_RESOLUTION: Final = 1e-6
_LIMIT_S: Final = 86_400.0


class Deadlock(Exception):  # noqa: N818 - it names what is wrong
    """Everybody waits, and for nothing that can come."""


class _Jumps:
    """What the base loop waits with: instead of waiting, it moves the time on."""

    def __init__(self) -> None:
        self.now = _START

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        self.now += max(0.0, timeout)
        return []


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """A loop of virtual time; `time()` starts at 1000 s."""

    def __init__(self) -> None:
        super().__init__()
        # The base loop's own seam: it waits with `_selector.select(timeout)` and hands what came to `_process_events`.
        self._selector = _Jumps()
        self._clock_resolution = _RESOLUTION

    def time(self) -> float:
        """Return the virtual time."""
        return self._selector.now

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def virtual_time(test: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """Run a test in virtual time, a day of it at most: background duties tick on while a test waits in vain."""

    async def limited(*args: _P.args, **kwargs: _P.kwargs) -> None:
        async with asyncio.timeout(_LIMIT_S):
            await test(*args, **kwargs)

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(limited(*args, **kwargs))

    return run
