"""The waiting items of a queue: schedules outside it (server 2.12 and later), or NAKs with a delay inside it."""

import asyncio
import time
from collections.abc import Callable

import msgspec

from aj_bridge.core.claim import Claim
from aj_bridge.storage.jetstream.acks import ACK, nak_after
from aj_bridge.storage.protocols import Parked
from aj_sdk.errors import RefusedError
from aj_sdk.jetstream import EXPECTED_LAST_SUBJECT_SEQUENCE, STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE
from aj_sdk.store import Store
from aj_sdk.transport import Transport
from aj_sdk.wire.names import H_DUE, H_SILENT, item_subject, queue_stream
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_S

__all__ = ["DelayedItems", "ScheduledItems"]


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
        parked = Parked.of(claim, due_ns, silent)
        sequence = await self._store.park_item(claim.queue, claim.task_id, due_ns, headers=_carried(parked))
        return msgspec.structs.replace(parked, sequence=sequence)

    async def leave(self, claim: Claim, parked: Parked) -> None:  # noqa: ARG002 - the schedule is stored
        """See `Waiting`."""
        await self._transport.publish(claim.token, ACK)

    async def standing(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        return await self._store.standing(queue, task_id) is not None

    async def wake(self, parked: Parked) -> bool:
        """See `Waiting`."""
        return await self._store.wake_item(parked.queue, parked.task_id, parked.sequence, _carried(parked))

    async def wake_task(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        return await self._store.wake_task(queue, task_id)


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
        return Parked.of(claim, due_ns, silent)

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
        return await self._again(parked.queue, parked.task_id, parked.sequence, _carried(parked))

    async def wake_task(self, queue: str, task_id: str) -> bool:
        """See `Waiting`."""
        if await self._store.wake_task(queue, task_id):
            return True
        stored = await self._store.load(task_id)
        if stored is None or stored.record is None or stored.record.state is not TaskState.BLOCKED:
            return False
        try:
            item = await self._store.jetstream.last(queue_stream(queue), item_subject(queue, task_id))
        except RefusedError as err:
            if err.code != STREAM_NOT_FOUND:
                raise
            return False
        if item is None:
            return False
        carried = {H_DUE: item.headers[H_DUE]} if H_DUE in item.headers else {}
        return await self._again(queue, task_id, item.sequence, carried)

    async def _again(self, queue: str, task_id: str, sequence: int, carried: dict[str, str]) -> bool:
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(sequence)} | carried
        try:
            return await self._store.publish_item(queue, task_id, replace=True, headers=headers)
        except RefusedError as err:
            if err.code in WRONG_LAST_SEQUENCE:
                return False
            raise


def _carried(parked: Parked) -> dict[str, str]:
    return _silent(parked) | ({H_DUE: str(parked.not_before_ns)} if parked.not_before_ns else {})


def _silent(parked: Parked) -> dict[str, str]:
    return {H_SILENT: parked.silent} if parked.silent else {}
