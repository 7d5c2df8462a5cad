"""What a sweeper asks of the world in memory."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

from aj_bridge.core.sweep import Whereabouts
from aj_bridge.storage.memory.edges import MemoryEdges
from aj_bridge.storage.memory.link import Link
from aj_bridge.storage.memory.storage import MemoryNotices
from aj_bridge.storage.memory.world import MemoryWorld
from aj_bridge.storage.protocols import SweptItem
from aj_sdk.dependents import Dependents, StoredEdge
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["MemorySurvey"]


class MemorySurvey:
    """`Survey` in memory.

    Args:
        world: what the bridges share.
        link: the way there; None for one of its own.
    """

    def __init__(self, world: MemoryWorld, link: Link | None = None) -> None:
        self._world = world
        self.link = link or Link()
        self.notices = MemoryNotices(world, self.link)
        dependents = Dependents(MemoryEdges(world.edges, self.link), self._wake)
        self.ended = dependents.ended
        self.removed = dependents.removed

    async def last_sequence(self) -> int:
        """See `Survey`."""
        return await self.link.ask("last_sequence", None, lambda: self._world.last_sequence)

    async def scan(self, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """See `Survey`."""
        for stored in await self.link.ask("scan", start, lambda: self._world.since(start)):
            if stored.sequence <= end:
                yield stored

    async def load_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        """See `Survey`."""
        wanted = list(task_ids)

        def read() -> dict[str, Stored]:
            found = ((task_id, self._world.get(task_id)) for task_id in wanted)
            return {task_id: stored for task_id, stored in found if stored is not None}

        return await self.link.ask("load", wanted, read)

    async def queues(self) -> Mapping[str, QueueSettings]:
        """See `Survey`."""
        return await self.link.ask("queues", None, self._world.settings)

    async def locate(self, queue: str, task_ids: Sequence[str]) -> dict[str, Whereabouts]:
        """See `Survey`."""

        def look() -> dict[str, Whereabouts]:
            found = self._world.queue(queue)
            return {
                task_id: Whereabouts(
                    item=(sequence := found.sequence_of(task_id) or 0),
                    stranded=sequence > 0 and found.stranded(sequence),
                    waits=self._world.standing(queue, task_id) is not None,
                )
                for task_id in task_ids
            }

        return await self.link.ask("locate", task_ids, look)

    async def items(self, queue: str, start: int, limit: int) -> list[SweptItem]:
        """See `Survey`."""

        def look() -> list[SweptItem]:
            found = self._world.queue(queue)
            placed = [(found.sequence_of(task_id) or 0, task_id) for task_id in found]
            return [
                SweptItem(task_id, sequence, found.idle(sequence), found.stranded(sequence))
                for sequence, task_id in sorted(placed)
                if sequence >= start
            ][:limit]

        return await self.link.ask("items", queue, look)

    async def publish(self, queue: str, task_id: str) -> bool:
        """See `Survey`."""
        return await self.link.ask("publish", task_id, lambda: self._world.publish(queue, task_id))

    async def take_out(self, queue: str, task_id: str, sequence: int) -> None:
        """See `Survey`."""

        def take() -> None:
            found = self._world.queue(queue)
            if found.sequence_of(task_id) == sequence:
                found.purge(task_id, sequence + 1)

        await self.link.ask("take_out", task_id, take)

    async def save(self, record: TaskRecord, expected: int) -> int:
        """See `Survey`."""
        return await self.link.ask(
            "save", record, lambda: self._world.put(record.id, record.to_wire(), expected=expected)
        )

    async def edges(self, start: int, limit: int) -> list[StoredEdge]:
        """See `Survey`."""
        return await self.link.ask("edges", start, lambda: self._world.edges.some(start, limit))

    async def drop_edge(self, edge: StoredEdge) -> None:
        """See `Survey`."""
        await self.link.ask("drop_edge", edge, lambda: self._world.edges.drop_standing(edge))

    async def _wake(self, queue: str, task_id: str) -> bool:
        return await self.link.ask("wake", task_id, lambda: self._world.wake_inside(queue, task_id))
