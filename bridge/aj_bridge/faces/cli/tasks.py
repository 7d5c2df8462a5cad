"""`ajc task`: the Go project's grammar over `Client` and `Admin`."""

import os
import sys
from datetime import timedelta
from pathlib import Path

import click

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import Group, complain_of, confirm, leaf, signature_options, subgroup, with_client
from aj_bridge.faces.cli.params import DURATION
from aj_sdk.client import Client
from aj_sdk.errors import AsyncJobsError
from aj_sdk.tasks import NewDeadline, TaskFilter
from aj_sdk.wire.names import DEFAULT_QUEUE
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import DEFAULT_MAX_TRIES, TaskRecord

__all__ = ["register"]

_JSON = click.option("--json", "-j", "as_json", is_flag=True, help="Print JSON.")
_FORCE = click.option("--force", "-f", is_flag=True, help="Do not ask.")


def register(root: Group) -> None:
    """Add the commands."""
    group = subgroup(root, "task", help="Enqueue tasks, look at them, retry and remove them.")
    signature_options(sign=True, verify=True)(group)
    for command in (_add, _view, _list, _watch, _retry, _cancel, _delete, _purge, _initialize, _configure):
        group.add_command(command)


@signature_options(sign=True)
@leaf(
    "add",
    "ajc task add email:new hello",
    'ajc task add email:new \'{"to": "a@example.net"}\' --raw -q EMAIL --deadline 1h',
    "ajc task add image:scale @picture.png --raw --id picture-17",
)
@click.argument("type")
@click.argument("payload")
@click.option("--queue", "-q", default=DEFAULT_QUEUE, show_default=True, help="Queue that the task goes to.")
@click.option("--deadline", type=DURATION, help="How long from now a try may begin at the latest.")
@click.option("--tries", type=int, default=DEFAULT_MAX_TRIES, show_default=True, help="Tries; 0 for no limit.")
@click.option("--id", "task_id", help="Id of the task; doing it again with the same id makes no second task.")
@click.option("--raw", is_flag=True, help="Store PAYLOAD as it is; @FILE reads a file, - reads standard input.")
@_JSON
@with_client
async def _add(
    client: Client,
    /,
    *,
    type: str,  # noqa: A002 - the argument's name
    payload: str,
    queue: str,
    deadline: timedelta | None,
    tries: int,
    task_id: str | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Enqueue a task.

    PAYLOAD is stored as a JSON string, as the Go project's command does: a handler that wants an object gets it with
    --raw.
    """
    body = _raw_payload(payload) if raw else payload
    task = await client.enqueue(type, body, queue=queue, deadline=deadline, max_tries=tries, id=task_id)
    if as_json:
        output.print_json(task.to_map())
    else:
        click.echo(f"Enqueued task {task.id}")


def _raw_payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as err:
            raise click.BadParameter(f"cannot read {text[1:]}: {err.strerror}", param_hint="PAYLOAD") from None
    return os.fsencode(text)


@signature_options(verify=True)
@leaf(
    "view",
    "ajc task view 3MTraoil8CSHHq6MD6DaJbDjPqD",
    "ajc task view order-17 --json",
)
@click.argument("task_id", metavar="ID")
@_JSON
@with_client
async def _view(client: Client, /, *, task_id: str, as_json: bool) -> None:
    """Show a task."""
    task = await client.load(task_id)
    if as_json:
        output.print_json(task.to_map())
    else:
        output.print_task(task)


@leaf(
    "list",
    "ajc task list",
    "ajc task list 1000 --state expired --state terminated --queue EMAIL",
    "ajc task list 0 --json",
)
@click.argument("limit", type=int, default=200)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in TaskState if state.value]),
    help="Only tasks in this state; may be given several times.",
)
@click.option("--queue", "-q", help="Only tasks of this queue.")
@click.option("--type", "task_type", help="Only tasks of this type.")
@_JSON
@with_client
async def _list(
    client: Client, /, *, limit: int, states: tuple[str, ...], queue: str | None, task_type: str | None, as_json: bool
) -> None:
    """List tasks, the one changed longest ago first.

    LIMIT is how many at most: 200 when it is not said, 0 for all.
    """
    wanted = TaskFilter(states=[TaskState(state) for state in states], queue=queue or "", type=task_type or "")
    tasks = [stored async for stored in client.admin.tasks.select(wanted, limit=limit)]
    if as_json:
        output.print_json([output.stored_map(stored) for stored in tasks])
    else:
        total = (await client.admin.task_store_info()).tasks if wanted.any else len(tasks)
        output.print_tasks(tasks, total)


@leaf(
    "watch",
    "ajc task watch",
    "ajc task watch --task order-17 --json",
)
@click.option("--task", "task_id", help="Only what happens to this task.")
@click.option("--json", "-j", "as_json", is_flag=True, help="Print one JSON document a line.")
@with_client
async def _watch(client: Client, /, *, task_id: str | None, as_json: bool) -> None:
    """Show what happens to tasks, as it happens."""
    async with client.watch(task_id) as events:
        click.echo("Watching; Ctrl-C ends it", err=True)
        async for event in events:
            if as_json:
                output.print_json_line(output.event_map(event))
            else:
                click.echo(output.event_line(event))


@leaf(
    "retry",
    "ajc task retry order-17",
    "ajc task retry order-17 order-18 --json",
    "ajc task retry order-17 --deadline 1h",
    "ajc task retry order-17 --force",
)
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--deadline", type=DURATION, help="Another deadline, from now; 0 for none. A signed task needs --sign.")
@click.option("--force", "-f", is_flag=True, help="Also tasks that wait or run; a running call is stopped first.")
@_JSON
@with_client
async def _retry(
    client: Client, /, *, task_ids: tuple[str, ...], deadline: timedelta | None, force: bool, as_json: bool
) -> None:
    """Let tasks that have ended start over.

    Each goes into the queue that it was in, with its tries at 0.
    """
    until: NewDeadline = "same" if deadline is None else deadline or None
    done: list[TaskRecord] = []
    errors: list[AsyncJobsError] = []
    for task_id in task_ids:
        try:
            done.append(await client.admin.tasks.retry(task_id, force=force, deadline=until))
        except AsyncJobsError as err:
            errors.append(err)
    if as_json:
        output.print_json([task.to_map() for task in done])
    else:
        for task in done:
            output.print_task(task)
    complain_of(errors)


@leaf(
    "cancel",
    "ajc task cancel order-17",
    'ajc task cancel order-17 order-18 --reason "the customer left"',
)
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", default="", metavar="TEXT", help="Why; becomes the task's last error.")
@_JSON
@with_client
async def _cancel(client: Client, /, *, task_ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """End tasks that wait or run.

    They become terminated. A bridge that is at work on one stops the call; what a handler answers all the same is not
    saved.
    """
    done: list[TaskRecord] = []
    errors: list[AsyncJobsError] = []
    for task_id in task_ids:
        try:
            done.append(await client.admin.tasks.cancel(task_id, reason))
        except AsyncJobsError as err:
            errors.append(err)
    if as_json:
        output.print_json([task.to_map() for task in done])
    else:
        for task in done:
            click.echo(f"Cancelled task {task.id}")
    complain_of(errors)


@leaf(
    "delete",
    "ajc task delete order-17",
    "ajc task delete -f order-17 order-18",
)
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@_FORCE
@with_client
async def _delete(client: Client, /, *, task_ids: tuple[str, ...], force: bool) -> None:
    """Remove tasks, with their items."""
    confirm(f"Really remove task {', '.join(task_ids)}", force=force)
    errors: list[AsyncJobsError] = []
    for task_id in task_ids:
        try:
            await client.admin.tasks.delete(task_id)
            click.echo(f"Removed task {task_id}")
        except AsyncJobsError as err:
            errors.append(err)
    complain_of(errors)


@leaf(
    "purge",
    "ajc task purge",
    "ajc task purge -f",
)
@_FORCE
@with_client
async def _purge(client: Client, /, *, force: bool) -> None:
    """Remove all tasks from the task store.

    Their items stay in the queues until a worker comes upon them.
    """
    if not force:
        tasks = (await client.admin.task_store_info()).tasks
        confirm(f"Really purge the task store of {tasks:,} tasks; the items in the queues stay", force=force)
    click.echo(f"Purged {await client.admin.tasks.purge():,} tasks")


@leaf(
    "initialize",
    "ajc task initialize",
    "ajc task initialize --retention 30d --replicas 3",
)
@click.option("--memory", is_flag=True, help="Keep the tasks in memory instead of in files.")
@click.option("--retention", type=DURATION, default="0", help="How long a task is kept after its last change; 0: ever.")
@click.option("--replicas", type=click.IntRange(1, 5), default=1, show_default=True, help="Copies in a cluster.")
@_JSON
@with_client
async def _initialize(client: Client, /, *, memory: bool, retention: timedelta, replicas: int, as_json: bool) -> None:
    """Make the task store.

    One that is there stays as it is.
    """
    await client.admin.ensure_task_store(memory=memory, replicas=replicas, retention=retention)
    await _print_store(client, as_json)


@leaf(
    "configure",
    "ajc task configure 30d 1",
    "ajc task configure 0 3",
)
@click.argument("retention", type=DURATION)
@click.argument("replicas", type=click.IntRange(1, 5))
@_JSON
@with_client
async def _configure(client: Client, /, *, retention: timedelta, replicas: int, as_json: bool) -> None:
    """Change how long tasks are kept, and in how many copies.

    RETENTION is how long after its last change a task is removed, 0 for never.
    """
    await client.admin.configure_task_store(retention=retention, replicas=replicas)
    await _print_store(client, as_json)


async def _print_store(client: Client, as_json: bool) -> None:
    info = await client.admin.task_store_info()
    if as_json:
        output.print_json(output.store_map(info))
    else:
        output.print_store(info)
