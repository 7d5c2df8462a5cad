"""Saving the records of the claims in hand, under compare-and-set, and what a standstill asks for.

Knows what a refusal, a lost answer and a standstill mean for a save; knows no rule about tasks but the table's.
"""

import asyncio
import logging
from typing import Final

from aj_bridge.core.lifecycle import Event, is_edge
from aj_bridge.engine import meter as m
from aj_bridge.engine.held import Held, HeldClaims
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, LeaseOver, Lost
from aj_bridge.engine.peers import ASK_TIMEOUT_S
from aj_sdk.errors import ConflictError, OutcomeUnknownError, StoreError, TaskTooLargeError
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = ["Saves"]

_log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.5
_PAUSES_SAVING_AGAIN_S: Final = (0.1, 0.3, 0.9, 0.0)


class Saves:
    """The saves of one queue's claims.

    Args:
        parts: what the work on the queue is made of.
        held: the claims in hand.
    """

    def __init__(self, parts: Parts, held: HeldClaims) -> None:
        self._parts = parts
        self._held = held
        self._steadying = asyncio.Lock()
        self._standstills = parts.storage.pulse.standstills

    async def save(self, held: Held, before: TaskRecord, record: TaskRecord, event: Event) -> None:
        """Save a record; when it returns, it is saved by us.

        A save before the handler ran needs a valid lease; the outcome of a handler that has run is saved in any case,
        under compare-and-set.

        Raises:
            Lost: somebody else wrote.
            LeaseOver: the lease may have passed.
            TaskTooLargeError: the record does not fit.
        """
        if not is_edge(before.state, event, record.state):
            raise AssertionError(f"{before.state} -> {record.state} on {event} is not in the table")
        ran = held.active is not None
        ttl_s = self._parts.retention.ttl_s(record.state)
        if self.stood_still():
            await self.steady()
        standstills = self._parts.storage.pulse.standstills
        pause = FIRST_PAUSE_S
        while True:
            if not ran:
                self.check_lease(held)
            try:
                held.sequence = await self._parts.storage.records.save(
                    record, expected=held.sequence, stamp=held.stamp, ttl_s=ttl_s
                )
                break
            except (ConflictError, OutcomeUnknownError) as err:
                if await self._was_saved(held, record, err):
                    break
            except TaskTooLargeError:
                raise
            except StoreError as err:
                self._parts.meter.inc(m.UPDATE_ERRORS)
                _log.warning("saving failed, trying again: %s", err, extra={"task_id": record.id})
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)
        # Only while it is `active` may it be saved so again: a standstill must not undo what we have just saved.
        held.active = record if record.state is TaskState.ACTIVE else None
        if held.active is not None and self._parts.storage.pulse.standstills != standstills:
            # Saved before a standstill, and heard of after it: whoever made good for that passed this record over.
            await self._save_again(held)
        self._parts.meter.inc(m.UPDATES, state=record.state)
        await self._parts.storage.notices.state_changed(record, self._parts.clock.now_ns())

    async def _was_saved(self, held: Held, record: TaskRecord, refusal: StoreError) -> bool:
        """Find out what became of a save that was refused or not answered; False means save again."""
        try:
            stored = await self._parts.storage.records.load(record.id)
        except StoreError:
            # The sequence still guards the next attempt, which says more.
            return False
        if stored is not None and stored.stamp == held.stamp:
            if stored.body == record.to_wire():
                held.sequence = stored.sequence
                return True
            if held.active is not None and stored.body == held.active.to_wire():
                # Our own `active`, saved again after a standstill.
                held.sequence = stored.sequence
                return False
        if isinstance(refusal, OutcomeUnknownError) and stored is not None and stored.sequence == held.sequence:
            return False
        raise Lost(stored)

    async def stay_steady(self) -> None:
        """Watch for standstills until cancelled."""
        # Also while all that is in hand waits for its handlers: nobody else would notice that we are back.
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self.stood_still():
                await self.steady()

    async def steady(self) -> None:
        """After a standstill, first save again what others may have taken for abandoned.

        A bridge that stood still or was cut off for longer than an ask's timeout may have been silent to one who asks
        twice; a new sequence tells that one that we are back.
        """
        async with self._steadying:
            if not self.stood_still():
                return
            pulse = self._parts.storage.pulse
            _log.warning("stood still or was cut off, saving %d active tasks again", len(self._held))
            await pulse.beat()
            standstills = pulse.standstills
            await asyncio.gather(*(self._save_again(held) for held in self._held if held.active is not None))
            self._standstills = standstills

    def stood_still(self) -> bool:
        """Say whether we stood still or were cut off since the records in hand were saved."""
        pulse = self._parts.storage.pulse
        return pulse.standstills != self._standstills or self._parts.clock.monotonic() - pulse.since > ASK_TIMEOUT_S

    async def _save_again(self, held: Held) -> None:
        for pause in _PAUSES_SAVING_AGAIN_S:
            record = held.active
            if record is None:
                return  # its outcome was saved meanwhile
            try:
                held.sequence = await self._parts.storage.records.save(record, expected=held.sequence, stamp=held.stamp)
            except ConflictError:
                # Perhaps with ourselves: an earlier attempt without an answer, applied before this standstill.
                if not await self._still_ours(held, record):
                    self._held.forfeit(held)
                    return
            except (StoreError, TaskTooLargeError) as err:
                _log.info("saving again failed: %s", err, extra={"task_id": record.id})
            else:
                return
            await asyncio.sleep(pause)

    async def _still_ours(self, held: Held, record: TaskRecord) -> bool:
        try:
            stored = await self._parts.storage.records.load(record.id)
        except StoreError:
            return True  # the next attempt will tell
        if stored is None or stored.stamp != held.stamp or stored.body != record.to_wire():
            if stored is None or stored.record is None or not stored.record.state.final:
                held.lease_until = 0.0  # somebody took it over: we begin nothing more with it
            return False
        held.sequence = stored.sequence
        return True

    def check_lease(self, held: Held) -> None:
        """Make sure that a claim is surely ours.

        Raises:
            LeaseOver: its lease may have passed.
        """
        if not self._held.valid(held):
            raise LeaseOver
