"""The states."""

import pytest

from aj_sdk.wire.state import FINAL_STATES, TaskState, parse_state


def test_every_state_is_read_by_its_wire_name() -> None:
    assert [parse_state(state.value) for state in TaskState] == list(TaskState)


def test_the_old_spelling_is_read() -> None:
    assert parse_state("completed") is TaskState.COMPLETE


@pytest.mark.parametrize("text", ["done", "NEW", " new", "x" * 1000])
def test_an_unknown_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unknown state"):
        parse_state(text)


def test_nothing_more_happens_in_a_final_state() -> None:
    assert {state for state in TaskState if state.final} == FINAL_STATES
    assert {state.value for state in TaskState if not state.final} == {"", "new", "active", "retry", "blocked"}
