"""Values that a schema must refuse, by schema and key; the decoders are held to the same list."""

from collections.abc import Mapping, Sequence
from typing import Final

from aj_sdk.wire.codec import JSON

__all__ = ["MISSING", "REFUSED"]

_NO_TEXT: Final[list[JSON]] = [7, 1.5, True, [], {}, ["new"]]
_NO_FLAG: Final[list[JSON]] = [0, 1, "", "true", [], {}]
_NO_INTEGER: Final[list[JSON]] = ["", "1", 1.5, True, False, [], {}, 2**63, -(2**63) - 1]

_NO_SUBJECT_TOKEN: Final[list[JSON]] = [
    *("*", ">", "a.b", "a b", ".", "a\n", "\na", "a\r\n", "a\r", "a\0", "a\tb", "a/b", "ä", "\u212a", "x" * 129),
    *_NO_TEXT,
]
_NO_NAME: Final[list[JSON]] = ["", None, *_NO_SUBJECT_TOKEN]
_NO_TIME: Final[list[JSON]] = [
    *("", "yesterday", "2022-01-26", "14:46:09Z", "2022-01-26 14:46:09Z", "2022-01-26T14:46:09"),
    *("2022-01-26T14:46:09z", "2022-01-26t14:46:09Z", "2022-01-26T14:46:09Z\n", " 2022-01-26T14:46:09Z"),
    *("2022-01-26T14:46:09.Z", "2022-01-26T14:46:09.0123456789Z", "2022-01-26T14:46:09,5Z", "22-01-26T14:46:09Z"),
    *("2022-13-26T14:46:09Z", "2022-00-26T14:46:09Z", "2022-01-32T14:46:09Z", "2022-01-00T14:46:09Z"),
    *("2022-01-26T24:00:00Z", "2022-01-26T14:60:09Z", "2022-01-26T14:46:60Z"),
    *(
        "2022-01-26T14:46:09+0100",
        "2022-01-26T14:46:09+24:00",
        "2022-01-26T14:46:09+01:60",
        "2022-01-26T14:46:09 01:00",
    ),
    *("\u0662\u0660\u0662\u0662-01-26T14:46:09Z",),  # digits, but not ASCII
    1643208369,
    *_NO_TEXT,
]
_NO_BASE64: Final[list[JSON]] = [
    "QQ",
    "QQ=",
    "Q===",
    "QUJD=",
    "QQ==QQ==",
    "QQ==\n",
    "Q-==",
    "Q_==",
    "=",
    "ä",
    *_NO_TEXT,
]
_NO_STATE: Final[list[JSON]] = ["New", "done", "complete\n", " new", *_NO_TEXT]
_NO_RESULT: Final[list[JSON]] = [7, "done", True, [], {}, {"payload": 1}, {"payload": 1, "completed": "now"}]
_NO_EVENT: Final[list[JSON]] = ["", None, "io.choria.asyncjobs.v2.task_state", "task_state", *_NO_TEXT]

