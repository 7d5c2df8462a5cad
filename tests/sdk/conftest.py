"""A connection to an empty server, and what the SDK puts on top of it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from nats.aio.client import Client as Connection
from tests.sdk.lossy import LossyTransport
from tests.sdk.world import World, world_of
from tests.versions import OLD_VERSIONS, server_binary

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.admin import Admin
from aj_sdk.client import Client
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.jetstream import JetStream
from aj_sdk.queue import Queue
from aj_sdk.store import Store
from aj_sdk.transport import Message, NatsTransport
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.names import TASK_STATE_EVENTS


@pytest.fixture
async def connection(clean_server: EmbeddedServer) -> AsyncIterator[Connection]:
    connection = await connect(ConnectOptions.from_url(clean_server.url))
    yield connection
    await connection.close()


@pytest.fixture
async def transport(connection: Connection) -> AsyncIterator[NatsTransport]:
    async with NatsTransport(connection) as transport:
        yield transport


@pytest.fixture
def jetstream(transport: NatsTransport, patience: Callable[[float], float]) -> JetStream:
    return JetStream(transport, timeout=patience(5))


@pytest.fixture
def store(jetstream: JetStream) -> Store:
    return Store(jetstream)


@pytest.fixture
def admin(jetstream: JetStream, store: Store) -> Admin:
    return Admin(jetstream, store)


@pytest.fixture
async def prepared(store: Store, admin: Admin) -> Store:
    """A store with a task store and a queue that takes two items."""
    await admin.ensure_task_store()
    await admin.create_queue(Queue("EMAIL", max_entries=2))
    return store


@pytest.fixture
def lossy(transport: NatsTransport) -> LossyTransport:
    return LossyTransport(transport)


@pytest.fixture
def lossy_store(prepared: Store, lossy: LossyTransport) -> Store:
    return Store(JetStream(lossy))


@pytest.fixture
async def states(transport: NatsTransport) -> "asyncio.Queue[tuple[str, str]]":
    """The task states that are told in events, in order."""
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def on_event(message: Message) -> None:
        event = TaskStateEvent.from_wire(message.data)
        told.put_nowait((event.task_id, event.state.value))

    await transport.subscribe(TASK_STATE_EVENTS, on_event)
    return told


@pytest.fixture
async def client(connection: Connection, patience: Callable[[float], float]) -> AsyncIterator[Client]:
    async with Client(connection, timeout=patience(5)) as client:
        yield client


@pytest.fixture
def world(jetstream: JetStream, store: Store, admin: Admin) -> World:
    """The newest server."""
    return World(jetstream, store, admin)


@pytest.fixture(params=["newest", *OLD_VERSIONS])
async def any_world(
    request: pytest.FixtureRequest, fresh_server: Callable[..., EmbeddedServer]
) -> AsyncIterator[World]:
    """Each server."""
    binary = None if request.param == "newest" else server_binary(request.param)
    async with world_of(fresh_server(binary=binary).url) as world:
        yield world
