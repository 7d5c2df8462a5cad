"""The promises under faults: processes killed, frozen and restarted while tasks run, with leases of one second.

Each test ends with the verdict of `evidence`, which knows nothing of the bridge: each task has one outcome, its tries
are those that were started, and no call overlapped another unless a lease was lost.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from tests.acceptance.evidence import Disturbance, all_saves, judge, read_calls, start_recording
from tests.acceptance.processes import Process
from tests.acceptance.world import World, read_metrics

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.errors import AsyncJobsError, NotConnectedError, OutcomeUnknownError
from aj_sdk.spec import TaskSpec
from aj_sdk.streams import task_store_config
from aj_sdk.transport import Message
from aj_sdk.wire.names import schedule_subject, task_subject
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance

LEASE_S = 1.0
RECOVERY_S = LEASE_S + 5
"""C-8: a crashed bridge's tasks run again within lease + 5 s."""


@pytest.fixture
async def recorded(world: World) -> World:
    """Give a world in which each save of a task is written down."""
    await start_recording(world.client.store.jetstream, task_store_config())
    return world


async def verdict(world: World, task_ids: Iterable[str], **conditions: Any) -> list[str]:
    """Judge what happened to these tasks, which are all there are."""
    jetstream = world.client.store.jetstream
    records = {}
    for task_id in task_ids:
        message = await jetstream.last("CHORIA_AJ_TASKS", task_subject(task_id))
        assert message is not None, f"task {task_id} is gone"
        records[task_id] = json.loads(message.data)
    calls = read_calls(world.journal(), conditions.pop("deaths", {}))
    return judge(records, await all_saves(jetstream), calls, **conditions)


async def enqueue(world: World, payload: object, **options: Any) -> str:
    return (await world.client.enqueue(options.pop("type", "work"), payload, queue="Q", **options)).id


async def holding(world: World, *options: str, lease: str = "1s") -> tuple[Process, Process, str]:
    """Start a bridge and a handler, which holds a task; returns all three."""
    bridge, handlers = world.crew.bridge("Q", *options, lease=lease), world.crew.handlers("work")
    await world.ready(bridge, handlers)
    task_id = await enqueue(world, {"do": "hold"})
    await handlers.says(f"^began {task_id} 1$")
    return bridge, handlers, task_id


def id_of(bridge: Process) -> str:
    """Return the id that a bridge said when it was ready, which begins the ids of its calls."""
    return next(
        (line.split()[2].rstrip(",") for line in bridge.out if line.startswith("ready: bridge ")), "never ready"
    )


@contextlib.asynccontextmanager
async def acknowledged(world: World, delivery: int = 1) -> AsyncIterator[Any]:
    """Wait, on leaving, for the acknowledgement of an item's n-th delivery; nothing is left of the item then."""
    async with world.overhear(f"$JS.ACK.CHORIA_AJ_Q_Q.WORKERS.{delivery}.>") as acks:
        yield acks
        await acks.message(lambda message: message.data == b"+ACK")


# Bridges that are killed or frozen.


async def test_a_task_of_a_killed_bridge_runs_again_within_its_lease(recorded: World) -> None:
    bridge, handlers, task_id = await holding(recorded)
    await recorded.ready(recorded.crew.bridge("Q"))
    killed = time.monotonic()
    bridge.kill()
    await handlers.says(f"^began {task_id} 2$")
    [_, second] = recorded.calls(task_id)
    assert second["at"] - killed < recorded.patience(RECOVERY_S)
    assert (await recorded.client.load(task_id)).tries == 2
    handlers.tell(f"release {task_id} 2")
    ended = await recorded.ended(task_id)
    # The bridge that asked for it first is gone: what this call says is heard by nobody.
    handlers.tell(f"release {task_id} 1")
    await handlers.says(f"^ended {task_id} 1$")
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    assert (await recorded.client.result(task_id))["try"] == 2
    assert await verdict(recorded, [task_id], disturbances=[Disturbance(killed, killed, id_of(bridge))]) == []


