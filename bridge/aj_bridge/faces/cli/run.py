"""`aj-bridge run`: from a configuration to a running bridge, and from signals to its end."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from aj_bridge.engine.bridge import Bridge, BridgeOptions, Line, ServedQueue
from aj_bridge.engine.router import Router
from aj_bridge.faces.channel import Word, WorkerEnd
from aj_bridge.faces.cli.frame import Globals, leaf
from aj_bridge.faces.config import BridgeConfig, bridge_options, load_config
from aj_bridge.faces.embedded import EmbeddedServer
from aj_bridge.faces.journal import open_journal
from aj_bridge.faces.logs import set_up_logging
from aj_bridge.faces.metrics import Metrics
from aj_bridge.faces.monitor import Own, Watched, serve
from aj_bridge.faces.supervisor import Supervisor
from aj_sdk.admin import Admin
from aj_sdk.connect import ConnectionFlags, connect, resolve_connection
from aj_sdk.errors import NotConnectedError, QueueNotFoundError
from aj_sdk.fast import open_transport
from aj_sdk.jetstream import JetStream
from aj_sdk.program import loop_factory
from aj_sdk.store import Store
from aj_sdk.wire.names import DEFAULT_QUEUE
from aj_sdk.wire.queue import QueueSettings, default_queue
from aj_sdk.wire.times import NS_PER_S, format_duration

__all__ = ["command", "run_bridge"]

_log = logging.getLogger(__name__)

_GC_THRESHOLD: Final = (50_000, 50, 100)
_NO_EXIT_CODE: Final = 0
_CANCELLED: Final = 1
_NATS_PORT: Final = 4222
_SILENCE_S: Final = 10.0
"""For how long a server may be silent before we say that we can't work; the connection itself notices much later."""


@leaf(
    "run",
    "aj-bridge run --queue EMAIL",
    "aj-bridge run --queue EMAIL --server nats://nats.example.net:4222 --monitor 127.0.0.1:9100",
    "aj-bridge run --queue EMAIL --create --max-run-time 5m --max-tries 20",
    "aj-bridge run --queue CRITICAL=6 --queue NORMAL=3 --queue LOW --concurrency 200",
    "aj-bridge run --queue EMAIL --workers 4 --monitor 9100",
    "aj-bridge run --embedded --store ./data --create --queue EMAIL",
    "aj-bridge run --queue EMAIL --app handlers --command image:thumbnail=./thumbnail --remote '*'",
    "aj-bridge run --queue EMAIL --backoff min=1s,max=10m,factor=2",
    "aj-bridge run --config bridge.toml --log-format json",
)
@bridge_options
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> None:
    """Take the tasks of queues to their handlers, until SIGTERM.

    A handler is whoever answers on CHORIA_AJ.H.T.<type>, in any language; a command (--command); or a Python module in
    the bridge itself (--app). A command finds the task in the file that CHORIA_AJ_TASK names and prints the result;
    exit code 0 completes the task, 78 ends it for good, any other (75 by custom) is a failed try.

    Settings come from the flags, the environment, a TOML file and the defaults; the first of these that has one wins.
    """
    run_bridge(ctx, flags, os.environ)


