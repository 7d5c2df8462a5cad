"""Tasks enqueued in a second by one process, beside bare publishes of the same messages and the Go project's client.

    python bench/enqueue.py
    python bench/enqueue.py --tasks 20000 --rounds 5 --against bare,nats-py,go --json
    python bench/enqueue.py --need bare=0.7 --need go=1.0      # exit code 1 where a ratio is lower

All store the same number of tasks of the same size into queues on one machine with file storage, in alternating rounds;
the figures are medians, and a ratio is that of the medians.

bare     the messages of `enqueue_many` - record, item, event - over its own transport with no logic: no task waits for
         its record before its item goes
nats-py  the same two acknowledged publishes by nats-py's `publish_async`, and the event
go       the Go project's client v0.3.0 with 50 goroutines (needs Go)

A peer that is not installed is left out by name.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import nats
import uvloop
from processes import TYPE, UPSTREAM, cpu, machine, medians, missing
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.fast import open_transport
from aj_sdk.ids import new_id
from aj_sdk.jetstream import EXPECTED_LAST_SUBJECT_SEQUENCE, JetStream
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.item import WorkItem
from aj_sdk.wire.names import item_subject, task_event_subject, task_subject
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

PEERS = ("bare", "nats-py", "go")
IN_FLIGHT = 256
GOROUTINES = 50
_NEW = {EXPECTED_LAST_SUBJECT_SEQUENCE: "0"}
_PATIENCE_S = 600.0


Figures: TypeAlias = dict[str, float]


@contextlib.contextmanager
def clocks() -> Iterator[Figures]:
    """Give the seconds, and those of CPU, that this process spent in the context, once it is left."""
    figures: Figures = {}
    began, spent = time.perf_counter(), time.process_time()
    yield figures
    figures["seconds"] = time.perf_counter() - began
    figures["cpu_seconds"] = time.process_time() - spent


def payload_of(size: int) -> dict[str, str]:
    """Return what each task carries."""
    return {"to": "a@example.net", "subject": "hello", "body": "x" * max(0, size - 50)}


async def many(server: str, queue: str, count: int, size: int) -> Figures:
    """Enqueue with our client."""
    async with Client.connect(server) as client:
        tasks = [(TYPE, payload_of(size))] * count
        with clocks() as figures:
            await client.enqueue_many(tasks, queue=queue, concurrency=IN_FLIGHT)
    return figures


def _messages(queue: str, count: int, size: int) -> list[tuple[str, bytes, str, bytes, str, bytes]]:
    # Made before the clock runs: a bare publish makes nothing.
    body = json.dumps(payload_of(size)).encode()
    made = []
    for _ in range(count):
        record = TaskRecord(id=new_id(), type=TYPE, queue=queue, payload=body, created_ns=time.time_ns())
        event = TaskStateEvent.of(record, new_id(), time.time_ns()).to_wire()
        item = WorkItem(record.id).to_wire()
        subjects = task_subject(record.id), item_subject(queue, record.id), task_event_subject(record.id)
        made.append((subjects[0], record.to_wire(), subjects[1], item, subjects[2], event))
    return made


async def bare(server: str, queue: str, count: int, size: int) -> Figures:
    """Publish the messages over our transport."""
    connection = await nats.connect(server, pending_size=8 << 20, skip_subject_validation=True)
    messages = iter(_messages(queue, count, size))
    async with open_transport(connection) as transport:
        jetstream = JetStream(transport)

        async def work() -> None:
            for record_subject, record, subject, item, event_subject, event in messages:
                saving = asyncio.ensure_future(jetstream.publish(record_subject, record, _NEW))
                await jetstream.publish(subject, item, _NEW)
                await transport.publish(event_subject, event)
                await saving

        with clocks() as figures:
            await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    await connection.close()
    return figures


async def nats_py(server: str, queue: str, count: int, size: int) -> Figures:
    """Publish the messages with nats-py's own pipelining."""
    connection = await nats.connect(server)
    js = connection.jetstream(publish_async_max_pending=2 * IN_FLIGHT)
    messages = _messages(queue, count, size)
    acks = []
    with clocks() as figures:
        for record_subject, record, subject, item, event_subject, event in messages:
            acks.append(await js.publish_async(record_subject, record, headers=dict(_NEW), wait_stall=_PATIENCE_S))
            acks.append(await js.publish_async(subject, item, headers=dict(_NEW), wait_stall=_PATIENCE_S))
            await connection.publish(event_subject, event)
        await asyncio.gather(*acks)
    await connection.close()
    return figures


OURS: dict[str, Callable[[str, str, int, int], Coroutine[Any, Any, Figures]]] = {
    "many": many,
    "bare": bare,
    "nats-py": nats_py,
}


