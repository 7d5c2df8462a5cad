"""Several queues in one real bridge: their shares under load, what can be changed and told while it runs."""

import asyncio
import json
import re
import sys
from collections import Counter
from datetime import timedelta

import pytest
from tests.acceptance.processes import Process
from tests.acceptance.world import World, read_metrics

from aj_sdk.queue import Queue
from aj_sdk.spec import TaskSpec
from aj_sdk.transport import Message
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance

WEIGHTS = {"CRITICAL": 6, "NORMAL": 3, "LOW": 1}
SLOTS = 40
WARM_UP = 100
MEASURED = 600


def told_id(bridge: Process) -> str:
    """Give the id that a bridge said when it was ready."""
    return next(line.split()[2].rstrip(",") for line in bridge.out if line.startswith("ready: bridge "))


async def aj_bridge(world: World, *words: str, code: int = 0) -> str:
    """Run a command of `aj-bridge` to its end, and give what it printed."""
    process = world.crew.start("aj-bridge", sys.executable, "-m", "aj_bridge", *words, "--server", world.crew.url)
    assert await process.ended() == code, process.err
    return "\n".join(process.err if code else process.out)


def options(*queues: str) -> list[str]:
    """Give the flags that name queues."""
    return [word for queue in queues for word in ("--queue", queue)]


class Completed:
    """The queues of the tasks that completed, in their order."""

    def __init__(self) -> None:
        self.queues: list[str] = []
        self._came = asyncio.Event()

    def take(self, message: Message) -> None:
        event = json.loads(message.data)
        if event["state"] == "complete":
            self.queues.append(event["queue"])
            self._came.set()

    async def reach(self, count: int) -> None:
        while len(self.queues) < count:
            self._came.clear()
            await self._came.wait()


async def test_queues_share_a_bridge_by_their_weights_under_load(world: World) -> None:
    for name in WEIGHTS:
        await world.client.admin.create_queue(Queue(name, max_concurrent=1000))
    for name, weight in WEIGHTS.items():
        count = (WARM_UP + MEASURED) * weight // 10 + 100
        order = {"do": "sleep", "ms": 400}
        await world.client.enqueue_many([TaskSpec("work", order) for _ in range(count)], queue=name)
    completed = Completed()
    transport = world.client.store.jetstream.transport
    subscription = await transport.subscribe("CHORIA_AJ.E.task_state.*", completed.take)
    more = [*options("NORMAL=3", "LOW=1"), "--concurrency", str(SLOTS), "--monitor", "127.0.0.1:0"]
    bridge = world.crew.bridge("CRITICAL=6", *more, create=False)
    await world.ready(world.crew.handlers("work"), bridge)
    assert "queue CRITICAL (weight 6, " in bridge.out[0]
    slots: Counter[str] = Counter()
    async with asyncio.timeout(world.patience(60)):
        await completed.reach(WARM_UP)
        while len(completed.queues) < WARM_UP + MEASURED:
            status = await world.client.admin.bridges.status(told_id(bridge))
            slots.update({queue.name: queue.in_hand for queue in status.queues})
    metrics = await asyncio.to_thread(read_metrics, bridge.out[0].rpartition(" ")[2])
    await subscription.close()
    measured = Counter(completed.queues[WARM_UP:][:MEASURED])
    for name, ended in measured.items():
        meant = WEIGHTS[name] / 10
        part = slots[name] / slots.total()
        assert abs(part - meant) <= 0.1 * meant, slots
        # On a machine that is short of time the tasks of a busier queue take longer.
        assert abs(ended / MEASURED - meant) <= 0.4 * meant, measured
        assert metrics[f'handler_runtime_count{{queue="{name}",type="work"}}'] >= ended
        assert metrics[f'queue_poll_total{{queue="{name}"}}'] > 1
        assert metrics[f'bridge_queue_weight{{queue="{name}"}}'] == WEIGHTS[name]
    assert 1 <= metrics["handler_busy_count"] <= SLOTS
    assert (metrics["bridge_concurrency"], metrics["bridge_paused"]) == (SLOTS, 0)
    assert 1 <= sum(metrics[f'bridge_running{{queue="{name}"}}'] for name in WEIGHTS) <= SLOTS


async def test_a_running_bridge_is_listed_told_and_drained(world: World) -> None:
    bridge = world.crew.bridge("A=2", *options("B"))
    other = world.crew.bridge("OTHER")
    handlers = world.crew.handlers("work")
    await world.ready(bridge, other, handlers)
    who = told_id(bridge)

    listed = {one["id"]: one for one in json.loads(await aj_bridge(world, "ps", "--json"))}
    assert listed.keys() == {who, told_id(other)}
    assert (listed[who]["pid"], listed[who]["state"], listed[who]["concurrency"]) == (bridge.pid, "working", 100)
    assert [(queue["name"], queue["weight"]) for queue in listed[who]["queues"]] == [("A", 2), ("B", 1)]
    assert "A=2, B=1" in await aj_bridge(world, "ps")

    held = await world.client.enqueue("work", {"do": "hold"}, queue="A")
    await handlers.says(f"began {held.id}")
    assert json.loads(await aj_bridge(world, "ctl", who, "status", "--json"))["in_hand"] == 1

    await aj_bridge(world, "ctl", who, "concurrency", "1")
    waiting = [await world.client.enqueue("work", queue=queue) for queue in ("A", "B")]
    handlers.tell(f"release {held.id} 1")
    for task in (held, *waiting):
        assert (await world.ended(task.id)).state is TaskState.COMPLETE
    noted = [line["what"] for line in world.journal()]
    assert noted == ["began", "ended"] * 3, "no more than one at a time"

    assert "State: paused" in await aj_bridge(world, "ctl", who, "pause")
    async with world.overhear("CHORIA_AJ.E.task_state.*") as events:
        task = await world.client.enqueue("work", queue="B")
        beside = await world.client.enqueue("work", queue="OTHER")
        await world.ended(beside.id)
        assert (await world.client.load(task.id)).state is TaskState.NEW
        await aj_bridge(world, "ctl", who, "resume")
        await events.state("complete", task_id=task.id)

    held = await world.client.enqueue("work", {"do": "hold"}, queue="B")
    await handlers.says(f"began {held.id}")
    assert "State: draining" in await aj_bridge(world, "ctl", who, "drain")
    handlers.tell(f"release {held.id} 1")
    assert await bridge.ended() == 0
    assert (await world.client.load(held.id)).state is TaskState.COMPLETE
    assert "not found; `aj-bridge ps` lists those that run" in await aj_bridge(world, "ctl", who, "drain", code=1)


