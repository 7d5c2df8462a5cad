"""Binding a queue: what its stream, its consumer and the server can do decides how items wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aj_bridge.storage.jetstream.items import JetStreamItems
from aj_bridge.storage.jetstream.notices import JetStreamNotices
from aj_bridge.storage.jetstream.pulse import NatsPulse
from aj_bridge.storage.jetstream.waiting import DelayedItems, ScheduledItems
from aj_sdk.admin import Admin
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store

__all__ = ["JetStreamStorage", "open_storage"]


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
async def open_storage(jetstream: JetStream, queue: str, *, adopt: bool = True) -> AsyncIterator[JetStreamStorage]:
    """Bind a queue and listen for its items.

    Args:
        jetstream: the API of the account.
        queue: the queue.
        adopt: let the items of a queue that the Go project made wait outside it too, and turn direct get on where
            the Go project made the task store.

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
    pulse = NatsPulse(transport)
    await pulse.beat()
    items = JetStreamItems(jetstream, bound.settings, bound.ack_wait_ns, lambda: pulse.since)
    waiting: ScheduledItems | DelayedItems = (
        ScheduledItems(store, transport) if bound.parks else DelayedItems(store, transport, bound.max_deliver)
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
