"""One attempt at a task, as the ledger `CHORIA_AJ_ATTEMPTS` keeps it: who was called, how long, and what came of it.

Best effort, for people: the task's record is the truth.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from aj_sdk.wire.codec import decode_json, decode_map, encode_json
from aj_sdk.wire.times import format_time

__all__ = ["ATTEMPT_KEYS", "Attempt", "AttemptOutcome"]

ATTEMPT_KEYS: Final[Mapping[str, bool]] = {
    "task_id": True,
    "task_type": True,
    "queue": True,
    "try": True,
    "outcome": True,
    "started": True,
    "ended": True,
    "duration": True,
    "error": False,
    "bridge": False,
    "invocation": False,
    "kind": False,
    "handler": False,
}


class AttemptOutcome(StrEnum):
    """How an attempt ended; all but the first have a reason in `error`."""

    COMPLETED = "completed"
    FAILED = "failed"
    TERMINATED = "terminated"
    DEADLINE = "deadline"
    PROGRESS_MISSED = "progress_missed"
    NO_RESPONDERS = "no_responders"
    LEASE_LOST = "lease_lost"
    DRAINED = "drained"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt.

    Attributes:
        task_id: the task.
        task_type: its type.
        queue: its queue.
        try_: number of the try.
        outcome: how it ended.
        started_ns: when, nanoseconds since the epoch.
        ended_ns: when; of a lost lease, when that was found out.
        error: why it did not complete, empty for nothing to say.
        bridge: id of the bridge, empty for a Go worker.
        invocation: id of the call, empty where it is not known: a bridge that died took it along.
        kind: who handled it: `remote`, `function`, `command`; empty where that is not known.
        handler: where: a subject, a function's name, a command's path; empty where that is not known.
    """

    task_id: str
    task_type: str
    queue: str
    try_: int
    outcome: AttemptOutcome
    started_ns: int
    ended_ns: int
    error: str = ""
    bridge: str = ""
    invocation: str = ""
    kind: str = ""
    handler: str = ""

    @property
    def duration_ns(self) -> int:
        """How long it took, nanoseconds; 0 where the clocks of two machines disagree."""
        return max(0, self.ended_ns - self.started_ns)

    @classmethod
    def from_wire(cls, data: bytes) -> "Attempt":
        """Read one.

        Raises:
            DecodeError: it can't be read; it says which key failed.
        """
        fields = decode_map(decode_json(data, "attempt"), "attempt", ATTEMPT_KEYS)
        outcome = fields.text("outcome")
        try:
            known = AttemptOutcome(outcome)
        except ValueError:
            raise fields.wrong("outcome", f"{outcome[:40]!r} is not known") from None
        fields.integer("duration")  # said for readers; ours follows from the times
        return cls(
            task_id=fields.name("task_id"),
            task_type=fields.name("task_type"),
            queue=fields.name("queue"),
            try_=fields.integer("try"),
            outcome=known,
            started_ns=fields.instant("started"),
            ended_ns=fields.instant("ended"),
            error=fields.text("error"),
            bridge=fields.text("bridge"),
            invocation=fields.text("invocation"),
            kind=fields.text("kind"),
            handler=fields.text("handler"),
        )

    def to_map(self) -> dict[str, Any]:
        """Return the map that is stored."""
        said = {
            "error": self.error,
            "bridge": self.bridge,
            "invocation": self.invocation,
            "kind": self.kind,
            "handler": self.handler,
        }
        return {
            "task_id": self.task_id,
            "task_type": self.task_type,
            "queue": self.queue,
            "try": self.try_,
            "outcome": self.outcome.value,
            "started": format_time(self.started_ns),
            "ended": format_time(self.ended_ns),
            "duration": self.duration_ns,
            **{name: value for name, value in said.items() if value},
        }

    def to_wire(self) -> bytes:
        """Write it as it is stored."""
        return encode_json(self.to_map())
