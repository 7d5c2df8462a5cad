"""The waiting items of a queue: schedules outside it (server 2.12 and later), or NAKs with a delay inside it."""

import asyncio
import time
from typing import Final

from aj_bridge.core.claim import Claim
from aj_bridge.storage.jetstream.acks import ACK, nak_after
from aj_bridge.storage.protocols import Parked
from aj_sdk.store import Store
from aj_sdk.transport import Transport
from aj_sdk.wire.names import H_SILENT
from aj_sdk.wire.times import NS_PER_S

__all__ = ["H_DUE", "DelayedItems", "ScheduledItems"]

H_DUE: Final = "AJ-Due"
"""On an item that was published again because its deliveries ran out: not before, nanoseconds since the epoch."""


class ScheduledItems:
    """`Waiting` by message schedules on the stream of waiting items, which the queue's stream sources.

    Args:
        store: the store.
        transport: the connection.
    """

    schedules = True

    def __init__(self, store: Store, transport: Transport) -> None:
        self._store = store
        self._transport = transport

    async def park(self, claim: Claim, due_ns: int, silent: str = "") -> Parked:
        """See `Waiting`."""
        headers = {H_SILENT: silent} if silent else None
        sequence = await self._store.park_item(claim.queue, claim.task_id, due_ns, headers=headers)
        return Parked(queue=claim.queue, task_id=claim.task_id, due_ns=due_ns, sequence=sequence, silent=silent)

    async def leave(self, claim: Claim, parked: Parked) -> None:  # noqa: ARG002 - the schedule is stored
        """See `Waiting`."""
        await self._transport.publish(claim.token, ACK)

    async def standing(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        return await self._store.standing(queue, task_id) is not None

    async def wake(self, parked: Parked) -> bool:
        """See `Waiting`."""
        return await self._store.wake_item(parked.queue, parked.task_id, parked.sequence)


class DelayedItems:
    """`Waiting` by NAKs with a delay, where the server has no schedules or the queue is left as it is.

    A NAK uses up one of the consumer's deliveries; when the last one is near, the item is published again, which
    starts its count anew. What is to come back with the item (its due time, a silent owner) then travels in headers.

    Args:
        store: the store.
        transport: the connection.
        max_deliver: the consumer's MaxDeliver, <= 0 for no limit.
    """

    schedules = False

    def __init__(self, store: Store, transport: Transport, max_deliver: int) -> None:
        self._store = store
        self._transport = transport
        self._max_deliver = max_deliver

    async def park(self, claim: Claim, due_ns: int, silent: str = "") -> Parked:
        """See `Waiting`."""
        return Parked(queue=claim.queue, task_id=claim.task_id, due_ns=due_ns, silent=silent)

    async def leave(self, claim: Claim, parked: Parked) -> None:
        """See `Waiting`."""
        last = 0 < self._max_deliver <= claim.item.delivery
        if last and claim.due_ns and parked.silent == claim.silent:
            # Published again and at once on its last delivery: MaxDeliver is 1, so it must be held until it is due.
            await asyncio.sleep(max(0, parked.due_ns - time.time_ns()) / NS_PER_S)
            headers = {H_SILENT: parked.silent} if parked.silent else None
            await self._store.publish_item(parked.queue, parked.task_id, replace=True, headers=headers)
            return
        if last or parked.silent != claim.silent:
            headers = {H_DUE: str(parked.due_ns)}
            if parked.silent:
                headers[H_SILENT] = parked.silent
            await self._store.publish_item(parked.queue, parked.task_id, replace=True, headers=headers)
            return
        await self._transport.publish(claim.token, nak_after(parked.due_ns - time.time_ns()))

    async def standing(self, queue: str, task_id: str) -> bool:  # noqa: ARG002 - a NAKed item comes when it is due
        """See `Waiting`."""
        return False

    async def wake(self, parked: Parked) -> bool:
        """See `Waiting`."""
        await self._store.publish_item(parked.queue, parked.task_id, replace=True)
        return True
