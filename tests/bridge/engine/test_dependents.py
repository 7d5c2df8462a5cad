"""Tasks that wait for others, in virtual time: woken at once, whatever dies in between."""

import asyncio
from typing import Any

import pytest
from tests.bridge.engine.bridges import DONE, QUEUE, BridgeAtWork, Invocation, Outcome, Site, failing, one_bridge, site
from tests.virtual_time import virtual_time

from aj_bridge.core.retention import Retention
from aj_bridge.storage.memory import Fault
from aj_sdk.errors import OutcomeUnknownError
from aj_sdk.wire.call import Completed, Terminated
from aj_sdk.wire.edge import Edge
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskResult
from aj_sdk.wire.times import NS_PER_S

SOON_S = 0.5


def now() -> float:
    return asyncio.get_running_loop().time()


def began(here: Site, task_id: str) -> float:
    return next(call.began for call in here.handlers.calls if call.task.id == task_id)


def ended(here: Site, task_id: str) -> float:
    return next(at for at, stored in here.saves if stored.task_id == task_id and here.record(task_id) == stored.record)


def edges_left(here: Site) -> int:
    return len(here.world.edges)


@virtual_time
@pytest.mark.parametrize("schedules", [True, False])
async def test_a_child_runs_as_soon_as_its_last_parent_has_completed(schedules: bool) -> None:
    async with one_bridge(schedules=schedules) as (here, _):
        here.handlers.takes("slow", 100.0)
        here.handlers.takes("slower", 107.3)
        here.enqueue("a", "slow")
        here.enqueue("b", "slower")
        here.enqueue("c", dependencies=("a", "b"))
        await here.ended("a", "b", "c")
        assert 0 <= began(here, "c") - ended(here, "b") < SOON_S
        await here.quiet()
        assert here.states("c") == ["blocked", "active", "complete"]
        assert edges_left(here) == 0


@virtual_time
async def test_results_are_loaded_from_the_edge_when_the_parents_record_was_discarded() -> None:
    here = site()
    retention = Retention(discard=frozenset({TaskState.COMPLETE}))
    here.handlers.takes("slow", 20.0, Completed(b"one"))
    seen: list[Any] = []

    async def child(call: Invocation) -> Outcome:
        seen.append(call.task.dependency_results)
        return DONE

    here.handlers.on("child", child)
    here.enqueue("a", "slow")
    here.enqueue("b", "slow")
    here.enqueue("c", "child", dependencies=("a", "b"), load_dependencies=True)
    async with here.bridge(retention=retention):
        await here.handlers.begun(3)
        await here.quiet()
    assert here.world.get("a") is here.world.get("b") is None
    (results,) = seen
    assert {parent: result.payload for parent, result in results.items()} == {"a": b"one", "b": b"one"}


@virtual_time
async def test_a_parent_of_which_nothing_is_left_makes_its_child_unreachable() -> None:
    async with one_bridge() as (here, _):
        here.enqueue("c", dependencies=("absent",))
        (child,) = await here.ended("c")
        assert child.state is TaskState.UNREACHABLE


@virtual_time
async def test_all_descendants_of_a_failed_task_are_unreachable_at_once_though_other_parents_go_on() -> None:
    async with one_bridge() as (here, _):
        here.handlers.takes("slow", 300.0)
        here.handlers.takes("fails", 30.0, Terminated("no"))
        here.enqueue("a", "fails")
        here.enqueue("other", "slow")
        here.enqueue("b", dependencies=("a", "other"))
        here.enqueue("c", dependencies=("b",))
        here.enqueue("d", dependencies=("c", "other"))
        found = await here.ended("a", "b", "c", "d")
        assert [task.state.value for task in found] == ["terminated", *["unreachable"] * 3]
        assert ended(here, "d") - ended(here, "a") < SOON_S
        await here.ended("other")
        await here.quiet()
        assert edges_left(here) == 0


