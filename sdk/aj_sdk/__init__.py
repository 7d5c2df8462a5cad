"""What an application imports: handlers and producers of durable tasks on NATS JetStream."""

from aj_sdk.errors import (
    AsyncJobsError,
    DuplicateHandlerError,
    InvalidConfigError,
    InvalidNameError,
    NotConnectedError,
    PayloadError,
    RetryLater,
    Terminate,
    UsageError,
)
from aj_sdk.handling import Task
from aj_sdk.runner import Runner, run
from aj_sdk.services import DEFAULT_SERVICES, Services
from aj_sdk.version import __version__

__all__ = [
    "AsyncJobsError",
    "DuplicateHandlerError",
    "InvalidConfigError",
    "InvalidNameError",
    "NotConnectedError",
    "PayloadError",
    "RetryLater",
    "Runner",
    "Services",
    "Task",
    "Terminate",
    "UsageError",
    "__version__",
    "run",
    "service",
    "services",
]

services = DEFAULT_SERVICES
service = services.service
