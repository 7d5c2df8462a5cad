"""The contract of what a sweeper asks of storage, `Survey`: held to by memory and by JetStream."""

import pytest
from tests.contract.places import Hand, Place, contract

from aj_bridge.core.sweep import Whereabouts
from aj_sdk.errors import ConflictError, QueueNotFoundError
from aj_sdk.wire.edge import Edge
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S


def task(place: Place, task_id: str, state: TaskState = TaskState.NEW, *dependencies: str) -> TaskRecord:
    return TaskRecord(
        id=task_id, type="t", queue=place.queue, state=state, created_ns=NS_PER_S, dependencies=dependencies
    )


@contract(waits=["outside"])
async def test_records_are_read_in_the_order_of_their_last_save_from_a_sequence_on(place: Place) -> None:
    survey = await place.survey()
    one, two, broken = (f"{place.queue}-{name}" for name in ("one", "two", "broken"))
    first = await place.put(one, task(place, one).to_wire())
    assert await survey.last_sequence() == first
    second = await place.put(two, task(place, two).to_wire())
    await place.put(broken, b"{")
    last = await survey.save(task(place, one, TaskState.EXPIRED), first)
    assert await survey.last_sequence() == last
    found = [stored async for stored in survey.scan(first)]
    assert [stored.task_id for stored in found] == [two, broken, one]
    assert [stored.record is None for stored in found] == [False, True, False]
    assert [stored.task_id async for stored in survey.scan(second + 1)] == [broken, one]
    assert [stored async for stored in survey.scan(last + 1)] == []
    assert (await survey.load_many([one]))[one].record == task(place, one, TaskState.EXPIRED)
    with pytest.raises(ConflictError):
        await survey.save(task(place, one), first)


@contract(waits=["outside"])
async def test_a_task_is_located_by_its_item_or_its_schedule(place: Place) -> None:
    survey, hand = await place.survey(), await Hand.at(place)
    queued, parked, lost = (f"{place.queue}-{name}" for name in ("queued", "parked", "lost"))
    assert (await survey.queues())[place.queue].name == place.queue
    await place.publish(parked)
    await hand.park(await hand.one(), place.now_ns() + 3600 * NS_PER_S)
    assert await survey.publish(place.queue, queued)
    assert not await survey.publish(place.queue, queued)
    [item] = await survey.items(place.queue, 1, 10)
    assert (item.task_id, item.idle, item.stranded) == (queued, True, False)
    assert await survey.locate(place.queue, [queued, parked, lost]) == {
        queued: Whereabouts(item=item.sequence),
        parked: Whereabouts(waits=True),
        lost: Whereabouts(),
    }
    with pytest.raises(QueueNotFoundError):
        await survey.publish("NOWHERE", lost)


@contract(waits=["outside"])
async def test_an_item_is_taken_out_only_where_it_was_seen(place: Place) -> None:
    survey = await place.survey()
    names = [f"{place.queue}-{number}" for number in range(3)]
    for name in names:
        await place.publish(name)
    one, two, three = await survey.items(place.queue, 1, 10)
    assert [item.task_id for item in (one, two, three)] == names
    assert await survey.items(place.queue, one.sequence + 1, 1) == [two]
    await survey.take_out(place.queue, one.task_id, two.sequence + 100)
    await survey.take_out(place.queue, two.task_id, two.sequence)
    await survey.take_out(place.queue, two.task_id, two.sequence)
    assert await survey.items(place.queue, 1, 10) == [one, three]


@contract(waits=["outside"])
async def test_the_end_of_a_task_wakes_who_waits_for_it_and_forgets_what_it_waited_for(place: Place) -> None:
    survey, hand = await place.survey(), await Hand.at(place)
    edges = (await place.storage()).edges
    first, parent, child = (f"{place.queue}-{name}" for name in ("first", "parent", "child"))
    ended = task(place, parent, TaskState.QUEUE_ERROR, first)
    blocked = task(place, child, TaskState.BLOCKED, parent)
    await place.put(child, blocked.to_wire())
    await edges.write(Edge.between(first, ended), 0)
    await edges.write(Edge.between(parent, blocked), 0)
    await place.publish(child)
    await hand.park(await hand.one(), place.now_ns() + 3600 * NS_PER_S)
    await survey.ended(ended)
    claim = await hand.due()
    assert claim.task_id == child
    assert [stored.edge.state for stored in await edges.entering(child)] == [TaskState.QUEUE_ERROR]
    assert await edges.entering(parent) == []
    await survey.ended(ended)  # may be repeated
    await hand.storage.items.ack(claim)
