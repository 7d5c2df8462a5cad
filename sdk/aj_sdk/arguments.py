"""What a handler function takes, read from its signature.

Knows annotations; calls nothing, and knows no registry.
"""

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, Final

from aj_sdk.errors import UsageError
from aj_sdk.handling import Task
from aj_sdk.payload import PayloadReader, payload_reader

__all__ = ["Argument", "arguments_of", "is_coroutine_function"]

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


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Say whether a handler is a coroutine function.

    Raises:
        UsageError: it can't be a handler at all.
    """
    if not callable(function) or inspect.isclass(function):
        raise UsageError(f"{function!r} can't be a handler: it is not a function")
    forms = (function, type(function).__call__)
    if any(inspect.isgeneratorfunction(form) or inspect.isasyncgenfunction(form) for form in forms):
        raise UsageError(f"{_shown(function)} can't be a handler: it is a generator; return the result, don't yield it")
    return any(inspect.iscoroutinefunction(form) for form in forms)


def arguments_of(function: Callable[..., Any]) -> tuple[Argument, ...]:
    """Return what to call a handler with.

    Raises:
        UsageError: it takes what nothing is known for, or no task and no payload.
    """
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
