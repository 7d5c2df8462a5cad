"""Reading a stream on and on, by a consumer of one's own.

Batched direct gets are no way through a large stream: for each batch the server counts what is left, and where messages
were overwritten or deleted it goes through all subjects for that, and holds up who writes: 24 ms a batch at a million
(seen with 2.15.1). For a consumer it counts once, when it is made, and not at all if that begins with the first
message; another takes 80 ms at a million. So it is kept, and read on from where it stands.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, Self

from aj_bridge.storage.jetstream.acks import read_ack_subject, read_pending
from aj_sdk.errors import OutcomeUnknownError, StoreError
from aj_sdk.ids import new_id
from aj_sdk.jetstream import JetStream, StoredMessage
from aj_sdk.transport import Message, Subscription
from aj_sdk.wire.codec import encode_json
from aj_sdk.wire.times import NS_PER_S

__all__ = ["StreamReading"]

_BATCH: Final = 256
_FORGOTTEN_AFTER_S: Final = 300
_NO_MORE: Final = frozenset({"404", "408"})
_PREFIX: Final = "AJ_READ_"


class StreamReading:
    """A stream's messages in their order; `open` makes it, `close` ends it.

    Args:
        jetstream: the API of the account.
        stream: the stream.
        start: the sequence to begin with.

    Attributes:
        position: the sequence after the last message that was given.
    """

    def __init__(self, jetstream: JetStream, stream: str, start: int) -> None:
        self.position = max(start, 1)
        self._js = jetstream
        self._stream = stream
        self._consumer = _PREFIX + new_id()
        self._next = f"{jetstream.prefix}.CONSUMER.MSG.NEXT.{stream}.{self._consumer}"
        self._inbox = jetstream.transport.new_subject()
        self._subscription: Subscription | None = None
        self._came: deque[Message] = deque()
        self._lost = False
        self._over = asyncio.Event()

    @classmethod
    async def open(cls, jetstream: JetStream, stream: str, start: int) -> Self:
        """Begin with what was stored at a sequence or later.

        Raises:
            RefusedError: the server said no.
            OutcomeUnknownError: no answer in time, or no permission.
            StoreError: the store failed.
        """
        reading = cls(jetstream, stream, start)
        config = {
            "name": reading._consumer,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": reading.position,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _FORGOTTEN_AFTER_S * NS_PER_S,
        }
        reading._subscription = await jetstream.transport.subscribe(reading._inbox, reading._on_message)
        try:
            request = {"stream_name": stream, "config": config, "action": "create"}
            await jetstream.call(f"CONSUMER.CREATE.{stream}.{reading._consumer}", request)
        except BaseException:
            await reading._subscription.close()
            raise
        return reading

    async def close(self) -> None:
        """End it; where that can't be told, the server forgets it when nobody has asked for a while."""
        with suppress(StoreError):
            await self._js.call(f"CONSUMER.DELETE.{self._stream}.{self._consumer}")
        if self._subscription is not None:
            await self._subscription.close()

    async def messages(self, end: int) -> AsyncIterator[StoredMessage]:
        """Give what is there and was stored at a sequence or before, from `position` on.

        Raises:
            OutcomeUnknownError: the consumer is gone, or a batch did not come whole in time; nothing of it was given.
            StoreError: the store failed.
        """
        more = True
        while more or self._came:
            if not self._came:
                await self._fetch()
                if not self._came:
                    return
            message = self._came[0]
            ref = read_ack_subject(message.reply)
            if ref is None or ref.sequence > end:
                return
            self._came.popleft()
            more = read_pending(message.reply) > 0
            self.position = ref.sequence + 1
            yield StoredMessage(message.subject, ref.sequence, message.data, message.headers or {}, "")

    async def _fetch(self) -> None:
        self._over.clear()
        request = encode_json({"batch": _BATCH, "no_wait": True})
        await self._js.transport.publish(self._next, request, reply=self._inbox)
        try:
            async with asyncio.timeout(self._js.timeout):
                await self._over.wait()
        except TimeoutError:
            self._lost = True
        if self._lost:
            self._came.clear()
            raise OutcomeUnknownError(f"reading {self._stream}")

    def _on_message(self, message: Message) -> None:
        if message.reply:
            self._came.append(message)
            if len(self._came) == _BATCH:
                self._over.set()
        else:
            self._lost = self._lost or (message.headers or {}).get("Status") not in _NO_MORE
            self._over.set()
