"""Every name on the wire: streams, subjects, buckets, headers, and what a name may look like.

The one place that knows a subject. Source: the Go project's storage.go, and our own additions beside it.
"""

import re
from functools import lru_cache
from typing import Final

from aj_sdk.errors import InvalidNameError

__all__ = [
    "ACK_PREFIX",
    "API_PREFIX",
    "ATTEMPTS_STREAM",
    "CANCEL_SUBJECTS",
    "CATCH_ALL",
    "CONFIGURATION_BUCKET",
    "CONSUMER",
    "DEAD_STREAM",
    "DEFAULT_QUEUE",
    "DELAYED_STREAM",
    "DEPS_STREAM",
    "DEPS_SUBJECTS",
    "ELECTIONS_BUCKET",
    "EVENTS",
    "EVENT_PREFIX",
    "HANDLER_QUEUE_GROUP",
    "HANDLER_SUBJECTS",
    "H_CANCEL_SUBJECT",
    "H_CONTENT_TYPE",
    "H_DEADLINE",
    "H_DUE",
    "H_ERROR",
    "H_HEARTBEAT_MS",
    "H_INVOCATION",
    "H_ITEM",
    "H_OWNER",
    "H_PROGRESS",
    "H_PROTOCOL",
    "H_RETRY_AFTER_MS",
    "H_SERVICE_ERROR",
    "H_SERVICE_ERROR_CODE",
    "H_SILENT",
    "H_TASK_ID",
    "H_TASK_TRY",
    "H_TERMINATE",
    "H_TIMEOUT_MS",
    "H_TRACE_PARENT",
    "H_TRACE_STATE",
    "ITEM_SUBJECTS",
    "MAX_NAME",
    "NAME_PATTERN",
    "PROGRESS_SUBJECTS",
    "PROTOCOL",
    "QUEUE_STREAM_PREFIX",
    "SCHEDULE_SUBJECTS",
    "TASKS_STREAM",
    "TASK_JSON",
    "TASK_MSGPACK",
    "TASK_PREFIX",
    "TASK_STATE_EVENTS",
    "TASK_SUBJECTS",
    "UNIQUE_BUCKET",
    "attempts_subject",
    "bridge_subject",
    "bucket_stream",
    "bucket_subject",
    "cancel_subject",
    "check_name",
    "dead_subject",
    "dead_subjects",
    "edge_subject",
    "edges_from",
    "edges_to",
    "fired_subject",
    "fired_subjects",
    "handler_subject",
    "invocation_cancel_subject",
    "is_name",
    "item_subject",
    "item_subjects",
    "leader_event_subject",
    "progress_subject",
    "queue_of_stream",
    "queue_stream",
    "schedule_subject",
    "schedule_subjects",
    "task_event_subject",
    "task_id_of_subject",
    "task_subject",
]

NAME_PATTERN: Final = "^[A-Za-z0-9_:-]+$"
MAX_NAME: Final = 128
"""Our cap on the length of a name, in characters; the Go project has none."""

_NAME: Final = re.compile("[A-Za-z0-9_:-]+")

DEFAULT_QUEUE: Final = "DEFAULT"
CONSUMER: Final = "WORKERS"
TASKS_STREAM: Final = "CHORIA_AJ_TASKS"
TASK_PREFIX: Final = "CHORIA_AJ.T."
TASK_SUBJECTS: Final = TASK_PREFIX + "*"
QUEUE_STREAM_PREFIX: Final = "CHORIA_AJ_Q_"
ITEM_SUBJECTS: Final = "CHORIA_AJ.Q.>"
DELAYED_STREAM: Final = "CHORIA_AJ_DELAYED"
SCHEDULE_SUBJECTS: Final = "CHORIA_AJ.D.S.*.*"
DELAYED_SUBJECTS: Final = (SCHEDULE_SUBJECTS, "CHORIA_AJ.D.F.*.*")
DEAD_STREAM: Final = "CHORIA_AJ_DEAD"
DEAD_SUBJECTS: Final = "CHORIA_AJ.X.*.*.*"
DEPS_STREAM: Final = "CHORIA_AJ_DEPS"
DEPS_SUBJECTS: Final = "CHORIA_AJ.W.*.*"
ATTEMPTS_STREAM: Final = "CHORIA_AJ_ATTEMPTS"
PROGRESS_SUBJECTS: Final = "CHORIA_AJ.P.*"
ATTEMPTS_SUBJECTS: Final = "CHORIA_AJ.A.*"
CANCEL_SUBJECTS: Final = "CHORIA_AJ.C.*"
UNIQUE_BUCKET: Final = "CHORIA_AJ_UNIQUE"
CONFIGURATION_BUCKET: Final = "CHORIA_AJ_CONFIGURATION"
ELECTIONS_BUCKET: Final = "CHORIA_AJ_ELECTIONS"
EVENTS: Final = "CHORIA_AJ.E.>"
TASK_STATE_EVENTS: Final = "CHORIA_AJ.E.task_state.*"
HANDLER_SUBJECTS: Final = "CHORIA_AJ.H.T.*"
HANDLER_QUEUE_GROUP: Final = "q"
CATCH_ALL: Final = "catchall"
"""How the empty route is called, in its subject and for people."""

