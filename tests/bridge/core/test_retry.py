"""Retry policies: the Go project's names, figures and formula."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_bridge.core.retry import POLICIES, RetryPolicy, linear, policy_named
from aj_sdk.errors import UsageError
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

MINUTE = 60 * NS_PER_S
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
    policy = policy_named(name)
    assert policy.jitter == jitter
    assert len(policy.intervals_ns) == steps
    assert policy.intervals_ns == tuple(first + i * (last - first) // steps for i in range(steps))


def test_an_unknown_policy_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match="unknown retry policy '2m'; there are 10m, 1h, 1m, default"):
        policy_named("2m")


def test_a_delay_is_a_part_that_is_sure_and_a_part_by_chance() -> None:
    policy = RetryPolicy((NS_PER_S, 2 * NS_PER_S), 0.5)
    assert policy.duration_ns(0, lambda: 0.0) == 500 * NS_PER_MS
    assert policy.duration_ns(0, lambda: 0.25) == 750 * NS_PER_MS
    assert policy.duration_ns(1, lambda: 0.0) == 1000 * NS_PER_MS
    assert policy.duration_ns(1, lambda: 0.999999) == 3000 * NS_PER_MS


def test_past_the_end_the_last_interval_holds_and_before_the_start_the_first() -> None:
    policy = linear(4, 0.5, NS_PER_S, 9 * NS_PER_S)
    assert policy.intervals_ns == (NS_PER_S, 3 * NS_PER_S, 5 * NS_PER_S, 7 * NS_PER_S)
    assert policy.duration_ns(4, lambda: 0.0) == policy.duration_ns(3, lambda: 0.0) == 3500 * NS_PER_MS
    assert policy.duration_ns(10**9, lambda: 0.0) == 3500 * NS_PER_MS
    assert policy.duration_ns(-1, lambda: 0.0) == 500 * NS_PER_MS


def test_delays_are_rounded_to_milliseconds() -> None:
    policy = RetryPolicy((3 * NS_PER_MS + 1,), 0.5)
    assert policy.duration_ns(0, lambda: 0.0) == 2 * NS_PER_MS
    assert RetryPolicy((NS_PER_MS,), 1.4).duration_ns(0, lambda: 0.0) == NS_PER_MS


def test_a_delay_that_rounds_to_nothing_is_the_first_interval() -> None:
    assert RetryPolicy((NS_PER_MS // 10,), 0.5).duration_ns(0, lambda: 0.0) == NS_PER_MS // 10


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
