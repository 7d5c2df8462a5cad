"""Running a task now that waits: for its time, for its next try, or for a handler.

Its schedule is fired against the sequence at which it stands, so of several who try, and of the server, one wins.
"""

from enum import StrEnum
from typing import Final

import msgspec

from aj_sdk.enqueue import loaded
from aj_sdk.errors import RefusedError
from aj_sdk.jetstream import EXPECTED_LAST_SUBJECT_SEQUENCE, WRONG_LAST_SEQUENCE
from aj_sdk.store import Store
from aj_sdk.wire.item import read_due
from aj_sdk.wire.names import item_subject, queue_stream
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = ["RanNow", "RunNow", "run_now"]

_ATTEMPTS: Final = 5


class RanNow(StrEnum):
    """What came of it."""

    NOW = "runs now"
    BLOCKED = "waits for other tasks"
    NOT_WAITING = "was not waiting"
    ENDED = "has ended"


class RunNow(msgspec.Struct, frozen=True):
    """A task that was to run now.

    Attributes:
        outcome: what came of it.
        task: the task as it was found.
    """

    outcome: RanNow
    task: TaskRecord


async def run_now(store: Store, task_id: str) -> RunNow:
    """Bring a waiting task into its queue now, whatever it waits for; one with open dependencies goes on waiting.

    Args:
        store: where.
        task_id: the task.

    Raises:
        TaskNotFoundError: there is no such task.
        DecodeError: its record can't be read.
        StoreError: the store failed; doing it again is safe.
    """
    for _ in range(_ATTEMPTS):
        task = (await loaded(store, task_id)).readable()
        if task.state.final:
            return RunNow(RanNow.ENDED, task)
        if not task.queue:
            return RunNow(RanNow.NOT_WAITING, task)
        standing = await store.standing(task.queue, task_id)
        if standing is not None:
            # Without what it carries: its time, and that an owner was silent, who has a lease to be heard again.
            woken = await store.wake_item(task.queue, task_id, standing.sequence)
        elif (sequence := await _waits_inside(store, task)) is not None:
            woken = await _publish_again(store, task, sequence)
        else:
            return RunNow(RanNow.NOT_WAITING, task)
        if woken:
            return RunNow(RanNow.BLOCKED if task.state is TaskState.BLOCKED else RanNow.NOW, task)
        # It fired, or was parked anew: look again.
    return RunNow(RanNow.NOT_WAITING, task)


async def _waits_inside(store: Store, task: TaskRecord) -> int | None:
    """Find the item of a task that waits inside its queue, where nothing can wait outside."""
    if task.state is TaskState.ACTIVE:
        return None
    try:
        item = await store.jetstream.last(queue_stream(task.queue), item_subject(task.queue, task.id))
    except RefusedError:
        return None
    if item is None:
        return None
    return item.sequence if read_due(item.headers) > store.now_ns() or task.state is TaskState.RETRY else None


async def _publish_again(store: Store, task: TaskRecord, sequence: int) -> bool:
    headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(sequence)}
    try:
        return await store.publish_item(task.queue, task.id, replace=True, headers=headers)
    except RefusedError as err:
        if err.code in WRONG_LAST_SEQUENCE:
            return False
        raise
