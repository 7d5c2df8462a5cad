"""What an application imports: handlers and producers of durable tasks on NATS JetStream.

Only the registry of handlers and what it knows is loaded at once; the rest when it is first asked for, so that a
program which handles tasks does not load what enqueues them, and the other way round.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

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
from aj_sdk.handling import Task
from aj_sdk.middleware import Handle, Middleware
from aj_sdk.services import DEFAULT_SERVICES, Services
from aj_sdk.version import __version__
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

if TYPE_CHECKING:
    from aj_sdk.client import Client
    from aj_sdk.graph import Graph, chain, chord, group
    from aj_sdk.program import run
    from aj_sdk.queue import Queue
    from aj_sdk.runner import Runner
    from aj_sdk.spec import TaskSpec
    from aj_sdk.task_filter import TaskFilter
    from aj_sdk.wire.signing import Signer, Verifier

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

_HOMES: Final[Mapping[str, tuple[str, ...]]] = {
    "aj_sdk.client": ("Client",),
    "aj_sdk.graph": (
        "Graph",
        "chain",
        "chord",
        "group",
    ),
    "aj_sdk.queue": ("Queue",),
    "aj_sdk.program": ("run",),
    "aj_sdk.runner": ("Runner",),
    "aj_sdk.spec": ("TaskSpec",),
    "aj_sdk.task_filter": ("TaskFilter",),
    "aj_sdk.wire.signing": (
        "Signer",
        "Verifier",
    ),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

services = DEFAULT_SERVICES
service = services.service

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(home), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
