"""What a case is: a name, a level, a paragraph of the protocol, and a check. Cases are values; `runner` runs them."""

import enum
import fnmatch
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import msgspec

from aj_bridge.faces.conformance.stand import Stand

__all__ = ["PAGE", "Broken", "Case", "Check", "Group", "Level", "chosen"]

PAGE: Final = "docs/protocol.md"

Check: TypeAlias = Callable[[Stand], Awaitable[None]]
"""Asks what it has to ask; raises `Broken` where the answer is not what the protocol says."""


class Level(enum.StrEnum):
    """How much a case counts: only a `must` that fails makes the run fail."""

    MUST = "must"
    SHOULD = "should"
    MAY = "may"


class Broken(Exception):  # noqa: N818 - a verdict on a responder, not an error of ours
    """A responder did not do what a case asks for.

    Args:
        expected: what the protocol says.
        came: what came instead.
    """

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(expected, came)
        self.expected = expected
        self.came = came


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One case.

    Attributes:
        name: lower case, words joined by `-`.
        level: how much it counts.
        anchor: the heading of the protocol's page that it tests.
        says: what a responder does that passes, a sentence.
        check: tries it.
    """

    name: str
    level: Level
    anchor: str
    says: str
    check: Check

    @property
    def link(self) -> str:
        """Where the protocol says so."""
        return f"{PAGE}#{self.anchor}"


class Group:
    """The cases of one file, in their order."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def case(self, name: str, level: Level, anchor: str, says: str) -> Callable[[Check], Check]:
        """Make a decorator that makes a case of a check."""

        def register(check: Check) -> Check:
            self.cases.append(Case(name=name, level=level, anchor=anchor, says=says, check=check))
            return check

        return register


def chosen(cases: Iterable[Case], patterns: Iterable[str]) -> list[Case]:
    """Return the cases whose names match one of the patterns; all where there is none."""
    wanted = tuple(patterns)
    return [case for case in cases if not wanted or any(fnmatch.fnmatchcase(case.name, each) for each in wanted)]
