"""What producers and bridges do with tasks in JetStream, against a real server."""

import asyncio
import time

import pytest
from tests.sdk.emails import NOW, item, task
from tests.sdk.lossy import LossyTransport
from tests.sdk.pulling import take

from aj_sdk.errors import (
    ConflictError,
    DecodeError,
    InvalidNameError,
    OutcomeUnknownError,
    QueueFullError,
    QueueNotFoundError,
    RefusedError,
    TaskTooLargeError,
)
from aj_sdk.jetstream import STREAM_NOT_FOUND
from aj_sdk.store import Store
from aj_sdk.wire.names import (
    DELAYED_STREAM,
    TASKS_STREAM,
    fired_subject,
    item_subject,
    queue_stream,
    task_subject,
)
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_S

pytestmark = pytest.mark.server

HOUR = 3600 * NS_PER_S
STAMP = Stamp("bridge-1", ItemRef(7, 1))


# Records.


async def test_a_saved_task_is_loaded_with_its_sequence_and_owner(prepared: Store) -> None:
    first = await prepared.save(task(), expected=0)
    loaded = await prepared.load("t1")
    assert loaded is not None
    assert (loaded.record, loaded.sequence, loaded.stamp) == (task(), first, None)
    second = await prepared.save(task(tries=1), expected=first, stamp=STAMP)
    loaded = await prepared.load("t1")
    assert loaded is not None
    assert (loaded.readable().tries, loaded.sequence, loaded.stamp) == (1, second, STAMP)


async def test_a_save_over_somebody_elses_is_refused(prepared: Store) -> None:
    await prepared.save(task(), expected=0)
    with pytest.raises(ConflictError) as caught:
        await prepared.save(task(tries=1), expected=0)
    assert (caught.value.task_id, caught.value.expected) == ("t1", 0)


async def test_a_task_that_is_not_there_reads_as_none(prepared: Store) -> None:
    assert await prepared.load("t1") is None
    assert await prepared.load_many(["t1", "t2"]) == {}


async def test_many_tasks_are_loaded_at_once(prepared: Store) -> None:
    for number in range(5):
        await prepared.save(task(f"t{number}"), expected=0)
    found = await prepared.load_many(["t0", "t3", "nosuch", "t3"])
    assert {task_id: stored.readable().id for task_id, stored in found.items()} == {"t0": "t0", "t3": "t3"}


@pytest.mark.parametrize("wild", ["*", ">", "a.b", "", "ä", "a b", "x\n"])
async def test_a_name_that_is_none_is_refused_before_anything_is_asked(prepared: Store, wild: str) -> None:
    with pytest.raises(InvalidNameError):
        await prepared.load(wild)
    with pytest.raises(InvalidNameError):
        await prepared.load_many(["t1", wild])
    with pytest.raises(InvalidNameError):
        await prepared.publish_item(wild, "t1")
    with pytest.raises(InvalidNameError):
        await prepared.park_item("EMAIL", wild, NOW)


@pytest.mark.parametrize(
    ("body", "fault"),
    [(b"{", "not valid JSON"), (b"", "not valid JSON"), (task("other").to_wire(), "stands under the subject of 't1'")],
)
async def test_a_record_that_cannot_be_read_comes_with_the_reason(prepared: Store, body: bytes, fault: str) -> None:
    sequence = await prepared.jetstream.publish(task_subject("t1"), body)
    stored = await prepared.load("t1")
    assert stored is not None
    assert (stored.task_id, stored.sequence, stored.body, stored.record) == ("t1", sequence, body, None)
    assert fault in stored.fault
    with pytest.raises(DecodeError, match="task t1: "):
        stored.readable()


async def test_a_scan_gives_all_tasks_in_the_order_of_their_last_save(prepared: Store) -> None:
    sequence = await prepared.save(task("t1"), expected=0)
    await prepared.save(task("t2"), expected=0)
    await prepared.save(task("t1", tries=1), expected=sequence)
    found = [stored async for stored in prepared.scan()]
    assert [(stored.task_id, stored.readable().tries) for stored in found] == [("t2", 0), ("t1", 1)]
    assert [stored.task_id async for stored in prepared.scan(found[1].sequence)] == ["t1"]


async def test_a_missing_task_store_says_what_makes_it(store: Store) -> None:
    async def scan() -> None:
        async for _ in store.scan():
            pass

    for act in (store.load("t1"), store.load_many(["t1", "t2"]), store.save(task(), expected=0), scan()):
        with pytest.raises(RefusedError, match="task store: not found; `ajc task initialize` makes it") as caught:
            await act
        assert caught.value.code == STREAM_NOT_FOUND


