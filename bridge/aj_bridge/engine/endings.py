"""What follows the end of a task, or of an item that can't be processed: dead letters, and whatever hangs on it."""

import logging

from aj_bridge.core.decision import dead_reason
from aj_bridge.core.deliver import NOT_FOUND
from aj_bridge.engine import meter as m
from aj_bridge.engine.held import Held, HeldClaims
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.patience import patiently, quietly
from aj_sdk.dependents import Dependents
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["Endings"]

_log = logging.getLogger(__name__)


class Endings:
    """The ends of one queue's tasks.

    Args:
        parts: what the work on the queue is made of.
        held: the claims in hand.
        dependents: the ties between tasks.
    """

    def __init__(self, parts: Parts, held: HeldClaims, dependents: Dependents) -> None:
        self._parts = parts
        self._held = held
        self._dependents = dependents
        self._queue = parts.storage.items.settings.name

    async def after_final(self, held: Held, record: TaskRecord, buried: TaskRecord) -> None:
        """Do what follows a final state, before the item is acknowledged.

        Everything here may be repeated: a crash before the acknowledgement brings the item, and it, again.

        Args:
            held: the claim.
            record: the record as it is saved.
            buried: the record that a dead letter keeps.
        """
        # Before the acknowledgement and a discard: a parent without a record and without a word of its end is missing.
        await patiently(lambda: self._dependents.ended(record), lambda: self._held.valid(held))
        reason = dead_reason(record.state)
        if reason is not None:
            await self._bury(held, reason, record.last_err, record, buried.to_wire())

    async def leave(self, held: Held, record: TaskRecord, sequence: int) -> None:
        """Acknowledge the item of a task that has ended and is done with; discard the record where that is wanted.

        In this order: an item that came again without a record would be quarantined. So the acknowledgement must have
        arrived; when that is not sure, the record stays.

        Args:
            held: the claim.
            record: the record as it is saved.
            sequence: where.
        """
        items = self._parts.storage.items
        if not self._parts.retention.discards(record.state):
            await items.ack(held.claim)
            return
        await items.ack_surely(held.claim)
        await quietly(self._parts.storage.records.discard(record.id, sequence))

    async def quarantine(self, held: Held, stored: Stored | None, reason: str) -> None:
        """Store a dead letter for an item that can't be processed, then take the item out."""
        meter = self._parts.meter
        meter.inc(m.TASK_NOT_FOUND if reason == NOT_FOUND else m.ITEM_CORRUPT, queue=self._queue)
        meter.inc(m.QUARANTINED, queue=self._queue)
        _log.warning("quarantined an item: %s", reason, extra={"task_id": held.claim.task_id})
        record = None if stored is None else stored.record
        body = held.claim.body if stored is None or record is not None else stored.body
        await self._bury(
            held, "quarantined", reason, record, body, sequence=None if stored is None or record else stored.sequence
        )
        await self._parts.storage.items.discard(held.claim, reason)

    async def _bury(
        self,
        held: Held,
        reason: str,
        detail: str,
        record: TaskRecord | None,
        body: bytes,
        *,
        sequence: int | None = None,
    ) -> None:
        letter = DeadLetter(
            reason=reason,
            detail=detail,
            queue=held.claim.queue,
            task_id=held.claim.task_id,
            task_type="" if record is None else record.type,
            tries=0 if record is None else record.tries,
            body=body,
            at_ns=self._parts.clock.now_ns(),
            sequence=sequence,
        )
        await patiently(lambda: self._parts.storage.notices.bury(letter), lambda: self._held.valid(held))
