"""Lifecycle events."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.wire.golden import golden, same_json

from aj_sdk.errors import DecodeError
from aj_sdk.wire.event import LEADER_ELECTED, TASK_STATE, LeaderElectedEvent, TaskStateEvent, parse_event
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

NAMES = st.from_regex("[A-Za-z0-9_:-]{1,128}", fullmatch=True)
INSTANTS = st.integers(-(2**62), 2**62)
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@golden("task_state_event")
def test_a_golden_state_event_is_read_and_written(vector: dict[str, Any]) -> None:
    data = base64.b64decode(vector["bytes_base64"])
    event = parse_event(data)

    assert isinstance(event, TaskStateEvent)
    assert TaskStateEvent.from_wire(data) == event
    assert {
        "event_id": event.event_id,
        "type": TASK_STATE,
        "timestamp_ns": event.timestamp_ns,
        "task_id": event.task_id,
        "state": event.state.value,
        "tries": event.tries,
        "queue": event.queue,
        "task_type": event.task_type,
        "last_error": event.last_error,
        "task_age_ns": event.task_age_ns,
    } == vector["decoded"]
    assert same_json(event.to_wire(), vector["text"])
    assert parse_event(event.to_wire()) == event


@golden("leader_elected_event")
def test_a_golden_leader_event_is_read_and_written(vector: dict[str, Any]) -> None:
    data = base64.b64decode(vector["bytes_base64"])
    event = parse_event(data)

    assert isinstance(event, LeaderElectedEvent)
    assert LeaderElectedEvent.from_wire(data) == event
    assert {
        "event_id": event.event_id,
        "type": LEADER_ELECTED,
        "timestamp_ns": event.timestamp_ns,
        "name": event.name,
        "component": event.component,
    } == vector["decoded"]
    assert same_json(event.to_wire(), vector["text"])
    assert parse_event(event.to_wire()) == event


def test_an_event_describes_its_task() -> None:
    task = TaskRecord(
        id="T1", type="email:new", queue="EMAIL", state=TaskState.RETRY, created_ns=1000, tries=2, last_err="bad"
    )

    assert TaskStateEvent.of(task, "E1", 1500) == TaskStateEvent(
        event_id="E1",
        timestamp_ns=1500,
        task_id="T1",
        state=TaskState.RETRY,
        tries=2,
        queue="EMAIL",
        task_type="email:new",
        last_error="bad",
        task_age_ns=500,
    )
    # The producer's clock may be ahead.
    assert TaskStateEvent.of(task, "E1", 900).task_age_ns == 0


GOOD_STATE = {
    "event_id": "E1",
    "type": TASK_STATE,
    "timestamp": "2024-02-29T16:05:06Z",
    "task_id": "T1",
    "state": "completed",
}
GOOD_LEADER = {
    "event_id": "E1",
    "type": LEADER_ELECTED,
    "timestamp": "2024-02-29T16:05:06Z",
    "name": "n",
    "component": "c",
}


def test_an_event_of_an_older_peer_is_read() -> None:
    event = parse_event(json.dumps(GOOD_STATE).encode())

    assert isinstance(event, TaskStateEvent)
    assert (event.state, event.task_type, event.tries) == (TaskState.COMPLETE, "", 0)


@pytest.mark.parametrize(
    ("good", "key", "value"),
    [
        (GOOD_STATE, "timestamp", None),
        (GOOD_STATE, "timestamp", "now"),
        (GOOD_STATE, "event_id", 7),
        (GOOD_STATE, "task_id", "*"),
        (GOOD_STATE, "state", "done"),
        (GOOD_STATE, "state", 1),
        (GOOD_STATE, "tries", "1"),
        (GOOD_STATE, "queue", "a b"),
        (GOOD_STATE, "task_type", "a b"),
        (GOOD_STATE, "last_error", 1),
        (GOOD_STATE, "task_age", 1.5),
        (GOOD_LEADER, "timestamp", None),
        (GOOD_LEADER, "name", 7),
        (GOOD_LEADER, "component", 7),
    ],
)
def test_a_wrong_value_is_refused_by_key(good: dict[str, Any], key: str, value: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_event(json.dumps({**good, key: value}).encode())
    assert caught.value.key == key


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"type":"io.nats.other"}', b'{"type":7}', b"null"])
def test_what_is_no_event_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^event: "):
        parse_event(data)


def test_the_kinds_are_not_mixed_up() -> None:
    with pytest.raises(DecodeError, match=f"type: must be {TASK_STATE}"):
        TaskStateEvent.from_wire(json.dumps({**GOOD_STATE, "type": LEADER_ELECTED}).encode())
    with pytest.raises(DecodeError, match=f"type: must be {LEADER_ELECTED}"):
        LeaderElectedEvent.from_wire(json.dumps({**GOOD_LEADER, "type": TASK_STATE}).encode())


@given(
    st.builds(
        TaskStateEvent,
        event_id=st.text(),
        timestamp_ns=INSTANTS,
        task_id=NAMES,
        state=st.sampled_from(TaskState),
        tries=INTEGERS,
        queue=NAMES | st.just(""),
        task_type=NAMES | st.just(""),
        last_error=st.text(),
        task_age_ns=INTEGERS,
    )
    | st.builds(LeaderElectedEvent, event_id=st.text(), timestamp_ns=INSTANTS, name=st.text(), component=st.text())
)
def test_an_event_survives_being_written(event: TaskStateEvent | LeaderElectedEvent) -> None:
    assert parse_event(event.to_wire()) == event
