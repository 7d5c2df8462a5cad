"""Cases about producers: a command is told a task on standard input, enqueues it, and what is stored is looked at."""

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any, Final

from aj_bridge.faces.conformance.cases import Broken, Group, Level
from aj_bridge.faces.conformance.claims import says
from aj_bridge.faces.conformance.stand import Stand
from aj_sdk.client import Client
from aj_sdk.errors import DecodeError, UsageError
from aj_sdk.fast import open_transport
from aj_sdk.ids import new_id
from aj_sdk.jetstream import JetStream
from aj_sdk.queue import Queue
from aj_sdk.wire.item import WorkItem
from aj_sdk.wire.names import TASKS_STREAM, item_subject, queue_stream, task_subject
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = ["GROUP"]

GROUP: Final = Group()
case = GROUP.case
_TASKS: Final = "9-tasks"
_ITEMS: Final = "10-enqueueing"
_QUEUE: Final = "CONFORMANCE"
_TYPE: Final = "email:new"
_RUN_S: Final = 30.0
_SHOWN: Final = 300
_DEADLINE: Final = "2999-02-28T23:59:59.123456789Z"
_DEADLINE_NS: Final = 32477241599123456789


class _Stored:
    """What a producer stored.

    Args:
        body: the record's bytes.
        record: what they say.
        items: the bodies of the items that stand in the queue.
    """

    def __init__(self, body: bytes, record: TaskRecord, items: list[bytes]) -> None:
        self.body = body
        self.record = record
        self.items = items


@contextlib.asynccontextmanager
async def _jetstream(stand: Stand) -> AsyncIterator[JetStream]:
    async with Client.connect(stand.server.url) as client, open_transport(stand.nc, fast=False) as transport:
        await client.admin.ensure_task_store()
        await client.admin.create_queue(Queue(_QUEUE))
        yield JetStream(transport)


async def _run(stand: Stand, order: dict[str, Any]) -> int:
    """Run the producer once, and return its exit code; what it says is kept with the case."""
    told = json.dumps(order, ensure_ascii=False).encode()
    stand.note(sent=True, subject="standard input", headers=None, body=told)
    try:
        process = await asyncio.create_subprocess_exec(
            *stand.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "NATS_URL": stand.server.url},
        )
    except OSError as err:
        raise UsageError(f"cannot start {stand.command[0]!r}: {err.strerror}") from err
    try:
        async with asyncio.timeout(_RUN_S * stand.patience):
            said, _ = await process.communicate(told)
    except TimeoutError:
        raise Broken(f"a producer that ends within {_RUN_S:g} s", "it runs on") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = process.returncode or 0
    stand.note(sent=False, subject=f"exit code {code}", headers=None, body=said[-_SHOWN:])
    return code


async def _produce(stand: Stand, *, times: int = 1, **task: Any) -> _Stored:
    """Have a task enqueued, and return what is stored of it."""
    payload = task.pop("payload", b'{"to":"a@example.net"}')
    encoded = None if payload is None else base64.b64encode(payload).decode()
    order = {"id": new_id(), "type": _TYPE, "queue": _QUEUE, "payload_base64": encoded, **task}
    async with _jetstream(stand) as jetstream:
        codes = [await _run(stand, order) for _ in range(times)]
        says(codes[0] == 0, "exit code 0", f"exit code {codes[0]}")
        found = await jetstream.last(TASKS_STREAM, task_subject(order["id"]))
        if found is None:
            raise Broken(f"a record on {task_subject(order['id'])}", "there is none")
        stand.note(sent=False, subject=task_subject(order["id"]), headers=None, body=found.data)
        place = item_subject(_QUEUE, order["id"])
        items = [message.data async for message in jetstream.scan(queue_stream(_QUEUE), place)]
    try:
        record = TaskRecord.from_wire(found.data)
    except DecodeError as err:
        raise Broken("a record that can be read", str(err)) from None
    wanted = (order["id"], order["type"], order["queue"])
    seen = (record.id, record.type, record.queue)
    says(seen == wanted, f"id, type and queue {wanted}", str(seen))
    return _Stored(found.data, record, items)


async def _payload(stand: Stand, payload: bytes | None) -> None:
    stored = await _produce(stand, payload=payload)
    says((stored.record.payload or None) == (payload or None), f"the payload {payload!r}", repr(stored.record.payload))


@case("producer-record", Level.MUST, _TASKS, "stores a record in state new, not tried yet")
async def _record(stand: Stand) -> None:
    record = (await _produce(stand)).record
    says((record.state, record.tries) == (TaskState.NEW, 0), "state new, 0 tries", f"{record.state}, {record.tries}")


@case("producer-item", Level.MUST, _ITEMS, "puts one work item into the queue, which names the task")
async def _item(stand: Stand) -> None:
    stored = await _produce(stand)
    says(len(stored.items) == 1, "one item", f"{len(stored.items)} items")
    try:
        item = WorkItem.from_wire(stored.items[0])
    except DecodeError as err:
        raise Broken("a work item that can be read", str(err)) from None
    says(item.task_id == stored.record.id, f"job {stored.record.id}", repr(item.task_id))


@case("producer-payload", Level.MUST, _TASKS, "stores the payload's bytes as they are")
async def _payload_text(stand: Stand) -> None:
    await _payload(stand, ' {"text": "dépassé ☃ 😀"}\n'.encode())


@case("producer-payload-not-utf8", Level.MUST, _TASKS, "stores a payload of any bytes")
async def _payload_bytes(stand: Stand) -> None:
    await _payload(stand, bytes(range(256)))


@case("producer-payload-none", Level.MUST, _TASKS, "stores a task without a payload")
async def _payload_none(stand: Stand) -> None:
    await _payload(stand, None)


@case("producer-max-tries", Level.MUST, _TASKS, "stores how often the task may be tried")
async def _max_tries(stand: Stand) -> None:
    record = (await _produce(stand, max_tries=7)).record
    says(record.max_tries == 7, "max_tries 7", str(record.max_tries))


@case("producer-deadline", Level.MUST, _TASKS, "stores the deadline to the nanosecond")
async def _deadline(stand: Stand) -> None:
    record = (await _produce(stand, deadline=_DEADLINE)).record
    says(record.deadline_ns == _DEADLINE_NS, f"deadline {_DEADLINE}", str(record.deadline_ns))


@case("producer-dependencies", Level.MUST, _TASKS, "stores a task that waits for others as blocked")
async def _dependencies(stand: Stand) -> None:
    parents = [new_id(), new_id()]
    record = (await _produce(stand, dependencies=parents)).record
    says(list(record.dependencies) == parents, f"dependencies {parents}", str(list(record.dependencies)))
    says(record.state is TaskState.BLOCKED, "state blocked", record.state.value)


@case("producer-utc", Level.SHOULD, _TASKS, "writes times in UTC with a Z")
async def _utc(stand: Stand) -> None:
    created = str(json.loads((await _produce(stand)).body).get("created"))
    says(created.endswith("Z"), "created ... Z", created)


@case("producer-twice", Level.MUST, _TASKS, "makes one task of an id, also when it is asked twice")
async def _twice(stand: Stand) -> None:
    stored = await _produce(stand, times=2)
    says(len(stored.items) == 1, "one item", f"{len(stored.items)} items")
