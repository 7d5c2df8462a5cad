"""Calling handlers without a server: a call goes the way of a request, through everything but NATS."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, TypeVar, overload

import msgspec

from aj_sdk.calling import begin, within_deadline
from aj_sdk.errors import UsageError
from aj_sdk.handling import Task
from aj_sdk.ids import new_id
from aj_sdk.lifespan import Lifespan
from aj_sdk.payload import encode_payload, encode_result
from aj_sdk.responder import close_call, open_call
from aj_sdk.results import result_value
from aj_sdk.services import DEFAULT_SERVICES, Service, Services
from aj_sdk.threads import Threads
from aj_sdk.tracing import chosen_trace
from aj_sdk.wire.call import Cause, Completed, Failed, Reply, Terminated, call_headers, read_reply
from aj_sdk.wire.codec import encode_base64
from aj_sdk.wire.interim import Interim, interim_reply, read_interim
from aj_sdk.wire.names import check_name
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Outcome", "call", "call_blocking"]

T = TypeVar("T")

_MAX_PAYLOAD: Final = 1024 * 1024
"""What a server takes in one message if nobody said otherwise."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a bridge would make of a handler's reply.

    Attributes:
        completed: whether it succeeded.
        terminated: whether it failed for good.
        error: why it did not complete; empty when it did.
        result_bytes: the reply of a handler that succeeded, byte for byte.
        retry_after: seconds until the next try, where the handler named a time (`RetryLater`).
        timed_out: whether it took too long.
        progress: what the handler told on its way, in order: fractions and notes.
    """

    completed: bool
    terminated: bool = False
    error: str = ""
    result_bytes: bytes = b""
    retry_after: float | None = None
    timed_out: bool = False
    progress: tuple[tuple[float, str], ...] = ()

    @property
    def result(self) -> Any:
        """The result, as `Client.result` gives it.

        Raises:
            AssertionError: there is none; with the handler's error.
        """
        return self.result_as(None)

    @overload
    def result_as(self, as_type: None) -> Any: ...
    @overload
    def result_as(self, as_type: type[T]) -> T: ...
    def result_as(self, as_type: Any) -> Any:
        """Return the result as a type, as `Client.result` does with `as_type`.

        Raises:
            AssertionError: there is none; with the handler's error.
            PayloadError: it does not fit.
        """
        if not self.completed:
            raise AssertionError(f"the handler {'terminated the task' if self.terminated else 'failed'}: {self.error}")
        return result_value(_result(self.result_bytes), as_type)


async def call(
    type: str,  # noqa: A002 - the wire's word
    payload: Any = None,
    *,
    services: Services | None = None,
    route: str | None = None,
    tries: int = 1,
    max_tries: int = 10,
    queue: str = "DEFAULT",
    id: str | None = None,  # noqa: A002 - the wire's word
    timeout: float = 60.0,  # noqa: ASYNC109 - it is the handler that learns of it
    dependency_results: Mapping[str, Any] | None = None,
    traceparent: str | None = None,
    tracestate: str | None = None,
    lifespan: Any = None,
) -> Outcome:
    """Call the handler of a type as a bridge would, and say what the bridge would make of its reply.

    Nothing is tried again: a next try is a next call, with `tries=2`.

    Args:
        type: the task's type.
        payload: bytes as they are, None for none, anything else as JSON.
        services: the registry; by default the one of `aj_sdk.service`.
        route: the prefix that the bridge sends the type by (`--remote email:`), empty for all types; by default it
            sends each type by its own name.
        tries: which try it is.
        max_tries: how many there are.
        queue: the queue that the task is said to be from.
        id: the task's id; by default a new one.
        timeout: seconds that the bridge would wait; the handler's own deadline is up to two seconds before.
        dependency_results: results of tasks that this one waited for, by id; values as handlers return them,
            which the handler finds as it finds those of remote handlers.
        traceparent: the trace context that the task carries.
        tracestate: the trace state that goes with it.
        lifespan: what the handler finds as `task.lifespan`, in place of what the lifespan of the services would yield;
            with None that one runs, around this one call.

    Raises:
        LifespanError: the lifespan of the services failed at its start.
        UsageError: no handler takes the route, the route is not one of the type, or an argument is wrong.
        InvalidNameError: the type, the queue or an id may not cross the wire.
        PayloadError: the payload or a result can't be written as JSON.
    """
    if tries < 1 or not 0 < timeout <= 366 * 86_400:
        raise UsageError("tries is at least 1, and timeout more than 0 seconds and at most a year")
    service = _service_of(
        check_name(type, "task type"),
        type if route is None else route,
        DEFAULT_SERVICES if services is None else services,
    )
    results = {
        check_name(each, "task id"): _result(encode_result(value)) for each, value in (dependency_results or {}).items()
    }
    now_ns = time.time_ns()
    trace = chosen_trace(traceparent, tracestate)
    record = TaskRecord(
        id=check_name(id, "task id") if id is not None else new_id(),
        type=type,
        queue=check_name(queue, "queue"),
        state=TaskState.ACTIVE,
        created_ns=now_ns,
        tried_ns=now_ns,
        tries=tries,
        max_tries=max_tries,
        payload=encode_payload(payload),
        dependencies=tuple(results),
        dependency_results=results,
        load_dependencies=bool(results),
        extra=trace.to_map(),
    )
    headers = call_headers(
        record, invocation=new_id(), now_ns=now_ns, give_up_ns=now_ns + int(timeout * NS_PER_S), trace=trace
    )
    span = Lifespan(service.common.lifespan if lifespan is None else None)
    await span.begin()
    try:
        task = open_call(
            headers,
            record.to_wire(),
            now_ns=now_ns,
            arrived=time.monotonic(),
            logger=service.logger,
            lifespan=span.value if lifespan is None else lifespan,
        )
        return _outcome(task, ()) if not isinstance(task, Task) else await _called(service, task)
    finally:
        await span.end()


async def _called(service: Service, task: Task) -> Outcome:
    told: list[tuple[float, str]] = []

    def hear(interim: Interim) -> None:
        heard = read_interim(*interim_reply(interim))
        if heard is not None and heard.fraction is not None:
            told.append((heard.fraction, heard.note))

    task.sends(hear)
    threads = Threads()
    try:
        reply = await within_deadline(begin(service, task, threads), task)
    finally:
        task.sends(None)
        task.mark_cancelled()  # a plain function that outran its time, and looks
        threads.close()
    if not (isinstance(reply, Failed) and reply.cause is Cause.DEADLINE):  # of that one a bridge finds out by itself
        sent = close_call(reply, max_payload=_MAX_PAYLOAD, offered=True)
        reply = read_reply(sent.headers, sent.body)
    return _outcome(reply, tuple(told))


def call_blocking(type: str, payload: Any = None, **options: Any) -> Outcome:  # noqa: A002 - the wire's word
    """`call` for a test that is no coroutine; the same arguments.

    Raises:
        UsageError: the thread has an event loop that runs; and as `call`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(call(type, payload, **options))
    raise UsageError("an event loop runs here: await aj_sdk.testing.call")


def _result(reply: bytes) -> TaskResult:
    return TaskResult(payload=encode_base64(reply), completed_ns=time.time_ns())


def _service_of(task_type: str, route: str, services: Services) -> Service:
    if not task_type.startswith(route):
        raise UsageError(
            f"no bridge sends the type {task_type!r} by the route {route!r}: a route is a prefix of its types"
        )
    for service in services:
        if service.route == route:
            return service
    known = ", ".join(sorted(service.shown for service in services)) or "none at all"
    wanted = f"type {task_type!r}" if route == task_type else f"route {route!r}"
    raise UsageError(f"no handler takes the {wanted}; registered: {known}")


def _outcome(reply: Reply, told: tuple[tuple[float, str], ...]) -> Outcome:
    if isinstance(reply, Completed):
        return Outcome(completed=True, result_bytes=reply.result, progress=told)
    if isinstance(reply, Terminated):
        return Outcome(completed=False, terminated=True, error=reply.error, progress=told)
    return Outcome(
        completed=False,
        error=reply.error,
        retry_after=None if reply.retry_after_ns is None else reply.retry_after_ns / NS_PER_S,
        timed_out=reply.cause is Cause.DEADLINE,
        progress=told,
    )
