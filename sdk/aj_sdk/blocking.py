"""The producer for programs without an event loop: Django, Flask, a script.

`with blocking.Client.connect() as client: client.enqueue("email:new", {...})`. The asynchronous client does the work,
in one background thread with an event loop of its own; what stands here waits for it.
"""

import functools
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, Self, TypeVar, overload

from aj_sdk import admin as admins
from aj_sdk import client as clients
from aj_sdk import tasks as stored_tasks
from aj_sdk.background import Background
from aj_sdk.connect import ConnectOptions
from aj_sdk.errors import AsyncJobsError, UsageError
from aj_sdk.spec import TaskSpec
from aj_sdk.wire.names import DEFAULT_QUEUE
from aj_sdk.wire.signing import Signer, Verifier
from aj_sdk.wire.task import TaskRecord

__all__ = ["Admin", "Client", "Tasks"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

_CALL_TIMEOUT_S: Final = 60.0


class _Blocking(Generic[S]):
    """Calls the methods of something that lives in the background thread.

    Args:
        background: the thread.
        find: gives what lives there, once it is open.
        seconds: how long to wait for each call; None for as long as it takes.
    """

    def __init__(self, background: Background, find: Callable[[], S], seconds: float | None) -> None:
        self._background = background
        self._find = find
        self._seconds = seconds

    def _wait(self, what: str, make: Callable[[S], Coroutine[Any, Any, R]], seconds: float | None) -> R:
        return self._background.call(lambda: make(self._find()), what, seconds)


def _waits(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[_Blocking[S], P], R]:
    """Make of a coroutine method one that waits for it, with the same signature and the same docstring."""

    @functools.wraps(method)
    def call(self: _Blocking[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._wait(method.__name__, lambda found: method(found, *args, **kwargs), self._seconds)

    return call


class Tasks(_Blocking[stored_tasks.Tasks]):
    """Acts on tasks, as those of `aj_sdk.tasks.Tasks`; they wait."""

    retry = _waits(stored_tasks.Tasks.retry)
    cancel = _waits(stored_tasks.Tasks.cancel)
    run_now = _waits(stored_tasks.Tasks.run_now)
    delete = _waits(stored_tasks.Tasks.delete)


class Admin(_Blocking[admins.Admin]):
    """Acts on queues, as those of `aj_sdk.admin.Admin`; they wait.

    Attributes:
        tasks: acts on tasks.
    """

    def __init__(self, background: Background, find: Callable[[], admins.Admin], seconds: float | None) -> None:
        super().__init__(background, find, seconds)
        self.tasks = Tasks(background, lambda: find().tasks, seconds)

    create_queue = _waits(admins.Admin.create_queue)
    configure_queue = _waits(admins.Admin.configure_queue)
    pause_queue = _waits(admins.Admin.pause_queue)
    resume_queue = _waits(admins.Admin.resume_queue)
    queue_names = _waits(admins.Admin.queue_names)
    queue_info = _waits(admins.Admin.queue_info)
    queues = _waits(admins.Admin.queues)
    purge_queue = _waits(admins.Admin.purge_queue)
    delete_queue = _waits(admins.Admin.delete_queue)


class Client(_Blocking[clients.Client]):
    """`aj_sdk.Client` for threads without an event loop; made by `connect`, opened by `with` or `open`.

    Any number of threads may use it at a time: it has one connection for all of them. A process that was forked can't
    use that of its parent: there each call raises `UsageError`, so open it after the fork. Ctrl-C stops a call.

    Attributes:
        admin: acts on queues and, as `admin.tasks`, on tasks.
    """

    def __init__(self, client: clients.Client, *, call_timeout: float | None = _CALL_TIMEOUT_S) -> None:
        """Wrap a client; use `connect`.

        Args:
            client: one with a connection of its own, not open.
            call_timeout: as for `connect`.

        Raises:
            UsageError: the timeout is no length of time.
        """
        if call_timeout is not None and not call_timeout > 0:
            raise UsageError("call_timeout must be more than 0 seconds, or None for no limit")
        super().__init__(Background(client), lambda: client, call_timeout)
        self.admin = Admin(self._background, lambda: client.admin, call_timeout)

    @classmethod
    def connect(
        cls,
        server: str | None = None,
        *,
        context: str | None = None,
        options: ConnectOptions | None = None,
        name: str = "asyncjobs",
        timeout: float = 5.0,
        call_timeout: float | None = _CALL_TIMEOUT_S,
        signer: Signer | None = None,
        verifier: Verifier | None = None,
    ) -> Self:
        """Make a client with a connection of its own, opened and closed by `with`; see `aj_sdk.Client.connect`.

        Args:
            server: URL, or several separated by commas.
            context: name of a NATS context.
            options: everything about the connection; then neither of the others.
            name: name of the connection, shown by the server's monitoring.
            timeout: seconds to wait for each answer of the server.
            call_timeout: seconds that a whole call may take, which may ask the server several times; it is then
                stopped, and raises `OutcomeUnknownError`. None for no limit. `result`, `result_bytes` and
                `enqueue_many` have timeouts of their own instead.
            signer: signs each task that is enqueued.
            verifier: refuses to load tasks without a valid signature.

        Raises:
            InvalidConfigError: a URL or a context is wrong.
            UsageError: more than one of server, context and options, or the call timeout is no length of time.
        """
        client = clients.Client.connect(
            server, context=context, options=options, name=name, timeout=timeout, signer=signer, verifier=verifier
        )
        return cls(client, call_timeout=call_timeout)

    def open(self) -> None:
        """Connect, as `with` does: for a program that keeps one client; `close` closes it. Once only.

        Raises:
            UsageError: it was opened before, or an event loop runs in this thread.
            NotConnectedError: no server answers, or it refuses us.
            InvalidConfigError: a credentials, key or certificate file is wrong.
        """
        self._background.open()

    def close(self) -> None:
        """Close the connection and end the thread. Calls of other threads that are under way raise `UsageError`."""
        self._background.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Producing.

    enqueue = _waits(clients.Client.enqueue)
    enqueue_graph = _waits(clients.Client.enqueue_graph)
    cancel = _waits(clients.Client.cancel)

    @overload
    def enqueue_many(
        self,
        tasks: Iterable[tuple[str, Any] | TaskSpec],
        *,
        queue: str = DEFAULT_QUEUE,
        concurrency: int = 256,
        return_errors: Literal[False] = False,
        timeout: float | None = None,
    ) -> list[TaskRecord]: ...
    @overload
    def enqueue_many(
        self,
        tasks: Iterable[tuple[str, Any] | TaskSpec],
        *,
        queue: str = DEFAULT_QUEUE,
        concurrency: int = 256,
        return_errors: Literal[True],
        timeout: float | None = None,
    ) -> list[TaskRecord | AsyncJobsError]: ...
    def enqueue_many(
        self,
        tasks: Iterable[tuple[str, Any] | TaskSpec],
        *,
        queue: str = DEFAULT_QUEUE,
        concurrency: int = 256,
        return_errors: bool = False,
        timeout: float | None = None,
    ) -> list[TaskRecord] | list[TaskRecord | AsyncJobsError]:
        """Store many tasks and put them into queues, several at once; see `aj_sdk.Client.enqueue_many`.

        Args:
            tasks: pairs of type and payload, or `TaskSpec` values. All are read before the first is stored, in the
                caller's thread, for what reads them may belong to it, as a database connection does.
            queue: where those go that name no queue of their own.
            concurrency: how many are under way at once.
            return_errors: do them all, and give an error in place of each task that failed.
            timeout: seconds for all of them; None for as long as it takes.

        Returns:
            The tasks as they are stored, in the order of the iterable.

        Raises:
            OutcomeUnknownError: not all were stored in time. With ids of the caller's, doing it again is safe.
            AsyncJobsError: see `aj_sdk.Client.enqueue`.
        """
        given = list(tasks)

        async def enqueue(client: clients.Client) -> list[TaskRecord] | list[TaskRecord | AsyncJobsError]:
            # Two calls, for there are two signatures.
            if return_errors:
                return await client.enqueue_many(given, queue=queue, concurrency=concurrency, return_errors=True)
            return await client.enqueue_many(given, queue=queue, concurrency=concurrency)

        return self._wait("enqueue_many", enqueue, timeout)

    # Reading.

    load = _waits(clients.Client.load)
    attempts = _waits(clients.Client.attempts)

    @overload
    def result(self, task_id: str, *, timeout: float | None = None, as_type: None = None) -> Any: ...
    @overload
    def result(self, task_id: str, *, timeout: float | None = None, as_type: type[T]) -> T: ...
    @overload
    def result(self, task_id: str, *, timeout: float | None = None, as_type: Any) -> Any: ...
    def result(self, task_id: str, *, timeout: float | None = None, as_type: Any = None) -> Any:
        """Wait until a task has ended, and return what its handler returned; see `aj_sdk.Client.result`.

        Raises:
            TimeoutError: it has not ended in time.
            TaskFailedError: it ended without a result.
            TaskNotFoundError: there is no such task, or it is gone.
            PayloadError: the result does not fit `as_type`.
            StoreError: the store failed.
        """
        return self._wait("result", lambda found: found.result(task_id, timeout=timeout, as_type=as_type), None)

    def result_bytes(self, task_id: str, *, timeout: float | None = None) -> bytes:
        """Wait until a task has ended, and return the very bytes of its handler's reply; else as `result`."""
        return self._wait("result_bytes", lambda found: found.result_bytes(task_id, timeout=timeout), None)
