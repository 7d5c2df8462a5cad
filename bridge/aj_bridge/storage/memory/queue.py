"""A work queue in memory: JetStream's work queue stream with one item a task, and its pull consumer."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Protocol

from aj_sdk.errors import QueueFullError
from aj_sdk.wire.item import WorkItem
from aj_sdk.wire.queue import QueueSettings, ack_wait_ns
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Item", "Taker", "WorkQueue"]


class Taker(Protocol):
    """Who wants items."""

    @property
    def room(self) -> int:
        """How many more items it takes."""

    def deliver(self, item: "Item") -> None:
        """Bring it an item."""


class Item:
    """One item in a queue; `timer` runs while it is leased or delayed."""

    __slots__ = ("body", "deliveries", "due_ns", "fired", "sequence", "silent", "task_id", "timer")

    def __init__(self, sequence: int, task_id: str, body: bytes, *, fired: bool, silent: str, due_ns: int) -> None:
        self.sequence = sequence
        self.task_id = task_id
        self.body = body
        self.fired = fired
        self.silent = silent
        self.due_ns = due_ns
        self.deliveries = 0
        self.timer: asyncio.TimerHandle | None = None


class WorkQueue:
    """A work queue stream and its consumer.

    One item a task: a new one takes the place of one that is there, with its lease and its count of deliveries.
    Words about an item mean its sequence, whichever delivery they come from, as in nats-server's consumer.go.

    Attributes:
        expired: called with each item whose lease is over, or that was given back.
        dropped: called with the sequence of each item that went while it was in flight, without an ack.
    """

    def __init__(self, settings: QueueSettings) -> None:
        self.configure(settings)
        self.expired: Callable[[Item], None] = lambda _item: None
        self.dropped: list[Callable[[int], None]] = []
        self._numbers = count(1)
        self._by_task: dict[str, Item] = {}
        self._items: dict[int, Item] = {}
        self._fresh: deque[int] = deque()
        self._again: deque[int] = deque()
        self._in_flight: set[int] = set()
        self._takers: deque[Taker] = deque()
        self._sourced: dict[str, tuple[str, int]] = {}

    def configure(self, settings: QueueSettings) -> None:
        """Change the queue's settings."""
        self.settings = settings
        # As in JetStream: a queue that the Go project made knows one time only, and counts deliveries.
        self.ack_wait_ns = ack_wait_ns(settings.lease_ns) if settings.ours else settings.max_run_time_ns
        self.max_deliver = -1 if settings.ours else settings.max_tries

    def __iter__(self) -> Iterator[str]:
        return iter([item.task_id for item in self._items.values()])

    def __len__(self) -> int:
        return len(self._items)

    @property
    def in_flight(self) -> int:
        """Items handed out and not settled; delayed ones too."""
        return len(self._in_flight)

    @property
    def sourced(self) -> list[str]:
        """The tasks whose fired items wait for room."""
        return list(self._sourced)

    @property
    def backlog(self) -> bool:
        """Whether there are items that could be handed out now."""
        return bool(self._again or (self._fresh and len(self._in_flight) < self.settings.max_concurrent))

    def publish(
        self,
        task_id: str,
        body: bytes | None = None,
        *,
        expected: int | None = None,
        fired: bool = False,
        silent: str = "",
        due_ns: int = 0,
    ) -> bool:
        """Put an item into the queue; False when the one that is there is not the one expected (0 = none).

        Raises:
            QueueFullError: there is no room, and none is made.
        """
        current = self._by_task.get(task_id)
        if expected is not None and expected != (0 if current is None else current.sequence):
            return False
        if current is not None:
            self._drop(current)
        elif 0 < self.settings.max_entries <= len(self._items):
            if not self.settings.discard_old:
                raise QueueFullError(self.settings.name, task_id)
            self._drop(next(iter(self._items.values())))
        body = WorkItem(task_id).to_wire() if body is None else body
        item = Item(next(self._numbers), task_id, body, fired=fired, silent=silent, due_ns=due_ns)
        self._by_task[task_id] = self._items[item.sequence] = item
        self._fresh.append(item.sequence)
        self.serve()
        return True

    def source(self, task_id: str, *, silent: str, due_ns: int) -> None:
        """Bring in an item that a schedule fired; it waits outside while there is no room."""
        self._sourced.pop(task_id, None)
        self._sourced[task_id] = (silent, due_ns)
        self._draw()

    def _draw(self) -> None:
        # In their order, as a stream draws from its source: the first that finds no room holds up the others.
        while self._sourced:
            task_id, (silent, due_ns) = next(iter(self._sourced.items()))
            try:
                self.publish(task_id, fired=True, silent=silent, due_ns=due_ns)
            except QueueFullError:
                return
            del self._sourced[task_id]

    def item_of(self, task_id: str) -> Item | None:
        """Return a task's item, None when there is none."""
        return self._by_task.get(task_id)

    def sequence_of(self, task_id: str) -> int | None:
        """Return the sequence of a task's item, None when there is none."""
        item = self._by_task.get(task_id)
        return None if item is None else item.sequence

    def idle(self, sequence: int) -> bool:
        """Say whether nobody has an item in hand."""
        return sequence not in self._in_flight

    def stranded(self, sequence: int) -> bool:
        """Say whether an item will be handed to nobody any more."""
        return self.idle(sequence) and sequence not in self._fresh and sequence not in self._again

    def purge(self, task_id: str, below: int) -> None:
        """Take a task's item out, whoever has it, if its sequence lies below."""
        item = self._by_task.get(task_id)
        if item is not None and item.sequence < below:
            self._remove(item)
            self._draw()
            self.serve()

    def ack(self, sequence: int) -> None:
        """Take an item out that was handed out."""
        item = self._items.get(sequence)
        if item is not None and item.deliveries:
            self._remove(item)
            self._draw()
            self.serve()

    def renew(self, sequence: int) -> None:
        """Let an item's lease begin anew; one whose lease is over stays up for redelivery."""
        item = self._items.get(sequence)
        if item is not None and item.timer is not None:
            self._lease(item, self.ack_wait_ns)

    def nak(self, sequence: int, delay_ns: int = 0) -> None:
        """Give an item back, now or after a delay, during which it counts as in flight."""
        if sequence not in self._in_flight:
            return
        item = self._items[sequence]
        if sequence in self._again:
            self._again.remove(sequence)
        if delay_ns > 0:
            self._lease(item, delay_ns)
        else:
            self._expire(item)

    def clear(self) -> None:
        """Take all items out, as a purge does."""
        for item in list(self._items.values()):
            self._drop(item)

    def attach(self, taker: Taker) -> None:
        """Begin to hand items to a taker."""
        self._takers.append(taker)
        self.serve()

    def detach(self, taker: Taker) -> None:
        """Hand it no more."""
        if taker in self._takers:
            self._takers.remove(taker)

    def serve(self) -> None:
        """Hand out what is there, to those with room in turn."""
        while any(taker.room for taker in self._takers):
            item = self._next()
            if item is None:
                return
            while not self._takers[0].room:
                self._takers.rotate(-1)
            self._in_flight.add(item.sequence)
            self._lease(item, self.ack_wait_ns)
            taker = self._takers[0]
            self._takers.rotate(-1)
            taker.deliver(item)

    def _next(self) -> Item | None:
        while self._again:
            item = self._items[self._again.popleft()]
            item.deliveries += 1
            if 0 < self.max_deliver < item.deliveries:
                self._in_flight.discard(item.sequence)  # it stays where it is, and nobody is handed it again
                continue
            return item
        if len(self._in_flight) >= self.settings.max_concurrent or not self._fresh:
            return None
        item = self._items[self._fresh.popleft()]
        item.deliveries = 1
        return item

    def _lease(self, item: Item, span_ns: int) -> None:
        if item.timer is not None:
            item.timer.cancel()
        item.timer = asyncio.get_running_loop().call_later(span_ns / NS_PER_S, self._expire, item)

    def _expire(self, item: Item) -> None:
        self.expired(item)
        if item.timer is not None:
            item.timer.cancel()
            item.timer = None
        self._again.append(item.sequence)
        self.serve()

    def _drop(self, item: Item) -> None:
        in_flight = item.sequence in self._in_flight
        self._remove(item)
        if in_flight:
            for callback in self.dropped:
                callback(item.sequence)

    def _remove(self, item: Item) -> None:
        if item.timer is not None:
            item.timer.cancel()
        del self._items[item.sequence]
        del self._by_task[item.task_id]
        self._in_flight.discard(item.sequence)
        for line in (self._fresh, self._again):
            if item.sequence in line:
                line.remove(item.sequence)
