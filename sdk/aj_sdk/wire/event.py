"""Lifecycle events, published on `CHORIA_AJ.E.>`: best effort, the task store is the truth.

Source: the Go project's lifecycle.go.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from aj_sdk.errors import DecodeError
from aj_sdk.wire.codec import Fields, decode_json, decode_map, encode_json
from aj_sdk.wire.state import TaskState, parse_state
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import format_time

__all__ = [
    "LEADER_ELECTED",
    "LEADER_ELECTED_KEYS",
    "TASK_STATE",
    "TASK_STATE_KEYS",
    "Event",
    "LeaderElectedEvent",
    "TaskStateEvent",
    "parse_event",
]

TASK_STATE: Final = "io.choria.asyncjobs.v1.task_state"
LEADER_ELECTED: Final = "io.choria.asyncjobs.v1.leader_elected"

_COMMON: Final[Mapping[str, bool]] = {"event_id": True, "type": True, "timestamp": True}
TASK_STATE_KEYS: Final[Mapping[str, bool]] = {
    **_COMMON,
    "task_id": True,
    "state": True,
    "tries": False,
    "queue": False,
    "task_type": False,
    "last_error": False,
    "task_age": False,
}
LEADER_ELECTED_KEYS: Final[Mapping[str, bool]] = {**_COMMON, "name": True, "component": True}


class TaskStateEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A task came into a state.

    Attributes:
        event_id: KSUID.
        timestamp_ns: when, in nanoseconds since the epoch.
        task_id: the task.
        state: its new state.
        tries: invocations started so far.
        queue: its queue, may be empty.
        task_type: its type.
        last_error: why, for a failure.
        task_age_ns: time since the task was created, in nanoseconds (upstream's text says milliseconds, its code
            writes a Go duration).
    """

    event_id: str
    timestamp_ns: int
    task_id: str
    state: TaskState
    tries: int = 0
    queue: str = ""
    task_type: str = ""
    last_error: str = ""
    task_age_ns: int = 0

    @classmethod
    def of(cls, task: TaskRecord, event_id: str, now_ns: int) -> "TaskStateEvent":
        """Describe the state that a task is in now."""
        return cls(
            event_id=event_id,
            timestamp_ns=now_ns,
            task_id=task.id,
            state=task.state,
            tries=task.tries,
            queue=task.queue,
            task_type=task.type,
            last_error=task.last_err,
            task_age_ns=max(0, now_ns - task.created_ns),
        )

    @classmethod
    def from_wire(cls, data: bytes) -> "TaskStateEvent":
        """Read the event's JSON.

        Raises:
            DecodeError: it is not such an event; the error names the key.
        """
        return cls._from_value(decode_json(data, "task state event"))

    @classmethod
    def _from_value(cls, value: Any) -> "TaskStateEvent":
        fields = decode_map(value, "task state event", TASK_STATE_KEYS)
        event_id, timestamp_ns = _read_common(fields, TASK_STATE)
        try:
            state = parse_state(fields.text("state"))
        except ValueError as err:
            raise fields.wrong("state", str(err)) from None
        return cls(
            event_id=event_id,
            timestamp_ns=timestamp_ns,
            task_id=fields.name("task_id"),
            state=state,
            tries=fields.integer("tries"),
            queue=fields.name("queue", empty=True),
            task_type=fields.name("task_type", empty=True),
            last_error=fields.text("last_error"),
            task_age_ns=fields.integer("task_age"),
        )

    def to_wire(self) -> bytes:
        """Write the event as JSON."""
        return _encode_plain(
            _Plain(
                event_id=self.event_id,
                type=TASK_STATE,
                timestamp=format_time(self.timestamp_ns),
                task_id=self.task_id,
                state=self.state,
                tries=self.tries,
                queue=self.queue,
                task_type=self.task_type,
                last_error=self.last_error,
                task_age=self.task_age_ns,
            )
        )


class _Plain(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The event's JSON for the codec to write in one go; the order and what is left out are the Go project's."""

    event_id: str
    type: str
    timestamp: str
    task_id: str
    state: str
    tries: int
    queue: str = ""
    task_type: str
    last_error: str = ""
    task_age: int = 0


_encode_plain = msgspec.json.Encoder().encode


class LeaderElectedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A process became the leader of a component.

    Attributes:
        event_id: KSUID.
        timestamp_ns: when, in nanoseconds since the epoch.
        name: the leader.
        component: what it leads, for example `task_scheduler`.
    """

    event_id: str
    timestamp_ns: int
    name: str
    component: str

    @classmethod
    def from_wire(cls, data: bytes) -> "LeaderElectedEvent":
        """Read the event's JSON.

        Raises:
            DecodeError: it is not such an event; the error names the key.
        """
        return cls._from_value(decode_json(data, "leader elected event"))

    @classmethod
    def _from_value(cls, value: Any) -> "LeaderElectedEvent":
        fields = decode_map(value, "leader elected event", LEADER_ELECTED_KEYS)
        event_id, timestamp_ns = _read_common(fields, LEADER_ELECTED)
        return cls(
            event_id=event_id,
            timestamp_ns=timestamp_ns,
            name=fields.text("name"),
            component=fields.text("component"),
        )

    def to_wire(self) -> bytes:
        """Write the event as JSON."""
        return encode_json(
            {
                "event_id": self.event_id,
                "type": LEADER_ELECTED,
                "timestamp": format_time(self.timestamp_ns),
                "name": self.name,
                "component": self.component,
            }
        )


Event: TypeAlias = TaskStateEvent | LeaderElectedEvent


def parse_event(data: bytes) -> Event:
    """Read any event.

    Raises:
        DecodeError: it is not an event, or of a type that we do not know.
    """
    value = decode_json(data, "event")
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == TASK_STATE:
        return TaskStateEvent._from_value(value)  # noqa: SLF001 - one module
    if kind == LEADER_ELECTED:
        return LeaderElectedEvent._from_value(value)  # noqa: SLF001 - one module
    raise DecodeError("event", "type", f"unknown event type {str(kind)[:80]!r}")


def _read_common(fields: Fields, kind: str) -> tuple[str, int]:
    if fields.text("type") != kind:
        raise fields.wrong("type", f"must be {kind}")
    return fields.text("event_id"), fields.instant("timestamp")
