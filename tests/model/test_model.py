"""Every state of small worlds keeps the invariants, and from each of them all tasks can end; a changed rule is found.

`python -m tests.model` prints states, depth and time, `--deep` looks at bigger worlds,
`--change NAME` at a changed rule.
"""

import pytest
from tests.model.changes import CHANGES
from tests.model.configs import CONFIGS
from tests.model.explore import explore

_SMALL = [name for name, config in CONFIGS.items() if not config.deep]


@pytest.mark.parametrize("name", _SMALL)
def test_every_state_of_a_small_world_keeps_the_invariants_and_can_end_well(name: str) -> None:
    report = explore(CONFIGS[name], limit=20_000)
    assert report.broken == {}
    assert report.states > 10


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_rule_is_found_by_the_invariant_that_it_breaks(name: str) -> None:
    change = CHANGES[name]
    with change.plant():
        report = explore(change.config, first=True, limit=20_000)
    assert any(text.startswith(change.broken) for text in report.broken), report.broken
    assert all(report.broken.values()) or "L-1" in change.broken, "the way there is told"
