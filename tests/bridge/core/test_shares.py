"""Sharing slots by weight: each gets its part, what one leaves goes to the others, and nobody starves."""

import heapq
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aj_bridge.core.shares import Part, demands, limited, spent, targets, turn

WEIGHTS = st.integers(1, 20)
PARTS = st.lists(
    st.builds(
        Part,
        weight=WEIGHTS,
        running=st.integers(0, 50),
        waiting=st.integers(0, 20),
        more=st.booleans(),
        used=st.floats(0, 1e6),
    ),
    min_size=1,
    max_size=8,
)
LIMITS = st.lists(st.none() | st.integers(1, 100), min_size=8, max_size=8)
SLOTS = st.integers(1, 200)


def free(slots: int, parts: list[Part]) -> int:
    return max(0, slots - sum(part.in_hand for part in parts))


# How many slots each should have.


def test_while_all_have_a_backlog_each_has_its_weight() -> None:
    parts = [Part(weight=6, more=True), Part(weight=3, more=True), Part(weight=1, more=True)]
    assert targets(100, parts) == [(60, 60), (30, 30), (10, 10)]
    assert targets(10, parts) == [(6, 6), (3, 3), (1, 1)]
    assert targets(2, parts) == [(1, 2), (0, 1), (0, 1)]


def test_what_one_leaves_goes_to_the_others_by_their_weights() -> None:
    parts = [Part(weight=6, running=3), Part(weight=3, more=True), Part(weight=1, more=True)]
    assert targets(100, parts) == [(3, 3), (72, 73), (24, 25)]


@given(SLOTS, PARTS)
def test_no_more_slots_are_meant_than_there_are_and_none_is_left_while_there_is_work(
    slots: int, parts: list[Part]
) -> None:
    goals = targets(slots, parts)
    assert sum(whole for whole, _ in goals) <= slots
    assert all(some - whole in (0, 1) for whole, some in goals)
    if any(part.more for part in parts):
        assert sum(some for _, some in goals) >= slots


@given(SLOTS, PARTS)
def test_nobody_with_a_backlog_is_meant_to_have_less_than_its_weight(slots: int, parts: list[Part]) -> None:
    weight = sum(part.weight for part in parts)
    for part, (whole, _) in zip(parts, targets(slots, parts), strict=True):
        if part.more:
            assert whole >= slots * part.weight // weight


# What each may ask for.


def test_a_queue_alone_asks_for_all_that_is_free() -> None:
    assert demands(100, [Part(weight=5, running=40, waiting=2)]) == [58]
    assert demands(10, [Part(weight=1, running=12)]) == [0]


def test_without_any_backlog_each_asks_for_its_part_of_what_is_free() -> None:
    assert demands(100, [Part(weight=6), Part(weight=3), Part(weight=1)]) == [60, 30, 10]


def test_a_queue_without_a_backlog_leaves_a_little_demand_that_costs_nobody_a_slot() -> None:
    assert demands(100, [Part(weight=6), Part(weight=3), Part(weight=1, more=True)]) == [7, 3, 100]
    assert demands(100, [Part(weight=6), Part(weight=3), Part(weight=1, running=100, more=True)]) == [7, 3, 0]
    assert demands(2, [Part(weight=6), Part(weight=3), Part(weight=1, running=2, more=True)]) == [1, 1, 0]


def test_what_came_of_a_standing_demand_and_waits_in_hand_is_asked_for_no_more() -> None:
    assert demands(100, [Part(weight=6, waiting=5), Part(weight=1, running=100, more=True)]) == [10 - 5, 0]
    assert demands(100, [Part(weight=6, waiting=30), Part(weight=1, running=100, more=True)]) == [0, 0]


def test_a_slot_that_is_free_goes_to_whoever_has_too_little() -> None:
    parts = [Part(weight=1, running=98, more=True), Part(weight=1, running=1, more=True)]
    assert demands(100, parts) == [0, 1]


def test_a_part_of_a_slot_goes_to_whoever_had_least() -> None:
    parts = [
        Part(weight=6, running=1, more=True, used=5.0),
        Part(weight=3, more=True, used=5.1),
        Part(weight=1, more=True, used=4.9),
    ]
    assert demands(2, parts) == [0, 0, 1]


@given(SLOTS, PARTS)
def test_those_with_a_backlog_ask_for_all_that_is_free_and_no_more(slots: int, parts: list[Part]) -> None:
    asked = demands(slots, parts)
    eager = [number for number, part in zip(asked, parts, strict=True) if part.more]
    if eager:
        assert sum(eager) == free(slots, parts)
    else:
        assert sum(asked) >= free(slots, parts)
    assert min(asked) >= 0


@given(SLOTS, PARTS.filter(lambda parts: len(parts) > 1))
def test_never_much_more_is_in_hand_than_there_are_slots(slots: int, parts: list[Part]) -> None:
    asked = demands(slots, parts)
    too_many = sum(asked) - free(slots, parts)
    assert too_many <= slots // 8 + len(parts)


# What can't be had.


