"""The planted bugs: each is put around one named seam of the real program, which has no switch for any of them."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["BUGS", "Bug"]


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug that the checker must catch.

    Attributes:
        what: what is wrong.
        row: the row of faults under which it shows.
        plant: puts it into this process.
        caught_by: the invariants of which at least one must be violated.
    """

    what: str
    row: str
    plant: Callable[[], None]
    caught_by: frozenset[str]


BUGS: dict[str, Bug] = {}
