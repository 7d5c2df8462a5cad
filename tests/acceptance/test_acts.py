"""Acts on tasks beside real bridges: what is cancelled, taken away or started over while somebody is at work on it."""

import asyncio
import json
import sys
import time

import pytest
from tests.acceptance.processes import Process
from tests.acceptance.world import World, read_metrics

from aj_sdk.enqueue import enqueue
from aj_sdk.spec import TaskSpec
from aj_sdk.task_filter import TaskFilter
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

pytestmark = pytest.mark.acceptance


async def ajc(world: World, *words: str, code: int = 0) -> str:
    """Run a command of `ajc` to its end, and give what it printed."""
    process = world.crew.start("ajc", sys.executable, "-m", "aj_bridge.faces.cli.main", "ajc", *words)
    assert await process.ended() == code, process.err
    return "\n".join(process.err if code else process.out)


async def hold(world: World, handlers: Process, **options: object) -> str:
    """Enqueue a task that is held by its handler, and wait until it is."""
    task = await world.client.enqueue("work", {"do": "hold"}, queue="Q", **options)  # type: ignore[arg-type]
    await handlers.says(f"began {task.id} 1")
    return task.id


async def test_a_cancelled_call_frees_its_slot_at_once_and_its_reply_is_not_used(world: World, free_port: int) -> None:
    monitor = f"127.0.0.1:{free_port}"
    bridge = world.crew.bridge("Q", "--concurrency", "1", "--monitor", monitor, lease="10m")
    handlers = world.crew.handlers("work")
    await world.ready(bridge, handlers)
    held = await hold(world, handlers)
    waiting = await world.client.enqueue("work", queue="Q")
    async with world.overhear("CHORIA_AJ.E.task_state.*") as events:
        told = await ajc(world, "task", "cancel", held, "--reason", "changed my mind", "--server", world.crew.url)
        assert told == f"Cancelled task {held}"
        # Its lease is ten minutes long, so only a stopped call gives up the one slot that there is.
        await events.state("complete", task_id=waiting.id)
    assert "stopping a call" in await bridge.logs(held)
    ended = await world.client.load(held)
    assert (ended.state, ended.last_err) == (TaskState.TERMINATED, "cancelled: changed my mind")
    handlers.tell(f"release {held} 1")
    await handlers.says(f"ended {held} 1")
    assert (await world.ended((await world.client.enqueue("work", queue="Q")).id)).state is TaskState.COMPLETE
    assert await world.client.load(held) == ended
    assert await world.client.store.find_items("Q", held) == []
    assert read_metrics(f"http://{monitor}/metrics")['bridge_call_stopped_total{queue="Q"}'] == 1
    (letter,) = await world.client.admin.dead.find(held)
    assert letter.letter.detail == "cancelled: changed my mind"


async def test_who_waits_for_a_cancelled_or_deleted_task_is_unreachable_at_once(world: World) -> None:
    handlers = world.crew.handlers("work")
    await world.ready(world.crew.bridge("Q", lease="10m"), handlers)
    for act in (world.client.cancel, world.client.admin.tasks.delete):
        parent = await hold(world, handlers)
        child = TaskRecord(
            id=f"child-of-{parent}",
            type="work",
            queue="Q",
            state=TaskState.BLOCKED,
            created_ns=time.time_ns() - 10**12,  # so old that it looks once a minute only
            dependencies=(parent,),
        )
        grandchild = child.replace(id=f"grandchild-of-{parent}", dependencies=(child.id,))
        for task in (child, grandchild):
            await enqueue(world.client.store, task)
            while not await world.client.store.standing("Q", task.id):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.05)
        await act(parent)
        for task in (child, grandchild):
            assert (await world.ended(task.id, seconds=10)).state is TaskState.UNREACHABLE
        assert world.calls(child.id, grandchild.id) == []


