"""Interim replies, and what they mean for the time that a handler has."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.errors import DecodeError
from aj_sdk.wire.interim import Interim, Patience, Progress, heartbeat_ns, interim_reply, read_interim
from aj_sdk.wire.times import NS_PER_S

TOLD = Progress(
    task_id="a",
    task_type="email:new",
    queue="Q",
    try_=2,
    invocation="b-Q-1",
    fraction=0.4,
    note="rendering",
    timestamp_ns=1_700_000_000 * NS_PER_S,
)


@given(st.none() | st.floats(0, 1), st.text(max_size=30))
def test_an_interim_reply_is_read_as_it_was_written(fraction: float | None, note: str) -> None:
    read = read_interim(*interim_reply(Interim(fraction, note)))
    assert read is not None
    assert read.fraction == (None if fraction is None else pytest.approx(fraction, rel=0, abs=1e-6))
    assert read.note == note.translate({13: " ", 10: " ", 0: " "}).strip()


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "nan", "inf", " "])
def test_a_number_that_is_none_still_proves_life(text: str) -> None:
    assert read_interim({"aj-progress": text}, b"not JSON") == Interim()


@pytest.mark.parametrize("other", ["AJ-Error", "aj-terminate", "Nats-Service-Error"])
def test_a_reply_with_an_error_is_final(other: str) -> None:
    assert read_interim({"AJ-Progress": "0.5", other: ""}, b"") is None
    assert read_interim({"Other": ""}, b"") is None
    assert read_interim(None, b"") is None


def test_an_empty_sign_extends_the_life_and_a_number_the_deadline_too() -> None:
    first = Patience.begin(100.0, run_time_s=60.0, heartbeat_s=5.0)
    assert (first.limit, first.lost_at, first.lost) == (160.0, math.inf, False)
    alive = first.after(Interim(), 110.0)
    assert (alive.limit, alive.until, alive.lost) == (125.0, 160.0, True)
    moved = alive.after(Interim(0.5), 120.0)
    assert (moved.limit, moved.until) == (135.0, 180.0)
    hung = first.after(Interim(), 159.0)
    assert (hung.limit, hung.lost) == (160.0, False)  # it lives, and its time is over


@pytest.mark.parametrize(("lease_s", "seconds"), [(30, 10), (60, 10), (3, 1), (0.2, 0.1), (0, 10)])
def test_a_sign_is_wanted_three_times_a_lease_and_every_ten_seconds_at_most(lease_s: float, seconds: float) -> None:
    assert heartbeat_ns(int(lease_s * NS_PER_S)) == seconds * NS_PER_S


def test_progress_is_read_as_it_was_told() -> None:
    assert Progress.from_wire(TOLD.to_wire()) == TOLD


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        (b"0.4", b"1.4", "progress"),
        (b"0.4", b'"x"', "progress"),
        (b'"a"', b'"a b"', "task_id"),
        (b"2023", b"x", "time"),
    ],
)
def test_progress_that_is_none_is_refused(before: bytes, after: bytes, key: str) -> None:
    with pytest.raises(DecodeError, match=key):
        Progress.from_wire(TOLD.to_wire().replace(before, after))
