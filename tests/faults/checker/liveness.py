"""That everything ends, and soon: after healing, beside storms, after a crash; readiness; and what a process needs."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final

from tests.faults.checker.history import FINAL, Fault, History
from tests.faults.checker.times import NS
from tests.faults.checker.violation import Violation

__all__ = ["canaries", "ended", "flat_memory", "readiness", "recovered", "recoveries", "steady_counts"]

_CANARY_S: Final = 2.0
_RECOVERY_S: Final = 5.0
_LOST_S: Final = 15.0
_HEALED_S: Final = 5.0
_FEWEST_SAMPLES: Final = 8
_COUNTS: Final = ("descriptors", "subscriptions", "tasks", "inboxes")


def ended(history: History) -> Iterator[Violation]:
    """L-1: all tasks final within lease + backoffs + audit, once nothing disturbs any more."""
    limit = history.run.healed_at + int(history.run.settle_s * history.run.slack * NS)
    quarantined = {task for reason, task in history.dead if reason == "quarantined"}
    for task, record in history.records.items():
        if task in quarantined:
            continue
        state = "unreadable" if record is None else record.get("state", "")
        last = history.saves_of[task][-1].at if task in history.saves_of else 0
        if state not in FINAL and history.run.ended_at >= limit:
            yield Violation(
                "L-1", task, f"it is {state or 'unknown'} at the end, {_after(history, history.run.ended_at)}"
            )
        elif state in FINAL and last > limit:
            yield Violation("L-1", task, f"it ended {_after(history, last)}; {history.run.settle_s:g} s were allowed")


def canaries(history: History) -> Iterator[Violation]:
    """L-2: a canary task finishes in < 2 s (p99) during storms."""
    if not history.run.canaries:
        return
    took = {}
    for act in history.acts:
        if act.canary and act.outcome == "stored":
            ends = [save.at for save in history.saves_of.get(act.task, ()) if save.final]
            took[act.task] = ((ends[0] if ends else history.run.ended_at) - act.at) / NS
    if not took:
        yield Violation("L-2", "", "no canary was enqueued")
        return
    slowest = sorted(took, key=took.__getitem__)
    at = slowest[min(len(slowest) - 1, int(len(slowest) * 0.99))]
    if took[at] >= _CANARY_S * history.run.slack:
        yield Violation("L-2", at, f"the p99 of {len(took)} canaries took {took[at]:.2f} s")


def recoveries(history: History) -> Iterator[tuple[str, Fault, float | None]]:
    """Give each task that a killed bridge held, the kill, and after how many seconds somebody went on with it."""
    for fault in history.faults:
        if fault.target != "bridge" or fault.what != "kill -9" or not fault.bridge:
            continue
        able = _able(history, fault)
        if able is None:
            continue
        for task, saves in history.saves_of.items():
            before = [save for save in saves if save.at <= fault.begins]
            if not before or before[-1].state != "active" or before[-1].owner != fault.bridge:
                continue
            after = next((save for save in saves if save.sequence > before[-1].sequence), None)
            yield task, fault, None if after is None else max(0.0, (after.at - able) / NS)


def recovered(history: History) -> Iterator[Violation]:
    """L-3: recovery after kill -9 <= lease + 5 s."""
    limit = (history.run.lease_s + _RECOVERY_S) * history.run.slack
    for task, fault, took in recoveries(history):
        if took is None:
            able = _able(history, fault)
            assert able is not None
            if (history.run.ended_at - able) / NS > limit:
                yield Violation("L-3", task, f"nobody went on with it after the kill of {fault.bridge}")
        elif took > limit:
            yield Violation(
                "L-3", task, f"it went on {took:.2f} s after the kill of {fault.bridge}, {limit:g} s allowed"
            )


def readiness(history: History) -> Iterator[Violation]:
    """L-4: not ready within 15 s of real loss of function, ready within 5 s of healing."""
    slack = history.run.slack
    for fault in history.faults:
        if fault.target not in ("server", "network"):
            continue
        for bridge in {bridge for _, bridge, _ in history.readiness if fault.bridge in ("", bridge)}:
            told = [(at, ready) for at, each, ready in history.readiness if each == bridge]
            lost = [at for at, ready in told if not ready and fault.begins <= at <= fault.ends + NS]
            if fault.ends - fault.begins > _LOST_S * slack * NS and (
                not lost or lost[0] > fault.begins + _LOST_S * slack * NS
            ):
                yield Violation("L-4", "", f"{bridge} still said that it was ready 15 s after: {fault.what}")
            limit = fault.ends + int(_HEALED_S * slack * NS)
            after = [ready for at, ready in told if at > limit]
            again = [ready for at, ready in told if fault.ends <= at <= limit and ready]
            disturbed = any(other is not fault and other.meets(fault.ends, limit) for other in history.faults)
            if after and not again and not disturbed:
                yield Violation("L-4", "", f"{bridge} was not ready 5 s after the end of: {fault.what}")


def flat_memory(history: History) -> Iterator[Violation]:
    """M-1: memory flat over many tasks."""
    for name, samples in _samples(history).items():
        first, last = _ends([sample["rss_kib"] for sample in samples if "rss_kib" in sample])
        if last > first * 1.1 + 2048:
            yield Violation("M-1", "", f"{name} grew from {first:.0f} to {last:.0f} KiB")


def steady_counts(history: History) -> Iterator[Violation]:
    """M-2: no growth of subscriptions, inboxes, asyncio tasks, file descriptors."""
    for name, samples in _samples(history).items():
        for count in _COUNTS:
            first, last = _ends([sample[count] for sample in samples if count in sample])
            if last > first * 1.25 + 5:  # how many calls run at a sample is left to chance
                yield Violation("M-2", "", f"{name} had {first:.0f} {count}, then {last:.0f}")


def _samples(history: History) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for sample in history.samples:
        found.setdefault(sample["process"], []).append(sample)
    return {name: samples for name, samples in found.items() if len(samples) >= _FEWEST_SAMPLES}


def _ends(values: Sequence[float]) -> tuple[float, float]:
    # The first quarter is left out: caches fill and pools grow to what is needed.
    quarter = len(values) // 4
    if not quarter:
        return 0.0, 0.0
    return median(values[quarter : 2 * quarter]), median(values[-quarter:])


def _able(history: History, fault: Fault) -> int | None:
    """Say from when on somebody could go on with what a killed bridge held; None when nobody could."""
    starts = {step.bridge: step.at for step in history.steps if step.step == "start"}
    deaths = {other.bridge: other.begins for other in history.faults if other.what == "kill -9" and other.bridge}
    deaths |= {step.bridge: step.at for step in history.steps if step.step == "stop"}
    able = [
        max(at, fault.begins)
        for bridge, at in starts.items()
        if bridge != fault.bridge and deaths.get(bridge, history.run.ended_at) > fault.begins
    ]
    if not able:
        return None
    others = [other.ends for other in history.faults if other is not fault and other.target != "handler"]
    return max(min(able), *(end for end in others if end >= fault.begins), fault.begins)


def _after(history: History, at: int) -> str:
    return f"{(at - history.run.healed_at) / NS:.1f} s after the last disturbance"
