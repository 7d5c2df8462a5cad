"""Being told of cancelled tasks, over a real server."""

import asyncio

import pytest

from aj_bridge.engine.cancels import Cancels
from aj_bridge.engine.duties import on_duty
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.transport import NatsTransport

pytestmark = pytest.mark.server


async def test_all_who_listen_hear_which_task_it_is_for_as_long_as_they_do(
    transport: NatsTransport, other: NatsTransport
) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    more: list[str] = []
    store = Store(JetStream(other))
    async with on_duty([Cancels(transport, [told.put_nowait, more.append])]):
        while "a" not in more:
            await store.tell_bridges("a")  # again, until it listens
            await other.ping(5)
        await store.tell_bridges("b:c")
        while await told.get() != "b:c":
            pass
        assert set(more) == {"a", "b:c"}
    await store.tell_bridges("d")
    await other.ping(5)
    await transport.ping(5)
    assert told.empty()
