"""What a program sets up before its first task and takes down after its last one.

Knows one asynchronous generator, and the task that it lives in; no handler and no connection.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeAlias

from aj_sdk.errors import LifespanError, UsageError

__all__ = ["Lifespan", "LifespanFunction", "check_lifespan"]

LifespanFunction: TypeAlias = Callable[[], AsyncIterator[Any]]
"""`async def lifespan(): ... yield value ...`: what comes before `yield` begins, what comes after it ends."""

_END_S: Final = 10.0

_log: Final = logging.getLogger("aj_sdk")


def check_lifespan(function: object) -> None:
    """Make sure that something can be a lifespan.

    Raises:
        UsageError: it is no asynchronous generator function.
    """
    if not inspect.isasyncgenfunction(function) or inspect.signature(function).parameters:
        name = getattr(function, "__qualname__", None) or repr(function)
        raise UsageError(f"{name} can't be a lifespan: it must be `async def {name}()` with one `yield`")


class Lifespan:
    """One lifespan on its way from its beginning to its end.

    All of it runs in a task of its own, so that task groups and timeouts may stand around the `yield`.

    Args:
        function: what to run; None for nothing, so that whoever runs handlers need not ask.

    Attributes:
        value: what it yielded; None before, and where there is nothing to run.
    """

    def __init__(self, function: LifespanFunction | None) -> None:
        self._function = function
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.value: Any = None

    async def begin(self, unless: asyncio.Event | None = None) -> bool:
        """Run it up to its `yield`. Cancelled meanwhile, it is cancelled too.

        Args:
            unless: set when the program is to end, which may be long before it has begun; None for never.

        Returns:
            Whether it began, or there is nothing to run; else it was cancelled.

        Raises:
            LifespanError: it failed, or ended without a yield.
        """
        if self._function is None:
            return True
        began = asyncio.Event()
        self._task = asyncio.create_task(self._run(self._function, began), name="lifespan")
        waits = [asyncio.create_task(each.wait()) for each in (began, unless) if each is not None]
        try:
            await asyncio.wait({self._task, *waits}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._give_up()
            raise
        finally:
            for each in waits:
                each.cancel()
        if began.is_set():
            return True
        if not self._task.done():
            await self._give_up()
            self._task = None
            return False
        task, self._task = self._task, None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        _log.error("the lifespan of the handlers failed at its start", exc_info=error)
        shown = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise LifespanError(shown) from error

    async def end(self) -> None:
        """Run the rest of it, for ten seconds at most; what goes wrong is logged, for the tasks are done."""
        if self._task is None:
            return
        self._over.set()
        task = self._task
        try:
            await asyncio.wait({task}, timeout=_END_S)
        finally:
            if not task.done():
                _log.warning("the lifespan of the handlers did not end within %g s, and is cancelled", _END_S)
                await self._give_up()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the lifespan of the handlers failed at its end", exc_info=error)

    async def _give_up(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=1.0)

    async def _run(self, function: LifespanFunction, began: asyncio.Event) -> None:
        async with contextlib.asynccontextmanager(function)() as self.value:
            began.set()
            await self._over.wait()
