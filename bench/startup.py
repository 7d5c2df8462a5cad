"""How long it takes until work can be done: commands from their start to their end, services to being ready.

    python bench/startup.py

Medians of processes of their own, in turn, with everything compiled and in the system's cache; the first round warms up
and is not counted. `python -c pass` is what any Python program costs.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import processes
from processes import TYPE, machine, missing
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.wire.queue import QueueSettings

QUEUE = "START"
_PYTHON = "python -c pass"


def commands(server: str, peers: bool) -> dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]:
    """Return what is timed: what it is called, and a context that is entered when it is done or ready."""

    @contextlib.contextmanager
    def ended(*command: str) -> Iterator[None]:
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, timeout=60)
        yield

    found: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
        _PYTHON: lambda: ended("-c", "pass"),
        "import aj_sdk": lambda: ended("-c", "import aj_sdk"),
        "ajc --help": lambda: ended("-m", "aj_bridge.faces.cli.main", "ajc", "--help"),
        "ajc task list": lambda: ended("-m", "aj_bridge.faces.cli.main", "ajc", "--server", server, "task", "list"),
        "aj-bridge run, until ready": lambda: processes.bridge(server, QUEUE),
        "handlers in Python, until ready": lambda: processes.process([sys.executable, "-c", _program(server)], "ready"),
    }
    if peers:
        found["the Go project's worker, until ready"] = lambda: processes.go_worker(server, f"{QUEUE}GO")
    return found


def _program(server: str) -> str:
    return (
        "from aj_sdk import Services, run\n"
        "services = Services()\n"
        f"services.service({TYPE!r})(lambda task: None)\n"
        f"run(services, server={server!r}, on_ready=lambda: print('ready', flush=True))\n"
    )


def bench(rounds: int, progress: Progress) -> dict[str, Any]:
    """Run all rounds."""
    absent = missing(["go"])
    with EmbeddedServer() as server:

        async def prepare() -> None:
            async with Client.connect(server.url) as client:
                await client.admin.ensure_task_store()
                await client.admin.create_queue(QueueSettings(name=QUEUE))
                await client.admin.create_queue(QueueSettings(name=f"{QUEUE}GO", lease_ns=0))

        asyncio.run(prepare())
        timed = commands(server.url, not absent)
        spans: dict[str, list[dict[str, float]]] = {name: [] for name in timed}
        bar = progress.add_task("rounds", total=rounds + 1)
        for number in range(rounds + 1):
            for name, command in timed.items():
                began = time.perf_counter()
                with command():
                    took = time.perf_counter() - began
                if number:
                    spans[name].append({"ms": took * 1e3})
            progress.advance(bar)
        version = server.version
    figures = {name: round(processes.medians(rows)["ms"], 1) for name, rows in spans.items()}
    return {
        "ms": figures,
        "ratios": {name: round(took / figures[_PYTHON], 1) for name, took in figures.items()},
        "left_out": absent,
        "rounds": rounds,
        "machine": machine(version),
    }


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(title="from start to done or ready")
    for heading in ("what", "ms", f"it / {_PYTHON}"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, took in found["ms"].items():
        table.add_row(name, f"{took:.0f}", f"{found['ratios'][name]}")
    Console().print(table)
    for peer, why in found["left_out"].items():
        print(f"left out: {peer} ({why})")
    print(f"{found['rounds']} rounds; {found['machine']}")


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="processes of each (default 11)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = bench(options.rounds, progress)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
