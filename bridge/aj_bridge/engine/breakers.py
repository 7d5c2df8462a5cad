"""The breakers of all task types, and what this bridge parked while nobody answered."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from aj_bridge.core.breaker import CLOSED, Breaker
from aj_bridge.storage.protocols import Parked

__all__ = ["Breakers"]

_log = logging.getLogger(__name__)

_MAX_TYPES: Final = 10_000
_MAX_PARKED: Final = 10_000
"""A type; what is parked beyond that comes back when its own delay is over."""


class Breakers:
    """One breaker a task type.

    Args:
        monotonic: seconds that only run forward.
        random: gives a number in [0, 1).
    """

    def __init__(self, monotonic: Callable[[], float], random: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._random = random
        self._open: dict[str, Breaker] = {}
        self._parked: dict[str, deque[Parked]] = {}

    def admit(self, task_type: str) -> bool:
        """Say whether a call of this type may be made now."""
        breaker = self._open.get(task_type, CLOSED)
        after, admitted = breaker.admit(self._monotonic())
        if after.open:
            self._open[task_type] = after
        return admitted

    def delay_ns(self, task_type: str) -> int:
        """Return how long a task of this type waits that may not be tried."""
        return self._open.get(task_type, CLOSED).delay_ns(self._random)

    def missed(self, task_type: str) -> int:
        """Take down that nobody answered; returns how long the task waits until it is tried again."""
        if task_type not in self._open and len(self._open) >= _MAX_TYPES:
            forgotten = next(iter(self._open))
            del self._open[forgotten]
            self._parked.pop(forgotten, None)
        if task_type not in self._open:
            _log.warning("nobody handles tasks of type %s: they wait, and cost no try", task_type)
        now = self._monotonic()
        breaker = self._open[task_type] = self._open.get(task_type, CLOSED).missed(now)
        return breaker.probe_ns(now)

    def parked(self, task_type: str, parked: Parked) -> bool:
        """Remember what waits for a handler; False when one has answered meanwhile."""
        if task_type not in self._open:
            return False
        self._parked.setdefault(task_type, deque(maxlen=_MAX_PARKED)).append(parked)
        return True

    def answered(self, task_type: str) -> list[Parked]:
        """Take down that a handler is there; returns what may come back at once."""
        if task_type not in self._open:
            return []
        del self._open[task_type]
        return list(self._parked.pop(task_type, ()))
