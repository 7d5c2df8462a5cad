"""What a handler's process makes of a request, and of what became of it.

Pure: a request comes in as headers and bytes, an answer goes out as headers and bytes. `runner` receives, calls and
sends.
"""

import inspect
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from aj_sdk.errors import DecodeError, PayloadError, RetryLater, Terminate
from aj_sdk.handling import Task
from aj_sdk.payload import encode_result
from aj_sdk.wire.call import Completed, Failed, Reply, Terminated, read_call, reply_headers
from aj_sdk.wire.headers import MAX_HEADER_BYTES, header_text
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Response", "close_call", "failed", "open_call", "succeeded"]

Signal = TypeVar("Signal", bound=BaseException)

_HEADER_ROOM: Final = 256
"""Bytes that a reply's headers need beside the error's text."""

_MIN_TEXT: Final = 16
_MAX_DELAY_S: Final = 366 * 86_400.0
_MAX_SHOWN: Final = 3


class Response(msgspec.Struct, frozen=True):
    """An answer, ready to be sent."""

    body: bytes
    headers: dict[str, str] | None


def open_call(
    headers: Mapping[str, str] | None,
    body: bytes,
    *,
    now_ns: int,
    arrived: float,
    logger: logging.Logger | None = None,
    clock: Callable[[], float] = time.monotonic,
    lifespan: Any = None,
) -> Task | Reply:
    """Read a request.

    Args:
        headers: its headers.
        body: its body.
        now_ns: now, in nanoseconds since the epoch; used only where the request has no relative deadline (a Go
            worker's), so that clocks need not agree.
        arrived: when it arrived, on `clock`.
        logger: what the task's `log` writes to.
        clock: a monotonic clock in seconds.
        lifespan: what the handler finds as `task.lifespan`.

    Returns:
        The task to handle, or the reply where there is nothing to handle: a request that can't be read fails for
        good, because another try would bring the same bytes; one that comes too late fails.
    """
    try:
        call = read_call(headers, body)
    except DecodeError as err:
        return Terminated(f"the request can't be read: {err}")
    left_ns = call.deadline_ns - now_ns if call.timeout_ns is None else call.timeout_ns
    if left_ns <= 0:
        return Failed("the deadline had passed when the request arrived")
    return Task(call, expires=arrived + left_ns / NS_PER_S, logger=logger, clock=clock, lifespan=lifespan)


def succeeded(value: Any) -> Reply:
    """Say what a handler's return value means; a reply stands for itself (a command's exit code makes one)."""
    if isinstance(value, Completed | Failed | Terminated):
        return value
    if inspect.iscoroutine(value):
        value.close()
        return Terminated("the handler returned a coroutine: it must be declared with async def")
    try:
        return Completed(encode_result(value))
    except PayloadError as err:
        return Terminated(str(err))


def failed(error: BaseException) -> Reply:
    """Say what an exception from a handler means.

    `Terminate` and a payload that does not fit the handler end the task, `RetryLater` asks for a delay, anything
    else is a failed try. The two signals count inside an exception group too, as a handler's own task group makes it.
    """
    if (final := _find(error, Terminate)) is not None:
        return Terminated(_text(final) or "terminated by handler")
    if (later := _find(error, RetryLater)) is not None:
        return Failed(_text(later) or "retry later", int(min(later.seconds, _MAX_DELAY_S) * NS_PER_S))
    if isinstance(error, PayloadError):
        return Terminated(_text(error))
    return Failed(_describe(error))


def close_call(reply: Reply, *, max_payload: int, offered: bool) -> Response:
    """Make the answer that tells a reply.

    Args:
        reply: what became of the call.
        max_payload: the most bytes that the server takes in one message.
        offered: whether the request came with our additions to the protocol (`AJ-Protocol`); a handler uses them
            only then.
    """
    if isinstance(reply, Completed):
        if len(reply.result) <= max_payload:
            return Response(reply.result, None)
        reply = Terminated(f"the result of {len(reply.result)} bytes is too large: the server takes {max_payload}")
    limit = max(_MIN_TEXT, min(MAX_HEADER_BYTES, max_payload - _HEADER_ROOM))
    text = header_text(reply.error, limit)
    if isinstance(reply, Terminated):
        return Response(b"", reply_headers(Terminated(text)))
    return Response(b"", reply_headers(Failed(text, reply.retry_after_ns if offered else None)))


def _find(error: BaseException, kind: type[Signal]) -> Signal | None:
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _find(each, kind)) is not None), None)
    return None


def _describe(error: BaseException) -> str:
    name = type(error).__name__
    text = _text(error)
    if isinstance(error, BaseExceptionGroup):
        shown = [_describe(each) for each in error.exceptions[:_MAX_SHOWN]]
        text = f"{text}: {'; '.join(shown)}"
    return f"{name}: {text}" if text else name


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception class of the application, and its own __str__
        return ""