async def test_a_record_that_fits_no_message_is_refused(prepared: Store) -> None:
    with pytest.raises(TaskTooLargeError) as caught:
        await prepared.save(task(payload=b"x" * 1_000_000), expected=0)
    assert caught.value.task_id == "t1"


async def test_a_save_whose_answer_was_lost_is_found_to_be_ours(lossy_store: Store, lossy: LossyTransport) -> None:
    lossy.lose_answers, lossy.only = 1, "CHORIA_AJ.T."
    sequence = await lossy_store.save_surely(task(), expected=0, stamp=STAMP)
    stored = await lossy_store.load("t1")
    assert stored is not None
    assert (stored.sequence, stored.stamp) == (sequence, STAMP)


async def test_a_save_that_never_arrived_is_sent_again(lossy_store: Store, lossy: LossyTransport) -> None:
    lossy.lose_requests, lossy.only = 2, "CHORIA_AJ.T."
    sequence = await lossy_store.save_surely(task(), expected=0)
    stored = await lossy_store.load("t1")
    assert stored is not None
    assert stored.sequence == sequence


async def test_a_save_that_lost_its_answer_and_the_race_is_a_conflict(
    prepared: Store, lossy_store: Store, lossy: LossyTransport
) -> None:
    await prepared.save(task(tries=5), expected=0)
    lossy.lose_requests, lossy.only = 1, "CHORIA_AJ.T."
    with pytest.raises(ConflictError):
        await lossy_store.save_surely(task(), expected=0)


async def test_the_same_bytes_of_another_owner_are_not_ours(prepared: Store) -> None:
    await prepared.save(task(), expected=0, stamp=Stamp("bridge-2", ItemRef(7, 1)))
    with pytest.raises(ConflictError):
        await prepared.save_surely(task(), expected=0, stamp=STAMP)


async def test_a_save_without_any_answer_stays_unknown(lossy_store: Store, lossy: LossyTransport) -> None:
    lossy.lose_requests = 1000
    with pytest.raises(OutcomeUnknownError, match="saving task t1"):
        await lossy_store.save_surely(task(), expected=0)
    assert len(lossy.requests) == 6  # three saves, each followed by a look


# Items.


async def test_an_item_is_put_into_its_queue_once(prepared: Store) -> None:
    assert await prepared.publish_item("EMAIL", "t1")
    first = await item(prepared)
    assert not await prepared.publish_item("EMAIL", "t1")
    assert await item(prepared) == first
    assert await prepared.publish_item("EMAIL", "t1", replace=True)
    assert await item(prepared) != first


async def test_an_item_has_the_bytes_of_the_go_project(prepared: Store) -> None:
    await prepared.publish_item("EMAIL", "t1", headers={"AJ-Silent": "b 1"})
    message = await prepared.jetstream.last(queue_stream("EMAIL"), item_subject("EMAIL", "t1"))
    assert message is not None
    assert (message.data, message.headers["AJ-Silent"]) == (b'{"kind":0,"job":"t1"}', "b 1")


async def test_a_queue_that_is_not_there_is_told(prepared: Store) -> None:
    with pytest.raises(QueueNotFoundError, match="queue NOPE not found; `ajc queue add NOPE` makes it"):
        await prepared.publish_item("NOPE", "t1")


async def test_a_full_queue_is_told_and_still_takes_a_replacement(prepared: Store) -> None:
    await prepared.publish_item("EMAIL", "t1")
    await prepared.publish_item("EMAIL", "t2")
    with pytest.raises(QueueFullError) as caught:
        await prepared.publish_item("EMAIL", "t3")
    assert (caught.value.queue, caught.value.task_id) == ("EMAIL", "t3")
    assert not await prepared.publish_item("EMAIL", "t1")


# Waiting items.


async def test_a_parked_item_fires_into_its_queue_when_it_is_due(prepared: Store) -> None:
    await prepared.park_item("EMAIL", "t1", NOW, headers={"AJ-Silent": "b 1"})
    item = await take(prepared.jetstream, "EMAIL")
    assert (item.subject, item.data) == (item_subject("EMAIL", "t1"), b'{"kind":0,"job":"t1"}')
    assert (item.headers or {})["AJ-Silent"] == "b 1"
    assert await prepared.standing("EMAIL", "t1") is None


async def test_a_schedule_stands_until_it_fires_and_is_replaced_by_another(prepared: Store) -> None:
    assert await prepared.standing("EMAIL", "t1") is None
    first = await prepared.park_item("EMAIL", "t1", 2 * NOW)
    second = await prepared.park_item("EMAIL", "t1", 2 * NOW + HOUR, headers={"AJ-Silent": "b 2"})
    standing = await prepared.standing("EMAIL", "t1")
    assert standing is not None
    assert (standing.sequence, standing.headers["AJ-Silent"]) == (second, "b 2")
    assert second > first
    assert await item(prepared) is None