def run(kind: str, server: str, queue: str, count: int, size: int) -> Figures:
    """Enqueue in a process of its own."""
    if kind == "go":
        command = [str(UPSTREAM / "bin" / "peer"), "enqueue", "--server", server, "--queue", queue, "--type", TYPE]
        command += ["--payload", json.dumps(payload_of(size)), "--count", str(count)]
        command += ["--at-once", str(GOROUTINES), "--quiet"]
    else:
        command = [sys.executable, str(Path(__file__)), "--be", kind, "--server", server, "--queue", queue]
        command += ["--tasks", str(count), "--payload", str(size)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=_PATIENCE_S)
    figures: Figures = json.loads(done.stdout)
    if "cpu_seconds" not in figures:  # Go's runtime does not tell; its start is short
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures["cpu_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return figures


def bench(peers: list[str], options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Run all rounds."""
    absent = missing(peers)
    kinds = ["many", *(peer for peer in peers if peer not in absent)]
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    bar = progress.add_task("rounds", total=options.rounds * len(kinds))
    with EmbeddedServer() as server:
        for number in range(options.rounds):
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                progress.update(bar, description=f"round {number + 1}: {kind}")
                queue = f"E{number}-{kind}"
                asyncio.run(_make_queue(server.url, queue))
                beside = cpu(server.pid)
                spent = run(kind, server.url, queue, options.tasks, options.payload)
                asyncio.run(_check(server.url, queue, options.tasks))
                rows[kind].append(
                    {
                        "tasks_per_s": options.tasks / spent["seconds"],
                        "cpu_us_per_task": spent["cpu_seconds"] * 1e6 / options.tasks,
                        "server_cpu_us_per_task": (cpu(server.pid) - beside) * 1e6 / options.tasks,
                    }
                )
                progress.advance(bar)
        version = server.version
    figures = {kind: {name: round(value, 1) for name, value in medians(found).items()} for kind, found in rows.items()}
    ours = figures["many"]["tasks_per_s"]
    return {
        "ratios": {kind: round(ours / found["tasks_per_s"], 2) for kind, found in figures.items() if kind != "many"},
        "producers": figures,
        "left_out": absent,
        "tasks": options.tasks,
        "rounds": options.rounds,
        "payload": options.payload,
        "machine": machine(version),
    }


async def _make_queue(server: str, queue: str) -> None:
    async with Client.connect(server) as client:
        await client.admin.ensure_task_store()
        await client.admin.create_queue(QueueSettings(name=queue, max_concurrent=100, max_run_time_ns=60 * NS_PER_S))


async def _check(server: str, queue: str, count: int) -> None:
    async with Client.connect(server) as client:
        held = (await client.admin.queue_info(queue)).items
        if held != count:
            raise SystemExit(f"queue {queue} holds {held} items instead of {count}")


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(title="enqueue_many / peer, in tasks a second")
    headings = ("producer", "enqueue_many / it", "tasks/s", "its CPU us a task", "server's CPU us a task")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "producer" else "right")
    for kind, figures in found["producers"].items():
        table.add_row(
            "enqueue_many" if kind == "many" else kind,
            str(found["ratios"].get(kind, "")),
            f"{figures['tasks_per_s']:.0f}",
            f"{figures['cpu_us_per_task']:.0f}",
            f"{figures['server_cpu_us_per_task']:.0f}",
        )
    Console().print(table)
    for peer, why in found["left_out"].items():
        print(f"left out: {peer} ({why})")
    print(f"{found['tasks']} tasks of {found['payload']} bytes x {found['rounds']} rounds; {found['machine']}")


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="bare", help=f"peers, of {', '.join(PEERS)} (default bare)")
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks a round (default 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each producer (default 3)")
    parser.add_argument("--payload", type=int, default=110, help="bytes of a payload (default 110)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--need", action="append", default=[], metavar="PEER=RATIO", help="fail where it is lower")
    parser.add_argument("--be", choices=OURS, help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--queue", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be:
        print(json.dumps(uvloop.run(OURS[options.be](options.server, options.queue, options.tasks, options.payload))))
        return
    needs = {}
    for text in options.need:
        peer, _, least = text.partition("=")
        try:
            needs[peer] = float(least)
        except ValueError:
            parser.error(f"{text!r} is not of the form bare=0.7")
    peers = list(dict.fromkeys([*(peer for peer in options.against.split(",") if peer), *needs]))
    unknown = [peer for peer in peers if peer not in PEERS]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = bench(peers, options, progress)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    slow = [
        f"enqueue_many / {peer} is {found['ratios'].get(peer, 'not measured')}, and should be at least {least}"
        for peer, least in needs.items()
        if found["ratios"].get(peer, 0) < least
    ]
    if slow:
        raise SystemExit("\n".join(slow))


if __name__ == "__main__":
    main()
