"""Items and edges that stand for nothing: they are found by going round all of them, some in each sweep.

Something is done about one when two sweeps in turn have seen it so: whoever is just about to take it out can do so.
"""

from collections.abc import Callable
from typing import Final

from aj_bridge.core.sweep import Bury, Forget, Leave, judge_edge, judge_item
from aj_bridge.engine.sweep_acts import SweepActs
from aj_bridge.storage.protocols import Survey
from aj_sdk.dependents import StoredEdge

__all__ = ["LeftEdges", "StrayItems", "Suspects"]

_ITEMS: Final = 500
_EDGES: Final = 500
_SUSPECTS: Final = 10_000

Leads = Callable[[], bool]
"""Whether we are still the leader; asked before each act."""


class Suspects:
    """What was seen once, a bounded number of things."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def clear(self, key: tuple[str, ...]) -> None:
        """Take note that all is well with something."""
        self._seen.discard(key)

    def again(self, key: tuple[str, ...]) -> bool:
        """Take note of something; returns whether it had been seen before, and forgets it then."""
        if key in self._seen:
            self._seen.discard(key)
            return True
        if len(self._seen) < _SUSPECTS:
            self._seen.add(key)
        return False


class StrayItems:
    """Goes round the items of all queues.

    Args:
        survey: the storage.
        acts: what can be done.
        leads: whether we still lead.
    """

    def __init__(self, survey: Survey, acts: SweepActs, leads: Leads) -> None:
        self._survey = survey
        self._acts = acts
        self._leads = leads
        self._cursors: dict[str, int] = {}
        self._suspects = Suspects()

    async def look(self, queue: str) -> None:
        """Look at some of a queue's items.

        Raises:
            StoreError: the store failed.
        """
        items = await self._survey.items(queue, self._cursors.get(queue, 1), _ITEMS)
        self._cursors[queue] = items[-1].sequence + 1 if len(items) == _ITEMS else 1
        idle = [item for item in items if item.idle]
        if not idle or not self._leads():
            return
        records = await self._survey.load_many(item.task_id for item in idle)
        for item in idle:
            key = (queue, item.task_id, str(item.sequence))
            stored = records.get(item.task_id)
            verdict = judge_item(item.stranded, stored)
            if isinstance(verdict, Leave):
                self._suspects.clear(key)
            elif self._suspects.again(key) and self._leads():
                if isinstance(verdict, Bury):
                    await self._acts.clear(queue, item.task_id, item.sequence, verdict.detail)
                elif stored is not None:
                    await self._acts.finish(queue, stored, verdict.record, item.sequence)


class LeftEdges:
    """Goes round the edges between tasks.

    Args:
        survey: the storage.
        acts: what can be done.
        leads: whether we still lead.
    """

    def __init__(self, survey: Survey, acts: SweepActs, leads: Leads) -> None:
        self._survey = survey
        self._acts = acts
        self._leads = leads
        self._cursor = 1
        self._suspects = Suspects()

    async def look(self) -> int:
        """Look at some of the edges; returns how many, 0 when the round is over.

        Raises:
            StoreError: the store failed.
        """
        edges = await self._survey.edges(self._cursor, _EDGES)
        over = len(edges) < _EDGES
        self._cursor = 1 if over else edges[-1].sequence + 1
        if edges and self._leads():
            await self._judge(edges)
        return 0 if over else len(edges)

    async def _judge(self, edges: list[StoredEdge]) -> None:
        names = dict.fromkeys(name for stored in edges for name in (stored.edge.child, stored.edge.parent))
        records = await self._survey.load_many(names)
        for stored in edges:
            edge = stored.edge
            key = (edge.parent, edge.child, str(stored.sequence))
            verdict = judge_edge(edge, records.get(edge.child), records.get(edge.parent))
            if isinstance(verdict, Leave):
                self._suspects.clear(key)
            elif self._suspects.again(key) and self._leads():
                if isinstance(verdict, Forget):
                    await self._acts.forget(stored, verdict.why)
                else:
                    await self._acts.inform(stored, verdict.parent, verdict.why)
