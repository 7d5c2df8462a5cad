"""`Transport` on nats-py's connection with a reader and a writer of our own.

Connecting, logging in, TLS, pings, reconnecting and replaying subscriptions stay nats-py's. What costs it most is done
here: reading (a regular expression and a coroutine a message, headers of each) and writing (a coroutine and a queue hop
a message). Both use private names of nats-py 2.16, all of them in this file; `open_transport` looks whether they are
what we know, and else gives the transport that keeps to the public API.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.subscription import Subscription as NatsSubscription
from nats.aio.transport import TcpTransport

from aj_sdk.errors import DecodeError, MessageTooLargeError, NotConnectedError, UsageError
from aj_sdk.transport import Headers, NatsTransport, OnMessage, Subscription
from aj_sdk.wire.frames import Control, Frame, FrameReader, header_block

__all__ = ["FastTransport", "open_transport", "unfit"]

_log: Final = logging.getLogger(__name__)

_HIGH_WATER: Final = 1 << 20
"""Bytes that wait for the socket, above which a publisher waits."""

_SAMPLE: Final = b"HMSG a 7 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPONG\r\n"
_ATTRIBUTES: Final = (
    ("_ps", object),
    ("_status", int),
    ("_pending", list),
    ("_pending_data_size", int),
    ("_max_pending_size", int),
    ("_subs", dict),
    ("stats", dict),
)
_METHODS: Final = ("_process_msg", "_process_err", "_process_ping", "_process_pong", "_process_info")


def _on_defect(frame: Frame) -> None:
    # One message's defect must not end the reading of the connection.
    _log.exception("a defect in what handles %s", frame.subject)


class _Parser:
    """Stands where nats-py's parser stands: `reset` and `parse`."""

    def __init__(self, connection: NatsClient) -> None:
        self.nc = connection
        self.reader = FrameReader(_on_defect)
        self._resets = 0

    def reset(self) -> None:
        self._resets += 1
        self.reader.reset()

    async def parse(self, data: bytes = b"") -> None:
        nc: Any = self.nc
        reader = self.reader
        reader.messages = reader.bytes = 0
        try:
            rest = reader.feed(data)
        except DecodeError as err:
            _log.warning("the server sent what is not of its protocol, connecting anew: %s", err)
            raise nats.errors.ProtocolError from err
        nc.stats["in_msgs"] += reader.messages
        nc.stats["in_bytes"] += reader.bytes
        resets = self._resets
        for each in rest:
            if self._resets != resets:
                return  # what came before belongs to a connection that is given up
            if isinstance(each, Control):
                await self._control(each)
            else:
                nc.stats["in_msgs"] -= 1  # nats-py counts it itself
                nc.stats["in_bytes"] -= len(each.data)
                await nc._process_msg(each.sid, each.subject, each.reply, each.data, each.block or None)  # noqa: SLF001

    async def _control(self, control: Control) -> None:
        nc: Any = self.nc
        match control.op:
            case "PONG":
                await nc._process_pong()  # noqa: SLF001
            case "PING":
                await nc._process_ping()  # noqa: SLF001
            case "-ERR":
                await nc._process_err(control.argument.decode("utf-8", "replace").lower())  # noqa: SLF001
            case "INFO":
                try:
                    info = json.loads(control.argument)
                except ValueError as err:
                    raise nats.errors.ProtocolError from err
                await nc._process_info(info)  # noqa: SLF001


