"""The handlers of a program, by task type.

Knows functions and their signatures; opens no connection and calls nothing.
"""

import functools
import importlib
import inspect
import logging
import re
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Final, TypeVar

from aj_sdk.errors import DuplicateHandlerError, UsageError
from aj_sdk.handling import Task
from aj_sdk.payload import PayloadReader, payload_reader
from aj_sdk.wire.names import HANDLER_QUEUE_GROUP, handler_subject

__all__ = ["DEFAULT_SERVICES", "Argument", "Service", "Services", "load_services"]

Function = TypeVar("Function", bound=Callable[..., Any])

_QUEUE_GROUP: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,128}")
_NO_ANNOTATION: Final = inspect.Parameter.empty
_NO_DEFAULT: Final = inspect.Parameter.empty
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a handler.

    Attributes:
        name: its name, empty for one that can only be given by position.
        read: what reads the payload for it; None for the task itself.
        optional: left out when the task has no payload, so that the parameter's own default counts.
        annotation: what `read` reads; Any for a parameter that has none.
    """

    name: str
    read: PayloadReader | None
    optional: bool = False
    annotation: Any = Any


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
    """

    route: str
    subject: str
    queue_group: str
    function: Callable[..., Any]
    is_async: bool
    arguments: tuple[Argument, ...]
    concurrency: int | None = None
    logger: logging.Logger | None = None

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
        subject = handler_subject(type)

        def register(function: Function) -> Function:
            if subject in self._by_subject:
                raise DuplicateHandlerError(type)
            self._by_subject[subject] = Service(
                route=type,
                subject=subject,
                queue_group=queue_group,
                function=function,
                is_async=_is_async(function),
                arguments=_arguments(function),
                concurrency=concurrency,
                logger=self._logger,
            )
            return function

        return register


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


def _is_async(function: Callable[..., Any]) -> bool:
    """Say whether a handler is a coroutine function, and refuse what can't be a handler at all."""
    if not callable(function) or inspect.isclass(function):
        raise UsageError(f"{function!r} can't be a handler: it is not a function")
    forms = (function, type(function).__call__)
    if any(inspect.isgeneratorfunction(form) or inspect.isasyncgenfunction(form) for form in forms):
        raise UsageError(f"{_shown(function)} can't be a handler: it is a generator; return the result, don't yield it")
    return any(inspect.iscoroutinefunction(form) for form in forms)


def _arguments(function: Callable[..., Any]) -> tuple[Argument, ...]:
    try:
        parameters = [p for p in inspect.signature(function).parameters.values() if p.kind not in _VARIADIC]
    except (TypeError, ValueError, NameError) as err:
        raise UsageError(f"{_shown(function)} can't be a handler: its parameters can't be read: {err}") from err
    annotations = {parameter.name: _annotation(function, parameter) for parameter in parameters}
    if parameters and parameters[0].name == "self":
        raise UsageError(f"{_shown(function)} can't be a handler: register the method of an object, after it was made")
    task = next((p.name for p in parameters if _is_task(annotations[p.name])), None)
    if task is None and parameters and annotations[parameters[0].name] is _NO_ANNOTATION:
        task = parameters[0].name
    arguments = []
    payload_found = False
    for parameter in parameters:
        annotation = annotations[parameter.name]
        name = "" if parameter.kind is parameter.POSITIONAL_ONLY else parameter.name
        has_default = parameter.default is not _NO_DEFAULT
        if parameter.name == task:
            arguments.append(Argument(name, None))
        elif not payload_found and not (has_default and annotation is _NO_ANNOTATION):
            payload_found = True
            try:
                kind = Any if annotation is _NO_ANNOTATION else annotation
                read = payload_reader(kind)
            except UsageError as err:
                raise UsageError(f"handler {_shown(function)}: parameter {parameter.name!r}: {err}") from err
            arguments.append(Argument(name, read, optional=has_default and bool(name), annotation=kind))
        elif not (has_default and name):
            raise UsageError(f"{_shown(function)} can't be a handler: nothing is known to give for {parameter.name!r}")
    if not arguments:
        raise UsageError(
            f"{_shown(function)} can't be a handler: it takes (task: Task), (payload: T) or both, "
            "and a decorator around it must use functools.wraps"
        )
    return tuple(arguments)


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return a parameter's annotation, evaluated where it is text (`from __future__ import annotations`)."""
    if parameter.annotation is _NO_ANNOTATION:
        return _NO_ANNOTATION
    innermost: Any = function
    while True:
        following = getattr(innermost, "func", None) or getattr(innermost, "__wrapped__", None)
        if following is None:
            break
        innermost = following
    names = getattr(innermost, "__globals__", None) or getattr(type(innermost).__call__, "__globals__", {})
    holder: Any = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)[parameter.name]
    except (NameError, TypeError, SyntaxError, AttributeError) as err:
        raise UsageError(
            f"handler {_shown(function)}: the annotation of {parameter.name!r} can't be read ({err}); "
            "it is needed at run time, so it must not be imported for type checkers only"
        ) from err


def _is_task(annotation: Any) -> bool:
    return (annotation.__origin__ if typing.get_origin(annotation) is Annotated else annotation) is Task


def _shown(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))
