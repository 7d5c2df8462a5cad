"""An answer that a break of the connection swallowed comes all the same, and one that had come does no harm."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.dispatch import RemoteHandlers
from aj_bridge.engine.router import EACH, Invocation, Route
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk import again
from aj_sdk.again import Again
from aj_sdk.handling import Task
from aj_sdk.runner import Runner
from aj_sdk.services import Services
from aj_sdk.transport import Message, NatsTransport
from aj_sdk.wire.call import Completed
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

Connect = Callable[[float], Awaitable[Client]]


@pytest.fixture
async def connected(clean_server: EmbeddedServer) -> AsyncIterator[Connect]:
    """Give a function that connects, with the seconds after which it connects again."""
    opened: list[Client] = []

    async def connect(seconds: float) -> Client:
        client = await nats.connect(clean_server.url, reconnect_time_wait=seconds, max_reconnect_attempts=-1)
        opened.append(client)
        return client

    yield connect
    for client in opened:
        await client.close()


@asynccontextmanager
async def calling(connection: Client) -> AsyncIterator[tuple[Callable[[str], "asyncio.Task[object]"], list[Message]]]:
    """Call handlers as a bridge does, and see the replies that nobody waited for."""
    strays: list[Message] = []
    async with NatsTransport(connection) as transport:
        transport.on_stray = strays.append
        handlers = RemoteHandlers(transport, Clock())

        def call(task_type: str) -> "asyncio.Task[object]":
            record = TaskRecord(id="a", type=task_type, queue="Q", state=TaskState.ACTIVE, created_ns=1, tries=1)
            return asyncio.create_task(handlers.call(Invocation("b1-Q-7", record, Route(type=EACH), 600 * 10**9)))

        yield call, strays


@pytest.mark.server
async def test_an_answer_given_while_the_server_is_away_comes_though_the_bridge_is_back_later(
    clean_server: EmbeddedServer, connected: Connect, patience: Callable[[float], float]
) -> None:
    services, arrived, go = Services(), asyncio.Event(), asyncio.Event()

    @services.service("lost")
    async def lost(task: Task) -> str:
        arrived.set()
        await go.wait()
        return "there"

    # The answer waits in the client of the handlers, which is back at once, and comes to a server that has no bridge.
    async with Runner(await connected(0.05), services), calling(await connected(1.5)) as (call, _):
        called = call("lost")
        await arrived.wait()
        clean_server.kill()
        go.set()
        await clean_server.astart()
        assert await asyncio.wait_for(called, patience(20)) == Completed(b"there")


@pytest.mark.server
async def test_an_answer_that_had_come_is_nobody_s_when_it_comes_again(
    clean_server: EmbeddedServer,
    connected: Connect,
    patience: Callable[[float], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(again, "_KEEP_S", 60.0)
    services = Services()
    services.service("twice")(lambda task: "there")
    async with Runner(await connected(0.05), services), calling(await connected(0.05)) as (call, strays):
        assert await call("twice") == Completed(b"there")
        clean_server.kill()
        await clean_server.astart()
        async with asyncio.timeout(patience(20)):
            while not strays:  # noqa: ASYNC110 - what is refused wakes nobody
                await asyncio.sleep(0.01)
            assert await call("twice") == Completed(b"there")
        assert [stray.data for stray in strays] == [b"there"]


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "_MAX_KEPT", 3)
    monkeypatch.setattr(again, "_MAX_BYTES", 10)
    kept = Again(Client())
    for number in range(5):
        kept.sent(f"r{number}", b"12", None)
    assert [reply.subject for reply in kept._sent] == ["r2", "r3", "r4"]
    kept.sent("large", b"x" * 9, {"AJ-Error": "no"})
    assert [reply.subject for reply in kept._sent] == ["large"]
    kept.sent("larger", b"x" * 11, None)
    assert not kept._sent
    assert kept._bytes == 0
