"""The contract of storage: what `aj_bridge.storage.protocols` promises, held to by memory and by JetStream."""

import asyncio
import time

import pytest
from tests.contract.places import LEASE_S, PLENTY_S, Hand, Place, contract

from aj_bridge.storage.jetstream import JetStreamStorage
from aj_sdk.errors import ConflictError, TaskTooLargeError
from aj_sdk.wire.attempt import Attempt, AttemptOutcome
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.edge import Edge
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

STAMP = Stamp("bridge-1", ItemRef(7, 2))
LEASE_NS = int(LEASE_S * NS_PER_S)
SOON_NS = 300 * NS_PER_MS


def task(task_id: str, **changes: object) -> TaskRecord:
    return TaskRecord(id=task_id, type="t", queue="Q", created_ns=1_767_225_600 * NS_PER_S).replace(**changes)


def elapsed() -> float:
    return asyncio.get_running_loop().time()


def names(place: Place, number: int) -> list[str]:
    """Give task ids of this test alone: all share one task store."""
    return [f"{place.queue}-{index}" for index in range(number)]


async def until(place: Place, in_flight: int) -> None:
    """Wait until so many items are in flight; the server tells nobody, so it is asked."""
    async with asyncio.timeout(PLENTY_S):
        while await place.in_flight() != in_flight:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


async def empty(place: Place) -> None:
    """Wait until no item is left."""
    async with asyncio.timeout(PLENTY_S):
        while await place.items():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)


async def only_this_comes(place: Place, hand: Hand, sentinel: str) -> None:
    """See that nothing comes but an item that is published now: what was there before would come before it."""
    await place.publish(sentinel)
    claims = await hand.take(1)
    assert [claim.task_id for claim in claims] == [sentinel]
    await hand.storage.items.ack(claims[0])


# Records.


@contract(waits=["outside"])
async def test_a_record_that_is_not_there_is_none(place: Place) -> None:
    records = (await place.storage()).records
    assert await records.load(f"{place.queue}-none") is None
    assert await records.load_many([f"{place.queue}-none"]) == {}
    assert await records.load_many([]) == {}


@contract(waits=["outside"])
async def test_a_record_is_loaded_as_its_last_writer_left_it(place: Place) -> None:
    records = (await place.storage()).records
    (name,) = names(place, 1)
    first = await place.put(name, task(name).to_wire())
    stored = await records.load(name)
    assert stored is not None
    assert (stored.task_id, stored.sequence, stored.stamp, stored.record) == (name, first, None, task(name))
    active = task(name, state=TaskState.ACTIVE, tries=1)
    second = await records.save(active, expected=first, stamp=STAMP)
    assert second > first
    stored = await records.load(name)
    assert stored is not None
    assert (stored.sequence, stored.stamp, stored.record, stored.body) == (second, STAMP, active, active.to_wire())


@contract(waits=["outside"])
async def test_a_record_that_cannot_be_read_is_loaded_with_its_fault(place: Place) -> None:
    records = (await place.storage()).records
    broken, other, deep = names(place, 3)
    await place.put(broken, b"{")
    await place.put(other, task("someone-else").to_wire())
    await place.put(deep, b"[" * 10_000)
    found = await records.load_many([broken, other, deep])
    assert {name: stored.record for name, stored in found.items()} == {broken: None, other: None, deep: None}
    assert all(stored.fault for stored in found.values())
    assert found[broken].body == b"{"
    assert await records.load(broken) == found[broken]


@contract(waits=["outside"])
async def test_many_records_are_loaded_at_once_and_absent_ones_are_left_out(place: Place) -> None:
    records = (await place.storage()).records
    there = names(place, 40)
    for name in there:
        await place.put(name, task(name).to_wire())
    found = await records.load_many([*there, f"{place.queue}-none", there[0]])
    assert sorted(found) == sorted(there)
    assert all(found[name].record == task(name) for name in there)


@contract(waits=["outside"])
async def test_a_save_is_refused_when_somebody_else_wrote_since(place: Place) -> None:
    records = (await place.storage()).records
    (name,) = names(place, 1)
    first = await records.save(task(name), expected=0, stamp=STAMP)
    second = await records.save(task(name, tries=1), expected=first, stamp=STAMP)
    for expected in (0, first, second + 1000):
        with pytest.raises(ConflictError):
            await records.save(task(name, tries=9), expected=expected, stamp=STAMP)
    stored = await records.load(name)
    assert stored is not None
    assert (stored.sequence, stored.record) == (second, task(name, tries=1))


