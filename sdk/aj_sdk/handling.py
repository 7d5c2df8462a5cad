"""A task as its handler sees it: the record, how much time is left, and a logger that names the task.

Values only; the clock is passed in. What happens to a handler's outcome is `responder`'s business.
"""

import logging
import time
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

from aj_sdk.errors import UsageError
from aj_sdk.payload import decode_payload
from aj_sdk.wire.call import Call
from aj_sdk.wire.codec import JSON
from aj_sdk.wire.interim import Interim
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S, to_datetime
from aj_sdk.wire.trace import Trace

__all__ = ["TASK_LOGGER", "SendInterim", "Task", "TaskLog"]

TASK_LOGGER: Final = "aj_sdk.task"
"""Name of the logger behind `Task.log`, unless `Services` was given another."""

T = TypeVar("T")
SendInterim: TypeAlias = Callable[[Interim], None]
"""Sends an interim reply; may be called from any thread."""

TypeOf: TypeAlias = type[T]  # inside the class, `type` is the task's
_UNREAD: Final = object()


class TaskLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry the fields `task_id`, `task_type`, `queue` and `tries`.

    Fields that a call gives in `extra` are kept beside them; the standard adapter would drop them.
    """

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the task's fields to a record's."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs


class Task:
    """A task in its handler's hands.

    Args:
        call: the request that brought it.
        expires: when the reply must be in, on `clock`.
        logger: what `log` writes to.
        clock: a monotonic clock in seconds.
        lifespan: what `Services.lifespan` yielded.

    Attributes:
        lifespan: the same, for the handler; None where there is no lifespan.
    """

    __slots__ = ("_call", "_cancelled", "_clock", "_expires", "_log", "_logger", "_payload", "_send", "lifespan")

    def __init__(
        self,
        call: Call,
        *,
        expires: float,
        logger: logging.Logger | None = None,
        clock: Callable[[], float] = time.monotonic,
        lifespan: Any = None,
    ) -> None:
        self.lifespan = lifespan
        self._call = call
        self._expires = expires
        self._logger = logger
        self._clock = clock
        self._log: TaskLog | None = None
        self._payload: Any = _UNREAD
        self._cancelled = False
        self._send: SendInterim | None = None

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.type!r} of queue {self.queue!r}, try {self.tries}>"

    @property
    def record(self) -> TaskRecord:
        """The whole record, in state `active`."""
        return self._call.task

    @property
    def id(self) -> str:
        """The task's id: the same on every try, so it serves as a key against doing things twice."""
        return self._call.task.id

    @property
    def type(self) -> str:
        """The task's own type, which may be longer than the route it came by."""
        return self._call.task.type

    @property
    def queue(self) -> str:
        """The queue that the task came from."""
        return self._call.task.queue

    @property
    def tries(self) -> int:
        """Number of this try, 1 for the first."""
        return self._call.try_

    @property
    def max_tries(self) -> int:
        """How many tries there are; 0 or less means no limit."""
        return self._call.task.max_tries

    @property
    def invocation(self) -> str:
        """Id of this one invocation, another on every try; empty when a Go worker calls."""
        return self._call.invocation

    @property
    def protocol(self) -> str:
        """The version of our additions that the caller offers; empty for a Go worker, which knows none."""
        return self._call.protocol

    @property
    def traceparent(self) -> str:
        """W3C trace context of whoever made the task; empty when it carries none."""
        return self._call.trace.parent

    @property
    def tracestate(self) -> str:
        """The trace state that goes with `traceparent`; empty when there is none."""
        return self._call.trace.state

    @property
    def trace(self) -> Trace:
        """Both of them as a value, which is false when there is none."""
        return self._call.trace

    @property
    def payload_bytes(self) -> bytes:
        """The payload as it is; empty when there is none."""
        return self._call.task.payload or b""

    @property
    def payload(self) -> Any:
        """The payload decoded from JSON; None when there is none.

        Raises:
            PayloadError: it is not JSON; unless caught, this terminates the task.
        """
        if self._payload is _UNREAD:
            self._payload = decode_payload(self._call.task.payload, object)
        return self._payload

    def payload_as(self, kind: TypeOf[T]) -> T:
        """Return the payload as a type: `dict`, a dataclass, a TypedDict, a msgspec or pydantic type, `bytes`.

        Raises:
            PayloadError: it does not fit; the error names the failing field. Unless caught, it terminates the task.
            UsageError: nothing of that type can be read from JSON.
        """
        return decode_payload(self._call.task.payload, kind)

    @property
    def created(self) -> datetime:
        """When the task was made, in UTC."""
        return to_datetime(self._call.task.created_ns)

    @property
    def deadline(self) -> datetime | None:
        """The task's own deadline, in UTC: no try starts after it. See `remaining` for this try's time."""
        deadline_ns = self._call.task.deadline_ns
        return None if deadline_ns is None else to_datetime(deadline_ns)

    @property
    def handler_deadline(self) -> datetime:
        """When this try's reply must be in, in UTC and by the bridge's clock."""
        return to_datetime(self._call.deadline_ns)

    @property
    def remaining(self) -> float:
        """Seconds until this try's reply must be in; 0 when it is too late."""
        return max(0.0, self._expires - self._clock())

    @property
    def cancelled(self) -> bool:
        """Whether the bridge does not want the reply any more: the task was cancelled or taken away, or is too late.

        A coroutine is cancelled then; a plain function that takes long looks here from time to time, and returns.
        """
        return self._cancelled

    def mark_cancelled(self) -> None:
        """Make `cancelled` true, as the runner does when the bridge says so."""
        self._cancelled = True

    def heartbeat(self) -> None:
        """Show that this try lives; a coroutine needs no heartbeats of its own, they are sent for it.

        After the first one the bridge expects one every `heartbeat_interval` seconds, and takes a handler that misses
        three for lost. Of no effect where the caller takes none (a Go worker). May be called from a plain function.
        """
        if self._send is not None:
            self._send(Interim())

    def progress(self, fraction: float, note: str = "") -> None:
        """Tell how far this try has come; it then has its whole time again, from now on (`remaining`).

        Published on `CHORIA_AJ.P.<task id>` by the bridge, best effort. Of no effect where the caller takes none (a Go
        worker). May be called from a plain function.

        Args:
            fraction: how much is done, 0 to 1.
            note: a word about it.

        Raises:
            UsageError: the fraction is no number from 0 to 1.
        """
        if not isinstance(fraction, int | float) or isinstance(fraction, bool) or not 0 <= fraction <= 1:
            raise UsageError(f"progress is a number from 0 to 1, not {fraction!r}")
        if self._send is None:
            return
        if self._call.timeout_ns is not None:
            self._expires = self._clock() + self._call.timeout_ns / NS_PER_S
        self._send(Interim(float(fraction), note))

    @property
    def heartbeat_interval(self) -> float | None:
        """Seconds within which the bridge wants to hear of this try, once it did; None where it takes no signs."""
        return None if self._call.heartbeat_ns is None else self._call.heartbeat_ns / NS_PER_S

    def sends(self, send: SendInterim | None) -> None:
        """Say what takes interim replies to the caller, for whoever runs handlers; None when there can be no more."""
        self._send = send

    @property
    def dependency_results(self) -> Mapping[str, JSON | bytes]:
        """The results of the tasks that this one waited for, by task id, when it asked to load them.

        A result that a remote handler replied is base64 text here, one of an in-process Go handler plain JSON: which
        it is, only the producer of the task knows.
        """
        return {
            task_id: None if result is None else result.payload
            for task_id, result in self._call.task.dependency_results.items()
        }

    @property
    def log(self) -> TaskLog:
        """A logger bound to this task."""
        if self._log is None:
            fields = {"task_id": self.id, "task_type": self.type, "queue": self.queue, "tries": self.tries}
            self._log = TaskLog(self._logger or logging.getLogger(TASK_LOGGER), fields)
        return self._log
