"""What happens between tasks that wait for others and those they wait for: edges, wakes, and whose turn it is.

The rules, over any index of edges; the same for a bridge that ends a task and for an administrator who does. An edge
stands before its parent is looked at, so whoever ends that parent later finds it. It is published anew when its
parent ends, which moves it behind those that are open: a child whose first edge is done waits for nothing more.
Wakes are hints: a woken child looks at its parents again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol, TypeVar

import msgspec

from aj_sdk.wire.edge import Edge, Parent
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["Dependents", "EdgeIndex", "StoredEdge", "at_once"]

T = TypeVar("T")

_AT_ONCE: Final = 128


class StoredEdge(msgspec.Struct, frozen=True):
    """An edge, and the sequence at which it stands."""

    edge: Edge
    sequence: int


class EdgeIndex(Protocol):
    """Where the edges stand."""

    async def leaving(self, parent_id: str) -> list[StoredEdge]:
        """List the edges to all that wait for a task; one that was written just now may be missing.

        Raises:
            StoreError: the store failed.
        """

    async def entering(self, child_id: str) -> list[StoredEdge]:
        """List the edges from all that a task waits for, the lowest sequence first; none may be a little old.

        Raises:
            StoreError: the store failed.
        """

    async def between(self, parent_id: str, child_id: str) -> StoredEdge | None:
        """Read one edge as its last writer left it.

        Raises:
            StoreError: the store failed.
        """

    async def first(self, child_id: str) -> StoredEdge | None:
        """Read the edge to a task that was written longest ago, as it is now.

        Raises:
            StoreError: the store failed.
        """

    async def write(self, edge: Edge, expected: int) -> bool:
        """Write an edge in place of the one at a sequence, 0 for none; False when another stands there.

        Raises:
            StoreError: the store failed.
        """

    async def drop(self, child_id: str, parents: Iterable[str]) -> None:
        """Remove the edges to a task.

        Raises:
            StoreError: the store failed.
        """


Wake = Callable[[str, str], Awaitable[bool]]
"""Brings a waiting task back, by queue and id."""

Load = Callable[[Iterable[str]], Awaitable[dict[str, Stored]]]
"""Reads task records."""


class Dependents:
    """The ties between tasks.

    Args:
        edges: where the edges stand.
        wake: brings a waiting task back.
    """

    def __init__(self, edges: EdgeIndex, wake: Wake) -> None:
        self._edges = edges
        self._wake = wake

    async def link(self, child: TaskRecord) -> list[StoredEdge]:
        """Make sure that all edges to a task stand; gives those that stood there before.

        Raises:
            StoreError: the store failed.
        """
        standing = await self._edges.entering(child.id)
        there = {stored.edge.parent for stored in standing}
        await self.tie(child, (parent for parent in child.dependencies if parent not in there))
        return standing

    async def tie(self, child: TaskRecord, parents: Iterable[str]) -> None:
        """Write the edges from some parents; those that stand already stay.

        Raises:
            StoreError: the store failed.
        """
        await at_once(parents, lambda parent: self._edges.write(Edge.between(parent, child), 0))

    async def parents(self, child: TaskRecord, load: Load) -> dict[str, Parent | None]:
        """Look at a task's parents, so that none that ends from now on is missed.

        Args:
            child: the task.
            load: reads records.

        Returns:
            What is known of each; None for one that is missing.

        Raises:
            StoreError: the store failed.
        """
        records = _readable(await load(child.dependencies))
        if _certain(child, records):
            return {parent: records[parent] for parent in child.dependencies if parent in records}
        # The edges stand before the look that counts.
        standing = await self.link(child)
        records |= _readable(await load([parent for parent in child.dependencies if not _ended(records.get(parent))]))
        await self._arrange(child, standing, records)
        found: dict[str, Parent | None] = {parent: records.get(parent) for parent in child.dependencies}
        for parent in [parent for parent, record in found.items() if record is None]:
            # Its record may have been discarded since; its edge was told before that.
            last = await self._edges.between(parent, child.id)
            found[parent] = last.edge if last is not None and last.edge.done else None
        return found

    async def _arrange(self, child: TaskRecord, standing: list[StoredEdge], records: Mapping[str, TaskRecord]) -> None:
        """Write what nobody told the edges: a parent that a Go worker ended, one that was retried since.

        One that is open now stands behind those that are done, and the first edge is what says whether any is open: so
        those that are done are written anew, behind it.
        """
        tied = set(child.dependencies).difference(stored.edge.parent for stored in standing)
        reopened = [stored for stored in standing if stored.edge.done and _runs(records.get(stored.edge.parent))]
        await at_once(
            reopened, lambda stored: self._edges.write(stored.edge.of(records[stored.edge.parent]), stored.sequence)
        )
        opened = bool(reopened) or not all(_ended(records.get(parent)) for parent in tied)
        done = [(stored, _done(stored.edge, records.get(stored.edge.parent))) for stored in standing]
        await at_once(
            [(edge, stored) for stored, edge in done if edge is not None and (opened or edge != stored.edge)],
            lambda pair: self._edges.write(pair[0], pair[1].sequence),
        )

    async def free(self, child_id: str) -> bool:
        """Say whether nothing that a task waits for is open, as far as the edges know.

        Raises:
            StoreError: the store failed.
        """
        first = await self._edges.first(child_id)
        return first is not None and first.edge.done

    async def ended(self, record: TaskRecord) -> None:
        """Do what follows the end of a task: tell those that wait for it, and forget what it waited for.

        May be repeated; done before the task's item is acknowledged and before its record is discarded.

        Raises:
            StoreError: the store failed.
        """
        children = await self._edges.leaving(record.id)
        if children:
            await at_once(children, lambda stored: self._tell(stored, record))
        if record.dependencies:
            await self._edges.drop(record.id, record.dependencies)

    async def removed(self, parent_id: str) -> int:
        """Let those look that wait for a task whose record is gone.

        Returns:
            How many were brought back for that.

        Raises:
            StoreError: the store failed.
        """
        woken = 0

        async def wake(edge: Edge) -> None:
            nonlocal woken
            woken += await self._wake(edge.queue, edge.child)

        await at_once([stored.edge for stored in await self._edges.leaving(parent_id) if not stored.edge.done], wake)
        return woken

    async def _tell(self, stored: StoredEdge, parent: TaskRecord) -> None:
        edge = stored.edge.of(parent)
        if edge != stored.edge:
            # Refused: somebody who looked at the child's parents has told it, or the child is done with.
            await self._edges.write(edge, stored.sequence)
        # One that failed ends its children whatever else they wait for.
        if parent.state is not TaskState.COMPLETE or await self.free(edge.child):
            await self._wake(edge.queue, edge.child)


def _readable(found: Mapping[str, Stored]) -> dict[str, TaskRecord]:
    return {task_id: stored.record for task_id, stored in found.items() if stored.record is not None}


def _certain(child: TaskRecord, records: Mapping[str, TaskRecord]) -> bool:
    """Say whether a look without edges decides: all have ended, or one has failed."""
    if any(record.state.final and record.state is not TaskState.COMPLETE for record in records.values()):
        return len(records) == len(set(child.dependencies))
    return all(_ended(records.get(parent)) for parent in child.dependencies)


def _done(edge: Edge, parent: TaskRecord | None) -> Edge | None:
    """Return the edge as it is when its parent has ended; None where that is not known."""
    if parent is None:
        return edge if edge.done else None
    return edge.of(parent) if parent.state.final else None


def _runs(record: TaskRecord | None) -> bool:
    return record is not None and not record.state.final


def _ended(record: TaskRecord | None) -> bool:
    return record is not None and record.state.final


async def at_once(values: Iterable[T], act: Callable[[T], Awaitable[object]], limit: int = _AT_ONCE) -> None:
    """Do something with each of many values, a bounded number of them at once.

    Raises:
        Exception: what the first that failed raised; no new ones are begun, those under way are given up.
    """
    all_of_them = list(values)
    if len(all_of_them) == 1:
        await act(all_of_them[0])
        return
    left = iter(all_of_them)

    async def work() -> None:
        for value in left:
            await act(value)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(all_of_them))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
