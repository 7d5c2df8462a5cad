"""What all commands share: aliases, options that may stand anywhere, one line for each fault, exit codes.

Exit codes: 0 done; 1 it failed; 2 the command line or a configuration is wrong; 130 interrupted.
"""

import asyncio
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Final, NoReturn, ParamSpec

import click
from click.shell_completion import get_completion_class

from aj_bridge.faces.cli.output import clean
from aj_sdk.client import Client
from aj_sdk.connect import ConnectionFlags, ConnectOptions, resolve_connection
from aj_sdk.errors import (
    AsyncJobsError,
    DeadlinePassedError,
    OutcomeUnknownError,
    QueueFullError,
    TaskChangedError,
    TaskExistsError,
    TaskNotFoundError,
    TaskStateError,
    UsageError,
)
from aj_sdk.keys import load_key, load_seed
from aj_sdk.version import __version__
from aj_sdk.wire.signing import Signer, Verifier

__all__ = [
    "ALIASES",
    "Globals",
    "Group",
    "complain_of",
    "completion_command",
    "confirm",
    "connection_options",
    "leaf",
    "root_group",
    "run",
    "signature_options",
    "subgroup",
    "with_client",
]

P = ParamSpec("P")

FAILED: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "task": ("tasks", "t"),
    "queue": ("queues", "q"),
    "add": ("new", "a", "enqueue"),
    "view": ("show", "v", "info", "i"),
    "info": ("view", "show", "v", "i"),
    "list": ("ls",),
    "delete": ("rm", "del"),
    "configure": ("config", "cfg"),
}
"""The Go project's other spellings, by the one that the help shows."""

_HINTS: Final[Mapping[type[AsyncJobsError], str]] = {
    TaskNotFoundError: "`ajc task list` shows the tasks that there are",
    TaskStateError: "`ajc task view` shows how it stands",
    TaskExistsError: "choose another id",
    DeadlinePassedError: "give it another with `ajc task retry --deadline`",
    QueueFullError: "wait, or give the queue room with `ajc queue configure NAME --entries N`",
    OutcomeUnknownError: "look with `ajc info`, then do it again",
}
"""What to do about errors that do not say so themselves."""


_NO_SUBCOMMAND: Final = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click raises for a group without a subcommand; before 8.2 it printed the help itself."""


@dataclass(slots=True)
class Globals:
    """Options that may stand before or after a subcommand, as the Go project's may."""

    server: str = ""
    context: str = ""
    debug: bool = False
    sign: str | None = None
    verify: str | None = None
    verify_optional: bool = False

    def signer(self) -> Signer | None:
        """What signs the tasks that are enqueued, None for nothing.

        Raises:
            UsageError: the seed is none.
        """
        return None if self.sign is None else Signer(load_seed(self.sign))

    def verifier(self) -> Verifier | None:
        """What verifies the tasks that are loaded, None for nothing.

        Raises:
            UsageError: the key is none, or signatures are optional without one.
        """
        if self.verify is not None:
            return Verifier(load_key(self.verify), optional=self.verify_optional)
        if self.verify_optional:
            raise UsageError("--optional-signatures needs a key to verify with; add --verify")
        return None


