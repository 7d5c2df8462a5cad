"""Attempts as they are stored."""

import json

import pytest

from aj_sdk.errors import DecodeError
from aj_sdk.wire.attempt import Attempt, AttemptOutcome
from aj_sdk.wire.call import Cause
from aj_sdk.wire.times import NS_PER_S

ATTEMPT = Attempt(
    task_id="T1",
    task_type="email:new",
    queue="EMAIL",
    try_=2,
    outcome=AttemptOutcome.FAILED,
    started_ns=1_700_000_000 * NS_PER_S,
    ended_ns=1_700_000_002 * NS_PER_S,
    error="no such host",
    bridge="B1",
    invocation="B1.17",
    kind="remote",
    handler="CHORIA_AJ.H.T.email:new",
)


def test_it_is_read_as_it_was_written() -> None:
    assert Attempt.from_wire(ATTEMPT.to_wire()) == ATTEMPT
    assert json.loads(ATTEMPT.to_wire())["duration"] == 2 * NS_PER_S


def test_what_is_not_known_is_left_out() -> None:
    bare = Attempt(
        task_id="T1", task_type="t", queue="Q", try_=1, outcome=AttemptOutcome.LEASE_LOST, started_ns=5, ended_ns=5
    )
    assert not {"error", "bridge", "invocation", "kind", "handler"} & set(json.loads(bare.to_wire()))
    assert Attempt.from_wire(bare.to_wire()) == bare


def test_no_duration_is_negative() -> None:
    early = Attempt(
        task_id="T1", task_type="t", queue="Q", try_=1, outcome=AttemptOutcome.LEASE_LOST, started_ns=9, ended_ns=5
    )
    assert early.duration_ns == 0


def test_an_outcome_that_is_not_known_is_refused_by_its_name() -> None:
    wrong = json.dumps({**json.loads(ATTEMPT.to_wire()), "outcome": "lost"}).encode()
    with pytest.raises(DecodeError, match="outcome: 'lost' is not known"):
        Attempt.from_wire(wrong)


def test_each_cause_of_a_failure_is_an_outcome() -> None:
    assert {cause.value for cause in Cause} <= {outcome.value for outcome in AttemptOutcome}
