"""The states of a task, spelled as on the wire."""

from enum import StrEnum
from typing import Final

__all__ = ["FAILED_STATES", "FINAL_STATES", "TaskState", "parse_state"]


class TaskState(StrEnum):
    """Where a task stands. Source: TaskState in the Go project's task.go."""

    UNKNOWN = ""
    NEW = "new"
    ACTIVE = "active"
    RETRY = "retry"
    BLOCKED = "blocked"
    COMPLETE = "complete"
    EXPIRED = "expired"
    TERMINATED = "terminated"
    UNREACHABLE = "unreachable"
    QUEUE_ERROR = "queue_error"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to the task by itself."""
        return self in FINAL_STATES


FINAL_STATES: Final = frozenset(
    {
        TaskState.COMPLETE,
        TaskState.EXPIRED,
        TaskState.TERMINATED,
        TaskState.UNREACHABLE,
        TaskState.QUEUE_ERROR,
    }
)

FAILED_STATES: Final = FINAL_STATES - {TaskState.COMPLETE}

_BY_TEXT: Final = {state.value: state for state in TaskState} | {"completed": TaskState.COMPLETE}


def parse_state(text: str) -> TaskState:
    """Read a state; the old spelling `completed` is accepted.

    Raises:
        ValueError: there is no such state.
    """
    state = _BY_TEXT.get(text)
    if state is None:
        raise ValueError(f"unknown state {text[:60]!r}")
    return state
