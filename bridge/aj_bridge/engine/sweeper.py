"""The sweeper: one bridge at a time looks after tasks that nobody looks after (C-7), in all queues.

It reads the records in the order in which they were saved, each once, and keeps those that have not ended on a bounded
list, which it looks through again and again; `core/sweep.py` says what is to be done. All reading is at a limited
rate, so that a store of a million tasks serves others meanwhile. How old a record is, it tells by its own monotonic
clock: from when it first saw a later sequence.
"""

import asyncio
import contextlib
import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

import msgspec

from aj_bridge.core.decision import dead_reason
from aj_bridge.core.deliver import NOT_FOUND, Holder
from aj_bridge.core.sweep import (
    GRACE_NS,
    Ask,
    Close,
    Gone,
    Leave,
    Publish,
    Replace,
    Sighting,
    Verdict,
    Whereabouts,
    judge_task,
)
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.meter import SWEEP_SCANNED, SWEEP_SECONDS, SWEEP_WATCHED, SWEPT, Meter
from aj_bridge.engine.peers import Peers
from aj_bridge.storage.protocols import Survey, SweptItem
from aj_sdk.errors import ConflictError, QueueFullError, QueueNotFoundError, StoreError
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.times import NS_PER_S

__all__ = ["EVERY_S", "Leadership", "Sweeper"]

_log = logging.getLogger(__name__)

EVERY_S: Final = 30.0

_RECORDS_PER_S: Final = 5_000
_LOOKS_PER_S: Final = 2_000
_CHUNK: Final = 200
_WATCHED: Final = 20_000
_MARKS: Final = 1_000
_ITEMS: Final = 500
_SUSPECTS: Final = 10_000


class Leadership(Protocol):
    """Whether it is up to us."""

    @property
    def leads(self) -> bool:
        """Whether we are surely the leader at this moment."""


