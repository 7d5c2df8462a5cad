"""The call to a remote handler: what the request's headers say and what a reply means.

Both sides use it: the bridge writes requests and reads replies, the SDK reads requests and writes replies.
Source of the first half of the headers: the Go project's request_reply_handler.go; the others are ours.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from aj_sdk.errors import DecodeError
from aj_sdk.wire.frames import HeaderForm, header_block, read_header_block
from aj_sdk.wire.headers import find_header, header_text
from aj_sdk.wire.names import (
    H_CANCEL_SUBJECT,
    H_CONTENT_TYPE,
    H_DEADLINE,
    H_ERROR,
    H_HEARTBEAT_MS,
    H_INVOCATION,
    H_PROGRESS,
    H_PROTOCOL,
    H_RETRY_AFTER_MS,
    H_SERVICE_ERROR,
    H_SERVICE_ERROR_CODE,
    H_TASK_ID,
    H_TASK_TRY,
    H_TERMINATE,
    H_TIMEOUT_MS,
    H_TRACE_PARENT,
    H_TRACE_STATE,
    PROTOCOL,
    TASK_JSON,
    TASK_MSGPACK,
    invocation_cancel_subject,
)
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S, format_time, parse_time
from aj_sdk.wire.trace import NO_TRACE, Trace, header_trace

__all__ = [
    "MAX_ERROR_BYTES",
    "REPLY_HEADERS",
    "REQUEST_HEADERS",
    "Call",
    "Cause",
    "Completed",
    "Failed",
    "Reply",
    "Terminated",
    "call_header_block",
    "call_headers",
    "clip_error",
    "handler_deadline_ns",
    "read_call",
    "read_reply",
    "reply_headers",
]

MAX_ERROR_BYTES: Final = 8192
"""Cap on `last_err`, in bytes of UTF-8."""

_MAX_RETRY_AFTER_MS: Final = 366 * 86_400_000

REQUEST_HEADERS: Final[Mapping[str, bool]] = {
    H_CONTENT_TYPE: True,
    H_DEADLINE: True,
    H_PROTOCOL: False,
    H_TIMEOUT_MS: False,
    H_INVOCATION: False,
    H_TASK_ID: False,
    H_TASK_TRY: False,
    H_CANCEL_SUBJECT: False,
    H_HEARTBEAT_MS: False,
    H_TRACE_PARENT: False,
    H_TRACE_STATE: False,
}
_CALL_HEADERS: Final = (
    H_CONTENT_TYPE,
    H_DEADLINE,
    H_PROTOCOL,
    H_TIMEOUT_MS,
    H_INVOCATION,
    H_TASK_ID,
    H_TASK_TRY,
    H_CANCEL_SUBJECT,
    H_HEARTBEAT_MS,
)
_CALL_FORM: Final = HeaderForm(*_CALL_HEADERS)
REPLY_HEADERS: Final = (H_PROGRESS, H_ERROR, H_TERMINATE, H_RETRY_AFTER_MS, H_SERVICE_ERROR, H_SERVICE_ERROR_CODE)


class Cause(StrEnum):
    """Why a call failed, as the attempts of a task tell it."""

    ERROR = "failed"
    DEADLINE = "deadline"
    PROGRESS = "progress_missed"


class Completed(msgspec.Struct, frozen=True):
    """The handler succeeded; `result` is its reply's body, byte for byte."""

    result: bytes


class Failed(msgspec.Struct, frozen=True):
    """The handler failed; try again later.

    Attributes:
        error: becomes `last_err`.
        retry_after_ns: when to try again instead of the backoff; None for the backoff.
        cause: whether the handler said so, or nothing was heard of it.
    """

    error: str
    retry_after_ns: int | None = None
    cause: Cause = Cause.ERROR


class Terminated(msgspec.Struct, frozen=True):
    """The handler failed for good; `error` becomes `last_err`."""

    error: str


