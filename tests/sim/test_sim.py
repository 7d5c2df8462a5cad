"""A thousand worlds in which everything goes wrong: the promises hold, and all tasks end.

`python -m tests.sim --seed N` replays one that fails here, and prints what happened.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.sim.bugs import BUGS
from tests.sim.judge import judge
from tests.sim.scenario import Plan, simulate

SEEDS: Final = 1000
_PART: Final = 50
_FOUND_WITHIN: Final = 150


@pytest.mark.parametrize("first", range(0, SEEDS, _PART))
def test_whatever_goes_wrong_the_promises_hold(first: int) -> None:
    for seed in range(first, first + _PART):
        plan = Plan.of(seed)
        assert judge(plan, simulate(plan)) == [], f"python -m tests.sim --seed {seed}"


@pytest.mark.parametrize("seed", range(0, 200, 50))
def test_tasks_of_a_bridge_that_crashed_run_again_within_a_lease_and_5_seconds(seed: int) -> None:
    for each in range(seed, seed + 50):
        plan = Plan.calm_of(each)
        assert judge(plan, simulate(plan)) == [], f"calm seed {each}"


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_by_the_invariant_that_it_breaks(name: str) -> None:
    bug = BUGS[name]
    with bug.plant():
        for seed in range(_FOUND_WITHIN):
            plan = bug.plan(seed)
            wrong = judge(plan, simulate(plan))
            if wrong:
                break
    assert any(each.startswith(bug.broken) for each in wrong), wrong


def test_a_seed_gives_the_same_history_in_another_process() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "3", "--seeds", "2", "--trace"],
            env={"PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.splitlines()[:-1]
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert len(told[0]) > 100
