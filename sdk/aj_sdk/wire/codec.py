"""JSON and MessagePack in and out, and the checks that every decoder of the wire shares.

Knows no record: `task`, `item` and their siblings know their keys.
"""

import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from aj_sdk.errors import DecodeError
from aj_sdk.wire.names import MAX_NAME, is_name
from aj_sdk.wire.times import parse_time

__all__ = [
    "JSON",
    "Fields",
    "decode_json",
    "decode_map",
    "decode_msgpack",
    "encode_base64",
    "encode_json",
    "encode_msgpack",
]

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None

_MAX_INT: Final = 2**63 - 1

encode_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode
_encode_msgpack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decode_json: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_decode_msgpack: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode


def decode_json(data: bytes, what: str) -> Any:
    """Read JSON text.

    Raises:
        DecodeError: it is not JSON, or nested too deeply to read.
    """
    return _decode(_decode_json, data, what, "JSON")


def decode_msgpack(data: bytes, what: str) -> Any:
    """Read MessagePack.

    Raises:
        DecodeError: it is not MessagePack, or nested too deeply to read.
    """
    return _decode(_decode_msgpack, data, what, "MessagePack")


def encode_msgpack(value: Any) -> bytes:
    """Write MessagePack, whose integers have 64 bits: a longer one, which JSON may hold, becomes a float as in Go."""
    try:
        return _encode_msgpack(value)
    except OverflowError:
        return _encode_msgpack(_shorten(value))


def _shorten(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shorten(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shorten(item) for item in value]
    if type(value) is int and not -_MAX_INT - 1 <= value <= 2 * _MAX_INT + 1:
        # Beyond a float's range too: Go refuses to read such a number at all.
        return float(value) if abs(value) < 10**308 else math.inf if value > 0 else -math.inf
    return value


def _decode(decode: Callable[[bytes], Any], data: bytes, what: str, form: str) -> Any:
    try:
        return decode(data)
    except RecursionError:
        raise DecodeError(what, "", "nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OverflowError) as err:
        raise DecodeError(what, "", f"not valid {form}: {err}") from err


def encode_base64(data: bytes) -> str:
    """Write bytes as Go writes a byte slice: standard alphabet, padded."""
    return b64encode(data).decode("ascii")


def decode_map(value: Any, what: str, known: Mapping[str, bool], key: str = "") -> "Fields":
    """Take a decoded value as an object with the known keys.

    Args:
        value: the decoded JSON or MessagePack value.
        what: what it is, for errors.
        known: key -> whether it must be there.
        key: the key under which the value itself stood, for errors.

    Raises:
        DecodeError: it is no object, or a required key is missing.
    """
    if not isinstance(value, dict):
        raise DecodeError(what, key, "must be an object")
    fields = value if value.keys() <= known.keys() else _fold_case(value, known, what)
    for name, required in known.items():
        if required and fields.get(name) is None:
            raise DecodeError(what, f"{key}.{name}" if key else name, "is missing")
    return Fields(fields, what, key)


def _fold_case(value: dict[Any, Any], known: Mapping[str, bool], what: str) -> dict[str, Any]:
    # Go reads keys without regard to case; the exact spelling wins.
    fields: dict[str, Any] = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise DecodeError(what, "", "has a key that is not text")
        folded = name.lower()
        if name in known or folded not in known:
            fields[name] = item
        elif folded not in value:
            fields.setdefault(folded, item)
    return fields


class Fields:
    """An object's fields, read one by one; each reader names the key that failed."""

    __slots__ = ("_key", "_value", "_what")

    def __init__(self, value: dict[str, Any], what: str, key: str) -> None:
        self._value = value
        self._what = what
        self._key = key

    def wrong(self, name: str, reason: str) -> DecodeError:
        """Make the error for a field."""
        return DecodeError(self._what, f"{self._key}.{name}" if self._key else name, reason)

    def get(self, name: str) -> Any:
        """Return a field as it is, None when absent."""
        return self._value.get(name)

    def rest(self, known: Mapping[str, bool]) -> dict[str, Any]:
        """Return the fields that we do not know, for a save that must not lose them."""
        value = self._value
        return {} if value.keys() <= known.keys() else {name: value[name] for name in value if name not in known}

    def text(self, name: str, default: str = "") -> str:
        """Read a string; null and absent give the default, as in Go."""
        value = self._value.get(name)
        if value is None:
            return default
        if type(value) is not str:
            raise self.wrong(name, "must be a string")
        return value

    def name(self, name: str, *, empty: bool = False) -> str:
        """Read a task id, task type, queue or schedule name."""
        value = self.text(name)
        if not (is_name(value) or (empty and not value)):
            raise self.wrong(name, f"must be 1 to {MAX_NAME} of the characters A-Z a-z 0-9 _ : -")
        return value

    def names(self, name: str, limit: int) -> tuple[str, ...]:
        """Read a list of task ids."""
        value = self._value.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > limit:
            raise self.wrong(name, f"must be a list of at most {limit} task ids")
        for item in value:
            if type(item) is not str or not is_name(item):
                raise self.wrong(name, "must hold valid task ids")
        return tuple(value)

    def integer(self, name: str, default: int = 0) -> int:
        """Read an integer of 64 bits."""
        value = self._value.get(name)
        if value is None:
            return default
        if type(value) is not int or not -_MAX_INT - 1 <= value <= _MAX_INT:
            raise self.wrong(name, "must be an integer of 64 bits")
        return value

    def flag(self, name: str) -> bool:
        """Read a boolean."""
        value = self._value.get(name)
        if value is None:
            return False
        if type(value) is not bool:
            raise self.wrong(name, "must be true or false")
        return value

    def time(self, name: str) -> int | None:
        """Read an RFC 3339 time as nanoseconds since the epoch."""
        value = self._value.get(name)
        if value is None:
            return None
        if type(value) is not str:
            raise self.wrong(name, "must be an RFC 3339 time")
        try:
            return parse_time(value)
        except ValueError as err:
            raise self.wrong(name, str(err)) from None

    def instant(self, name: str) -> int:
        """Read an RFC 3339 time that must be there."""
        value = self.time(name)
        if value is None:
            raise self.wrong(name, "must be an RFC 3339 time")
        return value

    def blob(self, name: str) -> bytes | None:
        """Read bytes: base64 text, or raw bytes from MessagePack."""
        value = self._value.get(name)
        if value is None or type(value) is bytes:
            return value
        if type(value) is not str:
            raise self.wrong(name, "must be base64 text")
        try:
            # Python reads more padding than there may be.
            if len(value) % 4 == 0:
                return b64decode(value, validate=True)
        except ValueError:
            pass
        raise self.wrong(name, "is not valid base64")
