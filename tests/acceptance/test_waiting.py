"""Tasks that wait for a time or for each other, with real bridges: by the client, by the command, across a crash."""

import json
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from tests.acceptance.world import World

from aj_sdk import CycleError, TaskSpec, chain, chord, group
from aj_sdk.errors import UsageError
from aj_sdk.wire.names import DEPS_STREAM
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance


async def ajc(world: World, *words: str, code: int = 0) -> str:
    """Run a command of `ajc` to its end, and give what it printed."""
    process = world.crew.start("ajc", sys.executable, "-m", "aj_bridge.faces.cli.main", "ajc", *words)
    assert await process.ended() == code, process.err
    return "\n".join(process.err if code else process.out)


async def edges(world: World) -> int:
    info = await world.client.store.jetstream.stream_info(DEPS_STREAM)
    return 0 if info is None else int(info["state"]["messages"])


async def test_a_delayed_task_waits_outside_its_queue_until_its_time_or_until_it_is_told_to_run(world: World) -> None:
    bridge, handlers = world.crew.bridge("Q"), world.crew.handlers("work")
    await world.ready(bridge, handlers)
    server = ("--server", world.crew.url)
    at = datetime.now(UTC) + timedelta(seconds=world.patience(4))
    by_time = await world.client.enqueue("work", queue="Q", run_at=at, deadline=timedelta(hours=2))
    later = await world.client.enqueue("work", queue="Q", delay=3600)
    told = await ajc(world, "task", "add", "work", "{}", "--raw", "-q", "Q", "--id", "by-hand", "--in", "1h", *server)
    assert told == "Enqueued task by-hand"
    info = await world.client.admin.queue_info("Q")
    assert (info.items, info.parked) == (0, 3)
    assert by_time.state is TaskState.NEW
    # The same again leaves its time as it is.
    assert (await world.client.enqueue("work", queue="Q", id=later.id, delay=1)).state is TaskState.NEW
    await world.ended(by_time.id)
    (call,) = world.calls(by_time.id)
    assert call["at_ns"] >= int(at.timestamp() * 1e9)
    printed = await ajc(world, "task", "run-now", "by-hand", later.id, "--json", *server)
    assert [each["outcome"] for each in json.loads(printed)] == ["now", "now"]
    assert (await world.ended(later.id)).state is (await world.ended("by-hand")).state is TaskState.COMPLETE
    assert "has ended" in await ajc(world, "task", "run-now", "by-hand", *server)
    with pytest.raises(UsageError, match="the deadline lies before"):
        await world.client.enqueue("work", queue="Q", delay=60, deadline=timedelta(seconds=30))


async def test_a_graph_runs_in_its_order_and_each_step_is_woken_at_once(world: World) -> None:
    bridges = [world.crew.bridge("Q"), world.crew.bridge("Q")]
    handlers = world.crew.handlers("work")
    await world.ready(*bridges, handlers)
    slow = TaskSpec("work", {"do": "sleep", "ms": 300})
    graph = chain(
        slow, chord([slow, group(("work", None), ("work", {"do": "sleep", "ms": 800}))], ("work", {"do": "parents"}))
    )
    began = time.monotonic()
    tasks = await world.client.enqueue_graph(graph, queue="Q")
    last = await world.ended(tasks[-1].id)
    assert last.state is TaskState.COMPLETE
    # No step had to look for itself, which it would have done after 5 s.
    assert time.monotonic() - began < world.patience(4)
    first, *middle, _ = tasks
    drawn = await ajc(world, "task", "graph", middle[0].id, "--server", world.crew.url)
    assert [line.split("  ")[0].strip(" └─├│") for line in drawn.splitlines()] == [
        middle[0].id,
        first.id,
        middle[0].id,
        last.id,
    ]
    family = json.loads(await ajc(world, "task", "graph", last.id, "--json", "--server", world.crew.url))
    assert {task["id"] for task in family["tasks"]} == {task.id for task in tasks}
    assert sorted(await world.client.result(last.id)) == sorted(task.id for task in middle)
    order = [call["task"] for call in world.calls(*(task.id for task in tasks))]
    assert (order[0], order[-1], len(order)) == (first.id, last.id, 5)
    while await edges(world):
        pass


