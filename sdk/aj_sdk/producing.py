"""From a task as a program writes it down to a stored one: signed, its queue there, its time and its key kept to.

Knows what an open client knows about its queues, and forgets it with the client.
"""

import asyncio
import time

from aj_sdk.admin import Admin
from aj_sdk.circles import refuse_circle
from aj_sdk.enqueue import Due, enqueue
from aj_sdk.errors import CannotWaitError, QueueNotFoundError
from aj_sdk.graph import Graph, enqueue_graph, new_tasks
from aj_sdk.spec import NewTask, TaskSpec, new_task
from aj_sdk.store import Store
from aj_sdk.unique import Unique, UniqueKeys
from aj_sdk.wire.names import DEFAULT_QUEUE, queue_stream
from aj_sdk.wire.queue import default_queue
from aj_sdk.wire.signing import Signer
from aj_sdk.wire.task import TaskRecord

__all__ = ["Producer"]


class Producer:
    """Enqueues tasks; the errors are those of `Client.enqueue`.

    Args:
        store: where they are stored.
        admin: makes the task store and the queue `DEFAULT` where they are missing, and looks how a queue waits.
        signer: signs each task; None for nobody.
    """

    def __init__(self, store: Store, admin: Admin, signer: Signer | None) -> None:
        self._store = store
        self._admin = admin
        self._signer = signer
        self._unique = UniqueKeys(store)
        self._queues: set[str] = set()
        self._outside: dict[str, bool] = {}
        self._queues_lock = asyncio.Lock()

    async def enqueue(self, spec: TaskSpec, queue: str) -> TaskRecord:
        """Store a task and put it into its queue.

        Args:
            spec: the task.
            queue: where it goes when it names no queue of its own.
        """
        unique = Unique.of(spec.unique_key, spec.unique_for, until_end=spec.unique_until_end)
        task = new_task(spec, spec.queue or queue, time.time_ns())
        record = self._signed(task.record)
        await self._need_queue(record.queue)
        if record.dependencies and spec.id is not None:
            await refuse_circle(self._store, [record])
        due = None if task.due_ns is None else Due(task.due_ns, await self._waits_outside(record.queue))
        try:
            if unique is not None:
                return await self._unique.enqueue(record, unique, due)
            return await enqueue(self._store, record, due=due)
        except QueueNotFoundError:
            self._queues.discard(record.queue)
            self._outside.pop(record.queue, None)
            raise

    async def enqueue_graph(self, graph: Graph, queue: str) -> list[TaskRecord]:
        """Store the tasks of a graph and put them into their queues, in the order in which it was written.

        Args:
            graph: the tasks.
            queue: where those go that name no queue of their own.
        """
        tasks = [NewTask(self._signed(task.record), task.due_ns) for task in new_tasks(graph, queue, time.time_ns())]
        for name in {task.record.queue for task in tasks}:
            await self._need_queue(name)
        if any(spec.id is not None for spec in graph.specs):
            await refuse_circle(self._store, [task.record for task in tasks])
        outside: dict[str, bool] = {}
        for task in tasks:
            record = task.record
            if record.queue not in outside and (task.due_ns is not None or record.dependencies):
                try:
                    outside[record.queue] = await self._waits_outside(record.queue)
                except CannotWaitError:
                    if task.due_ns is not None:
                        raise
                    outside[record.queue] = False
        return await enqueue_graph(self._store, tasks, lambda name: outside.get(name, False))

    async def _waits_outside(self, queue: str) -> bool:
        """Say whether a task waits outside of a queue until it is due; a queue that is not ours is adopted for it.

        Raises:
            CannotWaitError: it can't wait inside either.
        """
        found = self._outside.get(queue)
        if found is None:
            bound = await self._admin.bind_queue(queue, adopt=True)
            if not (bound.parks or bound.settings.ours):
                raise CannotWaitError(queue)
            found = self._outside[queue] = bound.parks
        return found

    def _signed(self, record: TaskRecord) -> TaskRecord:
        return record if self._signer is None else self._signer.sign(record)

    async def _need_queue(self, name: str) -> None:
        if name in self._queues:
            return
        async with self._queues_lock:
            if name in self._queues:
                return
            await self._admin.ensure_task_store()
            if name == DEFAULT_QUEUE:
                await self._admin.create_queue(default_queue())
            elif await self._store.jetstream.stream_info(queue_stream(name)) is None:
                raise QueueNotFoundError(name)
            self._queues.add(name)
