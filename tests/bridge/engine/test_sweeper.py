"""The sweeper in virtual time: each inconsistency is planted, and is gone within a sweep and a lease.

Each edge of the lifecycle table that the sweeper takes has a scenario here.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.bridge.engine.bridges import QUEUE, Asking, Counts, Site, site
from tests.virtual_time import virtual_time

from aj_bridge.core.lifecycle import EDGES, Edge, Event, Hand
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.duties import on_duty
from aj_bridge.engine.meter import SWEEP_SCANNED, SWEPT
from aj_bridge.engine.sweeper import EVERY_S, Sweeper
from aj_bridge.storage.memory import Fault, MemorySurvey
from aj_sdk.errors import OutcomeUnknownError, RefusedError
from aj_sdk.wire.call import Completed, Failed
from aj_sdk.wire.edge import Edge as EdgeToChild
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

LEASE_S = 30.0
WITHIN_S = EVERY_S + LEASE_S + 1
SWEPT_EDGES = [edge for edge in EDGES if edge.hand is Hand.SWEEPER]


class Reign:
    """Leadership that a test gives and takes."""

    def __init__(self) -> None:
        self.leads = True


class Sweep:
    def __init__(self, here: Site, **options: Any) -> None:
        self.survey = MemorySurvey(here.world)
        self.meter = Counts()
        self.reign = Reign()
        clock = Clock(now_ns=here.world.now_ns, monotonic=asyncio.get_running_loop().time)
        peers = Asking(here.neighbours, self.survey)
        self.sweeper = Sweeper(self.survey, peers, self.reign, self.meter, clock, **options)


@contextlib.asynccontextmanager
async def swept(here: Site, **options: Any) -> AsyncIterator[Sweep]:
    sweep = Sweep(here, **options)
    async with on_duty([sweep.sweeper]):
        yield sweep


def put(
    here: Site, task_id: str, state: TaskState, *, queue: str = QUEUE, stamp: Stamp | None = None, **fields: Any
) -> None:
    record = TaskRecord(id=task_id, type="t", queue=queue, state=state, created_ns=here.world.now_ns(), **fields)
    here.world.put(task_id, record.to_wire(), stamp=stamp)


def has_item(here: Site, task_id: str) -> bool:
    return here.world.queue(QUEUE).sequence_of(task_id) is not None


@virtual_time
@pytest.mark.parametrize("state", [TaskState.NEW, TaskState.RETRY, TaskState.BLOCKED, TaskState.UNKNOWN])
async def test_a_waiting_task_without_item_and_schedule_gets_an_item(state: TaskState) -> None:
    here = site(lease_s=LEASE_S)
    put(here, "a", state)
    async with swept(here) as sweep:
        await asyncio.sleep(LEASE_S / 2)
        assert not has_item(here, "a")  # its producer may be just about to
        await asyncio.sleep(WITHIN_S - LEASE_S / 2)
        assert has_item(here, "a")
        assert sweep.meter.counts[SWEPT] == 1


@virtual_time
async def test_an_active_task_without_item_runs_again_when_two_leases_have_passed() -> None:
    here = site(lease_s=LEASE_S)
    put(here, "a", TaskState.ACTIVE, tries=1, stamp=Stamp("gone", ItemRef(7, 1)))
    async with here.bridge(), swept(here):
        await asyncio.sleep(2 * LEASE_S - 1)
        assert not here.handlers.calls
        await here.ended("a")
    assert here.record("a").state is TaskState.COMPLETE


@virtual_time
async def test_a_task_whose_item_or_schedule_stands_is_left_alone() -> None:
    here = site(lease_s=LEASE_S)
    here.enqueue("queued")
    put(here, "parked", TaskState.RETRY)
    here.world.schedule(QUEUE, "parked", here.world.now_ns() + 3600 * NS_PER_S)
    put(here, "done", TaskState.COMPLETE)
    async with swept(here) as sweep:
        await asyncio.sleep(10 * WITHIN_S)
        assert sweep.meter.counts[SWEPT] == 0
        assert sweep.meter.counts[SWEEP_SCANNED] == 3  # each record is read once


@virtual_time
async def test_a_task_whose_deliveries_are_used_up_is_given_to_a_worker_again() -> None:
    here = site(lease_s=0.0, max_tries=1, max_run_time_ns=5 * NS_PER_S)
    here.enqueue("a")
    strand(here, "a")
    async with swept(here):
        await asyncio.sleep(2 * WITHIN_S)
        sequence = here.world.queue(QUEUE).sequence_of("a")
        assert sequence is not None
        assert not here.world.queue(QUEUE).stranded(sequence)


@virtual_time
async def test_an_item_without_a_task_becomes_a_dead_letter_when_two_sweeps_have_seen_it() -> None:
    here = site(lease_s=LEASE_S)
    here.world.publish(QUEUE, "nothing")
    async with swept(here):
        await asyncio.sleep(EVERY_S / 2)
        assert has_item(here, "nothing")
        await asyncio.sleep(WITHIN_S)
        assert not has_item(here, "nothing")
    assert list(here.world.dead) == [("quarantined", QUEUE, "nothing")]


@virtual_time
async def test_a_record_that_can_not_be_read_has_one_dead_letter_also_after_a_change_of_leader() -> None:
    here = site(lease_s=LEASE_S)
    here.world.put("broken", b'{"id":"broken","type":"t","queue":"Q","created":7}')
    here.world.put("worse", b"{")
    async with swept(here) as first:
        await asyncio.sleep(EVERY_S - 1)
        assert not here.world.dead
        await asyncio.sleep(WITHIN_S)
        assert first.meter.counts[SWEPT] == 2
    before = dict(here.world.dead)
    assert set(before) == {("quarantined", QUEUE, "broken"), ("quarantined", "", "worse")}
    assert "created" in before["quarantined", QUEUE, "broken"].detail
    here.world.publish(QUEUE, "worse")
    async with here.bridge(), swept(here) as second:
        await asyncio.sleep(3 * WITHIN_S)
        await here.quiet()
        assert second.meter.counts[SWEPT] == 0
        assert here.world.dead == before
        here.world.put("worse", b"[")  # another one that can't be read either
        await asyncio.sleep(2 * WITHIN_S)
        assert here.world.dead["quarantined", "", "worse"].body == b"["


@virtual_time
@pytest.mark.parametrize("step", ["bury", "leaving", "take_out"])
@pytest.mark.parametrize("applied", [False, True])
async def test_a_sweeper_that_dies_after_it_has_ended_a_task_leaves_the_rest_to_the_next(
    step: str, applied: bool
) -> None:
    here = site(lease_s=0.0, max_tries=1, max_run_time_ns=5 * NS_PER_S)
    here.world.publish(QUEUE, "a")
    strand(here, "a")
    put(here, "a", TaskState.RETRY, tries=1, last_err="boom")
    blocked = here.enqueue("child", dependencies=("a",))
    here.world.edges.write(EdgeToChild.between("a", blocked), 0)
    async with swept(here) as first:
        deaths = iter([Fault(OutcomeUnknownError(step), applied=applied)])

        def die(act: str, _about: object) -> Fault | None:
            fault = next(deaths, None) if act == step else None
            if fault is not None:
                first.reign.leads = False
            return fault

        first.survey.link.faults = die
        [record] = await here.ended("a")
        await asyncio.sleep(WITHIN_S)
        assert has_item(here, "a") is not (step == "take_out" and applied)
    assert record.state is TaskState.EXPIRED
    async with swept(here):
        await asyncio.sleep(3 * WITHIN_S)
        assert not has_item(here, "a")
        assert here.world.dead["expired", QUEUE, "a"].detail == "boom"
        assert [stored.edge.state for stored in here.world.edges.leaving("a")] == [TaskState.EXPIRED]


@virtual_time
async def test_edges_that_nobody_waits_by_any_more_are_removed() -> None:
    here = site(lease_s=LEASE_S)
    put(here, "parent", TaskState.NEW)
    here.world.publish(QUEUE, "parent")
    waits = here.enqueue("waits", dependencies=("parent",))
    for child in (waits, waits.replace(id="gone"), waits.replace(id="ended")):
        here.world.edges.write(EdgeToChild.between("parent", child), 0)
    put(here, "ended", TaskState.TERMINATED, dependencies=("parent",))
    async with swept(here) as sweep:
        await asyncio.sleep(2 * WITHIN_S)
        assert [stored.edge.child for stored in here.world.edges.leaving("parent")] == ["waits"]
        assert sweep.meter.counts[SWEPT] == 2


@virtual_time
@pytest.mark.parametrize("end", ["complete", "terminated", "removed"])
async def test_a_child_whose_parent_ended_without_a_word_is_told_by_the_sweeper(end: str) -> None:
    here = site(lease_s=LEASE_S)
    put(here, "parent", TaskState.NEW)
    here.world.schedule(QUEUE, "parent", here.world.now_ns() + 3600 * NS_PER_S)
    here.enqueue("child", dependencies=("parent",))
    async with here.bridge(), swept(here, every_s=1.0) as sweep:
        # By then it looks for itself but once a minute.
        await asyncio.sleep(610)
        assert here.record("child").state is TaskState.BLOCKED
        before = sweep.meter.counts[SWEPT]
        if end == "removed":
            here.world.remove("parent")
        else:
            put(here, "parent", TaskState(end))
        began = asyncio.get_running_loop().time()
        [child] = await here.ended("child")
        assert asyncio.get_running_loop().time() - began < 3
        assert child.state is (TaskState.COMPLETE if end == "complete" else TaskState.UNREACHABLE)
        await here.quiet()
        assert sweep.meter.counts[SWEPT] == before + 1
    assert len(here.world.edges) == 0


@virtual_time
async def test_an_active_task_of_a_removed_queue_is_closed_only_when_nobody_holds_it() -> None:
    here = site(lease_s=LEASE_S)
    here.handlers.takes("t", 500.0)
    put(here, "orphan", TaskState.ACTIVE, stamp=Stamp("gone", ItemRef(7, 1)))
    here.enqueue("held")
    bridge = here.bridge()
    async with bridge:
        await here.handlers.begun(1)
        here.world.remove_queue(QUEUE)
        async with swept(here):
            await asyncio.sleep(3 * WITHIN_S)
            assert here.record("orphan").state is TaskState.QUEUE_ERROR
            assert here.record("held").state is TaskState.ACTIVE
        await bridge.crash()


@virtual_time
@pytest.mark.parametrize("schedules", [True, False])
async def test_who_waits_for_a_task_that_the_sweeper_ends_is_woken_by_that(schedules: bool) -> None:
    here = site(lease_s=LEASE_S, schedules=schedules)
    put(here, "first", TaskState.NEW, queue="NOWHERE")
    put(here, "parent", TaskState.BLOCKED, queue="NOWHERE", dependencies=("first",))
    here.enqueue("child", dependencies=("parent",))
    async with here.bridge(), swept(here):
        await here.ended("parent", "child")
        ends = {
            stored.task_id: at for at, stored in here.saves if stored.record is not None and stored.record.state.final
        }
        assert 0 <= ends["child"] - ends["parent"] < 0.5
        await here.quiet()
    assert here.states("child") == ["blocked", "unreachable"]
    assert len(here.world.edges) == 0


@virtual_time
async def test_who_does_not_lead_changes_nothing() -> None:
    here = site(lease_s=LEASE_S)
    put(here, "a", TaskState.NEW)
    async with swept(here) as sweep:
        sweep.reign.leads = False
        await asyncio.sleep(5 * WITHIN_S)
        assert not has_item(here, "a")
        sweep.reign.leads = True
        await asyncio.sleep(EVERY_S + WITHIN_S)
        assert has_item(here, "a")


@virtual_time
async def test_the_trouble_of_one_queue_keeps_no_other_from_being_swept() -> None:
    here = site(lease_s=LEASE_S)
    here.world.add_queue(QueueSettings(name="BAD"))
    put(here, "bad", TaskState.NEW, queue="BAD")
    put(here, "good", TaskState.NEW)
    here.world.publish("BAD", "nothing")
    here.world.publish(QUEUE, "nothing")
    async with swept(here) as sweep:
        denied = Fault(RefusedError("stream", 10023, "insufficient resources"))
        sweep.survey.link.faults = lambda _act, about: denied if about in ("BAD", ["bad"]) else None
        await asyncio.sleep(WITHIN_S)
        assert has_item(here, "good")
        assert not has_item(here, "nothing")


@virtual_time
async def test_a_sweep_that_was_broken_off_reads_nothing_twice() -> None:
    here = site(lease_s=LEASE_S)
    put(here, "a", TaskState.NEW)
    async with swept(here) as sweep:
        broken = iter([Fault(OutcomeUnknownError("load"))])
        sweep.survey.link.faults = lambda act, _about: next(broken, None) if act == "load" else None
        await asyncio.sleep(EVERY_S + WITHIN_S)
        assert has_item(here, "a")
        assert sweep.meter.counts[SWEEP_SCANNED] == 1


@virtual_time
async def test_a_shorter_interval_shortens_the_grace_of_queues_without_a_lease() -> None:
    here = site(lease_s=0.0, max_tries=1, max_run_time_ns=5 * NS_PER_S)
    put(here, "a", TaskState.NEW)
    async with swept(here, every_s=1.0):
        await asyncio.sleep(0.9)
        assert not has_item(here, "a")
        await asyncio.sleep(1.5)
        assert has_item(here, "a")


@virtual_time
async def test_more_unfinished_tasks_than_are_kept_in_mind_are_looked_at_in_rounds() -> None:
    here = site(lease_s=LEASE_S)
    for number in range(50):
        here.enqueue(f"well{number}")
    put(here, "lost", TaskState.NEW)
    async with swept(here, watched=10):
        await asyncio.sleep(12 * WITHIN_S)
        assert has_item(here, "lost")
        here.world.queue(QUEUE).purge("well3", 10_000)
        await asyncio.sleep(12 * WITHIN_S)
        assert has_item(here, "well3")


@virtual_time
@pytest.mark.parametrize("edge", SWEPT_EDGES, ids=lambda edge: f"{edge.before} {edge.event.name}")
async def test_each_edge_of_the_sweeper_is_taken(edge: Edge) -> None:
    assert edge.before is not None
    here = site(lease_s=LEASE_S, discard_old=edge.event is Event.ITEM_DROPPED, max_entries=5)
    stamp = Stamp("gone", ItemRef(7, 1)) if edge.before is TaskState.ACTIVE else None
    if edge.event is Event.DELIVERIES_USED_UP:
        here = site(lease_s=0.0, max_tries=1, max_run_time_ns=5 * NS_PER_S)
        here.world.publish(QUEUE, "a")
        strand(here, "a")
        put(here, "a", edge.before, tries=1, stamp=stamp, last_err="boom")
    elif edge.event is Event.QUEUE_GONE:
        put(here, "a", edge.before, queue="NOWHERE", stamp=stamp)
    else:
        put(here, "a", edge.before)
    async with swept(here):
        [record] = await here.ended("a")
        await here.quiet()
    assert record.state is edge.after
    assert record.last_err


def strand(here: Site, task_id: str) -> None:
    """Use up an item's deliveries, as a worker that dies with each of them does."""
    queue = here.world.queue(QUEUE)

    class Taker:
        room = 1

        def deliver(self, item: Any) -> None:
            self.room = 0

    taker = Taker()
    queue.attach(taker)
    queue.detach(taker)
    sequence = queue.sequence_of(task_id)
    assert sequence is not None
    queue.nak(sequence)
    other = Taker()
    queue.attach(other)
    queue.detach(other)
    assert queue.stranded(sequence)


