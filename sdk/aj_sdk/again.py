"""Replies that may not have arrived, because the connection broke around their sending; they are sent once more.

A lost reply costs its task the whole run time of the call. Knows messages and a connection that comes back; knows no
task. Whether a second one is of use is the bridge's business: it takes one reply a call, and counts the others.
"""

import asyncio
import logging
from collections import deque
from typing import Final, NamedTuple

import nats.errors
from nats.aio.client import Client as NatsClient

__all__ = ["Again"]

_KEEP_S: Final = 5.0
"""How long before a break a reply may have been written and not have arrived."""

_MAX_KEPT: Final = 1000
_MAX_BYTES: Final = 8 << 20
_LOOK_EVERY_S: Final = 0.1
_HEARD_S: Final = 0.5
"""Within this time a server that is there says that nobody listens."""

_AT_ONCE: Final = 32
_GIVE_UP_S: Final = 30.0

_LOG: Final = logging.getLogger("aj_sdk")


class _Sent(NamedTuple):
    at: float
    subject: str
    body: bytes
    headers: dict[str, str] | None


class Again:
    """The replies of the last seconds, at most 1000 of them and 8 MiB; the oldest go first.

    Args:
        connection: what they were sent on.
    """

    def __init__(self, connection: NatsClient) -> None:
        self._connection = connection
        self._clock = asyncio.get_running_loop().time
        self._sent: deque[_Sent] = deque()
        self._bytes = 0

    def sent(self, subject: str, body: bytes, headers: dict[str, str] | None) -> None:
        """Remember a reply that was handed to the connection."""
        self._sent.append(_Sent(self._clock(), subject, body, headers))
        self._bytes += len(body)
        while len(self._sent) > _MAX_KEPT or self._bytes > _MAX_BYTES:
            self._drop()

    async def keep(self) -> None:
        """Forget what is old, and send again what a break may have swallowed; until cancelled."""
        reconnects = self._connection.stats["reconnects"]
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                if (now := self._connection.stats["reconnects"]) != reconnects:
                    reconnects = now
                    unsure, self._bytes = list(self._sent), 0
                    self._sent.clear()
                    if unsure:
                        _LOG.info("the connection was lost and is back: %d answers are sent once more", len(unsure))
                        group.create_task(self._send_all(unsure))
                elif self._connection.is_connected:
                    # While there is none they stay: what was sent meanwhile waits in the client's own buffer, and may
                    # come to a server to which the bridge is not connected yet.
                    old = self._clock() - _KEEP_S
                    while self._sent and self._sent[0].at < old:
                        self._drop()

    def _drop(self) -> None:
        self._bytes -= len(self._sent.popleft().body)

    async def _send_all(self, unsure: list[_Sent]) -> None:
        room = asyncio.Semaphore(_AT_ONCE)

        async def send(reply: _Sent) -> None:
            async with room:
                await self._until_heard(reply)

        async with asyncio.TaskGroup() as group:
            for reply in unsure:
                group.create_task(send(reply))

    async def _until_heard(self, reply: _Sent) -> None:
        """Send a reply until somebody listens: the bridge's connection may come back later than ours."""
        give_up = self._clock() + _GIVE_UP_S
        while self._clock() < give_up:
            try:
                await self._connection.request(reply.subject, reply.body, timeout=_HEARD_S, headers=reply.headers)
            except nats.errors.NoRespondersError:
                await asyncio.sleep(_LOOK_EVERY_S)
            except nats.errors.TimeoutError:
                return  # nobody answers a reply; but somebody listened
            except nats.errors.Error as err:
                _LOG.debug("an answer could not be sent once more: %s", err)
                return
            else:
                return