@contract(waits=["outside"])
async def test_of_several_who_save_at_once_one_wins(place: Place) -> None:
    storages = [await place.storage() for _ in range(4)]
    (name,) = names(place, 1)
    first = await place.put(name, task(name).to_wire())
    answers = await asyncio.gather(
        *(
            storage.records.save(task(name, tries=number), expected=first, stamp=Stamp(f"b{number}", ItemRef(1, 1)))
            for number, storage in enumerate(storages)
        ),
        return_exceptions=True,
    )
    winners = [number for number, answer in enumerate(answers) if isinstance(answer, int)]
    assert len(winners) == 1
    assert sum(isinstance(answer, ConflictError) for answer in answers) == 3
    stored = await storages[0].records.load(name)
    assert stored is not None
    assert stored.record == task(name, tries=winners[0])
    assert stored.stamp == Stamp(f"b{winners[0]}", ItemRef(1, 1))


@contract(waits=["outside"])
async def test_a_record_is_discarded_only_as_it_was_saved(place: Place) -> None:
    [name] = names(place, 1)
    records = (await place.storage()).records
    first = await records.save(task(name), expected=0, stamp=STAMP)
    second = await records.save(task(name, tries=1), expected=first, stamp=STAMP)
    await records.discard(name, first)
    stored = await records.load(name)
    assert stored is not None
    assert stored.sequence == second
    await records.discard(name, second)
    assert await records.load(name) is None
    await records.discard(name, second)  # it is gone already


@contract(waits=["outside"])
async def test_a_record_goes_when_its_time_is_over_unless_another_took_its_place(place: Place) -> None:
    goes, stays = names(place, 2)
    records = (await place.storage()).records
    sequence = await records.save(task(stays), expected=0, stamp=STAMP, ttl_s=1)
    await records.save(task(stays, tries=1), expected=sequence, stamp=STAMP)
    await records.save(task(goes), expected=0, stamp=STAMP, ttl_s=1)
    began = elapsed()
    async with asyncio.timeout(PLENTY_S):
        while await records.load(goes) is not None:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.02)
    assert elapsed() - began > 0.7
    assert await records.load(stays) is not None
    assert await records.save(task(goes), expected=0, stamp=STAMP)  # nothing is left of it


@contract(waits=["outside"])
async def test_a_record_that_does_not_fit_is_refused_and_changes_nothing(place: Place) -> None:
    records = (await place.storage()).records
    (name,) = names(place, 1)
    first = await records.save(task(name), expected=0, stamp=STAMP)
    with pytest.raises(TaskTooLargeError) as refused:
        await records.save(task(name, payload=b"x" * 1024 * 1024), expected=first, stamp=STAMP)
    assert refused.value.size > refused.value.limit
    stored = await records.load(name)
    assert stored is not None
    assert stored.sequence == first


# Items.


@contract(max_run_time_ns=7 * NS_PER_S, max_tries=3, max_concurrent=5)
async def test_items_know_their_queue(place: Place) -> None:
    items = (await place.storage()).items
    settings = items.settings
    assert (settings.name, settings.max_run_time_ns, settings.max_tries) == (place.queue, 7 * NS_PER_S, 3)
    assert settings.max_concurrent == 5
    assert LEASE_NS <= items.ack_wait_ns <= LEASE_NS + 10 * NS_PER_MS


@contract(waits=["outside"], max_concurrent=5)
async def test_settings_are_those_of_now_once_they_were_read_again(place: Place) -> None:
    storage = await place.storage()
    await storage.refresh()
    assert storage.items.settings.max_concurrent == 5
    await place.configure(max_concurrent=7, max_run_time_ns=9 * NS_PER_S, weight=3, lease_ns=2 * LEASE_NS)
    await storage.refresh()
    settings = storage.items.settings
    assert (settings.max_concurrent, settings.max_run_time_ns, settings.weight) == (7, 9 * NS_PER_S, 3)
    assert 2 * LEASE_NS <= storage.items.ack_wait_ns <= 2 * LEASE_NS + 10 * NS_PER_MS


