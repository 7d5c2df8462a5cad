"""Every edge of the lifecycle table that a producer or an administrator takes, one test each; its name is the edge.

The table makes the list: a new edge without a scenario fails here. Those of bridges stand in
`tests/bridge/engine/test_edges.py`.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aj_bridge.core.lifecycle import EDGES, Edge, Event, Hand
from aj_sdk.client import Client
from aj_sdk.enqueue import enqueue
from aj_sdk.errors import QueueNotFoundError
from aj_sdk.queue import Queue
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.names import TASK_STATE_EVENTS
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

pytestmark = pytest.mark.server

THEIRS = [edge for edge in EDGES if edge.hand not in (Hand.BRIDGE, Hand.SWEEPER)]

Scenario = Callable[[Client, Edge], Awaitable[None]]


def task(state: TaskState, queue: str = "Q") -> TaskRecord:
    parents = ("parent",) if state is TaskState.BLOCKED else ()
    return TaskRecord(id="a", type="t", queue=queue, state=state, created_ns=time.time_ns(), dependencies=parents)


async def enqueued(client: Client, edge: Edge) -> None:
    wanted = task(edge.after)
    if edge.before is not None:
        await client.store.save(wanted.replace(state=edge.before), expected=0)
    await enqueue(client.store, wanted)


async def item_refused(client: Client, edge: Edge) -> None:
    assert edge.before is not None
    with pytest.raises(QueueNotFoundError):
        await enqueue(client.store, task(edge.before, queue="NOWHERE"))


async def retried(client: Client, edge: Edge) -> None:
    assert edge.before is not None
    await client.store.save(task(edge.after).replace(state=edge.before, tries=3), expected=0)
    await client.admin.tasks.retry("a")


async def forced(client: Client, edge: Edge) -> None:
    assert edge.before is not None
    await client.store.save(task(edge.after).replace(state=edge.before, tries=3), expected=0)
    await client.admin.tasks.retry("a", force=True)


async def cancelled(client: Client, edge: Edge) -> None:
    assert edge.before is not None
    await client.store.save(task(edge.before), expected=0)
    await client.cancel("a")


SCENARIOS: dict[Event, Scenario] = {
    Event.ENQUEUED: enqueued,
    Event.ITEM_REFUSED: item_refused,
    Event.RETRIED: retried,
    Event.FORCED: forced,
    Event.CANCELLED: cancelled,
}


def named(edge: Edge) -> str:
    return f"{edge.hand}-{'nothing' if edge.before is None else edge.before.value}-{edge.event}-{edge.after.value}"


@pytest.mark.parametrize("edge", THEIRS, ids=named)
async def test_a_task_is_taken_over(client: Client, edge: Edge) -> None:
    await client.admin.ensure_task_store()
    await client.admin.create_queue(Queue("Q"))
    told: list[TaskState] = []

    def note(message: Any) -> None:
        told.append(TaskStateEvent.from_wire(message.data).state)

    transport = client.store.jetstream.transport
    subscription = await transport.subscribe(TASK_STATE_EVENTS, note)
    await client.store.save(TaskRecord(id="parent", type="t", queue="Q", created_ns=1), expected=0)
    await SCENARIOS[edge.event](client, edge)
    assert (await client.load("a")).state is edge.after
    await transport.ping(5)
    await subscription.close()
    assert told[-1] is edge.after
