"""`ajc queue`: the Go project's grammar over `Admin`."""

from datetime import datetime, timedelta
from typing import Any

import click

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import Group, confirm, leaf, subgroup, with_client
from aj_bridge.faces.cli.params import DURATION, INSTANT
from aj_sdk.client import Client
from aj_sdk.queue import Queue
from aj_sdk.wire.queue import MAX_WEIGHT

__all__ = ["register"]

_JSON = click.option("--json", "-j", "as_json", is_flag=True, help="Print JSON.")
_WEIGHT = click.IntRange(1, MAX_WEIGHT)
_WEIGHT_HELP = "Its part of the slots of a bridge that serves other queues beside it."
_FORCE = click.option("--force", "-f", is_flag=True, help="Do not ask.")


def register(root: Group) -> None:
    """Add the commands."""
    group = subgroup(root, "queue", help="Make queues, look at them, change, pause, purge and remove them.")
    for command in (_add, _list, _info, _configure, _pause, _resume, _purge, _delete):
        group.add_command(command)


@leaf(
    "add",
    "ajc queue add EMAIL",
    "ajc queue add EMAIL --run-time 5m --tries 20 --concurrent 50",
    "ajc queue add SHARED --go-workers --entries 10000",
)
@click.argument("name")
@click.option("--age", type=DURATION, default="0", help="How long an item may stay; 0: ever.")
@click.option("--entries", type=int, default=0, help="How many items may wait; 0: no limit.")
@click.option("--tries", type=int, default=-1, help="Cap on a task's tries; -1: none.")
@click.option("--run-time", type=DURATION, default="1h", show_default=True, help="How long one try may take.")
@click.option("--concurrent", type=int, default=100, show_default=True, help="Tasks in flight, over all workers.")
@click.option("--memory", is_flag=True, help="Keep the items in memory instead of in files.")
@click.option("--replicas", type=click.IntRange(1, 5), default=1, show_default=True, help="Copies in a cluster.")
@click.option("--discard-old", is_flag=True, help="When full, drop the oldest item instead of refusing the new one.")
@click.option("--lease", type=DURATION, help="How long a bridge owns an item without a sign of life. [default: 30s]")
@click.option("--go-workers", is_flag=True, help="Make it for workers of the Go project too, which know no lease.")
@click.option("--weight", type=_WEIGHT, default=1, show_default=True, help=_WEIGHT_HELP)
@_JSON
@with_client
async def _add(
    client: Client,
    /,
    *,
    name: str,
    age: timedelta,
    entries: int,
    tries: int,
    run_time: timedelta,
    concurrent: int,
    memory: bool,
    replicas: int,
    discard_old: bool,
    lease: timedelta | None,
    go_workers: bool,
    weight: int,
    as_json: bool,
) -> None:
    """Make a queue."""
    queue = Queue(
        name,
        max_run_time=run_time,
        max_tries=tries,
        max_concurrent=concurrent,
        replicas=replicas,
        memory=memory,
        max_age=age,
        max_entries=entries,
        discard_old=discard_old,
        lease=lease,
        go_workers=go_workers,
        weight=weight,
    )
    await client.admin.create_queue(queue, exist_ok=False)
    await _print(client, name, as_json)


@leaf(
    "list",
    "ajc queue list",
    "ajc queue list --json",
)
@_JSON
@with_client
async def _list(client: Client, /, *, as_json: bool) -> None:
    """List the queues."""
    queues = await client.admin.queues()
    if as_json:
        output.print_json([output.queue_map(info) for info in queues])
    else:
        output.print_queues(queues)


@leaf(
    "info",
    "ajc queue info EMAIL",
    "ajc queue info EMAIL --json",
)
@click.argument("name")
@_JSON
@with_client
async def _info(client: Client, /, *, name: str, as_json: bool) -> None:
    """Show a queue and how it stands."""
    await _print(client, name, as_json)


