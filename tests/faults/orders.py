"""The tasks of a row, made by chance from a seed: what each has its handler do, and what it waits for."""

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from aj_sdk.spec import TaskSpec

__all__ = [
    "Orders",
    "beside_a_storm",
    "mixed",
    "of_all_sizes",
    "over_their_deadline",
    "poison",
    "slow",
    "with_odd_replies",
]

Orders = Callable[[random.Random, str, int], Sequence[TaskSpec]]
"""Makes tasks of a chance, the prefix of their ids and their number."""

MAX_PAYLOAD: Final = 1 << 20
_HEADROOM: Final = 32 << 10

_KINDS: Final[Sequence[tuple[int, dict[str, Any]]]] = (
    (50, {"do": "ok"}),
    (15, {"do": "ok", "ms": 300}),
    (5, {"do": "ok", "ms": 1500}),
    (10, {"do": "fail"}),
    (8, {"do": "later"}),
    (4, {"do": "terminate"}),
    (4, {"do": "fail", "times": 9}),
    (4, {"do": "twice"}),
)


def _chosen(chance: random.Random, kinds: Sequence[tuple[int, dict[str, Any]]], number: int) -> list[dict[str, Any]]:
    return chance.choices([order for _, order in kinds], [weight for weight, _ in kinds], k=number)


def mixed(chance: random.Random, prefix: str, number: int) -> list[TaskSpec]:
    """Make tasks of all kinds: short and long ones, some that fail, wait, are terminated, and families."""
    specs: list[TaskSpec] = []
    for at, order in enumerate(_chosen(chance, _KINDS, number)):
        parents: set[str] = set()
        if specs and chance.random() < 0.15:
            parents = {chance.choice(specs[-10:]).id or "" for _ in range(chance.randint(1, 2))}
        tries = 3 if order.get("times") else 10
        specs.append(TaskSpec("work", order, id=f"{prefix}-{at}", max_tries=tries, dependencies=sorted(parents)))
    return specs


def slow(chance: random.Random, prefix: str, number: int) -> list[TaskSpec]:
    """Make tasks that take a while, so that each bridge holds some at any time."""
    kinds: Sequence[tuple[int, dict[str, Any]]] = (
        (40, {"do": "ok", "ms": 400}),
        (30, {"do": "ok", "ms": 1500}),
        (10, {"do": "ok"}),
        (10, {"do": "fail", "ms": 600}),
        (10, {"do": "terminate", "ms": 600}),
    )
    orders = _chosen(chance, kinds, number)
    return [TaskSpec("work", order, id=f"{prefix}-{at}") for at, order in enumerate(orders)]


def with_odd_replies(chance: random.Random, prefix: str, number: int) -> list[TaskSpec]:
    """Make tasks whose replies come twice, late, not at all, or with headers that say odd things."""
    kinds: Sequence[tuple[int, dict[str, Any]]] = (
        (40, {"do": "ok"}),
        (15, {"do": "twice"}),
        (5, {"do": "late", "ms": 3500}),
        (5, {"do": "silent"}),
        (10, {"do": "empty_error"}),
        *((5, {"do": "malformed", "which": which}) for which in range(4)),
    )
    orders = _chosen(chance, kinds, number)
    return [TaskSpec("work", order, id=f"{prefix}-{at}", max_tries=4) for at, order in enumerate(orders)]


def over_their_deadline(chance: random.Random, prefix: str, number: int) -> list[TaskSpec]:
    """Make tasks whose handlers go on after their deadline, and tasks that come too late to be started."""
    specs = []
    for at in range(number):
        late = chance.random() < 0.1
        order = {"do": "late", "ms": 4000} if late else {"do": "ok", "ms": chance.choice((5, 400))}
        deadline = timedelta(milliseconds=chance.choice((50, 300, 3000))) if chance.random() < 0.3 else None
        specs.append(TaskSpec("work", order, id=f"{prefix}-{at}", max_tries=2, deadline=deadline))
    return specs


def poison(chance: random.Random, prefix: str, number: int) -> list[TaskSpec]:
    """Make tasks some of which end the process of their handler, beside canaries."""
    specs = [TaskSpec("canary", None, id=f"{prefix}-canary{at}") for at in range(number // 5)]
    for at in range(number - len(specs)):
        order = {"do": "die", "times": chance.choice((1, 9))} if chance.random() < 0.04 else {"do": "ok"}
        specs.append(TaskSpec("work", order, id=f"{prefix}-{at}", max_tries=3))
    chance.shuffle(specs)
    return specs


def beside_a_storm(chance: random.Random, prefix: str, number: int) -> list[TaskSpec]:
    """Make a storm of failing tasks and of blocked ones, and canaries beside it."""
    parent = TaskSpec("work", {"do": "ok", "ms": 8000}, id=f"{prefix}-parent")
    blocked = [
        TaskSpec("work", None, id=f"{prefix}-blocked{at}", dependencies=[f"{prefix}-parent"]) for at in range(40)
    ]
    canaries = [TaskSpec("canary", None, id=f"{prefix}-canary{at}") for at in range(max(20, number // 5))]
    failing = [
        TaskSpec("work", {"do": "fail", "times": 99}, id=f"{prefix}-{at}", max_tries=4)
        for at in range(max(0, number - len(canaries) - 41))
    ]
    rest = [*canaries, *failing]
    chance.shuffle(rest)
    return [parent, *blocked, *rest]


def of_all_sizes(chance: random.Random, prefix: str, number: int) -> list[TaskSpec]:
    """Make tasks whose payloads and results are one byte under, at and over what fits, and small ones beside them."""
    record = 200 + len(prefix)
    payload = (MAX_PAYLOAD - _HEADROOM - record) * 3 // 4
    result = (MAX_PAYLOAD - record - 200) * 3 // 4
    specs = []
    for at in range(number):
        task_id, near = f"{prefix}-{at}", chance.choice((-400, -3, -1, 0, 1, 3, 400))
        kind = chance.random()
        if kind < 0.1:
            specs.append(TaskSpec("work", b'"' + b"x" * (payload + near) + b'"', id=task_id))
        elif kind < 0.2:
            specs.append(TaskSpec("work", {"do": "big", "bytes": result + near}, id=task_id))
        elif kind < 0.25:
            specs.append(TaskSpec("work", {"do": "big", "bytes": MAX_PAYLOAD + min(near, 0)}, id=task_id))
        else:
            specs.append(TaskSpec("work", None, id=task_id))
    return specs