async def test_the_only_bridge_may_be_killed_and_started_again(recorded: World) -> None:
    bridge, handlers, held = await holding(recorded, "--concurrency", "10")
    others = [await enqueue(recorded, {"do": "hold"}) for _ in range(9)]
    await handlers.says("^began ", count=10)
    killed = time.monotonic()
    bridge.kill()
    await recorded.ready(recorded.crew.bridge("Q"))
    await handlers.says("^began .* 2$", count=10)
    assert time.monotonic() - killed < recorded.patience(RECOVERY_S)
    for task_id in (held, *others):
        handlers.tell(f"release {task_id} 1")
        handlers.tell(f"release {task_id} 2")
        assert (await recorded.ended(task_id)).tries == 2
    assert await verdict(recorded, [held, *others], disturbances=[Disturbance(killed, killed, id_of(bridge))]) == []


async def test_a_bridge_that_thaws_after_its_task_ended_elsewhere_records_nothing(
    recorded: World, free_port: int
) -> None:
    bridge, handlers, task_id = await holding(recorded, "--monitor", f"127.0.0.1:{free_port}")
    await recorded.ready(recorded.crew.bridge("Q"))
    frozen = time.monotonic()
    bridge.pause()
    await handlers.says(f"^began {task_id} 2$")
    handlers.tell(f"release {task_id} 2")
    ended = await recorded.ended(task_id)
    handlers.tell(f"release {task_id} 1")
    await handlers.says(f"^ended {task_id} 1$")
    # Its answer lies ready for the bridge that stands still, which is the late one; and so does the event of the end.
    bridge.resume()
    thawed = time.monotonic()
    await bridge.logs(f"dropped an item: .*task_id={task_id}")
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    assert await recorded.client.load(task_id) == ended
    metrics = await asyncio.to_thread(read_metrics, f"http://127.0.0.1:{free_port}/metrics")
    # Whichever it reads first: a save that is refused, or a call that is stopped.
    counted = [metrics.get(f'bridge_{name}_total{{queue="Q"}}', 0) for name in ("save_refused", "call_stopped")]
    assert sorted(counted) == [0, 1]
    assert await verdict(recorded, [task_id], disturbances=[Disturbance(frozen, thawed, id_of(bridge))]) == []


async def test_a_bridge_that_thaws_while_its_task_runs_elsewhere_records_nothing(
    recorded: World, free_port: int
) -> None:
    bridge, handlers, task_id = await holding(recorded, "--monitor", f"127.0.0.1:{free_port}")
    await recorded.ready(recorded.crew.bridge("Q"))
    frozen = time.monotonic()
    bridge.pause()
    await handlers.says(f"^began {task_id} 2$")
    handlers.tell(f"release {task_id} 1")
    await handlers.says(f"^ended {task_id} 1$")
    bridge.resume()
    thawed = time.monotonic()
    await bridge.logs("dropped an item: somebody else saved the task")
    assert (await recorded.client.load(task_id)).state is TaskState.ACTIVE
    handlers.tell(f"release {task_id} 2")
    ended = await recorded.ended(task_id)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    assert (await recorded.client.result(task_id))["try"] == 2
    metrics = await asyncio.to_thread(read_metrics, f"http://127.0.0.1:{free_port}/metrics")
    assert metrics['bridge_save_refused_total{queue="Q"}'] == 1
    assert await verdict(recorded, [task_id], disturbances=[Disturbance(frozen, thawed, id_of(bridge))]) == []


async def test_a_bridge_frozen_for_less_than_its_lease_goes_on(recorded: World) -> None:
    bridge, handlers, task_id = await holding(recorded, lease="1m")
    await recorded.ready(recorded.crew.bridge("Q"))
    bridge.pause()
    handlers.tell(f"release {task_id} 1")
    await handlers.says(f"^ended {task_id} 1$")
    bridge.resume()
    ended = await recorded.ended(task_id)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    assert await verdict(recorded, [task_id]) == []


async def test_a_task_that_outlasts_many_leases_runs_once(recorded: World) -> None:
    _, handlers, task_id = await holding(recorded)
    await recorded.ready(recorded.crew.bridge("Q"))
    async with recorded.overhear("$JS.ACK.CHORIA_AJ_Q_Q.WORKERS.>") as acks:
        # Three to a lease, so this is more than two leases.
        await acks.message(lambda message: message.data == b"+WPI", count=8)
    handlers.tell(f"release {task_id} 1")
    ended = await recorded.ended(task_id)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    assert await verdict(recorded, [task_id]) == []


# Handlers that die.


