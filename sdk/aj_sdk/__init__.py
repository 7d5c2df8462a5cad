"""What an application imports: handlers and producers of durable tasks on NATS JetStream."""

from aj_sdk.client import Client
from aj_sdk.errors import (
    AsyncJobsError,
    CannotWaitError,
    ConflictError,
    CycleError,
    DecodeError,
    DuplicateHandlerError,
    InvalidConfigError,
    InvalidNameError,
    LifespanError,
    NotConnectedError,
    OutcomeUnknownError,
    PayloadError,
    QueueFullError,
    QueueNotFoundError,
    RefusedError,
    RetryLater,
    SignatureError,
    StoreError,
    TaskExistsError,
    TaskFailedError,
    TaskNotFoundError,
    TaskStateError,
    TaskTooLargeError,
    Terminate,
    UsageError,
)
from aj_sdk.graph import Graph, chain, chord, group
from aj_sdk.handling import Task
from aj_sdk.middleware import Handle, Middleware
from aj_sdk.queue import Queue
from aj_sdk.runner import Runner, run
from aj_sdk.services import DEFAULT_SERVICES, Services
from aj_sdk.spec import TaskSpec
from aj_sdk.task_filter import TaskFilter
from aj_sdk.version import __version__
from aj_sdk.wire.signing import Signer, Verifier
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = [
    "AsyncJobsError",
    "CannotWaitError",
    "Client",
    "ConflictError",
    "CycleError",
    "DecodeError",
    "DuplicateHandlerError",
    "Graph",
    "Handle",
    "InvalidConfigError",
    "InvalidNameError",
    "LifespanError",
    "Middleware",
    "NotConnectedError",
    "OutcomeUnknownError",
    "PayloadError",
    "Queue",
    "QueueFullError",
    "QueueNotFoundError",
    "RefusedError",
    "RetryLater",
    "Runner",
    "Services",
    "SignatureError",
    "Signer",
    "StoreError",
    "Task",
    "TaskExistsError",
    "TaskFailedError",
    "TaskFilter",
    "TaskNotFoundError",
    "TaskRecord",
    "TaskSpec",
    "TaskState",
    "TaskStateError",
    "TaskTooLargeError",
    "Terminate",
    "UsageError",
    "Verifier",
    "__version__",
    "chain",
    "chord",
    "group",
    "run",
    "service",
    "services",
]

services = DEFAULT_SERVICES
service = services.service
