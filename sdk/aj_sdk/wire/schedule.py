"""The stored form of a schedule, key `scheduled_tasks.<name>` of the configuration bucket.

Knows the JSON only; what the schedule's text means is the cron dialect's business.
Source: ScheduledTask in the Go project's scheduled_task.go.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from aj_sdk.wire.codec import decode_json, decode_map, encode_base64, encode_json
from aj_sdk.wire.times import NS_PER_S, format_time

__all__ = ["KEYS", "MIN_DEADLINE_NS", "Schedule"]

MIN_DEADLINE_NS: Final = 30 * NS_PER_S
KEYS: Final[Mapping[str, bool]] = {
    "name": True,
    "schedule": True,
    "queue": True,
    "task_type": True,
    "payload": False,
    "deadline": False,
    "max_tries": False,
    "created_at": True,
}


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule that makes a task each time it is due.

    Attributes:
        name: unique.
        schedule: five-field cron, `@hourly` and the like, or `@every <duration>`; may begin with `CRON_TZ=<zone> `.
        queue: where the tasks go.
        task_type: their type.
        payload: their payload's bytes, None when there is none.
        deadline_ns: offset of their deadline from the firing, at least 30 s; None when there is none.
        max_tries: theirs.
        created_ns: when the schedule was made, in nanoseconds since the epoch.
    """

    name: str
    schedule: str
    queue: str
    task_type: str
    payload: bytes | None = None
    deadline_ns: int | None = None
    max_tries: int = 0
    created_ns: int

    @classmethod
    def from_wire(cls, data: bytes) -> "Schedule":
        """Read a schedule's JSON.

        Raises:
            DecodeError: it is not a schedule; the error names the key.
        """
        fields = decode_map(decode_json(data, "schedule"), "schedule", KEYS)
        text = fields.text("schedule")
        if not text:
            raise fields.wrong("schedule", "must not be empty")
        deadline = fields.integer("deadline")
        if deadline and deadline < MIN_DEADLINE_NS:
            raise fields.wrong("deadline", "must be at least 30 s, in nanoseconds")
        return cls(
            name=fields.name("name"),
            schedule=text,
            queue=fields.name("queue"),
            task_type=fields.name("task_type"),
            payload=fields.blob("payload"),
            deadline_ns=deadline or None,
            max_tries=fields.integer("max_tries"),
            created_ns=fields.instant("created_at"),
        )

    def to_wire(self) -> bytes:
        """Write the schedule as JSON."""
        fields: dict[str, Any] = {
            "name": self.name,
            "schedule": self.schedule,
            "queue": self.queue,
            "task_type": self.task_type,
            "payload": None if self.payload is None else encode_base64(self.payload),
        }
        if self.deadline_ns:
            fields["deadline"] = self.deadline_ns
        fields["max_tries"] = self.max_tries
        fields["created_at"] = format_time(self.created_ns)
        return encode_json(fields)
