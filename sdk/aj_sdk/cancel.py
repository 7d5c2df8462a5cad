"""Cancelling a task: it ends `terminated`, with a reason, whether it waits or somebody is at work on it.

The save under compare-and-set decides. What follows may be repeated by anybody: the bridges are told, what a bridge
does for an ended task is done, and at last its item and its schedule are taken away. As long as the item stands, who
is handed it finds a final record and does the same; so a canceller that dies on the way leaves nothing undone.
"""

import asyncio
from typing import Final

from aj_sdk import streams
from aj_sdk.dead import DeadLetters
from aj_sdk.enqueue import loaded, publish_state
from aj_sdk.errors import ConflictError, RefusedError, TaskStateError
from aj_sdk.side_streams import ensure_side_stream
from aj_sdk.store import Place, Store
from aj_sdk.task_filter import ANY_TASK, TaskFilter
from aj_sdk.wire.call import clip_error
from aj_sdk.wire.dead import DeadLetter, DeadReason
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = ["cancel"]

_ATTEMPTS: Final = 10
_PAUSES_S: Final = (0.0, 0.05, 0.2, 0.5)


async def cancel(
    store: Store, dead: DeadLetters, task_id: str, reason: str = "", *, only: TaskFilter = ANY_TASK
) -> TaskRecord:
    """End a task that waits or runs; the bridge at work on it stops the call.

    A task that is terminated already is left as it is; what follows its end is done once more, so that a cancel that
    failed half-way can be repeated.

    Args:
        store: tasks and items.
        dead: the dead letters.
        task_id: the task.
        reason: why, for its last error.
        only: leave it alone unless this takes it, as it is now.

    Returns:
        The task as it is stored now.

    Raises:
        TaskNotFoundError: there is no such task.
        TaskChangedError: `only` does not take it.
        TaskStateError: it has ended otherwise.
        DecodeError: its record can't be read.
        ConflictError: others changed it, again and again.
        OutcomeUnknownError: no answer in time; do it again.
        StoreError: the store failed or said no. The task may be cancelled all the same; do it again.
    """
    for _ in range(_ATTEMPTS):
        stored = only.check(await loaded(store, task_id))
        record = stored.readable()
        if record.state.final and record.state is not TaskState.TERMINATED:
            raise TaskStateError(task_id, record.state.value, "cancel")
        # Read before the save: what a retry puts there afterwards survives.
        places = await store.find_items(record.queue, task_id) if record.queue else []
        if record.state is TaskState.TERMINATED:
            current = await store.load(task_id)
            if current is None or current.sequence != stored.sequence:
                continue  # somebody lets it start over
        else:
            record = record.replace(state=TaskState.TERMINATED, last_err=_why(reason))
            try:
                await store.save_surely(record, expected=stored.sequence)
            except ConflictError:
                continue
            await publish_state(store, record)
        await _follow_up(store, dead, record, places)
        return record
    raise ConflictError(task_id, stored.sequence)


async def _follow_up(store: Store, dead: DeadLetters, record: TaskRecord, places: list[Place]) -> None:
    await store.tell_bridges(record.id)
    await store.dependents.ended(record)
    await _bury(store, dead, record)
    await store.remove_items(places)


async def _bury(store: Store, dead: DeadLetters, record: TaskRecord) -> None:
    letter = DeadLetter(
        reason=DeadReason.TERMINATED,
        detail=record.last_err,
        queue=record.queue,
        task_id=record.id,
        task_type=record.type,
        tries=record.tries,
        body=record.to_wire(),
        at_ns=store.now_ns(),
    )
    for pause in _PAUSES_S:
        try:
            await dead.bury(letter)
        except RefusedError as err:
            if err.code:
                raise
            # Nobody took it: a bridge makes the stream when it starts, and here there may never have been one.
            failure = err
            await ensure_side_stream(store.jetstream, streams.dead_config)
            await asyncio.sleep(pause)
        else:
            return
    raise failure


def _why(reason: str) -> str:
    return clip_error(f"cancelled: {reason}" if reason.strip() else "cancelled")
