"""Several queues in one bridge, in virtual time: the real processors over storages in memory share the slots."""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from random import Random

import pytest
from tests.bridge.engine.bridges import DONE, QUEUE, Invocation, Outcome, Site, site
from tests.virtual_time import virtual_time

from aj_bridge.core.retry import POLICIES
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.held import HeldClaims
from aj_bridge.engine.meter import NoMeter
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.processor import Processor
from aj_bridge.engine.router import RouteKind, Router
from aj_bridge.engine.slots import Seat, Slots
from aj_bridge.storage.memory import MemoryStorage
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord


class Shared:
    """One bridge of several queues, and what ran when; a queue's name is the type of its tasks too."""

    def __init__(self, slots: int, weights: dict[str, int | None], **handler_s: float) -> None:
        self.here: Site = site()
        self.here.handlers.on("t", self._handle)
        self.slots = Slots(slots, asyncio.get_running_loop().time)
        self.storages: dict[str, MemoryStorage] = {}
        self.seats: dict[str, Seat] = {}
        self.held: dict[str, HeldClaims] = {}
        self.busy: Counter[str] = Counter()
        self.slot_s: defaultdict[str, float] = defaultdict(float)
        self.ended: Counter[str] = Counter()
        self.most_in_hand = 0
        self._handler_s = handler_s
        self._allowed = slots
        self._numbers: Counter[str] = Counter()
        self._stop = asyncio.Event()
        self._processors = [self._line(name, weight) for name, weight in weights.items()]

    def _line(self, name: str, weight: int | None) -> Processor:
        world = self.here.world
        world.add_queue(QueueSettings(name=name, max_concurrent=10_000))
        storage = self.storages[name] = MemoryStorage(world, name)
        clock = Clock(now_ns=world.now_ns, monotonic=asyncio.get_running_loop().time)
        held = self.held[name] = HeldClaims("b", storage.items, clock)
        seat = self.seats[name] = self.slots.seat(storage.items, lambda: len(held), weight)
        parts = Parts(
            owner="b",
            storage=storage,
            dispatch=dict.fromkeys(RouteKind, self.here.handlers.of("b")),
            peers=self.here.neighbours.of(None),  # type: ignore[arg-type]  # nobody is asked
            router=Router(),
            policy=POLICIES["1m"],
            meter=NoMeter(),
            clock=clock,
            random=lambda: 0.0,
        )
        return Processor(parts, held, seat)

    async def _handle(self, call: Invocation) -> Outcome:
        name = call.task.queue
        self.busy[name] += 1
        self.most_in_hand = max(self.most_in_hand, sum(map(len, self.held.values())))
        assert sum(self.busy.values()) <= self._allowed, "more at once than there are slots"
        began = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(self._handler_s.get(name, 1.0))
        finally:
            self.busy[name] -= 1
            self.slot_s[name] += asyncio.get_running_loop().time() - began
        self.ended[name] += 1
        return DONE

    def enqueue(self, name: str, count: int) -> None:
        for _ in range(count):
            self._numbers[name] += 1
            task_id = f"{name}{self._numbers[name]}"
            record = TaskRecord(
                id=task_id, type="t", queue=name, state=TaskState.NEW, created_ns=self.here.world.now_ns()
            )
            self.here.world.put(task_id, record.to_wire(), expected=0)
            self.here.world.publish(name, task_id)

    def resize(self, slots: int) -> None:
        """Change the number of slots; what runs beyond it ends in its own time."""
        self._allowed = max(self._allowed, slots)
        self.slots.resize(slots)

    def names(self) -> list[str]:
        return [f"{name}{number + 1}" for name, count in self._numbers.items() for number in range(count)]

    async def take_back(self) -> None:
        for storage in self.storages.values():
            await storage.items.take_back()

    def stop(self) -> None:
        self._stop.set()

    def forget(self) -> None:
        """Count from here."""
        self.slot_s.clear()
        self.ended.clear()

    def parts(self) -> dict[str, float]:
        """Give the per cent of the slot time that each had."""
        total = sum(self.slot_s.values())
        return {name: 100 * seconds / total for name, seconds in self.slot_s.items()}

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator["Shared"]:
        works = [asyncio.create_task(processor.run(self._stop, 1000.0)) for processor in self._processors]
        try:
            yield self
        finally:
            self._stop.set()
            assert await asyncio.gather(*works) == [0] * len(works)
            assert self.slots.running == 0, "slots got lost"
            assert not any(seat.line for seat in self.seats.values())
            self.slots.close()


