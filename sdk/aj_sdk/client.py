"""The producer: enqueue tasks, look at them, wait for their results, watch what happens.

`Client.connect(...)` opens a connection of its own, `Client(connection)` uses one that the program has. What an
administrator does is `client.admin`.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, overload

from nats.aio.client import Client as Connection

from aj_sdk.circles import refuse_circle
from aj_sdk.connect import ConnectionFlags, ConnectOptions, connect, resolve_connection
from aj_sdk.enqueue import Due, enqueue, loaded
from aj_sdk.errors import (
    AsyncJobsError,
    CannotWaitError,
    DecodeError,
    NoRespondersError,
    NotConnectedError,
    OutcomeUnknownError,
    QueueNotFoundError,
    RefusedError,
    TaskFailedError,
    UsageError,
)
from aj_sdk.fast import open_transport
from aj_sdk.graph import Graph, enqueue_graph, new_tasks
from aj_sdk.jetstream import STREAM_NOT_FOUND, JetStream
from aj_sdk.moment import Moment
from aj_sdk.queue import Span
from aj_sdk.results import result_bytes, result_value
from aj_sdk.spec import NewTask, TaskSpec, as_spec, new_task
from aj_sdk.store import Store
from aj_sdk.transport import Message
from aj_sdk.unique import Unique, UniqueKeys
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.event import Event, TaskStateEvent, parse_event
from aj_sdk.wire.interim import Progress
from aj_sdk.wire.names import (
    API_PREFIX,
    ATTEMPTS_STREAM,
    DEFAULT_QUEUE,
    EVENT_PREFIX,
    EVENTS,
    PROGRESS_SUBJECTS,
    attempts_subject,
    progress_subject,
    queue_stream,
    task_event_subject,
)
from aj_sdk.wire.queue import default_queue
from aj_sdk.wire.signing import Signer, Verifier
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import DEFAULT_MAX_TRIES, TaskRecord, TaskResult

if TYPE_CHECKING:
    from aj_sdk.admin import Admin

__all__ = ["Client"]

_log: Final = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_LOOK_S: Final = 1.0
_LAST_LOOK_S: Final = 10.0
_WATCHED: Final = 10_000
"""Events that wait for a watcher that is slower than they come."""


class Client:
    """Produces tasks and reads them; an async context manager.

    Args:
        connection: an open nats-py connection of the program's; it is used, never closed.
        jetstream_prefix: subject prefix of the JetStream API, for a domain or an imported account.
        jetstream_event_prefix: subject prefix of JetStream's events, for an imported account.
        timeout: seconds to wait for each answer of the server.
        signer: signs each task that is enqueued.
        verifier: refuses to load tasks without a valid signature.
    """

    def __init__(
        self,
        connection: Connection | None = None,
        *,
        jetstream_prefix: str = API_PREFIX,
        jetstream_event_prefix: str = EVENT_PREFIX,
        timeout: float = 5.0,
        signer: Signer | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        self._signer = signer
        self._verifier = verifier
        self._connection = connection
        self._options: ConnectOptions | None = None
        self._prefix = jetstream_prefix
        self._event_prefix = jetstream_event_prefix
        self._timeout = timeout
        self._stack: AsyncExitStack | None = None
        self._store: Store | None = None
        self._admin: Admin | None = None
        self._unique: UniqueKeys | None = None
        self._queues: set[str] = set()
        self._outside: dict[str, bool] = {}
        self._queues_lock = asyncio.Lock()

    @classmethod
    def connect(
        cls,
        server: str | None = None,
        *,
        context: str | None = None,
        options: ConnectOptions | None = None,
        name: str = "asyncjobs",
        timeout: float = 5.0,
        signer: Signer | None = None,
        verifier: Verifier | None = None,
    ) -> Self:
        """Make a client with a connection of its own, opened and closed by `async with`.

        Without a server, a context and options, the environment decides: `AJ_SERVER`, `AJ_CONTEXT` and the like, the
        context `AJC`, the one that the `nats` command has selected, a server on this machine.

        Args:
            server: URL, or several separated by commas.
            context: name of a NATS context.
            options: everything about the connection; then neither of the others.
            name: name of the connection, shown by the server's monitoring.
            timeout: seconds to wait for each answer of the server.
            signer: signs each task that is enqueued.
            verifier: refuses to load tasks without a valid signature.

        Raises:
            InvalidConfigError: a URL or a context is wrong.
            UsageError: more than one of server, context and options.
        """
        if sum(each is not None for each in (server, context, options)) > 1:
            raise UsageError("give one of server, context and options")
        if options is None:
            flags = ConnectionFlags(server=server or "", context=context or "")
            options = resolve_connection(flags, os.environ, name=name)
        client = cls(
            jetstream_prefix=options.js_prefix,
            jetstream_event_prefix=options.js_event_prefix,
            timeout=timeout,
            signer=signer,
            verifier=verifier,
        )
        client._options = options
        return client

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise UsageError("the client is open already")
        # Who only imports a client, such as a web server that has yet to fork, does not pay for it.
        from aj_sdk.admin import Admin  # noqa: PLC0415

        async with AsyncExitStack() as stack:
            connection = self._connection
            if connection is None:
                if self._options is None:
                    raise UsageError("a client needs a connection: Client(connection) or Client.connect(...)")
                connection = await connect(self._options)
                stack.push_async_callback(connection.close)
            # A connection of the program's is left as it is.
            transport = await stack.enter_async_context(open_transport(connection, fast=self._connection is None))
            jetstream = JetStream(
                transport, prefix=self._prefix, event_prefix=self._event_prefix, timeout=self._timeout
            )
            self._store = Store(jetstream)
            self._unique = UniqueKeys(self._store)
            self._admin = Admin(jetstream, self._store, self._signer)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        self._store = self._admin = self._unique = None
        self._queues.clear()
        self._outside.clear()
        if stack is not None:
            await stack.aclose()

    @property
    def admin(self) -> "Admin":
        """Queues, the task store and tasks, for an administrator."""
        if self._admin is None:
            raise UsageError("the client is not open: use it in `async with`")
        return self._admin

    @property
    def store(self) -> Store:
        """Tasks and items as they are stored; for what `Client` and `Admin` do not offer."""
        if self._store is None:
            raise UsageError("the client is not open: use it in `async with`")
        return self._store

    # Producing.

    async def enqueue(
        self,
        type: str,  # noqa: A002 - the task's own word
        payload: Any = None,
        *,
        queue: str = DEFAULT_QUEUE,
        id: str | None = None,  # noqa: A002 - the task's own word
        deadline: Moment | None = None,
        max_tries: int = DEFAULT_MAX_TRIES,
        unique_key: str | None = None,
        unique_for: Span | None = None,
        unique_until_end: bool = False,
        dependencies: Sequence[str | TaskRecord] = (),
        load_dependencies: bool = False,
        run_at: datetime | None = None,
        delay: Span | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> TaskRecord:
        """Store a task and put it into a queue.

        With an id of the caller's, doing it again is safe and makes one task: the second call finds the first one's
        and finishes what may be left of it. With a unique key there is one task for the whole window, whoever enqueues
        it: the others get that one, as it then is. A key whose task is gone is free again. The queue `DEFAULT` and the
        task store are made when they are not there.

        Args:
            type: the task's type, which decides about the handler.
            payload: bytes as they are, None for none, anything else as JSON.
            queue: where it goes.
            id: a chosen id; None for a new one.
            deadline: no try begins after it.
            max_tries: how often it is tried, <= 0 for no limit.
            unique_key: any text; of the tasks with this key within `unique_for` there is one. Keys are shared by all
                types and queues.
            unique_for: how long the key stands for its first task, rounded up to seconds.
            unique_until_end: make room also when that task has ended before.
            dependencies: tasks, or their ids, that must complete before this one starts: until then it is `blocked`,
                and `unreachable` as soon as one of them fails or is missing.
            load_dependencies: give their results to the handler, as `task.dependency_results`.
            run_at: it does not start before; until then it waits outside of its queue, in state `new`. Enqueued again
                meanwhile, the time stays as it is; without a time it then runs at once.
            delay: the same as a span from now, a timedelta or seconds.
            traceparent: W3C trace context that its handler goes on with; None for the one of OpenTelemetry's current
                span, where the program uses it; empty for none.
            tracestate: the trace state that goes with `traceparent`.

        Returns:
            The task as it is stored; with a unique key it may be another one, with another id.

        Raises:
            UsageError: a name, the payload, a time, the trace context or the key is wrong, another task has this id,
                or one of another type or queue has the key; nothing was stored.
            CycleError: it would wait for itself; nothing was stored.
            CannotWaitError: the queue can't hold back a task until it is due; nothing was stored.
            QueueNotFoundError: there is no such queue; make it with `ajc queue add NAME` or
                `await client.admin.create_queue(Queue(NAME))`.
            QueueFullError: the queue takes no more; the task is stored as `queue_error`, enqueue it again later.
            OutcomeUnknownError: no answer in time; enqueue it again with the same id.
            StoreError: the store failed or said no.
        """
        spec = TaskSpec(
            type,
            payload,
            queue,
            id,
            deadline,
            max_tries,
            unique_key,
            unique_for,
            unique_until_end,
            dependencies,
            load_dependencies,
            run_at,
            delay,
            traceparent,
            tracestate,
        )
        return await self._enqueue(spec, queue)

    @overload
    async def enqueue_many(
        self,
        tasks: Iterable[tuple[str, Any] | TaskSpec],
        *,
        queue: str = DEFAULT_QUEUE,
        concurrency: int = 256,
        return_errors: Literal[False] = False,
    ) -> list[TaskRecord]: ...
    @overload
    async def enqueue_many(
        self,
        tasks: Iterable[tuple[str, Any] | TaskSpec],
        *,
        queue: str = DEFAULT_QUEUE,
        concurrency: int = 256,
        return_errors: Literal[True],
    ) -> list[TaskRecord | AsyncJobsError]: ...
    async def enqueue_many(
        self,
        tasks: Iterable[tuple[str, Any] | TaskSpec],
        *,
        queue: str = DEFAULT_QUEUE,
        concurrency: int = 256,
        return_errors: bool = False,
    ) -> list[TaskRecord] | list[TaskRecord | AsyncJobsError]:
        """Store many tasks and put them into queues, several at once.

        The tasks' order in the queue is not that of the iterable. When one fails, no new ones are begun, those under
        way are finished, and the first error is raised; give ids and it is safe to do it all again.

        Args:
            tasks: pairs of type and payload, or `TaskSpec` values; read as they are needed.
            queue: where those go that name no queue of their own.
            concurrency: how many are under way at once.
            return_errors: do them all, and give an error in place of each task that failed.

        Returns:
            The tasks as they are stored, in the order of the iterable.

        Raises:
            AsyncJobsError: see `enqueue`.
        """
        if concurrency < 1:
            raise UsageError("enqueue_many needs a concurrency of at least 1")
        results: dict[int, TaskRecord] = {}
        errors: dict[int, AsyncJobsError] = {}
        numbered = enumerate(tasks)

        async def work() -> None:
            for number, task in numbered:
                try:
                    results[number] = await self._enqueue(as_spec(task), queue)
                except AsyncJobsError as err:
                    errors[number] = err
                if errors and not return_errors:
                    return

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None  # what the iterable itself raised
        if errors and not return_errors:
            raise errors[min(errors)]
        done: dict[int, TaskRecord | AsyncJobsError] = {**results, **errors}
        return [done[number] for number in range(len(done))]

    async def enqueue_graph(self, graph: Graph, *, queue: str = DEFAULT_QUEUE) -> list[TaskRecord]:
        """Store several tasks that wait for each other: `chain`, `group` and `chord` make a graph of them.

        Nothing of it runs before all of it is stored. With ids of the caller's, doing it again is safe: tasks that
        are there are taken up where they stand.

        Args:
            graph: the tasks.
            queue: where those go that name no queue of their own.

        Returns:
            The tasks as they are stored, in the order in which the graph was written; the last one of a chain or
            chord is the last.

        Raises:
            UsageError: as for `enqueue`; nothing was stored.
            CycleError: tasks would wait for themselves; nothing was stored.
            StoreError: the store failed or said no: enqueue it again, with the same ids. What of it is stored does not
                run, or runs as a whole.
        """
        tasks = [NewTask(self._signed(task.record), task.due_ns) for task in new_tasks(graph, queue, time.time_ns())]
        for name in {task.record.queue for task in tasks}:
            await self._need_queue(name)
        if any(spec.id is not None for spec in graph.specs):
            await refuse_circle(self.store, [task.record for task in tasks])
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
        return await enqueue_graph(self.store, tasks, lambda name: outside.get(name, False))

    async def _enqueue(self, spec: TaskSpec, queue: str) -> TaskRecord:
        unique = Unique.of(spec.unique_key, spec.unique_for, until_end=spec.unique_until_end)
        task = new_task(spec, spec.queue or queue, time.time_ns())
        record = self._signed(task.record)
        await self._need_queue(record.queue)
        if record.dependencies and spec.id is not None:
            await refuse_circle(self.store, [record])
        due = None if task.due_ns is None else Due(task.due_ns, await self._waits_outside(record.queue))
        try:
            if unique is not None:
                assert self._unique is not None
                return await self._unique.enqueue(record, unique, due)
            return await enqueue(self.store, record, due=due)
        except QueueNotFoundError:
            self._queues.discard(record.queue)
            self._outside.pop(record.queue, None)
            raise

    async def _waits_outside(self, queue: str) -> bool:
        """Say whether a task waits outside of a queue until it is due; a queue that is not ours is adopted for it.

        Raises:
            CannotWaitError: it can't wait inside either.
        """
        found = self._outside.get(queue)
        if found is None:
            bound = await self.admin.bind_queue(queue, adopt=True)
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
            await self.admin.ensure_task_store()
            if name == DEFAULT_QUEUE:
                await self.admin.create_queue(default_queue())
            elif await self.store.jetstream.stream_info(queue_stream(name)) is None:
                raise QueueNotFoundError(name)
            self._queues.add(name)

    async def cancel(self, task_id: str, *, reason: str = "") -> TaskRecord:
        """End a task that waits or runs; see `Tasks.cancel`.

        Returns:
            The task as it is stored now: `terminated`.

        Raises:
            TaskNotFoundError: there is no such task.
            TaskStateError: it has ended otherwise.
            StoreError: the store failed or said no. The task may be cancelled all the same; do it again.
        """
        return await self.admin.tasks.cancel(task_id, reason)

    # Reading.

    async def load(self, task_id: str) -> TaskRecord:
        """Read a task.

        Raises:
            InvalidNameError: not a task id.
            TaskNotFoundError: there is no such task.
            DecodeError: its record can't be read.
            SignatureError: its signature is missing or wrong, where the client verifies.
            StoreError: the store failed.
        """
        record = (await loaded(self.store, task_id)).readable()
        if self._verifier is not None:
            self._verifier.verify(record)
        return record

    async def attempts(self, task_id: str) -> list[Attempt]:
        """Return what is known of the attempts at a task, the oldest first, at most the newest 50.

        Attempts that did not complete are kept, and the others where a bridge was told so. Best effort: a bridge that
        dies takes its last ones along.

        Raises:
            InvalidNameError: not a task id.
            DecodeError: one can't be read.
            StoreError: the store failed.
        """
        found = self.store.jetstream.scan(ATTEMPTS_STREAM, attempts_subject(task_id))
        try:
            return [Attempt.from_wire(message.data) async for message in found]
        except RefusedError as err:
            if err.code == STREAM_NOT_FOUND:
                return []  # no bridge of ours ever ran
            raise

    @overload
    async def result(self, task_id: str, *, timeout: float | None = None, as_type: None = None) -> Any: ...  # noqa: ASYNC109
    @overload
    async def result(self, task_id: str, *, timeout: float | None = None, as_type: type[T]) -> T: ...  # noqa: ASYNC109
    @overload
    async def result(self, task_id: str, *, timeout: float | None = None, as_type: Any) -> Any: ...  # noqa: ASYNC109
    async def result(
        self,
        task_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - what a caller expects to find
        as_type: Any = None,
    ) -> Any:
        """Wait until a task has ended, and return what its handler returned.

        Without `as_type`: the value of a reply that is JSON, the bytes of another, None for an empty one, and what an
        in-process Go handler left as it is; see `aj_sdk.results.result_value`.

        Args:
            task_id: the task.
            timeout: seconds to wait; None for as long as it takes.
            as_type: what to read the result as: `bytes`, `str`, or a type that a handler's payload may have.

        Raises:
            TimeoutError: it has not ended in time.
            TaskFailedError: it ended without a result.
            TaskNotFoundError: there is no such task, or it is gone.
            PayloadError: the result does not fit `as_type`.
            StoreError: the store failed.
        """
        found = await self._wait_for_result(task_id, timeout)
        return None if found is None else result_value(found, as_type)

    async def result_bytes(
        self,
        task_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - what a caller expects to find
    ) -> bytes:
        """Wait until a task has ended, and return the very bytes of its handler's reply; else as `result`."""
        found = await self._wait_for_result(task_id, timeout)
        return b"" if found is None else result_bytes(found)

    async def _wait_for_result(self, task_id: str, seconds: float | None) -> TaskResult | None:
        ended = asyncio.Event()

        def on_event(message: Message) -> None:
            try:
                event = TaskStateEvent.from_wire(message.data)
            except DecodeError:
                return
            if event.state.final:
                ended.set()

        # Listening comes before reading: what happens in between is then heard. Events may get lost, so the record is
        # read again now and then.
        async with asyncio.timeout(seconds):
            subscription = await self.store.jetstream.transport.subscribe(task_event_subject(task_id), on_event)
            try:
                pause = _FIRST_LOOK_S
                while True:
                    ended.clear()
                    try:
                        record = await self.load(task_id)
                    except (OutcomeUnknownError, NoRespondersError) as err:
                        _log.debug("waiting for task %s: %s", task_id, err)
                    else:
                        if record.state is TaskState.COMPLETE:
                            return record.result
                        if record.state.final:
                            raise TaskFailedError(task_id, record.state, record.last_err)
                    try:
                        async with asyncio.timeout(pause):
                            await ended.wait()
                    except TimeoutError:
                        pause = min(pause * 1.5, _LAST_LOOK_S)
            finally:
                await subscription.close()

    @asynccontextmanager
    async def watch(self, task_id: str | None = None) -> AsyncIterator[AsyncIterator[Event]]:
        """Listen to events: `async with client.watch() as events: async for event in events: ...`.

        Everything that happens after the `async with` was entered is heard, unless the watcher is so slow that
        10,000 events wait for it: then the oldest are dropped. Messages that are no known event are skipped.

        Args:
            task_id: only this task's; None for all events, a leader's election too.

        Raises:
            InvalidNameError: not a task id.
            StoreError: there is no connection.
        """
        subject = EVENTS if task_id is None else task_event_subject(task_id)
        async with self._listening(subject, parse_event) as events:
            yield events

    @asynccontextmanager
    async def progress(self, task_id: str | None = None) -> AsyncIterator[AsyncIterator[Progress]]:
        """Listen to the progress that handlers tell, as `watch` does to events; best effort.

        Args:
            task_id: only this task's; None for that of all tasks.

        Raises:
            InvalidNameError: not a task id.
            StoreError: there is no connection.
        """
        subject = PROGRESS_SUBJECTS if task_id is None else progress_subject(task_id)
        async with self._listening(subject, Progress.from_wire) as told:
            yield told

    @asynccontextmanager
    async def _listening(self, subject: str, read: Callable[[bytes], T]) -> AsyncIterator[AsyncIterator[T]]:
        waiting: asyncio.Queue[T] = asyncio.Queue()

        def on_message(message: Message) -> None:
            try:
                found = read(message.data)
            except DecodeError as err:
                _log.debug("skipped a message on %s: %s", message.subject, err)
                return
            if waiting.qsize() >= _WATCHED:
                waiting.get_nowait()
            waiting.put_nowait(found)

        async def found() -> AsyncIterator[T]:
            while True:
                try:
                    async with asyncio.timeout(_LAST_LOOK_S):
                        each = await waiting.get()
                except TimeoutError:
                    # A connection that was closed for good tells nobody who only listens.
                    if jetstream.transport.closed:
                        raise NotConnectedError("the NATS connection was closed for good") from None
                    continue
                yield each

        jetstream = self.store.jetstream
        subscription = await jetstream.transport.subscribe(subject, on_message)
        try:
            await jetstream.api_level()  # a round trip: now the server knows the subscription
            yield found()
        finally:
            await subscription.close()