async def test_a_task_of_a_killed_handler_is_tried_again(recorded: World) -> None:
    _, handlers, task_id = await holding(recorded, "--max-run-time", "1m", "--backoff", "1m")
    await recorded.ready(recorded.crew.handlers("work"))
    handlers.kill()
    async with recorded.overhear(f"CHORIA_AJ.E.task_state.{task_id}") as events:
        told = await events.state("retry")
        assert told["last_error"] == "the handler on CHORIA_AJ.H.T.work is lost: no sign of life for 999ms"
        survivor = recorded.crew.running("handlers")[0]
        await survivor.says(f"^began {task_id} 2$")
        survivor.tell(f"release {task_id} 2")
        ended = await recorded.ended(task_id)
    assert (ended.state, ended.tries, ended.last_err) == (TaskState.COMPLETE, 2, "")
    assert handlers.ended_at is not None
    assert await verdict(recorded, [task_id], deaths={handlers.pid: handlers.ended_at}) == []


async def test_a_task_that_kills_each_of_its_handlers_ends_and_disturbs_no_other(recorded: World) -> None:
    bridge = recorded.crew.bridge("Q", "--max-run-time", "1s", "--backoff", "1m", "--max-concurrent", "2")
    canaries = recorded.crew.handlers("canary")
    victim = recorded.crew.handlers("work")
    await recorded.ready(bridge, canaries, victim)
    deaths = {}
    async with recorded.overhear("CHORIA_AJ.X.>") as letters:
        poison = await enqueue(recorded, {"do": "die", "times": 99}, max_tries=2)
        others = []
        for _ in range(2):
            assert await victim.ended() == -9
            assert victim.ended_at is not None
            deaths[victim.pid] = victim.ended_at
            victim = recorded.crew.handlers("work")
            await recorded.ready(victim)
            began = time.monotonic()
            others.append(await enqueue(recorded, {}, type="canary"))
            assert (await recorded.ended(others[-1])).state is TaskState.COMPLETE
            assert time.monotonic() - began < recorded.patience(2)
        ended = await recorded.ended(poison)
        letter = await letters.message()
    assert (ended.state, ended.tries) == (TaskState.EXPIRED, 2)
    assert "no reply from a handler" in ended.last_err
    assert letter.subject == f"CHORIA_AJ.X.expired.Q.{poison}"
    assert await verdict(recorded, [poison, *others], deaths=deaths) == []


# A server that dies or stands still.


async def test_the_server_may_be_killed_and_started_again_while_tasks_run(
    recorded: World, clean_server: EmbeddedServer
) -> None:
    bridge = recorded.crew.bridge("Q", "--max-run-time", "5s", "--backoff", "1m", "--concurrency", "20")
    await recorded.ready(bridge, recorded.crew.handlers("work"))
    async with recorded.overhear("CHORIA_AJ.E.task_state.*") as events:
        order = {"do": "sleep", "ms": 200}
        tasks = await recorded.client.enqueue_many([("work", order)] * 100, queue="Q")
        await events.state("complete", count=30)
        killed = time.monotonic()
        clean_server.kill()
        await clean_server.astart()
        restarted = time.monotonic()
    for task in tasks:
        ended = await recorded.ended(task.id, seconds=60)
        assert ended.state is TaskState.COMPLETE
        assert ended.tries <= 3
    # Connections come back, and with them leases, some time after the server.
    gap = Disturbance(killed, restarted + LEASE_S)
    ids = [task.id for task in tasks]
    assert await verdict(recorded, ids, disturbances=[gap], complete_record=False) == []


async def test_enqueueing_again_after_a_failure_makes_one_task(
    recorded: World, clean_server: EmbeddedServer, patience: Callable[[float], float]
) -> None:
    bridge = recorded.crew.bridge("Q", "--max-run-time", "5s", "--backoff", "1m")
    await recorded.ready(bridge, recorded.crew.handlers("work"))
    specs = [TaskSpec("work", {}, id=f"T{number}") for number in range(500)]
    # This producer gives up soon, so that it has done so before the server is back.
    async with Client.connect(recorded.crew.url, timeout=patience(0.2)) as producer, asyncio.TaskGroup() as group:
        async with recorded.overhear("CHORIA_AJ.Q.Q.*") as items:
            first = group.create_task(producer.enqueue_many(specs, queue="Q", return_errors=True))
            await items.message(count=100)
            killed = time.monotonic()
            clean_server.kill()
        failed = [each for each in await first if isinstance(each, AsyncJobsError)]
        assert failed
        assert all(isinstance(each, OutcomeUnknownError | NotConnectedError) for each in failed)
    await clean_server.astart()
    restarted = time.monotonic()
    again = await recorded.client.enqueue_many(specs, queue="Q")
    assert [task.id for task in again] == [spec.id for spec in specs]
    for task in again:
        assert (await recorded.ended(task.id, seconds=60)).state is TaskState.COMPLETE
    gap = Disturbance(killed, restarted + LEASE_S)
    ids = [task.id for task in again]
    assert await verdict(recorded, ids, disturbances=[gap], complete_record=False) == []


