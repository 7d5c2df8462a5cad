"""The proxy: what it lets pass, holds back, drops and breaks off."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.faults.proxy import Proxy, Way, frames


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self.heard = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            self.heard += data
            writer.write(data)
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    server = Echo()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listener, Proxy("127.0.0.1", listener.sockets[0].getsockname()[1]) as proxy:
        yield server, proxy


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = proxy.url.removeprefix("nats://").partition(":")
    return await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_stream_is_cut_into_whole_messages_wherever_it_is_read(cut: int) -> None:
    stream = b"PING\r\nPUB a 5\r\nab\r\nc\r\nHMSG b 1 4 6\r\nhhhhbb\r\n+OK\r\n"
    whole = [b"PING\r\n", b"PUB a 5\r\nab\r\nc\r\n", b"HMSG b 1 4 6\r\nhhhhbb\r\n", b"+OK\r\n"]
    first = list(frames(stream[:cut]))
    rest = stream[len(b"".join(first)) :]
    assert [*first, *frames(rest)] == whole


async def test_chosen_messages_are_swallowed_whole(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    proxy.swallow = lambda way, frame: way is Way.TO_SERVER and b"+ACK" in frame
    reader, writer = await connect(proxy)
    writer.write(b"PUB a 4\r\n+ACK\r\nPING\r\n")
    assert await reader.readline() == b"PING\r\n"
    assert proxy.swallowed == 1
    writer.close()


async def test_a_silent_direction_passes_nothing_and_the_other_one_does(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    reader, writer = await connect(proxy)
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"PING\r\n"
    proxy.silent = {Way.TO_CLIENT}
    writer.write(b"PONG\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readline(), 0.2)
    assert bytes(server.heard) == b"PING\r\nPONG\r\n"
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        await reader.readline()
    writer.close()


async def test_what_is_delayed_comes_later(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    proxy.delay_s = 0.1
    reader, writer = await connect(proxy)
    began = asyncio.get_running_loop().time()
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"PING\r\n"
    assert asyncio.get_running_loop().time() - began >= 0.2
    writer.close()


async def test_a_refusing_proxy_closes_new_connections(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    proxy.refusing = True
    reader, writer = await connect(proxy)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
