"""Runs cases and judges the run."""

import enum
import time
from collections.abc import Callable, Collection, Sequence

import msgspec

from aj_bridge.faces.conformance.cases import Broken, Case, Level
from aj_bridge.faces.conformance.frames import Frame
from aj_bridge.faces.conformance.stand import Gone, Stand

__all__ = ["Outcome", "Report", "Verdict", "run_cases"]


class Outcome(enum.StrEnum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How one case ended.

    Attributes:
        case: the case.
        outcome: how.
        expected: what the protocol says; empty for one that passed.
        came: what came instead.
        seconds: how long it took.
        known: whether it is on the list of those that are known to fail.
        frames: what was sent and what came.
        said: what the responder printed last.
    """

    case: Case
    outcome: Outcome
    expected: str = ""
    came: str = ""
    seconds: float = 0.0
    known: bool = False
    frames: tuple[Frame, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it makes the run fail: a must that fails, or a pass of one that is listed as failing."""
        if self.known:
            return self.outcome is Outcome.PASSED
        return self.outcome is Outcome.FAILED and self.case.level is Level.MUST


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    Attributes:
        verdicts: case by case.
        seconds: how long it took.
    """

    verdicts: tuple[Verdict, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing counts against the responder."""
        return not any(verdict.counts for verdict in self.verdicts)

    def number(self, outcome: Outcome, level: Level | None = None) -> int:
        """Count the cases of an outcome, of one level or of all."""
        return sum(v.outcome is outcome and level in (None, v.case.level) for v in self.verdicts)


async def run_cases(
    command: Sequence[str],
    cases: Sequence[Case],
    *,
    task_type: str,
    known_failing: Collection[str] = (),
    patience: float = 1.0,
    show: Callable[[Verdict], None] = lambda _: None,
    begins: Callable[[Case], None] = lambda _: None,
) -> Report:
    """Try a responder.

    Args:
        command: starts it.
        cases: what to try, in this order.
        task_type: the type that most cases use.
        known_failing: names of cases that are known to fail.
        patience: a factor on all waiting.
        show: called when a case has ended.
        begins: called when a case begins.

    Raises:
        UsageError: the command can't be started.
        NotConnectedError: the server can't be started.
    """
    began = time.monotonic()
    verdicts = []
    async with Stand(command, task_type, patience=patience) as stand:
        for case in cases:
            begins(case)
            verdict = await _try(stand, case, known=case.name in known_failing)
            verdicts.append(verdict)
            show(verdict)
    return Report(verdicts=tuple(verdicts), seconds=time.monotonic() - began)


async def _try(stand: Stand, case: Case, *, known: bool) -> Verdict:
    stand.begin()
    began = time.monotonic()
    expected = came = ""
    outcome = Outcome.PASSED
    try:
        await case.check(stand)
    except Broken as broken:
        outcome, expected, came = Outcome.FAILED, broken.expected, broken.came
    except Gone as gone:
        outcome, expected, came = Outcome.FAILED, "a responder that listens", str(gone)
    seconds = time.monotonic() - began
    said = tuple(stand.said) if outcome is Outcome.FAILED else ()
    await stand.end()
    return Verdict(
        case=case,
        outcome=outcome,
        expected=expected,
        came=came,
        seconds=seconds,
        known=known,
        frames=tuple(stand.frames),
        said=said,
    )
