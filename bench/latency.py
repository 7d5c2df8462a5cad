"""Milliseconds from before `enqueue` to the event that a task is complete: the bridge beside the Go project's worker.

    python bench/latency.py
    python bench/latency.py --tasks 1000 --rounds 5 --json

Both workers take tasks of the same client to the same remote handler, in alternating rounds on one machine with file
storage. `idle` is one task at a time, `steady` an even stream of `--rate` tasks a second for both, `half load` one at
half of the rate at which this worker is done with a burst from this client. In a stream each task counts from when it
was due, so that nobody gains by being late. A worker that is not installed is left out by name.
"""

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import processes
import uvloop
from processes import TYPE, machine, medians, missing, quantile
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.times import NS_PER_S

PAYLOAD = {"to": "a@example.net", "subject": "hello", "body": "x" * 60}
WORKERS: dict[str, Callable[[str, str], contextlib.AbstractContextManager[int]]] = {
    "bridge": processes.bridge,
    "go": processes.go_worker,
}
_PATIENCE_S = 60.0
_WARM_UP = 50


class Ends:
    """When tasks were told to be complete."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[float]] = {}

    def of(self, task_id: str) -> "asyncio.Future[float]":
        """Return what will have the time."""
        return self._waiting.setdefault(task_id, asyncio.get_running_loop().create_future())

    async def listen(self, client: Client, listening: asyncio.Event) -> None:
        """Take events for ever."""
        async with client.watch() as events:
            listening.set()
            async for event in events:
                if getattr(event, "state", None) == "complete":
                    self.of(event.task_id).set_result(time.perf_counter())  # type: ignore[union-attr]


async def idle(client: Client, queue: str, count: int, ends: Ends) -> list[float]:
    """Run one task after the other; returns milliseconds."""
    spans = []
    for _ in range(count):
        began = time.perf_counter()
        task = await client.enqueue(TYPE, PAYLOAD, queue=queue)
        spans.append((await asyncio.wait_for(ends.of(task.id), _PATIENCE_S) - began) * 1e3)
    return spans


async def burst(client: Client, queue: str, count: int, ends: Ends) -> float:
    """Enqueue tasks as fast as it goes; returns how many were done in a second."""
    began = time.perf_counter()
    tasks = await client.enqueue_many([(TYPE, PAYLOAD)] * count, queue=queue)
    finished = await asyncio.wait_for(asyncio.gather(*(ends.of(task.id) for task in tasks)), _PATIENCE_S)
    return count / (max(finished) - began)


async def stream(client: Client, queue: str, count: int, rate: float, ends: Ends) -> list[float]:
    """Enqueue a task each `1 / rate` seconds; returns milliseconds, each from when its task was due."""
    began = time.perf_counter()

    async def one(due: float) -> float:
        task = await client.enqueue(TYPE, PAYLOAD, queue=queue)
        return (await ends.of(task.id) - due) * 1e3

    running = []
    for number in range(count):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(one(due)))
    return list(await asyncio.wait_for(asyncio.gather(*running), _PATIENCE_S))


async def measure(server: str, worker: str, queue: str, count: int, steady: float) -> dict[str, float]:
    """Measure one worker once."""
    async with Client.connect(server) as client:
        settings = QueueSettings(name=queue, max_concurrent=1000, max_run_time_ns=60 * NS_PER_S)
        if worker == "go":
            settings = QueueSettings(name=queue, max_concurrent=1000, max_run_time_ns=60 * NS_PER_S, lease_ns=0)
        await client.admin.create_queue(settings)
        ends, listening = Ends(), asyncio.Event()
        listener = asyncio.create_task(ends.listen(client, listening))
        await listening.wait()
        with WORKERS[worker](server, queue):
            await idle(client, queue, _WARM_UP, ends)
            alone = await idle(client, queue, count, ends)
            even = await stream(client, queue, count, steady, ends)
            rate = await burst(client, queue, 4 * count, ends) / 2
            loaded = await stream(client, queue, 2 * count, rate, ends)
        listener.cancel()
    return {
        "idle_p50_ms": quantile(alone, 0.5),
        "idle_p99_ms": quantile(alone, 0.99),
        "steady_p50_ms": quantile(even, 0.5),
        "steady_p99_ms": quantile(even, 0.99),
        "half_load_per_s": rate,
        "half_load_p50_ms": quantile(loaded, 0.5),
        "half_load_p99_ms": quantile(loaded, 0.99),
    }


def bench(count: int, rounds: int, steady: float, progress: Progress) -> dict[str, Any]:
    """Run all rounds."""
    absent = missing(["go"])
    workers = [worker for worker in WORKERS if worker not in absent]
    rows: dict[str, list[dict[str, float]]] = {worker: [] for worker in workers}
    bar = progress.add_task("rounds", total=rounds * len(workers))
    with EmbeddedServer() as server, processes.handler(server.url):
        for number in range(rounds):
            for worker in workers if number % 2 == 0 else reversed(workers):
                progress.update(bar, description=f"round {number + 1}: {worker}")
                rows[worker].append(uvloop.run(measure(server.url, worker, f"L{number}-{worker}", count, steady)))
                progress.advance(bar)
        version = server.version
    figures = {
        worker: {name: round(value, 3) for name, value in medians(found).items()} for worker, found in rows.items()
    }
    ours = figures["bridge"]
    return {
        "ratios": {
            peer: {name: round(ours[name] / theirs[name], 2) for name in ours if name.endswith("_ms")}
            for peer, theirs in figures.items()
            if peer != "bridge"
        },
        "workers": figures,
        "left_out": absent,
        "tasks": count,
        "steady_per_s": steady,
        "rounds": rounds,
        "machine": machine(version),
    }


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(title="ms from before enqueue to the event of its completion")
    table.add_column("what")
    for worker in found["workers"]:
        table.add_column(worker, justify="right")
    for peer in found["ratios"]:
        table.add_column(f"bridge / {peer}", justify="right")
    for name in found["workers"]["bridge"]:
        ratios = [str(ratios.get(name, "")) for ratios in found["ratios"].values()]
        table.add_row(name, *(f"{figures[name]:.2f}" for figures in found["workers"].values()), *ratios)
    Console().print(table)
    for peer, why in found["left_out"].items():
        print(f"left out: {peer} ({why})")
    print(
        f"{found['tasks']} tasks idle, as many at {found['steady_per_s']:g} a second, twice as many at half load, "
        f"x {found['rounds']} rounds; {found['machine']}"
    )


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500, help="tasks one after the other, a round (default 500)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each worker (default 3)")
    parser.add_argument("--rate", type=float, default=250, help="tasks a second of the steady stream (default 250)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = bench(options.tasks, options.rounds, options.rate, progress)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
