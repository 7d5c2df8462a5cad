"""A claim: one delivery of one work item, owned until its lease ends. The word that storage and engine share."""

import msgspec

from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored

__all__ = ["Claim", "not_before_ns", "owns"]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery of one item.

    Attributes:
        queue: the queue it came from.
        task_id: the task that its subject names.
        body: the item's bytes.
        item: its sequence and delivery number.
        received: when it came, seconds of the monotonic clock; the lease runs from here at the latest.
        token: what the storage needs to settle it.
        fired: whether a schedule put it into the queue.
        silent: `<owner> <record sequence>` of an owner that gave no answer, empty for none.
        due_ns: set where the item is not to run before, nanoseconds since the epoch: it was
            brought back early, or waits inside its queue.
    """

    queue: str
    task_id: str
    body: bytes
    item: ItemRef
    received: float
    token: str
    fired: bool = False
    silent: str = ""
    due_ns: int = 0


def not_before_ns(claim: Claim, due_ns: int) -> int:
    """Return the time that an item carries on, when it is parked until `due_ns`; 0 once that time is reached."""
    return claim.due_ns if claim.due_ns >= due_ns else 0


def owns(stamp: Stamp, stored: Stored | None) -> bool:
    """Say whether a record, as it is stored now, is the one under which the owner of this stamp calls a handler."""
    if stored is None or stored.record is None:
        return False
    return stored.record.state is TaskState.ACTIVE and stored.stamp == stamp
