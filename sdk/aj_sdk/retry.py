"""A retry: a task that has ended starts over, under its id, in its queue, as it was when it was enqueued."""

from aj_sdk.enqueue import loaded, place, start_over
from aj_sdk.errors import TaskStateError
from aj_sdk.store import Store
from aj_sdk.wire.names import DELAYED_STREAM
from aj_sdk.wire.task import TaskRecord

__all__ = ["retry"]


async def retry(store: Store, task_id: str) -> TaskRecord:
    """Let a task that has ended start over, in the queue that it was in.

    Returns:
        The task as it is stored now.

    Raises:
        TaskNotFoundError: there is no such task.
        TaskStateError: it has not ended.
        DecodeError: its record can't be read.
        ConflictError: somebody else changed it meanwhile.
        QueueNotFoundError: its queue is gone; the task is `queue_error`.
        QueueFullError: its queue is full; the task is `queue_error`.
        OutcomeUnknownError: no answer in time.
    """
    stored = await loaded(store, task_id)
    record = stored.readable()
    if not record.state.final or not record.queue:
        raise TaskStateError(task_id, record.state.value, "retry" if record.queue else "retry (it has no queue)")
    places = await store.find_items(record.queue, task_id)
    record, sequence = await start_over(store, stored, record)
    # A schedule of the round that has ended goes, one that a bridge stores from now on stays. An old item may stay
    # too: it is replaced below, and until then it is the only one.
    await store.remove_items(each for each in places if each.stream == DELAYED_STREAM)
    return await place(store, record, sequence, replace=True)
