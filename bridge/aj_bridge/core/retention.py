"""What becomes of the records of tasks that have ended: kept as the store keeps all, for a time of their own, or not.

Source of discarding by state: DiscardTaskStates in the Go project's client_options.go.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_S

__all__ = ["DISCARDABLE", "KEEPABLE", "KEEP_ALL", "Retention"]

DISCARDABLE: Final = (TaskState.COMPLETE, TaskState.EXPIRED, TaskState.TERMINATED)
KEEPABLE: Final = (*DISCARDABLE, TaskState.UNREACHABLE)


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long records of ended tasks stay.

    Attributes:
        discard: states whose records go at once.
        kept_ns: how long those of a state stay after they got there, in nanoseconds; the store's own retention ends
            them earlier. What is left out stays as long as the store keeps it.
    """

    discard: frozenset[TaskState] = frozenset()
    kept_ns: Mapping[TaskState, int] = {}

    def discards(self, state: TaskState) -> bool:
        """Say whether a record in this state goes at once."""
        return state in self.discard

    def ttl_s(self, state: TaskState) -> int | None:
        """Return how many whole seconds a record that is saved in this state has; None for no time of its own."""
        kept_ns = self.kept_ns.get(state)
        # The server counts seconds; a time is rather a little longer than what was said than shorter.
        return None if kept_ns is None else max(1, -(-kept_ns // NS_PER_S))


KEEP_ALL: Final = Retention()
