"""Unique keys, against real servers: with and without times of their own for keys."""

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest
from tests.sdk.lossy import LossyTransport
from tests.sdk.world import World
from tests.versions import NO_BATCHES

from aj_sdk.buckets import Bucket
from aj_sdk.client import Client
from aj_sdk.errors import (
    OutcomeUnknownError,
    QueueFullError,
    TaskExistsError,
    TaskTooLargeError,
    UsageError,
)
from aj_sdk.jetstream import JetStream
from aj_sdk.queue import Queue
from aj_sdk.spec import TaskSpec
from aj_sdk.store import Store
from aj_sdk.unique import MAX_KEY_BYTES, Unique, UniqueKeys, bucket_key
from aj_sdk.wire.names import UNIQUE_BUCKET, bucket_subject, queue_stream
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

server = pytest.mark.server

NOW = 1_700_000_000 * NS_PER_S
HOUR = Unique(key="k", window_s=3600)
UNTIL_END = Unique(key="k", window_s=3600, until_end=True)
SECOND = Unique(key="k", window_s=1)


def task(task_id: str, **changes: Any) -> TaskRecord:
    return TaskRecord(id=task_id, type="email:new", queue="EMAIL", payload=b"{}", created_ns=NOW).replace(**changes)


async def prepare(world: World) -> UniqueKeys:
    await world.admin.ensure_task_store()
    await world.admin.create_queue(Queue("EMAIL"))
    return UniqueKeys(world.store)


@pytest.fixture
async def keys(world: World) -> UniqueKeys:
    return await prepare(world)


async def count(world: World) -> tuple[int, int]:
    """Tasks and items."""
    items = await world.jetstream.stream_info(queue_stream("EMAIL"))
    assert items is not None
    return (await world.admin.task_store_info()).tasks, int(items["state"]["messages"])


async def save(world: World, task_id: str, **changes: Any) -> None:
    stored = await world.store.load(task_id)
    assert stored is not None
    await world.store.save(stored.readable().replace(**changes), expected=stored.sequence)


# Values.


@pytest.mark.parametrize(
    ("key", "window", "until_end", "fault"),
    [
        (None, 60, False, "needs a unique_key"),
        (None, None, True, "needs a unique_key"),
        ("k", None, False, "needs unique_for"),
        ("", 60, False, "has 1 to 512 bytes"),
        ("ä" * 257, 60, False, "has 1 to 512 bytes"),
        (7, 60, False, "is text, not int"),
        ("k", 0, False, "between 1 second and 366 days"),
        ("k", timedelta(days=367), False, "between 1 second and 366 days"),
        ("k", math.nan, False, "no length of time"),
    ],
)
def test_what_is_no_unique_key_is_refused(key: Any, window: Any, until_end: bool, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        Unique.of(key, window, until_end=until_end)


def test_windows_are_rounded_up_to_what_the_server_counts_in() -> None:
    assert Unique.of(None, None) is None
    assert Unique.of("k", 0.2) == Unique(key="k", window_s=1)
    assert Unique.of("k", timedelta(seconds=61, milliseconds=1)) == Unique(key="k", window_s=62)


@pytest.mark.parametrize("key", ["k", "a b", "a.b", "*", ">", "x\n", "ä/ö?", "\ud800", "k" * MAX_KEY_BYTES])
def test_any_text_becomes_a_key_of_its_own_that_a_bucket_takes(key: str) -> None:
    name = bucket_key(key)
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert bucket_key(key + "k") != name


# Enqueueing.


@server
async def test_within_a_window_there_is_one_task_and_the_others_find_it(any_world: World) -> None:
    keys = await prepare(any_world)
    tasks = await asyncio.gather(*(keys.enqueue(task(f"t{number}"), HOUR) for number in range(20)))
    assert len({found.id for found in tasks}) == 1
    assert await count(any_world) == (1, 1)
    await save(any_world, tasks[0].id, state=TaskState.COMPLETE)
    assert (await keys.enqueue(task("late"), HOUR)).state is TaskState.COMPLETE
    assert (await keys.enqueue(task("other"), Unique(key="l", window_s=3600))).id == "other"


@server
async def test_after_the_window_there_is_room_again(any_world: World) -> None:
    keys = await prepare(any_world)
    assert (await keys.enqueue(task("t1"), SECOND)).id == "t1"
    while (await keys.enqueue(task("t2"), SECOND)).id == "t1":  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.1)
    assert await count(any_world) == (2, 2)


