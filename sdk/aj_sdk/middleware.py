"""What the calls of handlers pass through on their way: functions around functions, and nothing of their own.

The words are those of a bridge's own middleware (`aj_bridge.Router`): the first one given is the outermost.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from aj_sdk.errors import UsageError
from aj_sdk.handling import Task

__all__ = ["Handle", "Middleware", "around", "check_middleware"]

Handle: TypeAlias = Callable[[Task], Awaitable[Any]]
"""Has a task handled: gives what the handler returned, or raises what it raised."""
Middleware: TypeAlias = Callable[[Task, Handle], Awaitable[Any]]
"""Stands around a handler: `async def timed(task, call_next): ... return await call_next(task)`.

What it returns is the result, and what it raises counts as if the handler had raised it: `Terminate` ends the task,
`RetryLater` asks for a delay, any other exception is a failed try. It may answer without calling `call_next`. It runs
once for each call, within the handler's time and slot, and in the event loop, also where the handler is a plain
function in a thread. `CancelledError` must pass.
"""


def check_middleware(function: object) -> None:
    """Make sure that something can stand around a handler.

    Raises:
        UsageError: it is no coroutine function.
    """
    forms = (function, getattr(type(function), "__call__", None))  # noqa: B004 - an object with `async def __call__`
    if inspect.isclass(function) or not any(inspect.iscoroutinefunction(form) for form in forms):
        name = getattr(function, "__qualname__", None) or repr(function)
        raise UsageError(f"{name} can't be a middleware: it must be `async def {name}(task, call_next)`")


def around(middleware: Sequence[Middleware], handle: Handle) -> Handle:
    """Put middleware around a handle, the first one outermost."""
    for each in reversed(middleware):
        handle = _before(each, handle)
    return handle


def _before(middleware: Middleware, following: Handle) -> Handle:
    return lambda task: middleware(task, following)
