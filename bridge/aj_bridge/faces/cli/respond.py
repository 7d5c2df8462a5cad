"""`aj-bridge respond`: handlers as a process of their own, in Python or as a program of any kind."""

import asyncio
import logging
import os
import sys
from datetime import timedelta
from typing import Final

import click

from aj_bridge.engine.children import ChildLimits
from aj_bridge.faces.cli.frame import connection_options, leaf
from aj_bridge.faces.cli.params import DURATION
from aj_bridge.faces.logs import set_up_logging
from aj_bridge.faces.shell import Shell, command_services, find_program
from aj_sdk.program import loop_factory
from aj_sdk.runner import DEFAULT_CONCURRENCY, DEFAULT_GRACE_S, Runner
from aj_sdk.services import Services, load_services
from aj_sdk.wire.names import HANDLER_QUEUE_GROUP

__all__ = ["command"]

_MAX_OUTPUT: Final = 1 << 20
_ONLY_FOR_COMMANDS: Final = ("queue_group", "stdin", "max_output", "kill_after")


@leaf(
    "respond",
    "aj-bridge respond --app handlers:services",
    "aj-bridge respond --app myproject.jobs --concurrency 20 --server nats://127.0.0.1:4222",
    "aj-bridge respond --type email:new -- ./send-email --from jobs@example.net",
    "aj-bridge respond --type image:thumbnail --stdin payload -- convert - -resize 200x200 png:-",
)
@click.option(
    "--app",
    metavar="MODULE[:NAME]",
    help="Handlers in Python: a module, found from this folder too, and the name of its Services.",
)
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="A task type for the command, a prefix such as email: or '' for all types; may be given again.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    help=f"Requests handled at a time, over all handlers.  [default: {DEFAULT_CONCURRENCY}; for a command, one a core]",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=DEFAULT_GRACE_S,
    show_default=True,
    help="Seconds that requests in hand have after SIGTERM.",
)
@click.option(
    "--queue-group",
    default=HANDLER_QUEUE_GROUP,
    show_default=True,
    help="For a command: each request goes to one member of the group.",
)
@click.option(
    "--stdin",
    type=click.Choice(["task", "payload"]),
    default="task",
    show_default=True,
    help="What a command reads: the task in JSON, or its payload's bytes.",
)
@click.option(
    "--max-output",
    type=click.IntRange(min=1),
    metavar="BYTES",
    default=_MAX_OUTPUT,
    show_default=True,
    help="A command that prints more ends its task.",
)
@click.option(
    "--kill-after",
    type=DURATION,
    default="5s",
    show_default=True,
    help="How long a command has between SIGTERM and SIGKILL.",
)
@click.option(
    "--verify",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Handle only tasks that this ed25519 public key verifies: hex, or a file with it; may be given again.",
)
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARGUMENT]...]")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    app: str | None,
    types: tuple[str, ...],
    concurrency: int | None,
    grace: float,
    queue_group: str,
    stdin: str,
    max_output: int,
    kill_after: timedelta,
    keys: tuple[str, ...],
    program: tuple[str, ...],
) -> None:
    """Answer the calls of a bridge with a Python module or with a command, until SIGTERM.

    A command is run for each call. It reads the task on standard input and prints the result, byte for byte; exit code
    0 completes the task, 78 ends it for good, any other (75 by custom) is a failed try. The last line on standard error
    becomes the task's error, and all of them are logged. At the deadline it gets SIGTERM and then SIGKILL, with all
    that it started; so too when its task is cancelled. Lines such as "40% rendering" on descriptor 3 tell its
    progress. Its environment has CHORIA_AJ_TASK_ID, CHORIA_AJ_TASK_TYPE, CHORIA_AJ_TASK_TRY, CHORIA_AJ_QUEUE,
    CHORIA_AJ_INVOCATION, CHORIA_AJ_DEADLINE, TRACEPARENT and TRACESTATE.
    """
    root = logging.getLogger()
    root.handlers.clear()  # ours would keep the application from setting up its own
    if app is not None:
        for name in _ONLY_FOR_COMMANDS:
            if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError(f"--{name.replace('_', '-')} is for a command; --app says it in the module")
        if types or program:
            raise click.UsageError("give either --app, or --type and a command")
        services = load_services(app)
    else:
        if not types or not program:
            raise click.UsageError("give --app MODULE, or --type TYPE and a command after --")
        shell = Shell(
            command=find_program(program),
            environ=os.environ,
            limits=ChildLimits(max_output=max_output, kill_after=kill_after.total_seconds()),
            payload_only=stdin == "payload",
        )
        services = command_services(types, shell, queue_group=queue_group)
        concurrency = concurrency or os.cpu_count()
    set_up_logging(stream=sys.stderr, environ=os.environ, replace=False)
    _run(ctx, services, concurrency or DEFAULT_CONCURRENCY, grace, keys)


def _run(ctx: click.Context, services: Services, concurrency: int, grace: float, keys: tuple[str, ...]) -> None:
    options = connection_options(ctx)

    async def respond() -> None:
        def ready() -> None:
            click.echo(f"ready: {', '.join(service.shown for service in services)}")

        runner = Runner(options, services, concurrency=concurrency, grace=grace, on_ready=ready, verify=keys or None)
        await runner.run()

    with asyncio.Runner(loop_factory=loop_factory()) as loop:
        loop.run(respond())