async def test_a_running_bridge_picks_up_what_is_done_to_its_queues(world: World) -> None:
    """One look of the bridge, at most ten seconds away, serves them all."""
    js = world.client.store.jetstream
    bridge = world.crew.bridge("OURS", *options("GO", "NOCONSUMER", "ANEW", "PAUSED"), lease="10m")
    await world.ready(bridge, world.crew.handlers("work"))

    await world.client.admin.configure_queue("OURS", max_run_time=0.5, weight=4, discard_old=True)
    # As the Go project's `queue configure --run-time 1s --tries 3` does to a queue of ours.
    consumer = await js.consumer_info("CHORIA_AJ_Q_GO", "WORKERS")
    assert consumer is not None
    go = {**consumer["config"], "ack_wait": 500_000_000, "max_deliver": 3}
    await js.save_consumer("CHORIA_AJ_Q_GO", go, "update")
    await js.call("CONSUMER.DELETE.CHORIA_AJ_Q_NOCONSUMER.WORKERS")
    await world.client.admin.pause_queue("PAUSED")
    await world.client.admin.delete_queue("ANEW")
    await world.client.admin.create_queue(Queue("ANEW", max_run_time=0.5))

    for line in (
        "queue OURS is configured anew: discard_old False -> True, max_runtime 1h0m0s -> 500ms",
        "queue GO was configured from outside",
        "queue GO is configured anew: max_tries -1 -> 3, max_runtime 1h0m0s -> 500ms",
        "queue PAUSED is paused until 9999-12-31T00:00:00Z, `ajc queue resume PAUSED` ends it",
        "queue NOCONSUMER has lost its consumer, making it again",
        "queue ANEW is configured anew: max_runtime 1h0m0s -> 500ms",
    ):
        await bridge.logs(re.escape(line))
    status = await world.client.admin.bridges.status(told_id(bridge))
    assert [queue.weight for queue in status.queues] == [4, 1, 1, 1, 1]

    held = {
        queue: await world.client.enqueue("work", {"do": "sleep", "ms": 60_000}, queue=queue, max_tries=1)
        for queue in ("OURS", "GO", "ANEW")
    }
    for queue, task in held.items():
        ended = await world.ended(task.id)
        assert (ended.state, ended.last_err) == (TaskState.EXPIRED, "deadline exceeded"), queue
    task = await world.client.enqueue("work", queue="NOCONSUMER")
    assert (await world.ended(task.id)).state is TaskState.COMPLETE


async def test_a_full_queue_that_discards_old_items_loses_no_task_at_work(world: World) -> None:
    """Nine are at work in a queue of eight; the bridge that has them is killed, and another one ends them."""
    await world.client.admin.create_queue(
        Queue("SMALL", max_entries=8, discard_old=True, max_concurrent=100, lease=timedelta(seconds=2))
    )
    first = world.crew.bridge("SMALL", create=False)
    handlers = world.crew.handlers("work")
    await world.ready(first, handlers)
    tasks = []
    for _ in range(9):
        task = await world.client.enqueue("work", {"do": "hold"}, queue="SMALL")
        await handlers.says(f"began {task.id}")
        tasks.append(task.id)
    await first.logs("the queue dropped the item of a task at work, put back")
    ended = tasks.pop()  # makes room for what comes back
    handlers.tell(f"release {ended} 1")
    await world.ended(ended)
    first.kill()
    await world.ready(world.crew.bridge("SMALL", create=False))
    for task_id in tasks:
        handlers.tell(f"release {task_id} 2")
    taken_over = [await world.ended(task_id) for task_id in tasks]
    assert {(task.state, task.tries) for task in taken_over} == {(TaskState.COMPLETE, 2)}
    assert Counter(line["task"] for line in world.calls(*tasks)) == dict.fromkeys(tasks, 2)


async def test_a_queue_that_may_have_no_more_in_flight_leaves_its_slots_to_the_others(world: World) -> None:
    await world.client.admin.create_queue(Queue("TIGHT", max_concurrent=2))
    await world.client.admin.create_queue(Queue("WIDE", max_concurrent=1000))
    for name, ms, count in (("TIGHT", 20, 1000), ("WIDE", 400, 600)):
        await world.client.enqueue_many([TaskSpec("work", {"do": "sleep", "ms": ms})] * count, queue=name)
    bridge = world.crew.bridge("TIGHT=9", *options("WIDE=1"), "--concurrency", str(SLOTS), create=False)
    await world.ready(world.crew.handlers("work"), bridge)
    # By its weight it would have four; that much is never to be had of the other one.
    async with asyncio.timeout(world.patience(30)):
        in_hand = 0
        while in_hand < SLOTS - 6:
            status = await world.client.admin.bridges.status(told_id(bridge))
            in_hand = next(queue.in_hand for queue in status.queues if queue.name == "WIDE")
