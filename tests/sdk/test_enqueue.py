"""How a task gets into its queue, and what each failure in between means, against a real server."""

import asyncio
from typing import Any

import pytest
from tests.sdk.emails import NOW, fill, item, record, task
from tests.sdk.lossy import LossyTransport
from tests.sdk.pulling import take

from aj_sdk.enqueue import enqueue, loaded
from aj_sdk.errors import (
    DecodeError,
    NotConnectedError,
    OutcomeUnknownError,
    QueueFullError,
    QueueNotFoundError,
    TaskExistsError,
    TaskTooLargeError,
)
from aj_sdk.jetstream import JetStream
from aj_sdk.store import HEADROOM, Store
from aj_sdk.transport import Message
from aj_sdk.wire.names import queue_stream, task_subject
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.server

IDLE = [TaskState.COMPLETE, TaskState.EXPIRED, TaskState.TERMINATED, TaskState.UNREACHABLE]
"""Final states in which enqueueing again does nothing."""


async def test_a_new_task_is_saved_told_and_queued(prepared: Store, states: "asyncio.Queue[tuple[str, str]]") -> None:
    assert await enqueue(prepared, task()) == task()
    assert await record(prepared) == task()
    assert (await take(prepared.jetstream, "EMAIL")).data == b'{"kind":0,"job":"t1"}'
    assert await states.get() == ("t1", "new")
    assert states.empty()