@virtual_time
@pytest.mark.parametrize("act", ["leaving", "write", "first", "wake", "ack"])
async def test_a_bridge_that_dies_while_it_tells_the_children_is_followed_by_one_that_does(act: str) -> None:
    here = site(lease_s=10.0)
    here.handlers.takes("slow", 60.0)
    here.enqueue("a", "slow")
    here.enqueue("b", dependencies=("a",))
    first, second = here.bridge(), here.bridge()
    dying: list[asyncio.Task[None]] = []

    def die_at(bridge: BridgeAtWork) -> None:
        def faults(name: str, _about: object) -> Fault | None:
            if name == act and here.record("a").state.final and not dying:
                dying.append(asyncio.ensure_future(bridge.crash()))
                bridge.link.cut()
                return Fault(OutcomeUnknownError(name))
            return None

        bridge.link.faults = faults

    async with first:
        die_at(first)
        await here.handlers.begun(1)
        async with second:
            await here.ended("a", "b")
            await here.quiet()
            await asyncio.gather(*dying)
    # The first held both, or the second checks the child: within a lease of the parent's end, or a look of the child's.
    assert here.record("b").state is TaskState.COMPLETE
    assert began(here, "b") - ended(here, "a") <= 10.0 + 5.0


@virtual_time
async def test_a_parent_that_ends_while_its_child_is_being_parked_wakes_it() -> None:
    async with one_bridge() as (here, bridge):
        release = asyncio.Event()

        async def waits(_call: Invocation) -> Outcome:
            await release.wait()
            return DONE

        here.handlers.on("waits", waits)
        here.enqueue("a", "waits")
        await here.handlers.begun(1)
        bridge.link.latency_s = 0.3
        here.enqueue("b", dependencies=("a",))
        while not here.world.edges:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        release.set()  # after the edge was written, before the schedule stands
        await here.ended("a", "b")
        assert began(here, "b") - ended(here, "a") < 4.0  # some round trips of 0.3 s, and no look after 5 s


@virtual_time
async def test_what_a_go_worker_ended_is_found_when_the_child_looks_again() -> None:
    async with one_bridge() as (here, _):
        here.handlers.takes("slow", 1000.0)
        parent = here.enqueue("a", "elsewhere")
        here.world.queue(QUEUE).purge("a", 99)  # a Go worker has it
        here.enqueue("b", dependencies=("a",))
        await here.quiet()
        await asyncio.sleep(2.0)
        done = TaskResult(payload="eA==", completed_ns=here.world.now_ns())
        here.world.put("a", parent.replace(state=TaskState.COMPLETE, result=done).to_wire())
        at = now()
        await here.ended("b")
        assert began(here, "b") - at <= 5.0


@virtual_time
async def test_a_child_with_a_time_of_its_own_does_not_run_before_it_though_its_parents_are_done() -> None:
    async with one_bridge() as (here, _):
        here.handlers.takes("slow", 10.0)
        at = now()
        here.enqueue("a", "slow")
        due_ns = here.world.now_ns() + 120 * NS_PER_S
        child = here.enqueue("b", dependencies=("a",))
        here.world.queue(QUEUE).purge("b", 99)
        assert here.world.edges.write(Edge.between("a", child), 0)
        here.world.schedule(QUEUE, "b", due_ns, not_before_ns=due_ns)
        await here.ended("a", "b")
        assert 119.9 <= began(here, "b") - at <= 121


@virtual_time
async def test_a_child_with_a_time_of_its_own_is_unreachable_as_soon_as_a_parent_failed() -> None:
    async with one_bridge() as (here, _):
        here.handlers.takes("fails", 10.0, Terminated("no"))
        here.enqueue("a", "fails")
        due_ns = here.world.now_ns() + 120 * NS_PER_S
        child = here.enqueue("b", dependencies=("a",))
        here.world.queue(QUEUE).purge("b", 99)
        assert here.world.edges.write(Edge.between("a", child), 0)
        here.world.schedule(QUEUE, "b", due_ns, not_before_ns=due_ns)
        await here.ended("a", "b")
        assert here.record("b").state is TaskState.UNREACHABLE
        assert ended(here, "b") - ended(here, "a") < SOON_S


