"""`ajc dead`: the dead letters, over `client.admin.dead`."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import click
from rich.text import Text

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.bulk import for_each
from aj_bridge.faces.cli.filters import dead_filter, dead_filter_options
from aj_bridge.faces.cli.frame import Group, complain_of, confirm, leaf, subgroup, with_client
from aj_bridge.faces.cli.params import DURATION
from aj_sdk.client import Client
from aj_sdk.dead import Burial, DeadGroup, FoundLetter, group_letters
from aj_sdk.wire.dead import DeadReason
from aj_sdk.wire.times import format_time

__all__ = ["register"]

_JSON = click.option("--json", "-j", "as_json", is_flag=True, help="Print JSON.")
_FORCE = click.option("--force", "-f", is_flag=True, help="Do not ask.")
_SHOWN_ERROR: Final = 100


def register(root: Group) -> None:
    """Add the commands."""
    group = subgroup(root, "dead", help="Look at what could not be processed, let it run again, remove it.")
    for command in (_list, _view, _replay, _purge, _configure):
        group.add_command(command)


@leaf(
    "list",
    "ajc dead list",
    "ajc dead list --since 1d --reason expired --queue EMAIL",
    "ajc dead list --each --type email:new --json",
)
@click.argument("limit", type=int, default=0)
@click.option("--each", is_flag=True, help="Show each dead letter, not what they have in common.")
@dead_filter_options
@_JSON
@with_client
async def _list(client: Client, /, *, limit: int, each: bool, as_json: bool, **wanted: Any) -> None:
    """Show what could not be processed, grouped by reason, type and error.

    LIMIT is how many groups (letters with --each) at most; all when it is not said.
    """
    if each:
        letters = [found async for found in client.admin.dead.letters(dead_filter(**wanted), limit=max(limit, 0))]
        if as_json:
            output.print_json([_letter_map(found) for found in letters])
        else:
            _print_letters(letters)
        return
    groups = group_letters([found.letter async for found in client.admin.dead.letters(dead_filter(**wanted))])
    shown = groups[:limit] if limit > 0 else groups
    if as_json:
        output.print_json([_group_map(group) for group in shown])
    else:
        _print_groups(shown)


@leaf(
    "view",
    "ajc dead view order-17",
    "ajc dead view order-17 --json",
)
@click.argument("task_id", metavar="ID")
@_JSON
@with_client
async def _view(client: Client, /, *, task_id: str, as_json: bool) -> None:
    """Show a task's dead letters, with the record as it was."""
    letters = await client.admin.dead.find(task_id)
    if as_json:
        output.print_json([_letter_map(found, whole=True) for found in letters])
        return
    for found in letters:
        _print_letter(found)


@leaf(
    "replay",
    "ajc dead replay order-17 order-18",
    "ajc dead replay --type email:new --error 'mailbox full' --since 6h",
    "ajc dead replay --all -f",
)
@click.argument("task_ids", metavar="[ID...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that there are.")
@dead_filter_options
@_FORCE
@_JSON
@with_client
async def _replay(
    client: Client, /, *, task_ids: tuple[str, ...], everything: bool, force: bool, as_json: bool, **wanted: Any
) -> None:
    """Let dead tasks run again, and remove their letters.

    A task that is still stored starts over; one that is gone is stored again as it was, with its tries at 0.
    """
    letters = await _chosen(client, task_ids, everything, wanted, "Replay", force=force)
    tasks, errors = await for_each(_latest(letters), client.admin.dead.replay, "replaying")
    if as_json:
        output.print_json([task.to_map() for task in tasks])
    else:
        click.echo(f"Replayed {len(tasks):,} tasks")
    complain_of(errors)


@leaf(
    "purge",
    "ajc dead purge order-17",
    "ajc dead purge --before 7d --reason quarantined",
    "ajc dead purge --all -f",
)
@click.argument("task_ids", metavar="[ID...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that there are.")
@dead_filter_options
@_FORCE
@with_client
async def _purge(client: Client, /, *, task_ids: tuple[str, ...], everything: bool, force: bool, **wanted: Any) -> None:
    """Remove dead letters; the tasks' records stay as they are."""
    letters = await _chosen(client, task_ids, everything, wanted, "Remove", force=force)
    removed, errors = await for_each(letters, lambda found: client.admin.dead.remove([found]), "removing")
    click.echo(f"Removed {sum(removed):,} dead letters")
    complain_of(errors)


