"""Requests as a bridge or a Go worker writes them, and what came back, in words for people."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from aj_sdk.ids import new_id
from aj_sdk.wire.headers import find_header
from aj_sdk.wire.names import (
    H_CANCEL_SUBJECT,
    H_CONTENT_TYPE,
    H_DEADLINE,
    H_ERROR,
    H_HEARTBEAT_MS,
    H_INVOCATION,
    H_PROGRESS,
    H_PROTOCOL,
    H_TASK_ID,
    H_TASK_TRY,
    H_TERMINATE,
    H_TIMEOUT_MS,
    PROTOCOL,
    TASK_JSON,
    invocation_cancel_subject,
)
from aj_sdk.wire.times import NS_PER_MS, format_time

__all__ = ["Answer", "Frame", "Request", "request", "shown"]

_SHOWN_BYTES: Final = 400


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One message, sent by us or by the responder.

    Attributes:
        at: seconds since the case began.
        sent: whether we sent it.
        subject: where it went.
        headers: its headers.
        body: its body.
    """

    at: float
    sent: bool
    subject: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The frame on one line."""
        arrow = "->" if self.sent else "<-"
        return f"{self.at:7.3f} s {arrow} {self.subject} {shown(self.headers, self.body)}"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request.

    Attributes:
        headers: its headers.
        body: its body.
        invocation: the id of the call.
    """

    headers: dict[str, str]
    body: bytes
    invocation: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one request.

    Attributes:
        final: the last reply; None for no answer in time.
        interim: the replies before it that only tell progress.
        took: seconds until the last reply, or until we gave up.
    """

    final: Frame | None
    interim: tuple[Frame, ...] = ()
    took: float = 0.0

    @property
    def error(self) -> str | None:
        """The text of `AJ-Error`; None without it."""
        return None if self.final is None else find_header(self.final.headers, H_ERROR)

    @property
    def terminate(self) -> str | None:
        """The text of `AJ-Terminate`; None without it."""
        return None if self.final is None else find_header(self.final.headers, H_TERMINATE)

    @property
    def succeeded(self) -> bool:
        """Whether it is a success."""
        return self.final is not None and self.error is None and self.terminate is None

    @property
    def shares(self) -> list[str]:
        """What the interim replies tell."""
        return [find_header(frame.headers, H_PROGRESS) or "" for frame in self.interim]

    @property
    def text(self) -> str:
        """The answer, for people."""
        before = f"{len(self.interim)} interim replies {self.shares[:10]}, then " if self.interim else ""
        if self.final is None:
            return f"{before}no answer within {self.took:.1f} s"
        return f"{before}{shown(self.final.headers, self.final.body)} after {self.took:.2f} s"


def request(
    task_type: str,
    payload: bytes | None,
    *,
    try_: int = 1,
    task_id: str = "",
    timeout_ms: int = 20_000,
    go_worker: bool = False,
    interim_ms: int = 0,
    extra: Mapping[str, str] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Request:
    """Write a request.

    Args:
        task_type: the task's type.
        payload: the task's payload; None for a task without.
        try_: which try it is.
        task_id: the task's id; empty for a new one.
        timeout_ms: when the reply must be in; negative for a deadline that has passed.
        go_worker: send only what a Go worker sends.
        interim_ms: offer interim replies, and a cancel subject, with this distance; 0 for no offer.
        extra: more headers, or other values.
        fields: more keys of the task, or other values.
    """
    task_id = task_id or new_id()
    invocation = f"{new_id()}.{try_}"
    now_ns = time.time_ns()
    deadline_ns = now_ns + timeout_ms * NS_PER_MS
    headers = {H_CONTENT_TYPE: TASK_JSON, H_DEADLINE: format_time(deadline_ns)}
    if not go_worker:
        headers |= {
            H_PROTOCOL: PROTOCOL,
            H_TIMEOUT_MS: str(max(0, timeout_ms)),
            H_INVOCATION: invocation,
            H_TASK_ID: task_id,
            H_TASK_TRY: str(try_),
        }
        if interim_ms:
            headers[H_HEARTBEAT_MS] = str(interim_ms)
            headers[H_CANCEL_SUBJECT] = invocation_cancel_subject(invocation.replace(".", "-"))
    record = {
        "id": task_id,
        "type": task_type,
        "queue": "CONFORMANCE",
        "payload": None if payload is None else base64.b64encode(payload).decode(),
        "max_tries": 10,
        "state": "active",
        "created": format_time(now_ns),
        "tried": format_time(now_ns),
        "tries": try_,
        **(fields or {}),
    }
    body = json.dumps(record, ensure_ascii=False).encode()
    return Request(headers={**headers, **(extra or {})}, body=body, invocation=invocation)


def shown(headers: Mapping[str, str], body: bytes) -> str:
    """Describe headers and a body on one line."""
    text = body[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    rest = f" ... ({len(body)} bytes)" if len(body) > _SHOWN_BYTES else ""
    told = " ".join(f"[{name}: {value}]" for name, value in headers.items())
    return f"{told or '[no header]'} {text + rest if body else '(no body)'}"
