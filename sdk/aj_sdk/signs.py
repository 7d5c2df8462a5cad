"""Signs of life: interim replies of the calls in hand, sent for coroutines, and when a handler asks for it.

One timer for all calls: most end before their first sign is due, and one each would cost them more than their reply.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
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
    """The signs of one call, while the block lasts; a class, because `contextmanager` costs a call three times that."""

    __slots__ = ("automatic", "interval", "loop", "next", "over", "publish", "reply", "sending", "task")

    def __init__(
        self, task: Task, reply: str, publish: Publish, sending: set[asyncio.Task[None]], automatic: "set[_Sign] | None"
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.task = task
        self.reply = reply
        self.interval = (task.heartbeat_interval or math.inf) / _PER_INTERVAL
        self.publish = publish
        self.sending = sending
        self.automatic = automatic
        self.next = self.loop.time() + self.interval
        self.over = False

    def __enter__(self) -> None:
        if self.task.heartbeat_interval is None:
            return  # its caller takes none
        self.task.sends(self.send)
        if self.automatic is not None:
            self.automatic.add(self)

    def __exit__(self, *_: object) -> None:
        self.over = True
        self.task.sends(None)
        if self.automatic is not None:
            self.automatic.discard(self)

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

    def of(self, task: Task, reply: str, *, automatic: bool) -> AbstractContextManager[None]:
        """Let a task send signs while the block lasts.

        Args:
            task: the task.
            reply: where they go.
            automatic: send empty ones for it, as often as its caller wants them.
        """
        return _Sign(task, reply, self._publish, self._sending, self._automatic if automatic else None)

    async def keep(self) -> None:
        """Send the automatic ones, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            now = loop.time()
            for sign in [each for each in self._automatic if each.next <= now]:
                sign.now(Interim())
