"""Acts of an administrator on tasks that bridges have in hand, in virtual time: cancel, retry by force, delete."""

import asyncio
import logging

import pytest
from tests.bridge.engine.bridges import DONE, QUEUE, Invocation, Outcome, Site, failing, one_bridge, site
from tests.bridge.engine.desk import Desk
from tests.virtual_time import virtual_time

from aj_bridge.engine import meter as m
from aj_bridge.storage.memory import Fault
from aj_sdk.errors import ConflictError, DeadlinePassedError, OutcomeUnknownError, TaskNotFoundError, TaskStateError
from aj_sdk.wire.call import Completed, Failed
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_S

UNKNOWN = OutcomeUnknownError("test")
HOUR_S = 3600.0


def now() -> float:
    return asyncio.get_running_loop().time()


async def calls_end(here: Site) -> None:
    """Wait until no call is under way."""
    while any(call.ended is None for call in here.handlers.calls):  # noqa: ASYNC110 - a look costs nothing
        await asyncio.sleep(0.01)


# Cancel.


@virtual_time
async def test_a_cancelled_call_is_stopped_and_its_slot_is_free_at_once() -> None:
    here = site()
    here.handlers.takes("t", HOUR_S)
    desk = Desk(here)
    async with here.bridge(concurrency=1) as bridge:
        here.enqueue("a")
        here.enqueue("b", "quick")
        await here.handlers.begun(1)
        began = now()
        ended = await desk.tasks.cancel("a", "not needed")
        await here.ended("b")
        assert now() - began < 0.1
        await here.quiet()
    assert (ended.state, ended.last_err, ended.tries) == (TaskState.TERMINATED, "cancelled: not needed", 1)
    assert here.record("a") == ended
    assert here.states("a") == ["new", "active", "terminated"]
    assert here.handlers.calls[0].outcome is None
    assert here.world.dead["terminated", QUEUE, "a"].detail == "cancelled: not needed"
    assert [event.state for event in here.events if event.task_id == "a"] == ["active", "terminated"]
    assert bridge.meter.counts[m.STOPPED] == 1
    assert bridge.processor.busy == 0


@virtual_time
async def test_a_cancelled_task_in_a_queue_is_never_called() -> None:
    here = site()
    here.enqueue("a")
    await Desk(here).tasks.cancel("a")
    assert len(here.world.queue(QUEUE)) == 0
    assert ("terminated", QUEUE, "a") in here.world.dead
    async with here.bridge():
        here.enqueue("b")
        await here.ended("b")
    assert [call.task.id for call in here.handlers.calls] == ["b"]
    assert here.record("a").last_err == "cancelled"


@virtual_time
@pytest.mark.parametrize("schedules", [True, False])
async def test_a_cancelled_task_that_waits_leaves_nothing_behind(schedules: bool) -> None:
    here = site(schedules=schedules)
    here.handlers.answers("t", Failed("why", 600 * NS_PER_S))
    async with here.bridge() as bridge:
        here.enqueue("a")
        await here.until(lambda: here.record("a").state is TaskState.RETRY)
        while bridge.processor.busy:  # noqa: ASYNC110 - a look costs nothing
            await asyncio.sleep(0.01)
        await Desk(here).tasks.cancel("a")
        assert here.world.standing(QUEUE, "a") is None
        assert len(here.world.queue(QUEUE)) == here.world.queue(QUEUE).in_flight == 0
    assert here.states("a")[-1] == "terminated"
    assert len(here.handlers.calls) == 1


@virtual_time
async def test_being_told_of_a_cancel_that_did_not_happen_stops_nothing() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.takes("t", 60)
        here.enqueue("a")
        await here.handlers.begun(1)
        for task_id in ("a", "b"):
            here.tell_cancelled(task_id)
        (record,) = await here.ended("a")
    assert record.state is TaskState.COMPLETE
    assert bridge.meter.counts[m.STOPPED] == 0


@virtual_time
async def test_being_told_often_reads_the_record_once_more_at_most() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.takes("t", 60)
        here.enqueue("a")
        await here.handlers.begun(1)
        bridge.link.latency_s = 1.0
        looks = 0

        def count(act: str, _about: object) -> Fault | None:
            nonlocal looks
            looks += act == "load"
            return None

        bridge.link.faults = count
        for _ in range(2):
            for _ in range(100):
                here.tell_cancelled("a")
            await asyncio.sleep(0.5)  # the first look is under way
        await here.ended("a")
    assert looks == 2


