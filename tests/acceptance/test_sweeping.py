"""What is wrong in a store, made by hand, under a running bridge: each case is set right, with a reason, and counted.

The bridge leads at once, as the ballot's term is short here; its sweeps are a second apart.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tests.acceptance.processes import Process
from tests.acceptance.world import World, open_world, read_metrics

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.buckets import Bucket
from aj_sdk.queue import Queue
from aj_sdk.wire.dead import DeadReason
from aj_sdk.wire.names import (
    DELAYED_STREAM,
    DEPS_STREAM,
    ELECTIONS_BUCKET,
    TASKS_STREAM,
    edge_subject,
    item_subject,
    queue_stream,
    schedule_subject,
    task_subject,
)
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

pytestmark = pytest.mark.acceptance

SWEEPS: Final = ("--sweep-every", "1s")
TERM_S: Final = 2.0


@pytest.fixture
async def world(
    clean_server: EmbeddedServer, tmp_path: Path, patience: Callable[[float], float]
) -> AsyncIterator[World]:
    async with open_world(clean_server.url, tmp_path, patience) as opened:
        store = opened.client.store
        await opened.client.admin.ensure_task_store()
        await Bucket(store.jetstream, ELECTIONS_BUCKET).ensure(max_age_ns=int(TERM_S * NS_PER_S))
        yield opened


def task(task_id: str, state: TaskState, queue: str = "Q", **fields: Any) -> TaskRecord:
    return TaskRecord(id=task_id, type="work", queue=queue, state=state, created_ns=1, payload=b"{}", **fields)


async def remove(world: World, stream: str, subject: str) -> bool:
    """Delete a message by hand; returns whether there was one."""
    jetstream = world.client.store.jetstream
    message = (
        (await jetstream.last_many(stream, [subject])).get(subject) if await jetstream.stream_info(stream) else None
    )
    return message is not None and await jetstream.delete_standing(stream, subject, message.sequence)


async def until(world: World, what: str, holds: Callable[[], Any], seconds: float = 30.0) -> None:
    """Ask again and again whether something holds, where nobody tells of it."""
    try:
        async with asyncio.timeout(world.patience(seconds)):
            while not await holds():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"not so after {world.patience(seconds)} s: {what}")


async def left_in(world: World, stream: str) -> int:
    info = await world.client.store.jetstream.stream_info(stream)
    return 0 if info is None else int(info["state"]["messages"])


async def test_each_thing_that_is_wrong_is_set_right_and_counted(world: World, free_port: int) -> None:
    client, store, admin = world.client, world.client.store, world.client.admin
    bridge = world.crew.bridge("Q", *SWEEPS, "--monitor", f"127.0.0.1:{free_port}")
    await world.ready(bridge, world.crew.handlers("work"))
    await admin.create_queue(Queue("IDLE"))
    # Tasks that wait by a schedule, which somebody deletes.
    for task_id in ("delayed", "parent", "unmade"):
        await client.enqueue("work", {}, queue="Q", id=task_id, delay=timedelta(hours=1))
    async with world.overhear("CHORIA_AJ.E.task_state.*") as events:
        await client.enqueue("work", {}, queue="Q", id="child", dependencies=["parent"])
        await events.state("blocked", task_id="child")
    await until(world, "the child waits", lambda: store.standing("Q", "child"))
    assert await remove(world, DELAYED_STREAM, schedule_subject("Q", "child"))
    assert await remove(world, DELAYED_STREAM, schedule_subject("Q", "delayed"))
    # A task without an item, one that runs nowhere, one without a queue, an item without a task, an unreadable record.
    await store.save(task("lost", TaskState.NEW), expected=0)
    await store.save(task("nowhere", TaskState.ACTIVE, tries=1), expected=0, stamp=Stamp("gone", ItemRef(7, 1)))
    await store.save(task("queueless", TaskState.RETRY, "GONE", tries=1, last_err="boom"), expected=0)
    await store.publish_item("IDLE", "nothing")
    await store.jetstream.publish(task_subject("broken"), b'{"id":"broken","type":"work","queue":"Q","created":7}')
    # An edge by which nobody waits.
    await store.dependents.tie(task("stranger", TaskState.BLOCKED), ["parent"])

    assert (await world.ended("lost")).state is TaskState.COMPLETE
    assert (await world.ended("delayed")).state is TaskState.COMPLETE
    ran = await world.ended("nowhere")
    assert (ran.state, ran.tries) == (TaskState.COMPLETE, 2)
    ended = await world.ended("queueless")
    assert (ended.state, ended.last_err) == (TaskState.QUEUE_ERROR, "there is no queue GONE; before: boom")
    await until(world, "the child waits again", lambda: store.standing("Q", "child"))
    letters = {}

    async def buried() -> bool:
        letters.update({found.letter.task_id: found.letter async for found in admin.dead.letters()})
        return {"nothing", "broken"} <= letters.keys()

    await until(world, "both have a dead letter", buried)
    assert {letter.reason for letter in letters.values()} == {DeadReason.QUARANTINED}
    assert letters["nothing"].detail == "task not found"
    assert "created" in letters["broken"].detail
    assert await left_in(world, queue_stream("IDLE")) == 0

    async def edges() -> bool:
        return [found.edge.child for found in await store.edges.leaving("parent")] == ["child"]

    await until(world, "only the child waits for its parent", edges)
    # What ends without a word ends those that wait for it.
    stored = await store.load("parent")
    assert stored is not None
    await store.save(stored.readable().replace(state=TaskState.EXPIRED), expected=stored.sequence)
    assert (await world.ended("child")).state is TaskState.UNREACHABLE
    metrics = await asyncio.to_thread(read_metrics, f"http://127.0.0.1:{free_port}/metrics")
    swept = {name: value for name, value in metrics.items() if "swept" in name}
    assert swept == {
        'bridge_swept_total{queue="GONE",why="its queue is gone"}': 1,
        'bridge_swept_total{queue="IDLE",why="task not found"}': 1,
        'bridge_swept_total{queue="Q",why="a record that can\'t be read"}': 1,
        'bridge_swept_total{queue="Q",why="no item and no schedule"}': 4,
        'bridge_swept_total{queue="Q",why="the end of a parent was not told"}': 1,
        'bridge_swept_total{queue="Q",why="who waited by it is gone"}': 1,
    }
    assert (await client.load("unmade")).state is TaskState.NEW
    # The next leader finds nothing to do.
    bridge.terminate()
    await bridge.ended()
    second = world.crew.bridge("Q", *SWEEPS, "--monitor", f"127.0.0.1:{free_port}")
    await world.ready(second)

    async def looked() -> bool:
        found = await asyncio.to_thread(read_metrics, f"http://127.0.0.1:{free_port}/metrics")
        return found.get("bridge_sweep_scanned_total", 0) >= 8 and found.get("bridge_sweep_seconds", 0) > 0

    await until(world, "the second has read all", looked)
    await asyncio.sleep(2.5)  # two more sweeps, in which nothing is to happen: there is nothing to wait for
    metrics = await asyncio.to_thread(read_metrics, f"http://127.0.0.1:{free_port}/metrics")
    assert not [name for name in metrics if name.startswith("bridge_swept_total")]


async def test_a_leader_that_is_killed_in_a_sweep_is_followed_by_another_within_a_term(world: World) -> None:
    tasks = 2000
    await world.client.admin.create_queue(Queue("IDLE", lease=1.0))
    bridges = [world.crew.bridge("Q", *SWEEPS) for _ in range(2)]
    await world.ready(*bridges)
    leader = bridges[await first_of([bridge.logs("task_sweeper: won") for bridge in bridges])]
    other = next(bridge for bridge in bridges if bridge is not leader)
    store = world.client.store
    await asyncio.gather(
        *(store.save(task(f"t{number}", TaskState.NEW, "IDLE"), expected=0) for number in range(tasks))
    )
    await leader.logs("swept", count=50)
    leader.kill()
    assert 0 < await left_in(world, queue_stream("IDLE")) < tasks
    await other.logs("task_sweeper: won", seconds=1.5 * TERM_S)

    async def all_there() -> bool:
        return await left_in(world, queue_stream("IDLE")) == tasks

    await until(world, "each task has an item", all_there)


async def first_of(waits: list[Any]) -> int:
    """Wait for the first of several; returns which it was."""
    running = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    found = next(number for number, wait in enumerate(running) if wait.done())
    for wait in running:
        wait.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return found


@pytest.mark.parametrize("seed", [1])
async def test_whatever_is_deleted_under_a_running_bridge_all_ends_in_a_visible_place(world: World, seed: int) -> None:
    chance = random.Random(seed)
    client, store = world.client, world.client.store
    bridge: Process = world.crew.bridge("Q", *SWEEPS, "--concurrency", "20", "--backoff", "1s", "--max-run-time", "10s")
    await world.ready(bridge, world.crew.handlers("work"))
    ids = [f"t{number}" for number in range(300)]
    for number, task_id in enumerate(ids):
        kind = chance.random()
        if kind < 0.2:
            options: dict[str, Any] = {"delay": timedelta(seconds=chance.uniform(1, 8))}
        elif kind < 0.5 and number > 10:
            options = {"dependencies": chance.sample(ids[:number], 2)}
        else:
            options = {}
        orders: list[dict[str, Any]] = [
            {"do": "ok"},
            {"do": "sleep", "ms": 200},
            {"do": "later", "times": 1, "ms": 500},
        ]
        await client.enqueue("work", chance.choice(orders), queue="Q", id=task_id, max_tries=3, **options)
        await disturb(world, chance, ids[: number + 1])
    for _ in range(100):
        await disturb(world, chance, ids)

    async def over() -> bool:
        records = await store.load_many(ids)
        left = [await left_in(world, stream) for stream in (queue_stream("Q"), DEPS_STREAM)]
        waits = await store.jetstream.last(DELAYED_STREAM, "CHORIA_AJ.D.S.>")
        final = all(found.record is not None and found.record.state.final for found in records.values())
        return final and left == [0, 0] and waits is None

    await until(world, "all tasks that are there have ended, and nothing else is left", over, 90)
    records = await store.load_many(ids)
    assert len(records) > 200
    assert {found.readable().state for found in records.values()} <= {TaskState.COMPLETE, TaskState.UNREACHABLE}


async def disturb(world: World, chance: random.Random, ids: list[str]) -> None:
    """Delete something of some task, now and then."""
    task_id, other = chance.choice(ids), chance.choice(ids)
    what = chance.random()
    if what < 0.05:
        await remove(world, TASKS_STREAM, task_subject(task_id))
    elif what < 0.3:
        await remove(world, queue_stream("Q"), item_subject("Q", task_id))
    elif what < 0.6:
        await remove(world, DELAYED_STREAM, schedule_subject("Q", task_id))
    elif what < 0.7:
        await remove(world, DEPS_STREAM, edge_subject(other, task_id))
