"""The processor on a storage in memory, in virtual time: each way a claim can go, and each way storage can fail it."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from tests.bridge.engine.bridges import DONE, QUEUE, REFUSED, Invocation, Site, failing, one_bridge, site
from tests.signatures import attacks
from tests.virtual_time import virtual_time

from aj_bridge.core.deliver import Holder
from aj_bridge.core.retention import Retention
from aj_bridge.engine import meter as m
from aj_bridge.engine.router import Route, Router
from aj_bridge.storage.memory import Fault
from aj_sdk.errors import NotConnectedError, OutcomeUnknownError, RefusedError, StoreError
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.signing import Signer, Verifier
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

UNKNOWN = OutcomeUnknownError("test")


def now() -> float:
    return asyncio.get_running_loop().time()


def in_state(*states: TaskState) -> Callable[[Any], bool]:
    return lambda record: isinstance(record, TaskRecord) and record.state in states


# The main way.


@virtual_time
async def test_a_task_is_saved_active_then_called_then_saved_complete_and_its_item_goes() -> None:
    async with one_bridge() as (here, bridge):
        here.enqueue("a", payload=b"{}")
        (record,) = await here.ended("a")
        await here.quiet()
    assert here.states("a") == ["new", "active", "complete"]
    assert record.tries == 1
    assert record.result is not None
    assert record.result.payload == "ZG9uZQ=="
    (call,) = here.handlers.calls
    assert call.task.state is TaskState.ACTIVE
    assert call.task.tries == 1
    assert (call.subject, call.run_time_ns) == ("CHORIA_AJ.H.T.t", 3600 * NS_PER_S)
    assert [event.state for event in here.events] == ["active", "complete"]
    assert bridge.processor.busy == 0


@virtual_time
async def test_the_save_before_a_call_names_its_owner_and_its_item() -> None:
    async with one_bridge() as (here, bridge):
        here.enqueue("a")
        await here.ended("a")
    stamps = [stored.stamp for _, stored in here.saves]
    assert stamps == [None, Stamp(bridge.name, ItemRef(1, 1)), Stamp(bridge.name, ItemRef(1, 1))]


@virtual_time
async def test_a_failed_try_waits_for_its_backoff_outside_the_queue() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.answers("t", Failed("first"), Failed("second"), DONE)
        here.enqueue("a")
        (record,) = await here.ended("a")
    assert here.states("a") == ["new", "active", "retry", "active", "retry", "active", "complete"]
    assert (record.tries, record.last_err) == (3, "")
    began = [call.began for call in here.handlers.calls]
    # Policy 1m without its random part: half of 3.95 s, half of 6.9 s.
    assert [round(after - before, 3) for before, after in pairwise(began)] == [1.975, 3.45]
    assert bridge.meter.counts[m.PARKED] == 2


@virtual_time
async def test_the_delay_that_a_handler_asks_for_takes_the_place_of_the_backoff() -> None:
    async with one_bridge() as (here, _):
        here.handlers.answers("t", Failed("later", retry_after_ns=90 * NS_PER_S), DONE)
        here.enqueue("a")
        await here.ended("a")
    began = [call.began for call in here.handlers.calls]
    assert round(began[1] - began[0], 3) == 90


@virtual_time
async def test_the_last_try_that_fails_expires_the_task_at_once_with_a_dead_letter() -> None:
    async with one_bridge() as (here, _):
        here.handlers.answers("t", Failed("why"))
        here.enqueue("a", max_tries=2)
        (record,) = await here.ended("a")
        await here.quiet()
    assert here.states("a") == ["new", "active", "retry", "active", "expired"]
    assert (record.tries, record.last_err) == (2, "why")
    letter = here.world.dead["expired", QUEUE, "a"]
    assert (letter.detail, letter.tries, letter.task_type) == ("why", 2, "t")
    assert TaskRecord.from_wire(letter.body) == record


@virtual_time
async def test_a_terminated_task_is_not_tried_again() -> None:
    async with one_bridge() as (here, _):
        here.handlers.answers("t", Terminated("no such address"))
        here.enqueue("a")
        (record,) = await here.ended("a")
        await here.quiet()
    assert here.states("a") == ["new", "active", "terminated"]
    assert record.last_err == "no such address"
    assert here.world.dead["terminated", QUEUE, "a"].detail == "no such address"
    assert len(here.handlers.calls) == 1


@virtual_time
async def test_no_more_claims_are_in_hand_than_may_be() -> None:
    here = site()
    here.handlers.takes("t", 1.0)
    async with here.bridge(concurrency=3):
        names = [f"t{number}" for number in range(20)]
        for name in names:
            here.enqueue(name)
        await here.ended(*names)
    edges = sorted(
        [(call.began, 1) for call in here.handlers.calls] + [(call.span[1], -1) for call in here.handlers.calls]
    )
    at_once = 0
    highest = 0
    for _, step in edges:
        at_once += step
        highest = max(highest, at_once)
    assert highest == 3
    assert len(here.handlers.calls) == 20


@virtual_time
async def test_a_handler_that_never_answers_fails_the_try_after_the_run_time() -> None:
    async with one_bridge(max_run_time_ns=60 * NS_PER_S) as (here, _):
        here.handlers.takes("t", 1e6)
        here.enqueue("a", max_tries=1)
        began = now()
        (record,) = await here.ended("a")
        assert round(now() - began) == 60
    assert record.state is TaskState.EXPIRED


@virtual_time
async def test_a_lease_is_renewed_for_as_long_as_the_handler_works() -> None:
    async with one_bridge(lease_s=1.0) as (here, _):
        here.handlers.takes("t", 600.0)
        here.enqueue("a")
        await here.ended("a")
        await here.quiet()
    assert len(here.handlers.calls) == 1


@virtual_time
async def test_a_task_past_its_deadline_expires_without_a_call() -> None:
    async with one_bridge() as (here, bridge):
        here.enqueue("a", deadline_ns=here.world.now_ns() - 1)
        (record,) = await here.ended("a")
        await here.quiet()
    assert (record.state, record.last_err) == (TaskState.EXPIRED, "past deadline")
    assert not here.handlers.calls
    assert bridge.meter.counts[m.PAST_DEADLINE] == 1


@virtual_time
async def test_a_task_whose_backoff_reaches_beyond_its_deadline_expires_right_after_it() -> None:
    async with one_bridge() as (here, _):
        here.handlers.answers("t", Failed("why", retry_after_ns=3600 * NS_PER_S))
        here.enqueue("a", deadline_ns=here.world.now_ns() + 10 * NS_PER_S)
        began = now()
        (record,) = await here.ended("a")
        assert round(now() - began, 2) == 10
    assert (record.state, record.last_err) == (TaskState.EXPIRED, "why")


@virtual_time
async def test_a_call_is_not_made_when_its_save_took_until_after_the_deadline() -> None:
    async with one_bridge() as (here, bridge):
        bridge.link.faults = failing("save", REFUSED, times=8, when=in_state(TaskState.ACTIVE))
        here.enqueue("a", deadline_ns=here.world.now_ns() + 3 * NS_PER_S)
        (record,) = await here.ended("a")
        await here.quiet()
    assert not here.handlers.calls
    assert (record.state, record.tries) == (TaskState.EXPIRED, 0)


# Dependencies.


@virtual_time
async def test_a_child_runs_after_its_parents_and_gets_their_results() -> None:
    async with one_bridge() as (here, _):
        here.handlers.takes("p", 20.0, Completed(b"from parent"))
        here.enqueue("p1", "p")
        here.enqueue("c", dependencies=("p1",), load_dependencies=True)
        parent, child = await here.ended("p1", "c")
    assert child.state is TaskState.COMPLETE
    call = next(call for call in here.handlers.calls if call.task.id == "c")
    assert call.began >= 1020
    assert call.task.dependency_results == {"p1": parent.result}


@virtual_time
@pytest.mark.parametrize("end", [Terminated("no"), Failed("no")])
async def test_descendants_of_a_failed_parent_never_start(end: Terminated | Failed) -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.answers("p", end)
        here.enqueue("p1", "p", max_tries=1)
        here.enqueue("c", dependencies=("p1",))
        here.enqueue("g", dependencies=("c",))
        _, child, grandchild = await here.ended("p1", "c", "g")
        await here.quiet()
    assert child.state is grandchild.state is TaskState.UNREACHABLE
    assert [call.task.id for call in here.handlers.calls] == ["p1"]
    assert bridge.meter.counts[m.DEPENDENCIES_FAILED] == 2
    assert ("unreachable", QUEUE, "g") in here.world.dead


@virtual_time
async def test_a_child_without_its_parent_is_unreachable() -> None:
    async with one_bridge() as (here, _):
        here.enqueue("c", dependencies=("nobody",))
        (record,) = await here.ended("c")
    assert record.state is TaskState.UNREACHABLE
    assert "nobody was not found" in record.last_err


# Nobody answers.


@virtual_time
async def test_no_handler_costs_no_try_and_the_task_runs_soon_after_one_is_there() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.away.add("t")
        here.enqueue("a", max_tries=1)
        await asyncio.sleep(120)
        assert here.record("a").state is TaskState.RETRY
        assert here.record("a").tries == 0
        assert here.record("a").last_err.endswith(("CHORIA_AJ.H.T.t", "'t'"))
        here.handlers.away.clear()
        back = now()
        (record,) = await here.ended("a")
        assert now() - back < 1.5
    assert (record.state, record.tries) == (TaskState.COMPLETE, 1)
    assert bridge.meter.counts[m.NO_RESPONDERS] >= 100


@virtual_time
async def test_while_nobody_answers_one_task_of_the_type_is_tried_each_second() -> None:
    async with one_bridge() as (here, _):
        here.handlers.away.add("t")
        for number in range(50):
            here.enqueue(f"t{number}")
        await asyncio.sleep(1)
        here.handlers.misses.clear()
        await asyncio.sleep(60)
        times = [at for at, _ in here.handlers.misses]
    assert 50 <= len(times) <= 62
    assert all(after - before > 0.99 for before, after in pairwise(times))
    assert all(after - before < 1.5 for before, after in pairwise(times))


@virtual_time
async def test_what_was_parked_is_released_when_the_first_call_is_answered() -> None:
    async with one_bridge() as (here, _):
        here.handlers.away.add("t")
        names = [f"t{number}" for number in range(50)]
        for name in names:
            here.enqueue(name)
        await asyncio.sleep(300)
        here.handlers.away.clear()
        back = now()
        await here.ended(*names)
        assert now() - back < 1.5
    assert all(here.record(name).tries == 1 for name in names)


@virtual_time
async def test_a_type_without_handlers_does_not_hold_up_another() -> None:
    here = site()
    here.handlers.away.add("gone")
    async with here.bridge(concurrency=2):
        for number in range(50):
            here.enqueue(f"g{number}", "gone")
        await asyncio.sleep(5)
        for number in range(20):
            began = now()
            here.enqueue(f"canary{number}")
            await here.ended(f"canary{number}")
            assert now() - began < 2.0
            await asyncio.sleep(7)


@virtual_time
async def test_a_type_without_a_route_waits_as_one_without_a_handler_does() -> None:
    here = site()
    async with here.bridge(router=Router([Route(type="email:")])) as bridge:
        here.enqueue("a", "sms:new", max_tries=1)
        here.enqueue("b", "email:new")
        await here.ended("b")
        await asyncio.sleep(300)
        assert here.record("a").state is TaskState.RETRY
        assert here.record("a").last_err == "no route for task type 'sms:new'"
    assert [call.subject for call in here.handlers.calls] == ["CHORIA_AJ.H.T.email:"]
    assert (m.UNROUTED, {"queue": QUEUE, "type": "sms:new"}) in bridge.meter.labels
    async with here.bridge():
        (record,) = await here.ended("a")
    assert (record.state, record.tries) == (TaskState.COMPLETE, 1)


@virtual_time
async def test_a_task_that_waits_for_a_handler_expires_at_its_deadline() -> None:
    async with one_bridge() as (here, _):
        here.handlers.away.add("t")
        here.enqueue("a", deadline_ns=here.world.now_ns() + 100 * NS_PER_S)
        began = now()
        (record,) = await here.ended("a")
        assert 100 <= now() - began < 101
    assert record.state is TaskState.EXPIRED


# Ownership.


@virtual_time
async def test_a_crashed_bridges_task_is_taken_over_when_its_lease_is_over() -> None:
    here = site()
    async with here.bridge() as first, here.bridge() as second:
        here.handlers.takes("t", 5.0)
        here.enqueue("a")
        await here.handlers.begun(1)
        crashed, other = (first, second) if here.handlers.calls[0].bridge == first.name else (second, first)
        await crashed.crash()
        at = now()
        (record,) = await here.ended("a")
        assert now() - at < 30 + 5 + 5
        assert other.meter.counts[m.TAKEN_OVER] == 1
    assert here.states("a") == ["new", "active", "active", "complete"]
    assert record.tries == 2


@virtual_time
async def test_an_owner_that_holds_a_replaced_item_keeps_the_task() -> None:
    here = site()
    async with here.bridge(), here.bridge():
        here.handlers.takes("t", 200.0)
        here.enqueue("a")
        await here.handlers.begun(1)
        here.world.publish(QUEUE, "a", replace=True)
        await here.ended("a")
        await asyncio.sleep(100)
        assert not len(here.world.queue(QUEUE))
        assert here.world.standing(QUEUE, "a") is None
    assert len(here.handlers.calls) == 1
    assert len(here.neighbours.asked) >= 5


@virtual_time
async def test_an_owner_that_says_no_loses_the_task_at_once() -> None:
    here = site()
    stamp = Stamp("b1", ItemRef(99, 1))
    async with here.bridge("b1"), here.bridge("b2"):
        record = TaskRecord(
            id="a", type="t", queue=QUEUE, state=TaskState.ACTIVE, tries=1, created_ns=here.world.now_ns()
        )
        here.world.put("a", record.to_wire(), stamp=stamp)
        here.world.publish(QUEUE, "a")
        began = now()
        (record,) = await here.ended("a")
        assert now() - began < 0.1
    assert record.tries == 2


@virtual_time
async def test_a_silent_owner_is_asked_twice_a_lease_apart() -> None:
    here = site()
    record = TaskRecord(id="a", type="t", queue=QUEUE, state=TaskState.ACTIVE, tries=1, created_ns=here.world.now_ns())
    here.world.put("a", record.to_wire(), stamp=Stamp("gone", ItemRef(99, 1)))
    async with here.bridge():
        here.world.publish(QUEUE, "a")
        began = now()
        await here.handlers.begun(1)
        assert 30 <= now() - began <= 31
        await here.ended("a")
    assert here.neighbours.asked == [("gone", "a")] * 2


@virtual_time
@pytest.mark.parametrize("fails", [0, 2])
async def test_an_owner_that_was_cut_off_twice_for_less_than_a_lease_keeps_its_task(fails: int) -> None:
    """It saves what it holds again when it is back, so that the bridge that asks twice starts over."""
    here = site()
    async with here.bridge("b1") as owner:
        here.handlers.takes("t", 100.0)
        here.enqueue("a")
        await here.handlers.begun(1)
        async with here.bridge("b2"):
            owner.storage.items.want(0)
            owner.link.cut()
            here.world.publish(QUEUE, "a", replace=True)  # b2 asks, and b1 is silent
            await asyncio.sleep(10)
            owner.link.faults = failing("save", REFUSED, times=fails)
            owner.link.mend()
            await asyncio.sleep(15)
            owner.link.cut()
            await asyncio.sleep(15)  # meanwhile b2 asks again
            owner.link.mend()
            await here.ended("a")
            assert here.neighbours.asked.count(("b1", "a")) >= 2
    assert [call.bridge for call in here.handlers.calls] == ["b1"]


@virtual_time
async def test_a_bridge_that_is_cut_off_itself_takes_nobody_for_silent() -> None:
    here = site()
    async with here.bridge("b1") as owner:
        here.handlers.takes("t", 100.0)
        here.enqueue("a")
        await here.handlers.begun(1)
        owner.storage.items.want(0)
        async with here.bridge("b2") as asking:

            def cut_off() -> None:
                asking.link.cut()
                asyncio.get_running_loop().call_later(8, asking.link.mend)

            here.neighbours.on_ask = cut_off
            here.world.publish(QUEUE, "a", replace=True)
            await here.ended("a")
    assert len(here.neighbours.asked) > 2
    assert [call.bridge for call in here.handlers.calls] == ["b1"]
    assert here.record("a").tries == 1


@virtual_time
async def test_a_final_record_is_not_saved_active_again_after_a_standstill() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.answers("bad", Terminated("no"))
        here.handlers.takes("slow", 6.0)
        bridge.link.faults = failing("bury", REFUSED, times=20)
        here.enqueue("b", "slow")
        here.enqueue("a", "bad")
        await here.ended("a")  # and its dead letter can't be stored for a while
        bridge.link.cut()
        await asyncio.sleep(4)
        bridge.link.mend()
        await here.ended("b")
        await here.quiet()
    assert here.states("a") == ["new", "active", "terminated"]


@virtual_time
async def test_a_parked_record_is_not_saved_active_again_after_a_standstill() -> None:
    here = site(schedules=False, lease_s=0, max_run_time_ns=30 * NS_PER_S, max_tries=1)
    here.handlers.away.add("t")
    async with here.bridge() as bridge:
        here.enqueue("a")
        await here.until(lambda: here.record("a").state is TaskState.RETRY)
        bridge.link.cut()  # before it has left its item
        await asyncio.sleep(4)
        bridge.link.mend()
        await asyncio.sleep(10)
        assert here.states("a").count("active") == len(here.handlers.misses)


@virtual_time
async def test_a_bridge_whose_lease_is_over_calls_nobody() -> None:
    here = site(lease_s=10)
    async with here.bridge("b1") as frozen:
        frozen.link.faults = failing("save", Fault(UNKNOWN), times=1)
        here.enqueue("a")
        await asyncio.sleep(0)
        frozen.link.cut()
        await asyncio.sleep(11)
        async with here.bridge("b2"):
            await here.ended("a")
            frozen.link.mend()
            await asyncio.sleep(30)
    assert [call.bridge for call in here.handlers.calls] == ["b2"]
    assert here.states("a") == ["new", "active", "complete"]


@virtual_time
async def test_the_outcome_of_a_handler_that_ran_is_saved_though_the_lease_is_over() -> None:
    async with one_bridge(lease_s=5) as (here, bridge):
        here.handlers.takes("t", 2.0)
        here.enqueue("a")
        await here.handlers.begun(1)
        bridge.link.cut()
        bridge.storage.items.want(0)
        await asyncio.sleep(20)
        bridge.link.mend()
        (record,) = await here.ended("a")
        await here.quiet()
    assert (record.state, record.tries) == (TaskState.COMPLETE, 1)


@virtual_time
async def test_a_late_outcome_is_refused_and_sends_nothing_more() -> None:
    here = site(lease_s=5)
    async with here.bridge("b1") as late:
        here.handlers.takes("t", 10.0)
        here.enqueue("a")
        await here.handlers.begun(1)
        late.link.cut()
        await asyncio.sleep(6)
        async with here.bridge("b2"):
            await here.handlers.begun(2)
            late.link.mend()
            (record,) = await here.ended("a")
            await asyncio.sleep(60)
        assert late.meter.counts[m.REFUSED] == 1
    assert record.tries == 2
    assert here.states("a").count("complete") == 1
    finals = [stored for _, stored in here.saves if stored.record and stored.record.state.final]
    assert finals[0].stamp is not None
    assert finals[0].stamp.owner == "b2"


@virtual_time
async def test_a_lost_acknowledgement_does_not_run_a_final_task_again() -> None:
    async with one_bridge() as (here, bridge):
        bridge.link.faults = failing("ack", Fault(UNKNOWN))
        here.enqueue("a")
        await here.ended("a")
        await here.quiet()
    assert len(here.handlers.calls) == 1


@virtual_time
async def test_a_stray_item_of_a_task_that_waits_is_acknowledged() -> None:
    async with one_bridge() as (here, _):
        here.handlers.answers("t", Failed("x", retry_after_ns=100 * NS_PER_S), DONE)
        here.enqueue("a")
        await here.until(lambda: here.record("a").state is TaskState.RETRY)
        await here.quiet()
        here.world.publish(QUEUE, "a")
        await here.quiet()
        assert here.record("a").state is TaskState.RETRY
        await here.ended("a")
    began = [call.began for call in here.handlers.calls]
    assert round(began[1] - began[0]) == 100


@virtual_time
async def test_an_item_of_a_task_in_another_queue_is_acknowledged() -> None:
    async with one_bridge() as (here, _):
        record = TaskRecord(id="a", type="t", queue="OTHER", created_ns=here.world.now_ns())
        here.world.put("a", record.to_wire())
        here.world.publish(QUEUE, "a")
        await here.quiet()
        assert here.record("a") == record


@virtual_time
@pytest.mark.parametrize("state", ["", "new"])
async def test_a_record_that_names_no_state_or_no_queue_runs(state: str) -> None:
    """A producer in another language may leave both out; a Go worker would run it."""
    async with one_bridge() as (here, _):
        here.world.put("a", b'{"id":"a","type":"t","state":"%s","created":"2026-01-01T00:00:00Z"}' % state.encode())
        here.world.publish(QUEUE, "a")
        (record,) = await here.ended("a")
        await here.quiet()
    assert record.state is TaskState.COMPLETE


@virtual_time
async def test_a_task_that_a_go_worker_saved_active_is_taken_over_after_its_run_time() -> None:
    async with one_bridge(max_run_time_ns=60 * NS_PER_S) as (here, _):
        record = TaskRecord(
            id="a",
            type="t",
            queue=QUEUE,
            state=TaskState.ACTIVE,
            tries=1,
            created_ns=here.world.now_ns(),
            tried_ns=here.world.now_ns(),
        )
        here.world.put("a", record.to_wire())
        here.world.publish(QUEUE, "a")
        began = now()
        await here.ended("a")
        assert 60 <= now() - began < 61


@virtual_time
async def test_a_try_that_lies_in_the_future_delays_a_takeover_by_one_run_time_at_most() -> None:
    async with one_bridge(max_run_time_ns=60 * NS_PER_S) as (here, _):
        here.world.put(
            "a",
            b'{"id":"a","type":"t","queue":"Q","state":"active","created":"2026-01-01T00:00:00Z",'
            b'"tried":"9999-12-31T23:59:59.999Z","tries":1}',
        )
        here.world.publish(QUEUE, "a")
        for _ in range(3):
            await asyncio.sleep(60)
            assert here.record("a").state is TaskState.ACTIVE


# Storage fails.


@virtual_time
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("state", [TaskState.ACTIVE, TaskState.RETRY, TaskState.COMPLETE])
async def test_a_save_without_an_answer_is_looked_into(state: TaskState, applied: bool) -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.answers("t", Failed("x"), DONE)
        bridge.link.faults = failing("save", Fault(UNKNOWN, applied), when=in_state(state))
        here.enqueue("a")
        (record,) = await here.ended("a")
        await here.quiet()
    assert here.states("a") == ["new", "active", "retry", "active", "complete"]
    assert record.tries == len(here.handlers.calls) == 2


@virtual_time
@pytest.mark.parametrize("error", [RefusedError("save", 503, "no"), NotConnectedError("down")])
@pytest.mark.parametrize("state", [TaskState.ACTIVE, TaskState.RETRY, TaskState.COMPLETE])
async def test_a_save_that_fails_is_done_again(state: TaskState, error: StoreError) -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.answers("t", Failed("x"), DONE)
        bridge.link.faults = failing("save", Fault(error), times=5, when=in_state(state))
        here.enqueue("a")
        await here.ended("a")
        await here.quiet()
    assert here.states("a") == ["new", "active", "retry", "active", "complete"]
    assert bridge.meter.counts[m.UPDATE_ERRORS] == 5


@virtual_time
async def test_a_save_whose_look_fails_too_is_done_again() -> None:
    async with one_bridge() as (here, bridge):
        here.enqueue("a")

        def faults(act: str, about: object) -> Fault | None:
            if now() < 1010 and (act == "load" or (act == "save" and in_state(TaskState.COMPLETE)(about))):
                return Fault(UNKNOWN, applied=True) if here.handlers.calls else None
            return None

        bridge.link.faults = faults
        await here.ended("a")
        await here.quiet()
    assert here.states("a") == ["new", "active", "complete"]


@virtual_time
@pytest.mark.parametrize("act", ["load", "park", "bury", "renew"])
@pytest.mark.parametrize("applied", [False, True])
async def test_an_act_of_storage_that_fails_for_a_while_is_done_again(act: str, applied: bool) -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.answers("t", Failed("x"), Terminated("no"))
        bridge.link.faults = failing(act, Fault(UNKNOWN, applied), times=6)
        here.enqueue("a")
        await here.ended("a")
        await here.quiet()
        assert ("terminated", QUEUE, "a") in here.world.dead
    assert here.states("a") == ["new", "active", "retry", "active", "terminated"]


@virtual_time
@pytest.mark.parametrize("act", ["load", "save", "park", "leave", "standing", "bury", "ack", "discard"])
async def test_storage_that_is_gone_for_minutes_loses_nothing(act: str) -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.answers("t", Failed("x"), Failed("x"), Terminated("no"))
        began = now()
        bridge.link.faults = lambda name, _about: REFUSED if name == act and now() - began < 200 else None
        here.enqueue("a")
        here.world.publish(QUEUE, "poison", b"x")
        await here.ended("a")
        await here.quiet()
        assert ("quarantined", QUEUE, "poison") in here.world.dead
    assert here.record("a").state is TaskState.TERMINATED
    assert bridge.processor.busy == 0
    assert here.record("a").tries <= 10


@virtual_time
async def test_a_record_that_somebody_finished_meanwhile_is_left_and_its_item_goes() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.takes("t", 5.0)
        record = here.enqueue("a")
        await here.handlers.begun(1)
        here.world.put("a", record.replace(state=TaskState.TERMINATED, last_err="cancelled").to_wire())
        await here.quiet()
        assert bridge.meter.counts[m.REFUSED] == 1
        assert now() < 1010
    assert here.record("a").last_err == "cancelled"
    assert here.world.dead["terminated", QUEUE, "a"].detail == "cancelled"


@virtual_time
async def test_a_record_that_somebody_changed_meanwhile_is_left_with_its_item() -> None:
    async with one_bridge(max_run_time_ns=60 * NS_PER_S) as (here, bridge):
        here.handlers.takes("t", 5.0)
        record = here.enqueue("a")
        await here.handlers.begun(1)
        here.world.put("a", record.replace(last_err="touched").to_wire())
        await asyncio.sleep(6)
        assert bridge.meter.counts[m.DROPPED] == 1
        assert len(here.world.queue(QUEUE)) == 1
        await here.ended("a")  # when its lease is over
        assert now() < 1050


@virtual_time
async def test_a_record_that_was_removed_meanwhile_ends_in_quarantine() -> None:
    async with one_bridge() as (here, _):
        here.handlers.takes("t", 5.0)
        here.enqueue("a")
        await here.handlers.begun(1)
        here.world.remove("a")
        await here.quiet()
        assert here.world.get("a") is None
    assert here.world.dead["quarantined", QUEUE, "a"].detail == "task not found"


# What can't be processed.


@virtual_time
@pytest.mark.parametrize(
    ("record", "item", "reason"),
    [
        (None, None, "task not found"),
        (b"{", None, "task: not valid JSON"),
        (b"[" * 100_000, None, "nested too deeply"),
        (b'{"id":"b","type":"t","created":"2026-01-01T00:00:00Z"}', None, "stands under the subject of"),
        (b'{"id":"a","type":"t","queue":"Q","created":"2026-01-01T00:00:00Z"}', b"x", "work item"),
        (b'{"id":"a","type":"t","queue":"Q","created":"2026-01-01T00:00:00Z"}', b'{"kind":0,"job":"*"}', "work item"),
        (b'{"id":"a","type":"t","queue":"Q","created":"2026-01-01T00:00:00Z"}', b'{"kind":0,"job":"b"}', "job: 'b'"),
        (b'{"id":"a","type":"t","queue":"Q","created":"2026-01-01T00:00:00Z"}', b'{"kind":7,"job":"a"}', "kind"),
    ],
)
async def test_what_cannot_be_read_is_quarantined_and_frees_its_slot(
    record: bytes | None, item: bytes | None, reason: str
) -> None:
    here = site()
    async with here.bridge(concurrency=1) as bridge:
        if record is not None:
            here.world.put("a", record)
        here.world.publish(QUEUE, "a", item)
        here.enqueue("next")
        await here.ended("next")
        await here.quiet()
        assert now() < 1001
        assert bridge.meter.counts[m.QUARANTINED] == 1
    letter = here.world.dead["quarantined", QUEUE, "a"]
    assert reason in letter.detail
    assert letter.body == (item or record or b'{"kind":0,"job":"a"}')
    assert [call.task.id for call in here.handlers.calls] == ["next"]


@virtual_time
async def test_an_item_under_an_impossible_name_is_quarantined() -> None:
    async with one_bridge() as (here, _):
        here.world.publish(QUEUE, "a.b*", b'{"kind":0,"job":"a"}')
        await here.quiet()
    assert ("quarantined", QUEUE, "a.b*") in here.world.dead


@virtual_time
async def test_a_result_that_does_not_fit_terminates_the_task() -> None:
    async with one_bridge(max_payload=2000) as (here, bridge):
        here.handlers.answers("t", Completed(b"x" * 1900))
        here.enqueue("a")
        (record,) = await here.ended("a")
        await here.quiet()
    assert here.states("a") == ["new", "active", "terminated"]
    assert "a message takes 2000" in record.last_err
    assert record.result is None
    assert bridge.meter.counts[m.TOO_LARGE] == 1
    assert ("terminated", QUEUE, "a") in here.world.dead


@virtual_time
async def test_a_record_that_does_not_fit_once_it_is_active_terminates_without_a_try() -> None:
    here = site()
    record = here.enqueue("a", payload=b"x" * 600)
    here.world.max_payload = len(record.to_wire()) + 5
    async with here.bridge():
        (ended,) = await here.ended("a")
        await here.quiet()
    assert (ended.state, ended.tries, ended.payload) == (TaskState.TERMINATED, 0, None)
    assert not here.handlers.calls
    assert TaskRecord.from_wire(here.world.dead["terminated", QUEUE, "a"].body).payload == b"x" * 600


@virtual_time
async def test_an_error_that_does_not_fit_terminates_the_task() -> None:
    """Control characters take six bytes each in JSON, so 8 KiB of them outgrow what enqueue leaves free."""
    async with one_bridge(max_payload=20_000) as (here, bridge):
        here.handlers.answers("t", Failed("\x01" * 8192))
        here.enqueue("a", max_tries=0)
        (record,) = await here.ended("a")
        await here.quiet()
    assert record.state is TaskState.TERMINATED
    assert len(here.handlers.calls) == 1
    assert bridge.processor.busy == 0


@virtual_time
async def test_a_defect_in_one_task_does_not_end_the_others() -> None:
    async def defect(_call: Invocation) -> Completed:
        raise ZeroDivisionError

    async with one_bridge(lease_s=5) as (here, _):
        here.handlers.on("bad", defect)
        here.enqueue("a", "bad", max_tries=2)
        here.enqueue("b")
        await here.ended("b")
        (record,) = await here.ended("a")
    assert (record.state, record.tries) == (TaskState.EXPIRED, 2)


# Items that wait inside the queue.


def go_queue(**queue: Any) -> Site:
    return site(schedules=False, lease_s=0, max_run_time_ns=30 * NS_PER_S, **queue)


@virtual_time
async def test_without_schedules_a_failed_try_comes_back_after_its_delay() -> None:
    here = go_queue()
    async with here.bridge():
        here.handlers.answers("t", Failed("x"), Failed("x"), DONE)
        here.enqueue("a")
        await here.ended("a")
        await here.quiet()
    began = [call.began for call in here.handlers.calls]
    assert [round(after - before, 3) for before, after in pairwise(began)] == [1.975, 3.45]


@virtual_time
@pytest.mark.parametrize("max_deliver", [1, 2, 3])
async def test_without_schedules_waiting_does_not_use_up_the_deliveries(max_deliver: int) -> None:
    here = go_queue(max_tries=max_deliver)
    async with here.bridge():
        here.handlers.takes("p", 100.0)
        here.enqueue("p1", "p")
        here.enqueue("c", dependencies=("p1",))
        # A handler of 100 s on a queue of 30 s fails; its child then never runs.
        parent, child = await here.ended("p1", "c")
        await here.quiet()
        assert (parent.state, child.state) == (TaskState.EXPIRED, TaskState.UNREACHABLE)
        here.handlers.away.add("t")
        here.enqueue("a")
        await asyncio.sleep(100)
        here.handlers.away.clear()
        (record,) = await here.ended("a")
        await here.quiet()
    assert (record.state, record.tries) == (TaskState.COMPLETE, 1)


@virtual_time
async def test_without_schedules_a_silent_owner_is_asked_twice() -> None:
    here = go_queue(max_tries=5)
    record = TaskRecord(id="a", type="t", queue=QUEUE, state=TaskState.ACTIVE, tries=1, created_ns=here.world.now_ns())
    here.world.put("a", record.to_wire(), stamp=Stamp("gone", ItemRef(99, 1)))
    async with here.bridge():
        here.world.publish(QUEUE, "a")
        began = now()
        await here.handlers.begun(1)
        assert 30 <= now() - began <= 31
        await here.ended("a")
    assert here.neighbours.asked == [("gone", "a")] * 2


@virtual_time
async def test_without_schedules_a_late_bridge_does_not_give_back_what_another_holds() -> None:
    here = site(schedules=False, lease_s=5)
    here.handlers.takes("t", 1.0, Failed("x"))
    expired: list[ItemRef] = []
    here.world.queue(QUEUE).expired = lambda item: expired.append(ItemRef(item.sequence, item.deliveries))
    async with here.bridge("b1", concurrency=1) as late:
        here.enqueue("a")
        await here.handlers.begun(1)
        late.link.cut()
        here.handlers.takes("t", 20.0)
        async with here.bridge("b2") as other:
            other.link.latency_s = 1.0
            await here.until_busy(other)
            late.link.mend()
            await here.ended("a")
    assert expired == [ItemRef(1, 1)]
    assert [call.bridge for call in here.handlers.calls] == ["b1", "b2"]


# The end.


@virtual_time
async def test_draining_lets_what_is_in_hand_finish_and_takes_nothing_new() -> None:
    here = site()
    async with here.bridge(concurrency=2, grace_s=30) as bridge:
        here.handlers.takes("t", 10.0)
        for number in range(4):
            here.enqueue(f"t{number}")
        await here.handlers.begun(2)
        assert await bridge.drain() == 0
    assert [here.record(f"t{number}").state.value for number in range(4)] == ["complete", "complete", "new", "new"]


@virtual_time
async def test_draining_cancels_what_outlasts_the_grace_period_and_leaves_it_to_its_lease() -> None:
    here = site(lease_s=30)
    here.handlers.takes("t", 100.0)
    async with here.bridge(grace_s=10) as bridge:
        here.enqueue("a")
        await here.handlers.begun(1)
        began = now()
        assert await bridge.drain() == 1
        assert round(now() - began) == 10
    assert here.record("a").state is TaskState.ACTIVE
    async with here.bridge():
        (record,) = await here.ended("a")
    assert (record.state, record.tries) == (TaskState.COMPLETE, 2)


@virtual_time
async def test_what_is_being_loaded_when_the_stop_comes_is_given_back() -> None:
    here = site()
    async with here.bridge() as bridge:
        bridge.link.latency_s = 1.0
        here.enqueue("a")
        await here.until_busy(bridge)
        assert await bridge.drain() == 0
    async with here.bridge():
        began = now()
        await here.ended("a")
        assert now() - began < 1
    assert len(here.handlers.calls) == 1


@virtual_time
async def test_the_grace_period_binds_a_load_that_takes_longer() -> None:
    here = site()
    async with here.bridge(grace_s=10) as bridge:
        bridge.link.latency_s = 20.0
        here.enqueue("a")
        await here.until_busy(bridge)
        began = now()
        assert await bridge.drain() == 1
        assert round(now() - began) == 10


@virtual_time
async def test_leases_are_renewed_until_the_last_claim_is_done() -> None:
    here = site(lease_s=3)
    here.handlers.takes("t", 20.0)
    async with here.bridge(grace_s=30) as bridge:
        here.enqueue("a")
        await here.handlers.begun(1)
        async with here.bridge():
            assert await bridge.drain() == 0
    assert len(here.handlers.calls) == 1
    assert here.record("a").state is TaskState.COMPLETE


@virtual_time
async def test_what_came_and_was_not_begun_is_given_back() -> None:
    here = site()
    async with here.bridge() as bridge:
        await asyncio.sleep(1)
        bridge.stop.set()
        here.enqueue("a")
        assert await bridge.drain() == 0
    began = now()
    async with here.bridge():
        await here.ended("a")
        assert now() - began < 1


@virtual_time
async def test_a_bridge_answers_for_what_it_holds_and_for_nothing_else() -> None:
    here = site()
    async with here.bridge() as bridge:
        here.handlers.takes("t", 10.0)
        here.enqueue("a")
        await here.handlers.begun(1)
        assert bridge.held.holds("a", ItemRef(1, 1))
        assert not bridge.held.holds("b", ItemRef(1, 1))
        assert not bridge.held.holds("a", ItemRef(1, 2))
        assert await here.neighbours.of(bridge).ask(bridge.name, "a", ItemRef(1, 1)) is Holder.YES
        await here.ended("a")
        await here.quiet()
        assert not bridge.held.holds("a", ItemRef(1, 1))


# Signatures.


SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"


@virtual_time
async def test_only_what_is_signed_is_run_and_the_rest_is_dead_at_once() -> None:
    here = site()
    signer = Signer(SEED)
    plain = TaskRecord(id="good", type="t", queue=QUEUE, created_ns=NS_PER_S + 1, payload=b"{}")
    good = signer.sign(plain)
    # Each under an id of its own, for which it was signed unless that is the attack.
    made = (
        list(attacks(signer, plain.replace(id=f"bad-{number}"), other_type="u").values())[number]
        for number in range(len(attacks(signer, plain, other_type="u")))
    )
    refused = {attack.id: (attack, why) for attack, why in made}
    async with here.bridge(verifier=Verifier(signer.public_key_hex)):
        for task in (good, *(task for task, _ in refused.values())):
            here.world.put(task.id, task.to_wire(), expected=0)
            here.world.publish(QUEUE, task.id)
        await here.ended("good", *refused)
        await here.quiet()
    assert [call.task.id for call in here.handlers.calls] == ["good"]
    assert here.record("good").state is TaskState.COMPLETE
    for task_id, (_, why) in refused.items():
        assert (here.record(task_id).state, here.record(task_id).tries) == (TaskState.TERMINATED, 0)
        assert here.world.dead["terminated", QUEUE, task_id].detail == why


# Retention.


async def discarded(here: Site, task_id: str) -> None:
    while here.world.get(task_id) is not None:  # noqa: ASYNC110 - in virtual time a look costs nothing
        await asyncio.sleep(0.05)


@virtual_time
async def test_records_of_a_state_are_discarded_after_their_item_is_gone() -> None:
    here = site()
    here.handlers.answers("bad", Terminated("no"))
    async with here.bridge(retention=Retention(discard=frozenset({TaskState.COMPLETE}))):
        here.enqueue("a")
        here.enqueue("b", "bad")
        await discarded(here, "a")
        await here.ended("b")
        await here.quiet()
    assert here.states("a") == ["new", "active", "complete"]
    assert [event.state for event in here.events if event.task_id == "a"] == ["active", "complete"]
    assert here.record("b").state is TaskState.TERMINATED
    assert not here.world.dead.keys() & {("quarantined", QUEUE, "a")}


@virtual_time
async def test_a_record_stays_where_it_is_not_sure_that_its_item_is_gone() -> None:
    here = site(lease_s=1.0)
    bridge = here.bridge(retention=Retention(discard=frozenset({TaskState.COMPLETE})))
    bridge.link.faults = failing("ack", Fault(UNKNOWN))
    async with bridge:
        here.enqueue("a")
        await here.ended("a")
        await discarded(here, "a")  # the item came again, and was acknowledged then
    assert len(here.handlers.calls) == 1
    assert not here.world.dead


@virtual_time
async def test_a_record_of_a_new_run_is_not_discarded_with_the_old_one() -> None:
    here = site()
    bridge = here.bridge(retention=Retention(discard=frozenset({TaskState.COMPLETE})))

    def retried(act: str, about: object) -> None:
        if act == "discard":
            here.world.put("a", here.record("a").fresh().to_wire())

    bridge.link.faults = retried
    async with bridge:
        here.enqueue("a")
        await here.until(lambda: here.states("a")[-2:] == ["complete", "new"])
        await asyncio.sleep(1)
    assert here.record("a").state is TaskState.NEW


@virtual_time
async def test_records_of_a_state_are_kept_for_a_time_of_their_own() -> None:
    here = site()
    async with here.bridge(retention=Retention(kept_ns={TaskState.COMPLETE: 5 * NS_PER_S})):
        here.enqueue("a")
        await here.ended("a")
        ended = now()
        await discarded(here, "a")
    assert 4.9 < now() - ended < 5.2
