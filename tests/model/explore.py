"""Looking at every state of a small world, the nearest first, and whether all tasks can end from each."""

import time
from collections import deque

import msgspec
from tests.model.configs import Config
from tests.model.model import FAIR, Model
from tests.model.stepping import own_code

__all__ = ["Report", "explore"]


class Report(msgspec.Struct):
    """What came of an exploration.

    Attributes:
        states: how many there are.
        steps: how many lead from one to another.
        depth: how many steps the farthest is away.
        seconds: how long it took.
        broken: what was broken, with the shortest way there.
    """

    states: int = 0
    steps: int = 0
    depth: int = 0
    seconds: float = 0.0
    broken: dict[str, list[str]] = {}


def explore(config: Config, *, limit: int = 1_000_000, first: bool = False) -> Report:
    """Look at every state that can come about, the nearest first.

    Args:
        config: the configuration.
        limit: give up after so many states.
        first: stop at the first thing that is broken.
    """
    began, report = time.monotonic(), Report(broken={})
    model = Model(config)
    with own_code():
        start = model.initial()
        index = {start: 0}
        states, before, depths = [start], [(-1, "")], [0]
        into: list[list[int]] = [[]]
        goals: list[int] = []
        line = deque([0])

        def breaks(text: str, at: int, last: str = "") -> None:
            way = [last] if last else []
            while at > 0:
                at, told = before[at]
                way.append(told)
            report.broken.setdefault(text, way[::-1])

        while line and not (first and report.broken):
            at = line.popleft()
            state = states[at]
            if model.over(state):
                goals.append(at)
                wrong = model.at_end(state)
                if wrong:
                    breaks(wrong, at)
            for step in model.steps(state):
                report.steps += 1
                if step.broken:
                    breaks(step.broken, at, step.text)
                    goals.append(at)  # not followed
                    continue
                to = index.get(step.state)
                if to is None:
                    to = index[step.state] = len(states)
                    states.append(step.state)
                    before.append((at, step.text))
                    depths.append(depths[at] + 1)
                    into.append([])
                    line.append(to)
                if step.kind == FAIR:
                    into[to].append(at)
            if len(states) > limit:
                raise AssertionError(f"more than {limit} states")
        report.states, report.depth = len(states), max(depths)
        if not line:
            stuck = _unreached(into, goals)
            if stuck is not None:
                breaks("L-1: from here no fair way leads to the end of all tasks", stuck)
    report.seconds = time.monotonic() - began
    return report


def _unreached(into: list[list[int]], goals: list[int]) -> int | None:
    reached = bytearray(len(into))
    line = list(goals)
    for goal in goals:
        reached[goal] = 1
    while line:
        for before in into[line.pop()]:
            if not reached[before]:
                reached[before] = 1
                line.append(before)
    return next((at for at, there in enumerate(reached) if not there), None)
