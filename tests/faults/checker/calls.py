"""When a handler may be called: after its `active` save, alone, after its parents, before its deadline, and signed."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tests.faults.checker.history import FINAL, Call, History, Save
from tests.faults.checker.times import NS, parse_time
from tests.faults.checker.violation import Violation

__all__ = ["after_its_save", "alone", "children_of_the_failed", "children_of_the_finished", "in_time", "signed"]

_MS: Final = NS // 1000
_LATE: Final = 100 * _MS
"""How long after the look at the clock a call may be made on a busy machine."""


def after_its_save(history: History) -> Iterator[Violation]:
    """I-3: a handler start is preceded by its accepted `active` write."""
    for call in history.calls:
        if call.invocation and not _active(history, call):
            yield Violation("I-3", call.task, f"{call.invocation} began as try {call.attempt} without an `active` save")


def alone(history: History) -> Iterator[Violation]:
    """I-8: overlapping invocations only with a lost lease, a passed deadline or missed heartbeats of the first."""
    for task, calls in history.calls_of.items():
        for at, later in enumerate(calls):
            for earlier in calls[:at]:
                if _over(history, earlier) > later.began and not _given_up(history, task, earlier, later):
                    yield Violation(
                        "I-8", task, f"{later.invocation} began while {earlier.invocation} ran, and nothing was lost"
                    )


def children_of_the_finished(history: History) -> Iterator[Violation]:
    """I-9: a child starts only after all parents completed."""
    for task, calls in history.calls_of.items():
        for parent in _parents(history, task):
            done = [save.at for save in history.saves_of.get(parent, ()) if save.state == "complete"]
            for call in calls:
                if not any(at <= call.began + _MS for at in done):
                    yield Violation("I-9", task, f"{call.invocation} began before {parent} was complete")


def children_of_the_failed(history: History) -> Iterator[Violation]:
    """I-10: a failed parent's descendants never start and end `unreachable`."""
    for task in history.tasks:
        for parent in _parents(history, task):
            saves = history.saves_of.get(parent, ())
            if (
                not saves
                or saves[-1].state not in FINAL - {"complete"}
                or history.acted(parent, 0, history.run.ended_at)
            ):
                continue
            if history.calls_of.get(task):
                yield Violation("I-10", task, f"it was called, and its parent {parent} is {saves[-1].state}")
            end = history.saves_of[task][-1]
            if end.final and end.state != "unreachable" and not history.acted(task, 0, history.run.ended_at):
                late = end.state == "expired" and end.deadline is not None and end.at >= end.deadline
                if not late:
                    yield Violation("I-10", task, f"it is {end.state}, and its parent {parent} is {saves[-1].state}")


def in_time(history: History) -> Iterator[Violation]:
    """I-11: no start after the deadline."""
    made = {step.told.get("invocation"): step.at for step in history.steps if step.step == "call"}
    for call in history.calls:
        save = _active(history, call)
        deadline = None if save is None else save.deadline
        if save is None or deadline is None:
            continue
        start = made.get(call.invocation, call.began)
        allowed = deadline + _LATE + int(history.run.skew_s * NS)
        if start > allowed and not history.excused(save.at, start, call.bridge):
            yield Violation("I-11", call.task, f"{call.invocation} was started {_seconds(start - deadline)} too late")


def signed(history: History) -> Iterator[Violation]:
    """I-15: a started task has a valid signature when verification is on."""
    if not history.run.verify_keys:
        return
    keys = [Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)) for key in history.run.verify_keys]
    for call in history.calls:
        save = _active(history, call)
        if save is not None and save.body is not None and not any(_verifies(key, save.body) for key in keys):
            yield Violation("I-15", call.task, f"{call.invocation} began, and its signature is not valid")


def _active(history: History, call: Call) -> Save | None:
    return next(
        (
            save
            for save in reversed(history.saves_of.get(call.task, ()))
            if save.state == "active"
            and save.owner == call.bridge
            and save.tries == call.attempt
            and save.at <= call.began + _MS
        ),
        None,
    )


def _parents(history: History, task: str) -> tuple[str, ...]:
    return next((save.parents for save in history.saves_of.get(task, ()) if save.parents), ())


def _over(history: History, call: Call) -> int:
    deaths = [fault.begins for fault in history.faults if fault.pid == call.pid and fault.begins >= call.began]
    ends = [*([] if call.ended is None else [call.ended]), *deaths]
    return min(ends, default=history.run.ended_at)


def _given_up(history: History, task: str, earlier: Call, later: Call) -> bool:
    run = history.run
    if later.began >= earlier.began + int(run.max_run_time_s * NS) - _LATE:
        return True
    if (
        earlier.beats
        and later.began - max((beat for beat in earlier.beats if beat <= later.began), default=earlier.began)
        >= 2 * run.heartbeat_s * NS
    ):
        return True
    # A lease lost before the handler began was lost all the same.
    begins = earlier.began - int(run.lease_s * NS)
    return history.excused(begins, later.began, earlier.bridge) or history.acted(task, begins, later.began)


def _verifies(key: Ed25519PublicKey, body: Mapping[str, Any]) -> bool:
    deadline = parse_time(body["deadline"]) if body.get("deadline") else 0
    parts = (
        body["id"],
        body["queue"],
        body["type"],
        body.get("max_tries", 10),
        parse_time(body["created"]),
        deadline,
        body.get("payload") or "",
    )
    try:
        base64.b64decode(body.get("payload") or "", validate=True)
        key.verify(bytes.fromhex(body.get("signature") or ""), ":".join(map(str, parts)).encode())
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def _seconds(span: int) -> str:
    return f"{span / NS:.3f} s"
