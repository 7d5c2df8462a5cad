"""What a task's stored result means to a program.

A remote handler's reply is stored as base64 text, an in-process Go handler's value as plain JSON, and the record does
not say which it was: the rules here decide, in one place. Pure.
"""

from base64 import b64decode
from typing import Any, TypeVar, overload

import msgspec

from aj_sdk.errors import PayloadError
from aj_sdk.payload import payload_reader
from aj_sdk.wire.codec import encode_json
from aj_sdk.wire.task import TaskResult

__all__ = ["result_bytes", "result_value"]

T = TypeVar("T")


@overload
def result_value(result: TaskResult, as_type: None = None) -> Any: ...
@overload
def result_value(result: TaskResult, as_type: type[T]) -> T: ...
@overload
def result_value(result: TaskResult, as_type: Any) -> Any: ...
def result_value(result: TaskResult, as_type: Any = None) -> Any:
    """Return a result as the value that the handler meant.

    Text that is base64 is taken for the bytes of a reply (a word such as `done` from an in-process Go handler is
    base64 by chance: ask for it with `as_type=str`). Without a type, empty bytes are None, bytes that are JSON become
    its value, and others stay bytes. Anything but text is returned as it is.

    Args:
        result: the stored result.
        as_type: what to read it as: `bytes`, `str` (UTF-8) or any type that a handler's payload may have.

    Raises:
        PayloadError: it does not fit the type.
    """
    body = _reply_bytes(result)
    if as_type is None:
        return result.payload if body is None else _guess(body)
    if as_type is bytes:
        return result_bytes(result)
    if as_type is str:
        return _text(result, body)
    plain = encode_json(result.payload)
    if body is None:
        return payload_reader(as_type)(plain)
    try:
        return payload_reader(as_type)(body)
    except PayloadError:
        # Text of an in-process handler that happened to be base64.
        try:
            return payload_reader(as_type)(plain)
        except PayloadError:
            pass
        raise


def result_bytes(result: TaskResult) -> bytes:
    """Return the very bytes of a handler's reply; the JSON text of a value that was no reply."""
    body = _reply_bytes(result)
    return encode_json(result.payload) if body is None else body


def _reply_bytes(result: TaskResult) -> bytes | None:
    payload = result.payload
    if isinstance(payload, bytes):
        return payload
    # Python reads more padding than there may be.
    if not isinstance(payload, str) or len(payload) % 4:
        return None
    try:
        return b64decode(payload, validate=True)
    except ValueError:
        return None


def _guess(body: bytes) -> Any:
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body


def _text(result: TaskResult, body: bytes | None) -> str:
    if body is not None:
        try:
            return body.decode()
        except UnicodeDecodeError:
            pass
    if isinstance(result.payload, str):
        return result.payload
    raise PayloadError(f"the result is no text, but {type(result.payload).__name__}")
