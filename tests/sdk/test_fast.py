"""Our own reader and writer on a nats-py connection: where they are used, and what they must take from the server."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from tests.sdk.test_connect import Fresh, _tls, certificates
from tests.sdk.test_transport import LONG, Listener, echo

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.errors import NotConnectedError, UsageError
from aj_sdk.fast import FastTransport, open_transport, unfit
from aj_sdk.transport import NatsTransport

__all__ = ["certificates"]  # a fixture

pytestmark = pytest.mark.server


@pytest.fixture
async def fast(connection: Connection) -> AsyncIterator[FastTransport]:
    async with FastTransport(connection) as transport:
        yield transport


async def asked(transport: NatsTransport, body: bytes) -> bytes:
    """Ask ourselves, and give the answer."""
    listener = Listener()
    subscription = await transport.subscribe("self", listener)
    waiting = asyncio.ensure_future(transport.request("self", body, timeout=LONG, headers={"A": "b"}))
    await echo(transport, await listener.next())
    await subscription.close()
    return (await waiting).data


async def connected_anew(transport: NatsTransport, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not transport.reconnects:  # noqa: ASYNC110 - nats-py tells who made the connection
            await asyncio.sleep(0.02)


async def test_nats_py_itself_goes_on_working_beside_it(connection: Connection, fast: FastTransport) -> None:
    heard: list[bytes] = []
    four = asyncio.Event()

    async def on_message(message: Msg) -> None:
        heard.append(message.data)
        if message.reply:
            await message.respond(b"yes")
        else:
            four.set()

    await connection.subscribe("theirs", cb=on_message)
    assert (await connection.request("theirs", b"1", timeout=LONG)).data == b"yes"
    assert (await fast.request("theirs", b"2", timeout=LONG)).data == b"yes"
    assert await asked(fast, b"3") == b"3"
    assert heard == [b"1", b"2"]
    before = dict(connection.stats)
    await connection.publish("theirs", b"four")
    await asyncio.wait_for(four.wait(), LONG)
    assert connection.stats["in_msgs"] - before["in_msgs"] == 1
    assert connection.stats["in_bytes"] - before["in_bytes"] == 4


async def test_leaving_gives_nats_py_its_parser_back(connection: Connection) -> None:
    parser = connection._ps
    async with FastTransport(connection) as transport:
        assert await asked(transport, b"x") == b"x"
        assert connection._ps is not parser
    assert connection._ps is parser
    async with FastTransport(connection) as transport:
        assert await asked(transport, b"y") == b"y"


async def test_what_nats_py_and_we_send_keeps_its_order(connection: Connection, fast: FastTransport) -> None:
    listener = Listener()
    await fast.subscribe("order", listener)
    for number in range(100):
        await (fast if number % 2 else connection).publish("order", b"%d" % number)
    assert [int((await listener.next()).data) for _ in range(100)] == list(range(100))


async def test_over_tls_also_after_a_reconnect(
    fresh_server: Fresh, certificates: Path, patience: Callable[[float], float]
) -> None:
    server = fresh_server(config=_tls(certificates))
    options = replace(ConnectOptions.from_url(server.url), tls_ca=certificates / "ca.pem")
    connection = await connect(options)
    async with open_transport(connection) as transport:
        assert isinstance(transport, FastTransport)
        assert await asked(transport, b"x" * 500_000) == b"x" * 500_000
        await server.astop()
        await server.astart()
        await connected_anew(transport, patience(30))
        assert await asked(transport, b"again") == b"again"
    await connection.close()


@pytest.mark.filterwarnings(
    "ignore:parameter 'timeout' of type 'float':DeprecationWarning"
)  # nats-py's call of aiohttp
async def test_a_websocket_takes_the_plain_transport_also_after_a_reconnect(
    fresh_server: Fresh, free_port: int, patience: Callable[[float], float]
) -> None:
    server = fresh_server(config={"websocket": {"host": "127.0.0.1", "port": free_port, "no_tls": True}})
    connection = await connect(ConnectOptions.from_url(f"ws://127.0.0.1:{free_port}"))
    async with open_transport(connection) as transport:
        assert type(transport) is NatsTransport
        assert await asked(transport, b"x" * 500_000) == b"x" * 500_000
        await server.astop()
        await server.astart()
        await connected_anew(transport, patience(30))
        assert await asked(transport, b"again") == b"again"
    await connection.close()


async def test_lame_duck_mode_is_told_to_the_program(fresh_server: Fresh) -> None:
    server = fresh_server()
    told = asyncio.Event()

    async def on_lame_duck() -> None:
        told.set()

    async def quiet(_: Exception) -> None:
        pass

    connection = await nats.connect(server.url, lame_duck_mode_cb=on_lame_duck, error_cb=quiet, reconnect_time_wait=1)
    async with FastTransport(connection) as transport:
        assert await asked(transport, b"x") == b"x"
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGUSR2)
        async with asyncio.timeout(LONG):
            await told.wait()
    await connection.close()


async def test_a_publisher_waits_while_the_socket_is_full(
    clean_server: EmbeddedServer, patience: Callable[[float], float]
) -> None:
    connection = await connect(ConnectOptions.from_url(clean_server.url))
    async with FastTransport(connection) as transport:
        clean_server.pause()
        sent = 0

        async def publish() -> None:
            nonlocal sent
            for _ in range(100):
                await transport.publish("x", b"x" * 900_000)
                sent += 1
                await asyncio.sleep(0)

        publishing = asyncio.create_task(publish())
        async with asyncio.timeout(patience(10)):
            while not transport._full:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        kept = sent
        for _ in range(100):
            await asyncio.sleep(0)
        assert sent - kept <= 1
        assert sent < 100
        clean_server.resume()
        async with asyncio.timeout(patience(30)):
            await publishing
        await transport.ping(patience(10))
    await connection.close()


async def test_a_defect_in_a_callback_does_not_end_the_reading(
    fast: FastTransport, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    await fast.subscribe("broken", broken)
    await fast.publish("broken")
    await fast.ping(LONG)
    assert "a defect in what handles broken" in caplog.text
    assert await asked(fast, b"x") == b"x"


@pytest.mark.parametrize("garbage", [b"HELLO\r\n", b"MSG a 1 2\r\nhiXX", b"INFO {\r\n"])
async def test_a_server_that_breaks_the_protocol_is_left_for_a_new_connection(
    connection: Connection, fast: FastTransport, garbage: bytes, patience: Callable[[float], float]
) -> None:
    connection._transport._io_reader.feed_data(garbage)  # type: ignore[union-attr]
    await connected_anew(fast, patience(20))
    assert await asked(fast, b"x") == b"x"


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPING"])
async def test_a_subject_can_not_break_out_of_its_line(fast: FastTransport, subject: str) -> None:
    with pytest.raises(UsageError):
        await fast.publish(subject)


async def test_while_the_connection_is_down_no_more_is_kept_than_its_buffer_holds(
    clean_server: EmbeddedServer, fast: FastTransport, connection: Connection
) -> None:
    await clean_server.astop()
    async with asyncio.timeout(LONG):
        while connection.is_connected:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
    connection._max_pending_size = 1000
    await fast.publish("x", b"x" * 500)
    with pytest.raises(NotConnectedError, match="buffer"):
        await fast.publish("x", b"x" * 500)


async def test_a_connection_that_we_do_not_know_gets_the_plain_transport_and_one_line(
    connection: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "aj_sdk.fast")
    async with open_transport(connection) as first, open_transport(connection) as second:
        assert (type(first), type(second)) == (FastTransport, NatsTransport)
        assert await asked(second, b"x") == b"x"
    assert [record.message for record in caplog.records if record.name == "aj_sdk.fast"] == [
        "using nats-py's own reader and writer, which are slower: another fast transport uses the connection"
    ]
    with monkeypatch.context() as patch:
        patch.setattr(connection, "_pending", None)
        assert unfit(connection) == "nats-py has no _pending as we know it"
        with pytest.raises(UsageError):
            FastTransport(connection)


async def test_a_client_of_ours_is_fast_and_leaves_a_programs_connection_as_it_is(connection: Connection) -> None:
    parser = connection._ps
    async with Client(connection) as client:
        assert type(client.store.jetstream.transport) is NatsTransport
        assert connection._ps is parser
    url = connection.connected_url
    assert url is not None
    async with Client.connect(url.geturl()) as client:
        assert type(client.store.jetstream.transport) is FastTransport
