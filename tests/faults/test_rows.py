"""The rows that found most, in short: real processes under faults, and no invariant is broken."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.rows import ROWS
from tests.faults.runner import run

pytestmark = pytest.mark.acceptance

SHORT = {"kill-bridge": 60, "freeze-bridge": 60, "kill-server": 60}
"""The rows, and how many tasks each has here."""


@pytest.mark.parametrize("row", SHORT)
async def test_no_invariant_is_broken(row: str, tmp_path: Path, patience: Callable[[float], float]) -> None:
    outcome = await run(row, 1, SHORT[row], tmp_path / row, slack=patience(1))
    assert outcome.violations == (), "\n".join(outcome.stories)
    assert outcome.tasks == SHORT[row]
    assert outcome.faults > 0
    assert outcome.calls > 0


def test_each_row_is_named_once_and_says_what_it_does() -> None:
    assert all(name == row.name and row.what for name, row in ROWS.items())