def run_bridge(ctx: click.Context, flags: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Run what a command line asks for, and end the command.

    Args:
        ctx: the command.
        flags: its options, as `load_config` takes them.
        environ: the environment.
    """
    settings = ctx.find_root().ensure_object(Globals)
    given = {**flags, "server": settings.server or None, "context": settings.context or None}
    config = load_config(given, environ)
    router = config.router  # before anything is connected: what is wrong here is wrong for good
    level = "debug" if settings.debug else config.log_level
    set_up_logging(level=level, style=config.log_format, stream=sys.stderr, environ=environ)
    # Collecting garbage often costs a busy bridge 5 % and finds nothing: what it makes is freed by counting.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)
    with asyncio.Runner(loop_factory=loop_factory()) as loop:
        code = loop.run(_main(config, router))
    ctx.exit(code)


async def _main(config: BridgeConfig, router: Router) -> int:
    """Be a worker of a supervisor, a supervisor, or a bridge alone; returns the exit code."""
    seat = await WorkerEnd.open(os.environ)
    count = config.workers or len(os.sched_getaffinity(0))
    async with contextlib.AsyncExitStack() as stack:
        flags = config.connection
        if seat is not None:
            _mark_log(seat.hello.number)
            if seat.hello.server:
                flags = ConnectionFlags(server=seat.hello.server)
            stack.push_async_callback(seat.close)
        elif config.embedded:
            server = await stack.enter_async_context(EmbeddedServer(store=config.store, port=_port(config)))
            _log.info("embedded nats-server %s on %s", server.version, server.url)
            flags = ConnectionFlags(server=server.url)
        if seat is None and count > 1:
            return await _supervise(config, count, flags.server if config.embedded else "")
        cancelled = await _run(config, router, flags, seat)
    return _CANCELLED if cancelled else _NO_EXIT_CODE


def _mark_log(worker: int) -> None:
    """Let each line of the log tell which worker wrote it."""

    def mark(record: logging.LogRecord) -> bool:
        record.worker = worker
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(mark)


async def _supervise(config: BridgeConfig, count: int, server: str) -> int:
    supervisor = Supervisor([sys.executable, "-m", "aj_bridge", *sys.argv[1:]], count, server)
    async with contextlib.AsyncExitStack() as stack:
        monitor = await _monitored(stack, config, supervisor)
        with _stop_on_signals(supervisor.stop):
            return await supervisor.run(lambda: click.echo(f"ready: {count} workers{monitor}"))


async def _monitored(stack: contextlib.AsyncExitStack, config: BridgeConfig, watched: Watched) -> str:
    """Serve metrics where the configuration says so; returns how to tell it."""
    if config.monitor is None:
        return ""
    bound = await stack.enter_async_context(serve(watched, config.monitor.host, config.monitor.port))
    return f", metrics on {bound.url}"


async def _run(config: BridgeConfig, router: Router, flags: ConnectionFlags, seat: WorkerEnd | None) -> int:
    """Run the bridge; returns how many tasks in hand did not end in time."""
    lost = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        journal = None
        if config.journal is not None:
            path = config.journal if seat is None else Path(f"{config.journal}.worker-{seat.hello.number}")
            journal = stack.enter_context(open_journal(path)).write
        options = resolve_connection(flags, os.environ, name="aj-bridge")
        connection = await connect(options, on_closed=lost.set)
        stack.push_async_callback(connection.close)
        transport = await stack.enter_async_context(open_transport(connection))
        jetstream = JetStream(transport, prefix=options.js_prefix, event_prefix=options.js_event_prefix)
        await _need_queues(jetstream, config)
        metrics = Metrics()
        silences: list[Callable[[], float]] = []

        def fault() -> str | None:
            if not connection.is_connected:
                return "not connected to a NATS server"
            silent_s = max((silent() for silent in silences), default=0.0)
            return f"the server has not answered for {silent_s:.0f} s" if silent_s > _SILENCE_S else None

        own = Own(metrics, fault)
        monitor = await _monitored(stack, config, own) if seat is None else ""
        bridge = Bridge(
            jetstream,
            BridgeOptions(
                queues=tuple(ServedQueue(name=name, weight=weight) for name, weight in config.queue),
                router=router,
                concurrency=config.concurrency,
                policy=config.backoff,
                adopt=not config.no_adopt,
                verifier=config.verifier,
                retention=config.retention,
                keep_all_attempts=config.attempts == "all",
                grace_s=config.drain_timeout_ns / NS_PER_S,
                sweep_every_s=config.sweep_every_ns / NS_PER_S,
            ),
            metrics,
            journal,
        )
        silences.append(lambda: bridge.silent_s)

        def ready(lines: Sequence[Line]) -> None:
            queues = ", ".join(_queue_text(line, alone=len(lines) == 1) for line in lines)
            said = "ready:" if seat is None else f"worker {seat.hello.number} of {seat.hello.of}:"
            click.echo(
                f"{said} bridge {bridge.id}, {queues} on {options.where}, {config.concurrency} at a time{monitor}"
            )
            if seat is not None:
                seat.tell(Word.READY)

        with _stop_on_signals(bridge.stop):
            await stack.enter_async_context(_stopped_after(lost.wait(), bridge))
            if seat is not None:
                await stack.enter_async_context(_stopped_after(seat.serve(own), bridge))
            cancelled = await bridge.run(ready)
        if lost.is_set():
            raise NotConnectedError("the server closed the connection for good; see the log for its reason")
        if cancelled:
            _log.warning("%d tasks in hand did not end in time; they run again when their leases are over", cancelled)
        if seat is not None:
            seat.tell(Word.DRAINED)
        return cancelled


def _queue_text(line: Line, *, alone: bool) -> str:
    queue = line.storage.items.settings
    weight = "" if alone else f"weight {line.seat.weight}, "
    lease = format_duration(queue.lease_ns) if queue.ours else f"{format_duration(queue.max_run_time_ns)}, Go's"
    waiting = "outside the queue" if line.storage.waiting.schedules else "in the queue"
    return f"queue {queue.name} ({weight}lease {lease}, retries wait {waiting})"


def _port(config: BridgeConfig) -> int:
    """Return the embedded server's port: the usual one where it is free, so that clients find it without being told."""
    if config.port is not None:
        return config.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", _NATS_PORT))
        except OSError:
            return 0
    return _NATS_PORT


@contextlib.asynccontextmanager
async def _stopped_after(event: Coroutine[Any, Any, object], bridge: Bridge) -> AsyncIterator[None]:
    """Stop the bridge when something is over: its connection for good, or its supervisor."""

    async def watch() -> None:
        await event
        bridge.stop()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


@contextlib.contextmanager
def _stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Drain on the first SIGTERM or SIGINT, wait no longer on the second, leave the third to the system."""
    loop = asyncio.get_running_loop()
    both = (signal.SIGTERM, signal.SIGINT)
    draining = False

    def on_signal() -> None:
        nonlocal draining
        if not draining:
            _log.info("draining; a second signal ends the tasks in hand")
        else:
            for number in both:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)
        draining = True
        stop()

    for number in both:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in both:
            loop.remove_signal_handler(number)


async def _need_queues(jetstream: JetStream, config: BridgeConfig) -> None:
    store = Store(jetstream)
    admin = Admin(jetstream, store)
    await admin.ensure_task_store(memory=config.memory, replicas=config.replicas)
    if config.keep:
        await admin.enable_task_ttls()
    names = await admin.queue_names()
    for name, weight in config.queue:
        wanted = default_queue() if name == DEFAULT_QUEUE else None
        if config.create or wanted is not None:
            await admin.create_queue(_new_queue(config, wanted or QueueSettings(name=name), weight))
        elif name not in names:
            raise QueueNotFoundError(name)


def _new_queue(config: BridgeConfig, default: QueueSettings, weight: int | None) -> QueueSettings:
    return QueueSettings(
        name=default.name,
        max_run_time_ns=config.max_run_time_ns or default.max_run_time_ns,
        max_tries=config.max_tries or default.max_tries,
        max_concurrent=config.max_concurrent or default.max_concurrent,
        replicas=config.replicas,
        memory=config.memory,
        lease_ns=0 if config.go_workers else config.lease_ns,
        weight=weight or default.weight,
    ).check()
