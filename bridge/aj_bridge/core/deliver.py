"""What to do with a delivered item: the rules in their order, the first that answers decides.

Each rule is a function of what is known; one that needs more says what to look up. `docs/lifecycle.md` lists the
rules from their first lines.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from aj_bridge.core.claim import Claim
from aj_bridge.core.decision import Ack, Aftercare, Decision, Drop, Finish, Look, Park, Quarantine, Start
from aj_bridge.core.dependencies import Ready, Unreachable, Waiting, judge, recheck_ns
from aj_bridge.core.lifecycle import Event
from aj_sdk.errors import DecodeError
from aj_sdk.wire.edge import Parent
from aj_sdk.wire.item import WorkItem
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

__all__ = ["NOT_FOUND", "RULES", "Holder", "Known", "decide", "max_tries"]

NOT_FOUND: Final = "task not found"
"""Why a readable item without a record is quarantined."""

_MAX_WAIT_NS: Final = 366 * 86_400 * NS_PER_S


class Holder(StrEnum):
    """What the owner of a record said when it was asked whether it holds the item."""

    YES = "yes"
    NO = "no"
    SILENT = "silent"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a delivery.

    Attributes:
        claim: the delivery.
        stored: the task's record, None when the leader says that there is none.
        queue: the queue's settings.
        ack_wait_ns: how long the server leaves an item with its owner.
        now_ns: now, nanoseconds since the epoch.
        schedules: whether items wait as schedules here (else they are NAKed with a delay).
        standing: whether the task's schedule still stands; None when not looked up.
        holder: what the owner said; None when not asked.
        parents: what is known of the parents; None when not looked up.
        free: whether nothing that the task waits for is open, as its edges tell; None when not looked up.
        verifies: whether tasks must be signed.
        signature: what is wrong with the signature, empty for nothing; None when not looked up.
        closed_for_ns: how long a task of this type is to wait because nobody answers; None when calls are made.
        nobody: why, for `last_err`.
        full_for_ns: how long a task waits at most because its route has no room; None when it has.
    """

    claim: Claim
    stored: Stored | None
    queue: QueueSettings
    ack_wait_ns: int
    now_ns: int
    schedules: bool
    standing: bool | None = None
    holder: Holder | None = None
    parents: Mapping[str, Parent | None] | None = None
    free: bool | None = None
    verifies: bool = False
    signature: str | None = None
    closed_for_ns: int | None = None
    nobody: str = ""
    full_for_ns: int | None = None


Step: TypeAlias = Decision | Look | None


def decide(known: Known) -> Decision | Look:
    """Say what to do with a delivery, or what to look up first."""
    if known.stored is None or known.stored.record is None:
        return _unreadable_item(known) or _no_record(known.stored)
    stored, record = known.stored, known.stored.record
    for rule in RULES:
        step = rule(known, stored, record)
        if step is not None:
            return step
    raise AssertionError("the last rule always answers")


def max_tries(record: TaskRecord, queue: QueueSettings) -> int:
    """Return how often a task may be tried, capped by its queue; 0 = no limit."""
    own, queues = record.max_tries, queue.max_tries
    if own > 0 and queues > 0:
        return min(own, queues)
    return max(own, queues, 0)


def _unreadable_item(known: Known) -> Quarantine | None:
    try:
        item = WorkItem.from_wire(known.claim.body)
    except DecodeError as err:
        return Quarantine(str(err))
    if item.task_id != known.claim.task_id:
        return Quarantine(f"work item: job: {item.task_id!r} stands under the subject of {known.claim.task_id!r}")
    return None


def _no_record(stored: Stored | None) -> Quarantine:
    return Quarantine(NOT_FOUND if stored is None else stored.fault)


def _item_is_unreadable(known: Known, _stored: Stored, _record: TaskRecord) -> Step:
    """The item can't be read, or names another task than its subject: quarantine."""
    return _unreadable_item(known)


