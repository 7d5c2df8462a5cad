"""The way between a process and the world: slow, lossy, late, and sometimes the last thing that the process does.

What is sent on one way to one part of the server arrives in order; different parts overtake each other, as streams and
consumers do.
"""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from enum import StrEnum
from random import Random
from typing import Any, Final, Protocol, TypeVar

from tests.sim.loop import Process

from aj_bridge.storage.memory import Link
from aj_sdk.errors import OutcomeUnknownError, RefusedError, StoreError, TaskTooLargeError

__all__ = ["Mishap", "Mishaps", "Watcher", "Way"]

_T = TypeVar("_T")

_TIMEOUT_S: Final = 5.0
_SERVER: Final = contextvars.copy_context()
"""Where what the server does runs: in no process."""

_PART: Final = dict.fromkeys(
    ("ack", "renew", "give_back", "leave", "discard_item", "put_back", "serve"), "consumer"
) | {
    "save": "tasks",
    "load": "tasks",
    "remove": "tasks",
    "discard": "tasks",
}


class Mishap(StrEnum):
    """What can happen to one act on its way."""

    REFUSED = "refused"
    LOST = "lost"
    UNHEARD = "its answer is lost"
    LATE = "late"
    TWICE = "twice"
    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    FREEZE = "freeze"


class Mishaps:
    """How often what happens.

    Args:
        rates: probability of each for one act.
        chance: decides.
    """

    def __init__(self, rates: dict[Mishap, float], chance: Random) -> None:
        self.over = False
        self._kinds = list(rates)
        self._rates = list(rates.values())
        self._total = sum(self._rates)
        self._chance = chance

    def next(self) -> Mishap | None:
        """Say what happens to the next act."""
        if self.over or self._chance.random() >= self._total:
            return None
        return self._chance.choices(self._kinds, self._rates)[0]


class Watcher(Protocol):
    """Who is told of what goes over a way."""

    def sends(self, process: Process, act: str, about: object) -> None:
        """Something is sent."""

    def act(self, process: Process, act: str, about: object, result: object) -> None:
        """Something was carried out."""

    def mishap(self, process: Process, act: str, about: object, mishap: Mishap) -> None:
        """Something went wrong."""


class Way(Link):
    """The way of one process.

    Args:
        process: whose.
        chance: decides how long things take.
        mishaps: what goes wrong.
        watcher: is told.
    """

    def __init__(self, process: Process, chance: Random, mishaps: Mishaps, watcher: Watcher) -> None:
        super().__init__()
        self.process = process
        self.crash: Callable[[], None] = process.die
        self.freeze_for_a_while: Callable[[], None] = lambda: None
        self.slowest_s = chance.choice([0.001, 0.01, 0.3])
        self._chance = chance
        self._mishaps = mishaps
        self._watcher = watcher
        self._sent_at: float | None = None
        self._free_at: dict[str, float] = {}

    @property
    def since(self) -> float:
        """When what comes now was sent, at the earliest."""
        return super().since if self._sent_at is None else self._sent_at

    async def ask(self, act: str, about: object, carry_out: Callable[[], _T], timeout_s: float = _TIMEOUT_S) -> _T:
        """See `Link`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()
        mishap = self._mishap(act, about)
        if mishap is Mishap.REFUSED:
            await asyncio.sleep(0)
            raise RefusedError(act, 503, "no")

        def deliver() -> None:
            reply: Callable[[], None]
            try:
                result = carry_out()
            except (StoreError, TaskTooLargeError) as err:
                self._watcher.act(self.process, act, about, err)
                reply = functools.partial(_fail, answer, err)
            else:
                self._watcher.act(self.process, act, about, result)
                reply = functools.partial(_give, answer, result)
            if mishap is not Mishap.UNHEARD:
                self.hand_over(reply)

        if mishap is not Mishap.LOST:
            self._send(act, deliver, late=mishap is Mishap.LATE)
        self._stop(mishap)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise OutcomeUnknownError(act) from None

    async def tell(self, act: str, about: object, carry_out: Callable[[], object]) -> None:
        """See `Link`."""
        mishap = self._mishap(act, about)

        def deliver() -> None:
            self._watcher.act(self.process, act, about, carry_out())

        if mishap not in (Mishap.LOST, Mishap.REFUSED):
            self._send(act, deliver, late=mishap is Mishap.LATE)
            if mishap is Mishap.TWICE:
                self._send(act, deliver, late=True)
        self._stop(mishap)
        await asyncio.sleep(0)

    def send(self, act: Callable[[], object]) -> None:
        """See `Link`."""
        self._send("serve", act)

    def hand_over(self, arrive: Callable[[], None]) -> None:
        """See `Link`."""
        if self.process.dead:
            return
        if not self.up:
            self._incoming.append(arrive)
            return
        loop = asyncio.get_running_loop()
        loop.call_at(self._arrival("in"), self._arrive, loop.time(), arrive, context=self.process.context)

    def mend(self) -> None:
        """See `Link`."""
        if not self.process.dead:
            self.process.context.run(super().mend)

    def _arrive(self, sent_at: float, arrive: Callable[[], None]) -> None:
        if not self.up:
            self._incoming.append(arrive)
            return
        self._sent_at = sent_at
        try:
            arrive()
        finally:
            self._sent_at = None

    def _send(self, act: str, carry_out: Callable[[], object], *, late: bool = False) -> None:
        if self.process.dead:
            return
        if not self.up:
            self._outgoing.append(functools.partial(self._send, act, carry_out))
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + self._chance.uniform(0.5, 20) if late else self._arrival(_PART.get(act, act))
        loop.call_at(when, carry_out, context=_SERVER)

    def _arrival(self, part: str) -> float:
        now = asyncio.get_running_loop().time()
        when = max(now + self._chance.random() * self.slowest_s, self._free_at.get(part, 0.0))
        self._free_at[part] = when
        return when

    def _mishap(self, act: str, about: object) -> Mishap | None:
        self._watcher.sends(self.process, act, about)
        mishap = None if act in ("event", "attempted") else self._mishaps.next()
        if mishap is not None:
            self._watcher.mishap(self.process, act, about, mishap)
            if mishap is Mishap.CRASH_BEFORE:
                self.crash()
        return mishap

    def _stop(self, mishap: Mishap | None) -> None:
        if mishap is Mishap.CRASH_AFTER:
            self.crash()
        elif mishap is Mishap.FREEZE:
            self.freeze_for_a_while()


def _give(answer: "asyncio.Future[Any]", result: object) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
