"""A claim: one delivery of one work item, owned until its lease ends. The word that storage and engine share."""

import msgspec

from aj_sdk.wire.stamp import ItemRef

__all__ = ["Claim"]


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
        due_ns: set where the item is not to run before, nanoseconds since the epoch (parking without schedules).
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
