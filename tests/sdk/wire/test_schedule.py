"""The stored form of schedules."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.wire.golden import golden, same_json

from aj_sdk.errors import DecodeError
from aj_sdk.wire.schedule import MIN_DEADLINE_NS, Schedule

NAMES = st.from_regex("[A-Za-z0-9_:-]{1,128}", fullmatch=True)

GOOD = {
    "name": "daily",
    "schedule": "@daily",
    "queue": "EMAIL",
    "task_type": "email:new",
    "created_at": "2024-02-29T16:05:06Z",
}


@golden("schedule")
def test_a_golden_schedule_is_read_and_written(vector: dict[str, Any]) -> None:
    schedule = Schedule.from_wire(base64.b64decode(vector["bytes_base64"]))

    assert {
        "name": schedule.name,
        "schedule": schedule.schedule,
        "queue": schedule.queue,
        "task_type": schedule.task_type,
        "payload_base64": None if schedule.payload is None else base64.b64encode(schedule.payload).decode(),
        "deadline_ns": schedule.deadline_ns,
        "max_tries": schedule.max_tries,
        "created_ns": schedule.created_ns,
    } == vector["decoded"]
    assert same_json(schedule.to_wire(), vector["text"])
    assert Schedule.from_wire(schedule.to_wire()) == schedule


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "a b"),
        ("schedule", ""),
        ("schedule", None),
        ("schedule", 5),
        ("queue", ""),
        ("task_type", "*"),
        ("payload", 7),
        ("deadline", MIN_DEADLINE_NS - 1),
        ("deadline", -1),
        ("deadline", "30s"),
        ("max_tries", 1.5),
        ("created_at", None),
        ("created_at", "today"),
    ],
)
def test_a_wrong_value_is_refused_by_key(key: str, value: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        Schedule.from_wire(json.dumps({**GOOD, key: value}).encode())
    assert (caught.value.what, caught.value.key) == ("schedule", key)


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(DecodeError, match=f"^schedule: {key}: is missing$"):
        Schedule.from_wire(json.dumps({name: value for name, value in GOOD.items() if name != key}).encode())


def test_a_deadline_of_zero_is_none() -> None:
    assert Schedule.from_wire(json.dumps({**GOOD, "deadline": 0}).encode()).deadline_ns is None


@given(
    st.builds(
        Schedule,
        name=NAMES,
        schedule=st.text(min_size=1),
        queue=NAMES,
        task_type=NAMES,
        payload=st.none() | st.binary(),
        deadline_ns=st.none() | st.integers(MIN_DEADLINE_NS, 2**63 - 1),
        max_tries=st.integers(-(2**63), 2**63 - 1),
        created_ns=st.integers(-(2**62), 2**62),
    )
)
def test_a_schedule_survives_being_written(schedule: Schedule) -> None:
    assert Schedule.from_wire(schedule.to_wire()) == schedule