def near(parts: dict[str, float], **meant: float) -> bool:
    return all(abs(parts[name] - part) <= 0.1 * part for name, part in meant.items())


@virtual_time
async def test_under_load_each_queue_has_its_part_within_ten_per_cent() -> None:
    for slots in (1, 2, 5, 10, 100):
        shared = Shared(slots, {"A": 6, "B": 3, "C": 1}, A=1.0, B=0.5, C=2.0)
        for name, count in (("A", 9), ("B", 9), ("C", 3)):
            shared.enqueue(name, 100 * count + 40 * slots)
        async with shared.working():
            await asyncio.sleep(600 / slots + 5)
            assert near(shared.parts(), A=60, B=30, C=10), (slots, shared.parts())
            for name in "ABC":
                shared.here.world.queue(name).clear()


@virtual_time
async def test_the_part_of_an_idle_queue_goes_to_the_others_until_it_has_work() -> None:
    shared = Shared(10, {"A": 8, "B": 1, "C": 1})
    async with shared.working():
        shared.enqueue("B", 200)
        shared.enqueue("C", 200)
        await asyncio.sleep(10.5)
        assert near(shared.parts(), B=50, C=50), shared.parts()
        assert sum(shared.busy.values()) == 10
        shared.enqueue("A", 400)
        await asyncio.sleep(3)  # what runs is not disturbed: slots change hands as they get free
        shared.forget()
        await asyncio.sleep(20)
        assert near(shared.parts(), A=80, B=10, C=10), shared.parts()
        for name in "ABC":
            shared.here.world.queue(name).clear()


@virtual_time
async def test_a_task_of_an_idle_queue_waits_for_no_more_than_the_next_free_slot() -> None:
    shared = Shared(4, {"BULK": 100, "RARE": 1})
    shared.enqueue("BULK", 400)
    async with shared.working():
        await asyncio.sleep(10.5)
        began = asyncio.get_running_loop().time()
        shared.enqueue("RARE", 1)
        while not shared.ended["RARE"]:  # noqa: ASYNC110 - in virtual time a look costs nothing
            await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - began <= 0.5 + 1.0 + 0.1
        shared.here.world.queue("BULK").clear()


@virtual_time
async def test_what_waits_in_hand_stays_little_however_many_items_come() -> None:
    shared = Shared(16, {"A": 1, "B": 1, "C": 1})
    shared.enqueue("A", 2000)
    async with shared.working():
        await asyncio.sleep(5.5)
        shared.enqueue("B", 1000)
        shared.enqueue("C", 1000)
        await asyncio.sleep(30)
        assert shared.most_in_hand <= 16 + 16 // 8 + 3
        for name in "ABC":
            shared.here.world.queue(name).clear()


@virtual_time
async def test_a_queue_that_may_have_no_more_in_flight_leaves_its_part_to_the_others() -> None:
    shared = Shared(10, {"A": 8, "B": 1})
    shared.here.world.queue("A").configure(QueueSettings(name="A", max_concurrent=2))
    shared.enqueue("A", 500)
    shared.enqueue("B", 500)
    async with shared.working():
        await asyncio.sleep(20.5)
        assert near(shared.parts(), A=20, B=80), shared.parts()
        for name in "AB":
            shared.here.world.queue(name).clear()


@virtual_time
async def test_a_weight_that_is_changed_with_the_queue_counts_from_then_on() -> None:
    shared = Shared(10, {"A": None, "B": None})
    shared.enqueue("A", 1000)
    shared.enqueue("B", 1000)
    async with shared.working():
        await asyncio.sleep(10)
        assert near(shared.parts(), A=50, B=50), shared.parts()
        shared.here.world.queue("A").configure(QueueSettings(name="A", weight=4, max_concurrent=10_000))
        await asyncio.sleep(3)
        shared.forget()
        await asyncio.sleep(20)
        assert near(shared.parts(), A=80, B=20), shared.parts()
        for name in "AB":
            shared.here.world.queue(name).clear()


