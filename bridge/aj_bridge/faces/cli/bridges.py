"""`aj-bridge ps` and `aj-bridge ctl`: running bridges over `client.admin.bridges`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import click
from rich.text import Text

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import Group, leaf, with_client
from aj_bridge.faces.cli.params import DURATION
from aj_sdk.bridges import SilentBridge
from aj_sdk.client import Client
from aj_sdk.wire.bridge import MAX_CONCURRENCY, BridgeStatus, ServedStatus

__all__ = ["register"]

_JSON = click.option("--json", "-j", "as_json", is_flag=True, help="Print JSON.")
_TIMEOUT = click.option(
    "--timeout",
    type=DURATION,
    default="2s",
    show_default=True,
    help="How long to wait for answers; when none has come for a quarter of it, that was all.",
)
_ACTS: Final = ("status", "drain", "concurrency", "pause", "resume")
_STYLES: Final = {"working": "green", "paused": "yellow", "draining": "cyan"}


def register(root: Group) -> None:
    """Add the commands."""
    root.add_command(_ps)
    root.add_command(_ctl)


@leaf(
    "ps",
    "aj-bridge ps",
    "aj-bridge ps --json --timeout 5s",
)
@_TIMEOUT
@_JSON
@with_client
async def _ps(client: Client, /, *, timeout: timedelta, as_json: bool) -> None:  # noqa: ASYNC109 - of the answers
    """List the bridges that run.

    Rates are answered calls of handlers a second, over the last minute, and of these those that failed.
    """
    found = await client.admin.bridges.within(timeout).running()
    if as_json:
        output.print_json([_map(one) for one in found])
    elif not found:
        click.echo("No bridges; `aj-bridge run --queue NAME` starts one")
    else:
        _print_all(found)


@leaf(
    "ctl",
    "aj-bridge ctl 3Fz9 status",
    "aj-bridge ctl 3Fz9 drain",
    "aj-bridge ctl 3Fz9 concurrency 50",
    "aj-bridge ctl 3Fz9 pause",
)
@click.argument("bridge", metavar="ID")
@click.argument("act", metavar="|".join(_ACTS), type=click.Choice(_ACTS))
@click.argument("number", metavar="[N]", type=click.IntRange(1, MAX_CONCURRENCY), required=False)
@_TIMEOUT
@_JSON
def _ctl(*, bridge: str, act: str, number: int | None, timeout: timedelta, as_json: bool) -> None:
    """Tell a running bridge what to do, and show how it stands then.

    ID may be the beginning of an id that no other bridge has; `aj-bridge ps` lists them.

    \b
    status         only show how it stands
    drain          take no new work, and end when what is in hand has ended
    concurrency N  work on N tasks at once; what runs beyond that ends in its own time
    pause          take no new work; other bridges take it instead
    resume         take work again
    """  # noqa: D301 - a backspace, which keeps click from joining the lines
    if (act == "concurrency") != (number is not None):
        raise click.UsageError(
            "concurrency needs a number: how many tasks at once" if number is None else f"{act} takes no number"
        )
    _tell(bridge=bridge, act=act, number=number, timeout=timeout, as_json=as_json)


@with_client
async def _tell(
    client: Client,
    /,
    *,
    bridge: str,
    act: str,
    number: int | None,
    timeout: timedelta,  # noqa: ASYNC109 - of the answer
    as_json: bool,
) -> None:
    bridges = client.admin.bridges.within(timeout)
    match act:
        case "drain":
            status = await bridges.drain(bridge)
        case "concurrency":
            assert number is not None
            status = await bridges.set_concurrency(bridge, number)
        case "pause":
            status = await bridges.pause(bridge)
        case "resume":
            status = await bridges.resume(bridge)
        case _:
            status = await bridges.status(bridge)
    if as_json:
        output.print_json(status.to_map())
    else:
        _print_one(status)


def _map(bridge: BridgeStatus | SilentBridge) -> dict[str, Any]:
    if isinstance(bridge, SilentBridge):
        return {"id": bridge.id, "silent": bridge.reason}
    return bridge.to_map()


def _print_all(bridges: Sequence[BridgeStatus | SilentBridge]) -> None:
    rows: list[Sequence[str | Text]] = []
    for bridge in bridges:
        if isinstance(bridge, SilentBridge):
            rows.append((bridge.id, Text("silent", style="red"), bridge.reason, *[""] * 6))
            continue
        rows.append(
            (
                bridge.id,
                _state(bridge),
                f"{bridge.host}, pid {bridge.pid}",
                bridge.version,
                ", ".join(_queue(queue, alone=len(bridge.queues) == 1) for queue in bridge.queues),
                f"{bridge.in_hand:,} of {bridge.concurrency:,}",
                _rate(sum(queue.calls_per_s for queue in bridge.queues)),
                _rate(sum(queue.failed_per_s for queue in bridge.queues)),
                output.ago(bridge.started_ns),
            )
        )
    names = ("Bridge", "State", "Where", "Version", "Queues", "In hand", "Calls/s", "Failed/s", "Since")
    count = f"{len(bridges):,} bridge{'s' if len(bridges) > 1 else ''}"
    output.table(count, names, rows, right=("In hand", "Calls/s", "Failed/s"))


def _print_one(bridge: BridgeStatus) -> None:
    output.sheet(
        f"Bridge {bridge.id}",
        [
            ("State", _state(bridge)),
            ("Where", f"{bridge.host}, pid {bridge.pid}"),
            ("Version", bridge.version),
            ("Since", output.ago(bridge.started_ns)),
            ("In hand", f"{bridge.in_hand:,} of {bridge.concurrency:,}"),
        ],
    )
    names = ("Queue", "Weight", "In hand", "Running", "Calls", "Failed", "Calls/s", "Failed/s")
    output.table(
        "",
        names,
        [
            (
                queue.name,
                f"{queue.weight}",
                f"{queue.in_hand:,}",
                f"{queue.running:,}",
                f"{queue.calls:,}",
                f"{queue.failed:,}",
                _rate(queue.calls_per_s),
                _rate(queue.failed_per_s),
            )
            for queue in bridge.queues
        ],
        right=names[1:],
    )


def _queue(queue: ServedStatus, *, alone: bool) -> str:
    return queue.name if alone else f"{queue.name}={queue.weight}"


def _state(bridge: BridgeStatus) -> Text:
    return Text(bridge.state, style=_STYLES.get(bridge.state, ""))


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}" if per_s >= 0.1 or per_s == 0 else f"{per_s:.3f}"
