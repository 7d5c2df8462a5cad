"""Changes of the rules, each of which the model must find: what is changed, where it shows, what it breaks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final
from unittest.mock import patch

import msgspec
from tests.model import stepping
from tests.model.configs import CONFIGS, Config
from tests.sim.bugs import BUGS

from aj_bridge.core.sweep import Leave
from aj_bridge.engine.saves import Saves

__all__ = ["CHANGES", "Change"]


class Change(msgspec.Struct, frozen=True):
    """A change of a rule.

    Attributes:
        about: what is different.
        config: where it shows.
        broken: what it breaks.
        plant: while its context is open, it is so.
    """

    about: str
    config: Config
    broken: tuple[str, ...]
    plant: Callable[[], AbstractContextManager[object]]


def _of_the_simulator(name: str, config: Config, *broken: str) -> Change:
    bug = BUGS[name]
    return Change(bug.about, config, broken, bug.plant)


def _refusals_ignored() -> AbstractContextManager[object]:
    async def wrong(*_: object) -> bool:
        return True

    return patch.object(Saves, "_was_saved", wrong)


_STALL: Final = Config(about="a task, 2 tries, 1 stall", faults=1, kinds=("stall",), fails=False)
_AGAIN: Final = Config(about="a task, 2 tries, its item published again", acts=1, users=("publish",), fails=False)
CHANGES: Final[dict[str, Change]] = {
    "ack before save": _of_the_simulator("ack before save", CONFIGS["one"], "C-7"),
    "ack before schedule": _of_the_simulator("ack before schedule", CONFIGS["one"], "C-7"),
    "tries after the call": _of_the_simulator("tries after the call", CONFIGS["one"], "I-7"),
    "final states run": _of_the_simulator("final states run", CONFIGS["stall"], "I-2"),
    "no rule 0": _of_the_simulator("no rule 0", _STALL, "I-8", "I-3"),
    "owner not asked": _of_the_simulator("owner not asked", _AGAIN, "I-8"),
    "parents unchecked": _of_the_simulator("parents unchecked", CONFIGS["pair"], "I-9"),
    "refusals ignored": Change(
        "a save that is refused counts as done",
        CONFIGS["stall"],
        ("I-3", "I-13", "I-8", "C-7"),
        _refusals_ignored,
    ),
    "no sweeper": Change(
        "the sweeper leaves everything alone",
        CONFIGS["pair-dies"],
        ("L-1",),
        lambda: patch.object(stepping, "judge_task", lambda _seen: Leave()),
    ),
}