@virtual_time
@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_deleted_by_hand_all_that_is_left_ends_and_leaves_nothing_behind(seed: int) -> None:
    chance = random.Random(seed)
    here = site(lease_s=5.0)

    async def work(_call: Any) -> Completed | Failed:
        await asyncio.sleep(chance.uniform(0, 8))
        return Failed("boom") if chance.random() < 0.2 else Completed(b"done")

    here.handlers.on("t", work)
    ids = [f"t{number}" for number in range(60)]
    bridges = [here.bridge(concurrency=5), here.bridge(concurrency=5)]
    for bridge in bridges:
        bridge.start()
    async with swept(here, every_s=4.0) as one, swept(here, every_s=4.0) as two:
        for number, task_id in enumerate(ids):
            if chance.random() < 0.2:
                put(here, task_id, TaskState.NEW)
                here.world.schedule(QUEUE, task_id, here.world.now_ns() + chance.randrange(200) * NS_PER_S)
            else:
                parents = tuple(chance.sample(ids[:number], 2)) if number > 10 and chance.random() < 0.4 else ()
                here.enqueue(task_id, dependencies=parents)
            await asyncio.sleep(chance.uniform(0, 1))
        for step in range(200):
            one.reign.leads = step % 100 < 50
            two.reign.leads = not one.reign.leads
            delete_something(here, chance, ids)
            if step == 70:
                await bridges[0].crash()
            await asyncio.sleep(chance.uniform(0, 2))
        async with asyncio.timeout(3600):
            await here.until(lambda: all(stored.readable().state.final for stored in here.world.since(1)))
            await here.quiet()
        await asyncio.sleep(60)
        assert len(here.world.queue(QUEUE)) == len(here.world.edges) == 0
        assert not any(here.world.standing(QUEUE, task_id) for task_id in ids)
        await bridges[1].drain()


def delete_something(here: Site, chance: random.Random, ids: list[str]) -> None:
    """Delete a record, an item, a schedule or an edge of some task, where it has one."""
    task_id, other, what = chance.choice(ids), chance.choice(ids), chance.random()
    if what < 0.05:
        here.world.remove(task_id)
    elif what < 0.4:
        here.world.queue(QUEUE).purge(task_id, 1_000_000)
    elif what < 0.7:
        here.world.unschedule(QUEUE, task_id, 1_000_000)
    else:
        here.world.edges.drop(task_id, [other])