@server
async def test_the_same_id_again_is_the_same_task_and_finishes_what_is_left(world: World, keys: UniqueKeys) -> None:
    await keys.enqueue(task("t1"), HOUR)
    await world.store.remove_item("EMAIL", "t1")
    assert await keys.enqueue(task("t1", created_ns=NOW + 1), HOUR) == task("t1")
    assert await count(world) == (1, 1)


@server
async def test_a_task_that_has_ended_makes_room_when_that_is_wanted(world: World, keys: UniqueKeys) -> None:
    await keys.enqueue(task("t1"), UNTIL_END)
    assert (await keys.enqueue(task("t2"), UNTIL_END)).id == "t1"
    await save(world, "t1", state=TaskState.EXPIRED)
    assert (await keys.enqueue(task("t3"), HOUR)).id == "t1"
    found = await asyncio.gather(*(keys.enqueue(task(f"u{number}"), UNTIL_END) for number in range(9)))
    assert len({each.id for each in found}) == 1
    assert found[0].id != "t1"


@server
async def test_a_task_that_was_not_queued_is_queued_by_the_next_who_wants_it(world: World, keys: UniqueKeys) -> None:
    await world.admin.configure_queue("EMAIL", max_entries=1)
    await world.store.publish_item("EMAIL", "full")
    with pytest.raises(QueueFullError):
        await keys.enqueue(task("t1"), HOUR)
    await world.store.remove_item("EMAIL", "full")
    assert await keys.enqueue(task("t2"), HOUR) == task("t1")
    assert await count(world) == (1, 1)


@server
async def test_a_task_whose_producer_died_before_its_item_gets_one(world: World, keys: UniqueKeys) -> None:
    await keys.enqueue(task("t1"), HOUR)
    await world.store.remove_item("EMAIL", "t1")
    assert (await keys.enqueue(task("t2"), HOUR)).id == "t1"
    assert await count(world) == (1, 1)
    # One that waits has its schedule, and is not brought forward.
    await world.store.remove_item("EMAIL", "t1")
    await world.store.park_item("EMAIL", "t1", 2 * NOW)
    await keys.enqueue(task("t2"), HOUR)
    assert await count(world) == (1, 0)


@server
@pytest.mark.parametrize("what", ["type", "queue"])
async def test_a_key_of_another_kind_of_task_is_refused(keys: UniqueKeys, what: str) -> None:
    await keys.enqueue(task("t1"), HOUR)
    with pytest.raises(TaskExistsError, match=f"task t1 exists already with another {what}"):
        await keys.enqueue(task("t2", **{what: "OTHER"}), HOUR)


@server
async def test_nothing_is_claimed_for_a_task_that_cannot_be_stored(world: World, keys: UniqueKeys) -> None:
    with pytest.raises(TaskTooLargeError):
        await keys.enqueue(task("t1", payload=b"x" * 1024 * 1024), HOUR)
    await world.store.save(task("t2", payload=b"another"), expected=0)
    with pytest.raises(TaskExistsError):
        await keys.enqueue(task("t2"), HOUR)
    assert (await keys.enqueue(task("t3"), HOUR)).id == "t3"


# Keys without a task.


@server
async def test_a_key_whose_task_does_not_come_is_taken_over(world: World, keys: UniqueKeys) -> None:
    await keys.enqueue(task("t0"), Unique(key="first", window_s=60))  # makes the bucket
    bucket = Bucket(world.jetstream, UNIQUE_BUCKET)
    await bucket.create(bucket_key("k"), b"died")
    impatient = UniqueKeys(world.store, absent_s=0.3)
    began = asyncio.get_running_loop().time()
    found = await asyncio.gather(*(impatient.enqueue(task(f"t{number}"), HOUR) for number in range(1, 9)))
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert len({each.id for each in found}) == 1


