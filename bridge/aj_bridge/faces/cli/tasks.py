"""`ajc task`: the Go project's grammar over `Client` and `Admin`."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import click

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.acts import cancel, delete, retry
from aj_bridge.faces.cli.families import graph
from aj_bridge.faces.cli.filters import filter_options, task_filter
from aj_bridge.faces.cli.frame import Group, complain_of, confirm, leaf, signature_options, subgroup, with_client
from aj_bridge.faces.cli.params import DURATION, INSTANT, payload_bytes
from aj_bridge.faces.cli.process import process
from aj_sdk.client import Client
from aj_sdk.errors import AsyncJobsError
from aj_sdk.ids import new_id
from aj_sdk.run_now import RunNow
from aj_sdk.wire.interim import Progress
from aj_sdk.wire.names import DEFAULT_QUEUE
from aj_sdk.wire.task import DEFAULT_MAX_TRIES

__all__ = ["register"]

_JSON = click.option("--json", "-j", "as_json", is_flag=True, help="Print JSON.")
_FORCE = click.option("--force", "-f", is_flag=True, help="Do not ask.")


def register(root: Group) -> None:
    """Add the commands."""
    group = subgroup(root, "task", help="Enqueue tasks, look at them, retry, cancel and remove them.")
    signature_options(sign=True, verify=True)(group)
    for command in (
        _add,
        _view,
        _list,
        _watch,
        _run_now,
        graph,
        retry,
        cancel,
        delete,
        _purge,
        _initialize,
        _configure,
        process,
    ):
        group.add_command(command)


@signature_options(sign=True)
@leaf(
    "add",
    "ajc task add email:new hello",
    'ajc task add email:new \'{"to": "a@example.net"}\' --raw -q EMAIL --deadline 1h',
    "ajc task add image:scale @picture.png --raw --id picture-17",
    "ajc task add report:build 2026-11 --unique-key report-2026-11 --unique-for 1h",
    "ajc task add email:reminder hello --in 2h30m",
    "ajc task add report:send 2026-11 --depends build-a,build-b --load",
)
@click.argument("type")
@click.argument("payload")
@click.option("--queue", "-q", default=DEFAULT_QUEUE, show_default=True, help="Queue that the task goes to.")
@click.option("--deadline", type=DURATION, help="How long from now a try may begin at the latest.")
@click.option("--tries", type=int, default=DEFAULT_MAX_TRIES, show_default=True, help="Tries; 0 for no limit.")
@click.option("--id", "task_id", help="Id of the task; doing it again with the same id makes no second task.")
@click.option("--unique-key", metavar="TEXT", help="Make no second task with this key within --unique-for.")
@click.option("--unique-for", type=DURATION, help="How long the key stands for its first task.")
@click.option("--unique-until-end", is_flag=True, help="Make room also when that task has ended before.")
@click.option("--at", type=INSTANT, help="Not before this time, like 2026-12-24T18:00:00Z or '2026-12-24 18:00'.")
@click.option("--in", "delay", type=DURATION, help="Not before so long from now.")
@click.option("--depends", multiple=True, metavar="IDS", help="Tasks that must complete before; separated by commas.")
@click.option("--load", is_flag=True, help="Give the results of those tasks to the handler.")
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
    unique_key: str | None,
    unique_for: timedelta | None,
    unique_until_end: bool,
    at: datetime | None,
    delay: timedelta | None,
    depends: tuple[str, ...],
    load: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Enqueue a task.

    PAYLOAD is stored as a JSON string, as the Go project's command does: a handler that wants an object gets it with
    --raw.
    """
    if at is not None and delay is not None:
        raise click.UsageError("give one of --at and --in")
    if load and not depends:
        raise click.UsageError("--load needs --depends")
    body = payload_bytes(payload) if raw else payload
    wanted_id = task_id or new_id()
    task = await client.enqueue(
        type,
        body,
        queue=queue,
        deadline=deadline,
        max_tries=tries,
        id=wanted_id,
        unique_key=unique_key,
        unique_for=unique_for,
        unique_until_end=unique_until_end,
        run_at=at,
        delay=delay,
        dependencies=[name.strip() for names in depends for name in names.split(",")],
        load_dependencies=load,
    )
    if as_json:
        output.print_json(task.to_map())
    elif task.id != wanted_id:
        click.echo(f"Task {task.id} has this key already, state {task.state.value or 'unknown'}")
    else:
        click.echo(f"Enqueued task {task.id}")


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
    """Show a task, and what is known of the attempts at it.

    Bridges keep the attempts that did not complete, at most 50 a task; with --attempts all, the others too.
    """
    task = await client.load(task_id)
    attempts = await client.attempts(task_id)
    if as_json:
        output.print_json({**task.to_map(), "attempts": [attempt.to_map() for attempt in attempts]})
    else:
        output.print_task(task)
        output.print_attempts(attempts)


