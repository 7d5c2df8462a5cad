"""What parents mean for their child."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_bridge.core.dependencies import Ready, Unreachable, Waiting, judge, recheck_ns
from aj_sdk.wire.state import FINAL_STATES, TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_S

NOW = 1_767_225_600 * NS_PER_S
RESULT = TaskResult(payload="eA==", completed_ns=NOW)
UNFINISHED = [state for state in TaskState if state not in FINAL_STATES]
FAILED = sorted(FINAL_STATES - {TaskState.COMPLETE})


def parent(state: TaskState, name: str = "p") -> TaskRecord:
    result = RESULT if state is TaskState.COMPLETE else None
    return TaskRecord(id=name, type="t", queue="Q", created_ns=NOW, state=state, result=result)


def child(*parents: str, load: bool = False, created_ns: int = NOW) -> TaskRecord:
    return TaskRecord(
        id="c",
        type="t",
        queue="Q",
        created_ns=created_ns,
        state=TaskState.BLOCKED,
        dependencies=parents,
        load_dependencies=load,
    )


def test_a_child_whose_parents_completed_is_ready() -> None:
    assert judge(child("p"), {"p": parent(TaskState.COMPLETE)}) == Ready({})


def test_a_child_that_loads_results_gets_them_all() -> None:
    parents = {"p": parent(TaskState.COMPLETE), "q": parent(TaskState.COMPLETE, "q").replace(result=None)}
    assert judge(child("p", "q", load=True), parents) == Ready({"p": RESULT, "q": None})


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_child_waits_for_a_parent_that_is_not_done(state: TaskState) -> None:
    assert judge(child("p", "q"), {"p": parent(TaskState.COMPLETE), "q": parent(state, "q")}) == Waiting("q")


def test_the_first_parent_that_is_not_done_is_named() -> None:
    parents = {"p": parent(TaskState.ACTIVE), "q": parent(TaskState.NEW, "q")}
    assert judge(child("p", "q"), parents) == Waiting("p")


@pytest.mark.parametrize("state", FAILED)
def test_a_child_of_a_failed_parent_is_unreachable_also_while_others_are_not_done(state: TaskState) -> None:
    parents = {"p": parent(TaskState.ACTIVE), "q": parent(state, "q")}
    assert judge(child("p", "q"), parents) == Unreachable(f"task dependencies failed: q is {state}")


@pytest.mark.parametrize("parents", [{}, {"p": None}])
def test_a_child_of_a_missing_parent_is_unreachable(parents: dict[str, None]) -> None:
    assert judge(child("p"), parents) == Unreachable("task dependencies failed: p was not found")


@given(states=st.lists(st.none() | st.sampled_from(TaskState), min_size=1, max_size=6))
def test_a_child_is_ready_only_when_every_parent_completed(states: list[TaskState | None]) -> None:
    parents = {str(n): None if state is None else parent(state, str(n)) for n, state in enumerate(states)}
    verdict = judge(child(*parents), parents)
    assert isinstance(verdict, Ready) == all(state is TaskState.COMPLETE for state in states)
    assert isinstance(verdict, Unreachable) == any(state is None or state in FAILED for state in states)


@pytest.mark.parametrize(("age_s", "wait_s"), [(-100, 5), (0, 5), (9, 5), (20, 10), (119, 59.5), (120, 60), (1e6, 60)])
def test_parents_are_looked_at_again_after_half_the_childs_age_5_to_60_s(age_s: float, wait_s: float) -> None:
    assert recheck_ns(child("p", created_ns=NOW - int(age_s * NS_PER_S)), NOW) == int(wait_s * NS_PER_S)
