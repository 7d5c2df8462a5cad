"""The claims that a bridge holds: until when each is its own, and the renewals that keep it so.

The lease is judged by our own monotonic clock, from moments that lie before the server's: when the last answered sign
of life before a delivery was sent, and when a confirmed renewal was sent.
"""

import asyncio
import logging
import math
from collections.abc import Iterator
from typing import Final

from aj_bridge.core.claim import Claim
from aj_bridge.engine.clock import Clock
from aj_bridge.storage.protocols import Items
from aj_sdk.errors import StoreError
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Held", "HeldClaims"]

_log = logging.getLogger(__name__)

_RENEWALS_PER_LEASE: Final = 3
_LOOKS_PER_LEASE: Final = 12
_SLOWEST_LOOK_S: Final = 1.0


class Held:
    """One claim in hand.

    Attributes:
        claim: the claim.
        lease_until: until when it is surely ours, seconds of the monotonic clock.
        sequence: the record's sequence as we know it.
        active: the record that we saved `active`, None before that.
        invocation: id of the call, empty before there is one.
    """

    __slots__ = ("active", "claim", "invocation", "lease_until", "renewing", "sequence", "stamp")

    def __init__(self, claim: Claim, stamp: Stamp, lease_s: float) -> None:
        self.claim = claim
        self.stamp = stamp
        self.lease_until = claim.received + lease_s
        self.sequence = 0
        self.active: TaskRecord | None = None
        self.invocation = ""
        self.renewing = False


class HeldClaims:
    """All claims in hand of one queue.

    Args:
        owner: id of the bridge.
        items: the queue's items.
        clock: the time.
    """

    def __init__(self, owner: str, items: Items, clock: Clock) -> None:
        self._owner = owner
        self._items = items
        self._clock = clock
        self._held: dict[ItemRef, Held] = {}
        self._renewals: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    @property
    def _lease_s(self) -> float:
        # Not kept: the queue may be configured at any time.
        return self._items.ack_wait_ns / NS_PER_S

    @property
    def _look_s(self) -> float:
        return min(_SLOWEST_LOOK_S, self._lease_s / _LOOKS_PER_LEASE)

    def take(self, claim: Claim) -> Held:
        """Begin to hold a claim."""
        held = Held(claim, Stamp(self._owner, claim.item), self._lease_s)
        self._held[claim.item] = held
        return held

    def drop(self, held: Held) -> None:
        """Hold it no longer."""
        # A queue that was made anew numbers its items from 1 again.
        if self._held.get(held.claim.item) is held:
            del self._held[held.claim.item]

    def forfeit(self, held: Held) -> None:
        """Take a claim for somebody else's: from now on it is not valid, and not renewed."""
        held.lease_until = -math.inf

    def valid(self, held: Held) -> bool:
        """Say whether the claim is surely still ours, and long enough for the next look to renew it.

        A claim may come with its lease nearly over, when we were slow to read it: begun then, it would be lost at work.
        """
        return self._clock.monotonic() < held.lease_until - self._look_s

    def holds(self, task_id: str, item: ItemRef) -> bool:
        """Say whether this very delivery is in hand."""
        held = self._held.get(item)
        return held is not None and held.claim.task_id == task_id

    async def keep(self) -> None:
        """Renew what is in hand, three times a lease, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._look_s)
                renew_below_s = self._lease_s * (1 - 1 / _RENEWALS_PER_LEASE)
                now = self._clock.monotonic()
                for held in self:
                    # A lease that may be over is somebody else's by now, and is not kept from running out.
                    if 0 < held.lease_until - now < renew_below_s and not held.renewing:
                        held.renewing = True
                        renewal = asyncio.create_task(self._renew(held))
                        self._renewals.add(renewal)
                        renewal.add_done_callback(self._renewals.discard)
        finally:
            for renewal in self._renewals:
                renewal.cancel()

    async def _renew(self, held: Held) -> None:
        sent = self._clock.monotonic()
        try:
            await self._items.renew(held.claim)
        except StoreError as err:
            _log.warning("renewing a lease failed: %s", err, extra={"task_id": held.claim.task_id})
        else:
            # The server goes by the item, not by its delivery: confirmed after our lease may have passed, a renewal
            # may have extended that of the next owner.
            if self._clock.monotonic() < held.lease_until:
                held.lease_until = max(held.lease_until, sent + self._lease_s)
        finally:
            held.renewing = False