@virtual_time
async def test_a_cancel_that_nobody_hears_of_is_found_out_by_the_refused_outcome() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.takes("t", 60)
        here.enqueue("a")
        await here.handlers.begun(1)
        desk = Desk(here)
        desk.link.faults = failing("cancelled", Fault(UNKNOWN))
        await desk.tasks.cancel("a")
        await calls_end(here)
        await here.quiet()
        while bridge.processor.busy:  # noqa: ASYNC110 - a look costs nothing
            await asyncio.sleep(0.01)
    assert here.handlers.calls[0].outcome == DONE
    assert here.states("a") == ["new", "active", "terminated"]
    assert (bridge.meter.counts[m.STOPPED], bridge.meter.counts[m.REFUSED]) == (0, 1)


@virtual_time
async def test_a_record_that_cannot_be_read_at_once_is_read_again() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.takes("t", HOUR_S)
        here.enqueue("a")
        await here.handlers.begun(1)
        bridge.link.faults = failing("load", Fault(UNKNOWN), times=3)
        await Desk(here).tasks.cancel("a")
        await calls_end(here)
    assert bridge.meter.counts[m.STOPPED] == 1


@virtual_time
@pytest.mark.parametrize("act", ["bury", "purge"])
async def test_what_a_cancel_left_undone_is_done_by_the_bridge_that_has_the_item(act: str) -> None:
    here = site()
    here.enqueue("a")
    desk = Desk(here)
    desk.link.faults = failing(act, Fault(UNKNOWN))
    with pytest.raises(OutcomeUnknownError):
        await desk.tasks.cancel("a")
    assert here.record("a").state is TaskState.TERMINATED
    async with here.bridge():
        await here.quiet()
    assert ("terminated", QUEUE, "a") in here.world.dead
    assert not here.handlers.calls


@virtual_time
async def test_what_a_cancel_left_undone_is_done_by_doing_it_again() -> None:
    here = site()
    here.enqueue("a")
    desk = Desk(here)
    desk.link.faults = failing("bury", Fault(UNKNOWN))
    with pytest.raises(OutcomeUnknownError):
        await desk.tasks.cancel("a", "why")
    again = await desk.tasks.cancel("a", "another")
    assert again.last_err == "cancelled: why"
    assert here.states("a") == ["new", "terminated"]
    assert ("terminated", QUEUE, "a") in here.world.dead
    assert len(here.world.queue(QUEUE)) == 0


@virtual_time
@pytest.mark.parametrize("state", [TaskState.COMPLETE, TaskState.EXPIRED, TaskState.UNREACHABLE, TaskState.QUEUE_ERROR])
async def test_a_task_that_has_ended_cannot_be_cancelled(state: TaskState) -> None:
    here = site()
    record = here.enqueue("a").replace(state=state)
    here.world.put("a", record.to_wire())
    with pytest.raises(TaskStateError, match=f"cannot cancel task a in state '{state.value}'"):
        await Desk(here).tasks.cancel("a")
    assert here.record("a") == record


@virtual_time
@pytest.mark.parametrize(
    "state", [TaskState.UNKNOWN, TaskState.NEW, TaskState.BLOCKED, TaskState.RETRY, TaskState.ACTIVE]
)
async def test_a_task_can_be_cancelled_in_every_unfinished_state(state: TaskState) -> None:
    here = site()
    record = here.enqueue("a").replace(state=state)
    here.world.put("a", record.to_wire())
    assert (await Desk(here).tasks.cancel("a")).state is TaskState.TERMINATED


@virtual_time
async def test_a_cancel_whose_save_is_refused_looks_again() -> None:
    here = site()
    here.enqueue("a")
    desk = Desk(here)

    def overtake(act: str, _about: object) -> Fault | None:
        if act == "find":
            stored = here.world.get("a")
            assert stored is not None
            assert stored.record is not None
            if stored.record.tries < 3:
                here.world.put("a", stored.record.replace(tries=stored.record.tries + 1).to_wire())
        return None

    desk.link.faults = overtake
    assert (await desk.tasks.cancel("a")).tries == 3

    here.enqueue("b")

    def overtake_always(act: str, _about: object) -> Fault | None:
        if act == "find":
            here.world.put("b", here.record("b").to_wire())
        return None

    desk.link.faults = overtake_always
    with pytest.raises(ConflictError):
        await desk.tasks.cancel("b")


@virtual_time
async def test_a_cancel_does_not_take_away_the_item_of_a_retry_in_between() -> None:
    here = site()
    here.enqueue("a")
    desk, other = Desk(here), Desk(here)
    desk.link.latency_s = 1.0
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.tasks.cancel("a"))
        await here.until(lambda: here.record("a").state is TaskState.TERMINATED)
        await other.tasks.retry("a")
    assert here.record("a").state is TaskState.NEW
    assert len(here.world.queue(QUEUE)) == 1
    # Nor does one that is repeated: it has read a `terminated` record, and the item of the retry after it.
    stored = here.record("a").replace(state=TaskState.TERMINATED)
    here.world.put("a", stored.to_wire())
    async with asyncio.TaskGroup() as group:
        repeated = group.create_task(desk.tasks.cancel("a"))
        await asyncio.sleep(1.5)
        await other.tasks.retry("a")
    assert (await repeated).state is TaskState.TERMINATED
    assert here.states("a")[-2:] == ["new", "terminated"]
    assert len(here.world.queue(QUEUE)) == 0


