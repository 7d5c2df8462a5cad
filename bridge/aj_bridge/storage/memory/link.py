"""The way between one bridge and the world in memory: it can be slow, cut, or lose answers."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

import msgspec

from aj_sdk.errors import OutcomeUnknownError, StoreError, TaskTooLargeError

__all__ = ["STANDSTILL_S", "Fault", "Faults", "Link"]

_T = TypeVar("_T")

STANDSTILL_S: Final = 2.0
"""How long another bridge waits for an answer."""

_TIMEOUT_S: Final = 5.0


class Fault(msgspec.Struct, frozen=True):
    """What goes wrong with an act.

    Attributes:
        error: what the caller gets instead of an answer.
        applied: whether the act was carried out all the same.
    """

    error: StoreError
    applied: bool = False


Faults: TypeAlias = Callable[[str, object], Fault | None]


class Link:
    """The way between one bridge and the world.

    While it is cut, acts are kept and carried out when it is mended, though who asked has given up by then, as a
    client's buffer does; what the server hands out meanwhile comes in late.

    Attributes:
        latency_s: how long each act takes.
        faults: asked before each act, by its name (`load`, `save`, `ack`, `renew`, `park`, ...) and what it is about.
        standstills: how often it was cut for longer than another bridge waits for an answer.
    """

    def __init__(self) -> None:
        self.latency_s = 0.0
        self.faults: Faults = lambda _act, _about: None
        self.standstills = 0
        self._cut_at: float | None = None
        self._mended = asyncio.Event()
        self._mended.set()
        self._outgoing: list[Callable[[], object]] = []
        self._incoming: list[Callable[[], None]] = []

    @property
    def up(self) -> bool:
        """Whether it is not cut."""
        return self._cut_at is None

    @property
    def since(self) -> float:
        """When what comes now was sent, at the earliest."""
        return asyncio.get_running_loop().time() if self._cut_at is None else self._cut_at

    def cut(self) -> None:
        """Cut it."""
        if self._cut_at is None:
            self._cut_at = asyncio.get_running_loop().time()
            self._mended.clear()

    def mend(self) -> None:
        """Mend it: what came is read first, then what was kept goes out."""
        if self._cut_at is None:
            return
        incoming, self._incoming = self._incoming, []
        for arrive in incoming:
            arrive()
        if asyncio.get_running_loop().time() - self._cut_at > STANDSTILL_S:
            self.standstills += 1
        self._cut_at = None
        self._mended.set()
        outgoing, self._outgoing = self._outgoing, []
        for act in outgoing:
            act()

    async def mended(self) -> None:
        """Wait until it is not cut."""
        await self._mended.wait()

    async def ask(self, act: str, about: object, carry_out: Callable[[], _T], timeout_s: float = _TIMEOUT_S) -> _T:
        """Have something carried out, and wait for the answer.

        Raises:
            OutcomeUnknownError: no answer in time.
            StoreError: what carrying it out raised, or what `faults` said.
        """
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()

        def deliver() -> None:
            fault = self.faults(act, about)
            if fault is not None and not fault.applied:
                _settle(answer, fault.error)
                return
            try:
                result = carry_out()
            except (StoreError, TaskTooLargeError) as err:
                _settle(answer, err)
            else:
                if fault is not None:
                    _settle(answer, fault.error)
                elif not answer.done():
                    answer.set_result(result)

        await asyncio.sleep(self.latency_s)
        self.send(deliver)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise OutcomeUnknownError(act) from None

    async def tell(self, act: str, about: object, carry_out: Callable[[], object]) -> None:
        """Have something carried out without an answer."""
        await asyncio.sleep(0)
        fault = self.faults(act, about)
        if fault is None or fault.applied:
            self.send(carry_out)

    def send(self, act: Callable[[], object]) -> None:
        """Carry out now, or when the link is mended."""
        if self.up:
            act()
        else:
            self._outgoing.append(act)

    def hand_over(self, arrive: Callable[[], None]) -> None:
        """Bring something in."""
        if self.up:
            arrive()
        else:
            self._incoming.append(arrive)


def _settle(answer: "asyncio.Future[_T]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
