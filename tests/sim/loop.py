"""A loop of virtual time in which processes live that can stand still, or stop dead, at any await.

A process is a context: what is scheduled from inside it belongs to it. While it stands still its callbacks are kept,
and the world goes on without it. One that is dead never runs again.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final, TypeVar

from tests.virtual_time import VirtualTimeLoop

__all__ = ["Process", "SimLoop", "run_in_virtual_time"]

_T = TypeVar("_T")
_Handles = tuple[asyncio.Handle, bool]

_PROCESS: Final[contextvars.ContextVar["Process | None"]] = contextvars.ContextVar("process", default=None)


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on where it lies in memory: a seed gives the same run each time."""

    def __init__(self, number: int, *args: Any, **kwargs: Any) -> None:
        self._number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class _Handle(asyncio.Handle):
    def _run(self) -> None:
        process = self._context.get(_PROCESS)  # type: ignore[attr-defined]
        if process is not None and process.still:
            process.keep(self, timer=False)
        else:
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    def _run(self) -> None:
        process = self._context.get(_PROCESS)  # type: ignore[attr-defined]
        if process is not None and process.still:
            process.keep(self, timer=True)
        else:
            super()._run()


class SimLoop(VirtualTimeLoop):
    """A loop of virtual time that knows processes."""

    def __init__(self) -> None:
        super().__init__()
        numbers = count(1)
        self.set_task_factory(lambda loop, coro, **kwargs: _Task(next(numbers), coro, loop=loop, **kwargs))

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See the base loop."""
        handle = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, handle)  # type: ignore[attr-defined]
        handle._scheduled = True  # type: ignore[attr-defined]
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See the base loop."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See the base loop."""
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle


class Process:
    """A process of its own, as far as it can tell.

    Attributes:
        name: what it is called.
        still: whether it stands still.
        dead: whether it never runs again.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.still = False
        self.dead = False
        self._kept: list[_Handles] = []
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Begin to do something inside it."""
        task = asyncio.get_running_loop().create_task(work, context=self.context)
        self._tasks.append(task)
        return task

    def keep(self, handle: asyncio.Handle, *, timer: bool) -> None:
        """Keep a callback until it goes on."""
        self._kept.append((handle, timer))

    def freeze(self) -> None:
        """Stand still, from the next await on."""
        self.still = True

    def thaw(self) -> None:
        """Go on: what came meanwhile is read before timers are looked at, as a loop does."""
        if self.dead:
            return
        self.still = False
        self._release()

    def die(self) -> None:
        """Stop dead, at the next await."""
        self.still = self.dead = True

    async def bury(self) -> None:
        """Let go of what a dead process had in hand, when nothing of it can reach anybody any more."""
        self.still = False
        self._release()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _release(self) -> None:
        kept, self._kept = self._kept, []
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        ready.extend(handle for handle, timer in kept if not timer)
        ready.extend(handle for handle, timer in kept if timer)


def run_in_virtual_time(work: Coroutine[Any, Any, _T]) -> _T:
    """Run something in a loop of its own."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(work)
