"""What sweeping costs where much is stored: how long it takes, and what it does to those who work meanwhile.

    python bench/sweep.py --tasks 1000000
    python bench/sweep.py --tasks 100000 --need 2       # exit code 1 where the p50 of saves doubles

Fills a server of its own with finished tasks, one in a hundred unfinished, then runs a bridge, which is elected and
reads the whole store. Another process saves one record again and again, and a canary goes through the bridge: during
the first sweep, between two sweeps, and until the end of the next one. `bench/README.md` has the table.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import nats
from processes import TYPE, bridge, cpu, handler, machine, quantile, resident
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.transport import NatsTransport
from aj_sdk.wire.names import task_subject
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

_AT_ONCE: Final = 500
_EACH_UNFINISHED: Final = 100
_EVERY_S: Final = 20
_ALONE_S: Final = 15.0
_PAUSE_S: Final = 0.005
_CANARY_PAUSE_S: Final = 0.05
_LOOK_S: Final = 0.2
_PREFIX: Final = "choria_asyncjobs_bridge_sweep"


async def _fill(client: Client, tasks: int, progress: Progress) -> None:
    bar = progress.add_task("filling the store", total=tasks)
    store, jetstream = client.store, client.store.jetstream
    await client.admin.ensure_task_store()
    await client.admin.create_queue(QueueSettings(name="OLD"))
    await client.admin.create_queue(QueueSettings(name="CANARY"))

    async def put(number: int) -> None:
        state = TaskState.COMPLETE if number % _EACH_UNFINISHED else TaskState.NEW
        record = TaskRecord(id=f"t{number}", type=TYPE, queue="OLD", state=state, created_ns=1, payload=b"x" * 100)
        await jetstream.publish(task_subject(record.id), record.to_wire())
        if state is TaskState.NEW:
            await store.publish_item("OLD", record.id)

    await asyncio.gather(*(put(number) for number in range(100)))
    for start in range(0, tasks, _AT_ONCE):
        await asyncio.gather(*(put(number) for number in range(start, min(start + _AT_ONCE, tasks))))
        progress.advance(bar, _AT_ONCE)


class _Watch:
    """A bridge's sweeps, as its metrics tell them.

    Args:
        port: where it shows them.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    async def read(self) -> dict[str, float]:
        """Give its metrics by name."""
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(self._url, timeout=10).read().decode())
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def begun(self) -> None:
        """Wait until records are read."""
        while not (await self.read()).get(f"{_PREFIX}_scanned_total"):  # noqa: ASYNC110 - it tells only when asked
            await asyncio.sleep(_LOOK_S)

    async def ended(self, last_s: float, progress: Progress, tasks: int) -> float:
        """Wait until a sweep has ended; returns how many seconds it took.

        Args:
            last_s: how many the one before took.
            progress: shows how far it is.
            tasks: how many there are to read.
        """
        bar = progress.add_task("sweeping", total=tasks)
        while True:
            found = await self.read()
            progress.update(bar, completed=found.get(f"{_PREFIX}_scanned_total", 0))
            took_s = found.get(f"{_PREFIX}_seconds", 0.0)
            if took_s not in (0.0, last_s):
                progress.remove_task(bar)
                return took_s
            await asyncio.sleep(_LOOK_S)


async def _phase(client: Client, url: str, task_id: str, until: Coroutine[Any, Any, Any]) -> tuple[Any, dict[str, Any]]:
    """Save and send canaries until something is over; returns what it gave, and the spans."""
    over = asyncio.create_task(until)
    saves = asyncio.create_task(_saves(url, task_id, over))
    canaries: list[float] = []
    while not over.done():
        began = time.perf_counter()
        task = await client.enqueue(TYPE, {"n": 1}, queue="CANARY")
        await client.result(task.id, timeout=60)
        canaries.append(time.perf_counter() - began)
        await asyncio.sleep(_CANARY_PAUSE_S)
    return await over, {"save": await saves, "canary": canaries}


async def _saves(url: str, task_id: str, until: "asyncio.Task[Any]") -> list[float]:
    """Save in a process of its own, so that only the server is shared, until something is over."""
    saver = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--save", url, task_id, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    await asyncio.wait({until})
    spans: list[float] = json.loads((await saver.communicate(b"stop"))[0])
    return spans


