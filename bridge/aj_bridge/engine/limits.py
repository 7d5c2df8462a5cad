"""How many tasks of a route are handled at a time, over all queues of a bridge.

What finds its route full waits outside, so that it takes no slot from other types, and is woken when there is room.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from aj_bridge.engine.router import Route, Router
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Limits", "Room"]

_MAX_REMEMBERED: Final = 10_000
"""What is parked beyond that comes back when its own delay is over."""
_LONGEST_S: Final = 30.0
_LOOK_AGAIN_S: Final = 0.25
"""A woken task may come to another bridge: what it was woken for is then still free."""

Wake = Callable[[], Awaitable[bool]]


class Room:
    """The room of one route.

    Args:
        limit: how many may be handled at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._coming = 0
        self._waiting: deque[Wake] = deque(maxlen=_MAX_REMEMBERED)
        self._looking: asyncio.TimerHandle | None = None
        self._waking: set[asyncio.Task[None]] = set()

    def enter(self) -> bool:
        """Take room for one task; False when there is none."""
        if self._running >= self._limit:
            return False
        self._running += 1
        self._coming = max(0, self._coming - 1)
        return True

    def leave(self) -> None:
        """Give it back."""
        self._running -= 1
        self._wake()

    def delay_ns(self, random: Callable[[], float]) -> int:
        """Return how long a task waits at the most: the longer, the more wait; a random quarter less."""
        seconds = min(_LONGEST_S, 1.0 + len(self._waiting) / self._limit)
        return int(seconds * (1 - random() / 4) * NS_PER_S)

    def remember(self, wake: Wake) -> None:
        """Remember one that waits, by what brings it back; that returns False when it has come back by itself."""
        self._waiting.append(wake)
        self._wake()

    def close(self) -> None:
        """Wake nobody any more; they come back when their delays are over."""
        self._waiting.clear()
        if self._looking is not None:
            self._looking.cancel()

    def _wake(self) -> None:
        free = self._limit - self._running - self._coming
        if free <= 0 or not self._waiting:
            return
        self._coming += free
        waking = asyncio.get_running_loop().create_task(self._wake_some(free))
        self._waking.add(waking)
        waking.add_done_callback(self._waking.discard)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._look_again)

    async def _wake_some(self, number: int) -> None:
        while number and self._waiting:
            if await self._waiting.popleft()():
                number -= 1

    def _look_again(self) -> None:
        self._looking = None
        self._coming = 0
        self._wake()


class Limits:
    """The rooms of a bridge's routes.

    Args:
        router: the routes.
    """

    def __init__(self, router: Router) -> None:
        self._rooms = {route.type: Room(route.limit) for route in router.routes if route.limit is not None}

    def room(self, route: Route) -> Room | None:
        """Return the room of a route, None where it has no limit."""
        return self._rooms.get(route.type) if self._rooms else None

    def close(self) -> None:
        """Wake nobody any more."""
        for room in self._rooms.values():
            room.close()
