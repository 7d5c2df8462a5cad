"""What becomes of items and of what is told: nothing is lost, nothing stays, nobody speaks for what is not his."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.faults.checker.history import FINAL, History, Save, Step
from tests.faults.checker.times import NS
from tests.faults.checker.violation import Violation

__all__ = ["ends_are_told", "enqueued_is_found", "none_left_over", "one_item_each", "refused_is_silent"]

_SENT: Final = {"ack", "nak", "term", "progress", "park", "leave"}


def one_item_each(history: History) -> Iterator[Violation]:
    """I-4: at the end each task is final, dead-lettered as unreadable, or has exactly one work item or schedule."""
    quarantined = {task for reason, task in history.dead if reason == "quarantined"}
    standing = Counter((*history.items, *history.schedules))
    for task, record in history.records.items():
        state = "unreadable" if record is None else record.get("state", "")
        if state in FINAL or state == "completed" or (record is None and task in quarantined):
            continue
        if standing[task] != 1:
            yield Violation("I-4", task, f"it is {state or 'unknown'} with {standing[task]} items and schedules")


def none_left_over(history: History) -> Iterator[Violation]:
    """I-5: no item for a final or absent task after quiescence."""
    for task in history.items:
        record = history.records.get(task)
        if task not in history.records:
            yield Violation("I-5", task, "an item stands, and there is no such task")
        elif record is not None and record.get("state") in FINAL:
            yield Violation("I-5", task, f"an item stands, and the task is {record['state']}")


def enqueued_is_found(history: History) -> Iterator[Violation]:
    """I-12: every acknowledged enqueue is found."""
    for act in history.acts:
        deleted = any(other.what == "delete" for other in history.acts_of[act.task])
        if act.what == "enqueue" and act.outcome == "stored" and act.task not in history.records and not deleted:
            yield Violation("I-12", act.task, "it was acknowledged, and there is no record of it")


def refused_is_silent(history: History) -> Iterator[Violation]:
    """I-13: a refused writer sends nothing more for that item, except its ack when the record is final."""
    for task, steps in history.steps_of.items():
        for at, step in enumerate(steps):
            if step.step != "save" or step.told.get("outcome") != "refused":
                continue
            found = _found_after(steps[at + 1 :], step.bridge)
            if found is None or _is_ours(found, step) or found.told.get("state") in FINAL:
                continue
            for later in steps[at + 1 :]:
                if later.sent <= found.at or later.bridge != step.bridge or later.item != step.item:
                    continue
                if later.step == "claim":
                    break
                if later.step in _SENT or (later.step == "save" and later.told.get("outcome") == "accepted"):
                    yield Violation(
                        "I-13", task, f"{step.bridge} was refused for item {step.item}, then sent {later.step}"
                    )
                    break
        yield from _unread(history, task, steps)


def ends_are_told(history: History) -> Iterator[Violation]:
    """I-16: an event for each final state."""
    told = Counter((task, state) for _, task, state in history.events)
    for task, saves in history.saves_of.items():
        for state, times in Counter(save.state for save in saves if save.final and save.owner).items():
            ends = [save for save in saves if save.state == state and save.owner]
            if told[task, state] < times and not any(_unheard(history, save) for save in ends):
                yield Violation(
                    "I-16", task, f"it became {state} {times} times, and {told[task, state]} events tell it"
                )


def _unread(history: History, task: str, steps: list[Step]) -> Iterator[Violation]:
    """Find a writer that was refused, did not look why, and went on."""
    for at, step in enumerate(steps):
        if step.step != "save" or step.told.get("outcome") != "refused":
            continue
        own = [later for later in steps[at + 1 :] if later.bridge == step.bridge]
        for later in own:
            if later.step == "load":
                break
            told = ("state", "tries")
            event = later.step == "event" and all(later.told.get(key) == step.told.get(key) for key in told)
            if event or (later.item == step.item and later.step in _SENT - {"progress"}):
                yield Violation(
                    "I-13",
                    task,
                    f"{step.bridge} was refused for item {step.item}, then sent {later.step} without a look",
                )
                break


def _found_after(steps: list[Step], bridge: str) -> Step | None:
    return next((step for step in steps if step.step == "load" and step.bridge == bridge), None)


def _is_ours(found: Step, step: Step) -> bool:
    return (found.told.get("owner"), found.told.get("owned_item")) == (step.bridge, step.item)


def _unheard(history: History, save: Save) -> bool:
    return history.excused(save.at - NS, save.at + 2 * NS, save.owner)