async def test_what_waits_is_cancelled_wherever_it_waits(world: World) -> None:
    bridge, handlers = world.crew.bridge("Q"), world.crew.handlers("work")
    await world.ready(bridge, handlers)
    order = {"do": "later", "seconds": 3600, "times": 5}
    async with world.overhear("CHORIA_AJ.E.task_state.*") as events:
        parked = await world.client.enqueue("work", order, queue="Q")
        await events.state("retry", task_id=parked.id)
    nobody = await world.client.enqueue("nobody", queue="Q")
    bridge.terminate()
    assert await bridge.ended() == 0
    queued = await world.client.enqueue("work", queue="Q")
    for task in (parked, nobody, queued):
        assert (await world.client.cancel(task.id)).state is TaskState.TERMINATED
        assert await world.client.store.find_items("Q", task.id) == []
    again = world.crew.bridge("Q")
    await world.ready(again)
    assert (await world.ended((await world.client.enqueue("work", queue="Q")).id)).state is TaskState.COMPLETE
    assert [call["task"] for call in world.calls(parked.id, nobody.id, queued.id)] == [parked.id]


async def test_a_running_task_starts_over_by_force_after_its_call_was_stopped(world: World) -> None:
    bridges = [world.crew.bridge("Q", lease="10m") for _ in range(2)]
    handlers = world.crew.handlers("work")
    await world.ready(*bridges, handlers)
    held = await hold(world, handlers, max_tries=1)
    server = ("--server", world.crew.url)
    assert "cannot retry task" in await ajc(world, "task", "retry", held, *server, code=1)
    began = time.monotonic()
    assert await ajc(world, "task", "retry", held, "--force", *server) == f"Retried task {held}"
    # A new run: the same try once more, by whichever bridge; nobody waits for a lease of ten minutes.
    await handlers.says(f"began {held} 1", count=2)
    assert time.monotonic() - began < world.patience(20)
    handlers.tell(f"release {held} 1")
    assert (await world.ended(held)).state is TaskState.COMPLETE
    first, second = world.calls(held)
    assert first["invocation"] != second["invocation"]


async def test_a_retry_keeps_what_is_signed_and_a_deleted_task_is_gone_for_its_bridge(world: World) -> None:
    handlers, bridge = world.crew.handlers("work"), world.crew.bridge("Q", lease="10m")
    await world.ready(bridge, handlers)
    task = await world.client.enqueue("work", {"do": "terminate"}, queue="Q", max_tries=3)
    ended = await world.ended(task.id)
    assert ended.state is TaskState.TERMINATED
    fresh = await world.client.admin.tasks.retry(task.id)
    for kept in ("id", "queue", "type", "payload", "max_tries", "created_ns", "deadline_ns"):
        assert getattr(fresh, kept) == getattr(task, kept)
    held = await hold(world, handlers)
    await world.client.admin.tasks.delete(held)
    await bridge.logs(f"stopping a call.*{held}")
    assert (await world.ended((await world.client.enqueue("work", queue="Q")).id)).state is TaskState.COMPLETE
    assert await world.client.store.load(held) is None
    assert await world.client.store.find_items("Q", held) == []


async def test_many_tasks_are_retried_by_what_they_are_like(world: World) -> None:
    await world.ready(world.crew.bridge("Q"), world.crew.handlers("work"))
    order = {"do": "terminate"}
    failing = [TaskSpec("work", order, id=f"bad-{number}") for number in range(40)]
    await world.client.enqueue_many([*failing, TaskSpec("work", id="good")], queue="Q")
    for spec in (*failing, TaskSpec("work", id="good")):
        assert spec.id is not None
        await world.ended(spec.id)
    words = ("task", "retry", "--state", "terminated", "--queue", "Q", "-f", "--json", "--server", world.crew.url)
    retried = json.loads(await ajc(world, *words))
    assert {task["id"] for task in retried} == {spec.id for spec in failing}
    for spec in failing:
        assert spec.id is not None
        assert (await world.ended(spec.id)).tries == 1
    assert len(world.calls(*(str(spec.id) for spec in failing))) == 2 * len(failing)
    assert len(world.calls("good")) == 1
    removed = [acted async for acted in world.client.admin.tasks.delete_many(TaskFilter(queue="Q"))]
    assert len(removed) == 41
    assert not [acted for acted in removed if acted.error]
