"""A task that has ended starts over, against a real server."""

import asyncio
from collections.abc import Iterable

import pytest
from tests.sdk.emails import NOW, fill, item, record, task

from aj_sdk.enqueue import loaded
from aj_sdk.errors import (
    ConflictError,
    DeadlinePassedError,
    DecodeError,
    QueueFullError,
    SignatureError,
    TaskNotFoundError,
    TaskStateError,
)
from aj_sdk.retry import retry
from aj_sdk.store import Place, Store
from aj_sdk.wire.names import queue_stream, task_subject
from aj_sdk.wire.signing import Signer, Verifier
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import FINAL_STATES, TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult

pytestmark = pytest.mark.server


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
async def test_a_task_that_has_ended_starts_over(
    prepared: Store, states: "asyncio.Queue[tuple[str, str]]", state: TaskState
) -> None:
    ended = task(
        state=state,
        tries=3,
        tried_ns=NOW,
        last_err="boom",
        result=TaskResult(payload="x", completed_ns=NOW),
        signature="ab" * 64,
        extra={"trace": 1},
    )
    await prepared.save(ended, expected=0, stamp=Stamp("b", ItemRef(1, 1)))
    fresh = await retry(prepared, "t1")
    assert fresh == task(signature="ab" * 64, extra={"trace": 1})
    stored = await loaded(prepared, "t1")
    assert (stored.record, stored.stamp) == (fresh, None)
    assert await item(prepared) is not None
    assert await states.get() == ("t1", "new")


async def test_a_task_with_dependencies_starts_over_as_blocked(prepared: Store) -> None:
    ended = task(state=TaskState.UNREACHABLE, dependencies=("t0",), dependency_results={"t0": None})
    await prepared.save(ended, expected=0)
    assert await retry(prepared, "t1") == task(state=TaskState.BLOCKED, dependencies=("t0",))


@pytest.mark.parametrize("state", sorted(set(TaskState) - FINAL_STATES))
async def test_a_task_that_has_not_ended_cannot_be_retried(prepared: Store, state: TaskState) -> None:
    await prepared.save(task(state=state), expected=0)
    with pytest.raises(TaskStateError, match=f"cannot retry task t1 in state '{state.value}'"):
        await retry(prepared, "t1")


async def test_a_task_without_a_queue_cannot_be_retried(prepared: Store) -> None:
    await prepared.save(task(state=TaskState.EXPIRED, queue=""), expected=0)
    with pytest.raises(TaskStateError, match="it has no queue"):
        await retry(prepared, "t1")


async def test_a_task_that_is_not_there_cannot_be_retried(prepared: Store) -> None:
    with pytest.raises(TaskNotFoundError):
        await retry(prepared, "t1")


async def test_a_record_that_cannot_be_read_cannot_be_retried(prepared: Store) -> None:
    await prepared.jetstream.publish(task_subject("t1"), b"{}")
    with pytest.raises(DecodeError):
        await retry(prepared, "t1")


async def test_a_retry_replaces_the_old_item_and_removes_the_old_schedule(prepared: Store) -> None:
    await prepared.save(task(state=TaskState.EXPIRED), expected=0)
    await prepared.publish_item("EMAIL", "t1")
    await prepared.park_item("EMAIL", "t1", 2 * NOW)
    old = await item(prepared)
    await retry(prepared, "t1")
    assert await item(prepared) not in (None, old)
    assert [place.stream for place in await prepared.find_items("EMAIL", "t1")] == [queue_stream("EMAIL")]


async def test_a_schedule_of_the_new_round_survives_the_retry(prepared: Store) -> None:
    class Overtaken(Store):
        async def remove_items(self, places: Iterable[Place]) -> None:
            await prepared.park_item("EMAIL", "t1", 2 * NOW)
            await super().remove_items(places)

    await prepared.save(task(state=TaskState.EXPIRED), expected=0)
    await prepared.park_item("EMAIL", "t1", 2 * NOW)
    await retry(Overtaken(prepared.jetstream), "t1")
    assert await prepared.standing("EMAIL", "t1") is not None


async def test_of_two_who_retry_one_wins(prepared: Store) -> None:
    await prepared.save(task(state=TaskState.EXPIRED), expected=0)
    done = await asyncio.gather(retry(prepared, "t1"), retry(prepared, "t1"), return_exceptions=True)
    kinds = {type(outcome) for outcome in done}
    assert TaskRecord in kinds
    assert kinds <= {TaskRecord, ConflictError, TaskStateError}
    assert (await record(prepared)).state is TaskState.NEW


async def test_a_task_whose_deadline_has_passed_needs_another_one(prepared: Store) -> None:
    ended = task(state=TaskState.EXPIRED, tries=3, deadline_ns=NOW)
    await prepared.save(ended, expected=0)
    with pytest.raises(DeadlinePassedError, match="passed at 2023-11-14 22:13:20 UTC: it could only expire again"):
        await retry(prepared, "t1")
    assert await record(prepared) == ended
    assert (await retry(prepared, "t1", deadline_ns=None)).deadline_ns is None


async def test_a_new_deadline_needs_a_new_signature(prepared: Store) -> None:
    signer = Signer("11" * 32)
    ended = signer.sign(task(state=TaskState.EXPIRED, deadline_ns=NOW))
    await prepared.save(ended, expected=0)
    with pytest.raises(SignatureError, match="changing it needs the signing key"):
        await retry(prepared, "t1", deadline_ns=None)
    assert await record(prepared) == ended
    fresh = await retry(prepared, "t1", deadline_ns=None, signer=signer)
    Verifier(signer.public_key_hex).verify(fresh)
    assert fresh.signature != ended.signature
    # All else keeps the one that it has.
    await prepared.save(fresh.replace(state=TaskState.EXPIRED), expected=(await loaded(prepared, "t1")).sequence)
    assert (await retry(prepared, "t1", signer=Signer("22" * 32))).signature == fresh.signature


async def test_a_waiting_task_without_an_item_gets_one_by_force(prepared: Store) -> None:
    await prepared.save(task(state=TaskState.RETRY, tries=3), expected=0)
    assert await retry(prepared, "t1", force=True) == task()
    assert await item(prepared) is not None


async def test_a_retry_into_a_full_queue_is_a_queue_error_that_can_be_retried(prepared: Store) -> None:
    await prepared.save(task(state=TaskState.EXPIRED), expected=0)
    await fill(prepared)
    with pytest.raises(QueueFullError):
        await retry(prepared, "t1")
    assert (await record(prepared)).state is TaskState.QUEUE_ERROR
    await prepared.remove_item("EMAIL", "a")
    assert (await retry(prepared, "t1")).state is TaskState.NEW
