"""The work items of a queue: pulls as large as the demand, statuses, lost pulls, acknowledgements.

A pull asks for no more items than can be started: prefetched ones would be locked for a whole lease when the bridge
dies. Pull requests are not replayed on a reconnect (nats.py #504), so a pull that shows no sign of life for two
heartbeats, or of before a reconnect, is asked again, on a new reply subject.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Final

from aj_bridge.core.claim import Claim
from aj_bridge.storage.jetstream.acks import ACK, NAK, PROGRESS, read_ack_subject, read_deleted, read_pending, term
from aj_sdk.errors import StoreError
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.transport import Message, Subscription
from aj_sdk.wire.codec import encode_json
from aj_sdk.wire.item import read_due
from aj_sdk.wire.names import CONSUMER, H_SILENT, queue_stream, task_id_of_subject
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.times import NS_PER_S

__all__ = ["PULL_S", "SHORT_PULL_S", "JetStreamItems"]

_log = logging.getLogger(__name__)

PULL_S: Final = 30.0
"""How long a pull waits on the server."""

SHORT_PULL_S: Final = 4.0
"""How long it waits where several queues share a bridge."""

_HEARTBEAT_S: Final = 5.0
_SILENCE_S: Final = 2 * _HEARTBEAT_S
_ADVISORIES: Final = "ADVISORY.CONSUMER.MSG_TERMINATED"
_TICK_S: Final = 0.5
_BACKOFF_S: Final = 1.0
_RENEW_TIMEOUT_S: Final = 2.0


class JetStreamItems:
    """`Items` of a queue in JetStream.

    Args:
        jetstream: the API of the account.
        settings: the queue's settings.
        ack_wait_ns: the consumer's AckWait.
        earliest: when, at the earliest, the server can have sent what comes now (`Pulse.since`).
        polled: called for each request for work, and with False when one failed.
        pull_s: seconds that a request for work waits on the server.

    Attributes:
        settings: the queue's settings; whoever reads them anew sets them.
        ack_wait_ns: the consumer's AckWait; the same.
    """

    def __init__(
        self,
        jetstream: JetStream,
        settings: QueueSettings,
        ack_wait_ns: int,
        earliest: Callable[[], float],
        polled: Callable[[bool], None],
        *,
        pull_s: float = PULL_S,
    ) -> None:
        self.settings = settings
        self.ack_wait_ns = ack_wait_ns
        self._earliest = earliest
        self._polled = polled
        self._transport = jetstream.transport
        self._store = Store(jetstream)
        self._event_prefix = jetstream.event_prefix
        self._next = f"{jetstream.prefix}.CONSUMER.MSG.NEXT.{queue_stream(settings.name)}.{CONSUMER}"
        self._subject_prefix = f"CHORIA_AJ.Q.{settings.name}."
        self._free = 0
        self._pulls: dict[str, int] = {}
        self._numbers = count()
        self._request = {"expires": int(pull_s * NS_PER_S)}
        if pull_s > _SILENCE_S:
            # A shorter one shows by its end that the server is there.
            self._request["idle_heartbeat"] = int(_HEARTBEAT_S * NS_PER_S)
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._ready: deque[Claim] = deque()
        self._wake = asyncio.Event()
        self._last_frame = 0.0
        self._last_item: str | None = None
        self._complaint = ""
        self._reconnects = 0
        self._blocked_until = 0.0

    async def open(self) -> None:
        """Listen for deliveries."""
        self._inbox = self._transport.new_subject()
        self._subscription = await self._transport.subscribe(self._inbox + ".*", self._on_message)
        self._reconnects = self._transport.reconnects

    async def close(self) -> list[Claim]:
        """Stop listening, and return what came and was not taken.

        What the server hands out after this finds no listener, and comes again.
        """
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.drain()
        claims = list(self._ready)
        self._ready.clear()
        return claims

    async def take_back(self) -> None:
        """See `Items`.

        The server drops a pull that nobody listens for any more.
        """
        old = self._subscription
        self._pulls.clear()
        if old is not None:
            await self.open()
            await old.drain()

    def forget_pulls(self) -> None:
        """Count no pull as outstanding, for one who knows that none waits on the server.

        A server that dies takes along the pulls of those who are connected to another one, and tells nobody. What was
        on its way when it was looked at may so be asked for twice, and then waits in hand for a little.
        """
        if self._pulls:
            self._pulls.clear()
            self._wake.set()

    @property
    def more(self) -> bool:
        """See `Items`."""
        return self._last_item is None or read_pending(self._last_item) > 0

    @property
    def asked(self) -> int:
        """See `Items`."""
        return sum(self._pulls.values())

    def want(self, free: int) -> None:
        """See `Items`."""
        self._free = free
        if self._missing():
            self._wake.set()

    async def next(self) -> list[Claim]:
        """See `Items`; asks for more while it waits."""
        loop = asyncio.get_running_loop()
        while not self._ready:
            self._wake.clear()  # before the pull, during which items may come
            await self._pull()
            timer = loop.call_later(_TICK_S, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
        claims = list(self._ready)
        self._ready.clear()
        self._free -= len(claims)
        return claims

    def _missing(self) -> int:
        # A pull for each free slot would cost more than the slots that wait for the next one.
        outstanding = sum(self._pulls.values())
        missing = self._free - outstanding - len(self._ready)
        return 0 if missing <= 0 or (outstanding and missing < self._free // 8) else missing

    async def _pull(self) -> None:
        now = time.monotonic()
        if self._transport.reconnects != self._reconnects:
            self._reconnects = self._transport.reconnects
            self._pulls.clear()
        elif self._pulls and now - self._last_frame > _SILENCE_S:
            _log.warning("queue %s: no sign of life of %d pulls, asking again", self.settings.name, len(self._pulls))
            self._polled(False)
            self._pulls.clear()
        missing = self._missing()
        if not missing or now < self._blocked_until:
            return
        token = str(next(self._numbers))
        self._pulls[token] = missing
        self._last_frame = now
        self._polled(True)
        request = encode_json({"batch": missing, **self._request})
        try:
            await self._transport.publish(self._next, request, reply=f"{self._inbox}.{token}")
        except StoreError as err:
            self._fail(token, str(err))

    def _on_message(self, message: Message) -> None:
        self._last_frame = time.monotonic()
        if not message.reply:
            self._on_status(message)
            return
        item = read_ack_subject(message.reply)
        if item is None:
            _log.warning("queue %s: a message that no consumer sent on %s", self.settings.name, message.subject)
            return
        self._last_item = message.reply
        self._complaint = ""
        # The oldest pull is served first.
        for token, left in self._pulls.items():
            if left > 1:
                self._pulls[token] = left - 1
            else:
                del self._pulls[token]
            break
        # These headers are the server's and ours, always spelled this way.
        headers = message.headers or {}
        self._ready.append(
            Claim(
                queue=self.settings.name,
                task_id=self._task_id(message.subject),
                body=message.data,
                item=item,
                received=self._earliest(),
                token=message.reply,
                fired="Nats-Scheduler" in headers,
                silent=headers.get(H_SILENT, ""),
                due_ns=read_due(headers),
            )
        )
        self._wake.set()

    def _task_id(self, subject: str) -> str:
        # An item of more tokens than one below its queue names no task: no body agrees with it, so it is refused.
        if subject.startswith(self._subject_prefix):
            return subject[len(self._subject_prefix) :]
        return task_id_of_subject(subject)

    def _on_status(self, message: Message) -> None:
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == "100":
            return
        token = message.subject.rpartition(".")[2]
        if status in ("404", "408") or headers.get("Description") == "Message Size Exceeds MaxBytes":
            if self._pulls.pop(token, None) is not None:
                self._last_item = self._complaint = ""  # it had no more for us
            self._wake.set()
            return
        self._fail(token, headers.get("Description") or ("no such queue" if status == "503" else f"status {status}"))

    def _fail(self, token: str, reason: str) -> None:
        self._pulls.pop(token, None)
        self._polled(False)
        self._blocked_until = time.monotonic() + _BACKOFF_S
        if reason != self._complaint:
            # Each second the same would hide what else there is to say.
            self._complaint = reason
            _log.warning("queue %s: asking for work failed: %s", self.settings.name, reason)

    async def ack(self, claim: Claim) -> None:
        """See `Items`."""
        await self._transport.publish(claim.token, ACK)

    async def ack_surely(self, claim: Claim) -> None:
        """See `Items`."""
        await self._transport.request(claim.token, ACK, timeout=_RENEW_TIMEOUT_S)

    async def renew(self, claim: Claim) -> None:
        """See `Items`."""
        await self._transport.request(claim.token, PROGRESS, timeout=_RENEW_TIMEOUT_S)

    async def give_back(self, claim: Claim) -> None:
        """See `Items`."""
        await self._transport.publish(claim.token, NAK)

    async def discard(self, claim: Claim, reason: str) -> None:
        """See `Items`."""
        await self._transport.publish(claim.token, term(reason))

    @contextlib.asynccontextmanager
    async def watch_dropped(self, callback: Callable[[int], None]) -> AsyncIterator[None]:
        """See `Items`."""

        def on_advisory(message: Message) -> None:
            sequence = read_deleted(message.data)
            if sequence is not None:
                callback(sequence)

        subject = f"{self._event_prefix}.{_ADVISORIES}.{queue_stream(self.settings.name)}.{CONSUMER}"
        subscription = await self._transport.subscribe(subject, on_advisory)
        try:
            yield
        finally:
            await subscription.close()

    async def put_back(self, claim: Claim) -> bool:
        """See `Items`."""
        return await self._store.publish_item(claim.queue, claim.task_id)
