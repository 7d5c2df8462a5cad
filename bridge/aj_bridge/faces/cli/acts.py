"""`ajc task retry|cancel|delete`: acts on tasks that are named, or on all that a filter takes."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any, Final, ParamSpec

import click
import msgspec

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.bulk import collect, for_each
from aj_bridge.faces.cli.filters import filter_options, task_filter
from aj_bridge.faces.cli.frame import complain_of, confirm, leaf, signature_options, with_client
from aj_bridge.faces.cli.params import DURATION
from aj_sdk.client import Client
from aj_sdk.errors import TaskChangedError, TaskNotFoundError
from aj_sdk.task_filter import ANY_TASK, TaskFilter
from aj_sdk.tasks import NewDeadline
from aj_sdk.wire.state import FAILED_STATES, FINAL_STATES, TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = ["cancel", "delete", "retry"]

P = ParamSpec("P")

_JSON = click.option("--json", "-j", "as_json", is_flag=True, help="Print JSON.")
_IDS = click.argument("task_ids", metavar="[ID...]", nargs=-1)
_LIMIT = click.option("--limit", type=click.IntRange(0), default=0, help="At most so many of those that are meant.")
_UNFINISHED: Final = tuple(state for state in TaskState if state not in FINAL_STATES)
_SHOWN: Final = 5


class _Chosen(msgspec.Struct, frozen=True):
    """The tasks that a command is about; `only` guards those that a filter chose."""

    ids: Sequence[str]
    only: TaskFilter = ANY_TASK


def _named_or_meant(command: Callable[P, None]) -> Callable[P, None]:
    """Refuse a command line that says neither which tasks nor what they are like, before anything is connected."""

    @wraps(command)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        conditions = [kwargs[name] for name in ("states", "queue", "task_type", "error", "since", "before")]
        filtered = any(condition not in ("", None, ()) for condition in conditions)
        if bool(kwargs["task_ids"]) == filtered:
            options = "--state, --queue, --type, --error, --since or --before"
            raise click.UsageError(f"name tasks, or say which with {options}")
        if kwargs["limit"] and not filtered:
            raise click.UsageError("--limit goes with --state, --queue and the like, not with names")
        command(*args, **kwargs)

    return checked


@signature_options(sign=True)
@leaf(
    "retry",
    "ajc task retry order-17 order-18",
    "ajc task retry order-17 --deadline 1h",
    "ajc task retry order-17 --force",
    "ajc task retry --state expired --queue EMAIL --error timeout --since 6h",
)
@_IDS
@filter_options
@_LIMIT
@click.option("--deadline", type=DURATION, help="Another deadline, from now; 0 for none. A signed task needs --sign.")
@click.option(
    "--force", "-f", is_flag=True, help="Do not ask; and also tasks that wait or run: a running call is stopped first."
)
@_JSON
@_named_or_meant
@with_client
async def retry(
    client: Client,
    /,
    *,
    task_ids: tuple[str, ...],
    deadline: timedelta | None,
    force: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Let tasks that have ended start over.

    Each goes into the queue that it was in, with its tries at 0. Name tasks, or say which with --state, --queue and
    the like; without a state those that failed are meant: expired, terminated, unreachable and queue_error.
    """
    chosen = await _choose(client, task_ids, asked, FAILED_STATES, "Retry", force=force)
    until: NewDeadline = "same" if deadline is None else deadline or None

    async def act(task_id: str) -> TaskRecord:
        return await client.admin.tasks.retry(task_id, force=force, deadline=until, only=chosen.only)

    await _carry_out(chosen, act, "retrying", "Retried", as_json=as_json)


@leaf(
    "cancel",
    "ajc task cancel order-17",
    'ajc task cancel order-17 order-18 --reason "the customer left"',
    "ajc task cancel --queue EMAIL --type email:newsletter --before 1d",
)
@_IDS
@filter_options
@_LIMIT
@click.option("--reason", default="", metavar="TEXT", help="Why; becomes the task's last error.")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@_JSON
@_named_or_meant
@with_client
async def cancel(
    client: Client,
    /,
    *,
    task_ids: tuple[str, ...],
    reason: str,
    force: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """End tasks that wait or run.

    They become terminated. A bridge that is at work on one stops the call; what a handler answers all the same is not
    saved. Name tasks, or say which with --state, --queue and the like; without a state all that have not ended are
    meant.
    """
    chosen = await _choose(client, task_ids, asked, _UNFINISHED, "Cancel", force=force)

    async def act(task_id: str) -> TaskRecord:
        return await client.admin.tasks.cancel(task_id, reason, only=chosen.only)

    await _carry_out(chosen, act, "cancelling", "Cancelled", as_json=as_json)


@leaf(
    "delete",
    "ajc task delete order-17",
    "ajc task delete -f order-17 order-18",
    "ajc task delete --state complete --before 7d",
)
@_IDS
@filter_options
@_LIMIT
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@_JSON
@_named_or_meant
@with_client
async def delete(client: Client, /, *, task_ids: tuple[str, ...], force: bool, as_json: bool, **asked: Any) -> None:
    """Remove tasks, with their items.

    A bridge that is at work on one stops the call; tasks that wait for one become unreachable. Name tasks, or say
    which with --state, --queue and the like; without a state those that have ended are meant.
    """
    if task_ids:
        confirm(f"Really remove task {', '.join(task_ids)}", force=force)
    chosen = await _choose(client, task_ids, asked, FINAL_STATES, "Remove", force=force)

    async def act(task_id: str) -> None:
        await client.admin.tasks.delete(task_id, only=chosen.only)

    await _carry_out(chosen, act, "removing", "Removed", as_json=as_json)


async def _choose(
    client: Client,
    task_ids: tuple[str, ...],
    asked: dict[str, Any],
    states: Collection[TaskState],
    act: str,
    *,
    force: bool,
) -> _Chosen:
    limit = asked.pop("limit")
    if task_ids:
        return _Chosen(tuple(dict.fromkeys(task_ids)))
    wanted = task_filter(**asked)
    wanted = msgspec.structs.replace(wanted, states=wanted.states or states)
    found = await collect(client.admin.tasks.select(wanted, limit=limit), "looking")
    if found:
        count = Counter(stored.record.state.value or "without a state" for stored in found if stored.record)
        of_states = ", ".join(f"{number:,} {state}" for state, number in count.most_common())
        confirm(f"{act} {len(found):,} tasks ({of_states})", force=force)
    return _Chosen([stored.task_id for stored in found], wanted)


async def _carry_out(
    chosen: _Chosen, act: Callable[[str], Awaitable[TaskRecord | None]], doing: str, done: str, *, as_json: bool
) -> None:
    async def one(task_id: str) -> tuple[str, TaskRecord | None]:
        return task_id, await act(task_id)

    acted, errors = await for_each(chosen.ids, one, doing)
    left = [err for err in errors if chosen.only is not ANY_TASK and isinstance(err, _MEANWHILE)]
    if as_json:
        output.print_json([{"id": task_id} if task is None else task.to_map() for task_id, task in acted])
    elif chosen.only is ANY_TASK:
        for task_id, _ in acted:
            click.echo(f"{done} task {task_id}")
    else:
        click.echo(f"{done} {len(acted):,} tasks" + (f", {len(left):,} had changed meanwhile" if left else ""))
    complain_of([err for err in errors if err not in left], at_most=len(errors) if chosen.only is ANY_TASK else _SHOWN)


_MEANWHILE: Final = (TaskChangedError, TaskNotFoundError)
"""What happens to a task between the look and the act is no failure."""
