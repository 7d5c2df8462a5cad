"""How the queues of a bridge share its slots, by weight.

A queue's part is of slot time: while all have work, each holds slots in proportion to its weight, and what one does not
use goes to the others in the same proportion. Where that makes no whole number of slots, the rest goes in turn to
whoever had least for its weight.

A request for work is only a demand. A queue without a backlog leaves a small one standing, which costs nobody a slot:
what comes of it waits in hand for the next slot that is free.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = ["Part", "demands", "limited", "spent", "targets", "turn"]

_STANDING: Final = 8
"""A queue without a backlog asks for one in so many of the slots that are its part."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """How one queue stands.

    Attributes:
        weight: of its part, at least 1.
        running: slots that its claims take.
        waiting: its claims in hand that have no slot yet.
        more: whether more items may be there than came: it has a backlog, or that is not known.
        used: slot seconds that it had, divided by its weight.
        limit: more than so many can't be had in hand now, whatever backlog there is; None for no limit that is known.
    """

    weight: int
    running: int = 0
    waiting: int = 0
    more: bool = False
    used: float = 0.0
    limit: int | None = None

    @property
    def in_hand(self) -> int:
        """Its claims in hand."""
        return self.running + self.waiting

    @property
    def wants(self) -> int | None:
        """How many it would have in hand at most, None for as many as it can get."""
        return self.limit if self.more else self.in_hand


def targets(slots: int, parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Say how many slots each queue should have: the whole slots, and those with the one it has a fraction of.

    A queue without a backlog wants no more than it has in hand, one with a limit no more than that.
    """
    found = [(0, 0)] * len(parts)
    open_ = list(range(len(parts)))
    while open_:
        weight = sum(parts[at].weight for at in open_)
        content = [at for at in open_ if _content(parts[at], slots, weight)]
        if not content:
            for at in open_:
                whole, rest = divmod(slots * parts[at].weight, weight)
                found[at] = (whole, whole + (rest > 0))
            break
        for at in content:
            wants = parts[at].wants or 0
            found[at] = (wants, wants)
        slots -= sum(found[at][0] for at in content)
        open_ = [at for at in open_ if at not in content]
    return found


def _content(part: Part, slots: int, weight: int) -> bool:
    """Say whether a queue wants no more than its part of these slots."""
    return part.wants is not None and part.wants * weight <= slots * part.weight


def limited(part: Part, asked: int, unanswered: int, slots: int) -> int | None:
    """Say what limit a queue has after a while in which it was asked for items.

    What was asked for all the while and did not come is not to be had now (MaxAckPending, a pause), and its slots are
    for the others. When all that was asked for comes, a limit is raised step by step, because it may still be there.

    Args:
        part: how the queue stands, with the limit that it had.
        asked: how many items were asked for and have not come.
        unanswered: the fewest that this was in the while.
        slots: how many there are.
    """
    if not part.more:
        return None
    if unanswered:
        return part.in_hand + max(0, asked - unanswered) + 1
    if part.limit is None:
        return None
    raised = part.limit + max(1, part.limit // 2)
    return raised if raised < slots else None


def demands(slots: int, parts: Sequence[Part]) -> list[int]:
    """Say for how many items each queue may have asked by now.

    Those with a backlog share the free slots, and no more than these; when nobody has one, all do. A queue without a
    backlog may besides leave a small demand standing, as long as little of what came of it waits in hand.
    """
    free = max(0, slots - sum(part.in_hand for part in parts))
    if len(parts) == 1:
        return [free]
    eager = any(part.more for part in parts)
    given = _given(
        free, slots, parts if eager else [msgspec.structs.replace(part, more=True, limit=None) for part in parts]
    )
    weight = sum(part.weight for part in parts)
    for at, part in enumerate(parts):
        if not part.more:
            standing = max(1, slots * part.weight // (_STANDING * weight)) if slots else 0
            given[at] = max(0 if eager else given[at], standing - part.waiting, 0)
    return given


def _given(free: int, slots: int, parts: Sequence[Part]) -> list[int]:
    """Deal free slots to those that have less than they should."""
    goals = targets(slots, parts)
    short = [max(0, whole - part.in_hand) if part.more else 0 for (whole, _), part in zip(goals, parts, strict=True)]
    missing = sum(short)
    if missing <= free:
        given = short
        in_turn = [at for at, part in enumerate(parts) if part.more and part.in_hand + given[at] < goals[at][1]]
        in_turn.sort(key=lambda at: parts[at].used)
    else:
        given = [part * free // missing for part in short]
        in_turn = [at for at, part in enumerate(short) if given[at] < part]
        in_turn.sort(key=lambda at: (parts[at].in_hand + given[at]) / parts[at].weight)
    for at in in_turn[: free - sum(given)]:
        given[at] += 1
    return given


def turn(slots: int, parts: Sequence[Part]) -> int | None:
    """Say which queue's waiting claim gets the next slot, None when none waits."""
    goals = targets(slots, parts)

    def rank(at: int) -> tuple[int, float, bool, float]:
        part, (whole, some) = parts[at], goals[at]
        level = part.running / part.weight
        if part.running < whole:
            return 0, level, part.more, level
        return (1 if part.running < some else 2), part.used, part.more, level

    return min((at for at, part in enumerate(parts) if part.waiting), key=rank, default=None)


def spent(parts: Sequence[Part], seconds: float) -> list[float]:
    """Return what each queue has used after so many seconds more.

    One without a backlog saves nothing up: it counts as having had what the one with a backlog had that had least.
    """
    used = [part.used + part.running * seconds / part.weight for part in parts]
    least = min((one for one, part in zip(used, parts, strict=True) if part.more), default=0.0)
    return [one if part.more else max(one, least) for one, part in zip(used, parts, strict=True)]