async def test_a_server_that_stands_still_for_five_seconds_loses_nothing(
    recorded: World, clean_server: EmbeddedServer
) -> None:
    bridge = recorded.crew.bridge("Q", "--max-run-time", "20s", "--backoff", "1m", "--concurrency", "20")
    await recorded.ready(bridge, recorded.crew.handlers("work"))
    async with recorded.overhear("CHORIA_AJ.E.task_state.*") as events:
        order = {"do": "sleep", "ms": 200}
        tasks = await recorded.client.enqueue_many([("work", order)] * 100, queue="Q")
        await events.state("complete", count=30)
        frozen = time.monotonic()
        clean_server.pause()
        # The fault itself, not a wait for something: five leases.
        await asyncio.sleep(5)
        clean_server.resume()
        thawed = time.monotonic()
    for task in tasks:
        ended = await recorded.ended(task.id, seconds=60)
        assert ended.state is TaskState.COMPLETE
        assert ended.tries <= 2
    gap = Disturbance(frozen, thawed + LEASE_S)
    assert await verdict(recorded, [task.id for task in tasks], disturbances=[gap]) == []


async def test_a_bridge_whose_server_is_away_ends_in_order_when_it_is_told(
    recorded: World, clean_server: EmbeddedServer
) -> None:
    bridge, handlers = recorded.crew.bridge("Q"), recorded.crew.handlers("work")
    await recorded.ready(bridge, handlers)
    clean_server.kill()
    await bridge.logs("NATS connection lost")
    bridge.terminate()
    handlers.terminate()
    assert await bridge.ended() == 0
    assert await handlers.ended() == 0
    assert not [line for line in (*bridge.err, *handlers.err) if "Traceback" in line]


# More than one item for a task.


async def test_more_items_of_a_held_task_do_not_make_it_run_twice(recorded: World) -> None:
    _, handlers, task_id = await holding(recorded)
    async with recorded.overhear(schedule_subject("Q", task_id)) as parked:
        for count in range(1, 4):
            await recorded.client.store.publish_item("Q", task_id, replace=True)
            await parked.message(count=count)
        # Those that wait come back each lease, and wait again while the task is held.
        await parked.message(count=5)
    assert len(recorded.calls(task_id)) == 1
    handlers.tell(f"release {task_id} 1")
    async with acknowledged(recorded):
        ended = await recorded.ended(task_id)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    assert await verdict(recorded, [task_id]) == []


async def test_another_bridge_asks_the_owner_before_it_takes_a_held_task(recorded: World) -> None:
    _, handlers, task_id = await holding(recorded, "--concurrency", "1")
    await recorded.ready(recorded.crew.bridge("Q"))
    async with (
        recorded.overhear("AJ.BRIDGE.*.holds") as questions,
        recorded.overhear(schedule_subject("Q", task_id)) as parked,
    ):
        await recorded.client.store.publish_item("Q", task_id, replace=True)
        question = await questions.message()
        await parked.message()
    assert json.loads(question.data)["task"] == task_id
    assert len(recorded.calls(task_id)) == 1
    handlers.tell(f"release {task_id} 1")
    ended = await recorded.ended(task_id)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    assert await verdict(recorded, [task_id]) == []


async def test_an_owner_that_is_silent_twice_is_taken_for_dead(recorded: World) -> None:
    bridge, handlers, task_id = await holding(recorded, "--concurrency", "1")
    await recorded.ready(recorded.crew.bridge("Q"))
    async with recorded.overhear(schedule_subject("Q", task_id)) as parked:
        # The second item takes the place of the one that the owner holds, so no lease brings the task back.
        await recorded.client.store.publish_item("Q", task_id, replace=True)
        await parked.message()
        killed = time.monotonic()
        bridge.kill()
        silent = await parked.message(lambda message: "AJ-Silent" in (message.headers or {}))
        await handlers.says(f"^began {task_id} 2$")
    assert silent.data  # parked once for its silence, then taken over
    assert time.monotonic() - killed < recorded.patience(2 * LEASE_S + 5)
    handlers.tell(f"release {task_id} 2")
    handlers.tell(f"release {task_id} 1")
    ended = await recorded.ended(task_id)
    await handlers.says(f"^ended {task_id} 1$")
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    assert await verdict(recorded, [task_id], disturbances=[Disturbance(killed, killed, id_of(bridge))]) == []


