"""Queues that discard old items drop those in flight first: the duty that puts back the items of tasks at work here.

The task goes on either way. Its item is put back so that somebody else takes over when this bridge dies: as a schedule
that is due a lease later, where the queue has them. Back in the full queue at once it would drop another item, perhaps
of a task at work too, and so on in a circle as fast as the server answers. Without schedules it is put there, but not
more often than in rounds. Most tasks end before either.
"""

import asyncio
import logging
from typing import Final

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.held import Held, HeldClaims
from aj_bridge.engine.meter import PUT_BACK, Meter
from aj_bridge.engine.settings import LOOK_EVERY_S
from aj_bridge.storage.protocols import Storage
from aj_sdk.errors import StoreError
from aj_sdk.wire.times import NS_PER_S

__all__ = ["DroppedItems"]

_log = logging.getLogger(__name__)

_ROUNDS_PER_LEASE: Final = 6
_LONGEST_ROUND_S: Final = 5.0
_REMEMBERED: Final = 10_000


class DroppedItems:
    """`Duty`: puts back what one queue dropped and we hold.

    Args:
        storage: the queue.
        held: its claims in hand.
        meter: what is counted.
        clock: the time.
    """

    def __init__(self, storage: Storage, held: HeldClaims, meter: Meter, clock: Clock) -> None:
        self._storage = storage
        self._held = held
        self._meter = meter
        self._clock = clock
        self._dropped: set[int] = set()
        self.name = f"dropped items of queue {storage.items.settings.name}"

    async def run(self) -> None:
        """See `Duty`."""
        items = self._storage.items
        while True:
            if not items.settings.discard_old:
                await asyncio.sleep(LOOK_EVERY_S)  # it may be configured so at any time
                continue
            async with items.watch_dropped(self._on_dropped):
                while items.settings.discard_old:
                    await asyncio.sleep(min(_LONGEST_ROUND_S, items.ack_wait_ns / NS_PER_S / _ROUNDS_PER_LEASE))
                    await self._put_back()

    def _on_dropped(self, sequence: int) -> None:
        if len(self._dropped) < _REMEMBERED:
            self._dropped.add(sequence)

    async def _put_back(self) -> None:
        dropped, self._dropped = self._dropped, set()
        if dropped:
            for held in self._held:
                if held.claim.item.sequence in dropped and held.active is not None:
                    await self._put_back_one(held)

    async def _put_back_one(self, held: Held) -> None:
        claim = held.claim
        try:
            # An item that was taken away with its task, by a cancel or an operator's purge, stays away.
            stored = await self._storage.records.load(claim.task_id)
            if stored is None or stored.sequence != held.sequence:
                return
            if self._storage.waiting.schedules:
                await self._storage.waiting.park(claim, self._clock.now_ns() + self._storage.items.ack_wait_ns)
            elif not await self._storage.items.put_back(claim):
                return
        except StoreError as err:
            self._dropped.add(claim.item.sequence)
            _log.info("putting back an item failed: %s", err, extra={"task_id": claim.task_id})
            return
        self._meter.inc(PUT_BACK, queue=claim.queue)
        _log.info(
            "the queue dropped the item of a task at work, put back",
            extra={"task_id": claim.task_id, "queue": claim.queue},
        )