@leaf(
    "list",
    "ajc task list",
    "ajc task list 1000 --state expired --state terminated --queue EMAIL",
    "ajc task list 0 --json",
)
@click.argument("limit", type=int, default=200)
@filter_options
@_JSON
@with_client
async def _list(client: Client, /, *, limit: int, as_json: bool, **asked: Any) -> None:
    """List tasks, the one changed longest ago first.

    LIMIT is how many at most: 200 when it is not said, 0 for all.
    """
    wanted = task_filter(**asked)
    tasks = [stored async for stored in client.admin.tasks.select(wanted, limit=limit)]
    if as_json:
        output.print_json([output.stored_map(stored) for stored in tasks])
    else:
        total = (await client.admin.task_store_info()).tasks if wanted.any else len(tasks)
        output.print_tasks(tasks, total)


@leaf(
    "run-now",
    "ajc task run-now order-17",
    "ajc task run-now order-17 order-18 --json",
)
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@_JSON
@with_client
async def _run_now(client: Client, /, *, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Bring tasks that wait into their queues now.

    A task waits for its time, for its next try, for a handler, or for other tasks; one of the last kind looks at them
    and goes on waiting while they are not done.
    """
    done: list[RunNow] = []
    errors: list[AsyncJobsError] = []
    for task_id in task_ids:
        try:
            done.append(await client.admin.tasks.run_now(task_id))
        except AsyncJobsError as err:
            errors.append(err)
    if as_json:
        output.print_json([{"id": each.task.id, "outcome": each.outcome.name.lower()} for each in done])
    else:
        for each in done:
            click.echo(f"Task {each.task.id} {each.outcome} (state {each.task.state.value or 'unknown'})")
    complain_of(errors)


@leaf(
    "watch",
    "ajc task watch",
    "ajc task watch --task order-17 --json",
)
@click.option("--task", "task_id", help="Only what happens to this task.")
@click.option("--json", "-j", "as_json", is_flag=True, help="Print one JSON document a line.")
@with_client
async def _watch(client: Client, /, *, task_id: str | None, as_json: bool) -> None:
    """Show what happens to tasks, as it happens, and the progress that their handlers tell."""

    async def show_progress(told: AsyncIterator[Progress]) -> None:
        async for progress in told:
            if as_json:
                output.print_json_line(json.loads(progress.to_wire()))
            else:
                click.echo(output.progress_line(progress))

    async with client.watch(task_id) as events, client.progress(task_id) as told, asyncio.TaskGroup() as group:
        click.echo("Watching; Ctrl-C ends it", err=True)
        group.create_task(show_progress(told))
        async for event in events:
            if as_json:
                output.print_json_line(output.event_map(event))
            else:
                click.echo(output.event_line(event))


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
    "ajc task initialize --all",
)
@click.option("--memory", is_flag=True, help="Keep the tasks in memory instead of in files.")
@click.option("--retention", type=DURATION, default="0", help="How long a task is kept after its last change; 0: ever.")
@click.option("--replicas", type=click.IntRange(1, 5), default=1, show_default=True, help="Copies in a cluster.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also make the streams and buckets that are otherwise made on demand, by whoever may.",
)
@_JSON
@with_client
async def _initialize(
    client: Client, /, *, memory: bool, retention: timedelta, replicas: int, everything: bool, as_json: bool
) -> None:
    """Make the task store.

    One that is there stays as it is.
    """
    await client.admin.ensure_task_store(memory=memory, replicas=replicas, retention=retention)
    if everything:
        await client.admin.ensure_everything()
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
