"""Cases in which a real bridge decides what an answer means."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

from aj_bridge.core.retry import RetryPolicy
from aj_bridge.engine.bridge import Bridge, BridgeOptions, ServedQueue
from aj_bridge.faces.conformance.cases import Broken, Group, Level
from aj_bridge.faces.conformance.claims import says
from aj_bridge.faces.conformance.stand import Stand
from aj_sdk.client import Client
from aj_sdk.errors import TaskNotFoundError
from aj_sdk.fast import open_transport
from aj_sdk.jetstream import JetStream
from aj_sdk.queue import Queue
from aj_sdk.results import result_value
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = ["GROUP"]

GROUP: Final = Group()
case = GROUP.case
_QUEUE: Final = "CONFORMANCE"
_RUN_TIME: Final = timedelta(seconds=3)
_TOO_LARGE: Final = 900_000
_AGAIN: Final = RetryPolicy((timedelta(milliseconds=50),), 0.1)
_POLL_S: Final = 0.03


@contextlib.asynccontextmanager
async def _bridge(stand: Stand) -> AsyncIterator[Client]:
    """Run a bridge, and give a client to enqueue with."""
    async with Client.connect(stand.server.url) as client, open_transport(stand.nc, fast=False) as transport:
        await client.admin.ensure_task_store()
        await client.admin.create_queue(Queue(_QUEUE, max_run_time=_RUN_TIME))
        options = BridgeOptions(queues=(ServedQueue(name=_QUEUE),), policy=_AGAIN, grace_s=0.5)
        bridge = Bridge(JetStream(transport), options)
        running = asyncio.create_task(bridge.run())
        try:
            yield client
        finally:
            bridge.stop()
            await running


async def _until(stand: Stand, client: Client, task: TaskRecord, *states: TaskState) -> TaskRecord:
    deadline = time.monotonic() + 10 * stand.patience
    record = task
    while time.monotonic() < deadline:
        with contextlib.suppress(TaskNotFoundError):
            record = await client.load(task.id)
        if record.state in states:
            return record
        await asyncio.sleep(_POLL_S)
    wanted = " or ".join(state.value for state in states)
    raise Broken(f"a task that becomes {wanted} within 10 s", _shown(record))


def _shown(record: TaskRecord) -> str:
    told = f", last_err {record.last_err!r}" if record.last_err else ""
    return f"state {record.state.value} after {record.tries} tries{told}"


async def _ended(stand: Stand, task_type: str, order: dict[str, Any]) -> TaskRecord:
    async with _bridge(stand) as client:
        task = await client.enqueue(task_type, order, queue=_QUEUE, max_tries=3)
        final = [state for state in TaskState if state.final]
        return await _until(stand, client, task, *final)


@case("bridge-complete", Level.MUST, "3-the-reply", "makes a bridge complete the task, with its reply as the result")
async def _complete(stand: Stand) -> None:
    await stand.shared()
    record = await _ended(stand, stand.type, {"do": "echo", "text": "dépassé ☃"})
    says(record.state is TaskState.COMPLETE, "state complete", _shown(record))
    assert record.result is not None
    value = result_value(record.result)
    says(value == {"do": "echo", "text": "dépassé ☃"}, "the payload as its result", repr(value)[:200])


@case("bridge-redelivery", Level.MUST, "6-more-than-once", "takes a task that failed once again, and completes it")
async def _redelivery(stand: Stand) -> None:
    await stand.shared()
    record = await _ended(stand, stand.type, {"do": "fail_once", "error": "busy"})
    says((record.state, record.tries) == (TaskState.COMPLETE, 2), "state complete after 2 tries", _shown(record))


@case("bridge-terminate", Level.MUST, "3-the-reply", "ends a task for good, with its text as the last error")
async def _terminate(stand: Stand) -> None:
    await stand.shared()
    record = await _ended(stand, stand.type, {"do": "terminate", "error": "no such address"})
    says(record.state is TaskState.TERMINATED, "state terminated", _shown(record))
    says(record.last_err == "no such address", "last_err 'no such address'", _shown(record))


@case(
    "bridge-result-900-kb", Level.MUST, "3-the-reply", "has a result of 900,000 bytes refused for good, with the reason"
)
async def _too_large(stand: Stand) -> None:
    await stand.shared()
    record = await _ended(stand, stand.type, {"do": "big", "bytes": _TOO_LARGE})
    says(record.state is TaskState.TERMINATED, "state terminated", _shown(record))
    says(record.tries == 1, "1 try", _shown(record))
    says("byte" in record.last_err or "large" in record.last_err, "a last_err about the size", _shown(record))


@case("bridge-crash", Level.MUST, "6-more-than-once", "dies with a task in hand, which is tried again")
async def _crash(stand: Stand) -> None:
    process = await stand.start("conformance:dies")
    async with _bridge(stand) as client:
        task = await client.enqueue("conformance:dies", {"do": "crash"}, queue=_QUEUE, max_tries=3)
        says(await process.ended(5 * stand.patience) is not None, "the process has ended", "it runs on")
        record = await _until(stand, client, task, TaskState.RETRY, TaskState.COMPLETE, TaskState.TERMINATED)
        says(record.state is TaskState.RETRY, "state retry", _shown(record))
        says(record.last_err.startswith("no reply"), "last_err 'no reply ...'", _shown(record))
