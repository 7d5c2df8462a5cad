"""A server that tests of the engine share, and connections to it."""

from collections.abc import AsyncIterator

import nats
import pytest

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.transport import NatsTransport


@pytest.fixture
async def transport(server: EmbeddedServer) -> AsyncIterator[NatsTransport]:
    """Give a connection."""
    connection = await nats.connect(server.url)
    async with NatsTransport(connection) as transport:
        yield transport
    await connection.close()


@pytest.fixture
async def other(server: EmbeddedServer) -> AsyncIterator[NatsTransport]:
    """Give another connection, for who is asked."""
    connection = await nats.connect(server.url)
    async with NatsTransport(connection) as transport:
        yield transport
    await connection.close()
