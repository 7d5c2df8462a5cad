"""Binding a queue: what its stream, its consumer and the server can do decides how items wait."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aj_bridge.storage.jetstream.items import PULL_S, JetStreamItems
from aj_bridge.storage.jetstream.notices import JetStreamNotices
from aj_bridge.storage.jetstream.pulse import EVERY_S, NatsPulse
from aj_bridge.storage.jetstream.waiting import DelayedItems, ScheduledItems
from aj_sdk.admin import Admin, BoundQueue
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.wire.queue import QueueSettings, ack_wait_ns
from aj_sdk.wire.times import NS_PER_S, format_duration, format_time

__all__ = ["JetStreamStorage", "open_storage"]

_log = logging.getLogger(__name__)

_BEATS_PER_LEASE: Final = 8
_SPANS: Final = ("max_age", "max_runtime", "lease")


class JetStreamStorage:
    """`Storage` of one queue in JetStream; `open_storage` makes it.

    Args:
        jetstream: the API of the account.
        admin: what binds the queue.
        bound: the queue as it was found.
        adopt: see `open_storage`.
        polled: see `open_storage`.
        pull_s: see `open_storage`.
    """

    def __init__(
        self,
        jetstream: JetStream,
        admin: Admin,
        bound: BoundQueue,
        *,
        adopt: bool,
        polled: Callable[[bool], None],
        pull_s: float,
    ) -> None:
        self._admin = admin
        self._adopt = adopt
        self._bound = bound
        self._transport = jetstream.transport
        self.records = Store(jetstream)
        self.edges = self.records.edges
        self.notices = JetStreamNotices(jetstream)
        ack_wait = _ack_wait_ns(bound.settings)
        self.pulse = NatsPulse(self._transport, _beat_every_s(ack_wait))
        self._tell_pause(None)
        self.items = JetStreamItems(
            jetstream, bound.settings, ack_wait, lambda: self.pulse.since, polled, pull_s=pull_s
        )
        self.waiting = self._waiting()

    async def refresh(self) -> None:
        """See `Storage`; a consumer that is gone is made again."""
        bound = await self._admin.look_at_queue(self._bound, adopt=self._adopt)
        parks, paused, self._bound = self._bound.parks, self._bound.paused_until_ns, bound
        self._tell_pause(paused)
        if not bound.pulls:
            self.items.forget_pulls()
        if bound.settings != self.items.settings:
            _log.info(
                "queue %s is configured anew: %s", bound.settings.name, _changes(self.items.settings, bound.settings)
            )
            self.items.settings = bound.settings
            self.items.ack_wait_ns = _ack_wait_ns(bound.settings)
            self.pulse.every_s = _beat_every_s(self.items.ack_wait_ns)
        if bound.parks != parks:
            # The queue was made again, or somebody took its source away.
            self.waiting = self._waiting()

    def _tell_pause(self, before: int | None) -> None:
        name, until = self._bound.settings.name, self._bound.paused_until_ns
        if until is None and before is not None:
            _log.info("queue %s is paused no longer", name)
        elif until is not None and until != before:
            _log.info("queue %s is paused until %s, `ajc queue resume %s` ends it", name, format_time(until), name)

    def _waiting(self) -> ScheduledItems | DelayedItems:
        if self._bound.parks:
            return ScheduledItems(self.records, self._transport)
        return DelayedItems(self.records, self._transport, self._max_deliver)

    def _max_deliver(self) -> int:
        settings = self.items.settings
        return -1 if settings.ours else settings.max_tries


def _ack_wait_ns(settings: QueueSettings) -> int:
    # The Go project's queues know one time only: the run time is the AckWait, the tries are deliveries.
    return ack_wait_ns(settings.lease_ns) if settings.ours else settings.max_run_time_ns


def _beat_every_s(ack_wait: int) -> float:
    # A claim's lease is counted from the last beat before it came: of a short one too much would be gone already.
    return min(EVERY_S, ack_wait / NS_PER_S / _BEATS_PER_LEASE)


def _changes(before: QueueSettings, after: QueueSettings) -> str:
    was, now = before.to_map(), after.to_map()

    def shown(key: str, value: object) -> str:
        return format_duration(value) if key in _SPANS and isinstance(value, int) else str(value)

    return ", ".join(f"{key} {shown(key, was[key])} -> {shown(key, now[key])}" for key in now if now[key] != was[key])


@asynccontextmanager
async def open_storage(
    jetstream: JetStream,
    queue: str,
    *,
    adopt: bool = True,
    polled: Callable[[bool], None] = lambda _: None,
    pull_s: float = PULL_S,
) -> AsyncIterator[JetStreamStorage]:
    """Bind a queue and listen for its items.

    Args:
        jetstream: the API of the account.
        queue: the queue.
        adopt: let the items of a queue that the Go project made wait outside it too, and turn direct get on where
            the Go project made the task store.
        polled: called for each request for work, and with False when one failed.
        pull_s: seconds that a request for work waits on the server.

    Raises:
        QueueNotFoundError: there is no such queue.
        StoreError: the store failed.
    """
    admin = Admin(jetstream, Store(jetstream))
    await admin.ensure_task_store()
    if adopt:
        await admin.enable_direct_get()
    await admin.ensure_dead()
    await admin.ensure_attempts()
    bound = await admin.bind_queue(queue, adopt=adopt)
    storage = JetStreamStorage(jetstream, admin, bound, adopt=adopt, polled=polled, pull_s=pull_s)
    await storage.pulse.beat()
    await storage.items.open()
    beating = asyncio.create_task(storage.pulse.run(), name="pulse")
    try:
        yield storage
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        for claim in await storage.items.close():
            await storage.items.give_back(claim)
