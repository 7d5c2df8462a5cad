"""Which tasks are meant: one value for looking at tasks and for acting on many of them. Pure."""

from collections.abc import Collection
from typing import Final

import msgspec

from aj_sdk.errors import TaskChangedError
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["ANY_TASK", "TaskFilter"]


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks are meant; what is left out means any.

    Attributes:
        states: in one of these.
        queue: of this queue.
        type: of this type.
        error: with this text in their last error, without regard to case.
        since_ns: created since then, nanoseconds since the epoch.
        before_ns: created before then, nanoseconds since the epoch.
    """

    states: Collection[TaskState] = ()
    queue: str = ""
    type: str = ""
    error: str = ""
    since_ns: int | None = None
    before_ns: int | None = None

    @property
    def any(self) -> bool:
        """Whether it takes every task, also one that can't be read."""
        said = (self.states, self.queue, self.type, self.error)
        return not any(said) and self.since_ns is None and self.before_ns is None

    def takes(self, record: TaskRecord | None) -> bool:
        """Say whether a task is meant; one that can't be read (None) only where nothing is asked of it."""
        if record is None:
            return self.any
        return (
            (not self.states or record.state in self.states)
            and (not self.queue or record.queue == self.queue)
            and (not self.type or record.type == self.type)
            and (not self.error or self.error.lower() in record.last_err.lower())
            and (self.since_ns is None or record.created_ns >= self.since_ns)
            and (self.before_ns is None or record.created_ns < self.before_ns)
        )

    def check(self, stored: Stored) -> Stored:
        """Return a task, or refuse it.

        Raises:
            TaskChangedError: it is not meant.
        """
        if not self.takes(stored.record):
            raise TaskChangedError(stored.task_id, "" if stored.record is None else stored.record.state.value)
        return stored


ANY_TASK: Final = TaskFilter()
"""Takes every task."""