@virtual_time
async def test_a_bridge_that_stops_while_a_call_is_being_stopped_lets_go_of_all() -> None:
    here = site()

    async def stubborn(_call: Invocation) -> Outcome:
        try:
            await asyncio.sleep(HOUR_S)
        except asyncio.CancelledError:
            await asyncio.sleep(5)  # as a dispatch does that tells its handler
            raise
        return DONE

    here.handlers.on("t", stubborn)
    bridge = here.bridge(grace_s=0.0)
    bridge.start()
    here.enqueue("a")
    await here.handlers.begun(1)
    await Desk(here).tasks.cancel("a")
    await asyncio.sleep(1)
    assert await bridge.drain() == 1
    assert bridge.processor.busy == 0


# Retry by force.


@virtual_time
async def test_a_running_task_starts_over_by_force_only_after_its_call_was_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = site()
    here.handlers.takes("t", HOUR_S)
    async with here.bridge():
        here.enqueue("a", max_tries=1)
        await here.handlers.begun(1)
        here.handlers.answers("t", DONE)
        desk = Desk(here)
        with pytest.raises(TaskStateError, match="cannot retry task a in state 'active'"):
            await desk.tasks.retry("a")
        began = now()
        fresh = await desk.tasks.retry("a", force=True)
        (record,) = await here.ended("a")
        assert now() - began < 1
        await here.quiet()
    assert (fresh.state, fresh.tries) == (TaskState.NEW, 0)
    assert (record.state, record.tries) == (TaskState.COMPLETE, 1)
    assert here.states("a") == ["new", "active", "active", "new", "active", "complete"]
    first, second = here.handlers.calls
    assert first.ended is not None
    assert first.ended <= second.began
    assert not caplog.records


@virtual_time
async def test_a_run_that_may_go_on_beside_the_new_one_is_told(caplog: pytest.LogCaptureFixture) -> None:
    here = site()
    here.handlers.takes("t", 60, Completed(b"late"))
    async with here.bridge() as first, here.bridge():
        here.enqueue("a")
        await here.handlers.begun(1)
        owner = here.handlers.calls[0].bridge
        here.neighbours.running[owner].link.cut()
        here.handlers.answers("t", DONE)
        await Desk(here).tasks.retry("a", force=True)
        await here.ended("a")
        here.neighbours.running[owner].link.mend()
        await calls_end(here)
        await here.quiet()
        assert first.name
    assert f"bridge {owner} does not answer, and may be at work on it" in caplog.text
    assert here.states("a") == ["new", "active", "active", "new", "active", "complete"]


@virtual_time
async def test_nobody_begins_the_new_run_while_the_old_call_is_being_stopped() -> None:
    """Not even with another item of the task, which would do if the record said `new` already."""
    here = site()

    async def slow_to_stop(_call: Invocation) -> Outcome:
        try:
            await asyncio.sleep(HOUR_S)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            raise
        return DONE

    here.handlers.on("t", slow_to_stop)
    async with here.bridge(), here.bridge():
        here.enqueue("a")
        await here.handlers.begun(1)
        here.handlers.answers("t", DONE)
        async with asyncio.TaskGroup() as group:
            group.create_task(Desk(here).tasks.retry("a", force=True))
            await asyncio.sleep(0.1)
            here.world.publish(QUEUE, "a", replace=True)
        await here.ended("a")
        await here.quiet()
    first, second = here.handlers.calls
    assert first.ended is not None
    assert first.ended <= second.began


@virtual_time
async def test_a_task_that_was_seized_and_left_is_taken_over() -> None:
    here = site(lease_s=30)
    here.handlers.takes("t", HOUR_S)
    desk = Desk(here)
    async with here.bridge():
        here.enqueue("a")
        await here.handlers.begun(1)
        here.handlers.answers("t", DONE)
        desk.link.faults = failing("save", Fault(UNKNOWN), times=100, when=lambda body: b'"new"' in str(body).encode())
        with pytest.raises(OutcomeUnknownError):
            await desk.tasks.retry("a", force=True)
        began = now()
        (record,) = await here.ended("a")
        assert now() - began <= 30 + 5
    assert (record.state, record.tries) == (TaskState.COMPLETE, 2)


