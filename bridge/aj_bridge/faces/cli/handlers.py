"""`aj-bridge handlers`: who answers what, over `client.admin.handlers`."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any, Final

import click
from rich.text import Text

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import leaf, with_client
from aj_bridge.faces.cli.params import DURATION
from aj_sdk.client import Client
from aj_sdk.handler_service import HANDLER_SERVICE
from aj_sdk.handlers import Handler, Waiting, WaitingType, listens_to
from aj_sdk.wire.names import CATCH_ALL, HANDLER_QUEUE_GROUP
from aj_sdk.wire.times import format_time

__all__ = ["command"]

_NUMBERS: Final = ("Processes", "In flight", "Calls", "Errors", "Average", "Waiting")
_SHOWN_ERROR: Final = 100
_NAMES: Final = ("Type", "Language", "Version", *_NUMBERS, "Remarks")


@leaf(
    "handlers",
    "aj-bridge handlers",
    "aj-bridge handlers 'email:*' --json",
    "aj-bridge handlers --check --timeout 5s",
)
@click.argument("types", metavar="[TYPE...]", nargs=-1)
@click.option(
    "--timeout",
    type=DURATION,
    default="2s",
    show_default=True,
    help="How long to wait for answers; when none has come for a quarter of it, that was all.",
)
@click.option(
    "--look-at",
    type=click.IntRange(0, 10_000_000),
    default=10_000,
    show_default=True,
    help="How many work items to look at for what waits; 0 leaves it out.",
)
@click.option("--check", is_flag=True, help="Exit code 1 where tasks wait of a type that nobody shown here answers.")
@click.option("--json", "-j", "as_json", is_flag=True, help="Print one JSON object.")
@with_client
async def command(
    client: Client,
    /,
    *,
    types: tuple[str, ...],
    timeout: timedelta,  # noqa: ASYNC109 - of the answers
    look_at: int,
    check: bool,
    as_json: bool,
) -> None:
    """Show who answers which type of task, and the types with waiting tasks that nobody answers.

    Asks all NATS micro services (`$SRV`); those with an endpoint below CHORIA_AJ.H.T are handlers, in any language. A
    handler that is a mere subscription can't be seen: its type shows as answered by nobody once tasks of it wait.
    Calls, errors and times are since a process began. TYPE may be a pattern, such as 'email:*'.
    """
    handlers = await client.admin.handlers.within(timeout).showing()
    waiting = await client.admin.handlers.waiting(look_at) if look_at else Waiting(types=(), items=0, more=False)
    answered = {each.type: listens_to(handlers, each.type) for each in waiting.types}
    shown = [each for each in handlers if _wanted(each.type, types)]
    tasks = [each for each in waiting.types if _wanted(each.type, types)]
    alone = [each for each in tasks if answered[each.type] is None]
    if as_json:
        output.print_json(
            {
                "handlers": [_handler_map(each) for each in shown],
                "waiting": [_waiting_map(each, answered[each.type]) for each in tasks],
                "items_looked_at": waiting.items,
                "more_items": waiting.more,
            }
        )
    else:
        _print(shown, tasks, answered, more=waiting.more)
    if check and alone:
        raise click.exceptions.Exit(1)


def _wanted(task_type: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(task_type or CATCH_ALL, pattern) for pattern in patterns)


def _handler_map(handler: Handler) -> dict[str, Any]:
    return {
        "type": handler.type,
        "subject": handler.subject,
        "queue_group": handler.queue_group,
        "service": handler.service,
        "instance": handler.instance,
        "version": handler.version,
        "language": handler.language,
        "started": None if handler.started_ns is None else format_time(handler.started_ns),
        "in_flight": handler.in_flight,
        "requests": handler.requests,
        "errors": handler.errors,
        "last_error": handler.last_error,
        "average_ns": handler.processing_ns // handler.requests if handler.requests else 0,
    }


def _waiting_map(waiting: WaitingType, answered: str | None) -> dict[str, Any]:
    return {
        "type": waiting.type,
        "tasks": waiting.tasks,
        "oldest": format_time(waiting.oldest_ns),
        "last_error": waiting.error,
        "answered_as": answered,
    }


def _print(
    handlers: Sequence[Handler], waiting: Sequence[WaitingType], answered: Mapping[str, str | None], *, more: bool
) -> None:
    left = {each.type: each for each in waiting}
    rows: list[Sequence[str | Text]] = []
    for (task_type, language, version), group in groupby(handlers, lambda one: (one.type, one.language, one.version)):
        tasks = left.pop(task_type, None)
        rows.append(_row(task_type, language, version, list(group), tasks))
    # Those that nobody answers first: they are what one looks for.
    by_urgency = sorted(left.values(), key=lambda each: (answered[each.type] is not None, each.type))
    rows[:0] = [_waiting_row(each, answered[each.type]) for each in by_urgency]
    if rows:
        count = f"{len(handlers):,} handler{'' if len(handlers) == 1 else 's'}"
        output.table(count, _NAMES, rows, right=_NUMBERS)
    else:
        click.echo("No handlers show themselves, and no tasks wait")
    alone = [each for each in by_urgency if answered[each.type] is None]
    if alone:
        number = "1 type has" if len(alone) == 1 else f"{len(alone):,} types have"
        click.echo(f"{number} waiting tasks and nobody who answers; handlers without $SRV can't be seen")
    if more:
        click.echo("There are more work items than were looked at: --look-at N")


def _row(
    task_type: str, language: str, version: str, group: Sequence[Handler], waiting: WaitingType | None
) -> Sequence[str | Text]:
    calls = sum(each.requests for each in group)
    errors = sum(each.errors for each in group)
    in_flight = [each.in_flight for each in group if each.in_flight is not None]
    services = sorted({each.service for each in group} - {HANDLER_SERVICE})
    remarks = [f"service {', '.join(services)}"] if services else []
    groups = sorted({each.queue_group for each in group})
    if groups != [HANDLER_QUEUE_GROUP]:
        names = ", ".join(name or "none" for name in groups)
        remarks.append(f"queue group {names}, not {HANDLER_QUEUE_GROUP}: calls may run more than once")
    return (
        task_type or CATCH_ALL,
        language or "unknown",
        version,
        f"{len({each.instance for each in group}):,}",
        f"{sum(in_flight):,}" if in_flight else "unknown",
        f"{calls:,}",
        Text(f"{errors:,}", "red" if errors else ""),
        output.duration_text(sum(each.processing_ns for each in group) // calls) if calls else "",
        f"{waiting.tasks:,}" if waiting else "",
        Text(output.clean("; ".join(remarks)), "yellow"),
    )


def _waiting_row(waiting: WaitingType, answered: str | None) -> Sequence[str | Text]:
    if answered is None:
        style, who, remark = "red", "nobody", waiting.error
    else:
        style, who = "", ""
        remark = f"answered as {answered or CATCH_ALL}, where a bridge has that route"
    cells = (waiting.type, who, "", "", "", "", "", "", f"{waiting.tasks:,}", output.cut(remark, _SHOWN_ERROR))
    return [Text(output.clean(cell), style) for cell in cells]
