"""Options that say which tasks or dead letters are meant, the same for looking and for acting."""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypedDict, TypeVar

import click

from aj_bridge.faces.cli.params import DURATION
from aj_sdk.dead import DeadFilter
from aj_sdk.task_filter import TaskFilter
from aj_sdk.wire.dead import DeadReason
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import to_timedelta_ns

__all__ = ["dead_filter", "dead_filter_options", "filter_options", "task_filter"]

F = TypeVar("F", bound=Callable[..., Any])


def filter_options(command: F) -> F:
    """Give a command the options that `task_filter` makes a filter of."""
    states = (state.value for state in TaskState if state.value)
    kind = _one_of("--state", "states", states, "Only tasks in this state; may be given several times.")
    return _with(command, kind, what="tasks created", error="in their last error")


def dead_filter_options(command: F) -> F:
    """Give a command the options that `dead_filter` makes a filter of."""
    reasons = (reason.value for reason in DeadReason)
    kind = _one_of("--reason", "reasons", reasons, "Only what died of this; may be given several times.")
    return _with(command, kind, what="what died", error="in the error")


def task_filter(*, states: tuple[str, ...], **rest: Any) -> TaskFilter:
    """Make a filter of what was asked for: the values of `filter_options`, under their names."""
    return TaskFilter(states=tuple(TaskState(state) for state in states), **_common(**rest))


def dead_filter(*, reasons: tuple[str, ...], **rest: Any) -> DeadFilter:
    """Make a filter of what was asked for: the values of `dead_filter_options`, under their names."""
    return DeadFilter(reasons=tuple(DeadReason(reason) for reason in reasons), **_common(**rest))


class _Common(TypedDict):
    queue: str
    type: str
    error: str
    since_ns: int | None
    before_ns: int | None


def _common(*, queue: str, task_type: str, error: str, since: timedelta | None, before: timedelta | None) -> _Common:
    now_ns = time.time_ns()
    return {
        "queue": queue,
        "type": task_type,
        "error": error,
        "since_ns": None if since is None else now_ns - to_timedelta_ns(since),
        "before_ns": None if before is None else now_ns - to_timedelta_ns(before),
    }


def _one_of(option: str, name: str, words: Iterable[str], help: str) -> Callable[[F], F]:  # noqa: A002 - click's word
    return click.option(option, name, multiple=True, type=click.Choice(list(words)), help=help)


def _with(command: F, kind: Callable[[F], F], *, what: str, error: str) -> F:
    for option in (
        click.option("--before", type=DURATION, help=f"Only {what} longer ago than this."),
        click.option("--since", type=DURATION, help=f"Only {what} within this time."),
        click.option("--error", default="", metavar="TEXT", help=f"Only with this text {error}."),
        click.option("--type", "task_type", default="", help="Only tasks of this type."),
        click.option("--queue", "-q", default="", help="Only tasks of this queue."),
        kind,
    ):
        command = option(command)
    return command
