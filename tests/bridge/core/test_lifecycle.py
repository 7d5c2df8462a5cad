"""The table of the life of a task."""

from itertools import product

import pytest

from aj_bridge.core.lifecycle import EDGES, Event, Hand, is_edge
from aj_sdk.wire.state import FINAL_STATES, TaskState

BEFORE = (None, *TaskState)
RUNS_LEFT = [state for state in TaskState if state not in FINAL_STATES]


def test_the_table_is_asked_line_by_line() -> None:
    lines = {(edge.before, edge.event, edge.after) for edge in EDGES}
    for before, event, after in product(BEFORE, Event, TaskState):
        assert is_edge(before, event, after) == ((before, event, after) in lines)


def test_no_line_stands_twice() -> None:
    assert len({(edge.before, edge.event, edge.after) for edge in EDGES}) == len(EDGES)


def test_every_event_and_every_hand_has_a_line() -> None:
    assert {edge.event for edge in EDGES} == set(Event)
    assert {edge.hand for edge in EDGES} == set(Hand)


def test_no_bridge_changes_a_final_state() -> None:
    assert not [edge for edge in EDGES if edge.before in FINAL_STATES and edge.hand is Hand.BRIDGE]


def test_final_states_are_left_by_a_retry_and_a_refused_one_by_enqueueing_again() -> None:
    for edge in EDGES:
        if edge.before in FINAL_STATES:
            assert edge.event is Event.RETRIED or (edge.before, edge.event) == (
                TaskState.QUEUE_ERROR,
                Event.ENQUEUED,
            )
            assert edge.after in (TaskState.NEW, TaskState.BLOCKED)


def test_only_bridges_start_tasks() -> None:
    assert {edge.hand for edge in EDGES if edge.after is TaskState.ACTIVE} == {Hand.BRIDGE}


def test_a_success_follows_a_start_only() -> None:
    assert {edge.before for edge in EDGES if edge.after is TaskState.COMPLETE} == {TaskState.ACTIVE}


@pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.UNKNOWN])
def test_every_state_can_be_reached(state: TaskState) -> None:
    reached: set[TaskState | None] = {None}
    while True:
        further = {edge.after for edge in EDGES if edge.before in reached} - reached
        if not further:
            break
        reached |= further
    assert state in reached


@pytest.mark.parametrize("state", RUNS_LEFT)
def test_every_unfinished_state_can_end(state: TaskState) -> None:
    reached = {state}
    while not reached & FINAL_STATES:
        further = {edge.after for edge in EDGES if edge.before in reached} - reached
        assert further
        reached |= further


def test_a_task_past_its_deadline_or_its_tries_expires_from_every_unfinished_state() -> None:
    for state in RUNS_LEFT:
        assert is_edge(state, Event.PAST_DEADLINE, TaskState.EXPIRED)
        assert is_edge(state, Event.TRIES_USED_UP, TaskState.EXPIRED)
        assert is_edge(state, Event.TOO_LARGE, TaskState.TERMINATED)
