"""Tasks per second of one bridge process, as a ratio to the plain fetch-one loop in the same run.

    python bench/throughput.py                     # a table
    python bench/throughput.py --json              # one JSON object
    python bench/throughput.py --tasks 20000 --rounds 5 --concurrency 100

Both workers take the same number of stored tasks to the same handler process, in alternating rounds on one embedded
nats-server (file storage); the figures are medians, and the ratio is that of the medians. The bridge does all of its
bookkeeping: leases, compare-and-set, events, metrics, headers of protocol 1.1. The plain loop does none of it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.wire.queue import QueueSettings

HERE = Path(__file__).parent
TYPE = "bench:echo"
WORKERS = ("plain", "bridge")


async def fill(server: str, queue: str, count: int) -> None:
    """Make a queue with tasks."""
    async with Client.connect(server) as client:
        await client.admin.create_queue(QueueSettings(name=queue, max_concurrent=1000))
        payload = {"to": "a@example.net", "subject": "hello", "body": "x" * 60}
        await client.enqueue_many([(TYPE, payload)] * count, queue=queue)


@contextlib.contextmanager
def handler(server: str) -> Iterator[None]:
    """Run the handler process."""
    command = [sys.executable, str(HERE / "handler.py"), "--server", server, "--type", TYPE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("the handler process did not start")
        try:
            yield
        finally:
            process.terminate()


def measure(worker: str, server: str, queue: str, count: int, concurrency: int) -> dict[str, float]:
    """Run one worker process over a full queue."""
    asyncio.run(fill(server, queue, count))
    command = [sys.executable, str(HERE / "worker.py"), worker, "--server", server, "--queue", queue]
    command += ["--count", str(count), "--concurrency", str(concurrency)]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=600)
    figures: dict[str, float] = json.loads(run.stdout)
    return {
        "tasks_per_s": count / figures["seconds"],
        "cpu_us_per_task": figures["cpu_seconds"] * 1e6 / count,
    }


def bench(count: int, rounds: int, concurrency: int, progress: Progress) -> dict[str, Any]:
    """Run all rounds."""
    rows: dict[str, list[dict[str, float]]] = {worker: [] for worker in WORKERS}
    bar = progress.add_task("rounds", total=rounds * len(WORKERS))
    with EmbeddedServer() as server, handler(server.url):
        for number in range(rounds):
            for worker in WORKERS if number % 2 == 0 else reversed(WORKERS):
                progress.update(bar, description=f"round {number + 1}: {worker}")
                rows[worker].append(measure(worker, server.url, f"B{number}-{worker}", count, concurrency))
                progress.advance(bar)
        version = server.version
    medians = {
        worker: {name: round(statistics.median(row[name] for row in found), 1) for name in found[0]}
        for worker, found in rows.items()
    }
    ratios = [
        ours["tasks_per_s"] / plain["tasks_per_s"] for ours, plain in zip(rows["bridge"], rows["plain"], strict=True)
    ]
    return {
        "ratio": round(medians["bridge"]["tasks_per_s"] / medians["plain"]["tasks_per_s"], 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "workers": medians,
        "tasks": count,
        "rounds": rounds,
        "concurrency": concurrency,
        "machine": {
            "cpus": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "nats_server": version,
        },
    }


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5000, help="tasks a round (default 5000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each worker (default 3)")
    parser.add_argument("--concurrency", type=int, default=100, help="tasks in flight (default 100)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = bench(options.tasks, options.rounds, options.concurrency, progress)
    if options.json:
        print(json.dumps(found))
        return
    table = Table(title=f"bridge / plain fetch-one loop = {found['ratio']} (rounds: {found['ratios']})")
    for heading in ("worker", "tasks/s", "worker CPU us a task"):
        table.add_column(heading, justify="left" if heading == "worker" else "right")
    for worker, figures in found["workers"].items():
        table.add_row(worker, f"{figures['tasks_per_s']:.0f}", f"{figures['cpu_us_per_task']:.0f}")
    Console().print(table)
    machine = found["machine"]
    print(f"{options.tasks} tasks x {options.rounds} rounds, {options.concurrency} in flight; {machine}")


if __name__ == "__main__":
    main()
