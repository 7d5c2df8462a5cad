"""A TCP proxy between one client and the server that delays, drops one way, resets, and swallows chosen messages.

It reads the NATS protocol as far as it must to swallow whole messages and no halves: a stream with a part missing would
be an error of the protocol, not a lost message.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, Self

__all__ = ["Proxy", "Way", "frames"]

_CHUNK: Final = 65_536
_PAYLOAD: Final = re.compile(rb"(PUB|HPUB|MSG|HMSG) ", re.IGNORECASE)

Swallow = Callable[["Way", bytes], bool]


class Way(Enum):
    """The direction of what passes."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


class Proxy:
    """Listens on a port of its own while inside its context.

    Args:
        host: of the server.
        port: of the server.

    Attributes:
        delay_s: how long each piece is held back.
        silent: the directions in which nothing passes; what comes is dropped, and the connection must be reset in the
            end, as a real one would be.
        swallow: says of a whole message whether it is lost; None where none is.
        refusing: whether new connections are closed at once.
        swallowed: how many messages were lost.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server_at = (host, port)
        self.delay_s = 0.0
        self.silent: set[Way] = set()
        self.swallow: Swallow | None = None
        self.refusing = False
        self.swallowed = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self.reset()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    def reset(self) -> None:
        """Break all connections off, as a reset does."""
        for writer in list(self._writers):
            # With no time to linger the other side is told of a reset, not of an end.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def heal(self) -> None:
        """Let all pass again. A connection that lost something is reset."""
        broken = bool(self.silent)
        self.delay_s, self.swallow, self.refusing = 0.0, None, False
        self.silent = set()
        if broken:
            self.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self.refusing:
                return
            with contextlib.suppress(OSError):
                server_reader, server_writer = await asyncio.open_connection(*self._server_at)
                self._writers |= {writer, server_writer}
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._pass_on(Way.TO_SERVER, reader, server_writer))
                        group.create_task(self._pass_on(Way.TO_CLIENT, server_reader, writer))
                except* (OSError, EOFError):
                    pass
                finally:
                    self._writers -= {writer, server_writer}
                    server_writer.transport.abort()
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _pass_on(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rest = b""
        while True:
            piece = await reader.read(_CHUNK)
            if not piece:
                raise EOFError
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if way in self.silent:
                continue
            rest += piece
            passing = bytearray()
            for frame in frames(rest):
                rest = rest[len(frame) :]
                if self.swallow is not None and self.swallow(way, frame):
                    self.swallowed += 1
                else:
                    passing += frame
            writer.write(bytes(passing))
            await writer.drain()


def frames(data: bytes) -> Iterator[bytes]:
    """Give the whole protocol messages at the beginning of what was read, with their payloads."""
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        end += 2
        if _PAYLOAD.match(data, at):
            size = int(data[at : end - 2].split()[-1])
            end += size + 2
            if end > len(data):
                return
        yield data[at:end]
        at = end