@virtual_time
async def test_a_retried_parent_is_waited_for_anew_by_a_child_that_had_been_told_of_its_end() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.takes("slow", 50.0)
        parent = here.enqueue("a", "slow")
        child = here.enqueue("b", dependencies=("a",))
        stale = Edge.between("a", child).of(parent.replace(state=TaskState.EXPIRED))
        assert here.world.edges.write(stale, 0)
        await here.ended("a", "b")
        assert here.record("b").state is TaskState.COMPLETE
        assert bridge.meter.counts["parked_total"] < 5


@virtual_time
async def test_fan_in_and_fan_out_of_a_thousand_run_through() -> None:
    async with one_bridge(max_concurrent=200) as (here, _):
        here.handlers.takes("slow", 30.0)
        parents = [f"p{number}" for number in range(1000)]
        for name in parents:
            here.enqueue(name)
        here.enqueue("gate", "slow", dependencies=tuple(parents))
        children = [f"c{number}" for number in range(1000)]
        for name in children:
            here.enqueue(name, dependencies=("gate",))
        await here.ended("gate", *children)
        last = max(began(here, name) for name in children)
        assert last - ended(here, "gate") < SOON_S
        await here.quiet()
        assert edges_left(here) == 0


@virtual_time
async def test_a_task_without_ties_costs_no_look_at_edges() -> None:
    async with one_bridge() as (here, bridge):
        asked: list[str] = []
        bridge.link.faults = lambda act, _about: asked.append(act)
        here.enqueue("a")
        await here.ended("a")
        await here.quiet()
        assert not {"leaving", "entering", "first", "between", "write", "drop"} & set(asked)


@virtual_time
async def test_telling_the_children_is_repeated_until_it_succeeds() -> None:
    async with one_bridge() as (here, bridge):
        here.handlers.takes("slow", 20.0)
        here.enqueue("a", "slow")
        here.enqueue("b", dependencies=("a",))
        bridge.link.faults = failing("leaving", Fault(OutcomeUnknownError("test")), times=3)
        await here.ended("a", "b")
        assert began(here, "b") - ended(here, "a") < 2.0


@virtual_time
@pytest.mark.parametrize("how", ["the parent was retried", "its edge was deleted"])
async def test_a_child_with_an_open_edge_behind_a_done_one_waits_and_does_not_go_round(how: str) -> None:
    async with one_bridge() as (here, bridge):
        here.enqueue("a")
        here.handlers.takes("slow", 1000.0)
        b = here.enqueue("b", "slow")
        child = here.enqueue("c", dependencies=("a", "b"))
        await here.ended("a")
        await here.until(lambda: here.record("c").state is TaskState.BLOCKED)
        await asyncio.sleep(10)
        [a_done] = here.world.edges.leaving("a")
        assert a_done.edge.done
        [b_open] = here.world.edges.leaving("b")
        if how == "its edge was deleted":
            here.world.edges.drop("c", ["b"])
        else:
            # It had ended, and was let start over before the child has looked.
            here.world.edges.write(b_open.edge.of(b.replace(state=TaskState.EXPIRED)), b_open.sequence)
        before = bridge.meter.counts["bridge_item_parked_total"]
        await asyncio.sleep(100)
        assert bridge.meter.counts["bridge_item_parked_total"] - before < 20
        assert here.record("c").state is TaskState.BLOCKED
        # Nothing else is wrong with it: it runs as soon as the other has completed.
        await here.ended("b", "c")
        assert 0 <= began(here, "c") - ended(here, "b") < SOON_S
        assert here.record("c").dependencies == child.dependencies
        await here.quiet()
        assert edges_left(here) == 0