_TASK: Final[dict[str, list[JSON]]] = {
    "id": _NO_NAME,
    "type": _NO_NAME,
    "queue": _NO_SUBJECT_TOKEN,
    "dependencies": [7, "a", True, {}, [""], ["*"], ["a", "a\n"], [None], [7], ["x" * 129], [["a"]]],
    "dependency_results": [7, "a", True, [], {"a": 7}, {"a": {}}, {"a": {"completed": None}}, {"a": [None]}],
    "load_dependencies": _NO_FLAG,
    "payload": _NO_BASE64,
    "deadline": _NO_TIME,
    "max_tries": _NO_INTEGER,
    "result": _NO_RESULT,
    "state": _NO_STATE,
    "created": [None, *_NO_TIME],
    "tried": _NO_TIME,
    "tries": [-1, *_NO_INTEGER],
    "last_err": _NO_TEXT,
    "signature": _NO_TEXT,
}
_QUEUE: Final[dict[str, list[JSON]]] = {
    "name": _NO_NAME,
    "max_age": [-1, "1h", *_NO_INTEGER],
    "max_entries": _NO_INTEGER,
    "discard_old": _NO_FLAG,
    "max_tries": _NO_INTEGER,
    "max_runtime": [0, -1, 999_999, "1h", *_NO_INTEGER],
    "max_concurrent": [0, -1, *_NO_INTEGER],
    "replicas": [0, 6, -1, *_NO_INTEGER],
    "memory": _NO_FLAG,
    "lease": [-1, 1, 199_999_999, "30s", *_NO_INTEGER],
    "go_workers": _NO_FLAG,
    "weight": [0, -1, 1001, *_NO_INTEGER],
}
_SCHEDULE: Final[dict[str, list[JSON]]] = {
    "name": _NO_NAME,
    "schedule": ["", None, *_NO_TEXT],
    "queue": _NO_NAME,
    "task_type": _NO_NAME,
    "payload": _NO_BASE64,
    "deadline": [1, 29_999_999_999, -30_000_000_000, "1h", *_NO_INTEGER],
    "max_tries": _NO_INTEGER,
    "created_at": [None, *_NO_TIME],
}
_TASK_STATE_EVENT: Final[dict[str, list[JSON]]] = {
    "event_id": [None, *_NO_TEXT],
    "type": ["io.choria.asyncjobs.v1.leader_elected", *_NO_EVENT],
    "timestamp": [None, *_NO_TIME],
    "task_id": _NO_NAME,
    "state": [None, *_NO_STATE],
    "tries": _NO_INTEGER,
    "queue": _NO_SUBJECT_TOKEN,
    "task_type": _NO_SUBJECT_TOKEN,
    "last_error": _NO_TEXT,
    "task_age": ["1ms", *_NO_INTEGER],
}
_LEADER_ELECTED_EVENT: Final[dict[str, list[JSON]]] = {
    "event_id": [None, *_NO_TEXT],
    "type": ["io.choria.asyncjobs.v1.task_state", *_NO_EVENT],
    "timestamp": [None, *_NO_TIME],
    "name": [None, *_NO_TEXT],
    "component": [None, *_NO_TEXT],
}

# Headers are text; what would break a header block must not be in one.
_NO_HEADER: Final[list[JSON]] = [None, "a\n", "a\r\nb: c", "a\0", *_NO_TEXT]
_NO_DIGITS: Final[list[JSON]] = ["", "-1", "+1", "1.5", " 1", "1\n", "1e3", "0x1", "\u0661", "9" * 19, *_NO_HEADER]
_REQUEST_HEADERS: Final[dict[str, list[JSON]]] = {
    "AJ-Content-Type": ["", "application/json", "application/x-asyncjobs-task+json\n", *_NO_HEADER],
    "AJ-Handler-Deadline": [None, "2022-01-26T14:46:09+01:00", *_NO_TIME],
    "AJ-Protocol": ["", "1", "1.", ".1", "v1.1", "1.1\n", "1.1.1", *_NO_HEADER],
    "AJ-Handler-Timeout-Ms": _NO_DIGITS,
    "AJ-Invocation": ["", *_NO_HEADER],
    "AJ-Task-Id": _NO_NAME,
    "AJ-Task-Try": ["0", "01", *_NO_DIGITS],
    "AJ-Heartbeat-Ms": _NO_DIGITS,
    "AJ-Cancel-Subject": [
        "",
        "CHORIA_AJ.CI.",
        "CHORIA_AJ.CI.*",
        "CHORIA_AJ.CI.>",
        "CHORIA_AJ.CI.a.b",
        "A.CI.a",
        *_NO_HEADER,
    ],
    "traceparent": ["", "00", "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01", *_NO_HEADER],
    "tracestate": _NO_HEADER,
}
_REPLY_HEADERS: Final[dict[str, list[JSON]]] = {
    "AJ-Error": _NO_HEADER,
    "AJ-Terminate": _NO_HEADER,
    "AJ-Progress": ["-0.1", "1.1", "2", "10", "50%", ".5", "0.", "1.", "0.5\n", "1e-1", "nan", *_NO_HEADER],
    "AJ-Retry-After-Ms": ["9" * 16, *_NO_DIGITS],
    "Nats-Service-Error": _NO_HEADER,
    "Nats-Service-Error-Code": _NO_HEADER,
}

_BRIDGE_STATUS: Final[dict[str, list[JSON]]] = {
    "id": _NO_NAME,
    "host": [None, *_NO_TEXT],
    "pid": _NO_INTEGER,
    "version": [None, *_NO_TEXT],
    "started": [None, *_NO_TIME],
    "state": ["", "asleep", "Working", None, 1],
    "concurrency": _NO_INTEGER,
    "in_hand": _NO_INTEGER,
    "queues": [None, {}, "A", [1], [{}], [{"name": "A"}]],
}

