"""What goes wrong, split by who can act.

AsyncJobsError
+-- UsageError                 the caller misused us (also a ValueError)
|   +-- InvalidNameError
|   +-- InvalidConfigError
|   +-- PayloadError           a payload or result that can't be encoded
|   +-- TaskTooLargeError
|   +-- TaskStateError         not possible in the state the task is in
|   +-- TaskExistsError        another task has this id
|   +-- CycleError             a task that would wait for itself
|   +-- CannotWaitError        a queue that has no place for what is not due
|   +-- DeadlinePassedError    a task that could only expire
|   +-- TaskChangedError       a task that is none of those that were meant any more
|   +-- NotReplayableError     a dead letter that no task can be made of
|   +-- DuplicateHandlerError
+-- DecodeError                the peer or the stored data is bad
+-- SignatureError
+-- StoreError                 the store or the network failed
|   +-- TaskNotFoundError
|   +-- DeadLetterNotFoundError
|   +-- QueueNotFoundError
|   +-- QueueExistsError
|   +-- BridgeNotFoundError
|   +-- QueueFullError
|   +-- ConflictError          somebody else wrote
|   +-- RefusedError           the server said no
|   +-- OutcomeUnknownError    no answer: it may have happened
|   +-- NotConnectedError
+-- LifespanError              what the handlers need could not be set up
+-- TaskFailedError            `Client.result`: the task ended without a result
+-- HandlerSignal              what a handler raises on purpose; flow, not failure
    +-- Terminate
    +-- RetryLater
"""

from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = [
    "AsyncJobsError",
    "BridgeNotFoundError",
    "CannotWaitError",
    "ConflictError",
    "CycleError",
    "DeadLetterNotFoundError",
    "DeadlinePassedError",
    "DecodeError",
    "DuplicateHandlerError",
    "HandlerSignal",
    "InvalidConfigError",
    "InvalidNameError",
    "LifespanError",
    "MessageTooLargeError",
    "NoRespondersError",
    "NotConnectedError",
    "NotReplayableError",
    "OutcomeUnknownError",
    "PayloadError",
    "QueueExistsError",
    "QueueFullError",
    "QueueNotFoundError",
    "RefusedError",
    "RetryLater",
    "SignatureError",
    "StoreError",
    "TaskChangedError",
    "TaskExistsError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TaskStateError",
    "TaskTooLargeError",
    "Terminate",
    "UsageError",
]


class AsyncJobsError(Exception):
    """Root of all errors of this project."""


class UsageError(AsyncJobsError, ValueError):
    """The caller misused us."""


@dataclass(eq=False)
class InvalidNameError(UsageError):
    """A task id, task type, queue or schedule name that may not cross the wire."""

    what: str
    value: str

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= 60 else self.value[:60] + "..."
        return f"{self.what} {shown!r} is invalid: use 1 to 128 of the characters A-Z a-z 0-9 _ : -"


@dataclass(eq=False)
class InvalidConfigError(UsageError):
    """A configuration with one or more faults, all of them named."""

    faults: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.faults)


@dataclass(eq=False)
class PayloadError(UsageError):
    """A payload or result that can't be encoded, or a payload that does not fit the handler's annotation."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class TaskTooLargeError(UsageError):
    """A record that would not fit a message."""

    task_id: str
    size: int
    limit: int

    def __str__(self) -> str:
        return f"task {self.task_id} needs {self.size} bytes, the server takes {self.limit}"


@dataclass(eq=False)
class TaskStateError(UsageError):
    """An act that is not possible in the state the task is in."""

    task_id: str
    state: str
    act: str

    def __str__(self) -> str:
        return f"cannot {self.act} task {self.task_id} in state {self.state!r}"


@dataclass(eq=False)
class TaskExistsError(UsageError):
    """Another task has this id.

    Attributes:
        task_id: the id.
        differs: what is not the same: `type`, `queue`, `payload` or `dependencies`.
    """

    task_id: str
    differs: str

    def __str__(self) -> str:
        return f"task {self.task_id} exists already with another {self.differs}"


@dataclass(eq=False)
class CycleError(UsageError):
    """Tasks that would wait for each other for ever.

    Attributes:
        task_ids: the tasks in their order, each waits for the next, the last for the first.
    """

    task_ids: tuple[str, ...]

    def __str__(self) -> str:
        first = self.task_ids[0]
        if len(self.task_ids) == 1:
            return f"task {first} depends on itself"
        return f"tasks depend on each other in a circle: {' -> '.join((*self.task_ids[:10], first))}"


@dataclass(eq=False)
class CannotWaitError(UsageError):
    """A queue in which a task can't be held back until it is due; nothing was stored."""

    queue: str

    def __str__(self) -> str:
        return (
            f"queue {self.queue} is the Go project's, whose workers would run a delayed task at once, and tasks can't "
            "wait outside of it here: that needs nats-server 2.12 or newer (but not 2.12.8)"
        )


@dataclass(eq=False)
class TaskChangedError(UsageError):
    """A task that was chosen by a filter, which does not take it any more."""

    task_id: str
    state: str

    def __str__(self) -> str:
        return f"task {self.task_id} is none of those that were meant any more: its state is {self.state!r}"


@dataclass(eq=False)
class DeadlinePassedError(UsageError):
    """A retry of a task whose deadline has passed: it could only expire again.

    Attributes:
        task_id: the task.
        deadline_ns: its deadline, nanoseconds since the epoch.
    """

    task_id: str
    deadline_ns: int

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.deadline_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"the deadline of task {self.task_id} passed at {when}: it could only expire again"


