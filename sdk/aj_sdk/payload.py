"""Payloads and results: bytes on the wire, values in a program.

Knows how a handler's annotation reads a payload and how a returned value becomes a reply's body; knows no task.
pydantic is used only for types of pydantic, so the program that has them has imported it already.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from aj_sdk.errors import PayloadError, UsageError

__all__ = ["PayloadReader", "decode_payload", "encode_payload", "encode_result", "payload_reader", "payload_schema"]

PayloadReader: TypeAlias = Callable[[bytes | None], Any]
"""Turns a payload's bytes (None: the task has none) into a value; raises PayloadError."""

T = TypeVar("T")

_RAW: Final = (bytes, bytearray, memoryview)
_EXPECTED: Final = (
    "use what JSON can hold: dict, list, str, a dataclass, a TypedDict, a msgspec.Struct, a pydantic model"
)


def payload_reader(annotation: Any) -> PayloadReader:
    """Return the function that reads a payload for an annotation.

    `bytes` (or `bytearray`, `memoryview`) gives the payload as it is; everything else is read from JSON: `dict`,
    `list`, `str`, `int`, a dataclass, a TypedDict, a `msgspec.Struct`, a pydantic model, and combinations of them.
    A missing or empty payload reads as JSON `null`, so it fits `dict | None` but not `dict`; as raw bytes it is
    empty, or None for `bytes | None`.

    Raises:
        UsageError: nothing of that type can be read from JSON.
    """
    if annotation in _RAW:
        return lambda data: annotation(data or b"")
    if annotation == bytes | None:
        return lambda data: data
    if annotation is object:
        annotation = Any
    try:
        decode = msgspec.json.Decoder(annotation).decode
        found = tuple(_classes(msgspec.inspect.type_info(annotation), set()))
    except (TypeError, NameError) as err:
        raise UsageError(f"a payload can't be read as {_shown(annotation)}: {err}") from err
    if any(_is_pydantic(cls) for cls, _ in found):
        return _pydantic_reader(annotation)
    for cls, custom in found:
        if custom and cls is not object:
            raise UsageError(f"a payload can't be read as {_shown(cls)}: {_EXPECTED}")
    return lambda data: _read(decode, data)


def payload_schema(annotation: Any) -> bytes | None:
    """Return the JSON Schema (2020-12) of what `payload_reader` reads for an annotation, as JSON.

    Returns:
        None for raw bytes, for what takes anything, and where no schema can be made of the type.
    """
    if annotation in _RAW or annotation == bytes | None or annotation in (Any, object):
        return None
    try:
        found = _classes(msgspec.inspect.type_info(annotation), set())
        if any(_is_pydantic(cls) for cls, _ in found):
            import pydantic  # noqa: PLC0415 - the program that defined the model has loaded it

            return msgspec.json.encode(pydantic.TypeAdapter(annotation).json_schema())
        return msgspec.json.encode(msgspec.json.schema(annotation))
    except Exception:  # noqa: BLE001 - a type's own hooks may raise anything, and its payloads are read all the same
        return None


def decode_payload(data: bytes | None, annotation: type[T]) -> T:
    """Read a payload as a type, see `payload_reader`.

    Raises:
        PayloadError: the payload does not fit; the error names the failing field.
        UsageError: nothing of that type can be read from JSON.
    """
    value: T = payload_reader(annotation)(data)
    return value


def encode_payload(value: Any) -> bytes | None:
    """Make the payload of a new task.

    Bytes stay as they are, None is no payload, and everything else becomes JSON; text too (as a JSON string),
    because a Go handler decodes every payload that is not raw.

    Raises:
        PayloadError: it can't be encoded.
    """
    if value is None:
        return None
    return bytes(value) if isinstance(value, _RAW) else _encode("payload", value)


def encode_result(value: Any) -> bytes:
    """Make the body of a reply from what a handler returned.

    Bytes stay as they are, text becomes UTF-8, None an empty body, and everything else JSON.

    Raises:
        PayloadError: it can't be encoded.
    """
    if value is None:
        return b""
    if isinstance(value, _RAW):
        return bytes(value)
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as err:
            raise PayloadError(f"the result can't be encoded as UTF-8: {err.reason}") from err
    return _encode("result", value)


def _encode(what: str, value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=_encode_unknown)
    except Exception as err:
        # The value's own code (a model's serializer) may raise anything.
        reason = "it is nested too deeply" if isinstance(err, RecursionError) else str(err) or type(err).__name__
        raise PayloadError(f"the {what} of type {type(value).__name__} can't be encoded as JSON: {reason}") from err


def _encode_unknown(value: Any) -> Any:
    """Encode what msgspec does not know; a pydantic model may stand anywhere in a value."""
    if _is_pydantic(type(value)):
        return value.model_dump(mode="json")
    raise TypeError(f"values of type {type(value).__name__} have no JSON form")


def _read(decode: Callable[[bytes], Any], data: bytes | None) -> Any:
    try:
        return decode(data or b"null")
    except RecursionError:
        raise PayloadError("payload: nested too deeply") from None
    except msgspec.ValidationError as err:
        problem, _, path = str(err).rpartition(" - at `")
        raise PayloadError(f"payload at {path.rstrip('`')}: {problem}" if problem else f"payload: {err}") from err
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise PayloadError(f"payload is not valid JSON: {err}") from err


def _pydantic_reader(annotation: Any) -> PayloadReader:
    import pydantic  # noqa: PLC0415 - the program that defined the model has loaded it

    try:
        adapter = pydantic.TypeAdapter(annotation)
        # A model with a forward reference that was never defined would otherwise fail at the first payload.
        adapter.rebuild(raise_errors=True)
    except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as err:
        raise UsageError(f"a payload can't be read as {_shown(annotation)}: {err.message}") from err

    def read(data: bytes | None) -> Any:
        try:
            return adapter.validate_json(data or b"null")
        except pydantic.ValidationError as err:
            fault = err.errors(include_url=False, include_input=False, include_context=False)[0]
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
            raise PayloadError(f"payload at ${path}: {fault['msg']}" if path else f"payload: {fault['msg']}") from err

    return read


def _is_pydantic(cls: type) -> bool:
    return hasattr(cls, "__pydantic_validator__")


def _classes(info: Any, seen: set[int]) -> Iterator[tuple[type, bool]]:
    """Walk a type's description: every class in it, and whether it is one that msgspec does not know."""
    if isinstance(info, tuple):
        for part in info:
            yield from _classes(part, seen)
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) and id(info) not in seen:
        seen.add(id(info))
        cls = getattr(info, "cls", None)
        if isinstance(cls, type):
            yield cls, isinstance(info, msgspec.inspect.CustomType)
        for name in info.__struct_fields__:
            yield from _classes(getattr(info, name), seen)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
