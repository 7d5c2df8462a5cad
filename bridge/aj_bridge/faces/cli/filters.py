"""Options that say which tasks are meant, the same for looking and for acting."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import click

from aj_bridge.faces.cli.params import DURATION
from aj_sdk.task_filter import TaskFilter
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import to_timedelta_ns

__all__ = ["filter_options", "task_filter"]

F = TypeVar("F", bound=Callable[..., Any])


def filter_options(command: F) -> F:
    """Give a command the options that `task_filter` makes a filter of."""
    for option in (
        click.option("--before", type=DURATION, help="Only tasks created longer ago than this."),
        click.option("--since", type=DURATION, help="Only tasks created within this time."),
        click.option("--error", default="", metavar="TEXT", help="Only tasks with this text in their last error."),
        click.option("--type", "task_type", default="", help="Only tasks of this type."),
        click.option("--queue", "-q", default="", help="Only tasks of this queue."),
        click.option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice([state.value for state in TaskState if state.value]),
            help="Only tasks in this state; may be given several times.",
        ),
    ):
        command = option(command)
    return command


def task_filter(
    *,
    states: tuple[str, ...],
    queue: str,
    task_type: str,
    error: str,
    since: timedelta | None,
    before: timedelta | None,
) -> TaskFilter:
    """Make a filter of what was asked for."""
    now_ns = time.time_ns()
    return TaskFilter(
        states=tuple(TaskState(state) for state in states),
        queue=queue,
        type=task_type,
        error=error,
        since_ns=None if since is None else now_ns - to_timedelta_ns(since),
        before_ns=None if before is None else now_ns - to_timedelta_ns(before),
    )
