"""All rules over one history, and the story of a task for whoever reads a violation."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from tests.faults.checker import calls, items, liveness, records
from tests.faults.checker.history import History
from tests.faults.checker.times import NS
from tests.faults.checker.violation import Violation

__all__ = ["RULES", "explain", "judge"]

Rule = Callable[[History], Iterator[Violation]]

RULES: Final[Mapping[str, Rule]] = {
    "I-1": records.states,
    "I-2": records.one_end,
    "I-3": calls.after_its_save,
    "I-4": items.one_item_each,
    "I-5": items.none_left_over,
    "I-6": records.result_of_the_winner,
    "I-7": records.tries,
    "I-8": calls.alone,
    "I-9": calls.children_of_the_finished,
    "I-10": calls.children_of_the_failed,
    "I-11": calls.in_time,
    "I-12": items.enqueued_is_found,
    "I-13": items.refused_is_silent,
    "I-15": calls.signed,
    "I-16": items.ends_are_told,
    "L-1": liveness.ended,
    "L-2": liveness.canaries,
    "L-3": liveness.recovered,
    "L-4": liveness.readiness,
    "M-1": liveness.flat_memory,
    "M-2": liveness.steady_counts,
}
"""Each invariant and the rule that finds what breaks it. I-14 is about schedules, which are not built yet."""

_TOLD: Final = ("what", "state", "tries", "outcome", "sequence", "expected", "owner", "why", "invocation", "answer")


def judge(history: History) -> list[Violation]:
    """Return all that must not have happened, empty when all is well."""
    return [violation for rule in RULES.values() for violation in rule(history)]


def explain(history: History, task: str) -> list[str]:
    """Tell what happened to a task, in the order of time."""
    rows = [(act.at, f"producer   {act.what}: {act.outcome}") for act in history.acts_of.get(task, ())]
    for save in history.saves_of.get(task, ()):
        by = f" by {save.owner} with item {save.item}" if save.owner else ""
        rows.append((save.at, f"store      {save.state} (try {save.tries}) at {save.sequence}{by}"))
    for call in history.calls_of.get(task, ()):
        rows.append((call.began, f"handler    {call.pid} began {call.invocation} as try {call.attempt}"))
        if call.ended is not None:
            said = f"{dict(call.headers)} {(call.reply or b'')[:40]!r}"
            rows.append((call.ended, f"handler    {call.pid} ended {call.invocation}: {said}"))
    for step in history.steps_of.get(task, ()):
        told = " ".join(f"{key}={step.told[key]}" for key in _TOLD if key in step.told)
        rows.append((step.at, f"bridge     {step.bridge} {step.step} {step.item} {told}".rstrip()))
    held = {step.item for step in history.steps_of.get(task, ()) if step.item}
    rows += [(at, f"server     was sent {word} for {item}") for at, item, word in history.acks if item in held]
    rows += [(at, f"event      {state}") for at, of, state in history.events if of == task]
    begins = min((at for at, _ in rows), default=0)
    ends = max((at for at, _ in rows), default=0)
    for fault in history.faults:
        if fault.meets(begins - 5 * NS, ends + 5 * NS):
            whom = fault.bridge or (str(fault.pid) if fault.pid else "")
            rows.append((fault.begins, f"fault      {fault.what} {fault.target} {whom}".rstrip()))
            if fault.ends > fault.begins:
                rows.append((fault.ends, f"fault      end of {fault.what} {fault.target} {whom}".rstrip()))
    return [f"{(at - begins) / NS:+9.3f} s  {text}" for at, text in sorted(rows, key=lambda row: row[0])]
