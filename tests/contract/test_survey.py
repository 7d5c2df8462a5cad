"""The contract of what a sweeper asks of storage, `Survey`: held to by memory and by JetStream."""

import msgspec
import pytest
from tests.contract.places import Hand, Place, contract

from aj_bridge.core.sweep import Whereabouts
from aj_sdk.errors import ConflictError, QueueNotFoundError
from aj_sdk.wire.dead import DeadLetter
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
    found = [stored async for stored in survey.scan(first, last)]
    assert [stored.task_id for stored in found] == [two, broken, one]
    assert [stored.record is None for stored in found] == [False, True, False]
    assert [stored.task_id async for stored in survey.scan(second + 1, last)] == [broken, one]
    assert [stored.task_id async for stored in survey.scan(second + 1, last - 1)] == [broken]
    assert [stored.task_id async for stored in survey.scan(last, last)] == [one]
    assert [stored async for stored in survey.scan(last + 1, last)] == []
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


@contract(waits=["outside"])
async def test_edges_are_read_in_their_order_and_removed_only_where_they_were_seen(place: Place) -> None:
    survey, edges = await place.survey(), (await place.storage()).edges
    parent, *children = (f"{place.queue}-{name}" for name in ("parent", "one", "two", "three"))
    for child in children:
        await edges.write(Edge.between(parent, task(place, child, TaskState.BLOCKED, parent)), 0)
    found = [stored for stored in await survey.edges(1, 100_000) if stored.edge.parent == parent]
    assert [stored.edge.child for stored in found] == children
    one, two, three = found
    assert (await survey.edges(two.sequence, 1)) == [two]
    assert await edges.write(two.edge.of(task(place, parent, TaskState.COMPLETE)), two.sequence)
    for stored in (one, one, two):
        await survey.drop_edge(stored)
    left = [stored.edge.child for stored in await survey.edges(one.sequence, 100_000) if stored.edge.parent == parent]
    assert left == [children[2], children[1]]  # the second stands anew, behind the third
    assert await survey.edges(three.sequence + 100, 10) == []


@contract(waits=["outside"])
async def test_who_waits_for_a_task_that_is_gone_is_brought_back_and_counted(place: Place) -> None:
    survey, hand = await place.survey(), await Hand.at(place)
    edges = (await place.storage()).edges
    parent, child = f"{place.queue}-parent", f"{place.queue}-child"
    blocked = task(place, child, TaskState.BLOCKED, parent)
    await place.put(child, blocked.to_wire())
    await edges.write(Edge.between(parent, blocked), 0)
    await place.publish(child)
    await hand.park(await hand.one(), place.now_ns() + 3600 * NS_PER_S)
    assert await survey.removed(parent) == 1
    claim = await hand.due()
    assert claim.task_id == child
    assert await survey.removed(child) == 0
    await hand.storage.items.ack(claim)


@contract(waits=["outside"])
async def test_a_record_that_can_not_be_read_has_one_dead_letter_whoever_finds_it(place: Place) -> None:
    survey, storage = await place.survey(), await place.storage()
    task_id = f"{place.queue}-broken"
    sequence = await place.put(task_id, b"{")
    letter = DeadLetter(
        reason="quarantined",
        detail="it can't be read",
        queue="",
        task_id=task_id,
        task_type="",
        tries=0,
        body=b"{",
        at_ns=place.now_ns(),
        sequence=sequence,
    )
    at_hand = msgspec.structs.replace(letter, queue=place.queue)
    assert await survey.notices.bury(letter)
    assert not await survey.notices.bury(letter)
    assert not await storage.notices.bury(at_hand)
    assert await place.dead("quarantined", task_id) is None
    newer = msgspec.structs.replace(at_hand, sequence=await place.put(task_id, b"[]"), body=b"[]")
    assert await storage.notices.bury(newer)
    assert not await survey.notices.bury(msgspec.structs.replace(newer, queue=""))
    newest = msgspec.structs.replace(newer, sequence=await place.put(task_id, b"]"), body=b"]")
    assert await storage.notices.bury(newest)  # in the place of the older one
    assert await place.dead("quarantined", task_id) == newest
