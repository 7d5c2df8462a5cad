"""What a task costs the bridge and the server when much is stored: tasks in the store, a backlog, delayed tasks.

    python bench/scale.py
    python bench/scale.py --stores 1000,10000 --backlog 10000 --delayed 10000 --rounds 1

Each case is measured in turn with the same work on a second server that holds next to nothing, so that a machine that
slows down slows both; the figures are ratios to that. The store grows from case to case; `bench/README.md` has the
table. A cost that stays within 10 % is flat.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from processes import HERE, TYPE, cpu, handler, machine, medians
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.wire.names import task_subject
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

PAYLOAD = {"to": "a@example.net", "subject": "hello", "body": "x" * 60}
FLAT = 1.1
_AT_ONCE = 1000
_CONCURRENCY = 100
_PATIENCE_S = 600.0
Grow = Callable[[Client, Callable[[int], None]], Coroutine[Any, Any, None]]


def settings(queue: str) -> QueueSettings:
    """Describe a queue."""
    return QueueSettings(name=queue, max_concurrent=10_000, max_run_time_ns=60 * NS_PER_S)


async def fill(server: str, queue: str, count: int) -> None:
    """Make a queue with tasks."""
    async with Client.connect(server, timeout=60) as client:
        await client.admin.create_queue(settings(queue))
        await client.enqueue_many([(TYPE, PAYLOAD)] * count, queue=queue)


def store_of(wanted: int, stored: int) -> Grow:
    """Return what puts finished tasks into the store until there are so many."""

    async def grow(client: Client, advance: Callable[[int], None]) -> None:
        jetstream = client.store.jetstream

        async def put(number: int) -> None:
            record = TaskRecord(
                id=f"old{number}", type=TYPE, queue="OLD", state=TaskState.COMPLETE, created_ns=1, payload=b"x" * 110
            )
            await jetstream.publish(task_subject(record.id), record.to_wire())

        for start in range(stored, wanted, _AT_ONCE):
            await asyncio.gather(*(put(number) for number in range(start, min(start + _AT_ONCE, wanted))))
            advance(_AT_ONCE)

    return grow


def tasks_in(queue: str, count: int, delay: int | None) -> Grow:
    """Return what puts tasks into a queue: a backlog, or delayed ones that come long after."""

    async def grow(client: Client, advance: Callable[[int], None]) -> None:
        await client.admin.create_queue(settings(queue))
        if delay is None:
            for start in range(0, count, _AT_ONCE):
                await client.enqueue_many([(TYPE, PAYLOAD)] * min(_AT_ONCE, count - start), queue=queue)
                advance(_AT_ONCE)
            return
        for start in range(0, count, _AT_ONCE):
            number = min(_AT_ONCE, count - start)
            await asyncio.gather(*(client.enqueue(TYPE, PAYLOAD, queue=queue, delay=delay) for _ in range(number)))
            advance(number)

    return grow


def work(server: EmbeddedServer, queue: str, count: int) -> dict[str, float]:
    """Take tasks of a queue to their handler; returns what each cost."""
    command = [sys.executable, str(HERE / "worker.py"), "bridge", "--server", server.url, "--queue", queue]
    command += ["--count", str(count), "--concurrency", str(_CONCURRENCY)]
    before = cpu(server.pid)
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=_PATIENCE_S)
    took = json.loads(run.stdout)
    return {
        "us_per_task": took["seconds"] * 1e6 / count,
        "bridge_cpu_us": took["cpu_seconds"] * 1e6 / count,
        "server_cpu_us": (cpu(server.pid) - before) * 1e6 / count,
    }


def bench(cases: list[tuple[str, Grow, str]], count: int, rounds: int, progress: Progress) -> dict[str, Any]:
    """Run all cases."""
    found: dict[str, Any] = {}
    with (
        EmbeddedServer() as server,
        EmbeddedServer() as empty,
        handler(server.url),
        handler(empty.url),
    ):
        for number, (name, grow, backlog) in enumerate(cases):
            bar = progress.add_task(f"{name}: filling", total=None)

            async def prepare(grow: Grow = grow, bar: Any = bar) -> None:
                async with Client.connect(server.url, timeout=60) as client:
                    await client.admin.ensure_task_store()
                    await grow(client, lambda more: progress.advance(bar, more))

            asyncio.run(prepare())
            rows: list[dict[str, float]] = []
            controls: list[dict[str, float]] = []
            for each in range(rounds):
                progress.update(bar, description=f"{name}: round {each + 1}")
                queue, control = backlog or f"S{number}-{each}", f"C{number}-{each}"
                asyncio.run(fill(empty.url, control, count))
                if not backlog:
                    asyncio.run(fill(server.url, queue, count))
                pair = [(rows, server, queue), (controls, empty, control)]
                for into, where, which in pair if each % 2 == 0 else reversed(pair):
                    into.append(work(where, which, count))
            progress.remove_task(bar)
            mine, theirs = medians(rows), medians(controls)
            found[name] = {
                **{key: round(value, 1) for key, value in mine.items()},
                "ratios": {key: round(mine[key] / theirs[key], 2) for key in mine},
            }
        version = server.version
    return {"cases": found, "tasks": count, "rounds": rounds, "machine": machine(version)}


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(title="a task, and how many times what it is on a server that holds nothing")
    for heading in ("held", "us a task", "ratio", "bridge CPU us", "ratio", "server CPU us", "ratio", "flat"):
        table.add_column(heading, justify="left" if heading == "held" else "right", no_wrap=heading == "held")
    for name, figures in found["cases"].items():
        ratios = figures["ratios"]
        cells = [text for key in ratios for text in (f"{figures[key]:.0f}", f"{ratios[key]:.2f}")]
        table.add_row(name, *cells, "yes" if max(ratios.values()) <= FLAT else "no")
    Console().print(table)
    print(f"{found['tasks']} tasks x {found['rounds']} rounds a case; {found['machine']}")


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", default="1000,10000,100000,1000000", help="tasks in the store, ascending")
    parser.add_argument("--backlog", type=int, default=100_000, help="tasks that wait in the queue (default 100000)")
    parser.add_argument("--delayed", type=int, default=100_000, help="tasks that wait for a time (default 100000)")
    parser.add_argument("--tasks", type=int, default=3000, help="tasks of a round (default 3000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    sizes = [int(size) for size in options.stores.split(",") if size]
    if sizes != sorted(sizes):
        parser.error("--stores must be ascending: the store only grows")
    cases = [
        (f"{size:,} tasks in the store", store_of(size, before), "")
        for before, size in zip([0, *sizes], sizes, strict=False)
    ]
    if options.backlog:
        cases.append((f"a backlog of {options.backlog:,}", tasks_in("BACKLOG", options.backlog, None), "BACKLOG"))
    if options.delayed:
        cases.append((f"{options.delayed:,} delayed", tasks_in("DELAYED", options.delayed, 24 * 3600), ""))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = bench(cases, options.tasks, options.rounds, progress)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