def test_a_limit_leaves_the_rest_to_the_others() -> None:
    parts = [Part(weight=8, running=2, more=True, limit=3), Part(weight=1, running=5, more=True)]
    assert targets(20, parts) == [(3, 3), (17, 17)]
    assert demands(20, parts) == [1, 12]
    assert targets(20, [Part(weight=1, more=True, limit=15), Part(weight=1, more=True)]) == [(10, 10), (10, 10)]


@given(SLOTS, PARTS, LIMITS)
def test_no_more_is_asked_for_than_is_free_nor_than_a_limit_and_what_one_leaves_is_for_the_others(
    slots: int, parts: list[Part], limits: list[int | None]
) -> None:
    parts = [msgspec.structs.replace(part, limit=limit) for part, limit in zip(parts, limits, strict=False)]
    assert sum(whole for whole, _ in targets(slots, parts)) <= slots
    asked = demands(slots, parts)
    eager = [(number, part) for number, part in zip(asked, parts, strict=True) if part.more]
    assert sum(number for number, _ in eager) <= free(slots, parts)
    if len(parts) > 1:
        for number, part in eager:
            assert part.limit is None or number <= max(0, part.limit - part.in_hand)
    if any(part.limit is None for _, part in eager):
        assert sum(number for number, _ in eager) == free(slots, parts)


def test_what_was_asked_for_all_the_while_is_a_limit_until_all_that_is_asked_for_comes() -> None:
    part = Part(weight=8, running=2, more=True)
    assert limited(part, asked=14, unanswered=0, slots=20) is None
    assert limited(part, asked=14, unanswered=14, slots=20) == 3
    assert limited(part, asked=14, unanswered=10, slots=20) == 7
    assert limited(part, asked=1, unanswered=1, slots=20) == 3
    limits: list[int | None] = [3]
    while limits[-1] is not None:
        limits.append(limited(msgspec.structs.replace(part, limit=limits[-1]), asked=0, unanswered=0, slots=20))
    assert limits == [3, 4, 6, 9, 13, 19, None]


def test_a_queue_without_a_backlog_has_no_limit() -> None:
    assert limited(Part(weight=1, running=2, limit=3), asked=5, unanswered=5, slots=20) is None


# Who gets the next slot.


def test_nobody_who_waits_means_nobodys_turn() -> None:
    assert turn(10, [Part(weight=1, running=5, more=True), Part(weight=1)]) is None


def test_a_claim_of_a_queue_below_its_part_comes_first() -> None:
    parts = [Part(weight=1, running=99, waiting=1, more=True), Part(weight=1, waiting=1)]
    assert turn(100, parts) == 1


@given(SLOTS, PARTS)
def test_a_free_slot_is_never_kept_from_a_claim_that_waits(slots: int, parts: list[Part]) -> None:
    at = turn(slots, parts)
    assert (at is None) == (not any(part.waiting for part in parts))
    if at is not None:
        assert parts[at].waiting


# What was used.


def test_a_queue_without_a_backlog_saves_nothing_up() -> None:
    parts = [
        Part(weight=2, running=4, more=True, used=100.0),
        Part(weight=1, running=0, used=3.0),
        Part(weight=1, running=1, more=True, used=50.0),
    ]
    assert spent(parts, 10.0) == [120.0, 60.0, 60.0]


# All of it together.


def work(slots: int, weights: list[int], seconds: float, seed: int, spans: list[float]) -> list[float]:
    """Let queues that never run dry work; returns the slot seconds that each had, in per cent of all."""
    chance = Random(seed)
    parts = [Part(weight=weight, more=True) for weight in weights]
    had = [0.0] * len(weights)
    ends: list[tuple[float, int]] = []
    now = 0.0
    while now < seconds:
        for at, number in enumerate(demands(slots, parts)):
            parts[at] = Part(
                weight=parts[at].weight,
                running=parts[at].running + number,
                more=True,
                used=parts[at].used,
            )
            for _ in range(number):
                heapq.heappush(ends, (now + spans[at] * chance.uniform(0.5, 1.5), at))
        end, at = heapq.heappop(ends)
        had = [sum_ + part.running * (end - now) for sum_, part in zip(had, parts, strict=True)]
        used = spent(parts, end - now)
        now = end
        parts = [
            Part(weight=part.weight, running=part.running - (at == one), more=True, used=used[one])
            for one, part in enumerate(parts)
        ]
    return [100 * one / sum(had) for one in had]


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 10, 100])
@pytest.mark.parametrize("spans", [[1.0, 1.0, 1.0], [0.2, 1.0, 5.0], [5.0, 1.0, 0.2]])
def test_under_load_each_has_its_part_of_the_time_whatever_its_handlers_take(slots: int, spans: list[float]) -> None:
    parts = work(slots, [6, 3, 1], 60 + 2000 / slots, slots, spans)
    for part, meant in zip(parts, [60, 30, 10], strict=True):
        assert abs(part - meant) <= 0.05 * meant


@settings(max_examples=25)
@given(st.integers(1, 12), st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 1000))
def test_nobody_starves(slots: int, weights: list[int], seed: int) -> None:
    parts = work(slots, weights, 150.0, seed, [1.0] * len(weights))
    for part, weight in zip(parts, weights, strict=True):
        assert part >= 0.5 * 100 * weight / sum(weights)
