"""The waiting items of a queue: schedules outside it (server 2.12 and later), or NAKs with a delay inside it."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from aj_bridge.core.claim import Claim
from aj_bridge.storage.jetstream.acks import ACK, nak_after
from aj_bridge.storage.protocols import Parked
from aj_sdk.errors import RefusedError
from aj_sdk.jetstream import EXPECTED_LAST_SUBJECT_SEQUENCE, WRONG_LAST_SEQUENCE
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
        parked = Parked(queue=claim.queue, task_id=claim.task_id, due_ns=due_ns, silent=silent)
        sequence = await self._store.park_item(claim.queue, claim.task_id, due_ns, headers=_silent(parked))
        return msgspec.structs.replace(parked, sequence=sequence)

    async def leave(self, claim: Claim, parked: Parked) -> None:  # noqa: ARG002 - the schedule is stored
        """See `Waiting`."""
        await self._transport.publish(claim.token, ACK)

    async def standing(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        return await self._store.standing(queue, task_id) is not None

    async def wake(self, parked: Parked) -> bool:
        """See `Waiting`."""
        return await self._store.wake_item(parked.queue, parked.task_id, parked.sequence, _silent(parked))


class DelayedItems:
    """`Waiting` by NAKs with a delay, where the server has no schedules or the queue is left as it is.

    A NAK uses up one of the consumer's deliveries; when the last one is near, the item is published again, which
    starts its count anew. What is to come back with the item (its due time, a silent owner) then travels in headers.

    Args:
        store: the store.
        transport: the connection.
        max_deliver: the consumer's MaxDeliver now, <= 0 for no limit.
    """

    schedules = False

    def __init__(self, store: Store, transport: Transport, max_deliver: Callable[[], int]) -> None:
        self._store = store
        self._transport = transport
        self._max_deliver = max_deliver

    async def park(self, claim: Claim, due_ns: int, silent: str = "") -> Parked:
        """See `Waiting`."""
        return Parked(
            queue=claim.queue, task_id=claim.task_id, due_ns=due_ns, sequence=claim.item.sequence, silent=silent
        )

    async def leave(self, claim: Claim, parked: Parked) -> None:
        """See `Waiting`."""
        last = 0 < self._max_deliver() <= claim.item.delivery
        if last and claim.due_ns and parked.silent == claim.silent:
            # Published again and at once on its last delivery: MaxDeliver is 1, so it must be held until it is due.
            await asyncio.sleep(max(0, parked.due_ns - time.time_ns()) / NS_PER_S)
            await self._store.publish_item(parked.queue, parked.task_id, replace=True, headers=_silent(parked))
            return
        if last or parked.silent != claim.silent:
            headers = {H_DUE: str(parked.due_ns)} | _silent(parked)
            await self._store.publish_item(parked.queue, parked.task_id, replace=True, headers=headers)
            return
        await self._transport.publish(claim.token, nak_after(parked.due_ns - time.time_ns()))

    async def standing(self, queue: str, task_id: str) -> bool:  # noqa: ARG002 - a NAKed item comes when it is due
        """See `Waiting`."""
        return False

    async def wake(self, parked: Parked) -> bool:
        """See `Waiting`.

        An item that was published again meanwhile, or is done with, is not touched: it has another sequence, or none.
        """
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(parked.sequence)} | _silent(parked)
        try:
            return await self._store.publish_item(parked.queue, parked.task_id, replace=True, headers=headers)
        except RefusedError as err:
            if err.code in WRONG_LAST_SEQUENCE:
                return False
            raise


def _silent(parked: Parked) -> dict[str, str]:
    return {H_SILENT: parked.silent} if parked.silent else {}
