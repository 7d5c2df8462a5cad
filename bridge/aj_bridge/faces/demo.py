"""The main job, end to end, for a newcomer's eyes: a server, a bridge and handlers of their own processes.

Nothing is simulated: the tasks are enqueued by the SDK's client, taken by a real `aj-bridge run`, and answered by
handlers in Python, and in Go and Node where their toolchains and sources are there.
"""

import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.errors import StoreError
from aj_sdk.results import result_value
from aj_sdk.spec import TaskSpec
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_MS

__all__ = ["DemoResult", "Stage", "run_demo"]

_TYPE: Final = "email:new"
_QUEUE: Final = "EMAIL"
_FAILS_EVERY: Final = 10
_TERMINATES_EVERY: Final = 25
_RETRY_MS: Final = 200
_READY_S: Final = 20.0
_BUILD_S: Final = 300.0
_QUIET_S: Final = 60.0
_STOP_S: Final = 15.0
_TOOLS: Final = {"go": "go", "node": "npm"}


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo found.

    Attributes:
        tasks: how many were enqueued.
        states: how many ended in each state.
        retried: how many needed a second try.
        seconds: from the first enqueue to the last end.
        tasks_per_s: tasks by seconds.
        latency_ms: from a task's enqueue to its end, `p50` and `p99`, of the tasks that needed one try.
        handlers: completed tasks by the language of the handler that answered.
        missing: why a language is not there.
        wrong: what did not end as planned, empty when all did.
    """

    tasks: int
    states: dict[str, int]
    retried: int
    seconds: float
    tasks_per_s: float
    latency_ms: dict[str, float]
    handlers: dict[str, int]
    missing: dict[str, str]
    wrong: list[str]


class Stage(msgspec.Struct, frozen=True):
    """Something to show: a line, what takes a while now, or the number of tasks that have ended."""

    text: str = ""
    busy: str = ""
    ended: int | None = None


Show = Callable[[Stage], None]


async def run_demo(tasks: int, show: Show) -> DemoResult:
    """Run the demo.

    Args:
        tasks: how many tasks.
        show: called with what happens.

    Raises:
        AsyncJobsError: a part of it could not be started.
    """
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        show(Stage(f"nats-server {server.version} with JetStream on {server.url}"))
        environment = os.environ | {"AJ_SERVER": server.url, "NATS_URL": server.url, "AJ_TYPE": _TYPE}
        for name in ("AJ_CONTEXT", "CONTEXT", "AJ_CONFIG"):
            environment.pop(name, None)
        bridge = [sys.executable, "-m", "aj_bridge", "run", "--queue", _QUEUE, "--create", "--log-level", "warning"]
        await stack.enter_async_context(_process("the bridge", [*bridge, "--concurrency", "50"], environment))
        show(Stage(f"bridge of queue {_QUEUE}"))
        python = [sys.executable, "-m", "aj_bridge.faces.demo_handlers"]
        await stack.enter_async_context(_process("the Python handler", python, environment))
        show(Stage("handler in Python"))
        missing: dict[str, str] = {}
        for language in _TOOLS:
            show(Stage(busy=f"building the handler in {language.capitalize()}"))
            started = await _start_other(language, environment, stack, missing)
            show(Stage(f"handler in {language.capitalize()}" + ("" if started else f": left out, {missing[language]}")))
        client = await stack.enter_async_context(Client.connect(server.url))
        return await _drive(client, tasks, missing, show)


async def _start_other(
    language: str, environment: dict[str, str], stack: contextlib.AsyncExitStack, missing: dict[str, str]
) -> bool:
    folder = _interop() / language
    if not (folder / "run").exists():
        missing[language] = "its source comes with a checkout only"
        return False
    if shutil.which(_TOOLS[language]) is None:
        missing[language] = f"{_TOOLS[language]} is not installed"
        return False
    try:
        build = await asyncio.create_subprocess_exec(
            str(folder / "build"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await asyncio.wait_for(build.communicate(), _BUILD_S)
        if build.returncode:
            last = output.decode("utf-8", "replace").strip().splitlines()[-1:]
            missing[language] = f"its build failed: {' '.join(last) or build.returncode}"
            return False
        await stack.enter_async_context(_process(f"the {language} handler", [str(folder / "run")], environment))
    except (StoreError, TimeoutError, OSError) as err:
        missing[language] = str(err) or "its build took too long"
        return False
    return True


def _interop() -> Path:
    return Path(__file__).resolve().parents[3] / "interop"


@contextlib.asynccontextmanager
async def _process(what: str, command: list[str], environment: dict[str, str]) -> AsyncIterator[None]:
    """Run a process that says `ready` on its standard output, and end it with SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    reading: asyncio.Task[None] | None = None
    try:
        try:
            async with asyncio.timeout(_READY_S):
                while b"ready" not in (line := await process.stdout.readline()):
                    if not line:
                        raise StoreError(f"{what} ended before it was ready")
        except TimeoutError:
            raise StoreError(f"{what} was not ready within {_READY_S:.0f} s") from None
        reading = asyncio.create_task(_discard(process.stdout))
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        if reading is not None:
            await reading


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


