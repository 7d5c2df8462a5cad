"""`aj-bridge run --workers`: several processes under one command, which watches them and answers for them."""

import asyncio
import os
import re
import signal
import urllib.error
import urllib.request

import pytest
from tests.acceptance.processes import Process
from tests.acceptance.world import World, read_metrics
from tests.pids import gone

from aj_sdk.wire.bridge import BridgeStatus
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance


async def crew_of_two(world: World, *options: str) -> tuple[Process, str]:
    """Start two workers of the queue Q, each with one task in hand, and give them and where they are monitored."""
    supervisor = world.crew.bridge("Q", "--workers", "2", "--concurrency", "1", "--monitor", "0", *options)
    line = await supervisor.says("^ready: 2 workers")
    return supervisor, re.findall(r"metrics on (\S+)", line)[0]


async def workers(world: World) -> dict[int, str]:
    """Return the ids of the bridges that answer, by the process they run in."""
    running = await world.client.admin.bridges.running()
    return {one.pid: one.id for one in running if isinstance(one, BridgeStatus)}


async def held(world: World, handlers: Process, count: int) -> list[str]:
    """Enqueue tasks whose handler holds them, and wait until all have begun."""
    ids = [(await world.client.enqueue("work", {"do": "hold"}, queue="Q")).id for _ in range(count)]
    for task_id in ids:
        await handlers.says(f"^began {task_id} 1$")
    return ids


async def health(url: str) -> tuple[int, str]:
    """Ask for the health of a monitoring port."""

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url.replace("/metrics", "/healthz"), timeout=30) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as err:
            return err.code, err.read().decode().strip()

    return await asyncio.to_thread(ask)


async def test_workers_share_the_work_and_one_monitoring_port_tells_of_all(world: World) -> None:
    supervisor, url = await crew_of_two(world)
    handlers = world.crew.handlers("work")
    await world.ready(handlers)
    ids = await held(world, handlers, 2)  # each worker has one
    found = await asyncio.to_thread(read_metrics, url)
    assert found['task_update_total{worker="1",state="active"}'] == 1
    assert found['task_update_total{worker="2",state="active"}'] == 1
    assert found['bridge_workers{worker="supervisor"}'] == 2
    assert await health(url) == (200, "ok")
    assert len(await workers(world)) == 2
    supervisor.terminate()
    await supervisor.logs("draining.*worker=1")
    await supervisor.logs("draining.*worker=2")
    for task_id in ids:
        handlers.tell(f"release {task_id} 1")
    assert await supervisor.ended() == 0
    assert [(await world.client.load(task_id)).state for task_id in ids] == [TaskState.COMPLETE] * 2
    assert await workers(world) == {}


async def test_a_worker_that_is_killed_is_started_again_and_its_task_runs_at_another(world: World) -> None:
    supervisor, url = await crew_of_two(world)
    handlers = world.crew.handlers("work")
    await world.ready(handlers)
    before = await workers(world)
    (task_id,) = await held(world, handlers, 1)
    stored = await world.client.store.load(task_id)
    assert stored is not None
    assert stored.stamp is not None
    owner = next(pid for pid, bridge in before.items() if bridge == stored.stamp.owner)
    os.kill(owner, signal.SIGKILL)
    await supervisor.logs("worker . was ended by signal 9, and starts again in")
    status, reason = await health(url)
    assert (status, reason[8:]) == (503, " was ended by signal 9 and starts again")
    await handlers.says(f"^began {task_id} 2$")
    handlers.tell(f"release {task_id} 2")
    assert (await world.ended(task_id)).tries == 2
    await supervisor.says("^worker . of 2: ", count=3)
    now = await workers(world)
    assert len(now) == 2
    assert owner not in now
    assert await health(url) == (200, "ok")
    found = await asyncio.to_thread(read_metrics, url)
    assert found['bridge_worker_restarts_total{worker="supervisor"}'] == 1


async def test_workers_whose_supervisor_is_killed_drain(world: World) -> None:
    supervisor, _ = await crew_of_two(world)
    handlers = world.crew.handlers("work")
    await world.ready(handlers)
    (task_id,) = await held(world, handlers, 1)
    pids = list(await workers(world))
    supervisor.kill()
    handlers.tell(f"release {task_id} 1")
    assert (await world.ended(task_id)).state is TaskState.COMPLETE
    assert [await asyncio.to_thread(gone, pid) for pid in pids] == [True, True]


async def test_workers_that_are_drained_by_name_stay_away_and_the_last_one_ends_the_command(world: World) -> None:
    supervisor, url = await crew_of_two(world)
    first, second = (await workers(world)).values()
    await world.client.admin.bridges.drain(first)
    await supervisor.logs("worker . was drained, and stays away")
    assert list((await workers(world)).values()) == [second]
    assert await health(url) == (200, "ok")
    await world.client.admin.bridges.drain(second)
    assert await supervisor.ended() == 0


async def test_what_is_wrong_for_all_workers_is_told_once(world: World) -> None:
    supervisor = world.crew.bridge("NONE", "--workers", "3", create=False)
    assert await supervisor.ended() == 1
    assert len(supervisor.err) == 1
    assert "NONE" in supervisor.err[0]