@dataclass(eq=False)
class NotReplayableError(UsageError):
    """A dead letter that no task can be made of."""

    task_id: str
    reason: str

    def __str__(self) -> str:
        return f"the dead letter of {f'task {self.task_id}' if self.task_id else 'an unknown task'}: {self.reason}"


@dataclass(eq=False)
class DuplicateHandlerError(UsageError):
    """A second handler for the same task type."""

    task_type: str

    def __str__(self) -> str:
        return f"duplicate handler for task type {self.task_type!r}"


@dataclass(eq=False)
class DecodeError(AsyncJobsError):
    """Bytes or a value from a peer or from the store that are not what they should be.

    Attributes:
        what: what was read: `task`, `work item`, `event`.
        key: the key that failed, empty for the whole.
        reason: what is wrong with it.
    """

    what: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.key}: {self.reason}" if self.key else f"{self.what}: {self.reason}"


@dataclass(eq=False)
class SignatureError(AsyncJobsError):
    """A signature that is missing, malformed or wrong."""

    task_id: str
    reason: str

    def __str__(self) -> str:
        return f"task {self.task_id}: {self.reason}"


class StoreError(AsyncJobsError):
    """The store or the network failed."""


@dataclass(eq=False)
class TaskNotFoundError(StoreError):
    """There is no such task."""

    task_id: str

    def __str__(self) -> str:
        return f"task {self.task_id} not found"


@dataclass(eq=False)
class DeadLetterNotFoundError(StoreError):
    """A task has no dead letter."""

    task_id: str

    def __str__(self) -> str:
        return f"task {self.task_id} has no dead letter"


@dataclass(eq=False)
class QueueNotFoundError(StoreError):
    """There is no such queue."""

    queue: str

    def __str__(self) -> str:
        return f"queue {self.queue} not found; `ajc queue add {self.queue}` makes it"


@dataclass(eq=False)
class BridgeNotFoundError(StoreError):
    """No bridge of this id, or with an id that begins so, runs."""

    bridge: str

    def __str__(self) -> str:
        shown = self.bridge if len(self.bridge) <= 60 else self.bridge[:60] + "..."
        return f"bridge {shown} not found; `aj-bridge ps` lists those that run"


@dataclass(eq=False)
class QueueExistsError(StoreError):
    """There is a queue of this name already."""

    queue: str

    def __str__(self) -> str:
        return f"queue {self.queue} exists already; `ajc queue configure {self.queue}` changes it"


@dataclass(eq=False)
class QueueFullError(StoreError):
    """The queue holds as many items as it may."""

    queue: str
    task_id: str

    def __str__(self) -> str:
        return f"queue {self.queue} is full, task {self.task_id} was not enqueued"


@dataclass(eq=False)
class ConflictError(StoreError):
    """A compare-and-set save was refused: somebody else wrote."""

    task_id: str
    expected: int

    def __str__(self) -> str:
        return f"task {self.task_id} was changed by somebody else since sequence {self.expected}"


@dataclass(eq=False)
class RefusedError(StoreError):
    """The server said no.

    Attributes:
        what: what was asked.
        code: the server's error code (`err_code`), 0 where there is none.
        reason: its description.
    """

    what: str
    code: int
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason} ({self.code})" if self.code else f"{self.what}: {self.reason}"


@dataclass(eq=False)
class OutcomeUnknownError(StoreError):
    """No answer came in time: it may have happened or not; asking again is safe."""

    what: str

    def __str__(self) -> str:
        return f"{self.what}: no answer in time, the outcome is unknown"


@dataclass(eq=False)
class NoRespondersError(StoreError):
    """Nobody listens on a subject."""

    subject: str

    def __str__(self) -> str:
        return f"no responders on {self.subject}"


@dataclass(eq=False)
class MessageTooLargeError(StoreError):
    """A message bigger than the server takes; nothing was sent."""

    size: int
    limit: int

    def __str__(self) -> str:
        return f"a message of {self.size} bytes is more than the server takes ({self.limit})"


@dataclass(eq=False)
class NotConnectedError(StoreError):
    """There is no connection to a NATS server."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class LifespanError(AsyncJobsError):
    """What the handlers of a program need could not be set up (`Services.lifespan`)."""

    reason: str

    def __str__(self) -> str:
        return f"the lifespan of the handlers failed at its start: {self.reason}"


@dataclass(eq=False)
class TaskFailedError(AsyncJobsError):
    """A task that ended without a result."""

    task_id: str
    state: str
    last_err: str

    def __str__(self) -> str:
        tail = f": {self.last_err}" if self.last_err else ""
        return f"task {self.task_id} is {self.state}{tail}"


class HandlerSignal(AsyncJobsError):  # noqa: N818 - a signal, not an error
    """What a handler raises on purpose; flow, not failure."""


class Terminate(HandlerSignal):
    """The task failed for good: state `terminated`, no more tries.

    Args:
        reason: becomes the task's `last_err`.
    """

    def __init__(self, reason: str = "terminated by handler") -> None:
        super().__init__(reason)


class RetryLater(HandlerSignal):
    """This try failed; try again after a delay of the handler's choice instead of the queue's backoff.

    Args:
        seconds: the delay in seconds, at least 0.
        reason: becomes the task's `last_err`.
    """

    def __init__(self, seconds: float, reason: str = "retry later") -> None:
        if not seconds >= 0:
            raise UsageError(f"RetryLater needs a delay of at least 0 seconds, not {seconds}")
        super().__init__(reason)
        self.seconds = seconds