@server
@pytest.mark.parametrize("junk", [b"", b"a.b", b"\xff", b"*"])
async def test_a_key_with_no_id_in_it_is_taken_over_too(world: World, keys: UniqueKeys, junk: bytes) -> None:
    await keys.enqueue(task("t0"), Unique(key="first", window_s=60))
    await world.jetstream.publish(bucket_subject(UNIQUE_BUCKET, bucket_key("k")), junk)
    assert (await UniqueKeys(world.store, absent_s=0.1).enqueue(task("t1"), HOUR)).id == "t1"


@server
async def test_a_deleted_task_frees_its_key(world: World, keys: UniqueKeys) -> None:
    await keys.enqueue(task("t1"), HOUR)
    await world.admin.tasks.delete("t1")
    assert (await UniqueKeys(world.store, absent_s=0.1).enqueue(task("t2"), HOUR)).id == "t2"


@server
async def test_a_producer_that_was_slow_gives_way_to_the_one_that_took_its_key_over(
    world: World, keys: UniqueKeys
) -> None:
    """It claimed the key, stood still, and goes on when another one's task is there."""

    class Frozen(Store):
        async def save_surely(self, record: TaskRecord, **options: Any) -> int:
            if record.id == "slow":
                bucket = Bucket(world.jetstream, UNIQUE_BUCKET)
                entry = await bucket.get(bucket_key("k"))
                assert entry is not None
                assert await bucket.update(bucket_key("k"), b"quick", entry.revision) is not None
                await keys.enqueue(task("quick"), HOUR)
            return await super().save_surely(record, **options)

    await keys.enqueue(task("t0"), Unique(key="first", window_s=60))
    found = await UniqueKeys(Frozen(world.jetstream), absent_s=0.0).enqueue(task("slow"), HOUR)
    assert found.id == "quick"
    assert await world.store.load("slow") is None
    assert await count(world) == (2, 2)


@server
async def test_a_claim_without_an_answer_is_found_again(world: World, keys: UniqueKeys) -> None:
    lossy = LossyTransport(world.jetstream.transport)
    lossy_keys = UniqueKeys(Store(JetStream(lossy)))
    lossy.only, lossy.lose_answers = "$KV.", 1
    assert (await lossy_keys.enqueue(task("t1"), HOUR)).id == "t1"
    lossy.only, lossy.lose_requests = "CHORIA_AJ.Q.", 1
    other = Unique(key="other", window_s=60)
    with pytest.raises(OutcomeUnknownError):
        await lossy_keys.enqueue(task("t2"), other)
    assert (await lossy_keys.enqueue(task("t3"), other)).id == "t2"
    assert await count(world) == (2, 2)


@server
async def test_a_window_that_an_old_server_cannot_keep_is_refused_before_anything_is_stored(
    any_world: World, request: pytest.FixtureRequest
) -> None:
    keys = await prepare(any_world)
    long = Unique(key="k", window_s=32 * 86_400)
    if request.node.callspec.params["any_world"] == NO_BATCHES:
        with pytest.raises(UsageError, match=r"before 2\.11 keeps a unique key for 31 days at most"):
            await keys.enqueue(task("t1"), long)
        assert await count(any_world) == (0, 0)
    else:
        assert (await keys.enqueue(task("t1"), long)).id == "t1"


@server
async def test_a_client_enqueues_with_keys(client: Client) -> None:
    await client.admin.create_queue(Queue("EMAIL"))
    first = await client.enqueue("a", 1, queue="EMAIL", unique_key="k", unique_for=timedelta(hours=1))
    again = await client.enqueue_many(
        [TaskSpec("a", number, unique_key="k", unique_for=60) for number in range(5)], queue="EMAIL"
    )
    assert {each.id for each in again} == {first.id}
    with pytest.raises(UsageError, match="needs unique_for"):
        await client.enqueue("a", unique_key="k")
