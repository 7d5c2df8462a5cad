"""`ajc task process`: the Go project's words for a bridge of one queue and one type, for scripts that have them."""

import os
from typing import Any

import click

from aj_bridge.faces.cli.frame import leaf

__all__ = ["process"]


@leaf(
    "process",
    "ajc task process email:new EMAIL 10 --remote",
    "ajc task process image:thumbnail IMAGES 4 ./thumbnail --backoff 1m",
    "ajc task process report: REPORTS 2 ./report --discard-complete --monitor 9100",
)
@click.argument("type", envvar="AJC_TYPE")
@click.argument("queue", envvar="AJC_QUEUE")
@click.argument("concurrency", envvar="AJC_CONCURRENCY")
@click.argument("command", envvar="AJC_COMMAND", required=False)
@click.option("--remote", is_flag=True, help="Ask remote handlers, instead of running a command.")
@click.option("--monitor", metavar="[HOST:]PORT", help="Serve Prometheus metrics and /healthz here.")
@click.option("--discard-complete", is_flag=True, help="Remove the records of tasks that complete.")
@click.option("--discard-expired", is_flag=True, help="Remove the records of tasks that expire.")
@click.option("--backoff", metavar="NAME|SPEC", help="How long a failed task waits, as for `aj-bridge run`.")
@click.pass_context
def process(
    ctx: click.Context,
    /,
    *,
    type: str,  # noqa: A002 - the argument's name
    queue: str,
    concurrency: str,
    command: str | None,
    remote: bool,
    monitor: str | None,
    discard_complete: bool,
    discard_expired: bool,
    backoff: str | None,
) -> None:
    """Take tasks of TYPE, or of types that begin with it, from QUEUE to their handlers, CONCURRENCY at a time.

    COMMAND is run for each task: the task is in the file that CHORIA_AJ_TASK names, standard output is the result. With
    --remote whoever answers on CHORIA_AJ.H.T.TYPE is asked instead. `aj-bridge run` does the same and more: several
    types and queues, weights, settings in a file.
    """
    if remote == bool(command):
        raise click.UsageError("give either a COMMAND or --remote")
    # A bridge has much to load, which the other commands do without.
    from aj_bridge.faces.cli.run import run_bridge  # noqa: PLC0415

    discard = [state for state, given in (("complete", discard_complete), ("expired", discard_expired)) if given]
    flags: dict[str, Any] = {
        "queue": (queue,),
        "concurrency": concurrency,
        "remote": (type,) if remote else (),
        "command": (f"{type}={command}",) if command else (),
        "monitor": monitor,
        "discard": tuple(discard),
        "backoff": backoff,
        "workers": "1",
    }
    run_bridge(ctx, flags, os.environ)
