"""The stand on which a responder is tried: a server, a connection, the responder's processes, and what was said.

Knows how to ask and to wait; what an answer should be is the cases' business.
"""

import asyncio
import contextlib
import json
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Self

import nats
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from aj_bridge.faces.conformance.frames import Answer, Frame, Request, request
from aj_bridge.faces.conformance.processes import ResponderProcess
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.errors import NotConnectedError
from aj_sdk.wire.headers import find_header
from aj_sdk.wire.names import H_PROGRESS, HANDLER_QUEUE_GROUP, handler_subject

__all__ = ["Gone", "Inbox", "Stand"]

_HOST: Final = "127.0.0.1"
_POLL_S: Final = 0.03
_NO_RESPONDERS: Final = "503"


class Gone(Exception):  # noqa: N818 - a verdict on a responder, not an error of ours
    """The responder does not listen, or has ended.

    Args:
        text: what is wrong.
    """


class Inbox:
    """Where the replies of one or more requests come."""

    def __init__(self, stand: "Stand", subject: str) -> None:
        self._stand = stand
        self.subject = subject
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()

    async def take(self, message: Msg) -> None:
        """Remember a reply."""
        frame = self._stand.note(sent=False, subject=message.subject, headers=message.headers, body=message.data)
        self.frames.put_nowait(frame)

    async def next(self, seconds: float) -> Frame | None:
        """Return the next reply; None when none comes in time.

        Raises:
            Gone: the server says that nobody listens.
        """
        try:
            async with asyncio.timeout(seconds):
                frame = await self.frames.get()
        except TimeoutError:
            return None
        if frame.headers.get("Status") == _NO_RESPONDERS:
            raise Gone("nobody listens on the subject")
        return frame

    async def answer(self, seconds: float) -> Answer:
        """Return all that comes up to the last reply of one request."""
        began = time.monotonic()
        interim = []
        while True:
            frame = await self.next(began + seconds - time.monotonic())
            if frame is not None and find_header(frame.headers, H_PROGRESS) is not None:
                interim.append(frame)
                continue
            return Answer(final=frame, interim=tuple(interim), took=time.monotonic() - began)


