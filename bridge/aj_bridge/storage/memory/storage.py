"""The protocols of storage over a world in memory."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec

from aj_bridge.core.claim import Claim
from aj_bridge.storage.memory.edges import MemoryEdges
from aj_bridge.storage.memory.link import STANDSTILL_S, Link
from aj_bridge.storage.memory.queue import Item, WorkQueue
from aj_bridge.storage.memory.world import MemoryWorld
from aj_bridge.storage.protocols import Parked
from aj_sdk.ids import new_id
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = ["MemoryStorage"]


class MemoryRecords:
    """`Records` in memory."""

    def __init__(self, world: MemoryWorld, link: Link) -> None:
        self._world = world
        self._link = link

    async def load(self, task_id: str) -> Stored | None:
        """See `Records`."""
        return await self._link.ask("load", task_id, lambda: self._world.get(task_id))

    async def load_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        """See `Records`."""
        wanted = list(dict.fromkeys(task_ids))

        def read() -> dict[str, Stored]:
            found = {task_id: self._world.get(task_id) for task_id in wanted}
            return {task_id: stored for task_id, stored in found.items() if stored is not None}

        return await self._link.ask("load", wanted, read)

    async def save(self, record: TaskRecord, *, expected: int, stamp: Stamp, ttl_s: int | None = None) -> int:
        """See `Records`."""
        body = record.to_wire()
        return await self._link.ask(
            "save", record, lambda: self._world.put(record.id, body, expected=expected, stamp=stamp, ttl_s=ttl_s)
        )

    async def discard(self, task_id: str, sequence: int) -> None:
        """See `Records`."""
        await self._link.ask("discard", task_id, lambda: self._world.remove(task_id, sequence))


class MemoryItems:
    """`Items` in memory."""

    def __init__(self, queue: WorkQueue, link: Link) -> None:
        self._queue = queue
        self._link = link
        self._free = 0
        self._under_way = 0
        self._closed = False
        self._ready: deque[Claim] = deque()
        self._wake = asyncio.Event()
        queue.attach(self)

    @property
    def settings(self) -> QueueSettings:
        """See `Items`."""
        return self._queue.settings

    @property
    def ack_wait_ns(self) -> int:
        """See `Items`."""
        return self._queue.ack_wait_ns

    @property
    def more(self) -> bool:
        """See `Items`."""
        return self._queue.backlog

    @property
    def room(self) -> int:
        """How many more items may be handed out to us."""
        return 0 if self._closed else max(0, self._free - self._under_way - len(self._ready))

    def deliver(self, item: Item) -> None:
        """Bring an item in; the server calls it."""
        self._under_way += 1
        reference = ItemRef(item.sequence, item.deliveries)
        self._link.hand_over(lambda: self._arrive(item, reference))

    def _arrive(self, item: Item, reference: ItemRef) -> None:
        self._under_way -= 1
        if self._closed:
            return  # nobody listens any more
        claim = Claim(
            queue=self.settings.name,
            task_id=item.task_id,
            body=item.body,
            item=reference,
            received=self._link.since,
            token=str(item.sequence),
            fired=item.fired,
            silent=item.silent,
            due_ns=item.due_ns,
        )
        self._ready.append(claim)
        self._wake.set()

    def want(self, free: int) -> None:
        """See `Items`."""
        self._free = free
        self._link.send(self._queue.serve)

    @property
    def asked(self) -> int:
        """See `Items`."""
        return self.room

    async def take_back(self) -> None:
        """See `Items`; nothing stands here but what `want` said last."""
        self._free = len(self._ready) + self._under_way

    async def next(self) -> list[Claim]:
        """See `Items`."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        claims = list(self._ready)
        self._ready.clear()
        self._free -= len(claims)
        return claims

    async def close(self) -> list[Claim]:
        """See `Items`."""
        self._closed = True
        self._queue.detach(self)
        claims = list(self._ready)
        self._ready.clear()
        return claims

    async def ack(self, claim: Claim) -> None:
        """See `Items`."""
        await self._link.tell("ack", claim, lambda: self._queue.ack(claim.item.sequence))

    async def ack_surely(self, claim: Claim) -> None:
        """See `Items`."""
        await self._link.ask("ack", claim, lambda: self._queue.ack(claim.item.sequence), STANDSTILL_S)

    async def renew(self, claim: Claim) -> None:
        """See `Items`."""
        await self._link.ask("renew", claim, lambda: self._queue.renew(claim.item.sequence), STANDSTILL_S)

    async def give_back(self, claim: Claim) -> None:
        """See `Items`."""
        await self._link.tell("give_back", claim, lambda: self._queue.nak(claim.item.sequence))

    async def discard(self, claim: Claim, reason: str) -> None:  # noqa: ARG002 - only JetStream tells it
        """See `Items`."""
        await self._link.tell("discard", claim, lambda: self._queue.ack(claim.item.sequence))

    @contextlib.asynccontextmanager
    async def watch_dropped(self, callback: Callable[[int], None]) -> AsyncIterator[None]:
        """See `Items`."""

        def told(sequence: int) -> None:
            self._link.hand_over(lambda: callback(sequence))

        self._queue.dropped.append(told)
        try:
            yield
        finally:
            self._queue.dropped.remove(told)

    async def put_back(self, claim: Claim) -> bool:
        """See `Items`."""
        return await self._link.ask("put_back", claim, lambda: self._queue.publish(claim.task_id, expected=0))