class _Command(click.Command):
    """A command with examples, that takes the global options too, without showing them again."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_global_options(hidden=True))
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the examples, each as it is typed."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{' ' * formatter.current_indent}{example}\n")


class Group(click.Group):
    """A group whose commands have aliases and take the global options."""

    command_class = _Command

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command by its name or an alias of it."""
        found = super().get_command(ctx, cmd_name)
        if found is None:
            for name in self.commands:
                if cmd_name in ALIASES.get(name, ()):
                    return super().get_command(ctx, name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command; messages name it as it is spelled in the help."""
        _, command, rest = super().resolve_command(ctx, args)
        return (None if command is None else command.name), command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their aliases."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is None or command.hidden:
                continue
            others = ", ".join(ALIASES.get(name, ()))
            rows.append((f"{name} ({others})" if others else name, command.get_short_help_str(80)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def root_group(name: str, *, help: str, debug_env: str) -> Group:  # noqa: A002 - click's word
    """Make a command's outermost group.

    Args:
        name: the command.
        help: what it is, for `--help`.
        debug_env: the environment variable that stands for `--debug`.
    """
    group = Group(
        name=name,
        help=help,
        params=_global_options(hidden=False, debug_env=debug_env),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    return click.version_option(__version__, prog_name=name)(group)


def subgroup(parent: Group, name: str, *, help: str) -> Group:  # noqa: A002 - click's word
    """Make a group within a group."""
    group = Group(name=name, help=help, params=_global_options(hidden=True))
    parent.add_command(group)
    return group


def _global_options(*, hidden: bool, debug_env: str | None = None) -> list[click.Parameter]:
    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.find_root().ensure_object(Globals), str(param.name), value)
            if param.name == "debug":
                logging.getLogger().setLevel(logging.DEBUG)

    return [
        click.Option(
            ["--server"],
            metavar="URL",
            expose_value=False,
            callback=remember,
            hidden=hidden,
            help="NATS server, or several separated by commas; also AJ_SERVER.",
        ),
        click.Option(
            ["--context"],
            metavar="NAME",
            expose_value=False,
            callback=remember,
            hidden=hidden,
            help="NATS context; also AJ_CONTEXT and CONTEXT. Without either: AJC, the selected one, this machine.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            envvar=debug_env,
            expose_value=False,
            callback=remember,
            hidden=hidden,
            help=f"Log everything, and show where an error came from{f'; also {debug_env}' if debug_env else ''}.",
        ),
    ]


def signature_options(*, sign: bool = False, verify: bool = False) -> Callable[[click.Command], click.Command]:
    """Make a decorator that gives a command, or a group, the options about signatures that have a meaning for it."""

    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        # An empty text is a fault that is told later, never the same as nothing.
        if value is not None and value is not False:
            setattr(ctx.find_root().ensure_object(Globals), str(param.name), value)

    def option(command: click.Command, *names: str, **settings: Any) -> None:
        command.params.append(click.Option(names, expose_value=False, callback=remember, **settings))

    def decorate(command: click.Command) -> click.Command:
        if sign:
            option(command, "--sign", metavar="SEED", help="Sign with this ed25519 seed: hex, or a file with it.")
        if verify:
            option(
                command,
                "--verify",
                metavar="KEY",
                help="Refuse a task that this ed25519 public key does not verify: hex, or a file with it.",
            )
            option(
                command,
                "--optional-signatures",
                "verify_optional",
                is_flag=True,
                help="With --verify: take a task without a signature too.",
            )
        return command

    return decorate


def connection_options(ctx: click.Context) -> ConnectOptions:
    """Decide where to connect to, from the command line and the environment.

    Raises:
        InvalidConfigError: a URL or a context is wrong.
    """
    settings = ctx.find_root().ensure_object(Globals)
    flags = ConnectionFlags(server=settings.server, context=settings.context)
    return resolve_connection(flags, os.environ, name=str(ctx.find_root().info_name))


def leaf(name: str, *examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function; its docstring is the help."""
    return click.command(name, cls=_Command, examples=examples)


def completion_command(name: str) -> click.Command:
    """Make the subcommand that prints a shell's completion of our commands.

    Args:
        name: the outermost command.
    """
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"

    @leaf(
        "completion",
        f'eval "$({name} completion bash)"',
        f"{name} completion fish > ~/.config/fish/completions/{name}.fish",
    )
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    @click.pass_context
    def completion(ctx: click.Context, /, *, shell: str) -> None:
        """Print what makes a shell complete our commands and options."""
        made = get_completion_class(shell)
        if made is None:
            raise click.UsageError(f"no completion for {shell}")
        click.echo(made(ctx.find_root().command, {}, name, variable).source())

    return completion


def with_client(function: Callable[Concatenate[Client, P], Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a plain function of a coroutine function whose first argument is an open client."""

    @wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        context = click.get_current_context()
        options = connection_options(context)
        settings = context.find_root().ensure_object(Globals)
        signer, verifier = settings.signer(), settings.verifier()

        async def call() -> None:
            async with Client.connect(options=options, signer=signer, verifier=verifier) as client:
                await function(client, *args, **kwargs)

        asyncio.run(call())

    return command


def confirm(question: str, *, force: bool) -> None:
    """Ask before something is lost, unless told not to; end the command when the answer is no."""
    if force:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: give -f to do it without asking")
    # asyncio's own handler would only cancel a task that does not run while we wait for the answer.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        agreed = click.confirm(clean(question), err=True)
    finally:
        signal.signal(signal.SIGINT, handler)
    if not agreed:
        raise click.exceptions.Exit(0)


def complain_of(errors: Sequence[AsyncJobsError], *, at_most: int | None = None) -> None:
    """Tell errors, a line each, and end the command when there are any.

    Args:
        errors: what went wrong.
        at_most: how many to tell one by one; the others are counted.
    """
    name = str(click.get_current_context().find_root().info_name)
    codes = [_complain(name, _with_hint(err), _code(err)) for err in errors[:at_most]]
    if len(codes) < len(errors):
        _complain(name, f"and {len(errors) - len(codes):,} more went wrong", FAILED)
    if codes:
        raise click.exceptions.Exit(min(codes))


def run(group: click.Group) -> NoReturn:
    """Run a command and end the process with its exit code."""
    name = str(group.name)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a task's text may hold what the terminal can't show
    code = _run(group, name)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(group: click.Group, name: str) -> int:
    logging.basicConfig(format=f"{name}: %(message)s", level=logging.WARNING, stream=sys.stderr)
    settings = Globals()
    try:
        code = group.main(prog_name=name, standalone_mode=False, obj=settings)
    except click.Abort:
        return INTERRUPTED
    except click.UsageError as err:
        return _complain_usage(name, err)
    except click.ClickException as err:
        return _complain(name, err.format_message(), err.exit_code)
    except BrokenPipeError:
        return FAILED
    except AsyncJobsError as err:
        if settings.debug:
            traceback.print_exc()
        return _complain(name, _with_hint(err), _code(err))
    except Exception as err:  # noqa: BLE001 - the last place to catch it
        if settings.debug:
            traceback.print_exc()
        hint = "" if settings.debug else ": run it again with --debug to see where, and tell us"
        return _complain(name, f"unexpected {type(err).__name__}: {err}{hint}", FAILED)
    return code if isinstance(code, int) else 0


def _complain_usage(name: str, err: click.UsageError) -> int:
    path = err.ctx.command_path if err.ctx is not None else name
    message = err.format_message()
    if isinstance(err, _NO_SUBCOMMAND):
        click.echo(message, err=True)  # the help
        return WRONG
    return _complain(name, f"{message[:1].lower()}{message[1:].rstrip('.')}: see `{path} --help`", WRONG)


def _complain(name: str, message: str, code: int) -> int:
    click.echo(f"{name}: {clean(' '.join(message.split()))}", err=True)
    return code


def _code(err: AsyncJobsError) -> int:
    # What depends on what is stored is a failure; what is wrong in itself is a fault of the command line.
    wrong = isinstance(err, UsageError) and not isinstance(err, _OF_THE_STORE)
    return WRONG if wrong else FAILED


_OF_THE_STORE: Final = (TaskStateError, TaskExistsError, TaskChangedError, DeadlinePassedError)


def _with_hint(err: AsyncJobsError) -> str:
    hint = _HINTS.get(type(err))
    return f"{err}: {hint}" if hint else str(err)
