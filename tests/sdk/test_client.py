"""The producer, against a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client as Connection
from tests.sdk.lossy import LossyTransport
from tests.sdk.pulling import take

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.connect import ConnectOptions
from aj_sdk.enqueue import loaded, publish_state
from aj_sdk.errors import (
    AsyncJobsError,
    DecodeError,
    InvalidNameError,
    NotConnectedError,
    PayloadError,
    QueueFullError,
    QueueNotFoundError,
    TaskExistsError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTooLargeError,
    UsageError,
)
from aj_sdk.jetstream import JetStream
from aj_sdk.queue import Queue
from aj_sdk.spec import TaskSpec
from aj_sdk.store import Store
from aj_sdk.transport import Message
from aj_sdk.wire.event import LeaderElectedEvent, TaskStateEvent
from aj_sdk.wire.names import item_subject, task_event_subject, task_subject
from aj_sdk.wire.queue import default_queue
from aj_sdk.wire.state import FINAL_STATES, TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_S, from_datetime

pytestmark = pytest.mark.server

LONG = 20.0


class Mail(msgspec.Struct):
    to: str


async def finish(client: Client, task_id: str, *, quietly: bool = False, **changes: Any) -> None:
    """Bring a task to its end as a bridge does: save, then tell."""
    stored = await loaded(client.store, task_id)
    record = stored.readable().replace(**changes)
    await client.store.save(record, expected=stored.sequence)
    if not quietly:
        await publish_state(client.store, record)


def done(payload: Any = "MTc=") -> dict[str, Any]:
    return {"state": TaskState.COMPLETE, "result": TaskResult(payload=payload, completed_ns=NS_PER_S)}


# Enqueueing.


async def test_a_task_goes_into_the_default_queue_which_is_made_for_it(client: Client) -> None:
    task = await client.enqueue("email:new", {"to": "a"})
    assert (task.type, task.queue, task.payload, task.max_tries, task.state) == (
        "email:new",
        "DEFAULT",
        b'{"to":"a"}',
        10,
        TaskState.NEW,
    )
    assert len(task.id) == 27
    assert await client.load(task.id) == task
    info = await client.admin.queue_info("DEFAULT")
    assert (info.settings, info.items) == (default_queue(), 1)
    item = await take(client.store.jetstream, "DEFAULT")
    assert item.subject == item_subject("DEFAULT", task.id)


@pytest.mark.parametrize(
    ("payload", "stored"),
    [
        (None, None),
        (b"\xff", b"\xff"),
        ("text", b'"text"'),
        ([1, {"a": None}], b'[1,{"a":null}]'),
        (Mail("a"), b'{"to":"a"}'),
    ],
)
async def test_a_payload_is_bytes_or_becomes_json(client: Client, payload: Any, stored: bytes | None) -> None:
    assert (await client.enqueue("email:new", payload)).payload == stored


async def test_a_queue_that_is_not_there_is_told_before_anything_is_stored(client: Client) -> None:
    with pytest.raises(QueueNotFoundError):
        await client.enqueue("email:new", queue="EMAIL", id="t1")
    with pytest.raises(TaskNotFoundError):
        await client.load("t1")
    await client.admin.create_queue(Queue("EMAIL"))
    await client.enqueue("email:new", queue="EMAIL", id="t1")


async def test_a_queue_that_vanished_makes_the_task_a_queue_error_and_is_looked_for_again(client: Client) -> None:
    await client.admin.create_queue(Queue("EMAIL"))
    await client.enqueue("email:new", queue="EMAIL")
    await client.admin.delete_queue("EMAIL")
    with pytest.raises(QueueNotFoundError):
        await client.enqueue("email:new", queue="EMAIL", id="t1")
    assert (await client.load("t1")).state is TaskState.QUEUE_ERROR
    with pytest.raises(QueueNotFoundError):
        await client.enqueue("email:new", queue="EMAIL", id="t2")
    with pytest.raises(TaskNotFoundError):
        await client.load("t2")
    await client.admin.create_queue(Queue("EMAIL"))
    assert (await client.enqueue("email:new", queue="EMAIL", id="t1")).state is TaskState.NEW


async def test_the_same_id_again_makes_no_second_task(client: Client) -> None:
    first = await client.enqueue("email:new", {"to": "a"}, id="t1")
    assert await client.enqueue("email:new", {"to": "a"}, id="t1") == first
    assert (await client.admin.queue_info("DEFAULT")).items == 1
    with pytest.raises(TaskExistsError):
        await client.enqueue("email:new", {"to": "b"}, id="t1")
    await finish(client, "t1", **done())
    assert (await client.enqueue("email:new", {"to": "a"}, id="t1")).state is TaskState.COMPLETE


async def test_a_deadline_is_a_point_in_time_or_a_span_from_now(client: Client) -> None:
    when = datetime(2100, 1, 2, tzinfo=UTC)
    assert (await client.enqueue("email:new", deadline=when)).deadline_ns == from_datetime(when)
    task = await client.enqueue("email:new", deadline=timedelta(hours=1))
    assert task.deadline_ns == task.created_ns + 3600 * NS_PER_S


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"type": "a b"}, InvalidNameError, "task type 'a b' is invalid"),
        ({"type": ""}, InvalidNameError, "task type '' is invalid"),
        ({"queue": ">"}, InvalidNameError, "queue name '>' is invalid"),
        ({"id": "a.b"}, InvalidNameError, "task id 'a.b' is invalid"),
        ({"id": "a\n"}, InvalidNameError, "task id"),
        ({"type": 5}, UsageError, "a task type is text, not int"),
        ({"deadline": timedelta(0)}, UsageError, "the deadline lies in the past"),
        ({"deadline": datetime(2000, 1, 1, tzinfo=UTC)}, UsageError, "the deadline lies in the past"),
        ({"deadline": datetime(2100, 1, 1)}, UsageError, "the deadline needs a time zone"),  # noqa: DTZ001 - the point
        ({"deadline": 5}, UsageError, "the deadline must be a datetime or a timedelta, not int"),
        ({"max_tries": 1.5}, UsageError, "max_tries must be an integer, not float"),
        ({"max_tries": True}, UsageError, "max_tries must be an integer, not bool"),
        ({"payload": object()}, PayloadError, "the payload of type object can't be encoded"),
        ({"payload": b"x" * 1_000_000}, TaskTooLargeError, "needs 13.* bytes, the server takes"),
    ],
)
async def test_what_is_wrong_is_told_before_anything_is_stored(
    client: Client, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await client.enqueue(**{"type": "email:new", **arguments})
    assert (await client.admin.overview()).task_store is None or (await client.admin.task_store_info()).tasks == 0


# Enqueueing many.


async def test_many_tasks_come_back_in_their_order(client: Client) -> None:
    await client.admin.create_queue(Queue("EMAIL"))
    pairs: Iterator[tuple[str, Any] | TaskSpec] = (
        TaskSpec("other", number, "EMAIL", f"t{number}", timedelta(hours=1), 3) if number % 2 else ("email:new", number)
        for number in range(600)
    )
    tasks = await client.enqueue_many(pairs)
    assert [task.payload for task in tasks] == [b"%d" % number for number in range(600)]
    assert (tasks[1].id, tasks[1].queue, tasks[1].max_tries, tasks[0].queue) == ("t1", "EMAIL", 3, "DEFAULT")
    assert [info.items for info in await client.admin.queues()] == [300, 300]
    assert await client.enqueue_many([]) == []


async def test_many_tasks_share_the_calls_queue_and_are_bounded(client: Client) -> None:
    await client.admin.create_queue(Queue("EMAIL"))
    drawn = 0

    def tasks() -> Iterator[tuple[str, int]]:
        nonlocal drawn
        for number in range(10):
            drawn += 1
            yield "email:new", number

    made = await client.enqueue_many(tasks(), queue="EMAIL", concurrency=1)
    assert ({task.queue for task in made}, drawn) == ({"EMAIL"}, 10)
    with pytest.raises(UsageError, match="concurrency of at least 1"):
        await client.enqueue_many([], concurrency=0)


async def test_the_first_error_ends_it_after_what_was_under_way(client: Client) -> None:
    await client.admin.create_queue(Queue("EMAIL", max_entries=5))
    drawn = 0

    def tasks() -> Iterator[tuple[str, int]]:
        nonlocal drawn
        for number in range(1000):
            drawn += 1
            yield "email:new", number

    with pytest.raises(QueueFullError):
        await client.enqueue_many(tasks(), queue="EMAIL", concurrency=4)
    assert drawn < 20
    assert (await client.admin.queue_info("EMAIL")).items == 5


async def test_errors_can_be_had_in_place_of_tasks(client: Client) -> None:
    await client.admin.create_queue(Queue("EMAIL", max_entries=2))
    tasks: list[Any] = [("email:new", 0), ("a b", 1), ("email:new", 2), ("email:new", 3), "email:new"]
    made = await client.enqueue_many(tasks, queue="EMAIL", concurrency=1, return_errors=True)
    kinds = [type(outcome) for outcome in made]
    assert kinds == [TaskRecord, InvalidNameError, TaskRecord, QueueFullError, UsageError]
    assert isinstance(made[4], AsyncJobsError)
    assert "a task is a pair of type and payload or a TaskSpec, not str" in str(made[4])


async def test_what_the_iterable_raises_comes_through(client: Client) -> None:
    def tasks() -> Iterator[tuple[str, int]]:
        yield "email:new", 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        await client.enqueue_many(tasks())


# Reading and waiting.


async def test_a_task_that_is_not_there_or_not_readable_is_told(client: Client) -> None:
    await client.admin.ensure_task_store()
    for act in (client.load("t1"), client.result("t1"), client.result_bytes("t1")):
        with pytest.raises(TaskNotFoundError):
            await act
    await client.store.jetstream.publish(task_subject("t1"), b"{}")
    for act in (client.load("t1"), client.result("t1")):
        with pytest.raises(DecodeError, match="task t1"):
            await act
    with pytest.raises(InvalidNameError):
        await client.result("*")


async def test_the_result_of_a_finished_task_is_had_at_once(client: Client) -> None:
    task = await client.enqueue("email:new")
    await finish(client, task.id, **done("eyJ0byI6ImEifQ=="))
    assert await client.result(task.id) == {"to": "a"}
    assert await client.result(task.id, as_type=Mail) == Mail("a")
    assert await client.result_bytes(task.id) == b'{"to":"a"}'


async def test_a_result_that_comes_later_is_waited_for(client: Client) -> None:
    task = await client.enqueue("email:new")
    waiting = asyncio.ensure_future(client.result(task.id, timeout=LONG))
    await finish(client, task.id, state=TaskState.ACTIVE, tries=1)
    await finish(client, task.id, **done())
    assert await waiting == 17


async def test_an_event_ends_the_waiting_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aj_sdk.listening._FIRST_LOOK_S", 3600.0)
    looked = asyncio.Event()

    class Spy(LossyTransport):
        async def request(self, subject: str, data: bytes = b"", **options: Any) -> Message:
            answer = await super().request(subject, data, **options)
            looked.set()
            return answer

    task = await client.enqueue("email:new")
    transport = client.store.jetstream.transport
    client._store = Store(JetStream(Spy(transport)))
    waiting = asyncio.ensure_future(client.result(task.id, timeout=LONG))
    await looked.wait()  # it has seen the task unfinished, and will not look again by itself
    await transport.publish(task_event_subject(task.id), b"not an event")
    client._store = Store(JetStream(transport))
    await finish(client, task.id, **done())
    assert await waiting == 17


async def test_a_result_whose_event_was_lost_is_found_all_the_same(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aj_sdk.listening._FIRST_LOOK_S", 0.05)
    task = await client.enqueue("email:new")
    waiting = asyncio.ensure_future(client.result_bytes(task.id, timeout=LONG))
    await finish(client, task.id, quietly=True, **done())
    assert await waiting == b"17"


@pytest.mark.parametrize("state", sorted(FINAL_STATES - {TaskState.COMPLETE}))
async def test_a_task_that_ended_without_a_result_is_told(client: Client, state: TaskState) -> None:
    task = await client.enqueue("email:new")
    await finish(client, task.id, state=state, last_err="boom")
    with pytest.raises(TaskFailedError, match=f"task {task.id} is {state}: boom") as caught:
        await client.result(task.id)
    assert (caught.value.state, caught.value.last_err) == (state, "boom")


async def test_a_complete_task_without_a_result_gives_nothing(client: Client) -> None:
    task = await client.enqueue("email:new")
    await finish(client, task.id, state=TaskState.COMPLETE)
    assert await client.result(task.id) is None
    assert await client.result_bytes(task.id) == b""


async def test_a_task_that_goes_on_and_on_is_not_waited_for_longer_than_asked(client: Client) -> None:
    task = await client.enqueue("email:new")
    with pytest.raises(TimeoutError):
        await client.result(task.id, timeout=0.05)


async def test_waiting_outlasts_a_server_that_does_not_answer(
    clean_server: EmbeddedServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aj_sdk.listening._FIRST_LOOK_S", 0.05)
    async with Client(connection) as client:
        task = await client.enqueue("email:new")
        await finish(client, task.id, **done())
    async with Client(connection, timeout=0.1) as client:
        clean_server.pause()
        waiting = asyncio.ensure_future(client.result(task.id, timeout=LONG))
        with pytest.raises(AsyncJobsError):
            await client.load(task.id)  # by now the first look has failed too
        clean_server.resume()
        assert await waiting == 17


# Watching.


async def test_events_are_seen_as_they_come_and_others_skipped(client: Client) -> None:
    async with client.watch() as events:
        transport = client.store.jetstream.transport
        task = await client.enqueue("email:new", queue="DEFAULT")
        await transport.publish("CHORIA_AJ.E.task_state.x", b"{}")
        await transport.publish("CHORIA_AJ.E.news", b'{"type":"io.choria.asyncjobs.v9.news"}')
        leader = LeaderElectedEvent(event_id="e", timestamp_ns=NS_PER_S, name="n", component="task_scheduler")
        await transport.publish("CHORIA_AJ.E.leader_election.task_scheduler", leader.to_wire())
        await finish(client, task.id, **done())
        seen = [await anext(events) for _ in range(3)]
    assert isinstance(seen[0], TaskStateEvent)
    assert isinstance(seen[2], TaskStateEvent)
    assert (seen[0].task_id, seen[0].state, seen[0].task_type) == (task.id, TaskState.NEW, "email:new")
    assert seen[1] == leader
    assert seen[2].state is TaskState.COMPLETE


async def test_one_task_is_watched_alone(client: Client) -> None:
    async with client.watch("t2") as events:
        await client.enqueue("email:new", id="t1")
        await client.enqueue("email:new", id="t2")
        event = await anext(events)
    assert isinstance(event, TaskStateEvent)
    assert event.task_id == "t2"


async def test_a_slow_watcher_loses_the_oldest_events(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aj_sdk.listening._WATCHED", 3)
    async with client.watch() as events, client.watch() as counted:
        tasks = await client.enqueue_many([("email:new", number) for number in range(5)], concurrency=1)
        for _ in range(3):
            await anext(counted)
        last = [event.task_id async for event in _first(events, 3) if isinstance(event, TaskStateEvent)]
    assert last == [task.id for task in tasks[-3:]]


async def _first(events: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield await anext(events)


async def test_a_watcher_is_told_when_the_connection_is_gone_for_good(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aj_sdk.listening._LAST_LOOK_S", 0.05)
    async with client.watch() as events:
        await connection.close()
        with pytest.raises(NotConnectedError, match="closed for good"):
            await anext(events)


# Connections.


@asynccontextmanager
async def opened(client: Client) -> AsyncIterator[Client]:
    async with client:
        await client.admin.ensure_task_store()
        yield client


async def test_a_client_connects_as_it_is_told(clean_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(Client.connect(clean_server.url)) as client:
        assert (await client.admin.task_store_info()).tasks == 0
    async with opened(Client.connect(options=ConnectOptions.from_url(clean_server.url))):
        pass
    monkeypatch.setenv("AJ_SERVER", clean_server.url)
    async with opened(Client.connect()):
        pass
    with pytest.raises(UsageError, match="give one of server, context and options"):
        Client.connect(clean_server.url, context="x")


async def test_a_server_that_is_not_there_is_told(free_port: int) -> None:
    with pytest.raises(NotConnectedError, match="is a NATS server running there"):
        async with Client.connect(f"nats://127.0.0.1:{free_port}"):
            pass


async def test_a_programs_own_connection_stays_open(connection: Connection) -> None:
    for _ in range(2):
        async with Client(connection) as client:
            await client.enqueue("email:new")
    assert connection.is_connected
    assert not connection._subs


async def test_a_client_is_used_while_it_is_open(connection: Connection) -> None:
    client = Client(connection)
    with pytest.raises(UsageError, match="the client is not open"):
        await client.load("t1")
    async with client:
        with pytest.raises(UsageError, match="the client is open already"):
            await client.__aenter__()
        await client.enqueue("email:new")
    with pytest.raises(UsageError, match="the client is not open"):
        _ = client.admin
    with pytest.raises(UsageError, match="a client needs a connection"):
        await Client().__aenter__()


async def test_a_closed_connection_is_told(connection: Connection) -> None:
    async with Client(connection) as client:
        await connection.close()
        with pytest.raises(NotConnectedError):
            await client.enqueue("email:new")
    with pytest.raises(NotConnectedError):
        await Client(connection).__aenter__()


async def test_a_client_outlives_a_restart_of_the_server(
    clean_server: EmbeddedServer, client: Client, patience: Callable[[float], float]
) -> None:
    task = await client.enqueue("email:new", id="t1")
    await clean_server.astop()
    await clean_server.astart()
    async with asyncio.timeout(patience(30)):
        assert await client.enqueue("email:new", id="t1") == task
        await client.enqueue("email:new", id="t2")
    assert (await client.admin.queue_info("DEFAULT")).items == 2
