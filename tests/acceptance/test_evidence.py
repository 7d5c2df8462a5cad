"""The judge of the fault tests finds what it is there to find."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.acceptance.evidence import Call, Disturbance, Save, judge, read_calls

pytestmark = pytest.mark.acceptance


def save(state: str, tries: int = 0, owner: str = "B1", **body: Any) -> Save:
    return Save(task="T", state=state, tries=tries, owner=owner, body={"state": state, "tries": tries, **body})


def call(tries: int = 1, began: float = 1.0, ended: float | None = 2.0, invocation: str = "") -> Call:
    return Call(task="T", tries=tries, invocation=invocation or f"B1-Q-{tries}", pid=1, began=began, ended=ended)


def faults(saves: Sequence[Save], calls: Sequence[Call], **conditions: Any) -> list[str]:
    return judge({"T": saves[-1].body}, saves, calls, **conditions)


GOOD = (save("new"), save("active", 1), save("complete", 1))


def test_a_usual_run_is_faultless() -> None:
    assert faults(GOOD, [call()]) == []


def test_a_run_with_a_retry_is_faultless() -> None:
    saves = [save("new"), save("active", 1), save("retry", 1), save("active", 2), save("complete", 2)]
    assert faults(saves, [call(1, 1, 2), call(2, 3, 4)]) == []


@pytest.mark.parametrize(
    ("saves", "calls", "fault"),
    [
        ([*GOOD, save("complete", 1)], [call()], "complete follows complete"),
        ([*GOOD, save("active", 2), save("complete", 2)], [call(), call(2, 3, 4)], "active follows complete"),
        ([save("new"), save("complete", 1)], [call()], "complete follows new"),
        ([save("new"), save("active", 1)], [call()], "is active at the end"),
        (GOOD, [call(), call(invocation="B1-Q-7", began=3, ended=4)], "tries [1] started more than once"),
        (GOOD, [call(invocation="B2-Q-1")], "started without an accepted save"),
        (GOOD, [call(2)], "started without an accepted save"),
        ([save("new"), save("active", 3), save("expired", 3, max_tries=2)], [], "3 tries of 2"),
        ([save("new"), save("active", 1), save("complete", 1, owner="B2")], [call()], "made no call of the last try"),
    ],
)
def test_a_fault_is_found(saves: Sequence[Save], calls: Sequence[Call], fault: str) -> None:
    assert any(fault in found for found in faults(saves, calls)), faults(saves, calls)


TWO = (save("new"), save("active", 1), save("active", 2), save("complete", 2))


@pytest.mark.parametrize("ended", [3.5, None])
def test_calls_that_overlap_are_a_fault_unless_a_lease_may_have_been_lost(ended: float | None) -> None:
    calls = [call(1, 1, ended), call(2, 3, 4)]
    assert any("no lease was lost" in found for found in faults(TWO, calls))
    assert faults(TWO, calls, disturbances=[Disturbance(2, 2)]) == []
    assert faults(TWO, calls, disturbances=[Disturbance(2, 2, "B1")]) == []
    for unrelated in (Disturbance(3.2, 9), Disturbance(0, 0.5), Disturbance(2, 2, "B2")):
        assert any("no lease was lost" in found for found in faults(TWO, calls, disturbances=[unrelated]))


def test_two_ends_are_found_also_where_the_record_of_saves_has_gaps() -> None:
    assert any("more than once" in found for found in faults([*GOOD, *GOOD], [call()], complete_record=False))


def test_a_task_that_nobody_enqueued_is_found() -> None:
    assert judge({}, GOOD, []) == ["T: nobody enqueued it"]


def test_a_call_of_a_process_that_died_ends_with_it() -> None:
    line = {"what": "began", "task": "T", "try": 1, "invocation": "B1-Q-1", "pid": 7, "at": 1.0}
    assert [each.ended for each in read_calls([line], {7: 2.0})] == [2.0]
    assert [each.ended for each in read_calls([line], {})] == [None]
    assert [each.ended for each in read_calls([line, {**line, "what": "ended", "at": 1.5}], {7: 2.0})] == [1.5]
