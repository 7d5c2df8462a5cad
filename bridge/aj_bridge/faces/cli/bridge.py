"""`aj-bridge`: what an operator runs, and what shows how it works."""

import asyncio

import click
import msgspec
from rich.console import Console
from rich.table import Table

from aj_bridge.faces.cli import (
    bridges,
    call,
    conformance,
    doctor,
    handlers,
    output,
    permissions,
    respond,
    run,
    schema,
    tap,
)
from aj_bridge.faces.cli.bulk import progress_bar
from aj_bridge.faces.cli.frame import Group, completion_command, leaf
from aj_bridge.faces.demo import DemoResult, Stage, run_demo
from aj_sdk.program import loop_factory

__all__ = ["register"]


def register(group: Group) -> None:
    """Add the commands."""
    for command in (
        run.command,
        call.command,
        tap.command,
        doctor.command,
        permissions.command,
        handlers.command,
        respond.command,
        conformance.command,
        _demo,
        completion_command("aj-bridge"),
    ):
        group.add_command(command)
    bridges.register(group)
    schema.register(group)


@leaf(
    "demo",
    "aj-bridge demo",
    "aj-bridge demo --tasks 1000 --json",
)
@click.option(
    "--tasks", type=click.IntRange(1, 1_000_000), default=500, show_default=True, help="How many tasks to enqueue."
)
@click.option("--json", "-j", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def _demo(ctx: click.Context, /, *, tasks: int, as_json: bool) -> None:
    """Show the main job with a server, a bridge and handlers of its own.

    Needs nothing but this package with its extras `bridge` and `embedded`. Each tenth task fails once, each
    twenty-fifth is terminated by its handler. Exit code 0 only when every task ended as planned.
    """
    console = Console(stderr=True, quiet=as_json)
    progress = progress_bar(console)
    with progress:
        bar = progress.add_task("tasks ended", total=tasks, visible=False)

        def show(stage: Stage) -> None:
            if stage.busy:
                progress.update(bar, description=f"{stage.busy} ...", total=None, visible=True)
            if stage.text:
                progress.update(bar, visible=False)
                console.print(f"[green]*[/green] {stage.text}", highlight=False)
            if stage.ended is not None:
                progress.update(bar, description="tasks ended", total=tasks, completed=stage.ended, visible=True)

        with asyncio.Runner(loop_factory=loop_factory()) as loop:
            result = loop.run(run_demo(tasks, show))
    if as_json:
        shown = msgspec.to_builtins(result)
        output.print_json(shown if result.wrong else {name: shown[name] for name in shown if name != "wrong"})
    else:
        _print_demo(result)
    if result.wrong:
        ctx.exit(1)


def _print_demo(result: DemoResult) -> None:
    console = Console()
    table = Table(title=f"{result.tasks} tasks in {result.seconds:.2f} s ({result.tasks_per_s:.0f} a second)")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for state, number in result.states.items():
        table.add_row(f"state {state}", str(number))
    table.add_row("needed a second try", str(result.retried))
    for name, value in result.latency_ms.items():
        table.add_row(f"latency {name} (first tries, enqueue to end)", f"{value:.1f} ms")
    for language, number in result.handlers.items():
        reason = result.missing.get(language)
        table.add_row(f"completed by {language}", "not here" if reason else str(number))
    console.print(table)
    if result.wrong:
        console.print(f"[red]{len(result.wrong)} tasks did not end as planned:[/red]")
        for line in result.wrong[:10]:
            console.print(f"  {line}", highlight=False, markup=False)
        return
    console.print("Every task ended as planned. How to go on:")
    for line in (
        "aj-bridge run --embedded --store ./data --queue EMAIL --create",
        'python examples/handlers.py            # @service("email:new"), 10 lines',
        'ajc task add email:new \'{"to":"a@example.net"}\' --queue EMAIL --raw',
        "ajc task list",
    ):
        console.print(f"  {line}", highlight=False, markup=False)