@leaf(
    "configure",
    "ajc dead configure",
    "ajc dead configure --expired 7d --terminated 90d --quarantined 0",
)
@click.option("--expired", type=DURATION, help="How long what expired is kept; 0: for ever.")
@click.option("--terminated", type=DURATION, help="How long what was terminated is kept; 0: for ever.")
@click.option("--unreachable", type=DURATION, help="How long what became unreachable is kept; 0: for ever.")
@click.option("--quarantined", type=DURATION, help="How long what can't be read is kept; 0: for ever.")
@_JSON
@with_client
async def _configure(client: Client, /, *, as_json: bool, **kept: timedelta | None) -> None:
    """Show or change how long dead letters are kept.

    A change holds for those that are stored from then on; bridges take it up within 30 seconds.
    """
    changes = {DeadReason(reason): span for reason, span in kept.items() if span is not None}
    burial = await (client.admin.dead.configure(changes) if changes else client.admin.dead.burial())
    if as_json:
        output.print_json({reason.value: _kept_ns(burial, reason) for reason in DeadReason})
        return
    output.sheet(
        "Dead letters are kept for",
        [(reason.value, output.duration_text(_kept_ns(burial, reason), zero="ever")) for reason in DeadReason],
    )


def _kept_ns(burial: Burial, reason: DeadReason) -> int:
    return burial.kept_ns.get(reason, burial.max_age_ns)


async def _chosen(
    client: Client, task_ids: Sequence[str], everything: bool, wanted: dict[str, Any], act: str, *, force: bool
) -> list[FoundLetter]:
    filtered = any(wanted.values())
    if sum((bool(task_ids), everything, filtered)) != 1:
        raise click.UsageError("name tasks, or say which with --reason, --queue, --type and the like, or give --all")
    dead = client.admin.dead
    if task_ids:
        return [found for task_id in dict.fromkeys(task_ids) for found in await dead.find(task_id)]
    letters = [found async for found in dead.letters(dead_filter(**wanted))]
    if letters:
        confirm(f"{act} {len(letters):,} dead letters", force=force)
    return letters


def _latest(letters: Sequence[FoundLetter]) -> list[FoundLetter]:
    # A task may have died more than once, of several reasons; it runs again once.
    latest: dict[str, FoundLetter] = {}
    for number, found in enumerate(letters):
        latest[found.letter.task_id or f" {number}"] = found
    return list(latest.values())


def _letter_map(found: FoundLetter, *, whole: bool = False) -> dict[str, Any]:
    letter = found.letter
    shown: dict[str, Any] = {
        "reason": letter.reason,
        "error": letter.detail,
        "at": format_time(letter.at_ns),
        "queue": letter.queue,
        "task_id": letter.task_id,
        "task_type": letter.task_type,
        "tries": letter.tries,
        "size": len(letter.body) if letter.whole_size is None else letter.whole_size,
    }
    if whole:
        record = found.record
        shown["record"] = None if record is None else record.to_map()
        shown["body"] = letter.body.decode("utf-8", "backslashreplace") if record is None else None
    return shown


def _group_map(group: DeadGroup) -> dict[str, Any]:
    return {
        "reason": group.reason,
        "task_type": group.task_type,
        "error": group.detail,
        "count": group.count,
        "newest": format_time(group.newest_ns),
        "example": group.example,
    }


def _print_groups(groups: Sequence[DeadGroup]) -> None:
    if not groups:
        click.echo("No dead letters")
        return
    rows = [
        (
            f"{group.count:,}",
            group.reason,
            group.task_type,
            output.cut(group.detail, _SHOWN_ERROR),
            output.time_text(group.newest_ns),
            group.example,
        )
        for group in groups
    ]
    total = sum(group.count for group in groups)
    output.table(
        f"{total:,} dead letters", ("Count", "Reason", "Type", "Error", "Newest", "Example"), rows, right=("Count",)
    )


def _print_letters(letters: Sequence[FoundLetter]) -> None:
    if not letters:
        click.echo("No dead letters")
        return
    rows = [
        (
            found.letter.task_id or "unknown",
            found.letter.reason,
            found.letter.queue,
            found.letter.task_type,
            f"{found.letter.tries}",
            output.time_text(found.letter.at_ns),
            output.cut(found.letter.detail, _SHOWN_ERROR),
        )
        for found in letters
    ]
    names = ("ID", "Reason", "Queue", "Type", "Tries", "Died", "Error")
    output.table(f"{len(letters):,} dead letters", names, rows, right=("Tries",))


def _print_letter(found: FoundLetter) -> None:
    letter, record = found.letter, found.record
    rows: list[tuple[str, str | Text]] = [
        ("Reason", Text(letter.reason, "red")),
        ("Error", letter.detail),
        ("Died", output.ago(letter.at_ns)),
        ("Queue", letter.queue or "unknown"),
        ("Type", letter.task_type or "unknown"),
        ("Tries", f"{letter.tries:,}"),
    ]
    if letter.whole_size is not None:
        rows.append(("Record", f"cut, it had {output.size_text(letter.whole_size)}"))
    elif record is None:
        rows.append(("Body", output.payload_text(letter.body)))
    else:
        rows.append(("Created", output.ago(record.created_ns)))
        rows.append(("Payload", output.payload_text(record.payload)))
        if record.result is not None:
            rows.append(("Result", json.dumps(record.result.to_map()["payload"], ensure_ascii=False)[:_SHOWN_ERROR]))
    output.sheet(f"Dead letter of task {letter.task_id or 'unknown'}", rows)
