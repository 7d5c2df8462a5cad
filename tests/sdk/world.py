"""A server and what an administrator needs to work on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aj_sdk.admin import Admin
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.transport import NatsTransport
from aj_sdk.wire.names import CONSUMER, TASKS_STREAM, queue_stream
from aj_sdk.wire.times import NS_PER_S

__all__ = ["GO_QUEUE", "GO_TASKS", "GO_WORKERS", "World", "world_of"]

_MINUTE: Final = 60 * NS_PER_S

# What the Go library (v0.3.0) makes on a server of 2.15; see docs of the wire.
GO_TASKS = {"name": TASKS_STREAM, "subjects": ["CHORIA_AJ.T.*"], "max_msgs_per_subject": 1}
GO_QUEUE = {
    "name": "CHORIA_AJ_Q_GO",
    "subjects": ["CHORIA_AJ.Q.GO.>"],
    "retention": "workqueue",
    "max_msgs_per_subject": 1,
    "discard": "new",
    "duplicate_window": 120 * NS_PER_S,
}
GO_WORKERS = {
    "durable_name": CONSUMER,
    "ack_policy": "explicit",
    "ack_wait": _MINUTE,
    "max_deliver": 5,
    "max_ack_pending": 50,
}


@dataclass(frozen=True, slots=True)
class World:
    """A server and what an administrator needs to work on it."""

    jetstream: JetStream
    store: Store
    admin: Admin

    async def stream(self, name: str) -> dict[str, Any]:
        info = await self.jetstream.stream_info(name)
        assert info is not None
        config: dict[str, Any] = info["config"]
        return config

    async def consumer(self, queue: str) -> dict[str, Any]:
        info = await self.jetstream.consumer_info(queue_stream(queue), CONSUMER)
        assert info is not None
        config: dict[str, Any] = info["config"]
        return config

    async def configure_as_go(self, queue: str, **changes: int) -> None:
        """Change the consumer as the Go project's `queue configure` does: it keeps all the rest."""
        config = await self.consumer(queue) | changes
        await self.jetstream.save_consumer(queue_stream(queue), config, "update")

    async def make_go_queue(self) -> None:
        await self.jetstream.create_stream(GO_QUEUE)
        await self.jetstream.save_consumer("CHORIA_AJ_Q_GO", GO_WORKERS, "create")


@asynccontextmanager
async def world_of(url: str, *, seconds: float = 5.0) -> AsyncIterator[World]:
    connection = await connect(ConnectOptions.from_url(url))
    async with NatsTransport(connection) as transport:
        jetstream = JetStream(transport, timeout=seconds)
        store = Store(jetstream)
        yield World(jetstream, store, Admin(jetstream, store))
    await connection.close()
