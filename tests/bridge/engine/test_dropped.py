"""A full queue that discards old items, in virtual time: what is at work is put back, and not in circles."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest
from tests.bridge.engine.bridges import QUEUE, REFUSED, BridgeAtWork, Site, failing, site
from tests.virtual_time import virtual_time

from aj_bridge.engine.dropped import DroppedItems
from aj_bridge.engine.duties import on_duty
from aj_bridge.engine.meter import PUT_BACK
from aj_sdk.wire.state import TaskState

LEASE_S = 12.0
ROUND_S = 2.1


@contextlib.asynccontextmanager
async def full_queue(
    entries: int, *, schedules: bool = True, discard_old: bool = True
) -> AsyncIterator[tuple[Site, BridgeAtWork]]:
    """Give a bridge with as many tasks at work as its queue may hold, on duty."""
    here = site(lease_s=LEASE_S, schedules=schedules, max_entries=entries, discard_old=discard_old)
    here.handlers.takes("t", 100.0)
    async with (
        here.bridge() as bridge,
        on_duty([DroppedItems(bridge.storage, bridge.held, bridge.meter, bridge.clock)]),
    ):
        for number in range(entries):
            here.enqueue(f"t{number}")
        await here.handlers.begun(entries)
        yield here, bridge


def safe(here: Site, *names: str) -> bool:
    """Say whether tasks have an item, or a schedule that will make one: this bridge parks what it holds itself."""
    items = set(here.world.queue(QUEUE))
    return all(name in items or here.world.standing(QUEUE, name) is not None for name in names)


@virtual_time
@pytest.mark.parametrize("schedules", [True, False])
async def test_the_item_of_a_task_at_work_is_put_back_after_a_round_and_the_task_runs_once(schedules: bool) -> None:
    async with full_queue(2, schedules=schedules) as (here, bridge):
        here.handlers.takes("other", 0.0)
        here.enqueue("new", "other")
        await here.ended("new")
        assert not safe(here, "t0")
        await asyncio.sleep(ROUND_S)
        assert safe(here, "t0", "t1")
        assert bridge.meter.counts[PUT_BACK] == 1
        assert [record.state for record in await here.ended("t0", "t1")] == [TaskState.COMPLETE] * 2
        await here.quiet()
    assert sorted(call.task.id for call in here.handlers.calls) == ["new", "t0", "t1"]


@virtual_time
async def test_somebody_else_takes_over_a_dropped_task_when_its_bridge_dies() -> None:
    async with full_queue(2) as (here, bridge):
        here.handlers.takes("other", 0.0)
        here.enqueue("new", "other")
        await here.ended("new")
        await asyncio.sleep(ROUND_S)
        await bridge.crash()
        died = asyncio.get_running_loop().time()
        here.handlers.takes("t", 0.0)
        async with here.bridge():
            await here.ended("t0", "t1")
        # It found the owner silent, waited a lease, and found it silent again.
        assert asyncio.get_running_loop().time() - died <= 2 * LEASE_S + 5


@virtual_time
async def test_a_task_that_ends_before_the_round_is_not_put_back() -> None:
    async with full_queue(1) as (here, bridge):
        await asyncio.sleep(99.0)
        here.enqueue("new", "away")
        here.handlers.away.add("away")
        await here.ended("t0")
        await asyncio.sleep(5 * ROUND_S)
        assert not safe(here, "t0")
        assert bridge.meter.counts[PUT_BACK] == 0


@virtual_time
@pytest.mark.parametrize("schedules", [True, False])
async def test_items_that_drop_each_other_go_round_no_faster_than_the_rounds(schedules: bool) -> None:
    async with full_queue(3, schedules=schedules) as (here, bridge):
        for number in range(3):
            here.enqueue(f"more{number}")
        await asyncio.sleep(60.0)
        assert 1 <= bridge.meter.counts[PUT_BACK] <= 3 * 60 / ROUND_S
        await here.ended("t0", "t1", "t2")
    assert max(Counter(call.task.id for call in here.handlers.calls).values()) == 1


@virtual_time
async def test_an_item_that_went_with_its_task_stays_away() -> None:
    async with full_queue(2) as (here, bridge):
        stored = here.world.get("t0")
        assert stored is not None
        assert stored.record is not None
        here.world.put("t0", stored.record.replace(state=TaskState.TERMINATED).to_wire(), expected=stored.sequence)
        here.world.queue(QUEUE).clear()
        await asyncio.sleep(2 * ROUND_S)
        assert not safe(here, "t0")
        assert safe(here, "t1")  # purged, but its task is at work
        assert bridge.meter.counts[PUT_BACK] == 1


@virtual_time
@pytest.mark.parametrize("act", ["park", "put_back"])
async def test_a_storage_that_fails_is_tried_again(act: str) -> None:
    async with full_queue(2, schedules=act == "park") as (here, bridge):
        bridge.link.faults = failing(act, REFUSED, times=2)
        here.world.queue(QUEUE).clear()
        await asyncio.sleep(4 * ROUND_S)
        assert safe(here, "t0", "t1")


@virtual_time
async def test_a_queue_that_refuses_new_items_is_left_alone_until_it_is_configured() -> None:
    async with full_queue(2, discard_old=False) as (here, bridge):
        queue = here.world.queue(QUEUE)
        queue.clear()
        await asyncio.sleep(20.0)
        assert not safe(here, "t0")
        queue.configure(msgspec.structs.replace(queue.settings, discard_old=True))
        for name in ("t0", "t1"):
            here.world.publish(QUEUE, name)  # as a sweeper would; parked, as their owner is at work
        await asyncio.sleep(11.0)
        here.enqueue("t2")
        await here.handlers.begun(3)
        queue.clear()
        await asyncio.sleep(ROUND_S)
        assert safe(here, "t2")
        assert bridge.meter.counts[PUT_BACK] == 1
