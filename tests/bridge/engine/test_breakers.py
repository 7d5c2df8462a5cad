"""The breakers of all types, and what was parked while nobody answered."""

import pytest

from aj_bridge.engine import breakers as module
from aj_bridge.engine.breakers import Breakers
from aj_bridge.storage.protocols import Parked
from aj_sdk.wire.times import NS_PER_S


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[Breakers, Clock]:
    clock = Clock()
    return Breakers(clock, lambda: 0.0), clock


def parked(number: int) -> Parked:
    return Parked(queue="Q", task_id=f"t{number}", due_ns=0, sequence=number)


def test_types_are_closed_until_a_call_found_nobody() -> None:
    breakers, clock = made()
    assert breakers.admit("a")
    breakers.missed("a")
    assert not breakers.admit("a")
    assert breakers.admit("b")
    clock.now += 1
    assert breakers.admit("a")
    assert not breakers.admit("a")


def test_who_found_nobody_is_tried_again_after_a_second_the_others_later() -> None:
    breakers, clock = made()
    for _ in range(5):
        assert NS_PER_S < breakers.missed("a") < 1.1 * NS_PER_S
        clock.now += 1.06
        assert breakers.admit("a")
    assert breakers.delay_ns("a") == 30 * NS_PER_S
    assert breakers.delay_ns("b") == NS_PER_S


def test_what_was_parked_is_given_once_when_a_call_was_answered() -> None:
    breakers, _ = made()
    breakers.missed("a")
    breakers.missed("b")
    assert breakers.parked("a", parked(1))
    assert breakers.parked("a", parked(2))
    assert breakers.parked("b", parked(3))
    assert breakers.answered("a") == [parked(1), parked(2)]
    assert breakers.answered("a") == []
    assert breakers.admit("a")
    assert not breakers.admit("b")


def test_an_answer_of_a_type_that_was_never_missed_frees_nothing() -> None:
    breakers, _ = made()
    assert breakers.answered("a") == []


def test_what_is_parked_after_an_answer_is_not_kept() -> None:
    breakers, _ = made()
    breakers.missed("a")
    assert breakers.answered("a") == []
    assert not breakers.parked("a", parked(1))


def test_the_latest_parked_are_remembered_up_to_a_limit() -> None:
    breakers, _ = made()
    breakers.missed("a")
    for number in range(module._MAX_PARKED + 5):
        breakers.parked("a", parked(number))
    kept = breakers.answered("a")
    assert len(kept) == module._MAX_PARKED
    assert kept[0] == parked(5)


def test_types_are_remembered_up_to_a_limit() -> None:
    breakers, _ = made()
    for number in range(module._MAX_TYPES + 1):
        breakers.missed(f"t{number}")
    assert breakers.admit("t0")
    assert not breakers.admit("t1")
    breakers.missed("t1")
    assert not breakers.admit(f"t{module._MAX_TYPES}")


def test_that_nobody_handles_a_type_is_logged_once_until_somebody_does(caplog: pytest.LogCaptureFixture) -> None:
    breakers = Breakers(lambda: 0.0, lambda: 0.0)
    for _ in range(3):
        breakers.missed("t")
    breakers.missed("other")
    breakers.answered("t")
    breakers.missed("t")
    assert [record.args for record in caplog.records] == [("t",), ("other",), ("t",)]
