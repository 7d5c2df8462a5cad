"""The slots of a bridge, which its queues share; `core.shares` says who gets how many.

Each queue has a seat: through it a processor asks for work and gets a slot for each claim. A queue alone pays nothing
for what several need.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from aj_bridge.core.shares import Part, demands, limited, spent, turn
from aj_bridge.storage.protocols import Items

__all__ = ["Seat", "Slots"]

_LOOK_AGAIN_S: Final = 0.2
"""How long what was asked for may take to come, before others get its slots: longer than in a busy bridge."""


class Slots:
    """All slots of a bridge.

    Args:
        number: how many claims may be worked on at once.
        monotonic: seconds that only run forward.
    """

    def __init__(self, number: int, monotonic: Callable[[], float]) -> None:
        self.number = number
        self.running = 0
        self.paused = False
        self.shared = False
        self.monotonic = monotonic
        self._seats: list[Seat] = []
        self._dealing = False
        self._looking: asyncio.TimerHandle | None = None

    def seat(self, items: Items, in_hand: Callable[[], int], weight: int | None = None) -> "Seat":
        """Give a queue a seat.

        Args:
            items: the queue's items, which are asked for here.
            in_hand: how many of its claims are in hand.
            weight: its weight; None for the one that is stored with the queue.
        """
        self.shared = bool(self._seats)
        seat = Seat(self, items, in_hand, weight)
        self._seats.append(seat)
        return seat

    def resize(self, number: int) -> None:
        """Change how many claims may be worked on at once; what is in hand beyond that ends in its own time."""
        self.number = number
        self._deal_soon()
        self._hand_on()

    def pause(self) -> None:
        """Ask for nothing more; what is in hand goes on."""
        self.paused = True
        self._deal_soon()

    def resume(self) -> None:
        """Ask for work again."""
        self.paused = False
        self._deal_soon()

    def close(self) -> None:
        """Deal no more."""
        self._seats.clear()
        if self._looking is not None:
            self._looking.cancel()

    # For the seats.

    def _ask(self, seat: "Seat") -> None:
        if not self.shared:
            seat.items.want(0 if self.paused else self.number - seat.in_hand())
        else:
            self._deal_soon()

    def _deal_soon(self) -> None:
        # Once for all that happens in one turn of the loop.
        if not self._dealing:
            self._dealing = True
            asyncio.get_running_loop().call_soon(self._deal)

    def _deal(self) -> None:
        self._dealing = False
        if self.paused:
            for seat in self._seats:
                seat.items.want(0)
            return
        for seat in self._seats:
            seat.fewest_asked = min(seat.fewest_asked, seat.items.asked)
        parts = self._parts(_not_running)
        for seat, number in zip(self._seats, demands(self.number, parts), strict=True):
            seat.items.want(number)
        if self._looking is None and len(parts) > 1 and any(part.more for part in parts):
            self._looking = asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._looking = None
        for seat in self._seats:
            asked = seat.items.asked
            unanswered = min(seat.fewest_asked, asked)
            seat.limit = limited(seat.part(_not_running(seat)), asked, unanswered, self.number)
            seat.fewest_asked = asked
        self._deal()

    def _hand_on(self) -> None:
        while self.running < self.number:
            waiting = [seat for seat in self._seats if seat.line]
            if not waiting:
                return
            if self.shared:
                at = turn(self.number, self._parts(lambda seat: len(seat.line)))
                assert at is not None
                waiting = [self._seats[at]]
            waiting[0].call_next()

    def _parts(self, waiting: Callable[["Seat"], int]) -> list[Part]:
        parts = [seat.part(waiting(seat)) for seat in self._seats]
        for at, used in enumerate(spent(parts, 0.0)):
            if used != parts[at].used:
                self._seats[at].used = used
                parts[at] = msgspec.structs.replace(parts[at], used=used)
        return parts


def _not_running(seat: "Seat") -> int:
    return max(0, seat.in_hand() - seat.running)


class Seat:
    """One queue's place at the slots; made by `Slots.seat`.

    Attributes:
        items: the queue's items.
        in_hand: how many of its claims are in hand.
        running: how many of them have a slot.
        used: slot seconds by weight.
        limit: how many can be had in hand, as far as that is known.
        fewest_asked: the fewest items that were asked for and had not come, since that was last looked at.
        line: those that wait for a slot.
    """

    __slots__ = (
        "_dismissed",
        "_since",
        "_slots",
        "_weight",
        "fewest_asked",
        "in_hand",
        "items",
        "limit",
        "line",
        "running",
        "used",
    )

    def __init__(self, slots: Slots, items: Items, in_hand: Callable[[], int], weight: int | None) -> None:
        self.items = items
        self.in_hand = in_hand
        self.running = 0
        self.used = 0.0
        self.limit: int | None = None
        self.fewest_asked = 0
        self.line: deque[asyncio.Future[bool]] = deque()
        self._dismissed = False
        self._slots = slots
        self._weight = weight
        self._since = slots.monotonic()

    @property
    def weight(self) -> int:
        """The queue's weight now."""
        return self.items.settings.weight if self._weight is None else self._weight

    def ask(self) -> None:
        """Ask for as much work as there is room for; to be called when there may be more room than before."""
        self._slots._ask(self)  # noqa: SLF001 - the two halves of one thing

    async def enter(self) -> bool:
        """Wait for a slot; False where there is none to wait for any more (`dismiss`)."""
        slots = self._slots
        if slots.running < slots.number:
            # Whoever waits got what was free, so nobody is overtaken.
            self._take()
            return True
        if self._dismissed:
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.line.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self.line:
                self.line.remove(waiter)
            elif not waiter.cancelled() and waiter.result():
                self.leave()  # its turn came at the same time
            raise

    def leave(self) -> None:
        """Give a slot back."""
        self._account()
        self.running -= 1
        self._slots.running -= 1
        self._slots._hand_on()  # noqa: SLF001 - as above

    def dismiss(self) -> None:
        """Let nobody wait any more, for a queue that stops: what waits in hand is for others to take."""
        self._dismissed = True
        while self.line:
            waiter = self.line.popleft()
            if not waiter.done():
                waiter.set_result(False)

    def call_next(self) -> None:
        """Give a slot to whoever waits first."""
        waiter = self.line.popleft()
        if not waiter.done():
            self._take()
            waiter.set_result(True)

    def part(self, waiting: int) -> Part:
        """Say how the queue stands."""
        self._account()
        return Part(
            weight=self.weight,
            running=self.running,
            waiting=waiting,
            more=self.items.more,
            used=self.used,
            limit=self.limit,
        )

    def _take(self) -> None:
        self._account()
        self.running += 1
        self._slots.running += 1

    def _account(self) -> None:
        if not self._slots.shared:
            return
        now = self._slots.monotonic()
        self.used += self.running * (now - self._since) / self.weight
        self._since = now
