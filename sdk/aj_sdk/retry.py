"""A retry: a task starts over, under its id, in its queue, as it was when it was enqueued.

A new run: no tries, and all that its signature covers as it was. One that has not ended is retried by force only; what
is under way for it is stopped first, and whatever comes of it all the same is refused.
"""

import asyncio
import logging
from typing import Final

import msgspec

from aj_sdk.enqueue import loaded, place, start_over
from aj_sdk.errors import ConflictError, DeadlinePassedError, SignatureError, TaskStateError
from aj_sdk.holders import holds
from aj_sdk.ids import new_id
from aj_sdk.store import Store
from aj_sdk.task_filter import ANY_TASK, TaskFilter
from aj_sdk.wire.names import DELAYED_STREAM
from aj_sdk.wire.signing import Signer
from aj_sdk.wire.stamp import Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["SAME_DEADLINE", "retry"]

_log: Final = logging.getLogger(__name__)

SAME_DEADLINE: Final = -1
"""A retry's deadline where it keeps the one that it has."""

_ATTEMPTS: Final = 10
_PAUSES_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Between looks whether a bridge has let go of a task; it needs one read of the record to see that it has to."""


async def retry(
    store: Store,
    task_id: str,
    *,
    force: bool = False,
    deadline_ns: int | None = SAME_DEADLINE,
    signer: Signer | None = None,
    only: TaskFilter = ANY_TASK,
) -> TaskRecord:
    """Let a task start over, in the queue that it was in.

    Args:
        store: where.
        task_id: the task.
        force: also one that has not ended. A bridge that is at work on it is told to stop, and has let go of it before
            the new run begins; where that can't be known for sure, a warning is logged.
        deadline_ns: a new deadline, nanoseconds since the epoch, None for none.
        signer: signs a signed task anew, whose deadline changes.
        only: leave it alone unless this takes it, as it is now.

    Returns:
        The task as it is stored now.

    Raises:
        TaskNotFoundError: there is no such task.
        TaskChangedError: `only` does not take it.
        TaskStateError: it has not ended, and there is no force; or it has no queue.
        DeadlinePassedError: its deadline has passed, so it could only expire again.
        SignatureError: its signature covers the deadline that is to change, and nobody signs it anew.
        DecodeError: its record can't be read.
        ConflictError: somebody else changed it meanwhile.
        QueueNotFoundError: its queue is gone; the task is `queue_error`.
        QueueFullError: its queue is full; the task is `queue_error`.
        OutcomeUnknownError: no answer in time.
    """
    for attempt in range(_ATTEMPTS):
        stored = only.check(await loaded(store, task_id))
        record = _retryable(store, stored.readable(), force, deadline_ns, signer)
        places = await store.find_items(record.queue, task_id)
        try:
            if record.state is TaskState.ACTIVE:
                stored = await _seize(store, stored)
            fresh, sequence = await start_over(store, stored, record)
        except ConflictError:
            # Who is at work on it saves it again and again.
            if not force or attempt + 1 == _ATTEMPTS:
                raise
            continue
        break
    if record.state is not TaskState.ACTIVE:
        await store.tell_bridges(task_id)  # a call of the run before may still be under way
    # A schedule of the run before goes, one that a bridge stores from now on stays. An old item may stay too: it is
    # replaced below, and until then it is the only one.
    await store.remove_items(each for each in places if each.stream == DELAYED_STREAM)
    return await place(store, fresh, sequence, replace=True)


def _retryable(
    store: Store, record: TaskRecord, force: bool, deadline_ns: int | None, signer: Signer | None
) -> TaskRecord:
    if not record.queue:
        raise TaskStateError(record.id, record.state.value, "retry (it has no queue)")
    if not (record.state.final or force):
        raise TaskStateError(record.id, record.state.value, "retry")
    if deadline_ns not in (SAME_DEADLINE, record.deadline_ns):
        if record.signature and signer is None:
            raise SignatureError(record.id, "its signature covers its deadline: changing it needs the signing key")
        record = record.replace(deadline_ns=deadline_ns)
        if record.signature:
            assert signer is not None
            record = signer.sign(record.replace(signature=""))
    if record.deadline_ns is not None and record.deadline_ns <= store.now_ns():
        raise DeadlinePassedError(record.id, record.deadline_ns)
    return record


async def _seize(store: Store, stored: Stored) -> Stored:
    """Take an active task from whoever is at work on it, and wait until it is not any more.

    The record is saved again under another owner, who is us, so that the bridge sees that it has to stop, and nobody
    begins the new run meanwhile, whichever item of the task is delivered. Should we die here, nobody answers for this
    owner, and the task is taken over as from a bridge that died.

    Raises:
        ConflictError: somebody else wrote.
    """
    stamp, task_id = stored.stamp, stored.task_id
    if stamp is None:
        why = "a Go worker may still be at work on it, and can't be told to stop"
    else:
        ours = Stamp(new_id(), stamp.item)
        sequence = await store.save_surely(stored.readable(), expected=stored.sequence, stamp=ours)
        stored = msgspec.structs.replace(stored, sequence=sequence, stamp=ours)
        await store.tell_bridges(task_id)
        for pause in _PAUSES_S:
            answer = await holds(store.jetstream.transport, stamp.owner, task_id, stamp.item)
            if answer is False:
                return stored
            if answer is None:
                break
            await asyncio.sleep(pause)
        why = f"bridge {stamp.owner} {'still holds it' if answer else 'does not answer, and may be at work on it'}"
    _log.warning("task %s starts over beside its run of before: %s; what comes of that is not saved", task_id, why)
    return stored
