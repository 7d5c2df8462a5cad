"""The checker catches each of the planted bugs, in real processes under the row that it shows in."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.planted import BUGS
from tests.faults.runner import run

pytestmark = pytest.mark.acceptance

SEEDS = (1, 2, 3)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_is_caught(name: str, tmp_path: Path, patience: Callable[[float], float]) -> None:
    """Most are caught by the first seed; what a kill meets is left to the machine, so there are two more."""
    bug, caught = BUGS[name], set[str]()
    slack = 1.0 if bug.caught_by & {"L-2", "L-3"} else patience(1)  # no slack, or slowness would hide the bug
    for seed in SEEDS:
        place = tmp_path / str(seed)
        outcome = await run(bug.row, seed, bug.tasks, place, slack=slack, bug=name, settle_s=bug.settle_s)
        caught |= {violation.split()[0] for violation in outcome.violations}
        if caught & bug.caught_by:
            return
    pytest.fail(f"{bug.what}: expected one of {sorted(bug.caught_by)}, found {sorted(caught)}")
