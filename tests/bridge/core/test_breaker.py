"""The breaker of a task type."""

from hypothesis import given
from hypothesis import strategies as st

from aj_bridge.core.breaker import CLOSED, Breaker
from aj_sdk.wire.times import NS_PER_S

SURE = 0.0


def delay_s(breaker: Breaker, chance: float = SURE) -> float:
    return breaker.delay_ns(lambda: chance) / NS_PER_S


def test_a_closed_breaker_admits_everybody() -> None:
    assert not CLOSED.open
    assert CLOSED.admit(10.0) == (CLOSED, True)
    assert CLOSED.admit(10.0) == (CLOSED, True)


def test_a_call_that_found_nobody_opens_it_for_a_second() -> None:
    breaker = CLOSED.missed(10.0)
    assert breaker.open
    assert breaker == Breaker(1, 11.0)
    assert breaker.admit(10.999) == (breaker, False)
    assert breaker.admit(11.0) == (Breaker(2, 12.0), True)


def test_an_open_breaker_admits_one_a_second() -> None:
    breaker = CLOSED.missed(10.0)
    admitted = 0
    for tenth in range(100, 200):
        breaker, may = breaker.admit(tenth / 10)
        admitted += may
    assert admitted == 9


def test_calls_that_were_under_way_together_are_one_round() -> None:
    breaker = CLOSED
    for _ in range(100):
        breaker = breaker.missed(10.0)
    assert breaker == Breaker(1, 11.0)
    assert delay_s(breaker) == 1.0


def test_the_task_of_a_call_that_found_nobody_is_the_next_to_be_tried() -> None:
    breaker, _ = CLOSED.missed(10.0).admit(11.5)
    back = 11.6 + breaker.missed(11.6).probe_ns(11.6) / NS_PER_S
    assert 12.5 < back < 12.6
    assert breaker.missed(11.6).admit(back)[1]
    assert Breaker(3, 5.0).probe_ns(100.0) < NS_PER_S / 10


def test_the_others_wait_for_longer_and_longer_up_to_30_s() -> None:
    breaker = CLOSED.missed(0.0)
    delays = [delay_s(breaker)]
    for second in range(1, 10):
        breaker, _ = breaker.admit(second)
        delays.append(delay_s(breaker))
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]


@given(misses=st.integers(0, 10**6), chance=st.floats(0, 1, exclude_max=True))
def test_a_delay_is_shortened_by_up_to_a_quarter(misses: int, chance: float) -> None:
    breaker = Breaker(misses, 0.0)
    assert 0.75 * delay_s(breaker) <= delay_s(breaker, chance) <= delay_s(breaker)
    assert 0.75 <= delay_s(breaker, chance) <= 30