class FastTransport(NatsTransport):
    """`Transport` with our own reader and writer on a nats-py connection over TCP or TLS.

    Messages reach their callbacks as they are read, in the order of the connection. What is sent in one turn of the
    loop goes out in one write. While the connection is down it waits in nats-py's own buffer, up to its limit.

    Args:
        connection: the connection; one such transport at a time may use it.
        replies: see `NatsTransport`.

    Raises:
        UsageError: the connection is not what we know.
    """

    def __init__(self, connection: NatsClient, *, replies: bool = True) -> None:
        fault = unfit(connection)
        if fault:
            raise UsageError(f"the fast transport can't be used: {fault}")
        super().__init__(connection, replies=replies)
        self._raw: Any = connection
        self._before: Any = None
        self._parser = _Parser(connection)
        self._scheduled = False
        self._full = False

    async def __aenter__(self) -> Self:
        # Between two reads: the old parser has nothing in hand, or what it has is read on by ours.
        self._before = self._raw._ps  # noqa: SLF001
        left = bytes(getattr(self._before, "buf", b""))
        self._raw._ps = self._parser  # noqa: SLF001
        try:
            if left:
                await self._parser.parse(left)
            return await super().__aenter__()
        except BaseException:
            self._raw._ps = self._before  # noqa: SLF001
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            self._flush()
            self._parser.reader.callbacks.clear()
            if self._raw._ps is self._parser and not self._parser.reader.unfinished:  # noqa: SLF001
                self._raw._ps = self._before  # noqa: SLF001

    async def listen(self, subject: str, queue: str, callback: OnMessage) -> NatsSubscription:
        """See `NatsTransport`."""
        subscription = await super().listen(subject, queue, callback)
        self._parser.reader.callbacks[b"%d" % subscription._id] = callback  # noqa: SLF001
        return subscription

    async def subscribe(self, subject: str, callback: OnMessage, *, queue: str = "") -> Subscription:
        """See `Transport`."""
        return _FastSubscription(await super().subscribe(subject, callback, queue=queue), self)

    async def publish(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """See `Transport`."""
        sending = self._post(subject, data, reply, headers)
        if sending is not None:
            await sending

    def _post(self, subject: str, data: bytes, reply: str, headers: Headers | None) -> Awaitable[None] | None:
        nc = self._raw
        status = nc._status  # noqa: SLF001
        if status == NatsClient.CLOSED:
            raise NotConnectedError("not connected to a NATS server: connection closed")
        if " " in subject or "\n" in subject or not subject:
            raise UsageError(f"{subject[:60]!r} is no subject")
        if headers:
            block = headers if isinstance(headers, bytes) else header_block(headers)
            size = len(block) + len(data)
            line = f"HPUB {subject} {reply} {len(block)} {size}\r\n".encode()
            command = b"".join((line, block, data, b"\r\n"))
        else:
            size = len(data)
            command = b"".join((f"PUB {subject} {reply} {size}\r\n".encode(), data, b"\r\n"))
        limit = nc._max_payload  # noqa: SLF001
        if size > limit:
            raise MessageTooLargeError(size, limit)
        if (
            status != NatsClient.CONNECTED
            and not nc.is_connected
            and nc._pending_data_size + size > nc._max_pending_size  # noqa: SLF001
        ):
            raise NotConnectedError("not connected to a NATS server: outbound buffer limit exceeded")
        stats = nc.stats
        stats["out_msgs"] += 1
        stats["out_bytes"] += size
        nc._pending.append(command)  # noqa: SLF001
        nc._pending_data_size += len(command)  # noqa: SLF001
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return self._room() if self._full else None

    async def ping(self, timeout: float) -> None:  # noqa: ASYNC109 - a value of the protocol
        """See `Transport`."""
        self._flush()
        await super().ping(timeout)

    def _flush(self) -> None:
        """Hand what waits to the socket; nats-py and we fill the one buffer, so the order holds."""
        self._scheduled = False
        nc = self._raw
        pending = nc._pending  # noqa: SLF001
        if not pending or not nc.is_connected:
            return
        nc._pending = []  # noqa: SLF001
        nc._pending_data_size = 0  # noqa: SLF001
        try:
            writer = nc._transport._io_writer  # noqa: SLF001
            # One piece: a list of a hundred small ones costs the loop and the system more than it does to join them.
            writer.write(b"".join(pending))
            self._full = writer.transport.get_write_buffer_size() > _HIGH_WATER
        except (OSError, RuntimeError, AttributeError) as err:
            # The socket is gone and nats-py has not seen it yet: it is sent when there is another one.
            _log.debug("writing failed, waiting for the reconnect: %s", err)
            nc._pending = pending + nc._pending  # noqa: SLF001
            nc._pending_data_size = sum(map(len, nc._pending))  # noqa: SLF001

    async def _room(self) -> None:
        self._flush()
        try:
            await self._raw._transport.drain()  # noqa: SLF001
        except (OSError, RuntimeError, AttributeError):
            _log.debug("the socket went while there was no room in it")
        self._full = False


class _FastSubscription:
    def __init__(self, subscription: Any, transport: FastTransport) -> None:
        self._subscription = subscription
        self._transport = transport
        self._sid = b"%d" % subscription.sid

    async def drain(self) -> None:
        self._transport._flush()  # noqa: SLF001
        await self._subscription.drain()
        self._forget()

    async def close(self) -> None:
        self._forget()
        await self._subscription.close()

    def _forget(self) -> None:
        self._transport._parser.reader.callbacks.pop(self._sid, None)  # noqa: SLF001


def unfit(connection: NatsClient) -> str:
    """Say why a connection is not what the fast transport knows; empty when it is."""
    for name, kind in _ATTRIBUTES:
        if not isinstance(getattr(connection, name, None), kind):
            return f"nats-py has no {name} as we know it"
    for name in _METHODS:
        if not asyncio.iscoroutinefunction(getattr(connection, name, None)):
            return f"nats-py has no {name} as we know it"
    transport = connection._transport  # noqa: SLF001
    if not isinstance(transport, TcpTransport) or not hasattr(transport, "_io_writer"):
        return "it is not over TCP"
    parser = connection._ps  # noqa: SLF001
    if isinstance(parser, _Parser):
        return "another fast transport uses the connection"
    if not callable(getattr(parser, "parse", None)) or not callable(getattr(parser, "reset", None)):
        return "nats-py's parser is not as we know it"
    if getattr(parser, "state", 1) != 1:
        return "a message is only half read"
    reader = FrameReader()
    seen: list[Frame] = []
    reader.callbacks[b"7"] = seen.append
    rest = [each for step in range(len(_SAMPLE)) for each in reader.feed(_SAMPLE[step : step + 1])]
    if [(frame.subject, frame.reply, frame.data) for frame in seen] != [("a", "r", b"hi")] or len(rest) != 1:
        return "our reader fails its own test"
    return ""


@asynccontextmanager
async def open_transport(
    connection: NatsClient, *, fast: bool = True, replies: bool = True
) -> AsyncIterator[NatsTransport]:
    """Give the fastest transport that a connection allows, and say so where that is not the fast one.

    Args:
        connection: an open connection, which is left open.
        fast: False for the transport that keeps to nats-py's public API.
        replies: see `NatsTransport`.
    """
    fault = unfit(connection) if fast else ""
    if fault:
        _log.info("using nats-py's own reader and writer, which are slower: %s", fault)
    kind = FastTransport if fast and not fault else NatsTransport
    async with kind(connection, replies=replies) as transport:
        yield transport
