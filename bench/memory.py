"""Memory and descriptors of the bridge and of a Python handler over many tasks: they should stay what they are.

    python bench/memory.py --tasks 1000000
    python bench/memory.py --tasks 50000 --need 1.1         # exit code 1 where memory grows by more

Tasks are enqueued by the thousand and each thousand is waited for; their records are discarded when they have ended, so
that the store does not grow. A tenth of the tasks warms up; growth is the last sample over the one after that.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from typing import Any

from processes import bridge, descriptors, machine, process, resident
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.times import NS_PER_S

TYPE = "bench:echo"
PAYLOAD = {"to": "a@example.net", "subject": "hello", "body": "x" * 60}
QUEUE = "MEMORY"
_AT_ONCE = 1000
_SAMPLES = 10
_PATIENCE_S = 120.0
_SDK_HANDLER = """
import asyncio
from aj_sdk import Services, run
services = Services()
@services.service({type!r})
async def echo(task):
    return {{"ok": True}}
run(services, server={server!r}, on_ready=lambda: print("ready", flush=True))
"""


async def work(server: str, count: int, pids: dict[str, int], progress: Progress) -> list[dict[str, Any]]:
    """Run the tasks; returns a sample after each tenth."""
    bar = progress.add_task("tasks", total=count)
    samples = []
    async with Client.connect(server, timeout=30) as client, client.watch() as events:
        done, due = 0, count // _SAMPLES
        while done < count:
            tasks = await client.enqueue_many([(TYPE, PAYLOAD)] * min(_AT_ONCE, count - done), queue=QUEUE)
            waiting = {task.id for task in tasks}
            async with asyncio.timeout(_PATIENCE_S):
                while waiting:
                    event = await anext(events)
                    if getattr(event, "state", None) == "complete":
                        waiting.discard(event.task_id)  # type: ignore[union-attr]
            done += len(tasks)
            progress.update(bar, completed=done)
            if done >= due:
                due += count // _SAMPLES
                sample: dict[str, Any] = {"tasks": done}
                for name, pid in pids.items():
                    sample[f"{name}_mib"] = round(resident(pid) / 2**20, 1)
                    sample[f"{name}_descriptors"] = descriptors(pid)
                samples.append(sample)
    return samples


def bench(count: int, progress: Progress) -> dict[str, Any]:
    """Run it."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())

        async def prepare() -> None:
            async with Client.connect(server.url) as client:
                settings = QueueSettings(name=QUEUE, max_concurrent=1000, max_run_time_ns=60 * NS_PER_S)
                await client.admin.create_queue(settings)

        asyncio.run(prepare())
        program = _SDK_HANDLER.format(type=TYPE, server=server.url)
        pids = {
            "bridge": stack.enter_context(bridge(server.url, QUEUE, "--discard", "complete")),
            "handler": stack.enter_context(process([sys.executable, "-c", program], "ready")),
        }
        samples = asyncio.run(work(server.url, count, pids, progress))
        version = server.version
    warm, last = samples[0], samples[-1]
    return {
        "growth": {name: round(last[f"{name}_mib"] / warm[f"{name}_mib"], 3) for name in pids},
        "more_descriptors": {name: last[f"{name}_descriptors"] - warm[f"{name}_descriptors"] for name in pids},
        "samples": samples,
        "machine": machine(version),
    }


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(title="resident memory and open descriptors after so many tasks")
    for heading in found["samples"][0]:
        table.add_column(heading.replace("_", " "), justify="right")
    for sample in found["samples"]:
        table.add_row(*(f"{value:,}" for value in sample.values()))
    Console().print(table)
    print(f"growth {found['growth']}, more descriptors {found['more_descriptors']}; {found['machine']}")


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000, help="how many (default 100000; at least 10000)")
    parser.add_argument("--need", type=float, metavar="GROWTH", help="fail where memory has grown by more, such as 1.1")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.tasks < _SAMPLES * _AT_ONCE:
        parser.error(f"--tasks must be at least {_SAMPLES * _AT_ONCE}")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = bench(options.tasks, progress)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    grown = {name: growth for name, growth in found["growth"].items() if options.need and growth > options.need}
    if grown:
        raise SystemExit(f"memory grew: {grown}, more than {options.need}")


if __name__ == "__main__":
    main()
