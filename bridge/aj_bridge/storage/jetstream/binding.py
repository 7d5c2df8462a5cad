"""Binding a queue: what its stream, its consumer and the server can do decides how items wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aj_bridge.storage.jetstream.items import JetStreamItems
from aj_bridge.storage.jetstream.notices import JetStreamNotices
from aj_bridge.storage.jetstream.pulse import EVERY_S, NatsPulse
from aj_bridge.storage.jetstream.waiting import DelayedItems, ScheduledItems
from aj_sdk.admin import Admin
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.wire.queue import ack_wait_ns
from aj_sdk.wire.times import NS_PER_S

__all__ = ["JetStreamStorage", "open_storage"]

_BEATS_PER_LEASE: Final = 8


class JetStreamStorage:
    """`Storage` of one queue in JetStream."""

    def __init__(
        self,
        pulse: NatsPulse,
        records: Store,
        items: JetStreamItems,
        waiting: ScheduledItems | DelayedItems,
        notices: JetStreamNotices,
    ) -> None:
        self.pulse = pulse
        self.records = records
        self.items = items
        self.waiting = waiting
        self.notices = notices


@asynccontextmanager
async def open_storage(
    jetstream: JetStream, queue: str, *, adopt: bool = True, polled: Callable[[bool], None] = lambda _: None
) -> AsyncIterator[JetStreamStorage]:
    """Bind a queue and listen for its items.

    Args:
        jetstream: the API of the account.
        queue: the queue.
        adopt: let the items of a queue that the Go project made wait outside it too, and turn direct get on where
            the Go project made the task store.
        polled: called for each request for work, and with False when one failed.

    Raises:
        QueueNotFoundError: there is no such queue.
        StoreError: the store failed.
    """
    store = Store(jetstream)
    admin = Admin(jetstream, store)
    await admin.ensure_task_store()
    if adopt:
        await admin.enable_direct_get()
    await admin.ensure_dead()
    bound = await admin.bind_queue(queue, adopt=adopt)
    transport = jetstream.transport
    settings = bound.settings
    # The Go project's queues know one time only: the run time is the AckWait, the tries are deliveries.
    ack_wait = ack_wait_ns(settings.lease_ns) if settings.ours else settings.max_run_time_ns
    max_deliver = -1 if settings.ours else settings.max_tries
    # A claim's lease is counted from the last beat before it came: of a short one too much would be gone already.
    pulse = NatsPulse(transport, min(EVERY_S, ack_wait / NS_PER_S / _BEATS_PER_LEASE))
    await pulse.beat()
    items = JetStreamItems(jetstream, settings, ack_wait, lambda: pulse.since, polled)
    waiting: ScheduledItems | DelayedItems = (
        ScheduledItems(store, transport) if bound.parks else DelayedItems(store, transport, max_deliver)
    )
    await items.open()
    beating = asyncio.create_task(pulse.run(), name="pulse")
    try:
        yield JetStreamStorage(pulse, store, items, waiting, JetStreamNotices(jetstream))
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        for claim in await items.close():
            await items.give_back(claim)