def _plan(tasks: int) -> Iterator[tuple[TaskSpec, TaskState]]:
    for number in range(1, tasks + 1):
        payload: dict[str, Any] = {"to": f"user{number}@example.net"}
        planned = TaskState.COMPLETE
        if number % _TERMINATES_EVERY == 0:
            payload |= {"do": "terminate", "error": "no such mailbox"}
            planned = TaskState.TERMINATED
        elif number % _FAILS_EVERY == 0:
            payload |= {"do": "retry_after", "error": "mailbox is busy", "ms": _RETRY_MS}
        yield TaskSpec(_TYPE, payload), planned


async def _drive(client: Client, tasks: int, missing: dict[str, str], show: Show) -> DemoResult:
    plan = list(_plan(tasks))
    ended: dict[str, TaskRecord] = {}
    async with client.watch() as events:
        began = time.perf_counter()
        enqueued = await client.enqueue_many([spec for spec, _ in plan], queue=_QUEUE)
        waiting = {record.id for record in enqueued}
        show(Stage(f"enqueued {tasks} tasks of type {_TYPE}"))
        # Events are best effort: a pause in them is a reason to look.
        final: set[str] = set()
        while waiting - final:
            try:
                async with asyncio.timeout(1):
                    event = await anext(events)
            except TimeoutError:
                final |= await _final(client, waiting - final)
            else:
                if isinstance(event, TaskStateEvent) and event.state.final and event.task_id in waiting:
                    final.add(event.task_id)
            show(Stage(ended=len(final)))
            if time.perf_counter() - began > _QUIET_S + tasks / 100:
                break
        seconds = time.perf_counter() - began
    found = await client.store.load_many(waiting)
    ended = {task_id: stored.record for task_id, stored in found.items() if stored.record is not None}
    return _judge(plan, enqueued, ended, seconds, missing)


async def _final(client: Client, task_ids: set[str]) -> set[str]:
    found = await client.store.load_many(task_ids)
    return {stored.task_id for stored in found.values() if stored.record is not None and stored.record.state.final}


def _judge(
    plan: list[tuple[TaskSpec, TaskState]],
    enqueued: list[TaskRecord],
    ended: dict[str, TaskRecord],
    seconds: float,
    missing: dict[str, str],
) -> DemoResult:
    handlers: Counter[str] = Counter(dict.fromkeys(("python", *_TOOLS), 0))
    latencies: list[float] = []
    wrong: list[str] = []
    for (_, planned), task in zip(plan, enqueued, strict=True):
        record = ended.get(task.id)
        if record is None or record.state is not planned:
            state = "gone" if record is None else f"{record.state.value} ({record.last_err})"
            wrong.append(f"task {task.id} should be {planned.value}, is {state}")
            continue
        if record.result is not None:
            value = result_value(record.result)
            handlers[str(value.get("handler")) if isinstance(value, dict) else "unknown"] += 1
            if record.tries == 1:
                latencies.append((record.result.completed_ns - record.created_ns) / NS_PER_MS)
    cuts = statistics.quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else latencies * 99
    return DemoResult(
        tasks=len(plan),
        states=dict(sorted(Counter(record.state.value for record in ended.values()).items())),
        retried=sum(record.tries > 1 for record in ended.values()),
        seconds=round(seconds, 3),
        tasks_per_s=round(len(plan) / seconds, 1),
        latency_ms={"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)} if cuts else {},
        handlers=dict(handlers),
        missing=missing,
        wrong=wrong,
    )
