"""The handlers of a program, by task type.

Knows functions and their signatures; opens no connection and calls nothing.
"""

import functools
import importlib
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from aj_sdk.arguments import Argument, arguments_of, is_coroutine_function
from aj_sdk.errors import DuplicateHandlerError, UsageError
from aj_sdk.handling import Task
from aj_sdk.lifespan import LifespanFunction, check_lifespan
from aj_sdk.middleware import Middleware, check_middleware
from aj_sdk.wire.names import HANDLER_QUEUE_GROUP, handler_subject

__all__ = ["DEFAULT_SERVICES", "Common", "Service", "Services", "load_services"]

Around = TypeVar("Around", bound=Middleware)
Function = TypeVar("Function", bound=Callable[..., Any])
Spanning = TypeVar("Spanning", bound=LifespanFunction)

_QUEUE_GROUP: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,128}")


@dataclass(slots=True)
class Common:
    """What the handlers of a registry have in common; it may grow after they were registered.

    Attributes:
        middleware: what all calls pass through, the first one outermost.
        lifespan: what is set up for them; None for nothing.
    """

    middleware: list[Middleware] = field(default_factory=list)
    lifespan: LifespanFunction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A handler and what is known about it.

    Attributes:
        route: the task type it was registered for: an exact type, a prefix, or empty for all types.
        subject: where its requests come.
        queue_group: each request goes to one member of the group.
        function: the handler.
        is_async: whether it is a coroutine function; others run in threads.
        arguments: what to call it with.
        concurrency: how many requests it handles at a time in one process; None for no limit of its own.
        logger: what `Task.log` writes to; None for the usual one.
        own_middleware: what its calls pass through, inside of what all calls of its registry do.
        common: what it has in common with the other handlers of its registry.
    """

    route: str
    subject: str
    queue_group: str
    function: Callable[..., Any]
    is_async: bool
    arguments: tuple[Argument, ...]
    concurrency: int | None = None
    logger: logging.Logger | None = None
    own_middleware: tuple[Middleware, ...] = ()
    common: Common = field(default_factory=Common)

    @property
    def middleware(self) -> Sequence[Middleware]:
        """All that its calls pass through, the first one outermost."""
        shared, own = self.common.middleware, self.own_middleware
        return (*shared, *own) if shared else own

    @property
    def shown(self) -> str:
        """The route for people; `catchall` for the empty one, as in its subject."""
        return self.route or "catchall"

    def bind(self, task: Task) -> Callable[[], Any]:
        """Return the call of the handler for a task.

        Raises:
            PayloadError: the payload does not fit the handler's annotation; the error names the failing field.
        """
        positional = []
        named = {}
        for argument in self.arguments:
            if argument.optional and task.record.payload is None:
                continue
            value = task if argument.read is None else argument.read(task.record.payload)
            if argument.name:
                named[argument.name] = value
            else:
                positional.append(value)
        return functools.partial(self.function, *positional, **named)


class Services:
    """A registry of handlers.

    Args:
        logger: what `Task.log` of these handlers writes to, instead of the logger `aj_sdk.task`.
    """

    def __init__(self, *, logger: logging.Logger | None = None) -> None:
        self._logger = logger
        self._by_subject: dict[str, Service] = {}
        self._common = Common()

    def __iter__(self) -> Iterator[Service]:
        return iter(self._by_subject.values())

    def __len__(self) -> int:
        return len(self._by_subject)

    def service(
        self,
        type: str,  # noqa: A002 - the wire's word
        /,
        *,
        concurrency: int | None = None,
        queue_group: str = HANDLER_QUEUE_GROUP,
        middleware: Sequence[Middleware] = (),
    ) -> Callable[[Function], Function]:
        """Register a function as the handler of a task type; the function itself stays as it is.

        The handler takes `(task: Task)`, `(payload: T)` or both, in any order: a parameter annotated `Task` is the
        task, as is a first one without annotation; the other is the payload, read as its annotation says (see
        `payload.payload_reader`). It is `async def`, or a plain function, which runs in a thread.

        What it returns is the result; raising `Terminate` ends the task, `RetryLater` asks for a delay of its own,
        and any other exception for a retry by the queue's backoff.

        Args:
            type: the task type. A prefix such as `email:`, or the empty string for all types, gets what bridges
                send by a route of just that name (`--remote email:`); by default they send each type by its own name.
            concurrency: how many requests it handles at a time in this process; None for no limit of its own.
            queue_group: each request goes to one member of the group. Two groups would each get every request.
            middleware: what its calls pass through, the first one outermost; all of it inside that of all handlers.

        Raises:
            InvalidNameError: the type may not cross the wire.
            DuplicateHandlerError: the type has a handler already.
            UsageError: an option is wrong, or the function can't be a handler.
        """
        if not isinstance(type, str):
            raise UsageError('a handler is registered with its task type: @service("email:new")')
        if concurrency is not None and (not isinstance(concurrency, int) or concurrency < 1):
            raise UsageError(f"handler of {type!r}: concurrency must be a whole number of at least 1")
        if not _QUEUE_GROUP.fullmatch(queue_group):
            raise UsageError(f"handler of {type!r}: queue group {queue_group[:60]!r} is invalid")
        for each in middleware:
            check_middleware(each)
        subject = handler_subject(type)

        def register(function: Function) -> Function:
            if subject in self._by_subject:
                raise DuplicateHandlerError(type)
            self._by_subject[subject] = Service(
                route=type,
                subject=subject,
                queue_group=queue_group,
                function=function,
                is_async=is_coroutine_function(function),
                arguments=arguments_of(function),
                concurrency=concurrency,
                logger=self._logger,
                own_middleware=tuple(middleware),
                common=self._common,
            )
            return function

        return register

    def middleware(self, function: Around) -> Around:
        """Have the calls of all handlers pass through a function, those registered before too; a decorator.

        `async def timed(task, call_next): ... return await call_next(task)`, see `middleware.Middleware`. The first one
        given is the outermost.

        Raises:
            UsageError: it is no coroutine function.
        """
        check_middleware(function)
        self._common.middleware.append(function)
        return function

    def lifespan(self, function: Spanning) -> Spanning:
        """Set something up before the first task and take it down after the last one; a decorator.

        `async def lifespan(): async with open_pool() as pool: yield pool`: handlers find what it yields as
        `task.lifespan`. It runs once for each process that handles tasks, before that listens for any; where it
        fails, the process ends with its error. Its end comes when no handler runs any more, and has ten seconds.

        Raises:
            UsageError: it is no asynchronous generator function, or there is one already.
        """
        check_lifespan(function)
        if self._common.lifespan is not None:
            raise UsageError("there is one lifespan for all handlers: put both into one function")
        self._common.lifespan = function
        return function

    @property
    def common(self) -> Common:
        """What all handlers have in common."""
        return self._common


DEFAULT_SERVICES: Final = Services()
"""The registry behind `aj_sdk.service`."""


def load_services(app: str) -> Services:
    """Import the registry that `module:attribute` names; the module may lie in the current folder.

    `module` alone means `module:services`. A module that registers its handlers with `aj_sdk.service` need not
    hold the registry itself: `services` is then the default one.

    Raises:
        UsageError: there is no such module or attribute, importing it fails, or it is not a registry.
    """
    module_name, _, path = app.partition(":")
    path = path or "services"
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise UsageError(f"{app!r} is not of the form module:attribute, for example handlers:services")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as err:
        missing = isinstance(err, ModuleNotFoundError) and f"{module_name}.".startswith(f"{err.name}.")
        what = f"no module {module_name!r}" if missing else f"importing {module_name!r} failed"
        hint = f"; looked in {here} and in the installed packages" if missing else f": {type(err).__name__}: {err}"
        raise UsageError(what + hint) from err
    for name in path.split("."):
        if path == "services" and not hasattr(found, name) and len(DEFAULT_SERVICES):
            return DEFAULT_SERVICES
        if not hasattr(found, name):
            raise UsageError(f"module {module_name!r} has no attribute {path!r}")
        found = getattr(found, name)
    if not isinstance(found, Services):
        raise UsageError(f"{app!r} is a {type(found).__name__}, not an aj_sdk.Services")
    return found
