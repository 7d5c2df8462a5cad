"""Retry policies: the Go project's names, figures and formula."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_bridge.core.retry import POLICIES, RetryPolicy, read_policy, write_policy
from aj_sdk.errors import UsageError
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

MINUTE = 60 * NS_PER_S
SECOND = timedelta(seconds=1)
MS = timedelta(milliseconds=1)
RANDOM = st.floats(0, 1, exclude_max=True)
POLICY = st.sampled_from(sorted(POLICIES))


@pytest.mark.parametrize(
    ("name", "steps", "jitter", "first", "last"),
    [
        ("default", 50, 0.90, MINUTE, 10 * MINUTE),
        ("10m", 50, 0.90, MINUTE, 10 * MINUTE),
        ("1h", 20, 0.90, 10 * MINUTE, 60 * MINUTE),
        ("1m", 20, 0.5, NS_PER_S, MINUTE),
    ],
)
def test_each_policy_has_its_steps(name: str, steps: int, jitter: float, first: int, last: int) -> None:
    policy = read_policy(name)
    assert policy.jitter == jitter
    assert len(policy.intervals_ns) == steps
    assert policy.intervals_ns == tuple(first + i * (last - first) // steps for i in range(steps))


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("1H", POLICIES["1h"]),
        ("min=1s,max=4s", RetryPolicy([SECOND, 2 * SECOND, 4 * SECOND], 0.5)),
        ("max=9s, min=1s, factor=3, jitter=0", RetryPolicy([SECOND, 3 * SECOND, 9 * SECOND], 0)),
        ("1s,5s,1m", RetryPolicy([SECOND, 5 * SECOND, 60 * SECOND], 0.5)),
        ("250ms,jitter=1", RetryPolicy([250 * MS], 1)),
    ],
)
def test_a_policy_is_read_from_a_text(text: str, policy: RetryPolicy) -> None:
    assert read_policy(text) == policy
    assert read_policy(write_policy(policy)) == policy


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2x", "'2x' is no duration"),
        ("", "'' is no duration"),
        ("min=1s", "it needs min and max, or intervals alone"),
        ("min=1s,max=2s,3s", "it needs min and max, or intervals alone"),
        ("min=1s,max=2s,max=3s", "'max' is there twice"),
        ("min=1s,max=2s,growth=3", "'growth' is no part"),
        ("min=1s,max=2s,factor=x", "'x' is no number"),
        ("min=1s,max=2s,factor=1", "the factor of a retry policy is above 1"),
        ("min=2s,max=1s", "grows from above 0"),
        ("1s,jitter=11", "the jitter of a retry policy lies between"),
    ],
)
def test_a_text_that_is_no_policy_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read_policy(text)


def test_a_delay_is_a_part_that_is_sure_and_a_part_by_chance() -> None:
    policy = RetryPolicy((SECOND, 2 * SECOND), 0.5)
    assert policy.duration_ns(0, lambda: 0.0) == 500 * NS_PER_MS
    assert policy.duration_ns(0, lambda: 0.25) == 750 * NS_PER_MS
    assert policy.duration_ns(1, lambda: 0.0) == 1000 * NS_PER_MS
    assert policy.duration_ns(1, lambda: 0.999999) == 3000 * NS_PER_MS


def test_past_the_end_the_last_interval_holds_and_before_the_start_the_first() -> None:
    policy = RetryPolicy.linear(4, SECOND, 9 * SECOND, 0.5)
    assert policy.intervals_ns == (NS_PER_S, 3 * NS_PER_S, 5 * NS_PER_S, 7 * NS_PER_S)
    assert policy.duration_ns(4, lambda: 0.0) == policy.duration_ns(3, lambda: 0.0) == 3500 * NS_PER_MS
    assert policy.duration_ns(10**9, lambda: 0.0) == 3500 * NS_PER_MS
    assert policy.duration_ns(-1, lambda: 0.0) == 500 * NS_PER_MS


def test_delays_are_rounded_to_milliseconds() -> None:
    policy = RetryPolicy((3 * MS + timedelta(microseconds=1),), 0.5)
    assert policy.duration_ns(0, lambda: 0.0) == 2 * NS_PER_MS
    assert RetryPolicy((MS,), 1.4).duration_ns(0, lambda: 0.0) == NS_PER_MS


def test_a_delay_that_rounds_to_nothing_is_the_first_interval() -> None:
    assert RetryPolicy((MS / 10,), 0.5).duration_ns(0, lambda: 0.0) == NS_PER_MS // 10


@given(name=POLICY, n=st.integers(-5, 1000), chance=RANDOM)
def test_a_delay_lies_within_its_interval(name: str, n: int, chance: float) -> None:
    policy = POLICIES[name]
    interval = policy.intervals_ns[min(max(n, 0), len(policy.intervals_ns) - 1)]
    delay = policy.duration_ns(n, lambda: chance)
    assert delay % NS_PER_MS == 0
    assert interval * policy.jitter - NS_PER_MS <= delay <= interval * (1 + policy.jitter) + NS_PER_MS


@given(name=POLICY, n=st.integers(0, 100), chance=RANDOM)
def test_later_tries_wait_no_shorter(name: str, n: int, chance: float) -> None:
    policy = POLICIES[name]
    assert policy.duration_ns(n, lambda: chance) <= policy.duration_ns(n + 1, lambda: chance)


def test_an_exponential_policy_grows_to_its_longest_interval() -> None:
    policy = RetryPolicy.exponential(SECOND, 10 * SECOND)
    assert policy == RetryPolicy([SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND, 10 * SECOND], jitter=0.5)
    assert RetryPolicy.exponential(SECOND, SECOND).intervals == (SECOND,)
    assert RetryPolicy.exponential(SECOND, 10 * SECOND, factor=1e300).intervals == (SECOND, 10 * SECOND)


@pytest.mark.parametrize(
    ("intervals", "jitter", "why"),
    [
        ([], 0.5, "has 1 to 1000 intervals, not 0"),
        ([SECOND] * 1001, 0.5, "has 1 to 1000 intervals, not 1001"),
        ([SECOND, -SECOND], 0.5, "lies between 0 and 366 days"),
        ([400 * timedelta(days=1)], 0.5, "lies between 0 and 366 days"),
        ([SECOND], -0.1, "the jitter of a retry policy lies between 0 and 10"),
        ([SECOND], float("nan"), "the jitter of a retry policy lies between 0 and 10"),
    ],
)
def test_a_policy_that_can_not_be_is_refused(intervals: list[timedelta], jitter: float, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        RetryPolicy(intervals, jitter)


@pytest.mark.parametrize(
    ("first", "last", "factor"),
    [
        (timedelta(0), SECOND, 2.0),
        (2 * SECOND, SECOND, 2.0),
        (SECOND, 2 * SECOND, 1.0),
        (SECOND, 2 * SECOND, float("nan")),
        (timedelta(microseconds=1), timedelta(days=1), 1.000001),
    ],
)
def test_a_growth_that_does_not_arrive_is_refused(first: timedelta, last: timedelta, factor: float) -> None:
    with pytest.raises(UsageError):
        RetryPolicy.exponential(first, last, factor)
