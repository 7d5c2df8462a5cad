"""What an administrator does with tasks, against servers of three versions."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.sdk.emails import NOW, task
from tests.sdk.pulling import take
from tests.sdk.world import GO_TASKS, World

from aj_sdk.admin import Admin
from aj_sdk.enqueue import enqueue
from aj_sdk.errors import (
    QueueNotFoundError,
    RefusedError,
    TaskChangedError,
    TaskNotFoundError,
    TaskStateError,
    UsageError,
)
from aj_sdk.queue import Queue
from aj_sdk.store import Store
from aj_sdk.task_filter import TaskFilter
from aj_sdk.tasks import Acted
from aj_sdk.wire.names import item_subject, task_subject
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.server

LISTED = 300


async def selected(admin: Admin, limit: int = 0, **conditions: Any) -> list[str]:
    return [stored.task_id async for stored in admin.tasks.select(TaskFilter(**conditions), limit=limit)]


@pytest.fixture(params=["direct", "no direct"])
async def tasks(any_world: World, request: pytest.FixtureRequest) -> World:
    """A task store with tasks of many kinds, made by us and as the Go project makes it."""
    await any_world.jetstream.create_stream({**GO_TASKS, "allow_direct": request.param == "direct"})
    states = [TaskState.NEW, TaskState.COMPLETE, TaskState.EXPIRED]
    for number in range(LISTED):
        kind, queue = f"type:{number % 2}", f"Q{number % 5}"
        record = task(f"t{number:03}", type=kind, queue=queue, state=states[number % 3])
        await any_world.store.save(record, expected=0)
    return any_world


async def test_tasks_are_listed_in_the_order_of_their_last_change(tasks: World) -> None:
    everything = [f"t{number:03}" for number in range(LISTED)]
    assert await selected(tasks.admin, 0) == everything
    assert await selected(tasks.admin, 3) == everything[:3]
    first = await tasks.store.load("t000")
    assert first is not None
    await tasks.store.save(first.readable().replace(tries=1), expected=first.sequence)
    assert await selected(tasks.admin, -1) == [*everything[1:], "t000"]


async def test_tasks_are_listed_by_condition(tasks: World) -> None:
    assert await selected(tasks.admin, states=[TaskState.COMPLETE]) == [f"t{n:03}" for n in range(1, LISTED, 3)]
    both = [f"t{number:03}" for number in range(LISTED) if number % 3 != 1]
    assert await selected(tasks.admin, 0, states={TaskState.NEW, TaskState.EXPIRED}) == both
    found = await selected(tasks.admin, 2, queue="Q4", type="type:1", states=[TaskState.NEW])
    assert found == ["t009", "t039"]
    assert await selected(tasks.admin, queue="NOPE") == []


async def test_a_filter_may_ask_for_the_last_error_and_for_the_time_of_creation(world: World) -> None:
    await world.admin.ensure_task_store()
    for number, error in enumerate(["", "Timeout of the relay", "no such user", "TIMEOUT"]):
        await world.store.save(task(f"t{number}", created_ns=NOW + number, last_err=error), expected=0)
    assert await selected(world.admin, error="timeout") == ["t1", "t3"]
    assert await selected(world.admin, since_ns=NOW + 1, before_ns=NOW + 3) == ["t1", "t2"]


async def test_a_store_that_changes_all_the_time_is_not_read_for_ever(world: World) -> None:
    await world.admin.ensure_task_store()
    for number in range(3):
        await world.store.save(task(f"t{number}"), expected=0)
    seen = []
    async for stored in world.admin.tasks.select():
        seen.append(stored.task_id)
        await world.store.save(stored.readable().replace(tries=1), expected=stored.sequence)
    assert seen == ["t0", "t1", "t2"]


async def test_a_record_that_cannot_be_read_is_listed_with_its_fault(world: World) -> None:
    await world.admin.ensure_task_store()
    await world.jetstream.publish(task_subject("t1"), b"{}")
    await world.store.save(task("t2"), expected=0)
    found = [stored async for stored in world.admin.tasks.select()]
    assert [(stored.task_id, bool(stored.fault)) for stored in found] == [("t1", True), ("t2", False)]
    assert await selected(world.admin, queue="EMAIL") == ["t2"]


async def test_listing_without_a_task_store_says_what_makes_it(world: World) -> None:
    with pytest.raises(RefusedError, match="ajc task initialize"):
        await selected(world.admin)


@pytest.fixture
async def prepared(world: World) -> World:
    await world.admin.ensure_task_store()
    await world.admin.create_queue(Queue("EMAIL"))
    return world


async def test_a_task_goes_with_its_item_and_its_schedule(prepared: World) -> None:
    await enqueue(prepared.store, task())
    await prepared.store.park_item("EMAIL", "t1", 2 * NOW)
    await enqueue(prepared.store, task("t2"))
    await prepared.admin.tasks.delete("t1")
    assert await prepared.store.load("t1") is None
    assert await prepared.store.find_items("EMAIL", "t1") == []
    assert await prepared.store.load("t2") is not None
    assert len(await prepared.store.find_items("EMAIL", "t2")) == 1
    with pytest.raises(TaskNotFoundError):
        await prepared.admin.tasks.delete("t1")


async def test_a_record_that_cannot_be_read_can_be_removed(prepared: World) -> None:
    await prepared.jetstream.publish(task_subject("t1"), b"{}")
    await prepared.admin.tasks.delete("t1")
    assert await prepared.store.load("t1") is None


async def test_a_task_that_changes_while_it_is_removed_goes_all_the_same(prepared: World) -> None:
    class Busy(Store):
        changes = 3

        async def find_items(self, queue: str, task_id: str) -> Any:
            found = await super().find_items(queue, task_id)
            if self.changes:
                self.changes -= 1
                stored = await self.load(task_id)
                assert stored is not None
                await self.save(stored.readable().replace(tries=self.changes), expected=stored.sequence)
            return found

    await enqueue(prepared.store, task())
    await Admin(prepared.jetstream, Busy(prepared.jetstream)).tasks.delete("t1")
    assert await prepared.store.load("t1") is None
    assert await prepared.store.find_items("EMAIL", "t1") == []


async def test_the_save_of_a_bridge_after_the_removal_is_refused(prepared: World) -> None:
    await enqueue(prepared.store, task())
    stored = await prepared.store.load("t1")
    assert stored is not None
    await prepared.admin.tasks.delete("t1")
    with pytest.raises(Exception, match="changed by somebody else"):
        await prepared.store.save_surely(task(state=TaskState.COMPLETE), expected=stored.sequence)


async def test_a_task_that_has_ended_is_retried_in_its_own_queue(prepared: World) -> None:
    await prepared.store.save(task(state=TaskState.EXPIRED, tries=3), expected=0)
    assert await prepared.admin.tasks.retry("t1") == task()
    assert (await take(prepared.jetstream, "EMAIL")).subject == item_subject("EMAIL", "t1")
    with pytest.raises(TaskStateError):
        await prepared.admin.tasks.retry("t1")


async def test_many_tasks_start_over_are_cancelled_and_go(prepared: World) -> None:
    tasks = prepared.admin.tasks
    for number in range(9):
        state = [TaskState.EXPIRED, TaskState.NEW, TaskState.COMPLETE][number % 3]
        await prepared.store.save(task(f"t{number}", state=state), expected=0)

    async def acted(found: AsyncIterator[Acted]) -> dict[str, TaskState | None]:
        return {each.task_id: None if each.task is None else each.task.state async for each in found}

    expired = TaskFilter(states=[TaskState.EXPIRED])
    again = await acted(tasks.retry_many(expired, at_once=2, limit=2))
    assert again == {"t0": TaskState.NEW, "t3": TaskState.NEW}
    ended = await acted(tasks.cancel_many(TaskFilter(states=[TaskState.NEW]), "enough", at_once=100))
    assert ended == dict.fromkeys(["t1", "t4", "t7", "t0", "t3"], TaskState.TERMINATED)
    assert set(await selected(prepared.admin, error="enough")) == set(ended)
    assert await acted(tasks.delete_many(TaskFilter(states=[TaskState.COMPLETE]))) == dict.fromkeys(["t2", "t5", "t8"])
    assert set(await selected(prepared.admin)) == {"t0", "t1", "t3", "t4", "t6", "t7"}


async def test_what_goes_wrong_with_one_of_many_is_told_and_the_others_go_on(prepared: World) -> None:
    for name, queue in (("t1", "EMAIL"), ("t2", "GONE"), ("t3", "EMAIL")):
        await prepared.store.save(task(name, state=TaskState.EXPIRED, queue=queue), expected=0)
    wanted = TaskFilter(type="email:new")
    acted = {each.task_id: each.error async for each in prepared.admin.tasks.retry_many(wanted)}
    assert [type(error) for error in acted.values()] == [type(None), QueueNotFoundError, type(None)]
    for filter_, at_once in ((TaskFilter(), 1), (wanted, 0)):
        with pytest.raises(UsageError):
            await anext(prepared.admin.tasks.cancel_many(filter_, at_once=at_once))


@pytest.mark.parametrize("act", ["retry", "cancel", "delete"])
async def test_a_task_that_is_not_meant_any_more_is_left_alone(prepared: World, act: str) -> None:
    """Between the look and the act somebody else may have been there."""
    await enqueue(prepared.store, task())
    before = await prepared.store.load("t1")
    do = getattr(prepared.admin.tasks, act)
    with pytest.raises(TaskChangedError, match="is none of those that were meant any more: its state is 'new'"):
        await do("t1", only=TaskFilter(states=[TaskState.EXPIRED]))
    assert await prepared.store.load("t1") == before


async def test_all_tasks_are_purged(prepared: World) -> None:
    for number in range(3):
        await enqueue(prepared.store, task(f"t{number}"))
    assert await prepared.admin.tasks.purge() == 3
    assert (await prepared.admin.task_store_info()).tasks == 0
    assert (await prepared.admin.queue_info("EMAIL")).items == 3
