"""What an administrator does, against servers of three versions."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.sdk.pulling import take
from tests.sdk.world import GO_TASKS, World, world_of
from tests.versions import NO_BATCHES, NO_WAY_OUT, SCHEDULES, server_binary

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk import streams
from aj_sdk.enqueue import enqueue
from aj_sdk.errors import (
    InvalidConfigError,
    InvalidNameError,
    QueueExistsError,
    QueueNotFoundError,
    RefusedError,
)
from aj_sdk.jetstream import CONSUMER_NOT_FOUND
from aj_sdk.queue import Queue
from aj_sdk.wire.names import DELAYED_STREAM, TASKS_STREAM, item_subject
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

pytestmark = pytest.mark.server

NOW = 1_700_000_000 * NS_PER_S
MINUTE = 60 * NS_PER_S
LISTED = 300


@pytest.fixture
def schedules(any_world: World, request: pytest.FixtureRequest) -> bool:
    """Whether the server has message schedules."""
    return request.node.callspec.params["any_world"] in ("newest", SCHEDULES)


def task(task_id: str = "t1", **changes: Any) -> TaskRecord:
    return TaskRecord(id=task_id, type="email:new", queue="EMAIL", payload=b"{}", created_ns=NOW).replace(**changes)


def meant(config: dict[str, Any]) -> dict[str, Any]:
    """Take away what the server adds by itself."""
    config = {key: value for key, value in config.items() if value not in (False, "", {}, None)}
    config["metadata"] = {
        key: value for key, value in config.get("metadata", {}).items() if not key.startswith("_nats.")
    }
    return config


# The task store.


async def test_a_task_store_is_the_go_projects_with_direct_gets(any_world: World) -> None:
    await any_world.admin.ensure_task_store(retention=3600)
    config = meant(await any_world.stream(TASKS_STREAM))
    assert config == {
        "name": TASKS_STREAM,
        "description": "Choria Async Jobs Tasks",
        "subjects": ["CHORIA_AJ.T.*"],
        "retention": "limits",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 3600 * NS_PER_S,
        "max_msgs_per_subject": 1,
        "max_msg_size": -1,
        "discard": "old",
        "storage": "file",
        "num_replicas": 1,
        "duplicate_window": 120 * NS_PER_S,
        "compression": "none",
        "allow_direct": True,
        "metadata": {},
    }


async def test_a_task_store_that_is_there_stays_as_it_is(any_world: World) -> None:
    await any_world.jetstream.create_stream(GO_TASKS)
    before = await any_world.stream(TASKS_STREAM)
    await any_world.admin.ensure_task_store(memory=True, retention=60)
    assert await any_world.stream(TASKS_STREAM) == before


async def test_many_who_make_the_task_store_at_once_make_one(any_world: World) -> None:
    await asyncio.gather(*(any_world.admin.ensure_task_store(retention=number) for number in range(1, 9)))
    assert (await any_world.admin.task_store_info()).retention_ns // NS_PER_S in range(1, 9)


async def test_direct_gets_are_turned_on_for_the_go_projects_store_and_nothing_else(any_world: World) -> None:
    await any_world.jetstream.create_stream({**GO_TASKS, "description": "x", "metadata": {"team": "mail"}})
    before = meant(await any_world.stream(TASKS_STREAM))
    assert not (await any_world.admin.task_store_info()).direct_get
    assert await any_world.admin.enable_direct_get()
    assert await any_world.admin.enable_direct_get()
    assert meant(await any_world.stream(TASKS_STREAM)) == before | {"allow_direct": True}
    assert (await any_world.admin.task_store_info()).direct_get


async def test_the_task_store_is_configured(any_world: World) -> None:
    await any_world.admin.ensure_task_store()
    # Shorter than the duplicate window, which the server would refuse.
    info = await any_world.admin.configure_task_store(retention=timedelta(seconds=30), replicas=1)
    assert (info.retention_ns, info.replicas) == (30 * NS_PER_S, 1)
    assert (await any_world.admin.configure_task_store(retention=0, replicas=1)).retention_ns == 0
    with pytest.raises(InvalidConfigError, match="retention must not be negative"):
        await any_world.admin.configure_task_store(retention=-1, replicas=1)


async def test_the_task_store_tells_how_it_stands(any_world: World) -> None:
    with pytest.raises(RefusedError, match="task store: not found; `ajc task initialize` makes it"):
        await any_world.admin.task_store_info()
    await any_world.admin.ensure_task_store(memory=True)
    empty = await any_world.admin.task_store_info()
    assert (empty.tasks, empty.first_ns, empty.last_ns, empty.memory) == (0, None, None, True)
    await any_world.store.save(task(), expected=0)
    one = await any_world.admin.task_store_info()
    assert (one.tasks, one.first_ns) == (1, one.last_ns)
    assert one.bytes > 0


# Our own streams.


async def test_items_can_wait_where_the_server_has_schedules(any_world: World, schedules: bool) -> None:
    assert await any_world.admin.ensure_delayed() is schedules
    assert await any_world.admin.ensure_delayed() is schedules
    if schedules:
        config = await any_world.stream(DELAYED_STREAM)
        assert config["subjects"] == ["CHORIA_AJ.D.S.*.*", "CHORIA_AJ.D.F.*.*"]
        assert (config["allow_msg_schedules"], config["allow_msg_ttl"]) == (True, True)
        assert (config["retention"], config["discard"], config["max_msgs_per_subject"]) == ("limits", "old", 1)


async def test_a_server_that_keeps_fired_items_to_itself_is_known(
    fresh_server: Callable[..., EmbeddedServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Without this, what waits on such a server would never come back."""
    async with world_of(fresh_server(binary=server_binary(NO_WAY_OUT)).url) as world:
        config = streams.queue_config(Queue("EMAIL").settings, parks=True)
        await world.admin.create_queue(Queue("EMAIL"))
        assert not (await world.admin.bind_queue("EMAIL", adopt=True)).parks
        assert "nats-server 2.12.8 does not let fired items into a queue; 2.14 or newer does" in caplog.text
        # A queue of a better server that was replaced by this one.
        await world.jetstream.update_stream(config)
        assert not (await world.admin.bind_queue("EMAIL", adopt=False)).parks


