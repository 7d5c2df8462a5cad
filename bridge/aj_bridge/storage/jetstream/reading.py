"""Reading a stream from a sequence to its end, by a consumer that lives only as long.

Batched direct gets are no way through a large stream: for each batch the server counts what is left, and where messages
were overwritten or deleted it goes through all subjects for that, and holds up who writes: 24 ms a batch at a million
(seen with 2.15.1). For a consumer it counts once, when it is made.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from aj_bridge.storage.jetstream.acks import read_ack_subject, read_pending
from aj_sdk.errors import OutcomeUnknownError, StoreError
from aj_sdk.ids import new_id
from aj_sdk.jetstream import JetStream, StoredMessage
from aj_sdk.transport import Message
from aj_sdk.wire.codec import encode_json
from aj_sdk.wire.times import NS_PER_S

__all__ = ["StreamReading", "open_reading"]

_BATCH: Final = 256
_FORGOTTEN_AFTER_S: Final = 30
_PREFIX: Final = "AJ_READ_"


class StreamReading:
    """A stream's messages in their order; `open_reading` makes it.

    Args:
        jetstream: the API of the account.
        stream: the stream.
        consumer: the consumer's name.
        inbox: where its messages go.
    """

    def __init__(self, jetstream: JetStream, stream: str, consumer: str, inbox: str) -> None:
        self._js = jetstream
        self._stream = stream
        self._next = f"{jetstream.prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = inbox
        self._came: list[Message] = []
        self._wanted = 0
        self._over = asyncio.Event()

    def on_message(self, message: Message) -> None:
        """Take a message, or the word that there are no more."""
        if message.reply:
            self._came.append(message)
        if not message.reply or len(self._came) == self._wanted:
            self._over.set()

    async def messages(self) -> AsyncIterator[StoredMessage]:
        """Give what is there, up to what is there when the end is reached.

        Raises:
            OutcomeUnknownError: a batch did not come whole in time; nothing of it was given.
            StoreError: the store failed.
        """
        while True:
            batch = await self._batch()
            for message in batch:
                ref = read_ack_subject(message.reply)
                if ref is not None:
                    yield StoredMessage(message.subject, ref.sequence, message.data, message.headers or {}, "")
            if not batch or not read_pending(batch[-1].reply):
                return

    async def _batch(self) -> list[Message]:
        self._came, self._wanted = [], _BATCH
        self._over.clear()
        request = encode_json({"batch": _BATCH, "no_wait": True})
        await self._js.transport.publish(self._next, request, reply=self._inbox)
        try:
            async with asyncio.timeout(self._js.timeout):
                await self._over.wait()
        except TimeoutError:
            raise OutcomeUnknownError(f"reading {self._stream}") from None
        return self._came


@asynccontextmanager
async def open_reading(jetstream: JetStream, stream: str, start: int) -> AsyncIterator[StreamReading]:
    """Begin to read a stream with what was stored at a sequence or later.

    Raises:
        RefusedError: the server said no.
        OutcomeUnknownError: no answer in time, or no permission.
        StoreError: the store failed.
    """
    name = _PREFIX + new_id()
    config = {
        "name": name,
        "ack_policy": "none",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": max(start, 1),
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _FORGOTTEN_AFTER_S * NS_PER_S,
    }
    inbox = jetstream.transport.new_subject()
    reading = StreamReading(jetstream, stream, name, inbox)
    subscription = await jetstream.transport.subscribe(inbox, reading.on_message)
    try:
        await jetstream.call(
            f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config, "action": "create"}
        )
        try:
            yield reading
        finally:
            with suppress(StoreError):  # it is forgotten when nobody has asked for a while
                await jetstream.call(f"CONSUMER.DELETE.{stream}.{name}")
    finally:
        await subscription.close()