class Stand:
    """See the module.

    Args:
        command: starts the responder.
        task_type: the type that it is started with.
        patience: a factor on all waiting, for slow machines.
        start_s: seconds that the responder has until it answers.
    """

    def __init__(self, command: Sequence[str], task_type: str, *, patience: float = 1.0, start_s: float = 30.0) -> None:
        self.command = tuple(command)
        self.type = task_type
        self.patience = patience
        self.start_s = start_s * patience
        self.frames: list[Frame] = []
        self.processes: list[ResponderProcess] = []
        self.nc: NatsClient
        self.server: EmbeddedServer
        self._began = time.monotonic()
        self._shared: ResponderProcess | None = None
        self._listened = False
        self._hopeless = ""
        self._inboxes = 0
        self._monitor = 0

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            with socket.create_server((_HOST, 0)) as free:
                self._monitor = free.getsockname()[1]
            config = {"http": f"{_HOST}:{self._monitor}"}
            self.server = await stack.enter_async_context(EmbeddedServer(config=config, sync_always=False))
            self.nc = await nats.connect(
                self.server.url, reconnect_time_wait=0.1, max_reconnect_attempts=-1, error_cb=_ignore
            )
            stack.push_async_callback(self.nc.close)
            stack.push_async_callback(self._stop_all)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def begin(self) -> None:
        """Begin a case: forget what was said in the one before."""
        self.frames = []
        self._began = time.monotonic()

    async def end(self) -> None:
        """End a case: whatever it started beside the usual responder goes."""
        others, self.processes = self.processes, []
        await asyncio.gather(*(process.close() for process in others if process is not self._shared))
        if self._shared is not None:
            self.processes = [self._shared]

    @property
    def said(self) -> list[str]:
        """What the running responders printed last."""
        return [line for process in self.processes for line in process.said]

    # Processes.

    async def shared(self) -> str:
        """Return the subject of the usual responder, which is started when there is none."""
        if self._shared is None or self._shared.code is not None:
            self._shared = await self.start(self.type)
        return self._shared.subject

    async def start(
        self, task_type: str, *, queue_group: str = HANDLER_QUEUE_GROUP, beside: int = 0
    ) -> ResponderProcess:
        """Start a responder, and wait until it listens.

        Args:
            task_type: the type, prefix or empty text that it is for.
            queue_group: the group that it joins.
            beside: how many responders listen on the subject already.

        Raises:
            Gone: it ends, or does not listen in time; at once where none has ever listened, so that a run that is
                lost ends soon.
            UsageError: it can't be started.
        """
        if self._hopeless:
            raise Gone(self._hopeless)
        try:
            process = await self._start(task_type, queue_group, beside)
        except Gone as gone:
            self._hopeless = "" if self._listened else str(gone)
            raise
        self._listened = True
        return process

    async def _start(self, task_type: str, queue_group: str, beside: int) -> ResponderProcess:
        subject = handler_subject(task_type)
        environment = {
            "NATS_URL": self.server.url,
            "AJ_TYPE": task_type,
            "AJ_SUBJECT": subject,
            "AJ_QUEUE_GROUP": queue_group,
        }
        process = await ResponderProcess.start(self.command, subject, environment)
        self.processes.append(process)
        deadline = time.monotonic() + self.start_s
        while await self.listeners(subject) <= beside:
            if process.code is not None:
                raise Gone(f"the responder ended with {process.code} before it listened")
            if time.monotonic() > deadline:
                raise Gone(f"nobody listens on {subject} {self.start_s:g} s after the responder was started")
            await asyncio.sleep(_POLL_S)
        return process

    async def _stop_all(self) -> None:
        await asyncio.gather(*(process.close() for process in self.processes))

    # Messages.

    def note(self, *, sent: bool, subject: str, headers: Mapping[str, str] | None, body: bytes) -> Frame:
        """Remember a frame."""
        at = time.monotonic() - self._began
        frame = Frame(at=at, sent=sent, subject=subject, headers=dict(headers or {}), body=body)
        self.frames.append(frame)
        return frame

    @contextlib.asynccontextmanager
    async def inbox(self) -> AsyncIterator[Inbox]:
        """Give a place for replies."""
        self._inboxes += 1
        inbox = Inbox(self, f"{self.nc.new_inbox()}.{self._inboxes}")
        subscription = await self.nc.subscribe(inbox.subject, cb=inbox.take)
        try:
            yield inbox
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def send(self, subject: str, message: Request, inbox: Inbox) -> None:
        """Send a request."""
        self.note(sent=True, subject=subject, headers=message.headers, body=message.body)
        await self.nc.publish(subject, message.body, inbox.subject, message.headers)

    async def ask(self, message: Request, *, subject: str = "", seconds: float = 10.0) -> Answer:
        """Send a request to a subject, or to the usual responder, and return what came back.

        Raises:
            Gone: nobody listens.
        """
        subject = subject or await self.shared()
        async with self.inbox() as inbox:
            await self.send(subject, message, inbox)
            return await inbox.answer(seconds * self.patience)

    async def order(self, do: str, *, seconds: float = 10.0, subject: str = "", **how: Any) -> Answer:
        """Ask for an outcome.

        Args:
            do: the order; `error`, `ms`, `every_ms`, `steps` and `bytes` go with it.
            seconds: how long to wait for the last reply.
            subject: where to; empty for the usual responder.
            how: what `request` takes.
        """
        order = {"do": do} | {key: how.pop(key) for key in ("error", "ms", "every_ms", "steps", "bytes") if key in how}
        message = request(how.pop("task_type", self.type), json.dumps(order, ensure_ascii=False).encode(), **how)
        return await self.ask(message, subject=subject, seconds=seconds)

    # The server.

    async def listeners(self, subject: str) -> int:
        """Count the subscriptions that a message on the subject would reach, groups and their members one by one."""

        def look() -> int:
            url = f"http://{_HOST}:{self._monitor}/subsz?subs=1&limit=100&test={urllib.parse.quote(subject)}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return len(json.load(answer).get("subscriptions_list") or ())

        try:
            return await asyncio.to_thread(look)
        except OSError as err:
            raise NotConnectedError(f"the embedded server does not answer: {err}") from err

    async def until_listeners(self, subject: str, number: int, seconds: float) -> bool:
        """Wait until so many listen; False when it does not come to that in time."""
        deadline = time.monotonic() + seconds * self.patience
        while await self.listeners(subject) != number:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True


async def _ignore(_: Exception) -> None:
    """Keep nats-py from logging that a server which a case restarted is gone."""
