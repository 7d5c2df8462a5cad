"""What a supervisor and one of its worker processes say to each other, over a pair of sockets.

The worker inherits its end and finds its number in the environment. The supervisor says who the worker is, then asks;
the worker answers, and tells of itself. When the supervisor is gone, however it went, the worker reads the end.

Supervisor to worker: a line of JSON (`Hello`), then lines `<number> <question>`. Worker to supervisor:
`<number> <length>` and a body of so many bytes; number 0 is a word of its own (`Word`).
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Final, Self

import msgspec

from aj_bridge.faces.monitor import Watched

__all__ = ["ENV", "Hello", "Question", "SupervisorEnd", "Word", "WorkerEnd"]

ENV: Final = "AJ_WORKER_FD"
"""Environment variable with the descriptor of the worker's end."""

_HELLO_TIMEOUT_S: Final = 10.0
_MAX_BODY: Final = 64 << 20


class Hello(msgspec.Struct, frozen=True):
    """Who a worker is: its number from 1, of how many, and the server where the supervisor runs one."""

    number: int
    of: int
    server: str = ""


class Question(StrEnum):
    """What a supervisor asks."""

    METRICS = "metrics"
    FAULT = "fault"


class Word(StrEnum):
    """What a worker tells."""

    READY = "ready"
    DRAINED = "drained"


class WorkerEnd:
    """The worker's end; `open` makes it."""

    def __init__(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hello = hello
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, environ: MutableMapping[str, str]) -> Self | None:
        """Take the end that a supervisor left; None where there is none. Programs that we start do not see it."""
        number = environ.pop(ENV, "")
        if not number:
            return None
        end = socket.socket(fileno=int(number))
        os.set_inheritable(end.fileno(), False)
        reader, writer = await asyncio.open_connection(sock=end)
        async with asyncio.timeout(_HELLO_TIMEOUT_S):
            return cls(msgspec.json.decode(await reader.readline(), type=Hello), reader, writer)

    def tell(self, word: Word) -> None:
        """Tell a word of our own."""
        self._answer(0, word.encode())

    async def serve(self, watched: Watched) -> None:
        """Answer questions; returns when the supervisor is gone."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                number, _, question = line.decode().strip().partition(" ")
                if question == Question.METRICS:
                    self._answer(int(number), await watched.exposition())
                else:
                    self._answer(int(number), (await watched.fault() or "").encode())

    async def close(self) -> None:
        """Let go of it, once all is written."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()
        self._writer.close()

    def _answer(self, number: int, body: bytes) -> None:
        self._writer.write(b"%d %d\n" % (number, len(body)) + body)


class SupervisorEnd:
    """The supervisor's end.

    Args:
        ours: the socket.
        hello: what to tell the worker first.
    """

    def __init__(self, ours: socket.socket, hello: Hello) -> None:
        self._socket = ours
        self._hello = hello
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self.words: set[Word] = set()
        self.ready = asyncio.Event()

    async def read(self) -> None:
        """Take what the worker says; returns when it has ended."""
        reader, self._writer = await asyncio.open_connection(sock=self._socket)
        self._writer.write(msgspec.json.encode(self._hello) + b"\n")
        try:
            while head := await reader.readline():
                number, length = map(int, head.split())
                if length > _MAX_BODY:
                    return
                self._take(number, await reader.readexactly(length))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it died at it
        finally:
            self._writer.close()
            for answer in self._asked.values():
                answer.cancel()

    async def ask(self, question: Question, timeout_s: float) -> bytes | None:
        """Ask the worker; None when it does not answer in time."""
        if self._writer is None or self._writer.is_closing():
            return None
        self._number += 1
        number, answer = self._number, asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._writer.write(b"%d %s\n" % (number, question.encode()))
        try:
            done, _ = await asyncio.wait({answer}, timeout=timeout_s)
            return answer.result() if done and not answer.cancelled() else None
        finally:
            del self._asked[number]

    def _take(self, number: int, body: bytes) -> None:
        if number == 0:
            self.words.add(Word(body.decode()))
            if body == Word.READY.encode():
                self.ready.set()
        elif (answer := self._asked.get(number)) is not None and not answer.done():
            answer.set_result(body)
