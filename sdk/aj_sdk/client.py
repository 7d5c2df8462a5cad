"""The producer: enqueue tasks, look at them, wait for their results, watch what happens.

`Client.connect(...)` opens a connection of its own, `Client(connection)` uses one that the program has. What an
administrator does is `client.admin`.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, overload

from nats.aio.client import Client as Connection

from aj_sdk.connect import ConnectionFlags, ConnectOptions, connect, resolve_connection
from aj_sdk.enqueue import loaded
from aj_sdk.errors import (
    AsyncJobsError,
    RefusedError,
    TaskFailedError,
    UsageError,
)
from aj_sdk.fast import open_transport
from aj_sdk.graph import Graph
from aj_sdk.jetstream import STREAM_NOT_FOUND, JetStream
from aj_sdk.listening import listening, until_ended
from aj_sdk.moment import Moment
from aj_sdk.queue import Span
from aj_sdk.results import result_bytes, result_value
from aj_sdk.spec import TaskSpec, as_spec
from aj_sdk.store import Store
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.event import Event, parse_event
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
    task_event_subject,
)
from aj_sdk.wire.signing import Signer, Verifier
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import DEFAULT_MAX_TRIES, TaskRecord, TaskResult

if TYPE_CHECKING:
    from aj_sdk.admin import Admin
    from aj_sdk.producing import Producer

__all__ = ["Client"]

_log: Final = logging.getLogger(__name__)

T = TypeVar("T")


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
        self._made: Producer | None = None

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
        from aj_sdk.producing import Producer  # noqa: PLC0415

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
            self._admin = Admin(jetstream, self._store, self._signer)
            self._made = Producer(self._store, self._admin, self._signer)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        self._store = self._admin = self._made = None
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

    @property
    def _producer(self) -> "Producer":
        if self._made is None:
            raise UsageError("the client is not open: use it in `async with`")
        return self._made

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
        return await self._producer.enqueue(spec, queue)

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
        producer = self._producer
        results: dict[int, TaskRecord] = {}
        errors: dict[int, AsyncJobsError] = {}
        numbered = enumerate(tasks)

        async def work() -> None:
            for number, task in numbered:
                try:
                    results[number] = await producer.enqueue(as_spec(task), queue)
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
        return await self._producer.enqueue_graph(graph, queue)

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
        async with asyncio.timeout(seconds):
            record = await until_ended(self.store.jetstream, task_id, self.load)
        if record.state is not TaskState.COMPLETE:
            raise TaskFailedError(task_id, record.state, record.last_err)
        return record.result

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
        async with listening(self.store.jetstream, subject, parse_event) as events:
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
        async with listening(self.store.jetstream, subject, Progress.from_wire) as told:
            yield told
