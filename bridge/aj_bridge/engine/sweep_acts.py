"""What the sweeper does about what it has found: each act ends with a word about it, and none of them decides.

Each may be repeated by the next leader after a crash in between: what stands for the task goes last.
"""

import logging
from collections.abc import Callable

import msgspec

from aj_bridge.core.decision import dead_reason
from aj_bridge.core.sweep import Close
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.meter import SWEPT, Meter
from aj_bridge.storage.protocols import Survey
from aj_sdk.dependents import StoredEdge
from aj_sdk.errors import ConflictError, QueueFullError, QueueNotFoundError
from aj_sdk.wire.dead import DeadLetter, DeadReason
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["SweepActs", "Swept", "counted"]

_log = logging.getLogger(__name__)


class Swept(msgspec.Struct, frozen=True):
    """Something that was set right.

    Attributes:
        task_id: the task.
        queue: its queue, empty when unknown.
        why: what was wrong, one of a few texts.
        act: what is done about it, as one tells somebody to.
    """

    task_id: str
    queue: str
    why: str
    act: str


def counted(meter: Meter) -> Callable[[Swept], None]:
    """Count and log what was set right."""

    def tell(swept: Swept) -> None:
        meter.inc(SWEPT, queue=swept.queue, why=swept.why)
        fields = {"task_id": swept.task_id, "queue": swept.queue}
        _log.warning("swept (%s): %s", swept.why, swept.act, extra=fields)

    return tell


class SweepActs:
    """The acts.

    Args:
        survey: the storage.
        clock: the time.
        tell: told what was set right.
    """

    def __init__(self, survey: Survey, clock: Clock, tell: Callable[[Swept], None]) -> None:
        self._survey = survey
        self._clock = clock
        self._tell = tell

    async def publish(self, queue: str, task_id: str, why: str) -> None:
        """Put a task's item into its queue, unless one is there."""
        try:
            published = await self._survey.publish(queue, task_id)
        except (QueueFullError, QueueNotFoundError) as err:
            _log.info("a task without an item gets none now: %s", err, extra={"task_id": task_id})
            return
        if published:
            self._tell(Swept(task_id, queue, why, "publish its item"))

    async def replace(self, queue: str, task_id: str, item: int, why: str) -> None:
        """Put another item in the place of one."""
        await self._survey.take_out(queue, task_id, item)
        await self.publish(queue, task_id, why)

    async def close(self, stored: Stored, verdict: Close) -> bool:
        """End a task; returns False where somebody else looks after it."""
        record = verdict.record
        try:
            await self._survey.save(record, stored.sequence)
        except ConflictError:
            return False
        said = f"save it {record.state.value}: {record.last_err}"
        self._tell(Swept(record.id, record.queue, verdict.event.value, said))
        await self._survey.notices.state_changed(record, self._clock.now_ns())
        await self._follow(record, stored.body)
        if verdict.item:
            await self._survey.take_out(record.queue, record.id, verdict.item)
        return True

    async def finish(self, queue: str, stored: Stored, record: TaskRecord, item: int) -> None:
        """Repeat what follows the end of a task, then take out the item that stands for it."""
        await self._follow(record, stored.body)
        await self._survey.take_out(queue, record.id, item)
        self._tell(Swept(record.id, queue, "the task has ended", f"take its item {item} out"))

    async def bury(self, queue: str, stored: Stored, detail: str) -> None:
        """Store the dead letter of a record that can't be read, once."""
        letter = self._letter(DeadReason.QUARANTINED, detail, queue, stored.task_id, stored.body)
        letter = msgspec.structs.replace(letter, sequence=stored.sequence)
        if await self._survey.notices.bury(letter):
            said = f"store a dead letter: {detail}"
            self._tell(Swept(stored.task_id, queue, "a record that can't be read", said))

    async def clear(self, queue: str, task_id: str, item: int, detail: str) -> None:
        """Store a dead letter for an item without a task, then take it out."""
        await self._survey.notices.bury(self._letter(DeadReason.QUARANTINED, detail, queue, task_id, b""))
        await self._survey.take_out(queue, task_id, item)
        self._tell(Swept(task_id, queue, detail, f"take its item {item} out"))

    async def forget(self, edge: StoredEdge, why: str) -> None:
        """Remove an edge."""
        await self._survey.drop_edge(edge)
        self._tell(Swept(edge.edge.child, edge.edge.queue, why, f"remove its edge from {edge.edge.parent}"))

    async def inform(self, edge: StoredEdge, parent: TaskRecord | None, why: str) -> None:
        """Tell those that wait for a task that it has ended, or is gone."""
        if parent is not None:
            await self._survey.ended(parent)
        elif not await self._survey.removed(edge.edge.parent):
            return  # it is in its queue already
        self._tell(Swept(edge.edge.child, edge.edge.queue, why, f"tell it the end of {edge.edge.parent}"))

    async def _follow(self, record: TaskRecord, body: bytes) -> None:
        reason = dead_reason(record.state)
        if reason is not None:
            letter = self._letter(DeadReason(reason), record.last_err, record.queue, record.id, body)
            letter = msgspec.structs.replace(letter, task_type=record.type, tries=record.tries)
            await self._survey.notices.bury(letter)
        # After the dead letter: a child that is not told looks for itself.
        await self._survey.ended(record)

    def _letter(self, reason: DeadReason, detail: str, queue: str, task_id: str, body: bytes) -> DeadLetter:
        return DeadLetter(
            reason=reason,
            detail=detail,
            queue=queue,
            task_id=task_id,
            task_type="",
            tries=0,
            body=body,
            at_ns=self._clock.now_ns(),
        )
