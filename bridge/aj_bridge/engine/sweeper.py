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
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

import msgspec

from aj_bridge.core.deliver import Holder
from aj_bridge.core.sweep import (
    GRACE_NS,
    Ask,
    Bury,
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
from aj_bridge.engine.meter import SWEEP_SCANNED, SWEEP_SECONDS, SWEEP_WATCHED, Meter
from aj_bridge.engine.peers import Peers
from aj_bridge.engine.sweep_acts import SweepActs, Swept, counted
from aj_bridge.engine.sweep_strays import LeftEdges, StrayItems
from aj_bridge.storage.protocols import Survey
from aj_sdk.errors import StoreError
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.times import NS_PER_S

__all__ = ["EVERY_S", "Leadership", "Sweeper"]

_log = logging.getLogger(__name__)

EVERY_S: Final = 30.0

_RECORDS_PER_S: Final = 5_000
_LOOKS_PER_S: Final = 2_000
_CHUNK: Final = 200
_LOOKS: Final = 100
"""How many records are asked for at once: twice as many hold up the saves of others twice as long (seen)."""
_WATCHED: Final = 20_000
_MARKS: Final = 1_000
_EDGES_PER_S: Final = 2_000
_EDGES: Final = 5_000


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
        tell: told what was set right; None to count and log it.
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
        tell: Callable[[Swept], None] | None = None,
    ) -> None:
        self._survey = survey
        self._peers = peers
        self._leadership = leadership
        self._meter = meter
        self._clock = clock
        self._every_s = every_s
        self._grace_ns = min(GRACE_NS, int(every_s * NS_PER_S))
        self._most = watched
        self._acts = SweepActs(survey, clock, tell or counted(meter))
        self._forget()

    def _forget(self) -> None:
        self._next = 1
        self._again = False
        self._watched: dict[str, bool] = {}  # and whether its item was seen to stand
        self._seen_at: list[float] = []
        self._last_sequences: list[int] = []
        self._items = StrayItems(self._survey, self._acts, self._leads)
        self._edges = LeftEdges(self._survey, self._acts, self._leads)

    def _leads(self) -> bool:
        return self._leadership.leads

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
                await self._items.look(queue)
        await self._sweep_edges()
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
        """Read on in the store, or until the list is full; say whether there is more.

        What was saved since this sweep began is for the next, or a busy store would hold up this one.
        """
        if self._again and self._next > self._last_sequences[-1]:
            # Some had to be forgotten: all is read once more.
            self._next, self._again = 1, False
        began, read = self._clock.monotonic(), 0
        async with contextlib.aclosing(self._survey.scan(self._next, self._last_sequences[-1])) as records:
            async for stored in records:
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
        if stored.record is None or not stored.record.state.final:
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
        for start in range(0, len(watched), _LOOKS):
            if not self._leadership.leads:
                return
            looked += await self._look_at(watched[start : start + _LOOKS], queues)
            await self._pace(began, looked / _LOOKS_PER_S)

    async def _look_at(self, task_ids: Iterable[str], queues: Mapping[str, QueueSettings]) -> int:
        wanted = list(task_ids)
        records = await self._survey.load_many(wanted)
        doubtful: dict[str, list[Sighting]] = {}
        for task_id in wanted:
            stored = records.get(task_id)
            if stored is None:
                del self._watched[task_id]
                continue
            queue = "" if stored.record is None else stored.record.queue
            seen = Sighting(
                stored=stored,
                queue=queues.get(queue),
                age_ns=self._age_ns(stored.sequence),
                grace_ns=self._grace_ns,
            )
            verdict = judge_task(seen)
            if isinstance(verdict, Gone):
                del self._watched[task_id]
            elif isinstance(verdict, Bury):
                await self._acts.bury(verdict.queue, stored, verdict.detail)
                del self._watched[task_id]
            elif not isinstance(verdict, Leave):
                doubtful.setdefault(queue, []).append(seen)
        for name, sightings in doubtful.items():
            with _one_queue_alone(name):
                await self._look_closely(name, sightings)
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
        task_id = stored.task_id
        if isinstance(verdict, Close):
            if await self._acts.close(stored, verdict):
                self._watched.pop(task_id, None)
        elif isinstance(verdict, Replace):
            await self._acts.replace(queue, task_id, verdict.item, verdict.why)
        elif isinstance(verdict, Publish):
            await self._acts.publish(queue, task_id, verdict.why)

    async def _sweep_edges(self) -> None:
        began, looked = self._clock.monotonic(), 0
        while self._leadership.leads and looked < _EDGES:
            number = await self._edges.look()
            if not number:
                return
            looked += number
            await self._pace(began, looked / _EDGES_PER_S)


@contextlib.contextmanager
def _one_queue_alone(queue: str) -> Iterator[None]:
    """Keep the trouble of one queue, or the want of a right to it, from all others; the next sweep tries again."""
    try:
        yield
    except StoreError as err:
        _log.warning("queue %s could not be swept: %s", queue, err)
