"""Taking items from a queue as a worker does: a test waits for the item instead of looking for it."""

import asyncio
import json

from aj_sdk.jetstream import JetStream
from aj_sdk.transport import Message
from aj_sdk.wire.names import CONSUMER, queue_stream

__all__ = ["take"]


async def take(jetstream: JetStream, queue: str, *, seconds: float = 30.0) -> Message:
    """Take the next item of a queue; it is then in flight, and its headers, body and reply subject can be seen."""
    transport = jetstream.transport
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    inbox = transport.new_subject()
    subscription = await transport.subscribe(inbox, arrived.put_nowait)
    request = {"batch": 1, "expires": round(seconds * 10**9)}
    verb = f"CONSUMER.MSG.NEXT.{queue_stream(queue)}.{CONSUMER}"
    await transport.publish(f"{jetstream.prefix}.{verb}", json.dumps(request).encode(), reply=inbox)
    try:
        async with asyncio.timeout(seconds):
            message = await arrived.get()
    finally:
        await subscription.close()
    assert not (message.headers or {}).get("Status"), f"no item came: {message.headers}"
    return message
