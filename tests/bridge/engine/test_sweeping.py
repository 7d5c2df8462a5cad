"""The sweeper and its election on a real server: what is planted there is set right, and others can read the ballot."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from tests.bridge.engine.bridges import Counts
from tests.conftest import TIMEOUT_FACTOR

from aj_bridge.core.deliver import Holder
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.sweeper import Sweeper
from aj_bridge.engine.sweeping import Sweeping
from aj_bridge.faces.embedded import EmbeddedServer
from aj_bridge.storage.jetstream.survey import JetStreamSurvey, open_survey
from aj_sdk.admin import Admin
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.transport import Message, NatsTransport
from aj_sdk.wire.event import LeaderElectedEvent
from aj_sdk.wire.names import (
    DEAD_STREAM,
    ELECTIONS_BUCKET,
    dead_subject,
    item_subject,
    leader_event_subject,
    queue_stream,
)
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

pytestmark = pytest.mark.server


class Ahead:
    """A clock that a test moves on, and leadership that is always ours."""

    leads = True

    def __init__(self) -> None:
        self.now = 0.0

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: asyncio.get_running_loop().time() + self.now)


class Nobody:
    """Other bridges, none of which answers."""

    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        del owner, task_id, item
        return Holder.SILENT


@pytest.fixture
async def jetstream(clean_server: EmbeddedServer) -> AsyncIterator[JetStream]:
    connection = await nats.connect(clean_server.url)
    async with NatsTransport(connection) as transport:
        found = JetStream(transport)
        admin = Admin(found, Store(found))
        await admin.ensure_task_store()
        await admin.ensure_dead()
        yield found
    await connection.close()


async def put(jetstream: JetStream, task_id: str, state: TaskState, queue: str, **fields: Any) -> None:
    record = TaskRecord(id=task_id, type="t", queue=queue, state=state, created_ns=1, **fields)
    await Store(jetstream).save(record, expected=0)


async def record_of(store: Store, task_id: str) -> TaskRecord:
    stored = await store.load(task_id)
    assert stored is not None
    return stored.readable()


async def take(jetstream: JetStream, queue: str, number: int = 1) -> list[str]:
    """Have items handed out; gives where to acknowledge them."""
    came: asyncio.Queue[Message] = asyncio.Queue()
    inbox = f"taken.{queue}.{number}"  # what is handed out keeps its subject: only a subscription of its own finds it
    subscription = await jetstream.transport.subscribe(inbox, came.put_nowait)
    request = b'{"batch":%d,"expires":20000000000}' % number
    next_item = f"$JS.API.CONSUMER.MSG.NEXT.{queue_stream(queue)}.WORKERS"
    await jetstream.transport.publish(next_item, request, reply=inbox)
    async with asyncio.timeout(20 * TIMEOUT_FACTOR):
        found = [(await came.get()).reply for _ in range(number)]
    await subscription.close()
    return found


async def sequence(jetstream: JetStream, queue: str, task_id: str) -> int:
    message = await jetstream.last(queue_stream(queue), item_subject(queue, task_id))
    return 0 if message is None else message.sequence


def sweeper(survey: JetStreamSurvey, ahead: Ahead, meter: Counts) -> Sweeper:
    return Sweeper(survey, Nobody(), ahead, meter, ahead.clock)


async def test_what_is_planted_on_a_server_is_set_right_in_two_sweeps(jetstream: JetStream) -> None:
    admin = Admin(jetstream, Store(jetstream))
    await admin.create_queue(QueueSettings(name="OURS"))
    await admin.create_queue(QueueSettings(name="DROPS", max_entries=3, discard_old=True))
    store = Store(jetstream)
    await put(jetstream, "lost", TaskState.NEW, "OURS")
    await put(jetstream, "active", TaskState.ACTIVE, "OURS", tries=1)
    await put(jetstream, "parked", TaskState.RETRY, "OURS", tries=1)
    await store.park_item("OURS", "parked", store.now_ns() + 3600 * NS_PER_S)
    await put(jetstream, "dropped", TaskState.NEW, "DROPS")
    await put(jetstream, "nowhere", TaskState.RETRY, "GONE", tries=1, dependencies=("first",))
    await store.dependents.tie(await record_of(store, "nowhere"), ["first"])
    await put(jetstream, "child", TaskState.BLOCKED, "OURS", dependencies=("nowhere",))
    await store.dependents.tie(await record_of(store, "child"), ["nowhere"])
    await store.park_item("OURS", "child", store.now_ns() + 3600 * NS_PER_S)
    await put(jetstream, "done", TaskState.COMPLETE, "OURS")
    await store.publish_item("OURS", "nothing")
    ahead, meter = Ahead(), Counts()
    async with open_survey(jetstream) as survey:
        here = sweeper(survey, ahead, meter)
        await here.sweep()
        assert meter.counts["bridge_swept_total"] == 0
        ahead.now += 61
        await here.sweep()
    assert await sequence(jetstream, "OURS", "lost")
    assert await sequence(jetstream, "OURS", "active")
    assert not await sequence(jetstream, "OURS", "parked")
    assert not await sequence(jetstream, "OURS", "nothing")
    assert await jetstream.last(DEAD_STREAM, dead_subject("quarantined", "OURS", "nothing"))
    for task_id in ("dropped", "nowhere"):
        assert (await record_of(store, task_id)).state is TaskState.QUEUE_ERROR
    await take(jetstream, "OURS", 3)  # the two, and the child that the end of its parent has woken
    assert await sequence(jetstream, "OURS", "child")
    assert [found.edge.state for found in await store.edges.entering("child")] == [TaskState.QUEUE_ERROR]
    assert not await store.edges.entering("nowhere")
    assert meter.counts["bridge_sweep_scanned_total"] == 7  # each record once


async def test_an_item_in_hand_is_left_and_one_that_nobody_will_be_handed_is_replaced(jetstream: JetStream) -> None:
    admin, store = Admin(jetstream, Store(jetstream)), Store(jetstream)
    await admin.create_queue(QueueSettings(name="Q", lease_ns=0, max_tries=1, max_run_time_ns=100 * NS_PER_MS))
    await put(jetstream, "a", TaskState.NEW, "Q")
    await store.publish_item("Q", "a")
    told: asyncio.Queue[Message] = asyncio.Queue()
    advisories = await jetstream.transport.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", told.put_nowait)
    await take(jetstream, "Q")
    async with open_survey(jetstream) as survey:
        held = await survey.locate("Q", ["a"])
    waiting = asyncio.create_task(take(jetstream, "Q"))
    async with asyncio.timeout(20 * TIMEOUT_FACTOR):
        await told.get()
    # What an item looks like that stayed behind: this survey has not heard the advisory.
    ahead, meter = Ahead(), Counts()
    async with open_survey(jetstream) as survey:
        left = (await survey.locate("Q", ["a"]))["a"]
        here = sweeper(survey, ahead, meter)
        await here.sweep()
        ahead.now += 61
        await here.sweep()
    assert not held["a"].stranded
    assert left.stranded
    assert await sequence(jetstream, "Q", "a") > left.item
    assert len(await waiting) == 1
    await advisories.close()


async def test_an_item_whose_deliveries_are_used_up_ends_its_task_or_comes_again(jetstream: JetStream) -> None:
    admin, store = Admin(jetstream, Store(jetstream)), Store(jetstream)
    await admin.create_queue(QueueSettings(name="GO", lease_ns=0, max_tries=1, max_run_time_ns=100 * NS_PER_MS))
    for task_id, tries in (("spent", 1), ("fresh", 0)):
        await put(jetstream, task_id, TaskState.RETRY, "GO", tries=tries)
        await store.publish_item("GO", task_id)
    told: asyncio.Queue[Message] = asyncio.Queue()
    advisories = await jetstream.transport.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", told.put_nowait)
    ahead, meter = Ahead(), Counts()
    async with open_survey(jetstream) as survey:
        await take(jetstream, "GO", 2)
        # The server looks at a lease that is over when somebody asks for work.
        waiting = asyncio.create_task(take(jetstream, "GO"))
        async with asyncio.timeout(20 * TIMEOUT_FACTOR):
            await told.get()
            await told.get()
        before = await sequence(jetstream, "GO", "fresh")
        here = sweeper(survey, ahead, meter)
        await here.sweep()
        ahead.now += 61
        await here.sweep()
        stored = await store.load("spent")
        assert stored is not None
        assert stored.record is not None
        assert stored.record.state is TaskState.EXPIRED
        assert not await sequence(jetstream, "GO", "spent")
        assert await jetstream.last(DEAD_STREAM, dead_subject("expired", "GO", "spent"))
        assert await sequence(jetstream, "GO", "fresh") > before
        assert len(await waiting) == 1  # it is handed out again
    await advisories.close()


async def test_the_leader_is_told_and_its_name_is_read_by_a_nats_client(
    jetstream: JetStream, clean_server: EmbeddedServer
) -> None:
    told: asyncio.Queue[Message] = asyncio.Queue()
    listening = await jetstream.transport.subscribe(leader_event_subject("task_sweeper"), told.put_nowait)
    duties = [Sweeping(jetstream, name, Nobody(), Counts(), Clock()) for name in ("one", "two")]
    running = [asyncio.create_task(duty.run()) for duty in duties]
    try:
        async with asyncio.timeout(20 * TIMEOUT_FACTOR):
            event = LeaderElectedEvent.from_wire((await told.get()).data)
        assert (event.component, event.name in ("one", "two")) == ("task_sweeper", True)
        connection = await nats.connect(clean_server.url)
        bucket = await connection.jetstream().key_value(ELECTIONS_BUCKET)
        entry = await bucket.get("task_sweeper")
        assert entry.value == event.name.encode()
        status = await bucket.status()
        assert (status.ttl, status.history) == (10, 1)
        await connection.close()
        # One that ends makes room: the other leads without waiting for the term to pass.
        leader = running[0] if event.name == "one" else running[1]
        leader.cancel()
        async with asyncio.timeout(20 * TIMEOUT_FACTOR):
            second = LeaderElectedEvent.from_wire((await told.get()).data)
        assert second.name != event.name
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await listening.close()