class Sweeper:
    """`Duty`: sweeps while we lead.

    Args:
        survey: the storage.
        peers: the other bridges.
        leadership: whether it is up to us.
        meter: what is counted.
        clock: the time.
        every_s: seconds between two sweeps.
        watched: how many unfinished tasks are kept in mind.
    """

    name = "sweeper"

    def __init__(
        self,
        survey: Survey,
        peers: Peers,
        leadership: Leadership,
        meter: Meter,
        clock: Clock,
        *,
        every_s: float = EVERY_S,
        watched: int = _WATCHED,
    ) -> None:
        self._survey = survey
        self._peers = peers
        self._leadership = leadership
        self._meter = meter
        self._clock = clock
        self._every_s = every_s
        self._grace_ns = min(GRACE_NS, int(every_s * NS_PER_S))
        self._most = watched
        self._forget()

    def _forget(self) -> None:
        self._next = 1
        self._again = False
        self._watched: dict[str, bool] = {}  # and whether its item was seen to stand
        self._seen_at: list[float] = []
        self._last_sequences: list[int] = []
        self._item_cursors: dict[str, int] = {}
        self._suspects: set[tuple[str, str, int]] = set()

    async def run(self) -> None:
        """See `Duty`."""
        self._forget()
        while True:
            if self._leadership.leads:
                try:
                    await self.sweep()
                except StoreError as err:
                    # What was read is kept: the next sweep goes on from there.
                    _log.warning("a sweep was broken off: %s", err)
            else:
                self._forget()
                self._tell(0.0)
            await asyncio.sleep(self._every_s)

    async def sweep(self) -> None:
        """Look once through all that was saved since, and through all that is kept in mind."""
        began = self._clock.monotonic()
        queues = await self._survey.queues()
        self._mark(await self._survey.last_sequence())
        while self._leadership.leads:
            more = await self._scan()
            await self._look_through(queues)
            if not more:
                break
            self._thin()
            if len(self._watched) >= self._most:
                break  # all too young to be judged
        for queue in queues:
            with _one_queue_alone(queue):
                await self._sweep_items(queue)
        self._tell(self._clock.monotonic() - began)

    def _tell(self, took_s: float) -> None:
        self._meter.set(SWEEP_SECONDS, took_s)
        self._meter.set(SWEEP_WATCHED, len(self._watched))

    # What was saved since.

    def _mark(self, last_sequence: int) -> None:
        if not self._last_sequences or last_sequence > self._last_sequences[-1]:
            self._last_sequences.append(last_sequence)
            self._seen_at.append(self._clock.monotonic())
            del self._last_sequences[:-_MARKS], self._seen_at[:-_MARKS]

    def _age_ns(self, sequence: int) -> int:
        place = bisect_left(self._last_sequences, sequence)
        if place == len(self._last_sequences):
            return 0
        return int((self._clock.monotonic() - self._seen_at[place]) * NS_PER_S)

    async def _scan(self) -> bool:
        """Read on in the store until its end, or until the list is full; say whether there is more."""
        if self._again and self._next > self._last_sequences[-1]:
            # Some had to be forgotten: all is read once more.
            self._next, self._again = 1, False
        began, read = self._clock.monotonic(), 0
        async for stored in self._survey.scan(self._next):
            self._next = stored.sequence + 1
            self._meet(stored)
            read += 1
            if read % _CHUNK == 0:
                await self._pace(began, read / _RECORDS_PER_S)
                if not self._leadership.leads:
                    return False
            if len(self._watched) >= self._most:
                return True
        return False

    def _meet(self, stored: Stored) -> None:
        self._meter.inc(SWEEP_SCANNED)
        if stored.record is None:
            self._meter.inc(SWEPT, queue="", why="unreadable")
            _log.warning("a task's record can't be read: %s", stored.fault, extra={"task_id": stored.task_id})
        elif not stored.record.state.final:
            self._watched[stored.task_id] = False

    async def _pace(self, began: float, due_s: float) -> None:
        ahead = due_s - (self._clock.monotonic() - began)
        if ahead > 0:
            await asyncio.sleep(ahead)

    def _thin(self) -> None:
        standing = [task_id for task_id, stands in self._watched.items() if stands]
        self._again = self._again or bool(standing)
        for task_id in standing:
            del self._watched[task_id]

    # What is kept in mind.

    async def _look_through(self, queues: Mapping[str, QueueSettings]) -> None:
        began, looked = self._clock.monotonic(), 0
        watched = list(self._watched)
        for start in range(0, len(watched), _CHUNK):
            if not self._leadership.leads:
                return
            looked += await self._look_at(watched[start : start + _CHUNK], queues)
            await self._pace(began, looked / _LOOKS_PER_S)

    async def _look_at(self, task_ids: Iterable[str], queues: Mapping[str, QueueSettings]) -> int:
        wanted = list(task_ids)
        records = await self._survey.load_many(wanted)
        doubtful: dict[str, list[Sighting]] = {}
        for task_id in wanted:
            stored = records.get(task_id)
            if stored is None or stored.record is None:
                del self._watched[task_id]
                continue
            seen = Sighting(
                stored=stored,
                queue=queues.get(stored.record.queue),
                age_ns=self._age_ns(stored.sequence),
                grace_ns=self._grace_ns,
            )
            verdict = judge_task(seen)
            if isinstance(verdict, Gone):
                del self._watched[task_id]
            elif not isinstance(verdict, Leave):
                doubtful.setdefault(stored.record.queue, []).append(seen)
        for queue, sightings in doubtful.items():
            with _one_queue_alone(queue):
                await self._look_closely(queue, sightings)
        return sum(map(len, doubtful.values()))

    async def _look_closely(self, queue: str, sightings: list[Sighting]) -> None:
        places: Mapping[str, Whereabouts] = {}
        if sightings[0].queue is not None:
            places = await self._survey.locate(queue, [seen.stored.task_id for seen in sightings])
        for sighting in sightings:
            task_id = sighting.stored.task_id
            place = places.get(task_id, Whereabouts())
            self._watched[task_id] = place.waits or (place.item > 0 and not place.stranded)
            seen = msgspec.structs.replace(sighting, place=place)
            verdict = judge_task(seen)
            if isinstance(verdict, Ask):
                verdict = judge_task(msgspec.structs.replace(seen, holder=await self._ask(seen.stored)))
            if not self._leadership.leads:
                return
            await self._carry_out(queue, seen.stored, verdict)

    async def _ask(self, stored: Stored) -> Holder:
        if stored.stamp is None:
            return Holder.NO
        return await self._peers.ask(stored.stamp.owner, stored.task_id, stored.stamp.item)

    async def _carry_out(self, queue: str, stored: Stored, verdict: Verdict) -> None:
        if isinstance(verdict, Close):
            await self._close(queue, stored, verdict)
        elif isinstance(verdict, Replace):
            await self._survey.take_out(queue, stored.task_id, verdict.item)
            await self._publish(queue, stored.task_id, verdict.why)
        elif isinstance(verdict, Publish):
            await self._publish(queue, stored.task_id, verdict.why)

    async def _publish(self, queue: str, task_id: str, why: str) -> None:
        try:
            published = await self._survey.publish(queue, task_id)
        except (QueueFullError, QueueNotFoundError) as err:
            _log.info("a task without an item gets none now: %s", err, extra={"task_id": task_id})
            return
        if published:
            self._count(queue, task_id, why, "published its item")

    async def _close(self, queue: str, stored: Stored, verdict: Close) -> None:
        record = verdict.record
        try:
            await self._survey.save(record, stored.sequence)
        except ConflictError:
            return  # somebody looks after it
        self._watched.pop(record.id, None)
        self._count(queue, record.id, verdict.event.value, f"saved it {record.state.value}")
        await self._survey.notices.state_changed(record, self._clock.now_ns())
        reason = dead_reason(record.state)
        if reason is not None:
            await self._bury(reason, record.last_err, queue, stored)
        # After the dead letter: a child that is not told looks for itself.
        await self._survey.ended(record)
        if verdict.item:
            await self._survey.take_out(queue, record.id, verdict.item)

    async def _bury(self, reason: str, detail: str, queue: str, stored: Stored) -> None:
        record = stored.record
        await self._survey.notices.bury(
            DeadLetter(
                reason=reason,
                detail=detail,
                queue=queue,
                task_id=stored.task_id,
                task_type="" if record is None else record.type,
                tries=0 if record is None else record.tries,
                body=stored.body,
                at_ns=self._clock.now_ns(),
            )
        )

    # Items that stand for nothing.

    async def _sweep_items(self, queue: str) -> None:
        items = await self._survey.items(queue, self._item_cursors.get(queue, 1), _ITEMS)
        self._item_cursors[queue] = items[-1].sequence + 1 if len(items) == _ITEMS else 1
        idle = [item for item in items if item.idle]
        if not idle or not self._leadership.leads:
            return
        records = await self._survey.load_many(item.task_id for item in idle)
        for item in idle:
            stored = records.get(item.task_id)
            useless = stored is None or (item.stranded and stored.record is not None and stored.record.state.final)
            suspect = (queue, item.task_id, item.sequence)
            if not useless:
                self._suspects.discard(suspect)
            elif suspect not in self._suspects:
                # A look later, so that whoever is just about to take it out can do so.
                if len(self._suspects) < _SUSPECTS:
                    self._suspects.add(suspect)
            elif self._leadership.leads:
                self._suspects.discard(suspect)
                await self._take_out(queue, item, known=stored is not None)

    async def _take_out(self, queue: str, item: SweptItem, *, known: bool) -> None:
        if not known:
            missing = Stored(task_id=item.task_id, sequence=0, body=b"")
            await self._bury("quarantined", NOT_FOUND, queue, missing)
        await self._survey.take_out(queue, item.task_id, item.sequence)
        why = "the task has ended" if known else NOT_FOUND
        self._count(queue, item.task_id, why, "took its item out")

    def _count(self, queue: str, task_id: str, why: str, what: str) -> None:
        self._meter.inc(SWEPT, queue=queue, why=why)
        _log.warning("swept a task: %s; %s", why, what, extra={"task_id": task_id, "queue": queue})


@contextlib.contextmanager
def _one_queue_alone(queue: str) -> Iterator[None]:
    """Keep the trouble of one queue, or the want of a right to it, from all others; the next sweep tries again."""
    try:
        yield
    except StoreError as err:
        _log.warning("queue %s could not be swept: %s", queue, err)
