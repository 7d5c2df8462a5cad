"""What the engine may do with a claim, as values that a test compares with `==`. The engine carries them out."""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from aj_bridge.core.lifecycle import Event
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = ["Ack", "Aftercare", "Decision", "Drop", "Finish", "Look", "Park", "Quarantine", "Start", "dead_reason"]


class Look(StrEnum):
    """Something must be looked up before a decision: ask again with what was found."""

    SCHEDULE = "schedule"
    OWNER = "owner"
    PARENTS = "parents"
    EDGES = "edges"
    SIGNATURE = "signature"


class Ack(msgspec.Struct, frozen=True):
    """Acknowledge the item; the task is somewhere else."""

    why: str


class Drop(msgspec.Struct, frozen=True):
    """Send nothing more for the item: it belongs to somebody else."""

    why: str


class Quarantine(msgspec.Struct, frozen=True):
    """Store a dead letter with the reason, then take the item out."""

    reason: str


class Aftercare(msgspec.Struct, frozen=True):
    """The record is final: repeat the work that follows it, then acknowledge the item."""

    record: TaskRecord


class Park(msgspec.Struct, frozen=True):
    """Store a schedule for the item, save the record, acknowledge the item, in this order.

    Attributes:
        due_ns: when the item comes back, nanoseconds since the epoch.
        record: the record to save, None when it stays as it is.
        event: what happened, for the table; None when nothing did.
        silent: the `AJ-Silent` header, empty for none.
        why: for the log.
        for_parents: whether it waits for other tasks, whose end brings it back earlier.
        for_room: whether it waits for room on its route, which brings it back earlier.
    """

    due_ns: int
    record: TaskRecord | None = None
    event: Event | None = None
    silent: str = ""
    why: str = ""
    for_parents: bool = False
    for_room: bool = False


class Finish(msgspec.Struct, frozen=True):
    """Save a final record, do the work that follows it, acknowledge the item."""

    record: TaskRecord
    event: Event


class Start(msgspec.Struct, frozen=True):
    """Save the record as `active` with this try counted, then call the handler."""

    record: TaskRecord
    event: Event


Decision: TypeAlias = Ack | Drop | Quarantine | Aftercare | Park | Finish | Start

_DEAD = {
    TaskState.EXPIRED: "expired",
    TaskState.TERMINATED: "terminated",
    TaskState.UNREACHABLE: "unreachable",
}


def dead_reason(state: TaskState) -> str | None:
    """Return the reason under which a final state leaves a dead letter, None when it leaves none."""
    return _DEAD.get(state)