@contract(waits=["outside"])
async def test_a_backlog_is_known_of_from_what_came(place: Place) -> None:
    for name in names(place, 3):
        await place.publish(name)
    hand = await Hand.at(place)
    assert hand.storage.items.more
    await hand.take(2)
    assert hand.storage.items.more
    await hand.take(1)
    assert not hand.storage.items.more


@contract(waits=["outside"])
async def test_a_request_for_work_that_the_store_has_lost_is_made_again(place: Place) -> None:
    storage = await place.storage()
    if isinstance(storage, JetStreamStorage):
        storage.items._pulls["lost"] = 1  # as when the server that had it died, and ours is another
        storage.items._last_frame = time.monotonic()
    storage.items.want(1)
    waiting = asyncio.create_task(storage.items.next())
    await storage.refresh()
    (name,) = names(place, 1)
    await place.publish(name)
    async with asyncio.timeout(PLENTY_S):
        assert [claim.task_id for claim in await waiting] == [name]


@contract(waits=["outside"], max_concurrent=1)
async def test_what_was_asked_for_and_can_not_be_had_is_told(place: Place) -> None:
    for name in names(place, 3):
        await place.publish(name)
    hand = await Hand.at(place)
    items = hand.storage.items
    claim = await hand.one()
    assert items.asked == 0
    items.want(2)
    waiting = asyncio.create_task(items.next())
    await asyncio.sleep(0)
    assert items.asked == 2
    await items.ack(claim)
    async with asyncio.timeout(PLENTY_S):
        assert len(await waiting) == 1
    assert items.asked == 1


@contract(waits=["outside"])
async def test_what_was_asked_for_and_did_not_come_can_be_taken_back(place: Place) -> None:
    first, second = await Hand.at(place), await Hand.at(place)
    items = first.storage.items
    items.want(1)
    waiting = asyncio.create_task(items.next())
    await asyncio.sleep(0)
    items.want(0)
    await items.take_back()
    one, two = names(place, 2)
    await place.publish(one)
    assert (await second.one()).task_id == one
    items.want(1)
    await place.publish(two)
    async with asyncio.timeout(PLENTY_S):
        (claim,) = await waiting
    assert claim.task_id == two


@contract(waits=["outside"], max_entries=2, discard_old=True)
async def test_what_a_full_queue_drops_while_it_is_in_flight_is_told_and_can_be_put_back(place: Place) -> None:
    one, two, three = names(place, 3)
    hand = await Hand.at(place)
    dropped: asyncio.Queue[int] = asyncio.Queue()
    async with hand.storage.items.watch_dropped(dropped.put_nowait), asyncio.timeout(PLENTY_S):
        await place.publish(one)
        claim = await hand.one()
        await place.publish(two)
        await place.publish(three)
        assert await dropped.get() == claim.item.sequence
        assert await hand.storage.items.put_back(claim)  # now that of the second, which nobody was handed, is gone
        assert not await hand.storage.items.put_back(claim)
        assert await place.items() == 2
        assert {claim.task_id for claim in await hand.take(2)} == {one, three}
        await place.publish(three, replace=True)  # a new item in place of one in flight is no other thing to the server
        assert await dropped.get() > claim.item.sequence
        await hand.storage.items.discard(await hand.one(), "a word of ours is no drop")
        await place.publish(one, replace=True)
        await dropped.get()
    assert dropped.empty()


@contract(lease_ns=0, max_run_time_ns=7 * NS_PER_S)
async def test_the_lease_of_a_queue_without_one_is_its_run_time(place: Place) -> None:
    assert (await place.storage()).items.ack_wait_ns == 7 * NS_PER_S


