"""One question that any number may answer: what came until it has been quiet for a while, or the time is over."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aj_sdk.errors import InvalidConfigError
from aj_sdk.queue import Span, span_ns
from aj_sdk.transport import Message, Transport, is_no_responders
from aj_sdk.wire.times import NS_PER_S

__all__ = ["answers", "patience_s"]

_SHARE_OF_SILENCE: Final = 4
"""Who asks has heard all when nobody has answered for so small a part of the time there is."""


def patience_s(timeout: Span) -> float:
    """Return the seconds that a roll call may take.

    Raises:
        InvalidConfigError: it is no length of time, or nothing.
    """
    try:
        seconds = span_ns(timeout) / NS_PER_S
    except ValueError as err:
        raise InvalidConfigError((f"timeout is no length of time: {err}",)) from err
    if seconds <= 0:
        raise InvalidConfigError(("timeout must be more than nothing",))
    return seconds


async def answers(transport: Transport, subject: str, seconds: float) -> AsyncIterator[Message]:
    """Ask on a subject, and give the answers of all who listen.

    Ends when no more came for a quarter of the time, or the time is over.

    Args:
        transport: the connection.
        subject: where they listen.
        seconds: the time.

    Raises:
        StoreError: the connection failed.
    """
    came: asyncio.Queue[Message] = asyncio.Queue()
    inbox = transport.open_inbox(came.put_nowait)
    loop = asyncio.get_running_loop()
    wait_until = end = loop.time() + seconds
    try:
        await transport.publish(subject, reply=inbox.subject)
        while True:
            try:
                async with asyncio.timeout_at(wait_until):
                    message = await came.get()
            except TimeoutError:
                return
            if is_no_responders(message):
                return
            yield message
            wait_until = min(end, loop.time() + seconds / _SHARE_OF_SILENCE)
    finally:
        inbox.close()