def _other_queue(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """The record names another queue: the item is stale, ack it."""
    if record.queue and record.queue != known.claim.queue:
        return Ack(f"the task is in queue {record.queue!r} now")
    return None


def _final(_known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """The record is final: repeat the work that follows it, then ack."""
    return Aftercare(record) if record.state.final else None


def _not_due(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """The item says that it is not due: park it again, unless a parent of the task has failed."""
    if known.claim.due_ns <= known.now_ns:
        return None
    if _waits_for_parents(record):
        if known.parents is None:
            return Look.PARENTS
        if isinstance(judge(record, known.parents), Unreachable):
            return None
    due_ns = min(known.claim.due_ns, known.now_ns + _MAX_WAIT_NS)
    return Park(due_ns, silent=known.claim.silent, why="not due")


def _stray(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """The task waits and its schedule still stands: the item is a stray, ack it, unless all its parents ended."""
    if record.state not in (TaskState.RETRY, TaskState.BLOCKED) or not known.schedules:
        return None
    if known.claim.fired and known.claim.item.delivery == 1:
        return None  # the schedule went when it fired
    if known.standing is None:
        return Look.SCHEDULE
    if not known.standing:
        return None
    if record.state is TaskState.BLOCKED:
        if known.free is None:
            return Look.EDGES
        if known.free:
            return None
    return Ack("the task's schedule still stands")


def _own_item(known: Known, stored: Stored, record: TaskRecord) -> Step:
    """Active with this very item: a higher delivery number takes over, an equal or lower one is late, drop it."""
    if record.state is not TaskState.ACTIVE or stored.stamp is None:
        return None
    if stored.stamp.item.sequence != known.claim.item.sequence:
        return None
    if known.claim.item.delivery > stored.stamp.item.delivery:
        return None  # its lease ran out
    return Drop("a later delivery of the item owns the task")


def _other_item(known: Known, stored: Stored, record: TaskRecord) -> Step:
    """Active with another item: ask its owner; park while it holds it, take over when it does not."""
    if record.state is not TaskState.ACTIVE:
        return None
    stamp = stored.stamp
    if stamp is None:
        # A Go worker saved it, and can't be asked: its run time is what it has.
        # (A clock ahead of ours must not put it off for longer.)
        until_ns = min(record.tried_ns or 0, known.now_ns) + known.queue.max_run_time_ns
        return Park(until_ns, why="a Go worker may hold the task") if known.now_ns < until_ns else None
    if stamp.item.sequence == known.claim.item.sequence:
        return None
    if known.holder is None:
        return Look.OWNER
    lease_end_ns = known.now_ns + known.ack_wait_ns
    if known.holder is Holder.YES:
        return Park(lease_end_ns, why="its owner holds the task")
    silence = f"{stamp.owner} {stored.sequence}"
    if known.holder is Holder.SILENT and known.claim.silent != silence:
        return Park(lease_end_ns, silent=silence, why="its owner is silent")
    return None


def _past_deadline(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """Past its deadline: `expired`."""
    if record.deadline_ns is None or known.now_ns <= record.deadline_ns:
        return None
    return Finish(
        record.replace(state=TaskState.EXPIRED, last_err=record.last_err or "past deadline"), Event.PAST_DEADLINE
    )


def _tries_used_up(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """All tries used up: `expired`."""
    limit = max_tries(record, known.queue)
    if not limit or record.tries < limit:
        return None
    return Finish(
        record.replace(state=TaskState.EXPIRED, last_err=record.last_err or "exceeded maximum tries"),
        Event.TRIES_USED_UP,
    )


def _signature(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """Its signature is wanted, and missing or wrong: `terminated`."""
    if not known.verifies:
        return None
    if known.signature is None:
        return Look.SIGNATURE
    if not known.signature:
        return None
    return Finish(record.replace(state=TaskState.TERMINATED, last_err=known.signature), Event.SIGNATURE_REFUSED)


def _parents(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """It has parents and never ran: run when all completed, `unreachable` when one failed, else park."""
    if not _waits_for_parents(record):
        return None
    if known.parents is None:
        return Look.PARENTS
    verdict = judge(record, known.parents)
    if isinstance(verdict, Unreachable):
        return Finish(record.replace(state=TaskState.UNREACHABLE, last_err=verdict.reason), Event.PARENT_FAILED)
    if isinstance(verdict, Waiting):
        due_ns = _capped(record, known.now_ns + recheck_ns(record, known.now_ns))
        return Park(due_ns, why=f"waits for {verdict.parent}", for_parents=True)
    return None


def _nobody_answers(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """Nobody answers for its type: park, the try does not count."""
    if known.closed_for_ns is None:
        return None
    due_ns = _capped(record, known.now_ns + known.closed_for_ns)
    return Park(
        due_ns, record.replace(state=TaskState.RETRY, last_err=known.nobody), Event.NO_HANDLER, why="no handler"
    )


def _route_is_full(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """As many of its route are handled as may be: park, nothing is saved."""
    if known.full_for_ns is None:
        return None
    return Park(_capped(record, known.now_ns + known.full_for_ns), why="its route is full", for_room=True)


def _run(known: Known, _stored: Stored, record: TaskRecord) -> Step:
    """Else: count the try, save `active`, call the handler."""
    results = record.dependency_results
    if known.parents is not None:
        verdict = judge(record, known.parents)
        results = verdict.results if isinstance(verdict, Ready) else results
    started = record.replace(
        state=TaskState.ACTIVE, tries=record.tries + 1, tried_ns=known.now_ns, dependency_results=results
    )
    return Start(started, Event.TAKEN_OVER if record.state is TaskState.ACTIVE else Event.STARTED)


def _waits_for_parents(record: TaskRecord) -> bool:
    return bool(record.dependencies) and record.state is not TaskState.ACTIVE and record.tries == 0


def _capped(record: TaskRecord, due_ns: int) -> int:
    # Waiting past the deadline helps nobody: come back right after it and expire.
    return due_ns if record.deadline_ns is None else min(due_ns, record.deadline_ns + NS_PER_MS)


Rule: TypeAlias = Callable[[Known, Stored, TaskRecord], Step]
RULES: Final[tuple[Rule, ...]] = (
    _item_is_unreadable,
    _other_queue,
    _final,
    _not_due,
    _stray,
    _own_item,
    _other_item,
    _past_deadline,
    _tries_used_up,
    _signature,
    _parents,
    _nobody_answers,
    _route_is_full,
    _run,
)