@virtual_time
async def test_slots_can_be_more_and_fewer_while_it_works() -> None:
    shared = Shared(4, {"A": 1, "B": 1})
    shared.enqueue("A", 1000)
    shared.enqueue("B", 1000)
    async with shared.working():
        await asyncio.sleep(5.5)
        shared.resize(10)
        await asyncio.sleep(3.2)
        assert (shared.busy["A"], shared.busy["B"]) == (5, 5)
        shared.resize(2)
        await asyncio.sleep(3.1)
        assert (shared.busy["A"], shared.busy["B"]) == (1, 1)
        for name in "AB":
            shared.here.world.queue(name).clear()


@virtual_time
@pytest.mark.parametrize("weights", [{"A": 1}, {"A": 1, "B": 2}])
async def test_a_bridge_that_pauses_takes_nothing_until_it_goes_on(weights: dict[str, int | None]) -> None:
    shared = Shared(4, weights)
    shared.enqueue("A", 100)
    async with shared.working():
        await asyncio.sleep(3.5)
        shared.slots.pause()
        await shared.take_back()
        await asyncio.sleep(2)
        ended = shared.ended["A"]
        await asyncio.sleep(60)
        assert (shared.ended["A"], sum(shared.busy.values())) == (ended, 0)
        shared.slots.resume()
        await asyncio.sleep(1.5)
        assert shared.ended["A"] > ended
        shared.here.world.queue("A").clear()


@virtual_time
@pytest.mark.parametrize("seed", range(16))
async def test_whatever_is_done_to_it_every_task_ends_and_no_slot_gets_lost(seed: int) -> None:
    chance = Random(seed)
    shared = Shared(chance.randint(1, 8), {"A": None, "B": 3, "C": None}, A=0.3, B=2.0, C=chance.choice([0.0, 20.0]))
    links = [storage.link for storage in shared.storages.values()]
    async with shared.working():
        for _ in range(80):
            await asyncio.sleep(chance.expovariate(1.0))
            match chance.randrange(7):
                case 0 | 1 | 2:
                    shared.enqueue(chance.choice("ABC"), chance.randint(1, 15))
                case 3:
                    shared.resize(chance.randint(1, 12))
                    await shared.take_back()
                case 4:
                    shared.slots.pause()
                    await shared.take_back()
                    await asyncio.sleep(chance.uniform(0, 5))
                    shared.slots.resume()
                case 5:
                    link = chance.choice(links)
                    link.cut()
                    await asyncio.sleep(chance.choice([0.1, 3.0, 40.0]))  # the last is longer than the lease
                    link.mend()
                case 6:
                    settings = QueueSettings(
                        name="A", weight=chance.randint(1, 9), max_concurrent=chance.randint(1, 50)
                    )
                    shared.here.world.queue("A").configure(settings)
        async with asyncio.timeout(20_000):
            for name in shared.names():
                await shared.here.ended(name)
    assert {call.task.id for call in shared.here.handlers.calls} == set(shared.names())


@virtual_time
async def test_what_waits_in_hand_for_a_slot_is_given_back_at_once_when_the_bridge_stops() -> None:
    shared = Shared(2, {"A": 1, "B": 1}, A=50.0, B=50.0)
    shared.enqueue("A", 10)
    async with shared.working():
        await asyncio.sleep(0.5)
        shared.enqueue("B", 10)
        await asyncio.sleep(0.5)
        assert (len(shared.held["B"]), shared.busy["B"]) == (1, 0)
        shared.stop()
        await asyncio.sleep(0.1)
        assert (len(shared.held["B"]), shared.busy["A"]) == (0, 2)
        other = MemoryStorage(shared.here.world, "B").items
        other.want(10)
        assert len(await other.next()) == 10


@virtual_time
async def test_a_claim_given_up_while_it_waits_for_a_slot_takes_none() -> None:
    here = site()
    slots = Slots(1, asyncio.get_running_loop().time)
    items = MemoryStorage(here.world, QUEUE).items
    seat = slots.seat(items, lambda: 0)
    await seat.enter()
    first, second = asyncio.create_task(seat.enter()), asyncio.create_task(seat.enter())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert (len(seat.line), slots.running) == (1, 1)
    seat.leave()
    second.cancel()  # its turn has come, and it has not heard of it
    await asyncio.wait((first, second))
    assert (len(seat.line), slots.running) == (0, 0)
