"""Tasks per second of one bridge process, as ratios to other workers in the same run.

    python bench/throughput.py                                  # beside the plain loop and the floor
    python bench/throughput.py --against plain,floor,go,go-local,asynq --tasks 20000 --rounds 5
    python bench/throughput.py --payload 10000 --concurrency 500 --json
    python bench/throughput.py --matrix --tasks 2000 --rounds 3 # payloads, tasks in flight, encodings
    python bench/throughput.py --need plain=1.2 --need floor=0.3      # exit code 1 where a ratio is lower

All workers take the same number of stored tasks, in alternating rounds, on one machine with file storage; the figures
are medians, and a ratio is that of the medians. The bridge does all of its bookkeeping: leases, compare-and-set,
events, metrics, headers of protocol 1.1.

plain     the loop that one writes first on nats-py: each of the concurrent workers fetches one item
floor     the messages of the bridge, sent by a client with no logic
go        the Go project's worker v0.3.0 by its library, asking the same remote handler (needs Go)
go-local  the same with a handler in its own process
asynq     hibiken/asynq with a handler in its own process, on redis-server with its append-only file (needs Go, Redis)
taskiq    taskiq-nats with a handler in its own process, no results kept (needs the extra `bench`)
arq       arq with a handler in its own process, on Redis as above (needs the extra `bench`, Redis)

A peer that is not installed is left out by name.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from processes import HERE, TYPE, UPSTREAM, cpu, handler, machine, missing
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aj_bridge.engine.router import Encoding
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.times import NS_PER_S

PEERS = ("plain", "floor", "go", "go-local", "asynq", "taskiq", "arq")
USUAL = ("plain", "floor")
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Round:
    """One worker over one full queue."""

    server: str
    queue: str
    count: int
    concurrency: int
    payload: int
    encoding: str


async def fill(job: Round, *, for_go: bool = False) -> None:
    """Make a queue with tasks."""
    settings = QueueSettings(name=job.queue, max_concurrent=10_000, max_run_time_ns=60 * NS_PER_S)
    if for_go:
        settings = msgspec.structs.replace(settings, lease_ns=0)
    async with Client.connect(job.server) as client:
        await client.admin.create_queue(settings)
        payload = {"to": "a@example.net", "subject": "hello", "body": "x" * max(0, job.payload - 50)}
        await client.enqueue_many([(TYPE, payload)] * job.count, queue=job.queue)


def ours(worker: str, job: Round) -> dict[str, float]:
    """Run a worker of `worker.py`, which says what it took."""
    command = [sys.executable, str(HERE / "worker.py"), worker, "--server", job.server, "--queue", job.queue]
    command += ["--count", str(job.count), "--concurrency", str(job.concurrency), "--encoding", job.encoding]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=_PATIENCE_S)
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


def go(mode: str, job: Round) -> dict[str, float]:
    """Run the Go project's worker: from its first request for work to its last outcome."""
    command = [str(UPSTREAM / "bin" / "peer"), "work", "--server", job.server, "--queue", job.queue, "--quiet"]
    command += ["--concurrency", str(job.concurrency), "--until", str(job.count), "--mode", mode]
    command += ["--type", TYPE] if mode == "remote" else []
    with (
        tempfile.TemporaryFile("w+") as complaints,  # it complains of the poll that its end interrupts
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process,
    ):
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        began, before = time.perf_counter(), cpu(process.pid)
        last = {"seconds": 0.0, "cpu_seconds": 0.0}
        for _ in process.stdout:  # it prints when all is settled, and ends
            last["seconds"] = time.perf_counter() - began
            last["cpu_seconds"] = cpu(process.pid) - before
        if process.wait():
            complaints.seek(0)
            raise SystemExit(f"the Go project's worker failed with {process.returncode}:\n{complaints.read()}")
    return last


def asynq(job: Round) -> dict[str, float]:
    """Run asynq's worker on a Redis of its own."""
    with redis() as address:
        return _figures([HERE / "asynq" / "bin" / "asynq", "--redis", address], job)


def taskiq(job: Round) -> dict[str, float]:
    """Run taskiq's worker on a server of its own."""
    with EmbeddedServer() as server:
        return _figures([sys.executable, HERE / "pyqueues.py", "taskiq", "--server", server.url], job)


