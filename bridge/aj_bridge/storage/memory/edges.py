"""The edges between tasks, in memory: a stream with one message a subject, and one bridge's way to it."""

from collections.abc import Iterable
from itertools import count

from aj_bridge.storage.memory.link import Link
from aj_sdk.dependents import StoredEdge
from aj_sdk.wire.edge import Edge

__all__ = ["EdgeTable", "MemoryEdges"]


class EdgeTable:
    """All edges of a world, the one written longest ago first."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._edges: dict[tuple[str, str], StoredEdge] = {}

    def __len__(self) -> int:
        return len(self._edges)

    def leaving(self, parent_id: str) -> list[StoredEdge]:
        """List the edges to all that wait for a task."""
        return [stored for stored in self._edges.values() if stored.edge.parent == parent_id]

    def entering(self, child_id: str) -> list[StoredEdge]:
        """List the edges from all that a task waits for."""
        return [stored for stored in self._edges.values() if stored.edge.child == child_id]

    def some(self, start: int, limit: int) -> list[StoredEdge]:
        """List some of all edges, from a sequence on."""
        return [stored for stored in self._edges.values() if stored.sequence >= start][:limit]

    def drop_standing(self, stored: StoredEdge) -> None:
        """Remove an edge, if it still stands at its sequence."""
        key = (stored.edge.parent, stored.edge.child)
        standing = self._edges.get(key)
        if standing is not None and standing.sequence == stored.sequence:
            del self._edges[key]

    def between(self, parent_id: str, child_id: str) -> StoredEdge | None:
        """Read one edge."""
        return self._edges.get((parent_id, child_id))

    def write(self, edge: Edge, expected: int) -> bool:
        """Write an edge, if the one that stands is the one expected; it then stands last."""
        key = (edge.parent, edge.child)
        standing = self._edges.get(key)
        if expected != (0 if standing is None else standing.sequence):
            return False
        self._edges.pop(key, None)
        self._edges[key] = StoredEdge(edge, next(self._numbers))
        return True

    def drop(self, child_id: str, parents: Iterable[str]) -> None:
        """Remove the edges to a task."""
        for parent_id in parents:
            self._edges.pop((parent_id, child_id), None)


class MemoryEdges:
    """`EdgeIndex` in memory."""

    def __init__(self, table: EdgeTable, link: Link) -> None:
        self._table = table
        self._link = link

    async def leaving(self, parent_id: str) -> list[StoredEdge]:
        """See `EdgeIndex`."""
        if not self._table:
            return []  # as where there is no stream: nobody is asked
        return await self._link.ask("leaving", parent_id, lambda: self._table.leaving(parent_id))

    async def entering(self, child_id: str) -> list[StoredEdge]:
        """See `EdgeIndex`."""
        return await self._link.ask("entering", child_id, lambda: self._table.entering(child_id))

    async def between(self, parent_id: str, child_id: str) -> StoredEdge | None:
        """See `EdgeIndex`."""
        return await self._link.ask("between", child_id, lambda: self._table.between(parent_id, child_id))

    async def first(self, child_id: str) -> StoredEdge | None:
        """See `EdgeIndex`."""
        return await self._link.ask("first", child_id, lambda: next(iter(self._table.entering(child_id)), None))

    async def write(self, edge: Edge, expected: int) -> bool:
        """See `EdgeIndex`."""
        return await self._link.ask("write", edge, lambda: self._table.write(edge, expected))

    async def drop(self, child_id: str, parents: Iterable[str]) -> None:
        """See `EdgeIndex`."""
        wanted = list(parents)
        await self._link.ask("drop", child_id, lambda: self._table.drop(child_id, wanted))
