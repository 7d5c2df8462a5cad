"""What to do with the outcome of a call."""

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from aj_bridge.core.decision import Finish, Park
from aj_bridge.core.deliver import max_tries
from aj_bridge.core.lifecycle import Event
from aj_bridge.core.retry import RetryPolicy
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_MS

__all__ = ["NO_HANDLER", "NoResponders", "Outcome", "settle", "too_large", "too_late"]


NO_HANDLER: Final = "no handler listens on"
"""How `last_err` begins where nobody listened."""


class NoResponders(msgspec.Struct, frozen=True):
    """Nobody listens for the task.

    Attributes:
        subject: where nobody listens.
        retry_after_ns: how long the task waits.
    """

    subject: str
    retry_after_ns: int


Outcome: TypeAlias = Completed | Failed | Terminated | NoResponders


def settle(
    record: TaskRecord,
    outcome: Outcome,
    *,
    queue: QueueSettings,
    policy: RetryPolicy,
    attempt: int,
    now_ns: int,
    random: Callable[[], float],
) -> Finish | Park:
    """Say what becomes of a task after a call.

    Args:
        record: the task as saved for the call, `active` with the try counted.
        outcome: what the call gave.
        queue: the queue's settings.
        policy: the backoff.
        attempt: which interval of the policy: tries so far, or deliveries so far where items are NAKed.
        now_ns: now, nanoseconds since the epoch.
        random: gives a number in [0, 1).
    """
    if isinstance(outcome, Completed):
        result = TaskResult(payload=outcome.result, completed_ns=now_ns)
        return Finish(record.replace(state=TaskState.COMPLETE, result=result, last_err=""), Event.SUCCEEDED)
    if isinstance(outcome, Terminated):
        return Finish(record.replace(state=TaskState.TERMINATED, last_err=outcome.error), Event.TERMINATED)
    if isinstance(outcome, NoResponders):
        # Not an attempt: the try is given back.
        waiting = record.replace(
            state=TaskState.RETRY, tries=record.tries - 1, last_err=f"{NO_HANDLER} {outcome.subject}"
        )
        due_ns = _due(record, now_ns + outcome.retry_after_ns)
        return Park(due_ns, waiting, Event.NO_HANDLER, why="no handler")
    limit = max_tries(record, queue)
    if limit and record.tries >= limit:
        return Finish(record.replace(state=TaskState.EXPIRED, last_err=outcome.error), Event.LAST_TRY_FAILED)
    delay_ns = policy.duration_ns(attempt, random) if outcome.retry_after_ns is None else outcome.retry_after_ns
    waiting = record.replace(state=TaskState.RETRY, last_err=outcome.error)
    return Park(_due(record, now_ns + delay_ns), waiting, Event.FAILED, why="failed, will be tried again")


def too_late(record: TaskRecord, now_ns: int) -> Finish | None:
    """Say what becomes of a task that was saved `active` and may not be called any more; None when it may.

    Its deadline passed while that save was under way. Nobody was called, so the try is given back.
    """
    if record.deadline_ns is None or now_ns <= record.deadline_ns:
        return None
    expired = record.replace(
        state=TaskState.EXPIRED, tries=record.tries - 1, last_err=record.last_err or "past deadline"
    )
    return Finish(expired, Event.PAST_DEADLINE)


def too_large(record: TaskRecord, size: int, limit: int) -> Finish:
    """Say what becomes of a task whose record does not fit a message.

    It ends without its results; where that is not enough (a Go producer may fill a message to the last byte), with
    nothing but what says which task it was. Its dead letter keeps the rest.
    """
    reason = f"the task's record needs {size} bytes, a message takes {limit}"
    if record.state is not TaskState.TERMINATED or record.result is not None or record.dependency_results:
        small = record.replace(state=TaskState.TERMINATED, result=None, dependency_results={}, last_err=reason)
        return Finish(small, Event.TOO_LARGE)
    bare = TaskRecord(
        id=record.id,
        type=record.type,
        queue=record.queue,
        state=TaskState.TERMINATED,
        created_ns=record.created_ns,
        max_tries=record.max_tries,
        tries=record.tries,
        tried_ns=record.tried_ns,
        last_err=reason,
    )
    return Finish(bare, Event.TOO_LARGE)


def _due(record: TaskRecord, due_ns: int) -> int:
    # Waiting past the deadline helps nobody: come back right after it and expire.
    return due_ns if record.deadline_ns is None else min(due_ns, record.deadline_ns + NS_PER_MS)