async def test_all_descendants_of_a_failed_cancelled_or_deleted_task_are_unreachable_at_once(world: World) -> None:
    bridge, handlers = world.crew.bridge("Q"), world.crew.handlers("work")
    await world.ready(bridge, handlers)
    ends = {"terminate": None, "cancel": None, "delete": None}
    for how in ends:
        payload = {"do": "terminate"} if how == "terminate" else None
        delay = 1.0 if how == "terminate" else 3600
        parent = TaskSpec("work", payload, id=how, delay=delay)
        graph = chain(parent, ("work", None), ("work", None))
        *_, last = await world.client.enqueue_graph(graph, queue="Q")
        if how == "cancel":
            await world.client.cancel(how)
        elif how == "delete":
            await world.client.admin.tasks.delete(how)
        began = time.monotonic()
        assert (await world.ended(last.id)).state is TaskState.UNREACHABLE
        assert time.monotonic() - began < world.patience(4)
    missing = await world.client.enqueue("work", queue="Q", dependencies=["nobody"])
    assert (await world.ended(missing.id)).last_err == "task dependencies failed: nobody was not found"


async def test_children_are_woken_though_the_bridge_that_ended_their_parent_dies_before_it_tells_them(
    world: World,
) -> None:
    bridge, handlers = world.crew.bridge("Q", lease="2s"), world.crew.handlers("work")
    await world.ready(bridge, handlers)
    parent = await world.client.enqueue("work", {"do": "hold"}, queue="Q")
    children = [await world.client.enqueue("work", queue="Q", dependencies=[parent]) for _ in range(3)]
    await handlers.says(f"began {parent.id} 1")
    async with world.overhear(f"CHORIA_AJ.T.{parent.id}") as saves:
        handlers.tell(f"release {parent.id} 1")
        await saves.message(lambda message: b'"complete"' in message.data)
        bridge.kill()
    again = world.crew.bridge("Q", create=False)
    await world.ready(again)
    for child in children:
        assert (await world.ended(child.id)).state is TaskState.COMPLETE


async def test_circles_are_refused_and_nothing_of_them_is_stored(world: World) -> None:
    bridge = world.crew.bridge("Q")
    await world.ready(bridge)
    client = world.client
    with pytest.raises(CycleError, match="task x depends on itself"):
        await client.enqueue("work", queue="Q", id="x", dependencies=["x"])
    waits = await client.enqueue("work", queue="Q", id="a", delay=3600, dependencies=["b"])
    with pytest.raises(CycleError, match="in a circle: "):
        await client.enqueue("work", queue="Q", id="b", dependencies=[waits])
    circle = group(TaskSpec("work", id="m", dependencies=["n"]), TaskSpec("work", id="n", dependencies=["m"]))
    with pytest.raises(CycleError):
        await client.enqueue_graph(circle, queue="Q")
    stored = [stored.task_id async for stored in client.admin.tasks.select()]
    assert stored == ["a"]


async def test_fan_in_and_fan_out_of_a_thousand(world: World) -> None:
    bridges = [world.crew.bridge("Q", "--concurrency", "100"), world.crew.bridge("Q")]
    handlers = world.crew.handlers("work")
    await world.ready(*bridges, handlers)
    many = group(*(("work", None) for _ in range(1000)))
    tasks = await world.client.enqueue_graph(chain(many, ("work", None), many), queue="Q")
    for task in tasks[1000:]:
        assert (await world.ended(task.id, seconds=120)).state is TaskState.COMPLETE
    journal = world.journal()
    ended = {line["task"]: line["at"] for line in journal if line["what"] == "ended"}
    began = {line["task"]: line["at"] for line in journal if line["what"] == "began"}
    before, gate, after = [task.id for task in tasks[:1000]], tasks[1000].id, [task.id for task in tasks[1001:]]
    fan_in = began[gate] - max(ended[name] for name in before)
    fan_out = sorted(began[name] - ended[gate] for name in after)
    print(f"fan-in {fan_in:.2f} s after the last of 1,000; fan-out first {fan_out[0]:.2f} s, last {fan_out[-1]:.2f} s")
    assert len([line for line in journal if line["what"] == "began"]) == 2001
    assert fan_in < world.patience(4)
    assert fan_out[0] < world.patience(4)