async def test_of_several_who_wake_an_item_one_wins(prepared: Store) -> None:
    sequence = await prepared.park_item("EMAIL", "t1", 2 * NOW)
    woken = await asyncio.gather(*(prepared.wake_item("EMAIL", "t1", sequence, {"AJ-Silent": "b 3"}) for _ in range(5)))
    assert sorted(woken) == [False, False, False, False, True]
    item = await take(prepared.jetstream, "EMAIL")
    assert (item.headers or {})["AJ-Silent"] == "b 3"
    assert await prepared.standing("EMAIL", "t1") is None


async def test_a_schedule_that_was_replaced_is_not_woken_by_its_old_sequence(prepared: Store) -> None:
    old = await prepared.park_item("EMAIL", "t1", 2 * NOW)
    new = await prepared.park_item("EMAIL", "t1", 2 * NOW)
    assert not await prepared.wake_item("EMAIL", "t1", old)
    standing = await prepared.standing("EMAIL", "t1")
    assert standing is not None
    assert standing.sequence == new


async def test_without_the_stream_of_waiting_items_nothing_is_parked(store: Store) -> None:
    with pytest.raises(RefusedError, match="there is no stream CHORIA_AJ_DELAYED"):
        await store.park_item("EMAIL", "t1", NOW)
    assert await store.standing("EMAIL", "t1") is None
    assert not await store.wake_item("EMAIL", "t1", 1)


async def test_removing_takes_item_schedule_and_fired_copy(prepared: Store) -> None:
    await prepared.park_item("EMAIL", "t1", NOW)
    await take(prepared.jetstream, "EMAIL")
    await prepared.park_item("EMAIL", "t1", 2 * NOW)
    assert len(await prepared.find_items("EMAIL", "t1")) == 3
    await prepared.remove_item("EMAIL", "t1")
    assert await prepared.find_items("EMAIL", "t1") == []
    assert await prepared.jetstream.last(DELAYED_STREAM, fired_subject("EMAIL", "t1")) is None


async def test_items_newer_than_those_that_were_found_survive(prepared: Store) -> None:
    await prepared.publish_item("EMAIL", "t1")
    await prepared.park_item("EMAIL", "t1", 2 * NOW)
    places = await prepared.find_items("EMAIL", "t1")
    await prepared.publish_item("EMAIL", "t1", replace=True)
    await prepared.park_item("EMAIL", "t1", 2 * NOW)
    await prepared.remove_items(places)
    assert {place.sequence for place in await prepared.find_items("EMAIL", "t1")}.isdisjoint(
        place.sequence for place in places
    )
    assert len(await prepared.find_items("EMAIL", "t1")) == 2


async def test_removing_from_streams_that_are_gone_is_harmless(prepared: Store) -> None:
    await prepared.publish_item("EMAIL", "t1")
    places = await prepared.find_items("EMAIL", "t1")
    await prepared.jetstream.delete_stream(queue_stream("EMAIL"))
    await prepared.remove_items(places)
    await prepared.remove_item("EMAIL", "t1")


async def test_unknown_keys_of_a_record_survive_a_save(prepared: Store) -> None:
    """The Go project drops them; a bridge must not."""
    body = task().to_wire()[:-1] + b',"trace":{"a":[1]}}'
    await prepared.jetstream.publish(task_subject("t1"), body)
    stored = await prepared.load("t1")
    assert stored is not None
    await prepared.save(stored.readable().replace(state=TaskState.ACTIVE), expected=stored.sequence)
    message = await prepared.jetstream.last(TASKS_STREAM, task_subject("t1"))
    assert message is not None
    assert b'"trace":{"a":[1]}' in message.data


async def test_c1_an_item_is_taken_away_by_its_sequence_and_never_by_a_purge(prepared: Store) -> None:
    """A purge by subject makes the server forget items of others that are in flight, for good (decision 48)."""
    purges: list[str] = []
    transport = prepared.jetstream.transport
    await transport.subscribe("$JS.API.STREAM.PURGE.>", lambda message: purges.append(message.subject))
    await prepared.publish_item("EMAIL", "t1")
    await prepared.park_item("EMAIL", "t2", time.time_ns() + HOUR)
    for task_id in ("t1", "t2"):
        places = await prepared.find_items("EMAIL", task_id)
        assert places
        await prepared.remove_items(places)
        await prepared.remove_items(places)  # they are gone already
        assert await prepared.find_items("EMAIL", task_id) == []
    assert purges == []