@virtual_time
async def test_a_task_that_waits_starts_over_by_force_at_once() -> None:
    here = site()
    here.handlers.answers("t", Failed("why", 600 * NS_PER_S), DONE)
    async with here.bridge():
        here.enqueue("a")
        await here.until(lambda: here.record("a").state is TaskState.RETRY)
        began = now()
        await Desk(here).tasks.retry("a", force=True)
        (record,) = await here.ended("a")
        assert now() - began < 1
    assert record.tries == 1
    assert here.world.standing(QUEUE, "a") is None


@virtual_time
async def test_a_go_workers_run_cannot_be_stopped_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    here = site()
    record = here.enqueue("a").replace(state=TaskState.ACTIVE, tries=1)
    here.world.put("a", record.to_wire())
    with caplog.at_level(logging.WARNING):
        await Desk(here).tasks.retry("a", force=True)
    assert "a Go worker may still be at work on it" in caplog.text


@virtual_time
async def test_a_task_whose_deadline_has_passed_starts_over_with_another_deadline_only() -> None:
    here = site()
    record = here.enqueue("a", deadline_ns=here.world.now_ns() - 1).replace(state=TaskState.EXPIRED)
    here.world.put("a", record.to_wire())
    desk = Desk(here)
    with pytest.raises(DeadlinePassedError, match="it could only expire again"):
        await desk.tasks.retry("a")
    assert here.record("a") == record
    assert (await desk.tasks.retry("a", deadline=None)).deadline_ns is None


# Children.


@virtual_time
@pytest.mark.parametrize("act", ["cancel", "delete"])
async def test_children_of_a_task_that_is_cancelled_or_deleted_never_start(act: str) -> None:
    """With no bridge at the parent's item: it waits for a day, outside of its queue."""
    here = site()
    here.handlers.answers("parent", Failed("why", 86_400 * NS_PER_S))
    async with here.bridge():
        here.enqueue("a", "parent")
        here.enqueue("b", dependencies=("a",))
        here.enqueue("c", dependencies=("b",))
        await here.until(lambda: here.record("a").state is TaskState.RETRY)
        await asyncio.sleep(300)  # they look once a minute by now
        began = now()
        await getattr(Desk(here).tasks, act)("a")
        await here.ended("b", "c")
        assert now() - began < 1
        await here.quiet()
    assert [here.record(name).state for name in "bc"] == [TaskState.UNREACHABLE] * 2
    assert [call.task.id for call in here.handlers.calls] == ["a"]
    assert len(here.world.edges) == 0 or act == "delete"


@virtual_time
async def test_a_child_of_a_deleted_task_that_had_completed_runs() -> None:
    here = site()
    here.enqueue("a")
    here.world.put("a", here.record("a").replace(state=TaskState.COMPLETE).to_wire())  # as a Go worker does
    here.enqueue("b", dependencies=("a", "z"))
    here.enqueue("z", "later")
    here.handlers.takes("later", 60)
    async with here.bridge():
        await here.handlers.begun(1)
        await asyncio.sleep(1)
        await Desk(here).tasks.delete("a")
        (record,) = await here.ended("b")
    assert record.state is TaskState.COMPLETE


@virtual_time
async def test_a_child_that_starts_over_waits_for_its_parents_again() -> None:
    here = site()
    here.handlers.answers("parent", Failed("why"), DONE)
    async with here.bridge():
        here.enqueue("a", "parent", max_tries=1)
        here.enqueue("b", dependencies=("a",))
        await here.ended("a", "b")
        desk = Desk(here)
        assert (await desk.tasks.retry("b")).state is TaskState.BLOCKED
        await here.until(lambda: here.record("b").state is TaskState.UNREACHABLE)
        await desk.tasks.retry("a")
        await desk.tasks.retry("b")
        (record,) = await here.ended("b")
    assert record.state is TaskState.COMPLETE
    calls = [call.task.id for call in here.handlers.calls]
    assert calls == ["a", "a", "b"]


# Delete.


@virtual_time
async def test_a_running_task_that_is_deleted_is_stopped_and_leaves_nothing() -> None:
    here = site()
    here.handlers.takes("t", HOUR_S)
    async with here.bridge(concurrency=1) as bridge:
        here.enqueue("a")
        await here.handlers.begun(1)
        desk = Desk(here)
        await desk.tasks.delete("a")
        await calls_end(here)
        await here.quiet()
        here.enqueue("b", "quick")
        await here.ended("b")
        with pytest.raises(TaskNotFoundError):
            await desk.tasks.delete("a")
    assert here.world.get("a") is None
    assert bridge.meter.counts[m.STOPPED] == 1
    assert not here.world.dead
