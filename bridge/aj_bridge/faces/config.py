"""The configuration of `aj-bridge run`: one table; the flags, the file, the environment and the docs come from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from aj_bridge.core.retention import DISCARDABLE, KEEPABLE, Retention
from aj_bridge.core.retry import POLICIES, RetryPolicy
from aj_bridge.engine.router import Router
from aj_bridge.faces.kinds import (
    HOST_PORT,
    SERVERS,
    TRUTH,
    Address,
    backoff,
    choice,
    duration,
    kept,
    key,
    number,
    pair,
    path,
    seed,
    text,
    weighted,
)
from aj_bridge.faces.logs import FORMATS, LEVELS
from aj_bridge.faces.options import ConfigFile, Values, add_options, merge, option, options_of, read_config_file
from aj_bridge.faces.routes import ROUTE_TYPE, RouteConfig, make_router, read_routes
from aj_sdk.connect import ConnectionFlags
from aj_sdk.errors import InvalidConfigError
from aj_sdk.wire.names import DEFAULT_QUEUE
from aj_sdk.wire.signing import Signer, Verifier
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

__all__ = ["OPTIONS", "BridgeConfig", "bridge_options", "build_config", "load_config"]

F = TypeVar("F", bound=Callable[..., Any])

MAX_WORKERS: Final = 256
"""Most processes of one command; each has a connection of its own."""

_CREATE_ONLY: Final = (
    "max_run_time_ns",
    "max_tries",
    "max_concurrent",
    "replicas",
    "memory",
    "lease_ns",
    "go_workers",
)


def _same(text: str) -> str:
    return text


def _debug_level(text: str) -> str:
    """Read the Go project's debug switch, which is on or counts for nothing."""
    return "debug" if text.lower() in ("1", "true", "yes", "on") else ""


