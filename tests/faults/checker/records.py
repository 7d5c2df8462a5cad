"""What the task store must show: allowed changes, one end a run, the winner's result, and tries that tell the truth."""

import base64
import binascii
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from tests.faults.checker.history import FINAL, Call, History, Save
from tests.faults.checker.times import NS
from tests.faults.checker.violation import Violation

__all__ = ["one_end", "result_of_the_winner", "states", "tries"]

_ENDED_BADLY: Final = {"expired", "terminated", "queue_error"}
_WAITING: Final = frozenset({"active", "retry", "unreachable", *_ENDED_BADLY})
_BRIDGES: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("", "new", "blocked", "retry"), _WAITING),
    "active": frozenset({"active", "retry", "complete", *_ENDED_BADLY}),
}
"""What a bridge may make of a state."""

_FORCED: Final = frozenset({"new", "blocked", "retry"})
_OTHERS: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("", "new", "blocked", "retry", "active"), frozenset(_FORCED | _ENDED_BADLY)),
    **dict.fromkeys(FINAL, _FORCED),
}
"""What producers, administrators and the sweeper may make of it."""


def states(history: History) -> Iterator[Violation]:
    """I-1: every accepted state change is an edge of the lifecycle table."""
    for task, saves in history.saves_of.items():
        first = saves[0]
        if first.previous in (0, None) and first.body is not None and (first.owner or first.state not in _FIRST):
            yield Violation("I-1", task, f"its first record is {_said(first)}")
        for before, after in pairwise(saves):
            if after.previous is not None and after.previous != before.sequence:
                continue  # a save between them was not recorded
            if before.state == "unreadable" or after.state == "unreadable" or (before.final and after.final):
                continue  # the second end of a run is I-2's
            table = _BRIDGES if after.owner else _OTHERS
            if after.state not in table.get(before.state, ()):
                yield Violation("I-1", task, f"{before.state or 'unknown'} became {_said(after)}")


_FIRST: Final = ("", "new", "blocked")


def one_end(history: History) -> Iterator[Violation]:
    """I-2: one final write per run."""
    for task in history.saves_of:
        for run in history.runs(task):
            ends = [save for save in run if save.final]
            if len(ends) > 1:
                yield Violation("I-2", task, f"ended {len(ends)} times in one run: {', '.join(map(_said, ends))}")


def result_of_the_winner(history: History) -> Iterator[Violation]:
    """I-6: the recorded result is the body of the winning invocation's reply."""
    for task, saves in history.saves_of.items():
        for save in saves:
            if save.state != "complete" or save.body is None or not save.owner:
                continue
            result = _result(save)
            winners = [
                call
                for call in history.calls_of.get(task, ())
                if call.bridge == save.owner and call.attempt == save.tries and call.began <= save.at
            ]
            if not any(call.succeeded and call.reply == result for call in winners):
                yield Violation("I-6", task, f"{_said(save)} with {_short(result)}; {_answers(winners)}")


def tries(history: History) -> Iterator[Violation]:
    """I-7: stored tries = invocations started (+1 per crash between write and call), never above max_tries."""
    for task in history.saves_of:
        for run in history.runs(task):
            yield from _limit(history, task, run)
            yield from _counted(history, task, run)


def _limit(history: History, task: str, run: list[Save]) -> Iterator[Violation]:
    for save in run:
        if save.body is None:
            continue
        limits = [limit for limit in (save.body.get("max_tries", 10), history.run.max_tries) if limit > 0]
        if limits and save.tries > min(limits):
            yield Violation("I-7", task, f"{_said(save)}: {save.tries} tries of {min(limits)}")
            return


def _counted(history: History, task: str, run: list[Save]) -> Iterator[Violation]:
    last = run[-1]
    following = next(
        (save.at for save in history.saves_of[task] if save.sequence > last.sequence), history.run.ended_at
    )
    calls = [call for call in history.calls_of.get(task, ()) if run[0].at <= call.began <= following]
    # Calls of an earlier run may begin late, with that run's save behind them.
    calls = [call for call in calls if any(_is_of(save, call) for save in run)] or calls
    for number, times in Counter(call.attempt for call in calls).items():
        if times > 1:
            yield Violation("I-7", task, f"try {number} was started {times} times")
    for count, call in enumerate(calls, 1):
        stored = [save for save in run if save.at <= call.began]
        if (
            stored
            and stored[-1].tries < count
            and not any(save.tries >= count for save in run if save.at <= call.began)
        ):
            yield Violation("I-7", task, f"invocation {count} was started with {stored[-1].tries} tries stored")
            return
    started = {call.attempt for call in calls}
    for number in range(1, last.tries + 1):
        if number in started:
            continue
        actives = [save for save in run if save.state == "active" and save.tries == number]
        begins = actives[0].at if actives else run[0].at
        ends = (
            next((save.at for save in run if save.sequence > actives[-1].sequence), following) if actives else following
        )
        if history.excused(begins - NS, ends + NS) or history.acted(task, begins - NS, ends + NS):
            continue
        yield Violation("I-7", task, f"{last.tries} tries are stored, but no invocation was started as try {number}")


def _is_of(save: Save, call: Call) -> bool:
    return save.state == "active" and save.owner == call.bridge and save.tries == call.attempt


def _result(save: Save) -> bytes | None:
    result = (save.body or {}).get("result") or {}
    try:
        return base64.b64decode(result.get("payload") or "", validate=True)
    except (binascii.Error, TypeError):
        return None


def _answers(calls: list[Call]) -> str:
    if not calls:
        return "no invocation of that try by that bridge"
    return "; ".join(f"{call.invocation} answered {dict(call.headers)} {_short(call.reply)}" for call in calls)


def _short(body: bytes | None) -> str:
    return "nothing" if body is None else f"{body[:60]!r}{f' ({len(body)} bytes)' if len(body) > 60 else ''}"


def _said(save: Save) -> str:
    by = f" by {save.owner}" if save.owner else ""
    return f"{save.state or 'unknown'} (try {save.tries}, at {save.sequence}{by})"