_ATTEMPT: Final[dict[str, list[JSON]]] = {
    "task_id": _NO_NAME,
    "task_type": _NO_NAME,
    "queue": _NO_NAME,
    "try": _NO_INTEGER,
    "outcome": ["", "Failed", "lost", None, 1],
    "started": [None, *_NO_TIME],
    "ended": [None, *_NO_TIME],
    "duration": _NO_INTEGER,
    "error": _NO_TEXT,
    "bridge": _NO_TEXT,
    "invocation": _NO_TEXT,
    "kind": _NO_TEXT,
    "handler": _NO_TEXT,
}

_PROGRESS: Final[dict[str, list[JSON]]] = {
    "task_id": _NO_NAME,
    "task_type": _NO_NAME,
    "queue": _NO_NAME,
    "try": _NO_INTEGER,
    "invocation": _NO_TEXT,
    "progress": [None, "", "0.5", True, False, -0.1, 1.1, 2, [], {}],
    "note": _NO_TEXT,
    "timestamp": [None, *_NO_TIME],
}

_EDGE: Final[dict[str, list[JSON]]] = {
    "queue": _NO_NAME,
    "load": [0, 1, "true", "", [], {}],
    "state": ["asleep", "Complete", 1, [], {}],
    "result": ["", 1, [], {"payload": "x"}, {"completed": "soon"}],
}

_NO_COUNT: Final[list[JSON]] = ["", "1", 1.5, True, None, -1, 2**31, [], {}]
_CONFORMANCE_ORDER: Final[dict[str, list[JSON]]] = {
    "do": ["", "Echo", "echo\n", "unknown", None, *_NO_TEXT],
    "error": ["x" * 4097, None, *_NO_TEXT],
    "ms": _NO_COUNT,
    "every_ms": [0, *_NO_COUNT],
    "steps": [0, 1001, *_NO_COUNT],
    "bytes": [64 * 1024 * 1024 + 1, *_NO_COUNT],
}

_VECTOR: Final[dict[str, list[JSON]]] = {
    "name": ["", "a b", "../a", "a\n", "x" * 129, None, *_NO_TEXT],
    "kind": ["", "tasks", None, *_NO_TEXT],
    "description": ["", None, *_NO_TEXT],
    "source": ["", None, *_NO_TEXT],
    "subject": ["", None, *_NO_TEXT],
    "headers": [None, "", [], {"a": 1}],
    "bytes_base64": ["QQ", "QUJD=", "a b=", "QQ==\n", None, *_NO_TEXT],
    "text": [None, *_NO_TEXT],
    "decoded": [None, "", [], 7],
}

REFUSED: Final[Mapping[str, Mapping[str, Sequence[JSON]]]] = {
    "attempt": _ATTEMPT,
    "bridge_status": _BRIDGE_STATUS,
    "conformance_order": _CONFORMANCE_ORDER,
    "edge": _EDGE,
    "leader_elected_event": _LEADER_ELECTED_EVENT,
    "progress": _PROGRESS,
    "queue_settings": _QUEUE,
    "reply_headers": _REPLY_HEADERS,
    "request_headers": _REQUEST_HEADERS,
    "schedule": _SCHEDULE,
    "task": _TASK,
    "task_result": {"payload": [], "completed": [None, *_NO_TIME]},  # a result's payload is any JSON
    "task_state_event": _TASK_STATE_EVENT,
    "vector": _VECTOR,
    "work_item": {"kind": [1, -1, "0", "task", 0.5, True, False, [], {}], "job": _NO_NAME},
}
"""Schema -> key -> values that may not stand there."""

MISSING: Final[Mapping[str, Sequence[str]]] = {
    "attempt": ["task_id", "task_type", "queue", "try", "outcome", "started", "ended", "duration"],
    "bridge_status": ["id", "host", "pid", "version", "started", "state", "concurrency", "in_hand", "queues"],
    "conformance_order": ["do"],
    "edge": ["queue"],
    "leader_elected_event": ["event_id", "type", "timestamp", "name", "component"],
    "progress": ["task_id", "task_type", "queue", "try", "progress", "timestamp"],
    "queue_settings": ["name"],
    "reply_headers": [],
    "request_headers": ["AJ-Content-Type", "AJ-Handler-Deadline"],
    "schedule": ["name", "schedule", "queue", "task_type", "created_at"],
    "task": ["id", "type", "created"],
    "task_result": ["completed"],
    "task_state_event": ["event_id", "type", "timestamp", "task_id", "state"],
    "vector": ["name", "kind", "description", "source", "bytes_base64", "decoded"],
    "work_item": ["job"],
}
"""Schema -> keys without which it is not one."""