ACK_PREFIX: Final = "$JS.ACK."
API_PREFIX: Final = "$JS.API"
EVENT_PREFIX: Final = "$JS.EVENT"

PROTOCOL: Final = "1.1"
TASK_JSON: Final = "application/x-asyncjobs-task+json"
TASK_MSGPACK: Final = "application/x-asyncjobs-task+msgpack"

# Headers of the request to a handler.
H_CONTENT_TYPE: Final = "AJ-Content-Type"
H_DEADLINE: Final = "AJ-Handler-Deadline"
H_PROTOCOL: Final = "AJ-Protocol"
H_TIMEOUT_MS: Final = "AJ-Handler-Timeout-Ms"
H_INVOCATION: Final = "AJ-Invocation"
H_TASK_ID: Final = "AJ-Task-Id"
H_TASK_TRY: Final = "AJ-Task-Try"

H_HEARTBEAT_MS: Final = "AJ-Heartbeat-Ms"
H_CANCEL_SUBJECT: Final = "AJ-Cancel-Subject"
H_TRACE_PARENT: Final = "traceparent"
H_TRACE_STATE: Final = "tracestate"

# Headers of a handler's reply.
H_ERROR: Final = "AJ-Error"
H_TERMINATE: Final = "AJ-Terminate"
H_PROGRESS: Final = "AJ-Progress"
H_RETRY_AFTER_MS: Final = "AJ-Retry-After-Ms"
H_SERVICE_ERROR: Final = "Nats-Service-Error"
H_SERVICE_ERROR_CODE: Final = "Nats-Service-Error-Code"

# Headers of our saves and schedules.
H_OWNER: Final = "AJ-Owner"
H_ITEM: Final = "AJ-Item"
H_SILENT: Final = "AJ-Silent"
H_DUE: Final = "AJ-Due"
"""On an item or a schedule: the task is not to run before, nanoseconds since the epoch."""


@lru_cache(maxsize=16384)  # each task's names become subjects many times over
def is_name(value: str) -> bool:
    """Say whether a task id, task type, queue or schedule name may cross the wire."""
    return len(value) <= MAX_NAME and _NAME.fullmatch(value) is not None


def check_name(value: str, what: str) -> str:
    """Return the name, or refuse it.

    Args:
        value: the name.
        what: what it names, for the error: `task id`, `task type`, `queue name`.

    Raises:
        InvalidNameError: it does not match `NAME_PATTERN` in full, or is longer than `MAX_NAME`.
    """
    if not is_name(value):
        raise InvalidNameError(what=what, value=value)
    return value


def task_subject(task_id: str) -> str:
    """Subject of a task's record."""
    return f"CHORIA_AJ.T.{check_name(task_id, 'task id')}"


def task_id_of_subject(subject: str) -> str:
    """Id of the task whose record or item has this subject."""
    return subject.rpartition(".")[2]


def queue_stream(queue: str) -> str:
    """Stream of a queue's work items."""
    return QUEUE_STREAM_PREFIX + check_name(queue, "queue name")


def queue_of_stream(stream: str) -> str:
    """Queue whose items this stream holds."""
    return stream.removeprefix(QUEUE_STREAM_PREFIX)


def item_subject(queue: str, task_id: str) -> str:
    """Subject of a task's work item."""
    return f"CHORIA_AJ.Q.{check_name(queue, 'queue name')}.{check_name(task_id, 'task id')}"