def _go_port(text: str) -> str:
    """Read the Go project's monitoring port: on all addresses, 0 for off."""
    if not text.isdecimal():
        return text
    return f":{text}" if int(text) else ""


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """Settings of one bridge process; each says what it is in its own row. Times are integer nanoseconds."""

    queue: tuple[tuple[str, int | None], ...] = option(
        weighted("queue name"),
        "Queue whose tasks the bridge takes to their handlers, and its part of the slots beside other queues; "
        "without a weight the one that is stored with the queue",
        default=((DEFAULT_QUEUE, None),),
        many=True,
        aliases={"AJC_QUEUE": _same, "AJ_WORK_QUEUE": _same},
    )
    server: str = option(
        SERVERS,
        "NATS server, or several separated by commas",
        default="",
        global_flag=True,
        secret=True,
    )
    context: str = option(
        text("NAME"),
        "NATS context to connect with",
        default="",
        aliases={"AJ_NATS_CONTEXT": _same, "CONTEXT": _same},
        global_flag=True,
    )
    embedded: bool = option(TRUTH, "Run a nats-server of its own beside the bridge", default=False)
    store: Path | None = option(  # noqa: RUF009 - a field's declaration, frozen as the others
        path("DIR"), "Folder in which the embedded server keeps its data", default=None
    )
    port: int | None = option(
        number(0, 65_535),
        "Port of the embedded server, 0 for a free one; without it 4222, or a free one where that is taken",
        default=None,
    )
    concurrency: int = option(
        number(1, 100_000),
        "Tasks in hand at a time, over all queues",
        default=100,
        unit="tasks",
        aliases={"AJC_CONCURRENCY": _same},
    )
    workers: int = option(
        number(0, MAX_WORKERS),
        "Processes that share the work, each with --concurrency tasks in hand, under one that watches them; 0 for one "
        "on each core",
        default=1,
    )
    remote: tuple[str, ...] = option(
        ROUTE_TYPE,
        "Take tasks of this type, or of a type that begins with it, to remote handlers; an empty one takes the rest, "
        "`*` takes it too, each type by its own name. Without routes: `*`",
        default=(),
        many=True,
    )
    command: tuple[tuple[str, str], ...] = option(
        pair("task type", "TYPE=PATH"),
        "Run this executable file for tasks of this type: the task is in the file that CHORIA_AJ_TASK names, standard "
        "output is the result",
        default=(),
        many=True,
    )
    app: tuple[str, ...] = option(
        text("MODULE[:NAME]"),
        "Handle the types of this module's Services in the bridge itself",
        default=(),
        many=True,
    )
    backoff: RetryPolicy = option(  # noqa: RUF009 - as above
        backoff(),
        "How long a failed task waits before its next try: default, 10m, 1h, 1m, or your own such as "
        "min=1s,max=10m,factor=2,jitter=0.5 or 1s,5s,1m",
        default=POLICIES["default"],
        aliases={"AJ_RETRY_POLICY": _same},
    )
    no_adopt: bool = option(
        TRUTH,
        "Leave a queue that the Go project made as it is; its waiting tasks then hold slots",
        default=False,
        off="--adopt",
    )
    verify: tuple[str, ...] = option(
        key(),
        "Take only tasks that this ed25519 key has signed: hex, or a file with it",
        default=(),
        many=True,
        aliases={"AJ_VERIFICATION_KEY": _same},
        never_empty=True,
    )
    verify_seed: str | None = option(
        seed(),
        "Take only tasks that this seed's key has signed, where the seed is at hand and the key is not",
        default=None,
        secret=True,
        never_empty=True,
    )
    verify_optional: bool = option(
        TRUTH, "Take tasks without a signature too; one that is there must be right", default=False
    )
    discard: tuple[str, ...] = option(
        choice(tuple(DISCARDABLE)),
        "Remove the records of tasks that end in this state at once",
        default=(),
        many=True,
    )
    keep: tuple[tuple[str, int], ...] = option(
        kept(tuple(KEEPABLE)),
        "Keep the records of tasks that end in this state for so long only (server 2.11)",
        default=(),
        many=True,
    )
    attempts: str = option(
        choice(("failed", "all")),
        "Attempts at a task to keep beside it: those that did not complete, or all, for one more message a task",
        default="failed",
    )
    drain_timeout_ns: int = option(
        duration(),
        "Time that tasks in hand have to end when the bridge is told to stop",
        name="drain_timeout",
        default=30 * NS_PER_S,
    )
    sweep_every_ns: int = option(
        duration(NS_PER_S, 3600 * NS_PER_S),
        "How often the bridge that is elected for it looks after tasks that nobody looks after: 1s to 1h",
        name="sweep_every",
        default=30 * NS_PER_S,
    )
    create: bool = option(TRUTH, "Make the queue when there is none", default=False)
    max_run_time_ns: int | None = option(
        duration(NS_PER_MS),
        "A new queue's limit for one run of a handler; without it 1h, for the queue DEFAULT 1m",
        name="max_run_time",
    )
    max_tries: int | None = option(
        number(1, unlimited=True),
        "A new queue's limit of tries; without it none, for the queue DEFAULT 100",
    )
    max_concurrent: int | None = option(
        number(1),
        "A new queue's limit of tasks in hand over all bridges; without it 100",
    )
    replicas: int = option(number(1, 5), "Copies of a new queue that the NATS cluster keeps", default=1)
    memory: bool = option(TRUTH, "Keep a new queue in memory instead of on disk", default=False)
    lease_ns: int = option(
        duration(500 * NS_PER_MS),
        "How long after a bridge's death another one takes over tasks of a new queue",
        name="lease",
        default=30 * NS_PER_S,
    )
    go_workers: bool = option(
        TRUTH, "Make a new queue such that workers of the Go project can serve it too", default=False
    )
    monitor: Address | None = option(  # noqa: RUF009 - a field's declaration, frozen as the others
        HOST_PORT,
        "Serve Prometheus metrics, /healthz and /readyz here; a port alone means this machine only",
        default=None,
        aliases={"AJC_MONITOR": _go_port},
    )
    journal: Path | None = option(  # noqa: RUF009 - as above
        path("FILE"),
        "Append one JSON line for each step with a task; for proofs and for looking for faults, without payloads and "
        "errors; several workers write to FILE.worker-1 and so on",
        default=None,
    )
    log_level: str = option(
        choice(tuple(LEVELS)),
        "Least important messages to log",
        default="info",
        aliases={"AJ_DEBUG": _debug_level, "AJC_DEBUG": _debug_level},
    )
    log_format: str = option(choice(FORMATS), "How the log is written", default="text")
    route: tuple[RouteConfig, ...] = ()
    """The tables `[[route]]` of the file."""

    @property
    def router(self) -> Router:
        """Where the tasks go; imports the modules of apps, and looks at the commands.

        Raises:
            UsageError: a route is there twice, a command can't be executed, or a module has no such handlers.
        """
        return make_router(self.remote, self.command, self.app, self.route)

    @property
    def verifier(self) -> Verifier | None:
        """What looks at the signatures of tasks; None where no key is given.

        Raises:
            UsageError: the extra `sign` is not installed.
        """
        keys = [*self.verify, *([Signer(self.verify_seed).public_key_hex] if self.verify_seed else [])]
        return Verifier(*keys, optional=self.verify_optional) if keys else None

    @property
    def retention(self) -> Retention:
        """What becomes of the records of tasks that have ended."""
        return Retention(
            discard=frozenset(TaskState(state) for state in self.discard),
            kept_ns={TaskState(state): kept_ns for state, kept_ns in self.keep},
        )

    @property
    def connection(self) -> ConnectionFlags:
        """Where to connect to, as far as this configuration says."""
        return ConnectionFlags(server=self.server, context=self.context)