@leaf(
    "configure",
    "ajc queue configure EMAIL --run-time 10m --tries 5",
    "ajc queue configure EMAIL --entries 100000 --discard-old",
)
@click.argument("name")
@click.option("--age", "max_age", type=DURATION, help="How long an item may stay; 0: ever.")
@click.option("--entries", "max_entries", type=int, help="How many items may wait; 0: no limit.")
@click.option("--tries", "max_tries", type=int, help="Cap on a task's tries; -1: none.")
@click.option("--run-time", "max_run_time", type=DURATION, help="How long one try may take.")
@click.option("--concurrent", "max_concurrent", type=int, help="Tasks in flight, over all workers.")
@click.option("--replicas", type=click.IntRange(1, 5), help="Copies in a cluster.")
@click.option(
    "--discard-old/--discard-new", default=None, help="When full, drop the oldest item, or refuse the new one."
)
@click.option("--lease", type=DURATION, help="How long a bridge owns an item without a sign of life.")
@click.option("--weight", type=_WEIGHT, help=_WEIGHT_HELP)
@_JSON
@with_client
async def _configure(client: Client, /, *, name: str, as_json: bool, **changes: Any) -> None:
    """Change a queue.

    What is not named stays as it is. Bridges that run notice within 10 seconds.
    """
    await client.admin.configure_queue(name, **changes)
    await _print(client, name, as_json)


@leaf(
    "pause",
    "ajc queue pause EMAIL",
    "ajc queue pause EMAIL --for 1h",
    "ajc queue pause EMAIL --until 2026-12-24T18:00:00Z",
)
@click.argument("name")
@click.option("--for", "span", type=DURATION, help="Go on after this time.")
@click.option("--until", type=INSTANT, help="Go on at this time; without a zone it is this machine's.")
@_JSON
@with_client
async def _pause(
    client: Client, /, *, name: str, span: timedelta | None, until: datetime | None, as_json: bool
) -> None:
    """Have a queue hand out nothing more.

    No worker gets anything of it, ours or the Go project's, until the time that is given or `ajc queue resume`. What
    they have in hand goes on, and tasks can be enqueued. Needs nats-server 2.11 or newer.
    """
    if span is not None and until is not None:
        raise click.UsageError("--for and --until contradict each other; choose one")
    await client.admin.pause_queue(name, until=until or span)
    await _print(client, name, as_json)


@leaf(
    "resume",
    "ajc queue resume EMAIL",
    "ajc queue resume EMAIL --json",
)
@click.argument("name")
@_JSON
@with_client
async def _resume(client: Client, /, *, name: str, as_json: bool) -> None:
    """Let a paused queue go on."""
    await client.admin.resume_queue(name)
    await _print(client, name, as_json)


@leaf(
    "purge",
    "ajc queue purge EMAIL",
    "ajc queue purge EMAIL -f",
)
@click.argument("name")
@_FORCE
@with_client
async def _purge(client: Client, /, *, name: str, force: bool) -> None:
    """Remove all items of a queue.

    Parked items go too; the tasks themselves stay.
    """
    if not force:
        confirm(f"Really purge {await _stock(client, name)}", force=force)
    click.echo(f"Purged {await client.admin.purge_queue(name):,} items from queue {name}")


@leaf(
    "delete",
    "ajc queue delete EMAIL",
    "ajc queue delete EMAIL -f",
)
@click.argument("name")
@_FORCE
@with_client
async def _delete(client: Client, /, *, name: str, force: bool) -> None:
    """Remove a queue with all its items.

    Parked items go too; the tasks themselves stay.
    """
    if not force:
        confirm(f"Really remove {await _stock(client, name)}", force=force)
    await client.admin.delete_queue(name)
    click.echo(f"Removed queue {name}")


async def _stock(client: Client, name: str) -> str:
    info = await client.admin.queue_info(name)
    return f"queue {name} with {info.items:,} items and {info.parked or 0:,} parked ones"


async def _print(client: Client, name: str, as_json: bool) -> None:
    info = await client.admin.queue_info(name)
    if as_json:
        output.print_json(output.queue_map(info))
    else:
        output.print_queue(info)
