"""Golden vectors of what this project adds to the protocol: `python docs/generate.py` writes them.

Those of the Go project's library are made by `make vectors`. These show interim replies, retry-after, MessagePack,
attempts, edges: `should/` for what a reader meets when it talks to our bridge, `may/` for what it asks for itself.
"""
# ruff: noqa: INP001 - a script's module, not a package

import base64
import contextlib
import json
from collections.abc import Mapping
from typing import Any, Final

from aj_schemas import load
from aj_sdk.wire.call import Completed, Failed, call_headers, read_reply
from aj_sdk.wire.names import (
    H_CANCEL_SUBJECT,
    H_HEARTBEAT_MS,
    H_PROGRESS,
    TASK_JSON,
    TASK_MSGPACK,
    attempts_subject,
    edge_subject,
    handler_subject,
    invocation_cancel_subject,
)
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

__all__ = ["VECTORS"]

_SOURCE: Final = "asyncjobs-nats, docs/own_vectors.py"
_REPLY: Final = "_INBOX.reply"
_PARENT: Final = "2d32zwGK2arpyFQnGnwMBsksMG9"
_INVOCATION: Final = "2d32zuIW87kWJTJ5R7PreX3KPhK"
_NOW_NS: Final = 1709222707987654321
_TASK: Final = TaskRecord(
    id="2d32zsmm7n0mMk3LuhXEwGDFwI8",
    type="email:new",
    queue="EMAIL",
    payload=b"\x00\xff{}",
    state=TaskState.ACTIVE,
    created_ns=_NOW_NS - NS_PER_S,
    tried_ns=_NOW_NS,
    tries=2,
)


def _vector(
    level: str,
    name: str,
    description: str,
    *,
    kind: str,
    subject: str,
    body: bytes,
    decoded: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Return a vector's path below `vectors/` and its text."""
    vector: dict[str, Any] = {"name": name, "kind": kind, "description": description, "source": _SOURCE}
    vector["subject"] = subject
    if headers:
        vector["headers"] = dict(headers)
    vector["bytes_base64"] = base64.b64encode(body).decode()
    with contextlib.suppress(UnicodeDecodeError):  # MessagePack is no text
        vector["text"] = body.decode()
    vector["decoded"] = dict(decoded)
    return f"{level}/{name}.json", json.dumps(vector, indent=2, ensure_ascii=False) + "\n"


def _reply(
    name: str, description: str, headers: Mapping[str, str], body: bytes = b"", level: str = "should"
) -> tuple[str, str]:
    reply = read_reply(headers, body)
    decoded: dict[str, Any]
    if H_PROGRESS in headers:
        share = headers[H_PROGRESS]
        note = json.loads(body)["note"] if body else None
        decoded = {"outcome": "interim", "progress": float(share) if share else None, "note": note}
    elif isinstance(reply, Completed):
        decoded = {"outcome": "completed", "result_base64": base64.b64encode(reply.result).decode()}
    elif isinstance(reply, Failed):
        after_ns = reply.retry_after_ns
        after_ms = None if after_ns is None else after_ns // NS_PER_MS
        decoded = {"outcome": "failed", "error": reply.error, "retry_after_ms": after_ms}
    else:
        decoded = {"outcome": "terminated", "error": reply.error}
    return _vector(level, name, description, kind="reply", subject=_REPLY, headers=headers, body=body, decoded=decoded)


def _request(
    level: str, name: str, description: str, extra: Mapping[str, str], *, packed: bool = False
) -> tuple[str, str]:
    give_up_ns = _NOW_NS + 60 * NS_PER_S
    kind = TASK_MSGPACK if packed else TASK_JSON
    headers = call_headers(_TASK, invocation=_INVOCATION, now_ns=_NOW_NS, give_up_ns=give_up_ns, content_type=kind)
    return _vector(
        level,
        name,
        description,
        kind="request",
        subject=handler_subject(_TASK.type),
        headers={**headers, **extra},
        body=_TASK.to_msgpack() if packed else _TASK.to_wire(),
        decoded={
            "id": _TASK.id,
            "type": _TASK.type,
            "try": _TASK.tries,
            "payload_base64": base64.b64encode(_TASK.payload or b"").decode(),
            "invocation": _INVOCATION,
            "timeout_ms": 58_000,
            "heartbeat_ms": int(extra[H_HEARTBEAT_MS]) if H_HEARTBEAT_MS in extra else None,
            "cancel_subject": {**headers, **extra}[H_CANCEL_SUBJECT],
            "traceparent": extra.get("traceparent"),
        },
    )


_OFFERED: Final = {H_HEARTBEAT_MS: "10000", H_CANCEL_SUBJECT: invocation_cancel_subject(_INVOCATION)}
_TRACE: Final = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=value",
}

