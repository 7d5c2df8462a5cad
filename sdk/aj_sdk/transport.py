"""The one seam between us and a NATS client: publish, request, subscribe, and an inbox for many replies.

Everything above it (store, admin, the bridge's storage and dispatch) speaks `Transport`, so that a faster client can
stand here later. `NatsTransport` is nats-py by its public API.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Container, Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from aj_sdk.errors import MessageTooLargeError, NoRespondersError, NotConnectedError, OutcomeUnknownError
from aj_sdk.wire.frames import read_header_block

__all__ = [
    "Headers",
    "Inbox",
    "Message",
    "NatsTransport",
    "OnInterim",
    "OnMessage",
    "Subscription",
    "Transport",
    "drain",
    "is_no_responders",
    "settle",
]

Headers: TypeAlias = Mapping[str, str] | bytes
"""Names and values, or the block that `wire.frames` has made of them."""

_FLUSH_TIMEOUT_S: Final = 2


class Message(Protocol):
    """A message that came."""

    @property
    def subject(self) -> str:
        """The subject it was published on (for an item of a pull: the stream's subject)."""

    @property
    def reply(self) -> str:
        """Where an answer goes, empty for nowhere."""

    @property
    def data(self) -> bytes:
        """The body."""

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers as they were spelled; `Status` and `Description` for a status of the server."""


OnMessage: TypeAlias = Callable[[Message], None]
OnInterim: TypeAlias = Callable[[Message], float | None]


class Inbox(Protocol):
    """A reply subject that is listened to."""

    @property
    def subject(self) -> str:
        """The reply subject."""

    def close(self) -> None:
        """Stop listening."""


class Subscription(Protocol):
    """A subject that is listened to."""

    async def drain(self) -> None:
        """Take no more, but hand over what has come."""

    async def close(self) -> None:
        """Stop listening at once."""


class Transport(Protocol):
    """What we need of a NATS connection."""

    @property
    def max_payload(self) -> int:
        """The most bytes of headers and body that the server takes in one message."""

    @property
    def reconnects(self) -> int:
        """How often the connection was made anew; a pull of before is not known to the server any more."""

    @property
    def closed(self) -> bool:
        """Whether the connection was closed for good, by its owner or by the server."""

    async def publish(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """Send a message. While the connection is down it is buffered.

        Raises:
            MessageTooLargeError: it is bigger than `max_payload`.
            NotConnectedError: the connection is closed, or its buffer is full.
        """

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Headers | None = None,
        timeout: float,  # noqa: ASYNC109 - one timer a request is cheaper than a scope
        interim: "OnInterim | None" = None,
    ) -> Message:
        """Send a message and wait for its reply.

        Args:
            subject: where.
            data: the body.
            headers: the headers.
            timeout: seconds that the first reply has.
            interim: called at once with each message that comes; it gives the seconds that the next one has, or None
                when this is the reply that is waited for.

        Raises:
            NoRespondersError: nobody listens there.
            OutcomeUnknownError: no reply in time.
            MessageTooLargeError: it is bigger than `max_payload`.
            NotConnectedError: the connection is closed, or its buffer is full.
        """

    async def ping(self, timeout: float) -> None:  # noqa: ASYNC109 - see above
        """Go to the server and back, in order with all other messages of the connection.

        Raises:
            OutcomeUnknownError: no answer within `timeout` seconds.
            NotConnectedError: the connection is down or closed.
        """

    def open_inbox(self, callback: OnMessage) -> Inbox:
        """Listen for any number of replies."""

    async def subscribe(self, subject: str, callback: OnMessage, *, queue: str = "") -> Subscription:
        """Listen on a subject; the callback must return at once."""

    def new_subject(self) -> str:
        """Make a subject of our own, below the connection's inbox prefix."""


def is_no_responders(message: Message) -> bool:
    """Say whether this is the server's word that nobody listens."""
    if message.data:
        return False
    headers = message.headers
    return headers is not None and headers.get("Status") == "503"


async def settle(connection: NatsClient) -> None:
    """Wait until the server has seen all that was sent.

    nats-py 2.16 writes a flush's PING at once, but what was sent before it a turn of the loop later. So the first
    PING may come too early; what it overtook has left before the second one.
    """
    await _round_trip(connection, _FLUSH_TIMEOUT_S)
    await _round_trip(connection, _FLUSH_TIMEOUT_S)


async def _round_trip(connection: NatsClient, seconds: float) -> None:
    """Send a PING and wait for its PONG.

    A flush of nats-py 2.16 that times out, or is cancelled, leaves a cancelled future behind; a PONG that comes for it
    after all raises in the task that reads, and ends it. The connection then hears nothing, and says that it is
    connected, until its own pings find out a minute later (seen: a server that stood still for five seconds). So the
    future is ours, and is never cancelled.

    Raises:
        nats.errors.ConnectionClosedError: the connection was closed, or just broke.
        nats.errors.FlushTimeoutError: no answer in time.
    """
    if connection.is_closed:
        raise nats.errors.ConnectionClosedError
    pong = asyncio.get_running_loop().create_future()
    try:
        await connection._send_ping(pong)  # noqa: SLF001 - see above; nats-py is pinned to its series
    except (OSError, RuntimeError) as err:
        # The socket is closed and nats-py has not seen it yet; uvloop raises the second then.
        raise nats.errors.ConnectionClosedError from err
    await asyncio.wait((pong,), timeout=seconds)
    if not pong.done():
        raise nats.errors.FlushTimeoutError


async def drain(connection: NatsClient, subscription: NatsSubscription) -> None:
    """Take a subscription back without losing what the server sends until it knows.

    nats-py's own drain forgets the subscription when the answer to its PING is there, which is before the server has
    seen the UNSUB that this PING overtook: a request sent in between was dropped in 170 of 200 drains under load, and
    its bridge waited for nothing. None was with an UNSUB of ours ahead, which has no public name.
    """
    await connection._send_unsubscribe(subscription._id)  # noqa: SLF001 - see above; nats-py is pinned to its series
    await settle(connection)
    await subscription.drain()  # type: ignore[no-untyped-call]


class _NatsInbox:
    __slots__ = ("_inboxes", "_token", "subject")

    def __init__(self, subject: str, token: str, inboxes: dict[str, OnMessage]) -> None:
        self.subject = subject
        self._token = token
        self._inboxes = inboxes

    def close(self) -> None:
        self._inboxes.pop(self._token, None)


class _NatsSubscription:
    def __init__(self, connection: NatsClient, subscription: NatsSubscription) -> None:
        self._nc = connection
        self._subscription = subscription

    @property
    def sid(self) -> int:
        return self._subscription._id  # noqa: SLF001 - nats-py is pinned to its series

    async def drain(self) -> None:
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            # Without a server nothing more can come, and a drain would wait for its answer.
            if self._nc.is_connected:
                async with asyncio.timeout(2 * _FLUSH_TIMEOUT_S):
                    await drain(self._nc, self._subscription)
            else:
                await self._subscription.unsubscribe()

    async def close(self) -> None:
        with contextlib.suppress(nats.errors.Error):
            await self._subscription.unsubscribe()


_PENDING_MESSAGES: Final = 1_000_000
_PENDING_BYTES: Final = 512 * 1024 * 1024
_TICK_S: Final = 0.01
_STALL_S: Final = 0.25
_LEAST_FULL: Final = 4096
_NOT_CONNECTED: Final = (
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionDrainingError,
    nats.errors.OutboundBufferLimitError,
)


class _Deadlines:
    """Deadlines of many requests behind one timer: nearly all are answered, and a timer each costs more than a reply.

    Args:
        loop: the event loop.
        waiting: the requests that wait, by their tokens.
        passed: called with the token of each of them whose deadline passed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, waiting: Container[str], passed: Callable[[str], None]) -> None:
        self._loop = loop
        self._waiting = waiting
        self._passed = passed
        self._heap: list[tuple[float, str]] = []
        self._full = _LEAST_FULL
        self._timer: asyncio.Handle | None = None
        # Not asked of the timer: uvloop gives a plain handle, without a time, for one that is due already, as it is
        # where the process stood still just before it was set (seen).
        self._due = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, seconds: float, token: str) -> None:
        """Add a deadline so many seconds from now."""
        when = self._loop.time() + seconds
        heap = self._heap
        if len(heap) >= self._full:
            # A call may have an hour, and is answered in a millisecond: what was answered must not stay that long.
            heap[:] = [entry for entry in heap if entry[1] in self._waiting]
            heapify(heap)
            self._full = max(_LEAST_FULL, 2 * len(heap))
        heappush(heap, (when, token))
        if self._timer is None or when < self._due:
            self._arm()

    def close(self) -> None:
        """Forget them all."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Not sooner than a tick from now: the first of many short deadlines would have the timer set for each.
        self._set(max(self._heap[0][0], self._loop.time() + _TICK_S))

    def _set(self, when: float) -> None:
        self._due = when
        self._timer = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        due, self._timer = self._due, None
        now = self._loop.time()
        if now - due > _STALL_S:
            # We stood still (a frozen process, a blocked loop), and replies may lie in the socket: they come first.
            self._set(now + 5 * _TICK_S)
            return
        while self._heap and self._heap[0][0] <= now:
            self._passed(heappop(self._heap)[1])
        if self._heap:
            self._arm()


class _Interim:
    """A request that takes interim replies; `until` is when the next must come, 0 before the first."""

    __slots__ = ("callback", "until")

    def __init__(self, callback: OnInterim) -> None:
        self.callback = callback
        self.until = 0.0


class NatsTransport:
    """`Transport` on a nats-py connection that somebody else opens and closes.

    One wildcard subscription carries all replies: nats-py's own `request` costs a future, a timer task and a queue
    hop more per call.

    Args:
        connection: the connection.
        replies: whether it is to take replies, to requests and in inboxes. A handler's login may not be allowed to
            listen for any.

    Attributes:
        on_stray: called with each reply that nobody waits for any more: late, or a second one.
    """

    def __init__(self, connection: NatsClient, *, replies: bool = True) -> None:
        self._nc = connection
        self._replies = replies
        self._inboxes: dict[str, OnMessage] = {}
        self._waiters: dict[str, asyncio.Future[Message]] = {}
        self._interim: dict[str, _Interim] = {}
        self.on_stray: OnMessage = lambda _message: None
        self._tokens = count()
        self._prefix = ""
        self._mux: Any = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._deadlines = _Deadlines(self._loop, self._waiters, self._on_timeout)
        self._prefix = self._nc.new_inbox() + "."
        if self._replies:
            self._mux = await self.listen(self._prefix + "*", "", self._on_reply)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mux is not None:
            mux, self._mux = self._mux, None
            with contextlib.suppress(nats.errors.Error):
                await mux.unsubscribe()
        self._inboxes.clear()
        self._deadlines.close()
        for reply in self._waiters.values():
            if not reply.done():
                reply.set_exception(NotConnectedError("the transport was closed"))

    @property
    def max_payload(self) -> int:
        """See `Transport`."""
        return self._nc.max_payload

    @property
    def reconnects(self) -> int:
        """See `Transport`."""
        return self._nc.stats["reconnects"]

    @property
    def closed(self) -> bool:
        """See `Transport`."""
        return self._nc.is_closed

    def new_subject(self) -> str:
        """See `Transport`."""
        return self._nc.new_inbox()

    def _on_reply(self, message: Message) -> None:
        token = message.subject[len(self._prefix) :]
        reply = self._waiters.get(token)
        if reply is not None:
            if reply.done():
                self.on_stray(message)
                return
            waiting = self._interim.get(token) if self._interim else None
            if waiting is not None:
                seconds = waiting.callback(message)
                if seconds is not None:
                    waiting.until = self._loop.time() + seconds
                    self._deadlines.add(seconds, token)
                    return
            reply.set_result(message)
        else:
            callback = self._inboxes.get(token)
            if callback is not None:
                callback(message)
            else:
                self.on_stray(message)

    async def publish(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """See `Transport`."""
        if isinstance(headers, bytes):
            headers = read_header_block(headers)
        limit = self._nc.max_payload
        if len(data) > limit // 2:
            # nats-py does not count the headers, and the server closes the connection over a message too large (seen).
            size = len(data) + _header_bytes(headers)
            if size > limit:
                raise MessageTooLargeError(size, limit)
        try:
            # nats-py only reads the headers; none must be None, or it writes an empty block.
            await self._nc.publish(subject, data, reply, headers or None)  # type: ignore[arg-type]
        except _NOT_CONNECTED as err:
            raise _not_connected(err) from err

    def _post(self, subject: str, data: bytes, reply: str, headers: Headers | None) -> Awaitable[None] | None:
        """Send a message; what is returned, if anything, is to be awaited before the next one."""
        return self.publish(subject, data, reply=reply, headers=headers)

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Headers | None = None,
        timeout: float,  # noqa: ASYNC109 - a value of the protocol
        interim: OnInterim | None = None,
    ) -> Message:
        """See `Transport`."""
        token = str(next(self._tokens))
        reply: asyncio.Future[Message] = self._loop.create_future()
        self._waiters[token] = reply
        if interim is not None:
            self._interim[token] = _Interim(interim)
        self._deadlines.add(timeout, token)
        try:
            sending = self._post(subject, data, self._prefix + token, headers)
            if sending is not None:
                await sending
            message = await reply
        except OutcomeUnknownError:
            raise OutcomeUnknownError(f"request to {subject}") from None
        finally:
            self._waiters.pop(token, None)
            if interim is not None:
                self._interim.pop(token, None)
        if is_no_responders(message):
            raise NoRespondersError(subject)
        return message

    def _on_timeout(self, token: str) -> None:
        reply = self._waiters.get(token)
        if reply is None or reply.done():
            return
        waiting = self._interim.get(token)
        if waiting is not None and waiting.until > self._loop.time():
            return  # an interim reply gave it more time, and a deadline of its own
        reply.set_exception(OutcomeUnknownError("request"))

    async def ping(self, timeout: float) -> None:  # noqa: ASYNC109 - see above
        """See `Transport`."""
        if not self._nc.is_connected:
            raise NotConnectedError("not connected to a NATS server")
        try:
            await _round_trip(self._nc, timeout)
        except nats.errors.TimeoutError:
            if not self._nc.is_connected:
                raise NotConnectedError("not connected to a NATS server") from None
            raise OutcomeUnknownError("ping") from None
        except nats.errors.Error as err:
            raise NotConnectedError(f"not connected to a NATS server: {err}") from err

    def open_inbox(self, callback: OnMessage) -> Inbox:
        """See `Transport`."""
        token = str(next(self._tokens))
        self._inboxes[token] = callback
        return _NatsInbox(self._prefix + token, token, self._inboxes)

    async def subscribe(self, subject: str, callback: OnMessage, *, queue: str = "") -> Subscription:
        """See `Transport`."""
        return _NatsSubscription(self._nc, await self.listen(subject, queue, callback))

    async def listen(self, subject: str, queue: str, callback: OnMessage) -> NatsSubscription:
        """Listen as `subscribe` does, for one who takes the subscription back by nats-py's own means.

        Raises:
            NotConnectedError: the connection is closed.
        """

        async def on_message(message: Msg) -> None:
            callback(message)

        try:
            return await self._nc.subscribe(
                subject,
                queue=queue,
                cb=on_message,
                pending_msgs_limit=_PENDING_MESSAGES,
                pending_bytes_limit=_PENDING_BYTES,
            )
        except _NOT_CONNECTED as err:
            raise _not_connected(err) from err


def _header_bytes(headers: Mapping[str, str] | None) -> int:
    if not headers:
        return 0
    # The version line, then `name: value`, each line and the block ended by CR LF.
    return 12 + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())


def _not_connected(err: Exception) -> NotConnectedError:
    return NotConnectedError(f"not connected to a NATS server: {str(err).removeprefix('nats: ')}")