async def test_a_record_that_would_outgrow_a_message_is_refused_before_it_is_sent(prepared: Store) -> None:
    limit = prepared.jetstream.transport.max_payload - HEADROOM
    frame = len(task(payload=b"").to_wire())
    body = b"x" * ((limit - frame) // 4 * 3)
    assert len(task(payload=body).to_wire()) <= limit < len(task(payload=body + b"xxx").to_wire())
    with pytest.raises(TaskTooLargeError) as caught:
        await enqueue(prepared, task(payload=body + b"xxx"))
    assert caught.value.limit == limit
    assert await prepared.load("t1") is None
    await enqueue(prepared, task(payload=body))


async def test_a_full_queue_makes_the_task_a_queue_error(
    prepared: Store, states: "asyncio.Queue[tuple[str, str]]"
) -> None:
    await fill(prepared)
    with pytest.raises(QueueFullError) as caught:
        await enqueue(prepared, task())
    stored = await record(prepared)
    assert (stored.state, stored.last_err) == (TaskState.QUEUE_ERROR, str(caught.value))
    assert [await states.get(), await states.get()] == [("t1", "new"), ("t1", "queue_error")]


async def test_a_missing_queue_makes_the_task_a_queue_error(prepared: Store) -> None:
    with pytest.raises(QueueNotFoundError):
        await enqueue(prepared, task(queue="NOPE"))
    assert (await record(prepared)).state is TaskState.QUEUE_ERROR


async def test_an_item_without_an_answer_leaves_the_task_new(lossy_store: Store, lossy: LossyTransport) -> None:
    lossy.lose_requests, lossy.only = 1, "CHORIA_AJ.Q."
    with pytest.raises(OutcomeUnknownError, match="enqueueing task t1"):
        await enqueue(lossy_store, task())
    assert (await record(lossy_store)).state is TaskState.NEW
    assert await item(lossy_store) is None
    # Doing it again finishes it, whenever that is.
    again = await enqueue(lossy_store, task(created_ns=NOW + 1))
    assert again == task()
    assert await item(lossy_store) is not None


async def test_a_save_without_an_answer_is_sent_again_by_itself(lossy_store: Store, lossy: LossyTransport) -> None:
    lossy.lose_answers, lossy.only = 1, "CHORIA_AJ.T."
    assert await enqueue(lossy_store, task()) == task()
    assert await item(lossy_store) is not None


async def test_enqueueing_again_makes_one_task_and_replaces_its_item(prepared: Store) -> None:
    await enqueue(prepared, task())
    first = await item(prepared)
    assert await enqueue(prepared, task(created_ns=NOW + 1, max_tries=3)) == task()
    assert await item(prepared) != first


async def test_many_who_enqueue_the_same_id_at_once_make_one_task(prepared: Store) -> None:
    tasks = await asyncio.gather(*(enqueue(prepared, task(created_ns=NOW + number)) for number in range(20)))
    assert len({stored.created_ns for stored in tasks}) == 1
    assert (await prepared.jetstream.stream_info("CHORIA_AJ_TASKS") or {})["state"]["messages"] == 1
    assert (await prepared.jetstream.stream_info(queue_stream("EMAIL")) or {})["state"]["messages"] == 1


@pytest.mark.parametrize(
    ("change", "what"), [({"type": "x"}, "type"), ({"queue": "OTHER"}, "queue"), ({"payload": b"[]"}, "payload")]
)
async def test_another_task_under_the_same_id_is_refused(prepared: Store, change: dict[str, Any], what: str) -> None:
    await enqueue(prepared, task())
    with pytest.raises(TaskExistsError, match=f"task t1 exists already with another {what}"):
        await enqueue(prepared, task(**change))
    assert await record(prepared) == task()


@pytest.mark.parametrize("state", [TaskState.ACTIVE, TaskState.RETRY, *IDLE])
async def test_a_task_that_has_moved_on_is_left_alone(prepared: Store, state: TaskState) -> None:
    moved = task(state=state, tries=1, tried_ns=NOW)
    await prepared.save(moved, expected=0, stamp=Stamp("b", ItemRef(1, 1)))
    assert await enqueue(prepared, task()) == moved
    assert await item(prepared) is None


async def test_a_blocked_task_is_put_into_its_queue_again(prepared: Store) -> None:
    blocked = task(state=TaskState.BLOCKED, dependencies=("t0",))
    await prepared.save(blocked, expected=0)
    assert await enqueue(prepared, blocked.replace(created_ns=NOW + 1)) == blocked
    assert await item(prepared) is not None


async def test_a_queue_error_is_new_again_when_enqueued_again(
    prepared: Store, states: "asyncio.Queue[tuple[str, str]]"
) -> None:
    await prepared.save(task(state=TaskState.QUEUE_ERROR, last_err="full"), expected=0)
    assert await enqueue(prepared, task(created_ns=NOW + 1)) == task()
    assert await record(prepared) == task()
    assert await item(prepared) is not None
    assert await states.get() == ("t1", "new")


async def test_a_record_that_cannot_be_read_is_not_overwritten(prepared: Store) -> None:
    await prepared.jetstream.publish(task_subject("t1"), b"{}")
    with pytest.raises(DecodeError):
        await enqueue(prepared, task())


async def test_a_refused_item_of_a_task_that_somebody_took_on_is_no_failure(prepared: Store) -> None:
    """The sweeper may have put the item there, and a bridge begun, before the queue was full for us."""

    class Overtaken(LossyTransport):
        async def request(self, subject: str, data: bytes = b"", **options: object) -> Message:
            if subject.startswith("CHORIA_AJ.Q."):
                stored = await loaded(prepared, "t1")
                await prepared.save(task(state=TaskState.ACTIVE, tries=1), expected=stored.sequence)
            return await super().request(subject, data, **options)  # type: ignore[arg-type]  # passed on

    await fill(prepared)
    stored = await enqueue(Store(JetStream(Overtaken(prepared.jetstream.transport))), task())
    assert stored.state is TaskState.ACTIVE


async def test_a_failure_that_cannot_be_saved_is_raised_all_the_same(
    lossy_store: Store, lossy: LossyTransport, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(LossyTransport):
        async def request(self, subject: str, data: bytes = b"", **options: object) -> Message:
            if b"queue_error" in data:
                raise NotConnectedError("gone")
            return await super().request(subject, data, **options)  # type: ignore[arg-type]  # passed on

    await fill(lossy_store)
    with pytest.raises(QueueFullError):
        await enqueue(Store(JetStream(Failing(lossy))), task())
    assert "task t1 was not enqueued, and that could not be saved: gone" in caplog.text
    assert (await record(lossy_store)).state is TaskState.NEW
