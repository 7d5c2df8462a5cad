"""The main job in short form on older servers: 2.12, and 2.10, which has no schedules and no batched reads."""

import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from tests.acceptance.world import World, open_world
from tests.versions import OLD_VERSIONS, SCHEDULES, server_binary

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk import TaskSpec, chain
from aj_sdk.errors import CannotWaitError, TaskNotFoundError
from aj_sdk.queue import Queue
from aj_sdk.run_now import RanNow
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

SECOND_NS = 10**9


@pytest.fixture(params=OLD_VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def world(
    version: str, fresh_server: Callable[..., EmbeddedServer], tmp_path: Path, patience: Callable[[float], float]
) -> AsyncIterator[World]:
    server = fresh_server(binary=server_binary(version))
    assert server.version == version
    async with open_world(server.url, tmp_path, patience) as opened:
        yield opened


async def test_success_and_failure(world: World) -> None:
    await world.ready(world.crew.bridge("Q"), world.crew.handlers("work"))
    done = await world.client.enqueue_many([("work", {})] * 50, queue="Q")
    for task in done:
        ended = await world.ended(task.id)
        assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    async with world.overhear("CHORIA_AJ.X.>") as letters:
        terminated = await world.client.enqueue("work", {"do": "terminate", "error": "never"}, queue="Q")
        assert (await world.ended(terminated.id)).state is TaskState.TERMINATED
        assert (await letters.message()).subject == f"CHORIA_AJ.X.terminated.Q.{terminated.id}"


async def test_tasks_wait_for_a_time_and_for_each_other(world: World, version: str) -> None:
    await world.ready(world.crew.bridge("Q"), world.crew.handlers("work"))
    client = world.client
    began_ns = time.time_ns()
    first, _, last = await client.enqueue_graph(
        chain(TaskSpec("work", delay=1.5), ("work", {"do": "sleep", "ms": 100}), ("work", None)), queue="Q"
    )
    waits = await client.enqueue("work", queue="Q", delay=3600)
    info = await client.admin.queue_info("Q")
    assert (info.parked or 0) == (4 if version == SCHEDULES else 0)
    assert (await world.ended(last.id)).state is TaskState.COMPLETE
    (call,) = world.calls(first.id)
    assert call["at_ns"] - began_ns >= 1.5 * SECOND_NS
    assert (await client.admin.tasks.run_now(waits.id)).outcome is RanNow.NOW
    assert (await world.ended(waits.id)).state is TaskState.COMPLETE


async def test_a_delay_is_refused_where_a_go_worker_would_run_it_at_once(world: World, version: str) -> None:
    await world.client.admin.create_queue(Queue("GO", go_workers=True))
    if version == SCHEDULES:
        assert (await world.client.enqueue("work", queue="GO", delay=60)).state is TaskState.NEW
        return
    with pytest.raises(CannotWaitError, match="queue GO is the Go project's"):
        await world.client.enqueue("work", queue="GO", delay=60, id="never")
    with pytest.raises(TaskNotFoundError):
        await world.client.load("never")


async def test_a_failed_task_comes_back_when_its_delay_is_over(world: World, version: str) -> None:
    await world.ready(world.crew.bridge("Q"), world.crew.handlers("work"))
    acks, schedules = "$JS.ACK.CHORIA_AJ_Q_Q.WORKERS.>", "CHORIA_AJ.D.S.>"
    async with world.overhear(acks) as acknowledged, world.overhear(schedules) as scheduled:
        order = {"do": "later", "times": 2, "ms": 500, "error": "busy"}
        task = await world.client.enqueue("work", order, queue="Q")
        ended = await world.ended(task.id)
        given_back = [message for message in acknowledged.messages if message.data.startswith(b"-NAK")]
        # Where the server can schedule, the item waits outside of the queue; else it is given back with a delay.
        assert (len(scheduled.messages), len(given_back)) == ((2, 0) if version == SCHEDULES else (0, 2))
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 3)
    starts = [call["at"] for call in world.calls(task.id)]
    for earlier, later in pairwise(starts):
        assert 0.5 <= later - earlier < 0.5 + world.patience(2)


async def test_a_task_without_a_handler_waits_and_costs_no_try(world: World) -> None:
    await world.ready(world.crew.bridge("Q"))
    async with world.overhear("CHORIA_AJ.E.task_state.lonely") as events:
        await world.client.enqueue("work", {}, queue="Q", id="lonely", max_tries=1)
        await events.state("retry", count=2)
        handlers = world.crew.handlers("work")
        await world.ready(handlers)
        began = time.monotonic()
        ended = await world.ended("lonely")
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    assert time.monotonic() - began < world.patience(5)


async def test_a_blocked_task_waits_for_its_parent(world: World) -> None:
    handlers = world.crew.handlers("work")
    await world.ready(world.crew.bridge("Q"), handlers)
    parent = await world.client.enqueue("work", {"do": "hold"}, queue="Q")
    await handlers.says(f"^began {parent.id} 1$")
    child = TaskRecord(
        id="child",
        type="work",
        queue="Q",
        created_ns=time.time_ns(),
        state=TaskState.BLOCKED,
        dependencies=(parent.id,),
    )
    store = world.client.store
    async with world.overhear("$JS.ACK.CHORIA_AJ_Q_Q.WORKERS.1.2.>") as settled:
        await store.save(child, expected=0)
        await store.publish_item("Q", child.id)
        await settled.message()  # the child's item was put aside
    assert (await world.client.load("child")).state is TaskState.BLOCKED
    handlers.tell(f"release {parent.id} 1")
    ended = await world.ended("child")
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    parent_end = next(line for line in world.journal() if line["task"] == parent.id and line["what"] == "ended")
    assert parent_end["at"] < world.calls("child")[0]["at"]


async def test_a_killed_bridge_is_replaced_within_its_lease(world: World) -> None:
    handlers, bridge = world.crew.handlers("work"), world.crew.bridge("Q")
    await world.ready(handlers, bridge)
    task = await world.client.enqueue("work", {"do": "hold"}, queue="Q")
    await handlers.says(f"^began {task.id} 1$")
    await world.ready(world.crew.bridge("Q"))
    killed = time.monotonic()
    bridge.kill()
    await handlers.says(f"^began {task.id} 2$")
    assert time.monotonic() - killed < world.patience(6)
    handlers.tell(f"release {task.id} 2")
    ended = await world.ended(task.id)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)


async def test_a_queue_made_for_go_workers_serves_ours(world: World, version: str) -> None:
    # The Go project's own queues look the same: one AckWait, and as many deliveries as tries.
    await world.client.admin.ensure_task_store()
    await world.client.admin.create_queue(Queue("Q", max_run_time=timedelta(minutes=1), max_tries=2, go_workers=True))
    await world.ready(world.crew.bridge("Q", create=False))
    async with world.overhear("CHORIA_AJ.E.task_state.lonely") as events:
        # Set aside more often than the queue has deliveries.
        await world.client.enqueue("work", {"do": "later", "ms": 50}, queue="Q", id="lonely")
        await events.state("retry", count=3)
        await world.ready(world.crew.handlers("work"))
        ended = await world.ended("lonely")
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    info = await world.client.store.jetstream.consumer_info("CHORIA_AJ_Q_Q", "WORKERS")
    assert info is not None
    assert (info["config"]["ack_wait"], info["config"]["max_deliver"]) == (60 * SECOND_NS, 2)
    stream = await world.client.store.jetstream.stream_info("CHORIA_AJ_Q_Q")
    assert stream is not None
    assert bool(stream["config"].get("sources")) is (version == SCHEDULES)
