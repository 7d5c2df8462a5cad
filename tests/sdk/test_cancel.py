"""A task is cancelled, against real servers."""

import asyncio
from collections.abc import Callable

import pytest
from tests.sdk.emails import NOW, task
from tests.sdk.pulling import take
from tests.sdk.world import World

from aj_sdk.admin import Admin
from aj_sdk.client import Client
from aj_sdk.dead import DeadLetters
from aj_sdk.enqueue import enqueue
from aj_sdk.errors import DecodeError, RefusedError, TaskNotFoundError, TaskStateError
from aj_sdk.queue import Queue
from aj_sdk.task_filter import TaskFilter
from aj_sdk.transport import Message
from aj_sdk.wire.dead import DeadReason
from aj_sdk.wire.names import CANCEL_SUBJECTS, CONSUMER, DEAD_STREAM, queue_stream, task_subject
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.server


async def prepare(world: World) -> Admin:
    await world.admin.ensure_task_store()
    await world.admin.create_queue(Queue("EMAIL"))
    return world.admin


async def test_a_cancelled_task_ends_with_its_reason_and_leaves_no_item_but_a_dead_letter(any_world: World) -> None:
    admin = await prepare(any_world)
    told: list[str] = []

    def on_message(message: Message) -> None:
        told.append(message.subject)

    await any_world.jetstream.transport.subscribe(CANCEL_SUBJECTS, on_message)
    await enqueue(any_world.store, task())
    if (await admin.queue_info("EMAIL")).parks:
        await any_world.store.park_item("EMAIL", "t1", 2 * NOW)
    ended = await admin.tasks.cancel("t1", "not needed\nany more")
    assert ended == task(state=TaskState.TERMINATED, last_err="cancelled: not needed\nany more")
    stored = await any_world.store.load("t1")
    assert stored is not None
    assert (stored.record, stored.stamp) == (ended, None)
    assert await any_world.store.find_items("EMAIL", "t1") == []
    (letter,) = await admin.dead.find("t1")
    assert (letter.letter.reason, letter.record) == (DeadReason.TERMINATED, ended)
    await any_world.jetstream.api_level()  # a round trip
    assert told == ["CHORIA_AJ.C.t1"]


async def test_a_cancelled_item_in_flight_frees_its_place_at_once(any_world: World) -> None:
    """It may be handed to somebody who is not told, or wait inside the queue, where it holds a place."""
    admin = await prepare(any_world)
    await enqueue(any_world.store, task())
    await take(any_world.jetstream, "EMAIL")
    await admin.tasks.cancel("t1")
    async with asyncio.timeout(10):  # a server's consumer learns of it a moment later
        while True:
            info = await any_world.jetstream.consumer_info(queue_stream("EMAIL"), CONSUMER)
            assert info is not None
            if (info["num_ack_pending"], info["num_pending"]) == (0, 0):
                break


async def test_what_cannot_be_cancelled_says_why(world: World) -> None:
    admin = await prepare(world)
    await world.store.save(task(state=TaskState.COMPLETE), expected=0)
    await world.jetstream.publish(task_subject("t2"), b"{}")
    with pytest.raises(TaskStateError, match="cannot cancel task t1 in state 'complete'"):
        await admin.tasks.cancel("t1")
    with pytest.raises(DecodeError):
        await admin.tasks.cancel("t2")
    with pytest.raises(TaskNotFoundError):
        await admin.tasks.cancel("t3")


async def test_a_reason_is_cut_to_what_a_record_may_hold(world: World) -> None:
    admin = await prepare(world)
    await enqueue(world.store, task())
    assert len((await admin.tasks.cancel("t1", "x" * 100_000)).last_err) == 8192


async def test_many_who_cancel_at_once_make_the_stream_of_dead_letters_together(world: World) -> None:
    admin = await prepare(world)
    for number in range(40):
        await enqueue(world.store, task(f"t{number}"))
    assert await world.jetstream.stream_info(DEAD_STREAM) is None
    done = [acted async for acted in admin.tasks.cancel_many(TaskFilter(queue="EMAIL"), at_once=40)]
    assert [acted.error for acted in done] == [None] * 40
    info = await world.jetstream.stream_info(DEAD_STREAM)
    assert info is not None
    assert info["state"]["messages"] == 40


async def test_a_dead_letter_that_is_refused_leaves_the_item_to_a_bridge(world: World) -> None:
    class Refusing(DeadLetters):
        async def bury(self, letter: object) -> bool:
            raise RefusedError("storing a dead letter", 10077, "maximum bytes exceeded")

    admin = await prepare(world)
    await admin.ensure_dead()
    await enqueue(world.store, task())
    admin.tasks._dead = Refusing(world.jetstream, world.store)
    with pytest.raises(RefusedError, match="maximum bytes"):
        await admin.tasks.cancel("t1")
    assert (await world.store.find_items("EMAIL", "t1")) != []


async def test_a_client_cancels_what_it_enqueued(client: Client, patience: Callable[[float], float]) -> None:
    enqueued = await client.enqueue("email:new", {})
    ended = await client.cancel(enqueued.id, reason="changed my mind")
    assert (ended.state, ended.last_err) == (TaskState.TERMINATED, "cancelled: changed my mind")
    with pytest.raises(Exception, match="changed my mind"):
        await client.result(enqueued.id, timeout=patience(5))
    info = await client.store.jetstream.stream_info(DEAD_STREAM)
    assert info is not None
    assert info["config"]["allow_direct"]
