"""The life of a task as a table: which state follows which, on what, by whose hand.

The table is the rule: `docs/lifecycle.md` is drawn from it, and the tests hold every decision of this package to it.
May know states and events only, no times and no storage.
"""

from enum import StrEnum
from typing import Final

import msgspec

from aj_sdk.wire.state import TaskState

__all__ = ["EDGES", "Edge", "Event", "Hand", "is_edge"]

S = TaskState


class Event(StrEnum):
    """What happens to a task."""

    ENQUEUED = "enqueued"
    ITEM_REFUSED = "its item was refused"
    STARTED = "started"
    TAKEN_OVER = "taken over"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TERMINATED = "terminated by its handler"
    LAST_TRY_FAILED = "last try failed"
    TRIES_USED_UP = "tries used up"
    PAST_DEADLINE = "past deadline"
    NO_HANDLER = "no handler"
    PARENT_FAILED = "a parent failed"
    TOO_LARGE = "too large to save"
    SIGNATURE_REFUSED = "signature refused"
    RETRIED = "retried on request"
    CANCELLED = "cancelled on request"
    FORCED = "started over by force"
    DELIVERIES_USED_UP = "deliveries used up"
    ITEM_DROPPED = "its item was dropped"
    QUEUE_GONE = "its queue is gone"


class Hand(StrEnum):
    """Who saves the new state."""

    PRODUCER = "producer"
    BRIDGE = "bridge"
    ADMIN = "admin"
    SWEEPER = "sweeper"


class Edge(msgspec.Struct, frozen=True):
    """One line of the table; `before` None stands for a task that is not stored."""

    before: TaskState | None
    event: Event
    after: TaskState
    hand: Hand


def _edges() -> tuple[Edge, ...]:
    edges = [
        Edge(None, Event.ENQUEUED, S.NEW, Hand.PRODUCER),
        Edge(None, Event.ENQUEUED, S.BLOCKED, Hand.PRODUCER),
        Edge(S.NEW, Event.ITEM_REFUSED, S.QUEUE_ERROR, Hand.PRODUCER),
        Edge(S.BLOCKED, Event.ITEM_REFUSED, S.QUEUE_ERROR, Hand.PRODUCER),
        Edge(S.QUEUE_ERROR, Event.ENQUEUED, S.NEW, Hand.PRODUCER),
        Edge(S.QUEUE_ERROR, Event.ENQUEUED, S.BLOCKED, Hand.PRODUCER),
        Edge(S.ACTIVE, Event.TAKEN_OVER, S.ACTIVE, Hand.BRIDGE),
        Edge(S.ACTIVE, Event.SUCCEEDED, S.COMPLETE, Hand.BRIDGE),
        Edge(S.ACTIVE, Event.FAILED, S.RETRY, Hand.BRIDGE),
        Edge(S.ACTIVE, Event.NO_HANDLER, S.RETRY, Hand.BRIDGE),
        Edge(S.ACTIVE, Event.TERMINATED, S.TERMINATED, Hand.BRIDGE),
        Edge(S.ACTIVE, Event.LAST_TRY_FAILED, S.EXPIRED, Hand.BRIDGE),
    ]
    # A producer that knows nothing of states leaves them out: a Go worker runs such a record, and so do we.
    for waiting in (S.UNKNOWN, S.NEW, S.BLOCKED, S.RETRY):
        edges += [
            Edge(waiting, Event.STARTED, S.ACTIVE, Hand.BRIDGE),
            Edge(waiting, Event.NO_HANDLER, S.RETRY, Hand.BRIDGE),
            Edge(waiting, Event.PARENT_FAILED, S.UNREACHABLE, Hand.BRIDGE),
        ]
    for unfinished in (S.UNKNOWN, S.NEW, S.BLOCKED, S.RETRY, S.ACTIVE):
        edges += [
            Edge(unfinished, Event.PAST_DEADLINE, S.EXPIRED, Hand.BRIDGE),
            Edge(unfinished, Event.TRIES_USED_UP, S.EXPIRED, Hand.BRIDGE),
            Edge(unfinished, Event.DELIVERIES_USED_UP, S.EXPIRED, Hand.SWEEPER),
            Edge(unfinished, Event.QUEUE_GONE, S.QUEUE_ERROR, Hand.SWEEPER),
            Edge(unfinished, Event.TOO_LARGE, S.TERMINATED, Hand.BRIDGE),
            Edge(unfinished, Event.SIGNATURE_REFUSED, S.TERMINATED, Hand.BRIDGE),
            Edge(unfinished, Event.CANCELLED, S.TERMINATED, Hand.ADMIN),
            Edge(unfinished, Event.FORCED, S.NEW, Hand.ADMIN),
            Edge(unfinished, Event.FORCED, S.BLOCKED, Hand.ADMIN),
        ]
    for dropped in (S.UNKNOWN, S.NEW, S.RETRY):
        edges.append(Edge(dropped, Event.ITEM_DROPPED, S.QUEUE_ERROR, Hand.SWEEPER))
    for final in (S.COMPLETE, S.EXPIRED, S.TERMINATED, S.UNREACHABLE, S.QUEUE_ERROR):
        edges += [
            Edge(final, Event.RETRIED, S.NEW, Hand.ADMIN),
            Edge(final, Event.RETRIED, S.BLOCKED, Hand.ADMIN),
        ]
    return tuple(edges)


EDGES: Final = _edges()
_ALLOWED: Final = {(edge.before, edge.event): set[TaskState]() for edge in EDGES}
for _edge in EDGES:
    _ALLOWED[_edge.before, _edge.event].add(_edge.after)


def is_edge(before: TaskState | None, event: Event, after: TaskState) -> bool:
    """Say whether the table allows a change of state."""
    return after in _ALLOWED.get((before, event), ())
