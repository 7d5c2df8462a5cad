"""Signs of life: interim replies of the calls in hand, sent for coroutines, and when a handler asks for it.

One timer for all calls: most end before their first sign is due, and one each would cost them more than their reply.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import nats.errors

from aj_sdk.handling import Task
from aj_sdk.wire.interim import Interim, interim_reply

__all__ = ["Signs"]

_LOG: Final = logging.getLogger("aj_sdk")

_TICK_S: Final = 0.05
_PER_INTERVAL: Final = 2
"""Signs within the time in which the bridge expects one, so that one that is late is no missed one."""

Publish = Callable[[str, bytes, dict[str, str]], Awaitable[None]]


class _Sign:
    __slots__ = ("interval", "loop", "next", "over", "publish", "reply", "sending")

    def __init__(self, reply: str, interval: float, publish: Publish, sending: set[asyncio.Task[None]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.reply = reply
        self.interval = interval
        self.publish = publish
        self.sending = sending
        self.next = self.loop.time() + interval
        self.over = False

    def send(self, interim: Interim) -> None:
        """Send from any thread; what is asked for after the end is not sent."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            self.now(interim)
        elif not self.over:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the call
                self.loop.call_soon_threadsafe(self.now, interim)

    def now(self, interim: Interim) -> None:
        if self.over:
            return
        self.next = self.loop.time() + self.interval
        headers, body = interim_reply(interim)
        task = self.loop.create_task(self._publish(body, headers))
        self.sending.add(task)
        task.add_done_callback(self.sending.discard)

    async def _publish(self, body: bytes, headers: dict[str, str]) -> None:
        if self.over:
            return  # its reply has overtaken it: nothing may come after that
        try:
            await self.publish(self.reply, body, headers)
        except nats.errors.Error as err:
            _LOG.debug("a sign of life could not be sent: %s", err)


class Signs:
    """The calls in hand that take interim replies.

    Args:
        publish: sends a message.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._automatic: set[_Sign] = set()
        self._sending: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def of(self, task: Task, reply: str, *, automatic: bool) -> Iterator[None]:
        """Let a task send signs while the block lasts.

        Args:
            task: the task.
            reply: where they go.
            automatic: send empty ones for it, as often as its caller wants them.
        """
        if task.heartbeat_interval is None:
            yield
            return
        sign = _Sign(reply, task.heartbeat_interval / _PER_INTERVAL, self._publish, self._sending)
        task.sends(sign.send)
        if automatic:
            self._automatic.add(sign)
        try:
            yield
        finally:
            sign.over = True
            task.sends(None)
            self._automatic.discard(sign)

    async def keep(self) -> None:
        """Send the automatic ones, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            now = loop.time()
            for sign in [each for each in self._automatic if each.next <= now]:
                sign.now(Interim())