def arq(job: Round) -> dict[str, float]:
    """Run arq's worker on a Redis of its own."""
    with redis() as address:
        return _figures([sys.executable, HERE / "pyqueues.py", "arq", "--server", address], job)


def _figures(peer: Sequence[str | Path], job: Round) -> dict[str, float]:
    command = [*map(str, peer), "--count", str(job.count), "--concurrency", str(job.concurrency)]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=_PATIENCE_S)
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a Redis that writes its append-only file; gives its address."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
        command += ["--appendonly", "yes", "--loglevel", "warning"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                _await_port(port)
                yield f"127.0.0.1:{port}"
            finally:
                process.terminate()


def _await_port(port: int) -> None:
    ends = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > ends:
            raise SystemExit("redis-server did not start")
        time.sleep(0.05)


WORKERS: dict[str, Callable[[Round], dict[str, float]]] = {
    "bridge": lambda job: ours("bridge", job),
    "plain": lambda job: ours("plain", job),
    "floor": lambda job: ours("floor", job),
    "go": lambda job: go("remote", job),
    "go-local": lambda job: go("ok", job),
    "asynq": asynq,
    "taskiq": taskiq,
    "arq": arq,
}


ON_NATS = ("bridge", "plain", "floor", "go", "go-local")
"""Those whose tasks lie in our server."""

GO = ("go", "go-local")


def bench(peers: Sequence[str], job: Round, rounds: int, progress: Progress) -> dict[str, Any]:
    """Run all rounds."""
    absent = missing(peers)
    workers = ["bridge", *(peer for peer in peers if peer not in absent)]
    rows: dict[str, list[dict[str, float]]] = {worker: [] for worker in workers}
    bar = progress.add_task("rounds", total=rounds * len(workers))
    described = f"{job.concurrency} in flight, {job.payload} bytes, {job.encoding}"
    with EmbeddedServer() as server, handler(server.url) as handler_pid:
        for number in range(rounds):
            for worker in workers if number % 2 == 0 else reversed(workers):
                progress.update(bar, description=f"{described}, round {number + 1}: {worker}")
                this = replace(job, server=server.url, queue=f"B{number}-{worker}")
                if worker in ON_NATS:
                    asyncio.run(fill(this, for_go=worker in GO))
                beside = cpu(handler_pid), cpu(server.pid)
                figures = WORKERS[worker](this)
                spent = cpu(handler_pid) - beside[0], cpu(server.pid) - beside[1]
                rows[worker].append(
                    {
                        "tasks_per_s": job.count / figures["seconds"],
                        "cpu_us_per_task": figures["cpu_seconds"] * 1e6 / job.count,
                        "handler_cpu_us_per_task": spent[0] * 1e6 / job.count,
                        "server_cpu_us_per_task": spent[1] * 1e6 / job.count,
                    }
                )
                progress.advance(bar)
        progress.remove_task(bar)
        version = server.version
    medians = {
        worker: {name: round(statistics.median(row[name] for row in found), 1) for name in found[0]}
        for worker, found in rows.items()
    }
    us = medians["bridge"]
    return {
        "ratios": {peer: round(us["tasks_per_s"] / medians[peer]["tasks_per_s"], 2) for peer in workers[1:]},
        "cpu_ratios": {
            peer: round(us["cpu_us_per_task"] / medians[peer]["cpu_us_per_task"], 2) for peer in workers[1:]
        },
        "rounds_of_ratios": {
            peer: [
                round(mine["tasks_per_s"] / theirs["tasks_per_s"], 2)
                for mine, theirs in zip(rows["bridge"], rows[peer], strict=True)
            ]
            for peer in workers[1:]
        },
        "workers": medians,
        "left_out": absent,
        "tasks": job.count,
        "rounds": rounds,
        "concurrency": job.concurrency,
        "payload": job.payload,
        "encoding": job.encoding,
        "machine": machine(version),
    }


def cells(tasks: int) -> Iterator[Round]:
    """Give the cells of the matrix: how many tasks each has follows from how long one takes."""
    for payload, in_flight in ((100, (1, 10, 100, 500)), (10_000, (1, 10, 100, 500)), (500_000, (1, 10, 100))):
        for concurrency in in_flight:
            count = max(20, tasks // (1 if payload < 10_000 else 2 if payload < 500_000 else 50))
            count = max(20, count // 5) if concurrency == 1 else count
            for encoding in Encoding:
                yield Round("", "", count, concurrency, payload, encoding.value)


def show_matrix(found: list[dict[str, Any]]) -> None:
    """Print a row a cell."""
    table = Table(title="bridge, its ratio to peers, CPU us a task of each process")
    peers = list(found[0]["ratios"])
    parts = ("bridge", "handler", "server")
    for heading in ("bytes", "flight", "form", *(f"/ {peer}" for peer in peers), "tasks/s", *parts):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in found:
        ours = cell["workers"]["bridge"]
        table.add_row(
            str(cell["payload"]),
            str(cell["concurrency"]),
            cell["encoding"],
            *(str(cell["ratios"][peer]) for peer in peers),
            f"{ours['tasks_per_s']:.0f}",
            *(f"{ours[f'{part}cpu_us_per_task']:.0f}" for part in ("", "handler_", "server_")),
        )
    Console().print(table)
    print(f"{found[0]['rounds']} rounds each; {found[0]['machine']}")


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(title="bridge / peer, in tasks a second")
    headings = ("worker", "bridge / it", "tasks/s", "its CPU us a task", "bridge's CPU / its", "server's CPU us a task")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "worker" else "right")
    for worker, figures in found["workers"].items():
        ratio = found["ratios"].get(worker)
        table.add_row(
            worker,
            "" if ratio is None else f"{ratio}",
            f"{figures['tasks_per_s']:.0f}",
            f"{figures['cpu_us_per_task']:.0f}",
            "" if ratio is None else f"{found['cpu_ratios'][worker]}",
            f"{figures['server_cpu_us_per_task']:.0f}" if worker in ON_NATS else "",
        )
    Console().print(table)
    for peer, why in found["left_out"].items():
        print(f"left out: {peer} ({why})")
    print(
        f"{found['tasks']} tasks of {found['payload']} bytes x {found['rounds']} rounds, {found['concurrency']} in "
        f"flight; {found['machine']}"
    )


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default=",".join(USUAL), help=f"peers, of {', '.join(PEERS)}")
    parser.add_argument("--tasks", type=int, default=5000, help="tasks a round (default 5000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each worker (default 3)")
    parser.add_argument("--concurrency", type=int, default=100, help="tasks in flight (default 100)")
    parser.add_argument("--payload", type=int, default=110, help="bytes of a payload (default 110)")
    parser.add_argument(
        "--encoding",
        choices=[each.value for each in Encoding],
        default=Encoding.JSON.value,
        help="how the bridge writes tasks for their handler (default json)",
    )
    parser.add_argument(
        "--matrix",
        action="store_true",
        help="payloads of 100 B, 10 kB and 500 kB, 1 to 500 in flight, JSON and MessagePack; --tasks are of the least",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; with --matrix a list of them")
    parser.add_argument(
        "--need", action="append", default=[], metavar="PEER=RATIO", type=_need, help="fail where the ratio is lower"
    )
    options = parser.parse_args()
    needs: dict[str, float] = dict(options.need)
    peers = list(dict.fromkeys([*(peer for peer in options.against.split(",") if peer), *needs]))
    unknown = [peer for peer in peers if peer not in PEERS]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    job = Round("", "", options.tasks, options.concurrency, options.payload, options.encoding)
    if options.matrix:
        if needs:
            parser.error("--need goes with one cell, not with --matrix")
        with Progress(console=Console(stderr=True), transient=True) as progress:
            matrix = [bench(peers, cell, options.rounds, progress) for cell in cells(options.tasks)]
        if options.json:
            print(json.dumps(matrix))
        else:
            show_matrix(matrix)
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = bench(peers, job, options.rounds, progress)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    slow = [
        f"bridge / {peer} is {found['ratios'].get(peer, 'not measured')}, and should be at least {least}"
        for peer, least in needs.items()
        if found["ratios"].get(peer, 0) < least
    ]
    if slow:
        raise SystemExit("\n".join(slow))


def _need(text: str) -> tuple[str, float]:
    peer, _, least = text.partition("=")
    try:
        return peer, float(least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form plain=1.2") from None


if __name__ == "__main__":
    main()
