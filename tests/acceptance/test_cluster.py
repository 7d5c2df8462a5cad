"""A cluster of three servers with three copies of everything: nodes are killed and retired while tasks run.

The scenarios of the other files run on three nodes with AJ_TEST_NODES=3; here is what only a cluster can suffer.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.evidence import Disturbance, start_recording
from tests.acceptance.test_faults import LEASE_S, verdict
from tests.acceptance.world import World, open_world
from tests.cluster import Cluster

from aj_sdk.client import Client
from aj_sdk.errors import AsyncJobsError
from aj_sdk.queue import Queue
from aj_sdk.side_streams import SIDE_STREAMS
from aj_sdk.spec import TaskSpec
from aj_sdk.streams import task_store_config
from aj_sdk.wire.names import DEAD_STREAM, TASKS_STREAM, queue_stream
from aj_sdk.wire.state import TaskState

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

STREAMS = (TASKS_STREAM, queue_stream("Q"))


@pytest.fixture
def three(patience: Callable[[float], float]) -> Iterator[Cluster]:
    """Give three servers for this test alone, to kill and retire."""
    with Cluster(patience(60)) as cluster:
        yield cluster


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    """Give the three servers that all tests share, with no stream before and after."""
    yield cluster
    asyncio.run(cluster.clear())


@pytest.fixture
async def recorded(three: Cluster, tmp_path: Path, patience: Callable[[float], float]) -> AsyncIterator[World]:
    """Give a world on them in which each save of a task is written down."""
    async with open_world(three.url, tmp_path, patience, 3) as world:
        await start_recording(world.client.store.jetstream, task_store_config(replicas=3))
        bridges = [world.crew.bridge("Q", "--max-run-time", "5s", "--backoff", "1m") for _ in range(2)]
        await world.ready(*bridges, world.crew.handlers("work"))
        await three.settled(STREAMS)
        yield world


async def enqueue_all(client: Client, specs: list[TaskSpec]) -> list[str]:
    """Enqueue tasks; those that failed again under the same ids until none does (C-2)."""
    left = specs
    while left:
        results = await client.enqueue_many(left, queue="Q", return_errors=True)
        left = [spec for spec, result in zip(left, results, strict=True) if isinstance(result, AsyncJobsError)]
    return [str(spec.id) for spec in specs]


def work(name: str, count: int) -> list[TaskSpec]:
    """Return tasks of 100 ms, each tenth of which fails once."""
    orders: list[dict[str, Any]] = [{"do": "sleep", "ms": 100}, {"do": "later", "times": 1, "ms": 300}]
    return [TaskSpec("work", orders[number % 10 == 0], id=f"{name}{number}") for number in range(count)]


async def all_complete(world: World, task_ids: list[str]) -> None:
    """Wait until all have ended, and see that they did as planned."""
    for task_id in task_ids:
        ended = await world.ended(task_id, seconds=90)
        assert ended.state is TaskState.COMPLETE, ended


async def test_the_leader_of_the_task_store_may_be_killed_while_tasks_are_enqueued_and_run(
    recorded: World, three: Cluster
) -> None:
    async with recorded.overhear("CHORIA_AJ.E.task_state.*") as events:
        ids = await enqueue_all(recorded.client, work("before", 60))
        await events.state("complete", count=20)
        leader = await three.leader_of(TASKS_STREAM)
        killed = time.monotonic()
        three.nodes[leader].kill()
        ids += await enqueue_all(recorded.client, work("meanwhile", 60))
        assert await three.leader_of(TASKS_STREAM) != leader
        restored = time.monotonic()
    await all_complete(recorded, ids)
    await three.nodes[leader].astart()
    await three.settled(STREAMS)
    ids += await enqueue_all(recorded.client, work("after", 20))
    await all_complete(recorded, ids[120:])
    gap = Disturbance(killed, restored + LEASE_S)
    assert await verdict(recorded, ids, disturbances=[gap], complete_record=False) == []


async def test_each_server_may_be_retired_and_started_again_under_load(recorded: World, three: Cluster) -> None:
    ids: list[str] = []
    began = time.monotonic()
    for name, node in three.nodes.items():
        ids += await enqueue_all(recorded.client, work(f"{name}-", 40))
        await three.retire(name)
        ids += await enqueue_all(recorded.client, work(f"{name}-gone-", 40))
        await node.astart()
        await three.settled(STREAMS)
    await all_complete(recorded, ids)
    gap = Disturbance(began, time.monotonic() + LEASE_S)
    assert await verdict(recorded, ids, disturbances=[gap], complete_record=False) == []


async def test_c12_all_that_we_keep_has_as_many_copies_as_the_task_store(
    empty: Cluster, tmp_path: Path, patience: Callable[[float], float]
) -> None:
    """Also where the store began with one copy; and `aj-bridge doctor` misses nothing then."""
    async with open_world(empty.url, tmp_path, patience) as world:
        admin = world.client.admin
        bridge = world.crew.bridge("Q")
        await world.ready(bridge, world.crew.handlers("work"))
        parent = await world.client.enqueue("work", {"do": "terminate"}, queue="Q", unique_key="k", unique_for=60)
        child = await world.client.enqueue("work", {}, queue="Q", dependencies=[parent.id])
        await world.client.enqueue("work", {}, queue="Q", delay=3600)
        assert (await world.ended(child.id)).state is TaskState.UNREACHABLE
        assert await copies(empty, (*SIDE_STREAMS, TASKS_STREAM)) == {1}
        await admin.configure_task_store(retention=0, replicas=3)
        await admin.configure_queue("Q", replicas=3)
        assert await copies(empty, (*SIDE_STREAMS, *STREAMS)) == {3}
        doctor = world.crew.start(
            "doctor", sys.executable, "-m", "aj_bridge", "doctor", "--server", empty.url, "--json"
        )
        await doctor.ended()
        assert "cop" not in "".join(doctor.out), doctor.out
        bridge.terminate()
        assert await bridge.ended() == 0
        await admin.configure_task_store(retention=0, replicas=1)
        assert await copies(empty, (DEAD_STREAM,)) == {3}  # never fewer


async def test_a_queue_may_have_more_copies_than_the_task_store_and_waits_in_as_many(empty: Cluster) -> None:
    async with Client.connect(empty.url, timeout=10) as client:
        await client.admin.ensure_task_store(memory=True)
        await client.admin.create_queue(Queue("Q", replicas=3, memory=True))
        await client.enqueue("work", {}, queue="Q", delay=3600)
        assert await copies(empty, ("CHORIA_AJ_DELAYED", queue_stream("Q"))) == {3}
        async with empty.jetstream() as jetstream:
            info = await jetstream.stream_info("CHORIA_AJ_DELAYED")
            assert info is not None
            assert info["config"]["storage"] == "memory"


async def copies(cluster: Cluster, streams: tuple[str, ...]) -> set[int]:
    """Return the numbers of copies that streams have."""
    found = set()
    async with cluster.jetstream() as jetstream:
        for stream in streams:
            info = await jetstream.stream_info(stream)
            assert info is not None, stream
            found.add(int(info["config"]["num_replicas"]))
    return found
