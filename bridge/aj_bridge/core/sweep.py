"""What the sweeper does with a task, an item, an edge: a decision of what is known of them.

The rules are C-7, no task stays unfinished while neither an item nor a schedule stands for it, and C-10, what can't be
processed ends in a visible place. Pure; what is old enough to be judged is said by whoever asks, in spans of its own
clock.
"""

from typing import Final, TypeAlias

import msgspec

from aj_bridge.core.deliver import NOT_FOUND, Holder, max_tries
from aj_bridge.core.lifecycle import Event
from aj_sdk.wire.edge import Edge
from aj_sdk.wire.names import is_name
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = [
    "GRACE_NS",
    "Aftercare",
    "Ask",
    "Bury",
    "Close",
    "Forget",
    "Gone",
    "Leave",
    "Publish",
    "Replace",
    "Sighting",
    "Tell",
    "Verdict",
    "Whereabouts",
    "judge_edge",
    "judge_item",
    "judge_task",
]

GRACE_NS: Final = 30 * NS_PER_S
"""How long a record is left alone where its queue has no lease: somebody may be just enqueueing it."""


class Whereabouts(msgspec.Struct, frozen=True, kw_only=True):
    """Where a task's item stands.

    Attributes:
        item: sequence of its item in the queue's stream, 0 for none.
        stranded: whether the queue's consumer will hand it to nobody any more: its deliveries are used up, or it was
            acknowledged and stayed (seen after a server was killed).
        waits: whether a schedule stands that will make an item.
    """

    item: int = 0
    stranded: bool = False
    waits: bool = False


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a task.

    Attributes:
        stored: its record.
        queue: its queue's settings, None where there is no such queue.
        age_ns: for how long, at least, the record has not been saved.
        place: where its item stands.
        holder: what the owner of an `active` record said, None when not asked.
        grace_ns: for how long a record is left alone where its queue has no lease.
    """

    stored: Stored
    queue: QueueSettings | None
    age_ns: int
    place: Whereabouts = Whereabouts()
    holder: Holder | None = None
    grace_ns: int = GRACE_NS


class Gone(msgspec.Struct, frozen=True):
    """It has ended, or nothing can be done for it: look at it no more."""


class Leave(msgspec.Struct, frozen=True):
    """All is well, or it is too young to tell: look again."""


class Ask(msgspec.Struct, frozen=True):
    """Ask the owner whether it holds the task, then decide again."""


class Publish(msgspec.Struct, frozen=True):
    """Put an item into the queue, if there is none."""

    why: str


class Replace(msgspec.Struct, frozen=True):
    """Take the stranded item out, and put another into the queue."""

    item: int
    why: str


class Close(msgspec.Struct, frozen=True):
    """Save a final record; take out the item that stands for it (0 for none)."""

    record: TaskRecord
    event: Event
    item: int = 0


class Bury(msgspec.Struct, frozen=True):
    """Store a dead letter for what can't be processed, once."""

    queue: str
    detail: str


class Aftercare(msgspec.Struct, frozen=True):
    """Its task has ended: repeat what follows that end, then take the item out, as a bridge that is handed one does.

    Whoever saved the end may have died before the dead letter.
    """

    record: TaskRecord


class Forget(msgspec.Struct, frozen=True):
    """Remove the edge: nobody waits by it."""

    why: str


class Tell(msgspec.Struct, frozen=True):
    """Tell those that wait for a task that it has ended, or is gone (None)."""

    parent: TaskRecord | None
    why: str


Verdict: TypeAlias = Gone | Leave | Ask | Publish | Replace | Close | Bury


def judge_task(seen: Sighting) -> Verdict:
    """Say what is to be done about a task."""
    record = seen.stored.record
    if record is None:
        if seen.age_ns < seen.grace_ns:
            return Leave()  # whoever is handed its item knows its queue
        return Bury(_named_queue(seen.stored.body), seen.stored.fault)
    if record.state.final:
        return Gone()
    queue = seen.queue
    patience_ns = queue.lease_ns if queue is not None and queue.ours else seen.grace_ns
    if record.state is TaskState.ACTIVE:
        patience_ns *= 2
    if seen.age_ns < patience_ns or (seen.place.item and not seen.place.stranded) or seen.place.waits:
        return Leave()
    if queue is None:
        return _without_queue(seen, record)
    if seen.place.stranded:
        return _stranded(seen.place.item, record, queue)
    if queue.discard_old and record.state in (TaskState.NEW, TaskState.RETRY, TaskState.UNKNOWN):
        return _close(record, Event.ITEM_DROPPED, f"its item is gone: queue {queue.name} discards old items")
    return Publish("no item and no schedule")


def judge_item(stranded: bool, stored: Stored | None) -> Leave | Bury | Aftercare:
    """Say what is to be done about an item that nobody has in hand.

    Args:
        stranded: see `Whereabouts`.
        stored: the record of its task, None for none.
    """
    if stored is None:
        return Bury("", NOT_FOUND)
    if stranded and stored.record is not None and stored.record.state.final:
        return Aftercare(stored.record)
    return Leave()


def judge_edge(edge: Edge, child: Stored | None, parent: Stored | None) -> Leave | Forget | Tell:
    """Say what is to be done about an edge.

    Args:
        edge: the edge.
        child: the record of who waits, None for none: it is always saved before its edges are.
        parent: the record of who is waited for, None for none.
    """
    if child is None:
        return Forget("who waited by it is gone")
    if child.record is None:
        return Leave()
    if child.record.state.final:
        return Forget("who waited by it has ended")
    if edge.done:
        return Leave()  # it was told, and looks for itself now and then
    if parent is None:
        return Tell(None, "the end of a parent was not told")
    if parent.record is not None and parent.record.state.final:
        return Tell(parent.record, "the end of a parent was not told")
    return Leave()


def _named_queue(body: bytes) -> str:
    """Return the queue that a record names which can't be read, empty where it names none."""
    try:
        name = msgspec.json.decode(body, type=_Named).queue
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return name if is_name(name) else ""


class _Named(msgspec.Struct):
    queue: str = ""


def _without_queue(seen: Sighting, record: TaskRecord) -> Verdict:
    if record.state is TaskState.ACTIVE and seen.stored.stamp is not None:
        if seen.holder is None:
            return Ask()
        if seen.holder is Holder.YES:
            return Leave()
    return _close(record, Event.QUEUE_GONE, f"there is no queue {record.queue or '(none named)'}")


def _stranded(item: int, record: TaskRecord, queue: QueueSettings) -> Verdict:
    limit = max_tries(record, queue)
    if limit and record.tries >= limit:
        expired = record.replace(state=TaskState.EXPIRED, last_err=record.last_err or "tries used up")
        return Close(expired, Event.DELIVERIES_USED_UP, item)
    return Replace(item, "its item is handed to nobody any more")


def _close(record: TaskRecord, event: Event, why: str) -> Close:
    last_err = f"{why}; before: {record.last_err}" if record.last_err else why
    return Close(record.replace(state=TaskState.QUEUE_ERROR, last_err=last_err), event)
