"""Whether what happened in a simulated world kept the promises; by the names of the invariants."""

from base64 import b64encode
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from tests.sim.history import CallMade, History, Save
from tests.sim.scenario import Plan
from tests.sim.world import LEASE_S

from aj_bridge.core.lifecycle import EDGES, Event
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = ["judge"]

_CHANGES: Final = {(edge.before, edge.after) for edge in EDGES}
_NEW_RUN: Final = {
    (edge.before, edge.after) for edge in EDGES if edge.event in (Event.RETRIED, Event.FORCED, Event.ENQUEUED)
}
_BURIED: Final = (TaskState.EXPIRED, TaskState.TERMINATED, TaskState.UNREACHABLE)


def judge(plan: Plan, history: History) -> list[str]:
    """Name what was broken, each with the task; empty where all was kept."""
    return [*history.wrong, *_judge(plan, history)]


def _judge(plan: Plan, history: History) -> Iterator[str]:
    calls = list(history.calls)
    for record, _ in plan.tasks:
        task_id, end = record.id, history.ended.get(record.id, "absent")
        saves = history.saves.get(task_id, [])
        state, *rest = end.split()
        if task_id in history.acknowledged and not saves:
            yield f"I-12 {task_id}: its enqueue returned, and it was never stored"
        if state != "absent" and not TaskState(state).final:
            yield f"L-1 {task_id}: it is {state or 'unknown'} long after all is well again ({rest})"
        elif "item" in rest:
            yield f"I-5 {task_id}: it is {state}, and its item stands"
        elif (
            state in [final.value for final in _BURIED] and "dead" not in rest and not _excused(plan, history, task_id)
        ):
            yield f"C-10 {task_id}: it is {state} without a dead letter"
        if plan.calm:
            yield from _judge_recovery(history, saves)
        runs = _runs(saves)
        for before, after in (pair for run in runs for pair in pairwise(run)):
            again = before.record == after.record and after.record.state is TaskState.ACTIVE  # after a standstill
            change = (before.record.state, after.record.state)
            if before.record.state.final:
                yield f"I-2 {task_id}: {change[1]} after the final {change[0]}"
            elif not again and change not in _CHANGES:
                yield f"I-1 {task_id}: {change[0]} -> {change[1]}"
        for run in runs:
            ours = [call for call in calls if _of(call, run)]
            calls = [call for call in calls if call not in ours]
            yield from _judge_run(plan, history, run, ours)
    for call in calls:
        yield f"I-3 {call.task.id}: {call.bridge} called it without having saved it active"


def _judge_recovery(history: History, saves: list[Save]) -> Iterator[str]:
    """C-8: a crashed bridge's tasks run again within a lease and 5 seconds."""
    for save, after in pairwise(saves):
        stamp = save.stored.stamp
        crashed_at = None if stamp is None else history.crashed.get(stamp.owner)
        if crashed_at is None or save.record.state is not TaskState.ACTIVE:
            continue
        took = after.at - max(crashed_at, save.at)
        if took > LEASE_S + 5:
            yield f"C-8 {save.record.id}: it ran again {took:.1f} s after its bridge crashed"


def _excused(plan: Plan, history: History, task_id: str) -> bool:
    """Say whether what follows a task's end may be missing."""
    # An item that a full queue dropped can't bring it again; nor does one of a task that had none when it was
    # cancelled, by somebody who died or was told that it failed.
    return plan.settings.discard_old or task_id in history.interfered


def _runs(saves: list[Save]) -> list[list[Save]]:
    """Split a task's history at each new run."""
    runs: list[list[Save]] = []
    for save in saves:
        before = runs[-1][-1].record if runs else None
        fresh = (
            save.stored.stamp is None
            and save.record.tries == 0
            and save.record.state in (TaskState.NEW, TaskState.BLOCKED)
        )
        if (
            before is None
            or (fresh and (before.state, save.record.state) in _NEW_RUN)
            or (fresh and before.created_ns != save.record.created_ns)
        ):
            runs.append([])
        runs[-1].append(save)
    return runs


def _of(call: CallMade, run: list[Save]) -> bool:
    return any(
        save.record == call.task and save.stored.stamp == call.stamp and save.number <= call.number for save in run
    )


def _judge_run(plan: Plan, history: History, run: list[Save], calls: list[CallMade]) -> Iterator[str]:
    end = run[-1].record
    task_id, limit = end.id, end.max_tries
    most = max(save.record.tries for save in run)
    if limit and most > limit:
        yield f"I-7 {task_id}: {most} tries, {limit} are allowed"
    begun = sum(not call.missed for call in calls)  # no responders is not a try
    if begun > most:
        yield f"I-7 {task_id}: {begun} calls, {most} tries"
    final = next((save for save in run if save.record.state.final), None)
    for call in calls:
        later = [save for save in run if save.number <= call.number]
        if any(save.record.state.final for save in later) and task_id not in history.interfered:
            yield f"C-3 {task_id}: called after its end"
        if call.task.deadline_ns is not None and call.shown_ns > call.task.deadline_ns:
            yield f"I-11 {task_id}: called after its deadline"
        for parent in call.task.dependencies:
            done = [save.number for save in history.saves.get(parent, []) if save.record.state is TaskState.COMPLETE]
            if not done or done[0] > call.number:
                yield f"I-9 {task_id}: called before {parent} was complete"
    if final is None:
        return
    if final.record.state is TaskState.COMPLETE:
        results = [b64encode(call.result).decode() for call in calls if call.result is not None]
        result = None if final.record.result is None else final.record.result.payload
        if result not in results:
            yield f"I-6 {task_id}: its result is of no call of its run"
    if final.record.state is TaskState.UNREACHABLE and begun:
        yield f"I-10 {task_id}: called, and unreachable"
    yield from _judge_events(history, final.record, final)


def _judge_events(history: History, record: TaskRecord, final: Save) -> Iterator[str]:
    stamp = final.stored.stamp
    if stamp is None or stamp.owner in history.gone or (stamp.owner, record.id) in history.unsure:
        return  # events are best effort: who dies or stops in between, or is not sure, may not have told it
    if (record.id, record.state, record.tries) not in history.told:
        yield f"I-16 {record.id}: nobody was told that it is {record.state}"
