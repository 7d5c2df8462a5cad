"""The doctor on real servers: it learns what there is, says what the sweeper would do, and changes nothing."""

from collections.abc import AsyncIterator, Callable

import nats
import pytest

from aj_bridge.core.diagnosis import Level, diagnose
from aj_bridge.engine.doctor import learn, would_sweep
from aj_bridge.engine.sweep_acts import Swept
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.admin import Admin
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.transport import NatsTransport
from aj_sdk.wire.names import DEAD_STREAM, TASKS_STREAM, task_subject
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

pytestmark = pytest.mark.server


@pytest.fixture
async def jetstream(fresh_server: Callable[..., EmbeddedServer]) -> AsyncIterator[JetStream]:
    connection = await nats.connect(fresh_server().url)
    async with NatsTransport(connection) as transport:
        yield JetStream(transport)
    await connection.close()


async def test_an_empty_server_is_looked_at_without_a_fault(jetstream: JetStream) -> None:
    facts = await learn(jetstream)
    assert facts.streams[TASKS_STREAM] is None
    assert facts.unanswered == {}
    assert not [finding for finding in diagnose(facts) if finding.level is Level.ERROR]
    assert await jetstream.stream_names() == []


async def test_what_the_sweeper_would_do_is_said_and_not_done(jetstream: JetStream) -> None:
    store = Store(jetstream)
    admin = Admin(jetstream, store)
    await admin.ensure_task_store()
    await admin.create_queue(QueueSettings(name="Q"))
    for task_id, queue in (("lost", "Q"), ("nowhere", "GONE"), ("well", "Q")):
        record = TaskRecord(id=task_id, type="t", queue=queue, state=TaskState.NEW, created_ns=1)
        await store.save(record, expected=0)
    await store.publish_item("Q", "well")
    await store.publish_item("Q", "nothing")
    waits = TaskRecord(id="waits", type="t", queue="Q", state=TaskState.BLOCKED, created_ns=1, dependencies=("done",))
    await store.save(waits, expected=0)
    await store.publish_item("Q", "waits")
    await store.save(waits.replace(id="done", state=TaskState.COMPLETE, dependencies=()), expected=0)
    for child in (waits, waits.replace(id="gone")):
        await store.dependents.tie(child, ["done"])
    await jetstream.publish(task_subject("broken"), b'{"id":"broken","queue":"Q","tries":"one"}')
    broken = await store.load("broken")
    assert broken is not None
    fault = broken.fault
    before = await jetstream.stream_info(TASKS_STREAM)
    read: list[None] = []
    found = await would_sweep(jetstream, 0.05, lambda: read.append(None))
    assert len(read) == 6
    assert sorted(found, key=lambda one: one.task_id) == [
        Swept("broken", "Q", "a record that can't be read", f"store a dead letter: {fault}"),
        Swept("gone", "Q", "who waited by it is gone", "remove its edge from done"),
        Swept("lost", "Q", "no item and no schedule", "publish its item"),
        Swept("nothing", "Q", "task not found", "take its item 2 out"),
        Swept("nowhere", "GONE", "its queue is gone", "save it queue_error: there is no queue GONE"),
        Swept("waits", "Q", "the end of a parent was not told", "tell it the end of done"),
    ]
    assert [found.sequence for found in await store.edges.leaving("done")] == [1, 2]
    after = await jetstream.stream_info(TASKS_STREAM)
    assert before is not None
    assert after is not None
    assert before["state"] == after["state"]
    assert await jetstream.stream_info(DEAD_STREAM) is None
    facts = await learn(jetstream)
    assert facts.version
    assert facts.skew_ns is not None
    assert abs(facts.skew_ns) < 5 * 10**9  # the same machine
    assert any("one copy" in finding.what for finding in diagnose(facts))
