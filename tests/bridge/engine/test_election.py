"""Elections in virtual time, on a bucket in memory whose values go after the term."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.bridge.engine.bridges import Counts
from tests.virtual_time import virtual_time

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.duties import on_duty
from aj_bridge.engine.election import TASK_SWEEPER, Election
from aj_bridge.engine.meter import ELECTION_CAMPAIGNS
from aj_sdk.buckets import Entry
from aj_sdk.errors import OutcomeUnknownError

TERM_S = 10.0


class Bucket:
    """A bucket in memory; while it is `away` nobody gets an answer, and `deaf` ones carry out what was asked."""

    def __init__(self) -> None:
        self.away = False
        self.deaf = False
        self._entry: Entry | None = None
        self._written = 0.0
        self._revision = 0

    def _now(self) -> Entry | None:
        if self._entry is not None and asyncio.get_running_loop().time() >= self._written + TERM_S:
            self._entry = None
        return self._entry

    async def _answer(self) -> None:
        if self.away or self.deaf:
            await asyncio.sleep(5.0)
            raise OutcomeUnknownError("asking")

    async def get(self, key: str) -> Entry | None:
        assert key == TASK_SWEEPER
        await self._answer()
        return self._now()

    async def create(self, key: str, value: bytes) -> int | None:
        return await self.update(key, value, 0)

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        assert key == TASK_SWEEPER
        written = None
        current = self._now()
        if not self.away and (0 if current is None else current.revision) == revision:
            self._revision += 1
            written = self._revision
            self._entry = Entry(value, written, 0)
            self._written = asyncio.get_running_loop().time()
        await self._answer()
        return written

    async def delete(self, key: str, revision: int) -> bool:
        current = self._now()
        if current is None or current.revision != revision or key != TASK_SWEEPER:
            return False
        self._entry = None
        return True


class Candidate:
    def __init__(self, bucket: Bucket, name: str) -> None:
        self.won = 0
        self.meter = Counts()
        self.frozen = 0.0
        clock = Clock(monotonic=lambda: asyncio.get_running_loop().time() + self.frozen)
        self.election = Election(
            bucket, TASK_SWEEPER, name, term_s=TERM_S, meter=self.meter, clock=clock, elected=self._elected
        )

    def leads(self) -> bool:
        return self.election.leads

    async def _elected(self) -> None:
        self.won += 1


@contextlib.asynccontextmanager
async def running(*candidates: Candidate) -> AsyncIterator[None]:
    async with on_duty([candidate.election for candidate in candidates]):
        yield


@virtual_time
async def test_of_several_one_leads_for_as_long_as_it_runs() -> None:
    bucket = Bucket()
    candidates = [Candidate(bucket, f"b{number}") for number in range(5)]
    async with running(*candidates):
        await asyncio.sleep(TERM_S)
        for _ in range(100):
            assert sum(candidate.leads() for candidate in candidates) == 1
            await asyncio.sleep(1.7)
    assert sum(candidate.won for candidate in candidates) == 1
    assert min(candidate.meter.counts[ELECTION_CAMPAIGNS] for candidate in candidates) > 10


@virtual_time
async def test_a_leader_that_ends_makes_room_at_once_and_one_that_dies_after_a_term() -> None:
    bucket = Bucket()
    first, second, third = (Candidate(bucket, name) for name in "abc")
    async with running(second), running(first):
        await asyncio.sleep(TERM_S)
        assert second.leads()
    async with running(third):
        await asyncio.sleep(TERM_S)
        assert third.leads()
    assert not third.leads()


@virtual_time
async def test_a_leader_that_can_not_write_stops_leading_before_another_begins() -> None:
    bucket = Bucket()
    first, second = Candidate(bucket, "a"), Candidate(bucket, "b")
    async with running(first):
        await asyncio.sleep(TERM_S)
        assert first.leads()
        bucket.away = True
        await asyncio.sleep(TERM_S)
        assert not first.leads()
        bucket.away = False
        async with running(second):
            for _ in range(200):
                assert not (first.leads() and second.leads())
                await asyncio.sleep(0.3)
            assert first.leads() or second.leads()


@virtual_time
async def test_a_leader_that_stood_still_does_not_lead_when_it_comes_to() -> None:
    candidate = Candidate(Bucket(), "a")
    async with running(candidate):
        await asyncio.sleep(TERM_S)
        assert candidate.leads()
        candidate.frozen = TERM_S
        assert not candidate.leads()


@virtual_time
async def test_a_leader_whose_answers_are_lost_finds_its_own_name_and_goes_on() -> None:
    bucket = Bucket()
    candidate = Candidate(bucket, "a")
    async with running(candidate):
        await asyncio.sleep(TERM_S)
        bucket.deaf = True
        await asyncio.sleep(4.0)
        bucket.deaf = False
        await asyncio.sleep(3 * TERM_S)
        assert candidate.leads()
