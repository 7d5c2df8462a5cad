"""What a sweep costs: how fast a new leader reads a store of N tasks, and what it does to those who save meanwhile.

Fills a server of its own with finished tasks and a few unfinished ones, then measures saves alone, and saves while the
sweeper makes its first scan. Prints figures and ratios; `bench/README.md` says how to read them.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import nats

from aj_bridge.core.deliver import Holder
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.meter import NoMeter
from aj_bridge.engine.sweeper import Sweeper
from aj_bridge.faces.embedded import EmbeddedServer
from aj_bridge.storage.jetstream.survey import open_survey
from aj_sdk.admin import Admin
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.transport import NatsTransport
from aj_sdk.wire.names import task_subject
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

_AT_ONCE: Final = 500
_EACH_UNFINISHED: Final = 100
_ALONE_S: Final = 5.0
_PAUSE_S: Final = 0.005
_TICKS_PER_S: Final = 100


class _Leader:
    leads = True


class _Nobody:
    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        del owner, task_id, item
        return Holder.SILENT


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000, help="tasks in the store (100000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--save", nargs=2, metavar=("URL", "TASK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.save:
        asyncio.run(_save(*options.save))
        return
    figures = asyncio.run(_measure(options.tasks))
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:32} {value:>12,.3f}" for name, value in figures.items()))


async def _measure(tasks: int) -> dict[str, float]:
    with EmbeddedServer() as server:
        connection = await nats.connect(server.url)
        try:
            async with NatsTransport(connection) as transport:
                jetstream = JetStream(transport)
                await _fill(jetstream, tasks)
                return await _compare(server, jetstream, tasks)
        finally:
            await connection.close()


async def _fill(jetstream: JetStream, tasks: int) -> None:
    store = Store(jetstream)
    admin = Admin(jetstream, store)
    await admin.ensure_task_store()
    await admin.create_queue(QueueSettings(name="Q"))

    async def put(number: int) -> None:
        state = TaskState.COMPLETE if number % _EACH_UNFINISHED else TaskState.NEW
        record = TaskRecord(id=f"t{number}", type="bench", queue="Q", state=state, created_ns=1, payload=b"x" * 100)
        await jetstream.publish(task_subject(record.id), record.to_wire())
        if state is TaskState.NEW:
            await store.publish_item("Q", record.id)

    for start in range(0, tasks, _AT_ONCE):
        await asyncio.gather(*(put(number) for number in range(start, min(start + _AT_ONCE, tasks))))


async def _compare(server: EmbeddedServer, jetstream: JetStream, tasks: int) -> dict[str, float]:
    alone = await _saves(server.url, "alone", asyncio.create_task(asyncio.sleep(_ALONE_S)))
    async with open_survey(jetstream) as survey:
        sweeper = Sweeper(survey, _Nobody(), _Leader(), NoMeter(), Clock(), watched=max(20_000, tasks))
        cpu, began = _cpu_s(server.pid), time.monotonic()
        sweeping = asyncio.create_task(_timed(sweeper))
        during = await _saves(server.url, "during", sweeping)
        cpu = (_cpu_s(server.pid) - cpu) / (time.monotonic() - began)
        first, second = await sweeping, await _timed(sweeper)
    return {
        "tasks": tasks,
        "first sweep, s": first,
        "records/s": tasks / first,
        "server CPU, share of a core": cpu,
        "next sweep, s": second,
        "save p50 alone, ms": _at(alone, 0.5),
        "save p50 during, ms": _at(during, 0.5),
        "save p99 alone, ms": _at(alone, 0.99),
        "save p99 during, ms": _at(during, 0.99),
        "save max alone, ms": max(alone) * 1000,
        "save max during, ms": max(during) * 1000,
        "p50 ratio": _at(during, 0.5) / _at(alone, 0.5),
        "p99 ratio": _at(during, 0.99) / _at(alone, 0.99),
    }


async def _timed(sweeper: Sweeper) -> float:
    began = time.monotonic()
    await sweeper.sweep()
    return time.monotonic() - began


async def _saves(url: str, task_id: str, until: "asyncio.Task[Any]") -> list[float]:
    """Save in a process of its own, so that only the server is shared, until something is over."""
    saver = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--save", url, task_id, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    await until
    spans: list[float] = json.loads((await saver.communicate(b"stop"))[0])
    return spans


async def _save(url: str, task_id: str) -> None:
    record = TaskRecord(id=task_id, type="bench", queue="Q", state=TaskState.COMPLETE, created_ns=1)
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


def _at(spans: list[float], share: float) -> float:
    return sorted(spans)[min(int(len(spans) * share), len(spans) - 1)] * 1000


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


if __name__ == "__main__":
    main()
