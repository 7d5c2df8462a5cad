"""Which route a task type takes, and what its calls pass through on the way.

The exact route wins, then the longest prefix, then the catch-all. As in the Go project's mux.go each route is also a
prefix: `email:new` takes `email:newsletter` where nothing longer does. Without routes each type goes to remote
handlers by its own name.
"""

from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from aj_bridge.core.retry import RetryPolicy
from aj_sdk.errors import DuplicateHandlerError, InvalidConfigError, UsageError
from aj_sdk.responder import failed
from aj_sdk.services import Service
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.names import check_name, handler_subject
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S
from aj_sdk.wire.trace import NO_TRACE, Trace

__all__ = [
    "EACH",
    "Encoding",
    "Handle",
    "Invocation",
    "Middleware",
    "Nobody",
    "Outcome",
    "Route",
    "RouteKind",
    "Router",
    "chain",
]

EACH: Final = "*"
"""The route of each type by its own name, for the types that no other route takes."""

_MAX_KNOWN: Final = 10_000

Outcome: TypeAlias = Completed | Failed | Terminated
Handle: TypeAlias = Callable[["Invocation"], Awaitable[Outcome]]
"""Has a task handled; raises `Nobody` where nobody listens for it."""
Middleware: TypeAlias = Callable[["Invocation", Handle], Awaitable[Outcome]]
"""Stands around a handle: it is given the invocation and what comes next, and gives the outcome.

It may look, wait, change the outcome, answer by itself, or raise as a handler does: `Terminate` ends the task,
`RetryLater` asks for a delay, any other exception is a failed try. It runs once for each invocation, after the try was
saved, and its time counts. `Nobody` and `CancelledError` must pass.
"""


class Nobody(Exception):  # noqa: N818 - not an error: it costs no try
    """Nobody listens for a task.

    Args:
        subject: where.
    """

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.subject = subject


class RouteKind(StrEnum):
    """Who handles what takes a route."""

    REMOTE = "remote"
    FUNCTION = "function"
    COMMAND = "command"