@contract()
async def test_an_item_comes_as_a_claim(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    assert (claim.queue, claim.task_id, claim.body) == (place.queue, "a", b'{"kind":0,"job":"a"}')
    assert (claim.item.delivery, claim.fired, claim.silent, claim.due_ns) == (1, False, "", 0)
    assert claim.received <= elapsed()
    assert claim.received > elapsed() - PLENTY_S


@contract()
async def test_an_item_comes_whatever_it_holds(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a", b"\xff not an item")
    assert (await hand.one()).body == b"\xff not an item"


@contract()
async def test_items_come_in_the_order_in_which_they_were_put(place: Place) -> None:
    hand = await Hand.at(place)
    for name in "abcde":
        await place.publish(name)
    claims = await hand.take(5)
    assert [claim.task_id for claim in claims] == list("abcde")
    assert len({claim.item.sequence for claim in claims}) == 5


@contract()
async def test_an_item_that_is_there_already_stays(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    await place.publish("a")
    assert await place.items() == 1
    await hand.storage.items.ack(claim)
    await empty(place)


@contract()
async def test_no_more_items_come_than_were_wanted(place: Place) -> None:
    storage = await place.storage()
    for name in "abcdefgh":
        await place.publish(name)
    storage.items.want(3)
    got = list(await storage.items.next())
    taking = asyncio.create_task(storage.items.next())
    while len(got) < 3:
        got += await taking
        taking = asyncio.create_task(storage.items.next())
    await until(place, 3)
    assert not taking.done()
    storage.items.want(2)
    more = list(await taking)
    while len(more) < 2:
        more += await storage.items.next()
    await until(place, 5)
    assert [claim.task_id for claim in got + more] == list("abcde")


@contract()
async def test_nothing_comes_while_nothing_is_wanted(place: Place) -> None:
    storage = await place.storage()
    storage.items.want(0)
    taking = asyncio.create_task(storage.items.next())
    await place.publish("a")
    other = await Hand.at(place)
    assert (await other.one()).task_id == "a"
    assert not taking.done()
    taking.cancel()


@contract()
async def test_what_came_together_is_given_together(place: Place) -> None:
    storage = await place.storage()
    for name in "abcdefgh":
        await place.publish(name)
    storage.items.want(8)
    got = list(await storage.items.next())
    await until(place, 8)
    # All have been sent; a trip to the server and back comes after them.
    await storage.pulse.beat()
    if len(got) < 8:
        got += await storage.items.next()
    assert len(got) == 8


@contract()
async def test_giving_up_the_wait_for_items_loses_none(place: Place) -> None:
    storage = await place.storage()
    storage.items.want(1)
    taking = asyncio.create_task(storage.items.next())
    await asyncio.sleep(0)
    await place.publish("a")
    await until(place, 1)
    await storage.pulse.beat()
    taking.cancel()
    claims = (await asyncio.gather(taking, return_exceptions=True))[0]
    if isinstance(claims, BaseException):
        claims = await storage.items.next()
    assert [claim.task_id for claim in claims] == ["a"]


@contract()
async def test_each_item_goes_to_one_bridge(place: Place) -> None:
    hands = [await Hand.at(place) for _ in range(3)]
    wanted = names(place, 12)
    for hand in hands:
        hand.storage.items.want(4)
    taking = [asyncio.create_task(hand.take(4)) for hand in hands]
    for name in wanted:
        await place.publish(name)
    claims = [claim for taken in await asyncio.gather(*taking) for claim in taken]
    assert sorted(claim.task_id for claim in claims) == sorted(wanted)


@contract()
async def test_an_acknowledged_item_is_gone(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    await hand.storage.items.ack(await hand.one())
    await empty(place)
    await until(place, 0)


@contract()
async def test_an_item_is_gone_when_a_sure_acknowledgement_returns(place: Place) -> None:
    [name] = names(place, 1)
    await place.publish(name)
    hand = await Hand.at(place)
    await hand.storage.items.ack_surely(await hand.one())
    assert await place.in_flight() == 0
    await empty(place)


@contract()
async def test_a_discarded_item_is_gone(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    await hand.storage.items.discard(await hand.one(), "poison\r\nin two lines")
    await empty(place)


@contract()
async def test_an_item_comes_again_when_its_lease_is_over_and_not_before(place: Place) -> None:
    hand = await Hand.at(place)
    other = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    taken = elapsed()
    again = await other.one()
    assert elapsed() - taken > LEASE_S * 0.8
    assert (again.task_id, again.item) == ("a", ItemRef(claim.item.sequence, 2))
    third = await hand.one()
    assert third.item == ItemRef(claim.item.sequence, 3)


@contract()
async def test_a_renewed_claim_keeps_its_item(place: Place) -> None:
    hand = await Hand.at(place)
    other = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    taken = elapsed()
    waiting = asyncio.create_task(other.one())
    for _ in range(8):
        await asyncio.sleep(LEASE_S / 4)
        await hand.storage.items.renew(claim)
        assert not waiting.done()
    assert (await waiting).item == ItemRef(claim.item.sequence, 2)
    assert elapsed() - taken > LEASE_S * 2.5


@contract()
async def test_an_item_that_is_given_back_comes_again_at_once(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    taken = elapsed()
    for delivery in (2, 3, 4):
        await hand.storage.items.give_back(claim)
        claim = await hand.one()
        assert claim.item.delivery == delivery
    assert elapsed() - taken < LEASE_S * 0.8


@contract()
async def test_an_item_that_takes_the_place_of_another_starts_anew(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    old = await hand.one()
    await hand.storage.items.give_back(old)
    old = await hand.one()
    await place.publish("a", replace=True)
    new = await hand.one()
    assert new.item.delivery == 1
    assert new.item.sequence > old.item.sequence
    assert await place.items() == 1


@contract()
async def test_words_about_an_item_that_was_replaced_hit_nothing(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    old = await hand.one()
    await place.publish("a", replace=True)
    new = await hand.one()
    taken = elapsed()
    items = hand.storage.items
    await items.ack(old)
    await items.discard(old, "late")
    await items.give_back(old)
    for _ in range(2):
        # Whether a renewal of an item that is gone is confirmed is left open.
        await asyncio.gather(items.renew(old), return_exceptions=True)
        await asyncio.sleep(LEASE_S / 4)
    assert await place.items() == 1
    again = await hand.one()
    assert again.item == ItemRef(new.item.sequence, 2)
    assert elapsed() - taken < LEASE_S * 1.5


@contract()
async def test_words_mean_the_item_whichever_delivery_they_come_from(place: Place) -> None:
    """Nothing fences them, so the engine must not send them once it has lost an item."""
    hand = await Hand.at(place)
    await place.publish("a")
    first = await hand.one()
    second = await hand.one()
    assert second.item.delivery == 2
    await hand.storage.items.ack(first)
    await empty(place)


@contract(max_concurrent=2)
async def test_no_more_items_are_in_flight_than_the_queue_allows(place: Place) -> None:
    hand = await Hand.at(place)
    for name in "abc":
        await place.publish(name)
    first, second = await hand.take(2)
    hand.storage.items.want(5)
    taking = asyncio.create_task(hand.storage.items.next())
    await hand.storage.items.renew(first)
    await hand.storage.items.renew(second)
    assert not taking.done()
    assert await place.in_flight() == 2
    await hand.storage.items.ack(first)
    (third,) = await taking
    assert third.task_id == "c"


@contract(waits=["outside"], max_concurrent=1)
async def test_an_item_that_waits_outside_makes_room(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    await place.publish("b")
    await hand.park(await hand.one(), place.now_ns() + 3600 * NS_PER_S)
    assert (await hand.one()).task_id == "b"


@contract()
async def test_closing_gives_what_came_and_takes_no_more(place: Place) -> None:
    storage = await place.storage()
    storage.items.want(3)
    taking = asyncio.create_task(storage.items.next())
    await asyncio.sleep(0)
    await place.publish("a")
    (claim,) = await taking
    storage.items.want(2)
    await place.publish("b")
    await until(place, 2)
    left = await storage.items.close()
    assert [each.task_id for each in left] == ["b"]
    await place.publish("c")
    other = await Hand.at(place)
    assert (await other.one()).task_id == "c"
    # What is in hand can still be settled.
    await storage.items.ack(claim)
    for each in left:
        await storage.items.give_back(each)
    assert (await other.one()).task_id == "b"
    assert await storage.items.close() == []


# Waiting.


@contract()
async def test_a_parked_item_comes_back_when_it_is_due_and_not_before(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    due_ns = place.now_ns() + SOON_NS
    parked = await hand.park(await hand.one(), due_ns)
    assert (parked.queue, parked.task_id, parked.due_ns, parked.silent) == (place.queue, "a", due_ns, "")
    claim = await hand.due()
    assert place.now_ns() >= due_ns - 5 * NS_PER_MS
    assert (claim.task_id, claim.body, claim.silent) == ("a", b'{"kind":0,"job":"a"}', "")
    await hand.storage.items.ack(claim)
    await empty(place)


@contract()
async def test_an_item_parked_until_a_time_that_has_passed_comes_back_at_once(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    taken = elapsed()
    await hand.park(await hand.one(), place.now_ns() - 3600 * NS_PER_S)
    assert (await hand.due()).task_id == "a"
    assert elapsed() - taken < LEASE_S


@contract()
async def test_a_parked_item_brings_its_silent_owner_back(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    due_ns = place.now_ns() + SOON_NS
    await hand.park(await hand.one(), due_ns, "b1 77")
    claim = await hand.due()
    assert place.now_ns() >= due_ns - 5 * NS_PER_MS
    assert claim.silent == "b1 77"
    await hand.park(claim, place.now_ns() + SOON_NS)
    assert (await hand.due()).silent == ""


@contract()
async def test_a_claim_is_still_held_between_parking_and_leaving(place: Place) -> None:
    hand = await Hand.at(place)
    other = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    parked = await hand.storage.waiting.park(claim, place.now_ns() + 3600 * NS_PER_S)
    assert await place.in_flight() == 1
    waiting = asyncio.create_task(other.one())
    for _ in range(6):
        await asyncio.sleep(LEASE_S / 4)
        await hand.storage.items.renew(claim)
    assert not waiting.done()
    await hand.storage.waiting.leave(claim, parked)
    await place.publish("sentinel")
    assert (await waiting).task_id == "sentinel"


@contract(waits=["outside"])
async def test_a_parked_item_is_out_of_the_queue_and_stands(place: Place) -> None:
    hand = await Hand.at(place)
    waiting = hand.storage.waiting
    assert waiting.schedules
    await place.publish("a")
    await hand.park(await hand.one(), place.now_ns() + 3600 * NS_PER_S)
    await empty(place)
    assert await waiting.standing(place.queue, "a")
    assert not await waiting.standing(place.queue, "b")


@contract(waits=["outside"])
async def test_an_item_that_is_due_does_not_stand_and_comes_fired_and_new(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    old = await hand.one()
    await hand.park(old, place.now_ns() + SOON_NS)
    claim = await hand.one()
    assert claim.fired
    assert claim.item.delivery == 1
    assert claim.item.sequence > old.item.sequence
    assert not await hand.storage.waiting.standing(place.queue, "a")
    await hand.storage.items.give_back(claim)
    again = await hand.one()
    assert again.fired
    assert again.item == ItemRef(claim.item.sequence, 2)


@contract(waits=["outside"])
async def test_a_fired_item_takes_the_place_of_one_that_was_not_left(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    old = await hand.one()
    parked = await hand.storage.waiting.park(old, place.now_ns() + SOON_NS)
    new = await hand.one()
    assert new.fired
    await hand.storage.waiting.leave(old, parked)
    await only_this_comes(place, hand, "sentinel")
    await until(place, 1)
    assert await place.items() == 1


@contract(waits=["outside"])
async def test_parking_again_takes_the_place_of_what_stands(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    first = await hand.storage.waiting.park(claim, place.now_ns() + SOON_NS // 2)
    due_ns = place.now_ns() + 2 * SOON_NS
    second = await hand.storage.waiting.park(claim, due_ns)
    assert second.sequence > first.sequence
    assert not await hand.storage.waiting.wake(first)
    await hand.storage.waiting.leave(claim, second)
    await hand.one()
    assert place.now_ns() >= due_ns - 5 * NS_PER_MS
    await only_this_comes(place, hand, "sentinel")


@contract()
async def test_a_parked_item_is_woken_by_one_of_several(place: Place) -> None:
    hand = await Hand.at(place)
    storages = [hand.storage, await place.storage(), await place.storage()]
    await place.publish("a")
    parked = await hand.park(await hand.one(), place.now_ns() + 3600 * NS_PER_S)
    await hand.storage.pulse.beat()
    answers = await asyncio.gather(*(storage.waiting.wake(parked) for storage in storages for _ in range(2)))
    assert sorted(answers) == [False] * 5 + [True]
    claim = await hand.one()
    assert (claim.task_id, claim.due_ns) == ("a", 0)
    assert not await hand.storage.waiting.standing(place.queue, "a")
    await hand.storage.items.ack(claim)
    await empty(place)
    assert not await hand.storage.waiting.wake(parked)
    assert await place.items() == 0


@contract()
async def test_a_woken_item_brings_its_silent_owner_back(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    parked = await hand.storage.waiting.park(claim, place.now_ns() + 3600 * NS_PER_S, "b1 77")
    assert await hand.storage.waiting.wake(parked)
    assert (await hand.one()).silent == "b1 77"


@contract()
async def test_an_item_that_came_back_by_itself_is_not_woken(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    parked = await hand.park(await hand.one(), place.now_ns() + SOON_NS)
    await hand.storage.items.ack(await hand.due())
    await empty(place)
    assert not await hand.storage.waiting.wake(parked)
    assert await place.items() == 0


@contract()
async def test_waking_before_the_claim_is_left_makes_one_item(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    parked = await hand.storage.waiting.park(claim, place.now_ns() + 3600 * NS_PER_S)
    assert await hand.storage.waiting.wake(parked)
    woken = await hand.one()
    assert woken.item.sequence > claim.item.sequence
    await hand.storage.waiting.leave(claim, parked)
    await only_this_comes(place, hand, "sentinel")
    await until(place, 1)
    assert await place.items() == 1


@contract(waits=["inside"])
async def test_an_item_that_waits_inside_comes_back_with_its_next_delivery(place: Place) -> None:
    hand = await Hand.at(place)
    assert not hand.storage.waiting.schedules
    await place.publish("a")
    claim = await hand.one()
    await hand.park(claim, place.now_ns() + SOON_NS)
    assert not await hand.storage.waiting.standing(place.queue, "a")
    assert await place.in_flight() == 1
    again = await hand.one()
    assert (again.item, again.fired) == (ItemRef(claim.item.sequence, 2), False)


async def _waits_often(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    claim = await hand.one()
    silents = ["", "b1 77", "b1 77", "", "b2 8", "", ""]
    for silent in silents:
        due_ns = place.now_ns() + SOON_NS // 2
        await hand.park(claim, due_ns, silent)
        claim = await hand.due()
        assert place.now_ns() >= due_ns - 5 * NS_PER_MS
        assert claim.silent == silent
    await hand.storage.items.ack(claim)
    await empty(place)


@contract(waits=["inside"], lease_ns=0, max_run_time_ns=2 * LEASE_NS, max_tries=1)
async def test_waiting_inside_does_not_use_up_the_only_delivery(place: Place) -> None:
    await _waits_often(place)


@contract(waits=["inside"], lease_ns=0, max_run_time_ns=2 * LEASE_NS, max_tries=2)
async def test_waiting_inside_does_not_use_up_two_deliveries(place: Place) -> None:
    await _waits_often(place)


@contract(waits=["inside"], lease_ns=0, max_run_time_ns=2 * LEASE_NS, max_tries=3)
async def test_waiting_inside_does_not_use_up_three_deliveries(place: Place) -> None:
    await _waits_often(place)


@contract(waits=["inside"], lease_ns=0, max_run_time_ns=LEASE_NS, max_tries=2)
async def test_deliveries_that_nobody_answers_are_used_up(place: Place) -> None:
    """The item stays where it is, out of reach: crashes use deliveries up, and only they."""
    hand = await Hand.at(place)
    await place.publish("a")
    await hand.one()
    assert (await hand.one()).item.delivery == 2
    hand.storage.items.want(1)
    taking = asyncio.create_task(hand.storage.items.next())
    await until(place, 0)
    assert not taking.done()
    assert await place.items() == 1
    await place.publish("b")
    assert [claim.task_id for claim in await taking] == ["b"]


@contract(waits=["inside"], max_concurrent=1)
async def test_an_item_that_waits_inside_keeps_its_place_in_flight(place: Place) -> None:
    hand = await Hand.at(place)
    await place.publish("a")
    await place.publish("b")
    await hand.park(await hand.one(), place.now_ns() + SOON_NS)
    assert (await hand.one()).task_id == "a"


# Notices.


@contract(waits=["outside"])
async def test_a_new_state_is_told(place: Place) -> None:
    storage = await place.storage()
    events = await place.events()
    record = task(f"{place.queue}-a", state=TaskState.RETRY, tries=2, last_err="why")
    at_ns = place.now_ns()
    await storage.notices.state_changed(record, at_ns)
    async with asyncio.timeout(PLENTY_S):
        event = await events.get()
    assert (event.task_id, event.state, event.tries, event.last_error) == (record.id, TaskState.RETRY, 2, "why")
    assert event.timestamp_ns == at_ns


@contract(waits=["outside"])
async def test_the_newest_fifty_attempts_at_a_task_are_kept(place: Place) -> None:
    storage = await place.storage()
    (task_id,) = names(place, 1)
    attempts = [
        Attempt(
            task_id=task_id,
            task_type="t",
            queue=place.queue,
            try_=number,
            outcome=AttemptOutcome.FAILED,
            started_ns=number * NS_PER_S,
            ended_ns=(number + 1) * NS_PER_S,
            error="no such host",
        )
        for number in range(1, 54)
    ]
    for attempt in attempts:
        await storage.notices.attempted(attempt)
    assert await place.attempts(task_id) == attempts[3:]


@contract(waits=["outside"])
async def test_a_dead_letter_is_stored_when_bury_returns(place: Place) -> None:
    storage = await place.storage()
    letter = DeadLetter(
        reason="quarantined",
        detail="it can't be read",
        queue=place.queue,
        task_id="a",
        task_type="t",
        tries=3,
        body=b"\x00 anything",
        at_ns=place.now_ns(),
    )
    await storage.notices.bury(letter)
    assert await place.dead("quarantined", "a") == letter
    assert await place.dead("expired", "a") is None


# The pulse.


@contract(waits=["outside"])
async def test_after_a_beat_nothing_can_have_been_under_way_for_longer(place: Place) -> None:
    pulse = (await place.storage()).pulse
    asked = elapsed()
    await pulse.beat()
    assert asked <= pulse.since <= elapsed()
    assert pulse.standstills == 0


@contract()
async def test_a_claim_is_counted_from_before_it_was_sent(place: Place) -> None:
    hand = await Hand.at(place)
    hand.storage.items.want(1)
    taking = asyncio.create_task(hand.storage.items.next())
    await asyncio.sleep(LEASE_S)
    await place.publish("a")
    published = elapsed()
    (claim,) = await taking
    assert claim.received <= elapsed()
    # Not so long before that much of the lease would be gone.
    assert claim.received > published - LEASE_S / 2


# Edges.


@contract()
async def test_an_edge_is_written_under_compare_and_set_and_moves_behind_the_others(place: Place) -> None:
    edges = (await place.storage()).edges
    one, two, other, child = names(place, 4)
    waiting = task(child, dependencies=(one, two), queue=place.queue, load_dependencies=True)
    assert await edges.entering(child) == []
    assert await edges.first(child) is None
    for parent in (one, two):
        assert await edges.write(Edge.between(parent, waiting), 0)
        assert not await edges.write(Edge.between(parent, waiting), 0)
    assert await edges.write(Edge.between(one, task(other, queue=place.queue)), 0)
    first = await edges.first(child)
    assert first is not None
    assert first.edge == Edge.between(one, waiting)
    done = first.edge.of(task(one, state=TaskState.COMPLETE, result=TaskResult(payload="eA==", completed_ns=NS_PER_S)))
    assert not await edges.write(done, first.sequence + 1000)
    assert await edges.write(done, first.sequence)
    assert [stored.edge.parent for stored in await edges.entering(child)] == [two, one]
    assert sorted(stored.edge.child for stored in await edges.leaving(one)) == sorted([other, child])
    between = await edges.between(one, child)
    assert between is not None
    assert between.edge == done
    await edges.drop(child, [one, two])
    assert await edges.entering(child) == []
    assert [stored.edge.child for stored in await edges.leaving(one)] == [other]


@contract()
async def test_a_waiting_task_is_woken_by_its_name_whoever_parked_it(place: Place) -> None:
    hand, other = await Hand.at(place), await place.storage()
    (name,) = names(place, 1)
    await place.put(name, task(name, state=TaskState.BLOCKED, dependencies=("p",), queue=place.queue).to_wire())
    assert not await other.waiting.wake_task(place.queue, name)
    await place.publish(name)
    await hand.park(await hand.one(), place.now_ns() + 3600 * NS_PER_S)
    assert await other.waiting.wake_task(place.queue, name)
    claim = await hand.due()
    assert claim.task_id == name
    await hand.storage.items.ack(claim)
