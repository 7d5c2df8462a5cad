"""The task record: what is stored on `CHORIA_AJ.T.<task id>` and sent to a handler.

The only place that knows its keys and Go's omit-empty rules. Source: Task in the Go project's task.go.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from aj_sdk.wire.codec import (
    JSON,
    Fields,
    decode_json,
    decode_map,
    decode_msgpack,
    encode_base64,
    encode_json,
    encode_msgpack,
)
from aj_sdk.wire.names import H_TRACE_PARENT, H_TRACE_STATE, check_name
from aj_sdk.wire.state import TaskState, parse_state
from aj_sdk.wire.times import format_time, parse_time
from aj_sdk.wire.trace import TRACE_KEYS

__all__ = ["DEFAULT_MAX_TRIES", "KEYS", "MAX_DEPENDENCIES", "RESULT_KEYS", "TaskRecord", "TaskResult"]

DEFAULT_MAX_TRIES: Final = 10
MAX_DEPENDENCIES: Final = 10_000

RESULT_KEYS: Final[Mapping[str, bool]] = {"payload": False, "completed": True}
KEYS: Final[Mapping[str, bool]] = {
    "id": True,
    "type": True,
    "queue": False,
    "dependencies": False,
    "dependency_results": False,
    "load_dependencies": False,
    "payload": False,
    "deadline": False,
    "max_tries": False,
    "result": False,
    "state": False,
    "created": True,
    "tried": False,
    "tries": False,
    "last_err": False,
    "signature": False,
}


_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Tries = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a task that completed.

    Attributes:
        payload: any JSON. The reply of a remote handler is stored as base64 text; the type can't be told from
            the record alone (an in-process Go handler's value is plain JSON). `bytes` only in a record that was
            read from MessagePack or is about to be written.
        completed_ns: when, in nanoseconds since the epoch.
    """

    payload: JSON | bytes
    completed_ns: int

    @classmethod
    def from_map(cls, value: Any, key: str = "") -> "TaskResult":
        """Read a result.

        Raises:
            DecodeError: it is not one.
        """
        fields = decode_map(value, "task result", RESULT_KEYS, key)
        return cls(payload=fields.get("payload"), completed_ns=fields.instant("completed"))

    @classmethod
    def from_wire(cls, data: bytes) -> "TaskResult":
        """Read a result's JSON.

        Raises:
            DecodeError: it is not one.
        """
        return cls.from_map(decode_json(data, "task result"))

    def to_map(self, *, raw: bool = False) -> dict[str, Any]:
        """Return the result's fields; `raw` leaves bytes as they are, for MessagePack."""
        payload = self.payload
        if isinstance(payload, bytes) and not raw:
            payload = encode_base64(payload)
        return {"payload": payload, "completed": format_time(self.completed_ns)}

    def to_wire(self) -> bytes:
        """Write the result as JSON."""
        return encode_json(self.to_map())


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A task as stored.

    Attributes:
        id: KSUID by default.
        type: routing key.
        queue: set at enqueue; empty before.
        state: where the task stands.
        payload: the payload's bytes, normally JSON text; None when there is none.
        created_ns: nanoseconds since the epoch.
        deadline_ns: no start after it; None when there is none.
        max_tries: <= 0 means no limit.
        tries: invocations started.
        tried_ns: when it was last handed to a handler.
        last_err: the last failure's text.
        result: set once complete.
        dependencies: ids of tasks that must complete before this one starts.
        load_dependencies: whether `dependency_results` is filled before the handler runs.
        signature: hex ed25519, see `wire.signing`.
        extra: keys beyond these, kept on a save: those of a trace context, and what we do not know.
    """

    id: str
    type: str
    queue: str = ""
    state: TaskState = TaskState.NEW
    payload: bytes | None = None
    created_ns: int
    deadline_ns: int | None = None
    max_tries: int = DEFAULT_MAX_TRIES
    tries: int = 0
    tried_ns: int | None = None
    last_err: str = ""
    result: TaskResult | None = None
    dependencies: tuple[str, ...] = ()
    dependency_results: Mapping[str, TaskResult | None] = {}
    load_dependencies: bool = False
    signature: str = ""
    extra: Mapping[str, Any] = {}

    @classmethod
    def from_wire(cls, data: bytes) -> "TaskRecord":
        """Read a task's JSON.

        Raises:
            DecodeError: it is not a task; the error names the key.
        """
        try:
            plain = _decode_plain(data)
            return cls(
                id=check_name(plain.id, "task id"),
                type=check_name(plain.type, "task type"),
                queue=plain.queue and check_name(plain.queue, "queue name"),
                state=parse_state(plain.state),
                payload=plain.payload,
                created_ns=parse_time(plain.created),
                deadline_ns=None if plain.deadline is None else parse_time(plain.deadline),
                max_tries=plain.max_tries,
                tries=plain.tries,
                tried_ns=None if plain.tried is None else parse_time(plain.tried),
                last_err=plain.last_err,
                load_dependencies=plain.load_dependencies,
                signature=plain.signature,
                extra=_traced(plain) if plain.traceparent or plain.tracestate else {},
            )
        except (msgspec.DecodeError, ValueError, RecursionError):
            # Anything out of the ordinary, good or bad: read it key by key, and say which key failed.
            return cls.from_map(decode_json(data, "task"))

    @classmethod
    def from_msgpack(cls, data: bytes) -> "TaskRecord":
        """Read a task's MessagePack form: the same map, payload and byte results raw.

        Raises:
            DecodeError: it is not a task; the error names the key.
        """
        return cls.from_map(decode_msgpack(data, "task"))

    @classmethod
    def from_map(cls, value: Any) -> "TaskRecord":
        """Read a task from a decoded map.

        Raises:
            DecodeError: it is not a task; the error names the key.
        """
        fields = decode_map(value, "task", KEYS)
        try:
            state = parse_state(fields.text("state"))
        except ValueError as err:
            raise fields.wrong("state", str(err)) from None
        tries = fields.integer("tries")
        if tries < 0:
            raise fields.wrong("tries", "must not be negative")
        result = fields.get("result")
        return cls(
            id=fields.name("id"),
            type=fields.name("type"),
            queue=fields.name("queue", empty=True),
            state=state,
            payload=fields.blob("payload"),
            created_ns=fields.instant("created"),
            deadline_ns=fields.time("deadline"),
            max_tries=fields.integer("max_tries", DEFAULT_MAX_TRIES),
            tries=tries,
            tried_ns=fields.time("tried"),
            last_err=fields.text("last_err"),
            result=None if result is None else TaskResult.from_map(result, "result"),
            dependencies=fields.names("dependencies", MAX_DEPENDENCIES),
            dependency_results=_read_results(fields),
            load_dependencies=fields.flag("load_dependencies"),
            signature=fields.text("signature"),
            extra=fields.rest(KEYS),
        )

    def to_map(self, *, raw: bool = False) -> dict[str, Any]:
        """Return the record's fields in the Go project's order, empty ones left out as Go does.

        Args:
            raw: leave bytes as they are, for MessagePack.
        """
        payload: Any = self.payload
        if payload is not None and not raw:
            payload = encode_base64(payload)
        fields: dict[str, Any] = {"id": self.id, "type": self.type, "queue": self.queue}
        if self.dependencies:
            fields["dependencies"] = self.dependencies
        if self.dependency_results:
            fields["dependency_results"] = {
                parent: None if result is None else result.to_map(raw=raw)
                for parent, result in self.dependency_results.items()
            }
        if self.load_dependencies:
            fields["load_dependencies"] = True
        fields["payload"] = payload
        if self.deadline_ns is not None:
            fields["deadline"] = format_time(self.deadline_ns)
        fields["max_tries"] = self.max_tries
        if self.result is not None:
            fields["result"] = self.result.to_map(raw=raw)
        fields["state"] = self.state.value
        fields["created"] = format_time(self.created_ns)
        if self.tried_ns is not None:
            fields["tried"] = format_time(self.tried_ns)
        fields["tries"] = self.tries
        if self.last_err:
            fields["last_err"] = self.last_err
        if self.signature:
            fields["signature"] = self.signature
        if self.extra:
            fields |= self.extra
        return fields

    def to_wire(self) -> bytes:
        """Write the record as JSON."""
        extra = self.extra
        if self.dependencies or self.dependency_results or (extra and not _plainly_traced(extra)):
            return encode_json(self.to_map())
        result = self.result
        return _encode_plain(
            _Plain(
                id=self.id,
                type=self.type,
                queue=self.queue,
                load_dependencies=self.load_dependencies,
                payload=self.payload,
                deadline=None if self.deadline_ns is None else format_time(self.deadline_ns),
                max_tries=self.max_tries,
                result=None if result is None else _PlainResult(result.payload, format_time(result.completed_ns)),
                state=self.state,  # written by its value; the property would be called in Python
                created=format_time(self.created_ns),
                tried=None if self.tried_ns is None else format_time(self.tried_ns),
                tries=self.tries,
                last_err=self.last_err,
                signature=self.signature,
                traceparent=extra.get(H_TRACE_PARENT, "") if extra else "",
                tracestate=extra.get(H_TRACE_STATE, "") if extra else "",
            )
        )

    def to_msgpack(self) -> bytes:
        """Write the record as MessagePack."""
        return encode_msgpack(self.to_map(raw=True))

    def fresh(self) -> "TaskRecord":
        """Return the task as it was when it was enqueued: nothing tried, nothing found out.

        All that a signature covers stays.
        """
        return self.replace(
            state=TaskState.BLOCKED if self.dependencies else TaskState.NEW,
            tries=0,
            tried_ns=None,
            last_err="",
            result=None,
            dependency_results={},
        )

    def replace(self, **changes: Any) -> "TaskRecord":
        """Return a copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class _PlainResult(msgspec.Struct):
    payload: Any
    completed: str


