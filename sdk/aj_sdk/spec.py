"""A task as a program writes it down, and the record that is made of it. Pure, but for the new id and the trace."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from aj_sdk.errors import CycleError, UsageError
from aj_sdk.ids import new_id
from aj_sdk.moment import Moment, deadline_ns, moment_ns
from aj_sdk.payload import encode_payload
from aj_sdk.queue import Span, span_ns
from aj_sdk.tracing import chosen_trace
from aj_sdk.wire.names import check_name
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import DEFAULT_MAX_TRIES, MAX_DEPENDENCIES, TaskRecord

__all__ = ["NewTask", "TaskSpec", "as_spec", "new_task"]


class TaskSpec(msgspec.Struct, frozen=True):
    """A task to be made, for `Client.enqueue_many` and `Client.enqueue_graph`.

    Attributes:
        type: its type, which decides about the handler.
        payload: bytes as they are, None for none, anything else as JSON.
        queue: where it goes; None for the queue that the call names.
        id: a chosen id; None for a new one.
        deadline: no try begins after it; None for no deadline.
        max_tries: how often it is tried, <= 0 for no limit.
        unique_key: any text; of the tasks with this key within `unique_for` there is one. Keys are shared by all
            types and queues.
        unique_for: how long the key stands for its first task, rounded up to seconds.
        unique_until_end: make room also when that task has ended before.
        dependencies: tasks, or their ids, that must complete before it starts.
        load_dependencies: give their results to the handler, as `task.dependency_results`.
        run_at: it does not start before; None for at once.
        delay: the same as a span from now, a timedelta or seconds.
        traceparent: W3C trace context that its handler goes on with; None for the one of OpenTelemetry's current span,
            where the program uses it; empty for none.
        tracestate: the trace state that goes with `traceparent`.
    """

    type: str
    payload: Any = None
    queue: str | None = None
    id: str | None = None
    deadline: Moment | None = None
    max_tries: int = DEFAULT_MAX_TRIES
    unique_key: str | None = None
    unique_for: Span | None = None
    unique_until_end: bool = False
    dependencies: Sequence[str | TaskRecord] = ()
    load_dependencies: bool = False
    run_at: datetime | None = None
    delay: Span | None = None
    traceparent: str | None = None
    tracestate: str | None = None


class NewTask(msgspec.Struct, frozen=True):
    """A task that is not stored yet.

    Attributes:
        record: the record.
        due_ns: when it is to be in its queue, nanoseconds since the epoch; None for now.
    """

    record: TaskRecord
    due_ns: int | None


def as_spec(task: tuple[str, Any] | TaskSpec) -> TaskSpec:
    """Take a pair of type and payload for a task.

    Raises:
        UsageError: it is neither a pair nor a `TaskSpec`.
    """
    if isinstance(task, TaskSpec):
        return task
    if isinstance(task, tuple) and len(task) == 2:
        return TaskSpec(*task)
    raise UsageError(f"a task is a pair of type and payload or a TaskSpec, not {type(task).__name__}")


def new_task(spec: TaskSpec, queue: str, now_ns: int, *, parents: Sequence[str] = ()) -> NewTask:
    """Make a task.

    Args:
        spec: what it is to be like.
        queue: where it goes.
        now_ns: now.
        parents: ids of further tasks that it waits for.

    Raises:
        UsageError: a part of it is wrong.
    """
    if type(spec.max_tries) is not int:
        raise UsageError(f"max_tries must be an integer, not {type(spec.max_tries).__name__}")
    task_id = new_id() if spec.id is None else _name(spec.id, "task id")
    dependencies = _dependencies(task_id, (*parents, *_listed(spec.dependencies)))
    record = TaskRecord(
        id=task_id,
        type=_name(spec.type, "task type"),
        queue=_name(queue, "queue name"),
        state=TaskState.BLOCKED if dependencies else TaskState.NEW,
        payload=encode_payload(spec.payload),
        created_ns=now_ns,
        deadline_ns=None if spec.deadline is None else deadline_ns(spec.deadline, now_ns),
        max_tries=spec.max_tries,
        dependencies=dependencies,
        load_dependencies=bool(spec.load_dependencies),
        extra=chosen_trace(spec.traceparent, spec.tracestate).to_map(),
    )
    due_ns = _due_ns(spec, now_ns)
    if due_ns is not None and record.deadline_ns is not None and due_ns > record.deadline_ns:
        raise UsageError("the deadline lies before the time at which the task is to run: no try could begin")
    return NewTask(record, due_ns)


def _listed(dependencies: Sequence[str | TaskRecord]) -> Sequence[str | TaskRecord]:
    if isinstance(dependencies, str | bytes | TaskRecord):
        raise UsageError("dependencies are a list of tasks or of their ids")
    return dependencies


def _dependencies(task_id: str, listed: Sequence[str | TaskRecord]) -> tuple[str, ...]:
    names = (each.id if isinstance(each, TaskRecord) else _name(each, "task id") for each in listed)
    found = tuple(dict.fromkeys(names))
    if len(found) > MAX_DEPENDENCIES:
        raise UsageError(f"a task may depend on {MAX_DEPENDENCIES:,} others, not on {len(found):,}")
    if task_id in found:
        raise CycleError((task_id,))
    return found


def _due_ns(spec: TaskSpec, now_ns: int) -> int | None:
    if spec.run_at is not None and spec.delay is not None:
        raise UsageError("give one of run_at and delay")
    if spec.run_at is not None:
        if not isinstance(spec.run_at, datetime):
            raise UsageError(f"run_at must be a datetime, not {type(spec.run_at).__name__}; a span is a delay")
        due_ns = moment_ns(spec.run_at, now_ns, "run_at")
    elif spec.delay is not None:
        if not isinstance(spec.delay, timedelta | int | float):
            raise UsageError(f"the delay is no length of time: {type(spec.delay).__name__}")
        try:
            due_ns = now_ns + span_ns(spec.delay)
        except ValueError as err:
            raise UsageError(f"the delay is no length of time: {err}") from None
    else:
        return None
    return due_ns if due_ns > now_ns else None


def _name(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"a {what} is text, not {type(value).__name__}")
    return check_name(value, what)