async def test_a_server_without_schedules_gets_no_stream_for_them(
    fresh_server: Callable[..., EmbeddedServer],
) -> None:
    async with world_of(fresh_server(binary=server_binary(NO_BATCHES)).url) as world:
        assert not await world.admin.ensure_delayed()
        assert await world.jetstream.stream_info(DELAYED_STREAM) is None


async def test_a_stream_of_that_name_without_schedules_is_of_no_use(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    config = streams.delayed_config() | {"allow_msg_schedules": False}
    await world.jetstream.create_stream(config)
    assert not await world.admin.ensure_delayed()
    assert "does not allow message schedules" in caplog.text
    await world.admin.create_queue(Queue("EMAIL"))
    assert not (await world.admin.bind_queue("EMAIL", adopt=True)).parks


async def test_dead_letters_are_kept_for_a_month(any_world: World) -> None:
    await any_world.admin.ensure_dead()
    await any_world.admin.ensure_dead()
    config = await any_world.stream("CHORIA_AJ_DEAD")
    assert (config["subjects"], config["max_age"]) == (["CHORIA_AJ.X.*.*.*"], 30 * 86_400 * NS_PER_S)


# Queues.


async def test_a_queue_is_made_as_the_contract_says(any_world: World, schedules: bool) -> None:
    queue = Queue("EMAIL", max_run_time=60, max_tries=5, max_concurrent=7, max_entries=9, max_age=3600)
    assert await any_world.admin.create_queue(queue) == queue.settings
    stream = meant(await any_world.stream("CHORIA_AJ_Q_EMAIL"))
    metadata = {"aj.lease": "30s", "aj.max_run_time": "1m0s", "aj.max_tries": "5"}
    assert stream.pop("sources", None) == (
        [
            {
                "name": DELAYED_STREAM,
                "subject_transforms": [{"src": "CHORIA_AJ.D.F.EMAIL.*", "dest": "CHORIA_AJ.Q.EMAIL.{{wildcard(1)}}"}],
            }
        ]
        if schedules
        else None
    )
    assert stream == {
        "name": "CHORIA_AJ_Q_EMAIL",
        "description": "Choria Async Jobs Work Queue",
        "subjects": ["CHORIA_AJ.Q.EMAIL.>"],
        "retention": "workqueue",
        "max_consumers": -1,
        "max_msgs": 9,
        "max_bytes": -1,
        "max_age": 3600 * NS_PER_S,
        "max_msgs_per_subject": 1,
        "max_msg_size": -1,
        "discard": "new",
        "storage": "file",
        "num_replicas": 1,
        "duplicate_window": 120 * NS_PER_S,
        "compression": "none",
        "metadata": metadata,
    }
    consumer = meant(await any_world.consumer("EMAIL"))
    consumer.pop("num_replicas", None)
    assert consumer == {
        "durable_name": "WORKERS",
        "name": "WORKERS",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": 30_001_000_000,
        "max_deliver": -1,
        "replay_policy": "instant",
        "max_waiting": 512,
        "max_ack_pending": 7,
        "metadata": metadata,
    }


async def test_a_queue_for_go_workers_has_their_one_time(any_world: World, schedules: bool) -> None:
    queue = Queue("SHARED", max_run_time=60, max_tries=5, go_workers=True)
    assert await any_world.admin.create_queue(queue) == queue.settings
    consumer = meant(await any_world.consumer("SHARED"))
    assert (consumer["ack_wait"], consumer["max_deliver"], consumer["metadata"]) == (MINUTE, 5, {})
    assert (await any_world.admin.bind_queue("SHARED", adopt=False)).parks is schedules


@pytest.mark.parametrize(
    "queue",
    [
        Queue("Q", memory=True, discard_old=True, max_entries=1),
        Queue("Q", max_age=1),
        Queue("Q", max_age=0.2, lease=0.2, max_run_time=0.001),
        Queue("Q", max_age=timedelta(days=36500), max_run_time=timedelta(days=36500), max_entries=10**12),
        Queue("a:b-c_D9", max_concurrent=1_000_000),
        Queue("x" * 128),
    ],
    ids=str,
)
async def test_queues_of_any_shape_are_made_and_read_back(any_world: World, queue: Queue) -> None:
    assert await any_world.admin.create_queue(queue) == queue.settings
    assert (await any_world.admin.queue_info(queue.name)).settings == queue.settings


async def test_a_queue_that_is_there_stays_as_it_is(world: World) -> None:
    first = await world.admin.create_queue(Queue("EMAIL", max_tries=5))
    assert await world.admin.create_queue(Queue("EMAIL", max_tries=9, memory=True)) == first
    with pytest.raises(QueueExistsError, match="queue EMAIL exists already; `ajc queue configure EMAIL` changes it"):
        await world.admin.create_queue(Queue("EMAIL"), exist_ok=False)


async def test_many_who_make_a_queue_at_once_make_one(world: World) -> None:
    made = await asyncio.gather(
        *(world.admin.create_queue(Queue("EMAIL", max_tries=number, max_entries=number)) for number in range(1, 9))
    )
    # Stream and consumer may be of different makers, but all are told the same.
    assert len({(settings.max_tries, settings.max_entries) for settings in made}) == 1


async def test_a_queue_whose_making_was_cut_short_is_completed(world: World) -> None:
    settings = Queue("EMAIL", max_tries=5).settings
    await world.jetstream.create_stream(streams.queue_config(settings, parks=False))
    with pytest.raises(
        RefusedError, match="queue EMAIL: has no consumer; `ajc queue add EMAIL` completes it"
    ) as caught:
        await world.admin.bind_queue("EMAIL", adopt=False)
    assert caught.value.code == CONSUMER_NOT_FOUND
    assert await world.admin.queues() == []
    assert await world.admin.create_queue(Queue("EMAIL", max_tries=5), exist_ok=False) == settings


async def test_settings_that_are_wrong_are_refused_before_anything_is_made(world: World) -> None:
    with pytest.raises(InvalidConfigError):
        await world.admin.create_queue(QueueSettings(name="a b"))
    with pytest.raises(RefusedError):
        await world.admin.create_queue(Queue("EMAIL", replicas=3))  # no cluster
    assert await world.admin.queue_names() == []


async def test_a_queue_that_is_not_there_is_told(world: World) -> None:
    for act in (
        world.admin.bind_queue("NOPE", adopt=True),
        world.admin.queue_info("NOPE"),
        world.admin.configure_queue("NOPE", max_tries=1),
        world.admin.purge_queue("NOPE"),
        world.admin.delete_queue("NOPE"),
    ):
        with pytest.raises(QueueNotFoundError):
            await act
    for act in (world.admin.bind_queue("a.b", adopt=True), world.admin.queue_info("*"), world.admin.purge_queue(">")):
        with pytest.raises(InvalidNameError):
            await act


# Binding.


async def test_a_queue_of_ours_that_the_go_project_configured_gets_its_lease_back(any_world: World) -> None:
    await any_world.admin.create_queue(Queue("EMAIL", max_run_time=60, max_tries=5))
    await any_world.configure_as_go("EMAIL", ack_wait=7 * NS_PER_S, max_deliver=9, max_ack_pending=3)
    bound = (await any_world.admin.bind_queue("EMAIL", adopt=True)).settings
    assert (bound.lease_ns, bound.max_run_time_ns, bound.max_tries, bound.max_concurrent) == (
        30 * NS_PER_S,
        7 * NS_PER_S,
        9,
        3,
    )
    consumer = meant(await any_world.consumer("EMAIL"))
    assert (consumer["ack_wait"], consumer["max_deliver"]) == (30_001_000_000, -1)
    assert consumer["metadata"] == {"aj.lease": "30s", "aj.max_run_time": "7s", "aj.max_tries": "9"}
    assert (await any_world.admin.bind_queue("EMAIL", adopt=True)).settings == bound


async def test_a_run_time_as_long_as_the_lease_is_seen_to_be_somebody_elses(world: World) -> None:
    await world.admin.create_queue(Queue("EMAIL", max_run_time=60))
    await world.configure_as_go("EMAIL", ack_wait=30 * NS_PER_S)
    assert (await world.admin.bind_queue("EMAIL", adopt=True)).settings.max_run_time_ns == 30 * NS_PER_S


async def test_restoring_keeps_what_others_set(world: World) -> None:
    await world.admin.create_queue(Queue("EMAIL"))
    config = await world.consumer("EMAIL")
    config |= {"description": "ours", "ack_wait": MINUTE, "metadata": {**config["metadata"], "team": "mail"}}
    await world.jetstream.save_consumer("CHORIA_AJ_Q_EMAIL", config, "update")
    await world.admin.bind_queue("EMAIL", adopt=True)
    consumer = await world.consumer("EMAIL")
    assert (consumer["description"], consumer["metadata"]["team"]) == ("ours", "mail")


async def test_a_queue_of_the_go_project_is_adopted_and_otherwise_left_alone(any_world: World, schedules: bool) -> None:
    await any_world.make_go_queue()
    before = meant(await any_world.stream("CHORIA_AJ_Q_GO")), meant(await any_world.consumer("GO"))
    bound = await any_world.admin.bind_queue("GO", adopt=True)
    assert bound.parks is schedules
    assert bound.settings == QueueSettings(
        name="GO", max_run_time_ns=MINUTE, max_tries=5, max_concurrent=50, lease_ns=0
    )
    stream = meant(await any_world.stream("CHORIA_AJ_Q_GO"))
    assert len(stream.pop("sources", [])) == schedules
    assert (stream, meant(await any_world.consumer("GO"))) == before
    assert await any_world.admin.bind_queue("GO", adopt=True) == bound
    assert len((await any_world.stream("CHORIA_AJ_Q_GO")).get("sources", [])) == schedules
    if schedules:
        await any_world.store.park_item("GO", "t1", NOW)
        assert (await take(any_world.jetstream, "GO")).subject == item_subject("GO", "t1")


async def test_a_queue_that_is_not_to_be_adopted_is_not_touched(world: World) -> None:
    await world.make_go_queue()
    before = await world.stream("CHORIA_AJ_Q_GO")
    assert not (await world.admin.bind_queue("GO", adopt=False)).parks
    assert await world.stream("CHORIA_AJ_Q_GO") == before
    assert await world.jetstream.stream_info(DELAYED_STREAM) is None


async def test_a_queue_that_we_made_on_an_old_server_learns_to_park(world: World) -> None:
    settings = Queue("EMAIL").settings
    await world.jetstream.create_stream(streams.queue_config(settings, parks=False))
    await world.admin.create_queue(settings)
    assert not (await world.admin.bind_queue("EMAIL", adopt=False)).parks
    assert (await world.admin.bind_queue("EMAIL", adopt=True)).parks


async def test_who_may_not_change_streams_binds_all_the_same(
    fresh_server: Callable[..., EmbeddedServer], caplog: pytest.LogCaptureFixture
) -> None:
    """The server does not answer a request that a user may not make."""
    forbidden = [f"$JS.API.STREAM.{verb}.>" for verb in ("UPDATE", "CREATE")]
    users = [
        {"user": "chief", "password": "a"},
        {"user": "clerk", "password": "a", "permissions": {"publish": {"deny": forbidden}}},
    ]
    server = fresh_server(config={"authorization": {"users": users}})
    async with world_of(f"nats://chief:a@127.0.0.1:{server.port}") as chief:
        await chief.jetstream.create_stream(GO_TASKS)
        await chief.make_go_queue()
    async with world_of(f"nats://clerk:a@127.0.0.1:{server.port}", seconds=0.5) as clerk:
        await clerk.admin.ensure_task_store()
        assert not await clerk.admin.enable_direct_get()
        assert not (await clerk.admin.bind_queue("GO", adopt=True)).parks
    assert "items of queue GO can't wait outside of it" in caplog.text


# Configuring.


async def test_a_queue_of_ours_is_configured(any_world: World, schedules: bool) -> None:
    await any_world.admin.create_queue(Queue("EMAIL"))
    settings = await any_world.admin.configure_queue(
        "EMAIL",
        max_run_time=timedelta(minutes=2),
        max_tries=7,
        max_concurrent=8,
        max_age=90,
        max_entries=9,
        discard_old=True,
        replicas=1,
        lease=10,
    )
    assert settings == QueueSettings(
        name="EMAIL",
        max_run_time_ns=2 * MINUTE,
        max_tries=7,
        max_concurrent=8,
        max_age_ns=90 * NS_PER_S,
        max_entries=9,
        discard_old=True,
        lease_ns=10 * NS_PER_S,
    )
    bound = await any_world.admin.bind_queue("EMAIL", adopt=False)
    assert (bound.settings, bound.parks) == (settings, schedules)
    back = await any_world.admin.configure_queue("EMAIL", max_age=0, max_entries=0, discard_old=False, max_tries=-1)
    assert (back.max_age_ns, back.max_entries, back.discard_old, back.max_tries) == (0, -1, False, -1)
    assert back.max_run_time_ns == 2 * MINUTE


async def test_a_queue_of_the_go_project_is_configured_in_its_own_way(any_world: World) -> None:
    await any_world.make_go_queue()
    settings = await any_world.admin.configure_queue("GO", max_run_time=7, max_tries=3)
    assert (settings.max_run_time_ns, settings.max_tries, settings.lease_ns) == (7 * NS_PER_S, 3, 0)
    consumer = meant(await any_world.consumer("GO"))
    assert (consumer["ack_wait"], consumer["max_deliver"], consumer["metadata"]) == (7 * NS_PER_S, 3, {})
    with pytest.raises(InvalidConfigError, match="queue GO is for Go workers, which know no lease"):
        await any_world.admin.configure_queue("GO", lease=5)


async def test_changing_nothing_changes_nothing(world: World) -> None:
    await world.admin.create_queue(Queue("EMAIL"))
    before = await world.stream("CHORIA_AJ_Q_EMAIL"), await world.consumer("EMAIL")
    await world.admin.configure_queue("EMAIL")
    assert (await world.stream("CHORIA_AJ_Q_EMAIL"), await world.consumer("EMAIL")) == before


async def test_a_change_that_is_wrong_is_refused_whole(world: World) -> None:
    await world.admin.create_queue(Queue("EMAIL"))
    with pytest.raises(InvalidConfigError) as caught:
        await world.admin.configure_queue("EMAIL", max_concurrent=0, lease=0, max_tries=3)
    assert len(caught.value.faults) == 2
    assert (await world.admin.queue_info("EMAIL")).settings == Queue("EMAIL").settings


# Looking and removing.


async def test_a_queue_tells_how_it_stands(any_world: World, schedules: bool) -> None:
    await any_world.admin.create_queue(Queue("EMAIL"))
    empty = await any_world.admin.queue_info("EMAIL")
    assert (empty.items, empty.waiting, empty.in_flight, empty.oldest_ns, empty.newest_ns) == (0, 0, 0, None, None)
    for number in range(5):
        await any_world.store.publish_item("EMAIL", f"t{number}")
    await take(any_world.jetstream, "EMAIL")
    if schedules:
        for number in range(3):
            await any_world.store.park_item("EMAIL", f"p{number}", 2 * NOW)
        await any_world.store.park_item("OTHER", "p0", 2 * NOW)
    info = await any_world.admin.queue_info("EMAIL")
    assert (info.items, info.waiting, info.in_flight, info.redelivered) == (5, 4, 1, 0)
    assert (info.parks, info.parked or 0) == (schedules, 3 * schedules)
    assert info.oldest_ns is not None
    assert info.newest_ns is not None
    assert info.created_ns < info.oldest_ns < info.newest_ns
    assert info.bytes > 0


async def test_queues_are_listed_by_name_and_other_streams_are_not(world: World) -> None:
    for name in ("B", "A", "DEFAULT"):
        await world.admin.create_queue(Queue(name))
    await world.jetstream.create_stream({"name": "CHORIA_AJ_Q_bad name".replace(" ", "%"), "subjects": ["other"]})
    assert await world.admin.queue_names() == ["A", "B", "DEFAULT"]
    assert [info.settings.name for info in await world.admin.queues()] == ["A", "B", "DEFAULT"]


async def test_everything_at_a_glance(any_world: World, schedules: bool) -> None:
    nothing = await any_world.admin.overview()
    assert (nothing.task_store, nothing.queues, nothing.parked, nothing.dead_letters) == (None, (), None, None)
    await any_world.admin.ensure_task_store()
    await any_world.admin.ensure_dead()
    await any_world.admin.create_queue(Queue("EMAIL"))
    await enqueue(any_world.store, task())
    await any_world.jetstream.publish("CHORIA_AJ.X.expired.EMAIL.t0", b"{}")
    everything = await any_world.admin.overview()
    assert everything.task_store is not None
    assert (everything.task_store.tasks, everything.dead_letters) == (1, 1)
    assert everything.parked in ((0,) if schedules else (0, None))
    assert [info.items for info in everything.queues] == [1]


async def test_purging_a_queue_takes_parked_items_too(any_world: World, schedules: bool) -> None:
    await any_world.admin.create_queue(Queue("EMAIL"))
    await any_world.admin.create_queue(Queue("OTHER"))
    for queue in ("EMAIL", "OTHER"):
        await any_world.store.publish_item(queue, "t1")
        if schedules:
            await any_world.store.park_item(queue, "t2", 2 * NOW)
    assert await any_world.admin.purge_queue("EMAIL") == 1 + schedules
    purged, other = await any_world.admin.queues()
    assert (purged.items, purged.parked or 0) == (0, 0)
    assert (other.items, other.parked or 0) == (1, int(schedules))


async def test_deleting_a_queue_takes_parked_items_too(any_world: World) -> None:
    await any_world.admin.create_queue(Queue("EMAIL"))
    await any_world.store.publish_item("EMAIL", "t1")
    if (await any_world.admin.queue_info("EMAIL")).parks:
        await any_world.store.park_item("EMAIL", "t2", 2 * NOW)
    await any_world.admin.delete_queue("EMAIL")
    assert await any_world.admin.queue_names() == []
    await any_world.admin.create_queue(Queue("EMAIL"))
    again = await any_world.admin.queue_info("EMAIL")
    assert (again.items, again.parked or 0) == (0, 0)
