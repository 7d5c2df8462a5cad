"""How a task gets into its queue: save the record, then publish the item, and what each failure in between means.

Shared by everyone who enqueues: the client, a retry, and whatever makes tasks on a schedule. The order and the
meanings are those of the engine's rules: a refused item makes the task `queue_error`, one without an answer leaves it
`new`, and doing it again under the same id is always safe.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

import msgspec

from aj_sdk.errors import (
    ConflictError,
    NotConnectedError,
    OutcomeUnknownError,
    StoreError,
    TaskExistsError,
    TaskNotFoundError,
    TaskTooLargeError,
)
from aj_sdk.ids import new_id
from aj_sdk.store import HEADROOM, Store
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.names import H_DUE, task_event_subject
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["Due", "check_size", "enqueue", "loaded", "place", "publish_state", "same_task", "start_over"]

_log: Final = logging.getLogger(__name__)

_ATTEMPTS: Final = 5
_AGAIN: Final = frozenset({TaskState.NEW, TaskState.BLOCKED, TaskState.QUEUE_ERROR})
"""States in which enqueueing a task again puts its item there; in the others it has been, or will come by itself."""


Saved: TypeAlias = Callable[[int], Awaitable[None]]


class Due(msgspec.Struct, frozen=True):
    """When a task is to be in its queue.

    Attributes:
        at_ns: the time, nanoseconds since the epoch.
        outside: whether it waits outside of its queue, as a schedule; else its item waits inside, and bridges put it
            off until it is due.
    """

    at_ns: int
    outside: bool


async def enqueue(
    store: Store, record: TaskRecord, *, saved: Saved | None = None, due: Due | None = None
) -> TaskRecord:
    """Store a new task and put its item into its queue; a task that is there already is taken up where it stands.

    Args:
        store: where.
        record: the task, in state `new` or `blocked`, with its queue.
        saved: called with the record's sequence when it is saved, before anybody is told; what it raises ends it there.
        due: when its item is to be in the queue; None for now.

    Returns:
        The task as it is stored.

    Raises:
        TaskTooLargeError: the record would not fit; nothing was sent.
        TaskExistsError: there is another task under this id.
        QueueNotFoundError: there is no such queue; the task is `queue_error`.
        QueueFullError: the queue is full; the task is `queue_error`.
        RefusedError: the server said no.
        OutcomeUnknownError: no answer in time; calling again is safe.
    """
    check_size(store, record)
    for _ in range(_ATTEMPTS):
        try:
            sequence = await store.save_surely(record, expected=0)
        except ConflictError:
            stored = await store.load(record.id)
            if stored is None:
                continue  # it was removed in between
            try:
                return await _enqueue_again(store, stored, record, due)
            except ConflictError:
                continue
        if saved is not None:
            await saved(sequence)
        await publish_state(store, record)
        return await place(store, record, sequence, replace=False, due=due)
    raise ConflictError(record.id, 0)


def check_size(store: Store, record: TaskRecord) -> None:
    """Make sure that a task fits, and has room to grow.

    Raises:
        TaskTooLargeError: it does not.
    """
    size, limit = len(record.to_wire()), store.jetstream.transport.max_payload - HEADROOM
    if size > limit:
        raise TaskTooLargeError(record.id, size, limit)


def same_task(found: TaskRecord, wanted: TaskRecord) -> None:
    """Make sure that a task that is there is the one that is to be enqueued.

    Raises:
        TaskExistsError: it is another one.
    """
    for what in ("type", "queue", "payload", "dependencies"):
        if getattr(found, what) != getattr(wanted, what):
            raise TaskExistsError(found.id, what)


async def _enqueue_again(store: Store, stored: Stored, wanted: TaskRecord, due: Due | None) -> TaskRecord:
    found = stored.readable()
    same_task(found, wanted)
    if found.state not in _AGAIN:
        return found
    sequence = stored.sequence
    if found.state is TaskState.QUEUE_ERROR:
        found, sequence = await start_over(store, stored, found)
    # Replaces an item that is there: the ack of an old one would otherwise take the only item away.
    return await place(store, found, sequence, replace=True, due=due)


async def start_over(store: Store, stored: Stored, record: TaskRecord) -> tuple[TaskRecord, int]:
    """Save a task as it was when it was enqueued; its item is still to be placed.

    Returns:
        The task as it is stored now, and its sequence.

    Raises:
        ConflictError: somebody else changed it meanwhile.
        StoreError: the store failed.
    """
    fresh = record.fresh()
    sequence = await store.save_surely(fresh, expected=stored.sequence)
    await publish_state(store, fresh)
    return fresh, sequence


async def place(
    store: Store, record: TaskRecord, sequence: int, *, replace: bool, due: Due | None = None
) -> TaskRecord:
    """Put the item of a task that was just saved into its queue; where that is refused, the task is a `queue_error`.

    Args:
        store: where.
        record: the task as it was saved.
        sequence: its sequence.
        replace: take the place of an item that is there.
        due: when its item is to be in the queue; None for now. A schedule that stands already stays.

    Returns:
        The task as it is stored.

    Raises:
        QueueNotFoundError: its queue is gone; the task is `queue_error`.
        QueueFullError: its queue is full; the task is `queue_error`.
        OutcomeUnknownError: no answer in time.
    """
    try:
        if record.dependencies:
            # Before anybody looks at the parents: whoever ends one later finds who waits for it.
            await store.dependents.tie(record, record.dependencies)
        await _put(store, record, replace, due)
    except OutcomeUnknownError as err:
        raise OutcomeUnknownError(f"enqueueing task {record.id}") from err
    except NotConnectedError:
        raise
    except StoreError as err:
        failed = record.replace(state=TaskState.QUEUE_ERROR, last_err=str(err))
        try:
            await store.save_surely(failed, expected=sequence)
        except ConflictError:
            # Somebody took the task on meanwhile, so it did get into its queue.
            current = await store.load(record.id)
            if current is not None and current.record is not None and not current.record.state.final:
                return current.record
        except StoreError as second:
            _log.warning("task %s was not enqueued, and that could not be saved: %s", record.id, second)
        else:
            await publish_state(store, failed)
            with suppress(StoreError):
                await store.dependents.ended(failed)
        raise
    return record


async def _put(store: Store, record: TaskRecord, replace: bool, due: Due | None) -> None:
    if due is None:
        await store.publish_item(record.queue, record.id, replace=replace)
    elif due.outside:
        # One that waits for others may be brought back before its time, and must then know it.
        headers = {H_DUE: str(due.at_ns)} if record.dependencies else None
        await store.park_item(record.queue, record.id, due.at_ns, headers=headers, replace=False)
    else:
        await store.publish_item(record.queue, record.id, replace=replace, headers={H_DUE: str(due.at_ns)})


async def publish_state(store: Store, record: TaskRecord) -> None:
    """Tell the state that a task has come into; best effort, the store is the truth."""
    event = TaskStateEvent.of(record, new_id(), store.now_ns())
    try:
        await store.jetstream.transport.publish(task_event_subject(record.id), event.to_wire())
    except StoreError as err:
        _log.debug("no event for task %s: %s", record.id, err)


async def loaded(store: Store, task_id: str) -> Stored:
    """Read a task.

    Raises:
        TaskNotFoundError: there is no such task.
        StoreError: the store failed.
    """
    stored = await store.load(task_id)
    if stored is None:
        raise TaskNotFoundError(task_id)
    return stored
