"""What an administrator does with tasks: look for them, let them start over, cancel and remove them.

`client.admin.tasks`. Which tasks are meant is a `TaskFilter`, the same one for looking and for acting.
"""

from collections.abc import AsyncIterator, Collection
from typing import Final, Literal, TypeAlias

import msgspec

from aj_sdk.cancel import cancel
from aj_sdk.dead import DeadLetters
from aj_sdk.enqueue import loaded
from aj_sdk.errors import ConflictError
from aj_sdk.moment import Moment, deadline_ns
from aj_sdk.retry import SAME_DEADLINE, retry
from aj_sdk.store import Store, no_task_store
from aj_sdk.wire.names import TASKS_STREAM
from aj_sdk.wire.signing import Signer
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["NewDeadline", "TaskFilter", "Tasks"]

NewDeadline: TypeAlias = Moment | Literal["same"] | None
"""What becomes of a deadline: another one, the same one, none."""

_DELETE_ATTEMPTS: Final = 10


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


_ANY: Final = TaskFilter()


class Tasks:
    """The tasks of the task store.

    Args:
        store: tasks and items.
        dead: the dead letters, which a cancelled task leaves too.
        signer: signs a signed task anew where its deadline is changed.
    """

    def __init__(self, store: Store, dead: DeadLetters, signer: Signer | None = None) -> None:
        self._js = store.jetstream
        self._store = store
        self._dead = dead
        self._signer = signer

    async def select(self, wanted: TaskFilter = _ANY, *, limit: int = 0) -> AsyncIterator[Stored]:
        """Read tasks in the order in which they were last changed, the one changed longest ago first.

        Each task comes at most once, as it was when it was read; one that changes meanwhile may be left out. Where
        the store has replicas a change of just now may not show yet. A record that can't be read comes with its
        `fault`, where nothing is asked of it.

        Args:
            wanted: which ones.
            limit: at most so many, <= 0 for all.

        Raises:
            StoreError: the store failed, or there is no task store.
        """
        info = await self._js.stream_info(TASKS_STREAM)
        if info is None:
            raise no_task_store()
        # What is changed from here on moves past this end: a busy store would else be read for ever.
        end = int(info["state"]["last_seq"])
        left = limit
        async for stored in self._store.scan():
            if stored.sequence > end:
                return
            if not wanted.takes(stored.record):
                continue
            yield stored
            left -= 1
            if left == 0:
                return

    async def retry(self, task_id: str, *, force: bool = False, deadline: NewDeadline = "same") -> TaskRecord:
        """Let a task start over, in the queue that it was in: a new run, with no tries.

        Its id, type, queue, payload and time of creation stay, and so does its signature.

        Args:
            task_id: the task.
            force: also one that has not ended. A bridge that is at work on it is told to stop and has let go of it
                before the new run begins; where that can't be known for sure, a warning is logged.
            deadline: a new deadline, None for none. A signed task is then signed anew, by the client's signer.

        Returns:
            The task as it is stored now: state `new` (`blocked` when it has dependencies).

        Raises:
            TaskNotFoundError: there is no such task.
            TaskStateError: it has not ended, and there is no force.
            DeadlinePassedError: its deadline has passed: give it another.
            SignatureError: its signature covers its deadline, and the client has no signer.
            QueueFullError: its queue is full; the task is `queue_error`, retry it later.
            StoreError: the store failed or said no.
        """
        until_ns: int | None = SAME_DEADLINE
        if deadline != "same":
            until_ns = None if deadline is None else deadline_ns(deadline, self._store.now_ns())
        return await retry(self._store, task_id, force=force, deadline_ns=until_ns, signer=self._signer)

    async def cancel(self, task_id: str, reason: str = "") -> TaskRecord:
        """End a task that waits or runs: state `terminated`, with the reason as its last error.

        A bridge that is at work on it stops the call and tells the handler; what the handler answers all the same is
        not saved. A Go worker is not told, but what it saves is refused. Doing it again is safe.

        Returns:
            The task as it is stored now.

        Raises:
            TaskNotFoundError: there is no such task.
            TaskStateError: it has ended otherwise.
            StoreError: the store failed or said no. The task may be cancelled all the same; do it again.
        """
        return await cancel(self._store, self._dead, task_id, reason)

    async def delete(self, task_id: str) -> None:
        """Remove a task's record, its item and its schedule; a bridge that is at work on it stops the call.

        Tasks that wait for it become `unreachable`. Its dead letters stay.

        Raises:
            TaskNotFoundError: there is no such task.
            StoreError: the store failed.
        """
        for _ in range(_DELETE_ATTEMPTS):
            stored = await loaded(self._store, task_id)
            queue = stored.record.queue if stored.record is not None else ""
            # Read before the record goes: what a new task of this id puts there afterwards must survive.
            places = await self._store.find_items(queue, task_id) if queue else []
            try:
                await self._store.remove(task_id, stored.sequence)
            except ConflictError:
                continue  # it was changed in between: remove what it is now
            await self._store.tell_bridges(task_id)
            await self._store.remove_items(places)
            return
        raise ConflictError(task_id, stored.sequence)

    async def purge(self) -> int:
        """Remove all tasks; their items go when a worker comes upon them.

        Returns:
            How many.

        Raises:
            StoreError: the store failed, or there is no task store.
        """
        if await self._js.stream_info(TASKS_STREAM) is None:
            raise no_task_store()
        return await self._js.purge(TASKS_STREAM)