OPTIONS: Final = options_of(BridgeConfig)


def bridge_options(command: F) -> F:
    """Give a click command the flags of `BridgeConfig` and `--config`; what it gets goes to `load_config`.

    `--server` and `--context` stand on our command lines for all commands, and are not made again.
    """
    config = click.option("--config", metavar="FILE", help="TOML file with settings.  [AJ_CONFIG]")
    return config(add_options(OPTIONS)(command))


def load_config(flags: Mapping[str, Any], environ: Mapping[str, str]) -> BridgeConfig:
    """Read the configuration file, when one is named, and build the configuration.

    Args:
        flags: what click gave by name, `config`, `server` and `context` among it.
        environ: the environment.

    Raises:
        InvalidConfigError: every fault there is, each with the place that it was given at.
    """
    path = flags.get("config") or environ.get("AJ_CONFIG")
    file = read_config_file(Path(path).expanduser()) if path else None
    return build_config(file, environ, flags)


def build_config(file: ConfigFile | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> BridgeConfig:
    """Build the configuration from defaults < file < environment < flags.

    Raises:
        InvalidConfigError: every fault there is, each with the place that it was given at.
    """
    faults: list[str] = []
    routes: tuple[RouteConfig, ...] = ()
    if file is not None and "route" in file.values:
        routes = read_routes(file, faults)
        file = replace(file, values={key: value for key, value in file.values.items() if key != "route"})
    found = merge(OPTIONS, file, environ, flags)
    found.faults.extend(faults)
    _one_connection(found)
    _fitting(found)
    if found.faults:
        raise InvalidConfigError(tuple(found.faults))
    return BridgeConfig(**found.values, route=routes)


def _one_connection(found: Values) -> None:
    """Keep the one of server, context and embedded that was named in the weightiest place.

    Otherwise an `AJ_SERVER` that is always set would win over a `--context` typed now. In one place a server wins
    over a context, as everywhere; a server of our own beside either is a contradiction.
    """
    named = {field: found.sources[field] for field in ("server", "context", "embedded") if found.values[field]}
    named = {field: source for field, source in named.items() if field in found.sources}
    top = max((source.level for source in named.values()), default=0)
    kept = [field for field, source in named.items() if source.level == top]
    if "embedded" in kept and len(kept) > 1:
        others = " and ".join(named[field].text for field in kept if field != "embedded")
        found.faults.append(f"{named['embedded'].text}: contradicts {others}; choose one")
    elif "server" in kept and "context" in kept:
        kept.remove("context")
    for field in named:
        if field not in kept:
            found.values[field] = False if field == "embedded" else ""


def _fitting(found: Values) -> None:
    """Find settings that mean nothing beside the others: each would be silently without effect."""
    values, sources = found.values, found.sources
    if not values["embedded"]:
        found.faults.extend(
            f"{sources[field].text}: is for the embedded server; add --embedded"
            for field in ("store", "port")
            if values[field] is not None
        )
    if values["embedded"] and values["replicas"] > 1:
        found.faults.append(f"{sources['replicas'].text}: the embedded server is alone and keeps 1 copy")
    if values["verify_optional"] and not values["verify"] and not values["verify_seed"]:
        found.faults.append(f"{sources['verify_optional'].text}: needs a key to verify with; add --verify")
    states = [state for state, _ in values["keep"]]
    for state in sorted(set(states)):
        if states.count(state) > 1:
            found.faults.append(f"{sources['keep'].text}: {state} is given twice")
        if state in values["discard"]:
            found.faults.append(f"{sources['keep'].text}: {state} is discarded, so it can't be kept")
    names = [queue for queue, _ in values["queue"]]
    found.faults.extend(
        f"{sources['queue'].text}: queue {queue} is named twice"
        for queue in dict.fromkeys(names)
        if names.count(queue) > 1
    )
    if not values["create"] and DEFAULT_QUEUE not in names:
        found.faults.extend(
            f"{sources[field].text}: is for a new queue; add --create"
            for field in _CREATE_ONLY
            if field in sources and values[field] is not False
        )
