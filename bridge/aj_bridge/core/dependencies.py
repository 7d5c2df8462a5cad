"""What a task's parents say about it: run, wait, or never."""

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from aj_sdk.wire.edge import Parent
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Ready", "Unreachable", "Verdict", "Waiting", "judge", "recheck_ns"]

_FIRST_CHECK_NS: Final = 5 * NS_PER_S
_LAST_CHECK_NS: Final = 60 * NS_PER_S


class Ready(msgspec.Struct, frozen=True):
    """All parents completed; `results` are theirs, where the task loads them."""

    results: Mapping[str, TaskResult | None]


class Waiting(msgspec.Struct, frozen=True):
    """A parent is not done yet."""

    parent: str


class Unreachable(msgspec.Struct, frozen=True):
    """A parent failed or is missing: the task can never run."""

    reason: str


Verdict: TypeAlias = Ready | Waiting | Unreachable


def judge(task: TaskRecord, parents: Mapping[str, Parent | None]) -> Verdict:
    """Say what a task's parents mean for it.

    Args:
        task: the task.
        parents: each dependency's record, or the edge that says how it ended; None for one of which nothing is left.

    Returns:
        `Unreachable` as soon as one parent failed, also while others are not done.
    """
    waiting = ""
    results: dict[str, TaskResult | None] = {}
    for parent_id in task.dependencies:
        parent = parents.get(parent_id)
        if parent is None:
            return Unreachable(f"task dependencies failed: {parent_id} was not found")
        if parent.state is TaskState.COMPLETE:
            results[parent_id] = parent.result
        elif parent.state.final:
            return Unreachable(f"task dependencies failed: {parent_id} is {parent.state.value}")
        else:
            waiting = waiting or parent_id
    if waiting:
        return Waiting(waiting)
    return Ready(results if task.load_dependencies else {})


def recheck_ns(task: TaskRecord, now_ns: int) -> int:
    """Return how long a blocked task waits before its parents are looked at again: 5 s, growing to 60 s.

    Half of its age, so that no counter has to be kept anywhere.
    """
    return min(_LAST_CHECK_NS, max(_FIRST_CHECK_NS, (now_ns - task.created_ns) // 2))