class _Plain(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """The record's JSON where nothing is out of the ordinary, written in one go, 5 times faster than key by key.

    The order of the fields and what is left out are the Go project's.
    """

    id: str
    type: str
    queue: str
    load_dependencies: bool = False
    payload: bytes | None
    deadline: str | None = None
    max_tries: _Int64
    result: _PlainResult | None = None
    state: str
    created: str
    tried: str | None = None
    tries: _Tries
    last_err: str = ""
    signature: str = ""
    traceparent: str = ""
    tracestate: str = ""


class _Fresh(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """As `_Plain`, of a task without a result: what a bridge reads nearly always."""

    id: str
    type: str
    queue: str
    load_dependencies: bool = False
    payload: bytes | None
    deadline: str | None = None
    max_tries: _Int64
    state: str
    created: str
    tried: str | None = None
    tries: _Tries
    last_err: str = ""
    signature: str = ""
    traceparent: str = ""
    tracestate: str = ""


_encode_plain = msgspec.json.Encoder().encode
_decode_plain = msgspec.json.Decoder(_Fresh).decode


def _traced(plain: _Fresh) -> dict[str, str]:
    found = {H_TRACE_PARENT: plain.traceparent, H_TRACE_STATE: plain.tracestate}
    return {key: text for key, text in found.items() if text}


def _plainly_traced(extra: Mapping[str, Any]) -> bool:
    """Say whether the further keys are just those of a trace context, as text that is not empty."""
    return extra.keys() <= TRACE_KEYS and all(type(text) is str and text for text in extra.values())


def _read_results(fields: Fields) -> dict[str, TaskResult | None]:
    value = fields.get("dependency_results")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(type(parent) is str for parent in value):
        raise fields.wrong("dependency_results", "must be an object with task ids as keys")
    return {
        parent: None if result is None else TaskResult.from_map(result, f"dependency_results.{parent}")
        for parent, result in value.items()
    }
