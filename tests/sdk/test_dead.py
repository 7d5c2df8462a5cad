"""Dead letters on a real server: stored, found, kept for their time, run again, removed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from tests.versions import NO_BATCHES, server_binary

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.admin import Admin
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.dead import DeadFilter, DeadLetters, FoundLetter, group_letters
from aj_sdk.errors import DeadLetterNotFoundError, InvalidConfigError, NotReplayableError, RefusedError, TaskStateError
from aj_sdk.jetstream import JetStream
from aj_sdk.queue import Queue
from aj_sdk.store import Store
from aj_sdk.transport import NatsTransport
from aj_sdk.wire.dead import DeadLetter, DeadReason
from aj_sdk.wire.names import DEAD_STREAM, dead_subject
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

pytestmark = pytest.mark.server

NOW = 1_700_000_000 * NS_PER_S


class World:
    def __init__(self, jetstream: JetStream) -> None:
        self.jetstream = jetstream
        self.store = Store(jetstream)
        self.admin = Admin(jetstream, self.store)
        self.dead: DeadLetters = self.admin.dead


@pytest.fixture
async def world(own_server: EmbeddedServer) -> AsyncIterator[World]:
    async with connected(own_server.url) as there:
        await there.admin.ensure_dead()
        yield there


@pytest.fixture
async def own_server() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer() as server:
        yield server


class connected:  # noqa: N801 - reads as a function
    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> World:
        self._connection = await connect(ConnectOptions(servers=(self._url,)))
        self._transport = NatsTransport(self._connection)
        return World(JetStream(await self._transport.__aenter__()))

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__(None, None, None)
        await self._connection.close()


def letter(
    task_id: str,
    reason: str = "expired",
    *,
    queue: str = "Q",
    task_type: str = "email:new",
    detail: str = "no",
    at: int = 0,
) -> DeadLetter:
    record = TaskRecord(id=task_id, type=task_type, queue=queue, state=TaskState(reason), created_ns=NOW, tries=3)
    return DeadLetter(
        reason=reason,
        detail=detail,
        queue=queue,
        task_id=task_id,
        task_type=task_type,
        tries=3,
        body=record.to_wire(),
        at_ns=NOW + at,
    )


async def ids(world: World, wanted: DeadFilter | None = None, limit: int = 0) -> list[str]:
    return [found.letter.task_id async for found in world.dead.letters(wanted, limit=limit)]


async def test_letters_are_found_by_all_that_is_known_of_them(world: World) -> None:
    for each in (
        letter("a", at=1),
        letter("b", "terminated", detail="No such mailbox", at=2),
        letter("c", queue="R", at=3),
        letter("d", task_type="page:fetch", at=4),
    ):
        await world.dead.bury(each)
    await world.jetstream.publish(dead_subject("expired", "Q", "e"), b"", {"AJ-Dead-At": "never"})
    assert await ids(world) == ["a", "b", "c", "d"]
    assert await ids(world, limit=2) == ["a", "b"]
    assert await ids(world, DeadFilter(reasons=(DeadReason.TERMINATED,))) == ["b"]
    assert await ids(world, DeadFilter(queue="R")) == ["c"]
    assert await ids(world, DeadFilter(type="page:fetch")) == ["d"]
    assert await ids(world, DeadFilter(error="MAILBOX")) == ["b"]
    assert await ids(world, DeadFilter(since_ns=NOW + 2, before_ns=NOW + 4)) == ["b", "c"]
    assert [found.letter for found in await world.dead.find("b")] == [
        letter("b", "terminated", detail="No such mailbox", at=2)
    ]
    with pytest.raises(DeadLetterNotFoundError, match="zzz"):
        await world.dead.find("zzz")


async def test_letters_of_one_reason_type_and_error_are_a_group() -> None:
    groups = group_letters([letter("a", at=1), letter("b", at=3), letter("c", detail="other"), letter("d", at=2)])
    assert [(group.count, group.detail, group.newest_ns, group.example) for group in groups] == [
        (3, "no", NOW + 3, "b"),
        (1, "other", NOW, "c"),
    ]


async def test_each_reason_is_kept_for_its_own_time(world: World) -> None:
    kept = await world.dead.configure(
        {DeadReason.EXPIRED: timedelta(seconds=1), DeadReason.TERMINATED: timedelta(days=90), DeadReason.QUARANTINED: 0}
    )
    assert kept.max_age_ns == timedelta(days=90).total_seconds() * NS_PER_S
    assert [kept.ttl(reason) for reason in DeadReason] == ["1s", None, f"{30 * 86_400}s", "never"]
    for reason in DeadReason:
        await world.dead.bury(letter("a", reason, detail=str(reason)) if reason != "quarantined" else unreadable("q"))
    gone = asyncio.Event()

    async def watch() -> None:
        while len(await ids(world)) > 3:  # noqa: ASYNC110 - the server tells nobody that a message's time is over
            await asyncio.sleep(0.05)
        gone.set()

    async with asyncio.timeout(30):
        await watch()
    assert sorted([found.letter.reason async for found in world.dead.letters()]) == [
        "quarantined",
        "terminated",
        "unreachable",
    ]


def unreadable(task_id: str, whole_size: int | None = None) -> DeadLetter:
    return DeadLetter(
        reason="quarantined",
        detail="task not found",
        queue="Q",
        task_id=task_id,
        task_type="",
        tries=0,
        body=b"{",
        at_ns=NOW,
        whole_size=whole_size,
    )


async def test_a_bridge_that_runs_takes_up_another_retention(world: World) -> None:
    await world.dead.bury(letter("a"))
    running = DeadLetters(world.jetstream, world.store)
    await running.configure({DeadReason.EXPIRED: 5})
    await running.bury(letter("b"))
    [found] = await world.dead.find("b")
    message = await world.jetstream.last(DEAD_STREAM, dead_subject("expired", "Q", "b"))
    assert message is not None
    assert (message.sequence, message.headers["Nats-TTL"]) == (found.sequence, "5s")


@pytest.mark.parametrize("span", [-1, 0.5, float("nan")])
async def test_a_retention_that_is_none_is_refused(world: World, span: float) -> None:
    with pytest.raises(InvalidConfigError, match="expired"):
        await world.dead.configure({DeadReason.EXPIRED: span})


async def test_a_task_that_is_gone_is_stored_again_as_it_was_and_runs(world: World) -> None:
    await world.admin.ensure_task_store()
    await world.admin.create_queue(Queue("Q"))
    record = TaskRecord(
        id="a",
        type="email:new",
        queue="Q",
        payload=b"{}",
        state=TaskState.EXPIRED,
        created_ns=NOW,
        tries=3,
        tried_ns=NOW,
        last_err="no",
        signature="ab" * 64,
    )
    await world.dead.bury(DeadLetter.read("CHORIA_AJ.X.expired.Q.a", record.to_wire(), letter("a").headers()))
    [found] = await world.dead.find("a")
    replayed = await world.dead.replay(found)
    assert replayed == record.fresh()
    assert (replayed.signature, replayed.created_ns) == (record.signature, NOW)
    stored = await world.store.load("a")
    assert stored is not None
    assert stored.record == replayed
    assert [place.stream for place in await world.store.find_items("Q", "a")] == ["CHORIA_AJ_Q_Q"]
    assert await ids(world) == []


async def test_a_task_that_is_still_there_starts_over(world: World) -> None:
    await world.admin.ensure_task_store()
    await world.admin.create_queue(Queue("Q"))
    dead = letter("a")
    await world.store.save(TaskRecord.from_wire(dead.body), expected=0)
    await world.dead.bury(dead)
    [found] = await world.dead.find("a")
    assert (await world.dead.replay(found)).state is TaskState.NEW
    with pytest.raises(TaskStateError):
        await world.dead.replay(found)  # it runs already


async def test_what_no_task_can_be_made_of_stays_dead(world: World) -> None:
    await world.admin.ensure_task_store()
    await world.dead.bury(unreadable("q"))
    await world.dead.bury(unreadable("big", 2_000_000))
    late = TaskRecord(id="late", type="t", queue="Q", state=TaskState.EXPIRED, created_ns=NOW, deadline_ns=NOW)
    await world.dead.bury(DeadLetter.read("CHORIA_AJ.X.expired.Q.late", late.to_wire(), letter("late").headers()))
    for task_id, why in (("q", "neither"), ("big", "2000000 bytes"), ("late", "deadline has passed")):
        [found] = await world.dead.find(task_id)
        with pytest.raises(NotReplayableError, match=why):
            await world.dead.replay(found)
    assert sorted(await ids(world)) == ["big", "late", "q"]


async def test_a_letter_that_another_took_the_place_of_is_not_removed(world: World) -> None:
    await world.dead.bury(letter("a"))
    [before] = await world.dead.find("a")
    await world.dead.bury(letter("a", detail="again"))
    await world.dead.bury(letter("b"))
    assert await world.dead.remove([before, *await world.dead.find("b")]) == 1
    assert await ids(world) == ["a"]
    assert await world.dead.purge() == 1


async def test_where_there_is_no_stream_there_is_nothing_dead_and_nothing_can_be_stored(
    own_server: EmbeddedServer,
) -> None:
    async with connected(own_server.url) as world:
        assert await ids(world) == []
        assert await world.dead.purge() == 0
        with pytest.raises(RefusedError, match=DEAD_STREAM):
            await world.dead.bury(letter("a"))
        with pytest.raises(RefusedError, match="a bridge makes it"):
            await world.dead.configure({DeadReason.EXPIRED: 5})


async def test_a_server_before_2_11_keeps_all_letters_and_all_tasks_equally_long() -> None:
    async with EmbeddedServer(binary=server_binary(NO_BATCHES)) as server, connected(server.url) as world:
        await world.admin.ensure_dead()
        with pytest.raises(InvalidConfigError, match=r"2\.11"):
            await world.dead.configure({DeadReason.EXPIRED: 5})
        await world.admin.ensure_task_store()
        with pytest.raises(InvalidConfigError, match=r"2\.11"):
            await world.admin.enable_task_ttls()
        kept = await world.dead.configure(dict.fromkeys(DeadReason, 5))
        assert kept.max_age_ns == 5 * NS_PER_S
        await world.dead.bury(letter("a"))
        [found] = await world.dead.find("a")
        assert found == FoundLetter(found.sequence, letter("a"))