class MemoryScheduled:
    """`Waiting` by schedules outside the queue."""

    schedules = True

    def __init__(self, world: MemoryWorld, queue: WorkQueue, link: Link) -> None:
        self._world = world
        self._queue = queue
        self._link = link

    async def park(self, claim: Claim, due_ns: int, silent: str = "") -> Parked:
        """See `Waiting`."""
        parked = Parked.of(claim, due_ns, silent)
        sequence = await self._link.ask(
            "park",
            claim,
            lambda: self._world.schedule(claim.queue, claim.task_id, due_ns, silent, parked.not_before_ns),
        )
        return msgspec.structs.replace(parked, sequence=sequence)

    async def leave(self, claim: Claim, parked: Parked) -> None:  # noqa: ARG002 - the schedule is stored
        """See `Waiting`."""
        await self._link.tell("leave", claim, lambda: self._queue.ack(claim.item.sequence))

    async def standing(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        due_ns = await self._link.ask("standing", task_id, lambda: self._world.standing(queue, task_id))
        return due_ns is not None

    async def wake(self, parked: Parked) -> bool:
        """See `Waiting`."""
        return await self._link.ask(
            "wake", parked, lambda: self._world.fire(parked.queue, parked.task_id, parked.sequence)
        )

    async def wake_task(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        return await self._link.ask("wake", task_id, lambda: self._world.wake(queue, task_id))


class MemoryDelayed:
    """`Waiting` inside the queue, by giving items back with a delay."""

    schedules = False

    def __init__(self, world: MemoryWorld, queue: WorkQueue, link: Link) -> None:
        self._world = world
        self._queue = queue
        self._link = link

    async def park(self, claim: Claim, due_ns: int, silent: str = "") -> Parked:
        """See `Waiting`."""
        return Parked.of(claim, due_ns, silent)

    async def leave(self, claim: Claim, parked: Parked) -> None:
        """See `Waiting`."""
        last = 0 < self._queue.max_deliver <= claim.item.delivery
        due_ns = parked.due_ns
        if last and claim.due_ns and parked.silent == claim.silent:
            # Published again and at once on its last delivery: only whoever holds it can keep it until it is due.
            await asyncio.sleep(max(0, parked.due_ns - self._world.now_ns()) / NS_PER_S)
            due_ns = 0
        if last or parked.silent != claim.silent:
            await self._link.ask(
                "leave",
                claim,
                lambda: self._queue.publish(claim.task_id, silent=parked.silent, due_ns=due_ns),
            )
            return
        delay_ns = due_ns - self._world.now_ns()
        await self._link.tell("leave", claim, lambda: self._queue.nak(claim.item.sequence, delay_ns))

    async def standing(self, queue: str, task_id: str) -> bool:  # noqa: ARG002 - a delayed item comes when it is due
        """See `Waiting`."""
        return False

    async def wake(self, parked: Parked) -> bool:
        """See `Waiting`."""
        return await self._link.ask(
            "wake",
            parked,
            lambda: self._queue.publish(
                parked.task_id, expected=parked.sequence, silent=parked.silent, due_ns=parked.not_before_ns
            ),
        )

    async def wake_task(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        return await self._link.ask("wake", task_id, lambda: self._world.wake_inside(queue, task_id))


class MemoryNotices:
    """`Notices` in memory."""

    def __init__(self, world: MemoryWorld, link: Link) -> None:
        self._world = world
        self._link = link

    async def state_changed(self, record: TaskRecord, now_ns: int) -> None:
        """See `Notices`."""
        event = TaskStateEvent.of(record, new_id(), now_ns)
        await self._link.tell("event", record, lambda: self._world.told(event))

    async def attempted(self, attempt: Attempt) -> None:
        """See `Notices`."""
        await self._link.ask("attempted", attempt, lambda: self._world.attempted(attempt))

    async def bury(self, letter: DeadLetter) -> bool:
        """See `Notices`."""
        return await self._link.ask("bury", letter, lambda: self._world.bury(letter))


class MemoryPulse:
    """`Pulse` of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def since(self) -> float:
        """See `Pulse`."""
        return self._link.since

    @property
    def standstills(self) -> int:
        """See `Pulse`."""
        return self._link.standstills

    async def beat(self) -> None:
        """See `Pulse`."""
        await self._link.mended()


class MemoryStorage:
    """`Storage` of one queue in memory, as one bridge sees it.

    Args:
        world: what the bridges share.
        queue: the queue.
        schedules: whether items wait outside the queue.
        link: the way there; None for one of its own.

    Raises:
        QueueNotFoundError: there is no such queue.
    """

    def __init__(self, world: MemoryWorld, queue: str, *, schedules: bool = True, link: Link | None = None) -> None:
        self.link = link or Link()
        self._world = world
        self._queue = queue
        found = world.queue(queue)
        self.pulse = MemoryPulse(self.link)
        self.records = MemoryRecords(world, self.link)
        self.edges = MemoryEdges(world.edges, self.link)
        self.items = MemoryItems(found, self.link)
        self.waiting: MemoryScheduled | MemoryDelayed = (
            MemoryScheduled(world, found, self.link) if schedules else MemoryDelayed(world, found, self.link)
        )
        self.notices = MemoryNotices(world, self.link)

    async def refresh(self) -> None:
        """See `Storage`; the queue's settings are read where they stand."""
        await self.link.ask("refresh", self._queue, lambda: self._world.queue(self._queue))