Reply: TypeAlias = Completed | Failed | Terminated


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request as a handler sees it.

    Attributes:
        task: the task, in state `active`.
        invocation: id of this one invocation; empty from a Go worker.
        try_: number of this try, 1 for the first.
        protocol: `1.1`, or empty from a Go worker.
        deadline_ns: when the reply must be in, nanoseconds since the epoch, by the bridge's clock.
        timeout_ns: the same, from the arrival on; None from a Go worker.
        heartbeat_ns: how often the bridge wants to hear of the handler, once it did; None where it takes no interim
            replies.
        trace: the trace context to go on with.
    """

    task: TaskRecord
    invocation: str
    try_: int
    protocol: str
    deadline_ns: int
    timeout_ns: int | None
    heartbeat_ns: int | None = None
    trace: Trace = NO_TRACE


def handler_deadline_ns(now_ns: int, give_up_ns: int) -> int:
    """Return the deadline that a handler is told: 2 s before the bridge gives up, a tenth of the time if less."""
    return give_up_ns - min(2 * NS_PER_S, max(0, give_up_ns - now_ns) // 10)


def call_headers(
    task: TaskRecord,
    *,
    invocation: str,
    now_ns: int,
    give_up_ns: int,
    heartbeat_ns: int = 10 * NS_PER_S,
    content_type: str = TASK_JSON,
    trace: Trace = NO_TRACE,
) -> dict[str, str]:
    """Return the headers of a request, by their names; the arguments are those of `call_header_block`."""
    return read_header_block(
        call_header_block(
            task,
            invocation=invocation,
            now_ns=now_ns,
            give_up_ns=give_up_ns,
            heartbeat_ns=heartbeat_ns,
            content_type=content_type,
            trace=trace,
        )
    )


def call_header_block(
    task: TaskRecord,
    *,
    invocation: str,
    now_ns: int,
    give_up_ns: int,
    heartbeat_ns: int = 10 * NS_PER_S,
    content_type: str = TASK_JSON,
    trace: Trace = NO_TRACE,
) -> bytes:
    """Return the headers of a request, as the block that is sent.

    Args:
        task: the task, already in state `active` with this try counted.
        invocation: id of this invocation.
        now_ns: now, in nanoseconds since the epoch.
        give_up_ns: when the bridge stops waiting for the reply.
        heartbeat_ns: how often the bridge wants to hear of the handler, once it did.
        content_type: how the body is encoded.
        trace: the trace context to go on with.
    """
    deadline_ns = handler_deadline_ns(now_ns, give_up_ns)
    # A Go handler's parser takes fractions too; they are left out where a second does not matter.
    shown_ns = deadline_ns if give_up_ns - now_ns < 3 * NS_PER_S else deadline_ns // NS_PER_S * NS_PER_S
    values = (
        content_type,
        format_time(shown_ns),
        PROTOCOL,
        max(0, deadline_ns - now_ns) // NS_PER_MS,
        invocation,
        task.id,
        task.tries,
        invocation_cancel_subject(invocation),
        heartbeat_ns // NS_PER_MS,
    )
    if trace:
        return header_block(dict(zip(_CALL_HEADERS, map(str, values), strict=True)) | trace.to_map())
    return _CALL_FORM.block(*values)


def read_call(headers: Mapping[str, str] | None, body: bytes) -> Call:
    """Read a request.

    Raises:
        DecodeError: a header or the task is not what it should be.
    """
    content_type = find_header(headers, H_CONTENT_TYPE)
    if content_type == TASK_JSON:
        task = TaskRecord.from_wire(body)
    elif content_type == TASK_MSGPACK:
        task = TaskRecord.from_msgpack(body)
    else:
        shown = "missing" if content_type is None else f"{content_type[:80]!r} is not known"
        raise DecodeError("request", H_CONTENT_TYPE, f"{shown}; expected {TASK_JSON} or {TASK_MSGPACK}")
    deadline = find_header(headers, H_DEADLINE)
    try:
        deadline_ns = parse_time(deadline or "")
    except ValueError as err:
        raise DecodeError("request", H_DEADLINE, str(err)) from None
    timeout_ms = _number(headers, H_TIMEOUT_MS)
    heartbeat_ms = _number(headers, H_HEARTBEAT_MS)
    try_ = _number(headers, H_TASK_TRY)
    return Call(
        task=task,
        invocation=find_header(headers, H_INVOCATION) or "",
        try_=try_ if try_ is not None else max(1, task.tries),
        protocol=find_header(headers, H_PROTOCOL) or "",
        deadline_ns=deadline_ns,
        timeout_ns=None if timeout_ms is None else timeout_ms * NS_PER_MS,
        heartbeat_ns=heartbeat_ms * NS_PER_MS if heartbeat_ms else None,
        trace=header_trace(headers),
    )


def _number(headers: Mapping[str, str] | None, name: str) -> int | None:
    text = find_header(headers, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise DecodeError("request", name, f"{text[:40]!r} is not a whole number")
    return int(text)


def reply_headers(reply: Reply) -> dict[str, str] | None:
    """Return the headers of a reply, None for a success."""
    if isinstance(reply, Completed):
        return None
    if isinstance(reply, Terminated):
        return {H_TERMINATE: header_text(reply.error)}
    headers = {H_ERROR: header_text(reply.error)}
    if reply.retry_after_ns is not None:
        headers[H_RETRY_AFTER_MS] = str(reply.retry_after_ns // NS_PER_MS)
    return headers


def read_reply(headers: Mapping[str, str] | None, body: bytes) -> Reply:
    """Say what a reply means.

    Headers are compared without regard to case, and one that is there counts even when it is empty; terminate
    wins over error. The failure of a stock NATS micro service is an error too.
    """
    if not headers:
        return Completed(body)
    terminate = find_header(headers, H_TERMINATE)
    if terminate is not None:
        return Terminated(clip_error(terminate) or "terminated by handler")
    error = find_header(headers, H_ERROR)
    if error is None:
        service_error = find_header(headers, H_SERVICE_ERROR)
        code = find_header(headers, H_SERVICE_ERROR_CODE)
        if service_error is None and code is None:
            return Completed(body)
        error = f"{service_error or 'service error'} ({code})" if code else service_error
    return Failed(clip_error(error or "") or "handler failed without a text", _retry_after(headers))


def _retry_after(headers: Mapping[str, str]) -> int | None:
    text = find_header(headers, H_RETRY_AFTER_MS)
    # A value that is no number falls back to the backoff: the failure itself was told clearly enough.
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 15):
        return None
    return min(int(text), _MAX_RETRY_AFTER_MS) * NS_PER_MS


def clip_error(text: str) -> str:
    """Cut an error text at `MAX_ERROR_BYTES`."""
    data = text.encode("utf-8", "replace")
    return data[:MAX_ERROR_BYTES].decode("utf-8", "ignore").strip()