async def test_a_stray_item_does_not_start_a_waiting_task_early(recorded: World) -> None:
    await recorded.ready(recorded.crew.bridge("Q"), recorded.crew.handlers("work"))
    async with recorded.overhear("CHORIA_AJ.E.task_state.stray") as events:
        task_id = await enqueue(recorded, {"do": "later", "ms": 2500}, id="stray")
        await events.state("retry")
        for _ in range(3):
            async with acknowledged(recorded):
                await recorded.client.store.publish_item("Q", task_id, replace=True)
        assert (await recorded.client.load(task_id)).state is TaskState.RETRY
        ended = await recorded.ended(task_id)
    first, second = recorded.calls(task_id)
    assert second["at"] - first["at"] >= 2.5
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    assert await verdict(recorded, [task_id]) == []


async def test_a_forced_retry_of_a_held_task_begins_a_new_run_and_the_old_one_records_nothing(recorded: World) -> None:
    bridge, handlers, task_id = await holding(recorded)
    held = await recorded.client.store.load(task_id)
    assert held is not None
    # What the Go project's retry does to a task in any state: it saves `retry` over what is there, and a new item.
    forced = held.readable().replace(state=TaskState.RETRY, result=None)
    retried = time.monotonic()
    await recorded.client.store.save(forced, expected=held.sequence)
    await recorded.client.store.publish_item("Q", task_id, replace=True)
    await handlers.says(f"^began {task_id} 2$")
    handlers.tell(f"release {task_id} 1")
    await bridge.logs("dropped an item: somebody else saved the task")
    handlers.tell(f"release {task_id} 2")
    ended = await recorded.ended(task_id)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    assert (await recorded.client.result(task_id))["try"] == 2
    assert await verdict(recorded, [task_id], disturbances=[Disturbance(retried, retried)]) == []


# All at once.


async def test_bridges_and_handlers_that_die_again_and_again_lose_nothing(recorded: World) -> None:
    chance = random.Random(20261122)
    options = ("--max-run-time", "3s", "--backoff", "1m", "--concurrency", "10")
    bridges = [recorded.crew.bridge("Q", *options) for _ in range(2)]
    handlers = [recorded.crew.handlers("work") for _ in range(2)]
    await recorded.ready(*bridges, *handlers)
    orders: list[dict[str, Any]] = [
        {"do": "sleep", "ms": 150},
        {"do": "later", "times": 2, "ms": 300},
        {"do": "sleep", "ms": 600},
        {"do": "terminate"},
    ]
    deaths = {}
    async with recorded.overhear("CHORIA_AJ.E.task_state.*") as events:
        chosen = [orders[number % len(orders)] for number in range(120)]
        tasks = await recorded.client.enqueue_many([("work", order) for order in chosen], queue="Q")
        kills = []

        def is_final(message: Message) -> bool:
            return json.loads(message.data)["state"] in ("complete", "terminated")

        for count in (15, 30, 45, 60, 75):
            await events.message(is_final, count=count, seconds=60)
            crowd, start = (
                (bridges, recorded.crew.bridge) if chance.random() < 0.6 else (handlers, recorded.crew.handlers)
            )
            victim = crowd.pop(0)
            victim.kill()
            assert victim.ended_at is not None
            deaths[victim.pid] = victim.ended_at
            if crowd is bridges:
                kills.append(Disturbance(victim.ended_at, victim.ended_at, id_of(victim)))
            crowd.append(start("Q", *options) if crowd is bridges else start("work"))
    for order, task in zip(chosen, tasks, strict=True):
        ended = await recorded.ended(task.id, seconds=60)
        wanted = TaskState.TERMINATED if order["do"] == "terminate" else TaskState.COMPLETE
        assert ended.state is wanted, ended
    ids = [task.id for task in tasks]
    assert await verdict(recorded, ids, disturbances=kills, deaths=deaths) == []