class Encoding(StrEnum):
    """How a task is written for a remote handler."""

    JSON = "json"
    MSGPACK = "msgpack"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where tasks of some types go, and how.

    Attributes:
        type: an exact type or a prefix; `""` for the catch-all, `*` for each type to remote handlers by its own name.
        kind: who handles them.
        service: the function, for that kind; it limits its concurrency where the route does not.
        command: the executable file, for that kind.
        policy: the backoff; None for the bridge's.
        concurrency: how many of them one bridge has handled at a time, over all its queues; None for no limit of
            their own.
        encoding: how the task is written for a remote handler.
        middleware: what their calls pass through, the first one outermost; all of it inside the router's own.

    Raises:
        InvalidNameError: the type may not cross the wire.
        UsageError: the concurrency is not at least 1, or what the kind needs is missing.
    """

    type: str
    kind: RouteKind = RouteKind.REMOTE
    service: Service | None = None
    command: Path | None = None
    policy: RetryPolicy | None = None
    concurrency: int | None = None
    encoding: Encoding = Encoding.JSON
    middleware: tuple[Middleware, ...] = ()

    def __post_init__(self) -> None:
        if self.type and (self.type != EACH or self.kind is not RouteKind.REMOTE):
            check_name(self.type, "task type")
        if self.concurrency is not None and self.concurrency < 1:
            raise UsageError(f"route {self.shown}: concurrency must be at least 1")
        if (self.service is not None) != (self.kind is RouteKind.FUNCTION):
            raise UsageError(f"route {self.shown}: a function goes with the kind function, and with no other")
        if (self.command is not None) != (self.kind is RouteKind.COMMAND):
            raise UsageError(f"route {self.shown}: a command goes with the kind command, and with no other")
        if self.encoding is not Encoding.JSON and self.kind is not RouteKind.REMOTE:
            raise UsageError(f"route {self.shown}: an encoding is for remote handlers")

    @classmethod
    def to(
        cls,
        service: Service,
        *,
        policy: RetryPolicy | None = None,
        concurrency: int | None = None,
        middleware: Iterable[Middleware] = (),
    ) -> "Route":
        """Return the route to a function of this process, by the type that it is registered for."""
        return cls(
            type=service.route,
            kind=RouteKind.FUNCTION,
            service=service,
            policy=policy,
            concurrency=concurrency,
            middleware=tuple(middleware),
        )

    @property
    def shown(self) -> str:
        """Its type for people: `catchall` for the empty one, as in its subject."""
        return self.type or "catchall"

    @property
    def limit(self) -> int | None:
        """How many of its tasks are handled at a time; None for no limit."""
        if self.concurrency is None and self.service is not None:
            return self.service.concurrency
        return self.concurrency

    def subject(self, task_type: str) -> str:
        """Subject of the remote handlers of a task type that takes this route."""
        return handler_subject(task_type if self.type == EACH else self.type)


class Invocation(msgspec.Struct, frozen=True):
    """One call of a handler.

    Attributes:
        id: another one for each call.
        task: the task, saved `active` with this try counted.
        route: the route it takes.
        run_time_ns: how long it may take, nanoseconds.
        heartbeat_ns: how often a handler shows that it lives, once it did, nanoseconds.
        trace: the trace context that the handler is given; a middleware that begins a span passes another one on.
    """

    id: str
    task: TaskRecord
    route: Route
    run_time_ns: int
    heartbeat_ns: int = 10 * NS_PER_S
    trace: Trace = NO_TRACE


class Router:
    """The routes of a bridge.

    Args:
        routes: the routes; none = `*` alone.
        middleware: what every call passes through, the first one outermost.

    Raises:
        DuplicateHandlerError: a route is there twice.
        InvalidConfigError: the catch-all and `*` are both there, each of which takes the rest.
    """

    def __init__(self, routes: Iterable[Route] = (), middleware: Iterable[Middleware] = ()) -> None:
        self.routes = tuple(routes) or (Route(type=EACH),)
        self.middleware = tuple(middleware)
        by_type: dict[str, Route] = {}
        for route in self.routes:
            if route.type in by_type:
                raise DuplicateHandlerError(route.type)
            by_type[route.type] = route
        if "" in by_type and EACH in by_type:
            raise InvalidConfigError((f"the catch-all and {EACH} each take the rest; choose one",))
        self._rest = by_type.pop(EACH, None)
        self._longest_first = sorted(by_type.values(), key=lambda route: -len(route.type))
        self._exact = by_type
        self._known: dict[str, Route | None] = dict(by_type)

    def route(self, task_type: str) -> Route | None:
        """Return the route of a task type, None when it has none."""
        try:
            return self._known[task_type]
        except KeyError:
            found = next((route for route in self._longest_first if task_type.startswith(route.type)), self._rest)
        if len(self._known) >= _MAX_KNOWN:
            self._known = dict(self._exact)
        self._known[task_type] = found
        return found

    def around(self, route: Route, handle: Handle) -> Handle:
        """Put around a handle what the calls of a route pass through."""
        if not self.middleware and not route.middleware:
            return handle
        return _around((*self.middleware, *route.middleware), handle)


def chain(*middleware: Middleware) -> Middleware:
    """Make one middleware of several, the first one outermost."""

    async def chained(invocation: Invocation, following: Handle) -> Outcome:
        return await _around(middleware, following)(invocation)

    return chained


def _around(middleware: tuple[Middleware, ...], handle: Handle) -> Handle:
    for each in reversed(middleware):
        handle = _before(each, handle)
    return handle


def _before(middleware: Middleware, following: Handle) -> Handle:
    async def handle(invocation: Invocation) -> Outcome:
        try:
            return await middleware(invocation, following)
        except Nobody:
            raise
        except Exception as err:  # noqa: BLE001 - the application's code: what it raises is an outcome
            return failed(err)

    return handle