async def _save(url: str, task_id: str) -> None:
    record = TaskRecord(id=task_id, type="bench", queue="OLD", state=TaskState.COMPLETE, created_ns=1)
    stop = asyncio.create_task(asyncio.to_thread(sys.stdin.read, 4))
    connection = await nats.connect(url)
    spans: list[float] = []
    sequence = 0
    async with NatsTransport(connection) as transport:
        store = Store(JetStream(transport))
        while not stop.done() or not spans:
            began = time.perf_counter()
            sequence = await store.save(record, expected=sequence)
            spans.append(time.perf_counter() - began)
            await asyncio.sleep(_PAUSE_S)
    await connection.close()
    print(json.dumps(spans))


async def _measure(server: EmbeddedServer, tasks: int, progress: Progress) -> dict[str, Any]:
    async with Client.connect(server.url, timeout=60) as client:
        await _fill(client, tasks, progress)
        with contextlib.ExitStack() as stack:
            stack.enter_context(handler(server.url))
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port: int = taken.getsockname()[1]
            options = ("--sweep-every", f"{_EVERY_S}s", "--monitor", f"127.0.0.1:{port}")
            pid = stack.enter_context(bridge(server.url, "CANARY", *options))
            watch, at_rest = _Watch(port), resident(pid)
            await watch.begun()
            before, began = (cpu(server.pid), cpu(pid)), time.monotonic()
            first_s, during = await _phase(client, server.url, "during", watch.ended(0.0, progress, tasks))
            used = [after - was for after, was in zip((cpu(server.pid), cpu(pid)), before, strict=True)]
            span_s = time.monotonic() - began
            _, alone = await _phase(client, server.url, "alone", asyncio.sleep(_ALONE_S))
            next_s, later = await _phase(client, server.url, "later", watch.ended(first_s, progress, tasks))
            metrics = await watch.read()
            peak = resident(pid)
    phases = {"alone": alone, "first": during, "next": later}
    return {
        "machine": machine(server.version),
        "tasks": tasks,
        "first_sweep_s": first_s,
        "records_per_s": tasks / first_s,
        "next_sweep_s": next_s,
        "watched": metrics[f"{_PREFIX}_watched"],
        "server_cpu_share": used[0] / span_s,
        "bridge_cpu_share": used[1] / span_s,
        "bridge_mb_before": at_rest / 2**20,
        "bridge_mb_after": peak / 2**20,
        "ms": {
            f"{what} {name}": {phase: value * 1000 for phase, value in _each(phases, what, part).items()}
            for what in ("save", "canary")
            for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
        "samples": {phase: {what: len(spans) for what, spans in found.items()} for phase, found in phases.items()},
    }


def _each(phases: dict[str, dict[str, list[float]]], what: str, part: float) -> dict[str, float]:
    return {phase: quantile(found[what], part) for phase, found in phases.items()}


def _show(console: Console, found: dict[str, Any]) -> None:
    for name, value in found.items():
        if isinstance(value, int | float):
            console.print(f"{name:20} {value:>14,.2f}")
    table = Table(title="milliseconds")
    for column in ("", "alone", "first sweep", "next sweep", "first / alone"):
        table.add_column(column, justify="right")
    for name, row in found["ms"].items():
        figures = [f"{row[phase]:.2f}" for phase in ("alone", "first", "next")]
        table.add_row(name, *figures, f"{row['first'] / row['alone']:.2f}")
    console.print(table)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000, help="tasks in the store (100000)")
    parser.add_argument(
        "--need", type=float, help="exit code 1 where saves during the first sweep have more times the p50"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--save", nargs=2, metavar=("URL", "TASK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.save:
        asyncio.run(_save(*options.save))
        return 0
    console = Console()
    with Progress(console=Console(stderr=True)) as progress, EmbeddedServer() as server:
        found = asyncio.run(_measure(server, options.tasks, progress))
    _show(console, found)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    row = found["ms"]["save p50"]
    return 1 if options.need is not None and row["first"] > options.need * row["alone"] else 0


if __name__ == "__main__":
    sys.exit(main())
