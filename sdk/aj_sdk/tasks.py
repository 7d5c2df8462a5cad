"""What an administrator does with tasks: look for them, let them start over, cancel and remove them.

`client.admin.tasks`. Which tasks are meant is a `TaskFilter`, the same one for looking and for acting.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Literal, TypeAlias

import msgspec

from aj_sdk.cancel import cancel
from aj_sdk.dead import DeadLetters
from aj_sdk.enqueue import loaded
from aj_sdk.errors import AsyncJobsError, ConflictError, UsageError
from aj_sdk.family import Family, find_family
from aj_sdk.moment import Moment, deadline_ns
from aj_sdk.retry import SAME_DEADLINE, retry
from aj_sdk.run_now import RunNow, run_now
from aj_sdk.store import Store, no_task_store
from aj_sdk.task_filter import ANY_TASK, TaskFilter
from aj_sdk.wire.names import TASKS_STREAM
from aj_sdk.wire.signing import Signer
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["Acted", "NewDeadline", "Tasks"]

NewDeadline: TypeAlias = Moment | Literal["same"] | None
"""What becomes of a deadline: another one, the same one, none."""

_DELETE_ATTEMPTS: Final = 10
_AT_ONCE: Final = 32


class Acted(msgspec.Struct, frozen=True):
    """What became of one task of many.

    Attributes:
        task_id: the task.
        task: as it is stored now; None where it was removed, or nothing was done.
        error: why nothing was done, or what is unknown of it; None when all went well.
    """

    task_id: str
    task: TaskRecord | None = None
    error: AsyncJobsError | None = None


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

    async def select(self, wanted: TaskFilter = ANY_TASK, *, limit: int = 0) -> AsyncIterator[Stored]:
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

    async def retry(
        self, task_id: str, *, force: bool = False, deadline: NewDeadline = "same", only: TaskFilter = ANY_TASK
    ) -> TaskRecord:
        """Let a task start over, in the queue that it was in: a new run, with no tries.

        Its id, type, queue, payload and time of creation stay, and so does its signature.

        Args:
            task_id: the task.
            force: also one that has not ended. A bridge that is at work on it is told to stop and has let go of it
                before the new run begins; where that can't be known for sure, a warning is logged.
            deadline: a new deadline, None for none. A signed task is then signed anew, by the client's signer.
            only: leave it alone unless this takes it, as it is now.

        Returns:
            The task as it is stored now: state `new` (`blocked` when it has dependencies).

        Raises:
            TaskNotFoundError: there is no such task.
            TaskChangedError: `only` does not take it.
            TaskStateError: it has not ended, and there is no force.
            DeadlinePassedError: its deadline has passed: give it another.
            SignatureError: its signature covers its deadline, and the client has no signer.
            QueueFullError: its queue is full; the task is `queue_error`, retry it later.
            StoreError: the store failed or said no.
        """
        until_ns: int | None = SAME_DEADLINE
        if deadline != "same":
            until_ns = None if deadline is None else deadline_ns(deadline, self._store.now_ns())
        return await retry(self._store, task_id, force=force, deadline_ns=until_ns, signer=self._signer, only=only)

    async def cancel(self, task_id: str, reason: str = "", *, only: TaskFilter = ANY_TASK) -> TaskRecord:
        """End a task that waits or runs: state `terminated`, with the reason as its last error.

        A bridge that is at work on it stops the call and tells the handler; what the handler answers all the same is
        not saved. A Go worker is not told, but what it saves is refused. Doing it again is safe.

        Args:
            task_id: the task.
            reason: why.
            only: leave it alone unless this takes it, as it is now.

        Returns:
            The task as it is stored now.

        Raises:
            TaskNotFoundError: there is no such task.
            TaskChangedError: `only` does not take it.
            TaskStateError: it has ended otherwise.
            StoreError: the store failed or said no. The task may be cancelled all the same; do it again.
        """
        return await cancel(self._store, self._dead, task_id, reason, only=only)

    async def family(self, task_id: str, *, ended: bool = True) -> Family:
        """Find what a task waits for, what waits for it, and so on in both directions.

        Args:
            task_id: the task.
            ended: also descendants that have ended, for which the whole task store is read; else only those that wait.

        Raises:
            TaskNotFoundError: there is no such task.
            StoreError: the store failed.
        """
        return await find_family(self._store, task_id, ended=ended)

    async def run_now(self, task_id: str) -> RunNow:
        """Bring a task that waits for its time, its next try or a handler into its queue now.

        One that waits for other tasks looks at them, and goes on waiting while they are not done.

        Returns:
            What came of it, and the task as it was found.

        Raises:
            TaskNotFoundError: there is no such task.
            StoreError: the store failed; doing it again is safe.
        """
        return await run_now(self._store, task_id)

    async def delete(self, task_id: str, *, only: TaskFilter = ANY_TASK) -> None:
        """Remove a task's record, its item and its schedule; a bridge that is at work on it stops the call.

        Tasks that wait for it become `unreachable`, unless it had completed. Its dead letters stay.

        Args:
            task_id: the task.
            only: leave it alone unless this takes it, as it is now.

        Raises:
            TaskNotFoundError: there is no such task.
            TaskChangedError: `only` does not take it.
            StoreError: the store failed.
        """
        for _ in range(_DELETE_ATTEMPTS):
            stored = only.check(await loaded(self._store, task_id))
            queue = stored.record.queue if stored.record is not None else ""
            # Read before the record goes: what a new task of this id puts there afterwards must survive.
            places = await self._store.find_items(queue, task_id) if queue else []
            record = stored.record
            if record is not None and record.state.final:
                # Those that wait for it may not know yet; a Go worker tells nobody.
                await self._store.dependents.ended(record)
            try:
                await self._store.remove(task_id, stored.sequence)
            except ConflictError:
                continue  # it was changed in between: remove what it is now
            await self._store.tell_bridges(task_id)
            await self._store.remove_items(places)
            if record is None or not record.state.final:
                await self._store.dependents.removed(task_id)
                if record is not None and record.dependencies:
                    await self._store.edges.drop(task_id, record.dependencies)
            await self._store.forget_attempts(task_id)
            return
        raise ConflictError(task_id, stored.sequence)

    # On many.

    async def retry_many(
        self,
        wanted: TaskFilter,
        *,
        limit: int = 0,
        at_once: int = _AT_ONCE,
        force: bool = False,
        deadline: NewDeadline = "same",
    ) -> AsyncIterator[Acted]:
        """Let all tasks start over that a filter takes; see `retry`.

        `async for acted in client.admin.tasks.retry_many(TaskFilter(states=[TaskState.EXPIRED], queue="EMAIL")): ...`

        Each task is looked at once more before it is touched: one that has changed meanwhile, so that the filter does
        not take it any more, is left alone, with a `TaskChangedError`.

        Args:
            wanted: which ones; it must say something.
            limit: at most so many, <= 0 for all.
            at_once: how many are under way at a time.
            force: as in `retry`.
            deadline: as in `retry`.

        Raises:
            UsageError: the filter takes every task.
            StoreError: the tasks can't be read.
        """

        async def act(task_id: str) -> TaskRecord:
            return await self.retry(task_id, force=force, deadline=deadline, only=wanted)

        async for acted in self._each(wanted, limit, at_once, act):
            yield acted

    async def cancel_many(
        self, wanted: TaskFilter, reason: str = "", *, limit: int = 0, at_once: int = _AT_ONCE
    ) -> AsyncIterator[Acted]:
        """Cancel all tasks that a filter takes; see `cancel` and `retry_many`.

        Args:
            wanted: which ones; it must say something.
            reason: why.
            limit: at most so many, <= 0 for all.
            at_once: how many are under way at a time.

        Raises:
            UsageError: the filter takes every task.
            StoreError: the tasks can't be read.
        """

        async def act(task_id: str) -> TaskRecord:
            return await self.cancel(task_id, reason, only=wanted)

        async for acted in self._each(wanted, limit, at_once, act):
            yield acted

    async def delete_many(self, wanted: TaskFilter, *, limit: int = 0, at_once: int = _AT_ONCE) -> AsyncIterator[Acted]:
        """Remove all tasks that a filter takes; see `delete` and `retry_many`.

        Args:
            wanted: which ones; it must say something.
            limit: at most so many, <= 0 for all.
            at_once: how many are under way at a time.

        Raises:
            UsageError: the filter takes every task.
            StoreError: the tasks can't be read.
        """

        async def act(task_id: str) -> None:
            await self.delete(task_id, only=wanted)

        async for acted in self._each(wanted, limit, at_once, act):
            yield acted

    async def _each(
        self, wanted: TaskFilter, limit: int, at_once: int, act: Callable[[str], Awaitable[TaskRecord | None]]
    ) -> AsyncIterator[Acted]:
        if wanted.any:
            raise UsageError("a filter that takes every task is too much for one call: say which ones are meant")
        if at_once < 1:
            raise UsageError("at least one task has to be under way at a time")

        async def one(task_id: str) -> Acted:
            try:
                return Acted(task_id, await act(task_id))
            except AsyncJobsError as err:
                return Acted(task_id, error=err)

        # In parts, so that nothing is under way while the caller has its turn.
        part: list[str] = []
        async for stored in self.select(wanted, limit=limit):
            part.append(stored.task_id)
            if len(part) == at_once:
                for acted in await asyncio.gather(*map(one, part)):
                    yield acted
                part.clear()
        for acted in await asyncio.gather(*map(one, part)):
            yield acted

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