def item_subjects(queue: str) -> str:
    """Subjects of a queue's stream."""
    return f"CHORIA_AJ.Q.{check_name(queue, 'queue name')}.>"


def schedule_subject(queue: str, task_id: str) -> str:
    """Subject of the schedule that makes a waiting task's item."""
    return f"CHORIA_AJ.D.S.{check_name(queue, 'queue name')}.{check_name(task_id, 'task id')}"


def schedule_subjects(queue: str) -> str:
    """Schedules of a queue's waiting tasks."""
    return f"CHORIA_AJ.D.S.{check_name(queue, 'queue name')}.*"


def fired_subject(queue: str, task_id: str) -> str:
    """Subject on which a waiting task's schedule fires."""
    return f"CHORIA_AJ.D.F.{check_name(queue, 'queue name')}.{check_name(task_id, 'task id')}"


def fired_subjects(queue: str) -> str:
    """Fired items of a queue, which its stream sources."""
    return f"CHORIA_AJ.D.F.{check_name(queue, 'queue name')}.*"


def dead_subject(reason: str, queue: str, task_id: str) -> str:
    """Subject of a dead letter; `_` stands where a part is unknown or unfit for a subject."""
    return f"CHORIA_AJ.X.{reason}.{queue if is_name(queue) else '_'}.{task_id if is_name(task_id) else '_'}"


def dead_subjects(reason: str = "*", queue: str = "", task_id: str = "") -> str:
    """Subjects of the dead letters of a reason, a queue and a task; what is left out means any."""
    of_queue = check_name(queue, "queue name") if queue else "*"
    return f"CHORIA_AJ.X.{reason}.{of_queue}.{check_name(task_id, 'task id') if task_id else '*'}"


def task_event_subject(task_id: str) -> str:
    """Subject of a task's state events."""
    return f"CHORIA_AJ.E.task_state.{check_name(task_id, 'task id')}"


def leader_event_subject(component: str) -> str:
    """Subject on which the new leader of a component is told."""
    return f"CHORIA_AJ.E.leader_election.{check_name(component, 'component')}"


def handler_subject(route: str) -> str:
    """Subject of the handlers of a route; the empty route is the catch-all.

    Source: RequestReplySubjectForTaskType in the Go project's request_reply_handler.go.
    """
    return f"CHORIA_AJ.H.T.{check_name(route, 'task type') if route else CATCH_ALL}"


def edge_subject(parent_id: str, child_id: str) -> str:
    """Subject of the edge from a task to one that waits for it."""
    return f"CHORIA_AJ.W.{check_name(parent_id, 'task id')}.{check_name(child_id, 'task id')}"


def edges_from(parent_id: str) -> str:
    """Subjects of the edges to all tasks that wait for this one."""
    return f"CHORIA_AJ.W.{check_name(parent_id, 'task id')}.*"


def edges_to(child_id: str) -> str:
    """Subjects of the edges from all tasks that this one waits for."""
    return f"CHORIA_AJ.W.*.{check_name(child_id, 'task id')}"


def attempts_subject(task_id: str) -> str:
    """Subject of a task's attempts."""
    return f"CHORIA_AJ.A.{check_name(task_id, 'task id')}"


def progress_subject(task_id: str) -> str:
    """Subject on which a task's progress is told."""
    return f"CHORIA_AJ.P.{check_name(task_id, 'task id')}"


def cancel_subject(task_id: str) -> str:
    """Subject on which bridges are told that a task was cancelled."""
    return f"CHORIA_AJ.C.{check_name(task_id, 'task id')}"


def invocation_cancel_subject(invocation: str) -> str:
    """Subject on which a handler is told to stop; `invocation` is our own id of one call."""
    return f"CHORIA_AJ.CI.{invocation}"


def bucket_stream(bucket: str) -> str:
    """Stream of a key-value bucket. Source: ADR-8 of the NATS clients."""
    return f"KV_{bucket}"


def bucket_subject(bucket: str, key: str) -> str:
    """Subject of a key in a bucket; keys are our own: of letters, digits, `-`, `_`, `=`, `/`, and dots in between."""
    return f"$KV.{bucket}.{key}"


def bridge_subject(bridge_id: str, endpoint: str) -> str:
    """Subject of a running bridge's endpoint: `status`, `holds`, `drain`, `concurrency`, `pause`."""
    return f"AJ.BRIDGE.{bridge_id}.{endpoint}"
