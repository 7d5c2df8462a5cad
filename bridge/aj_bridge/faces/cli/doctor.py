"""`aj-bridge doctor`: findings about a server and an account, and what the sweeper would do."""

from collections import Counter
from datetime import timedelta
from typing import Final

import click
from rich.text import Text

from aj_bridge.core.diagnosis import Level, diagnose
from aj_bridge.engine.doctor import learn, would_sweep
from aj_bridge.engine.sweep_acts import Swept
from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.bulk import counting
from aj_bridge.faces.cli.frame import leaf, with_client
from aj_bridge.faces.cli.params import DURATION
from aj_sdk.client import Client
from aj_sdk.wire.names import TASKS_STREAM

__all__ = ["command"]

_COLOURS: Final = {Level.ERROR: "red", Level.WARNING: "yellow", Level.INFO: "cyan"}
_SHOWN: Final = 50


@leaf(
    "doctor",
    "aj-bridge doctor",
    "aj-bridge doctor --json --no-sweep",
    "aj-bridge doctor --after 1m",
)
@click.option("--sweep/--no-sweep", default=True, help="Also read all tasks, and say what the sweeper would do.")
@click.option(
    "--after",
    type=DURATION,
    default="3s",
    show_default=True,
    help="How long a task must stand unchanged before it is called lost.",
)
@click.option("--json", "-j", "as_json", is_flag=True, help="Print one JSON object.")
@with_client
async def command(client: Client, /, *, sweep: bool, after: timedelta, as_json: bool) -> None:
    """Look at the server, the account and the tasks; change nothing.

    Says what is wrong or risky, where, and what to do about it. Reading all tasks goes at 5,000 a second. Exit code 1
    when there is an error; warnings do not count.
    """
    jetstream = client.store.jetstream
    facts = await learn(jetstream)
    findings = diagnose(facts)
    looked = sweep and facts.streams.get(TASKS_STREAM) is not None
    repairs: list[Swept] = []
    if looked:
        with counting("Reading all tasks", "read") as read:
            repairs = await would_sweep(jetstream, after.total_seconds(), read)
    counts = Counter(one.why for one in repairs)
    errors = sum(finding.level is Level.ERROR for finding in findings)
    if as_json:
        output.print_json(
            {
                "server_version": facts.version or None,
                "api_level": facts.api_level,
                "findings": [
                    {"level": found.level.value, "what": found.what, "where": found.where, "do": found.advice}
                    for found in findings
                ],
                "sweep_counts": dict(counts) if looked else None,
                "sweep": [{"task": one.task_id, "queue": one.queue, "why": one.why, "act": one.act} for one in repairs]
                if looked
                else None,
            }
        )
    else:
        for found in findings:
            label = click.style(found.level.value.upper().ljust(8), fg=_COLOURS[found.level])
            click.echo(label + output.clean(f"{found.where}: {found.what}"))
            click.echo(f"        -> {output.clean(found.advice)}")
        if repairs:
            totals = [(Text(why), f"{number:,}") for why, number in counts.most_common()]
            output.table(f"The sweeper finds ({len(repairs):,})", ("What", "Tasks"), totals, right=("Tasks",))
            rows = [(Text(one.task_id), Text(one.queue), Text(one.act)) for one in repairs[:_SHOWN]]
            more = f", the first {_SHOWN}" if len(repairs) > _SHOWN else ""
            output.table(f"It would{more}", ("Task", "Queue", "Act"), rows)
        elif looked:
            click.echo("The sweeper finds nothing to do")
        warnings = sum(finding.level is Level.WARNING for finding in findings)
        click.echo(f"{errors} errors, {warnings} warnings")
    if errors:
        raise click.exceptions.Exit(1)