VECTORS: Final[Mapping[str, str]] = dict(
    [
        _request("should", "request-plain", "a request of a bridge", {}),
        _request("should", "request-offers", "interim replies and cancelling are on offer", _OFFERED),
        _request("should", "request-trace", "the task carries a trace context", _TRACE),
        _request("may", "request-msgpack", "a task in MessagePack; the payload is raw", {}, packed=True),
        _reply("reply-success", "no header: the body is the result, whatever bytes it has", {}, b"\x00\xff"),
        _reply("reply-empty", "no header and no body: a result of no bytes", {}),
        _reply("reply-error", "a failed try", {"AJ-Error": "mailbox full"}),
        _reply("reply-error-any-case", "a header counts in any case", {"aj-eRROR": "mailbox full"}),
        _reply("reply-error-empty", "a header that is there counts, also when it is empty", {"AJ-Error": ""}),
        _reply("reply-error-unicode", "header text is UTF-8", {"AJ-Error": "dépassé ☃ 😀"}),
        _reply("reply-terminate", "failed for good", {"AJ-Terminate": "no such address"}),
        _reply("reply-both", "terminate wins", {"AJ-Error": "not this one", "AJ-Terminate": "no such address"}),
        _reply("reply-retry-after", "when to try again", {"AJ-Error": "rate limited", "AJ-Retry-After-Ms": "30000"}),
        _reply("reply-retry-after-alone", "without an error it means nothing", {"AJ-Retry-After-Ms": "30000"}, b"sent"),
        _reply(
            "reply-service-error",
            "an unchanged NATS micro service that fails",
            {"Nats-Service-Error": "mailbox full", "Nats-Service-Error-Code": "500"},
        ),
        _reply("reply-heartbeat", "an interim reply: the handler lives", {H_PROGRESS: ""}),
        _reply("reply-progress", "an interim reply: a quarter is done", {H_PROGRESS: "0.25"}),
        _reply("reply-progress-note", "with a note", {H_PROGRESS: "1"}, b'{"note":"rendering"}', level="may"),
        *(
            _vector(
                "may",
                f"edge-{name}",
                f"a dependency's edge, while its parent {what}",
                kind="edge",
                subject=edge_subject(_PARENT, _TASK.id),
                body=json.dumps(example, separators=(",", ":"), ensure_ascii=False).encode(),
                decoded=example,
            )
            for (name, what), example in zip(
                (("open", "has not ended"), ("done", "is complete, with its result"), ("failed", "has failed")),
                load("edge")["examples"],
                strict=True,
            )
        ),
        *(
            _vector(
                "may",
                f"attempt-{number}",
                "an entry of the attempts ledger",
                kind="attempt",
                subject=attempts_subject(_TASK.id),
                body=json.dumps(example, separators=(",", ":"), ensure_ascii=False).encode(),
                decoded=example,
            )
            for number, example in enumerate(load("attempt")["examples"], 1)
        ),
    ]
)
"""Path below `vectors/` -> the file's text."""
