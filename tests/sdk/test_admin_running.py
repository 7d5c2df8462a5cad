"""What an administrator does to a queue that is at work: weight, pause, and how a worker sees that it was changed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.sdk.pulling import take
from tests.sdk.world import World
from tests.versions import NO_BATCHES

from aj_sdk.errors import InvalidConfigError, QueueNotFoundError, RefusedError
from aj_sdk.inventory import BoundQueue
from aj_sdk.queue import Queue
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.times import NS_PER_S, parse_time

pytestmark = pytest.mark.server

FOREVER = parse_time("9999-12-31T00:00:00Z")


# Weight.


@pytest.mark.parametrize("go_workers", [False, True])
async def test_a_weight_is_stored_with_the_queue_and_taken_away_again(world: World, go_workers: bool) -> None:
    await world.admin.create_queue(Queue("EMAIL", weight=6, go_workers=go_workers))
    assert (await world.admin.bind_queue("EMAIL", adopt=True)).settings.weight == 6
    assert (await world.consumer("EMAIL"))["metadata"]["aj.weight"] == "6"
    assert (await world.admin.configure_queue("EMAIL", max_concurrent=7)).weight == 6
    assert (await world.admin.configure_queue("EMAIL", weight=1)).weight == 1
    assert "aj.weight" not in (await world.consumer("EMAIL")).get("metadata", {})
    assert "aj.weight" not in (await world.stream("CHORIA_AJ_Q_EMAIL")).get("metadata", {})
    for weight in (0, 1001):
        with pytest.raises(InvalidConfigError, match="weight must be 1 to 1000"):
            await world.admin.configure_queue("EMAIL", weight=weight)


async def test_a_queue_that_the_go_project_made_keeps_all_else_when_it_gets_a_weight(world: World) -> None:
    await world.make_go_queue()
    before = (await world.admin.queue_info("GO")).settings
    after = await world.admin.configure_queue("GO", weight=3)
    assert (after.weight, after.ours, after.max_run_time_ns, after.max_tries) == (
        3,
        False,
        before.max_run_time_ns,
        before.max_tries,
    )
    # The Go project's own `queue configure` keeps metadata.
    await world.configure_as_go("GO", max_ack_pending=9)
    assert (await world.admin.queue_info("GO")).settings.weight == 3


# Pause.


async def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(world: World) -> None:
    await world.admin.create_queue(Queue("EMAIL"))
    await world.store.publish_item("EMAIL", "t1")
    assert not await world.admin.resume_queue("EMAIL")
    assert await world.admin.pause_queue("EMAIL") == FOREVER
    assert (await world.admin.queue_info("EMAIL")).paused_until_ns == FOREVER
    with pytest.raises(TimeoutError):
        await take(world.jetstream, "EMAIL", seconds=0.5)
    await world.admin.configure_queue("EMAIL", max_tries=3)  # leaves it paused
    assert (await world.admin.queues())[0].paused_until_ns == FOREVER
    paused = await world.admin.bind_queue("EMAIL", adopt=True)
    assert paused.paused_until_ns == FOREVER
    assert await world.admin.look_at_queue(paused, adopt=True) == paused
    assert await world.admin.resume_queue("EMAIL")
    assert (await world.admin.queue_info("EMAIL")).paused_until_ns is None
    assert (await world.admin.look_at_queue(paused, adopt=True)).paused_until_ns is None
    await take(world.jetstream, "EMAIL")


async def test_a_pause_ends_by_itself_at_its_time(world: World) -> None:
    await world.admin.create_queue(Queue("EMAIL"))
    await world.store.publish_item("EMAIL", "t1")
    until = datetime.now(UTC) + timedelta(hours=1)
    assert await world.admin.pause_queue("EMAIL", until=until) // 1000 == round(until.timestamp() * 1e6)
    await world.admin.pause_queue("EMAIL", until=timedelta(seconds=1))  # the newer word counts
    await take(world.jetstream, "EMAIL")
    assert (await world.admin.queue_info("EMAIL")).paused_until_ns is None


async def test_a_pause_that_is_none_is_refused(world: World) -> None:
    await world.admin.create_queue(Queue("EMAIL"))
    for until in (timedelta(0), datetime.now(UTC) - timedelta(seconds=1)):
        with pytest.raises(InvalidConfigError, match="a pause must end in the future"):
            await world.admin.pause_queue("EMAIL", until=until)
    with pytest.raises(InvalidConfigError, match="is no time"):
        await world.admin.pause_queue("EMAIL", until=datetime(2100, 1, 1))  # noqa: DTZ001 - that is what is wrong
    for act in (world.admin.pause_queue, world.admin.resume_queue):
        with pytest.raises(QueueNotFoundError):
            await act("NONE")


async def test_a_server_that_can_pause_nothing_says_so(any_world: World, request: pytest.FixtureRequest) -> None:
    await any_world.admin.create_queue(Queue("EMAIL"))
    if request.node.callspec.params["any_world"] == NO_BATCHES:
        with pytest.raises(RefusedError, match=r"pausing queue EMAIL: needs nats-server 2\.11 or newer"):
            await any_world.admin.pause_queue("EMAIL")
        assert not await any_world.admin.resume_queue("EMAIL")
    else:
        await any_world.admin.pause_queue("EMAIL")
    assert ((await any_world.admin.queue_info("EMAIL")).paused_until_ns is None) == (
        request.node.callspec.params["any_world"] == NO_BATCHES
    )


# A worker looks again.


async def bound(world: World, **settings: Any) -> BoundQueue:
    await world.admin.create_queue(QueueSettings(name="EMAIL", **settings))
    return await world.admin.bind_queue("EMAIL", adopt=True)


async def test_nothing_is_different_when_nothing_was_changed(any_world: World) -> None:
    before = await bound(any_world)
    assert await any_world.admin.look_at_queue(before, adopt=True) == before


async def test_a_change_is_seen(any_world: World) -> None:
    before = await bound(any_world)
    wanted = await any_world.admin.configure_queue(
        "EMAIL", max_run_time=5, max_tries=3, max_concurrent=7, lease=10, weight=4, max_entries=9, discard_old=True
    )
    after = await any_world.admin.look_at_queue(before, adopt=True)
    assert after.settings == wanted
    assert (after.parks, after.created) == (before.parks, before.created)


async def test_what_the_go_project_configured_is_taken_over_and_the_lease_restored(world: World) -> None:
    before = await bound(world)
    await world.configure_as_go("EMAIL", ack_wait=120 * NS_PER_S, max_deliver=4)
    after = await world.admin.look_at_queue(before, adopt=True)
    assert (after.settings.max_run_time_ns, after.settings.max_tries) == (120 * NS_PER_S, 4)
    assert (await world.consumer("EMAIL"))["max_deliver"] == -1
    assert await world.admin.look_at_queue(after, adopt=True) == after


async def test_a_consumer_that_is_gone_is_made_again_as_it_was(world: World) -> None:
    before = await bound(world, max_concurrent=7, lease_ns=5 * NS_PER_S)
    consumer = await world.consumer("EMAIL")
    await world.jetstream.call("CONSUMER.DELETE.CHORIA_AJ_Q_EMAIL.WORKERS")
    with pytest.raises(RefusedError, match="queue EMAIL: has no consumer"):
        await world.admin.look_at_queue(before, adopt=False)
    assert await world.admin.look_at_queue(before, adopt=True) == before
    assert await world.consumer("EMAIL") == consumer


async def test_a_queue_that_was_made_again_is_bound_anew_with_its_new_settings(world: World) -> None:
    before = await bound(world)
    await world.admin.delete_queue("EMAIL")
    with pytest.raises(QueueNotFoundError):
        await world.admin.look_at_queue(before, adopt=True)
    stream = {"name": "CHORIA_AJ_Q_EMAIL", "subjects": ["CHORIA_AJ.Q.EMAIL.>"], "retention": "workqueue"}
    await world.jetstream.create_stream(stream)
    with pytest.raises(RefusedError, match="has no consumer"):  # somebody is just making it
        await world.admin.look_at_queue(before, adopt=True)
    wanted = await world.admin.create_queue(QueueSettings(name="EMAIL", max_concurrent=3))
    after = await world.admin.look_at_queue(before, adopt=True)
    assert after.settings == wanted
    assert after.parks
    assert after.created != before.created
