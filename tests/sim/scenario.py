"""What a seed makes: a world, its tasks, what is done to them and what goes wrong; then peace, until all has ended.

Each seed takes some of the possible troubles and leaves others out, so that each is also seen alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import Final
from unittest.mock import patch

import msgspec
from tests.sim.history import CallMade, History
from tests.sim.loop import run_in_virtual_time
from tests.sim.way import Mishap, Mishaps
from tests.sim.world import LEASE_S, QUEUE, SimBridge, SimDesk, Site

from aj_bridge.engine.router import Outcome
from aj_sdk.enqueue import Due, enqueue
from aj_sdk.errors import AsyncJobsError, StoreError, TaskNotFoundError
from aj_sdk.run_now import run_now
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = ["PEACE_S", "Plan", "simulate"]

PEACE_S: Final = 1200
"""How long tasks may take to end once nothing goes wrong any more: backoffs of a minute, and what depends on them."""

_SHARE: Final = 0.5


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a seed chose.

    Attributes:
        seed: it.
        tasks: the tasks, each with its delay in seconds.
        bridges: how many.
        schedules: whether items wait outside the queue.
        settings: of the queue.
        trouble_s: how long it goes wrong.
        mishaps: how often what happens to an act.
        acts: what is done from outside, and how often compared to the others.
        lossy: whether replies of handlers and words between bridges get lost or come twice.
        calm: whether nothing happens but crashes, and handlers are quick: then it is seen how fast tasks come back.
    """

    seed: int
    tasks: tuple[tuple[TaskRecord, float], ...]
    bridges: int
    schedules: bool
    settings: QueueSettings
    trouble_s: float
    mishaps: dict[Mishap, float]
    acts: dict[str, int]
    lossy: bool
    calm: bool = False

    @classmethod
    def calm_of(cls, seed: int) -> "Plan":
        """Choose a calm one."""
        chance = Random(seed)
        record = TaskRecord(id="", type="t", queue=QUEUE, state=TaskState.NEW, created_ns=0, max_tries=10)
        return cls(
            seed=seed,
            tasks=tuple((record.replace(id=f"t{number}"), 0.0) for number in range(4)),
            bridges=4,
            schedules=chance.random() < _SHARE,
            settings=QueueSettings(name=QUEUE, lease_ns=int(LEASE_S * NS_PER_S), max_run_time_ns=60 * NS_PER_S),
            trouble_s=3.0,
            mishaps={},
            acts={"crash": 1},
            lossy=False,
            calm=True,
        )

    @classmethod
    def still_of(cls, seed: int) -> "Plan":
        """Choose one in which bridges stand still, and not for long, while others come upon their tasks."""
        plan = cls.of(seed, schedules=True)
        acts = {"freeze": 8, "publish_again": 8}
        return msgspec.structs.replace(plan, acts=acts, mishaps={Mishap.UNHEARD: 0.1}, lossy=False, trouble_s=100.0)

    @classmethod
    def of(cls, seed: int, *, schedules: bool | None = None) -> "Plan":
        """Choose."""
        chance = Random(seed)
        rates = {mishap: chance.choice([0.01, 0.03]) for mishap in Mishap if chance.random() < _SHARE}
        for deadly in (Mishap.CRASH_AFTER, Mishap.CRASH_BEFORE, Mishap.FREEZE):
            if deadly in rates:
                rates[deadly] /= 4
        acts = {name: weight for name, weight in _ACTS.items() if chance.random() < _SHARE}
        full = chance.random()
        if schedules is None:
            schedules = chance.random() < 0.75
        settings = QueueSettings(
            name=QUEUE,
            lease_ns=int(LEASE_S * NS_PER_S),
            max_run_time_ns=60 * NS_PER_S,
            max_tries=chance.choice([-1, -1, 3]),
            max_entries=chance.choice([2, 3]) if full < 0.3 else -1,
            discard_old=full < 0.15,
            # (Where items wait inside their queue they take its places, and all may be taken by those who wait for one
            # that gets none: a limit of servers before 2.12 that is known.)
            max_concurrent=chance.choice([100, 100, 3]) if schedules else 100,
        )
        return cls(
            seed=seed,
            tasks=tuple(_tasks(chance, schedules=schedules)),
            bridges=chance.choice([1, 2, 2, 3]),
            schedules=schedules,
            settings=settings,
            trouble_s=chance.choice([40.0, 100.0]),
            mishaps=rates,
            acts=acts,
            lossy=chance.random() < _SHARE,
        )


def _tasks(chance: Random, *, schedules: bool) -> list[tuple[TaskRecord, float]]:
    """Make tasks; times are counted from 0, and moved to when they are enqueued."""
    made: list[tuple[TaskRecord, float]] = []
    related = chance.choice([0.0, 0.5])
    for number in range(chance.randint(1, 7)):
        parents = [record.id for record, _ in made if chance.random() < 0.5] if chance.random() < related else []
        record = TaskRecord(
            id=f"t{number}",
            type="t",
            queue=QUEUE,
            state=TaskState.BLOCKED if parents else TaskState.NEW,
            created_ns=0,
            dependencies=tuple(parents[:3]),
            load_dependencies=chance.random() < 0.3,
            max_tries=chance.randint(1, 4),
            deadline_ns=chance.randint(5, 200) * NS_PER_S if chance.random() < 0.3 else None,
        )
        made.append((record, chance.choice([3.0, 30.0]) if schedules and chance.random() < 0.2 else 0.0))
    return made


def simulate(plan: Plan) -> History:
    """Run a plan, and give what happened; what was promised about its end is judged elsewhere."""
    numbers = count(1)
    logging.disable(logging.CRITICAL)
    try:
        # The ids that come from chance and are seen by others: a seed gives the same ones each time.
        with patch("aj_sdk.retry.new_id", lambda: f"force{next(numbers)}"):
            return run_in_virtual_time(_Play(plan).run())
    finally:
        logging.disable(logging.NOTSET)


class _Play:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._chance = Random(plan.seed ^ 0x5EED)
        self._acting: set[asyncio.Task[None]] = set()

    async def run(self) -> History:
        plan = self._plan
        mishaps = Mishaps(plan.mishaps, self._chance)
        self._site = site = Site(self._chance, mishaps, plan.settings, schedules=plan.schedules)
        site.lossy = plan.lossy
        site.handle = self._handle
        for _ in range(plan.bridges):
            site.bridge()
        for record, delay_s in plan.tasks:
            self._act(self._enqueue(record, delay_s))
        await self._trouble()
        mishaps.over = True
        site.lossy = site.away = False
        site.history.note("sim", "peace")
        if all(bridge.stop.is_set() for bridge in site.bridges.values()):
            site.bridge()
        try:
            async with asyncio.timeout(PEACE_S):
                await self._over()
        except TimeoutError:
            site.history.note("sim", "it does not end")
        site.history.ended = self._ends()
        await site.bury()
        return site.history

    async def _over(self) -> None:
        while self._acting or not self._quiet():  # noqa: ASYNC110 - in virtual time a look costs nothing
            await asyncio.sleep(0.5)

    def _quiet(self) -> bool:
        site = self._site
        unfinished = any(
            not saves[-1].record.state.final
            for saves in site.history.saves.values()
            if self._there(saves[-1].stored.task_id)
        )
        busy = any(len(bridge.held) for bridge in site.bridges.values())
        waiting = any(site.world.schedule_of(QUEUE, record.id) is not None for record, _ in self._plan.tasks)
        return not (unfinished or busy or waiting or len(site.queue) or site.queue.sourced)

    def _there(self, task_id: str) -> bool:
        return self._site.world.get(task_id) is not None

    def _ends(self) -> dict[str, str]:
        """Say how each task stands at the end, and where its item does."""
        site, ends = self._site, {}
        for record, _ in self._plan.tasks:
            stored = site.world.get(record.id)
            state = "absent" if stored is None else stored.readable().state.value
            item = "item" if site.queue.sequence_of(record.id) is not None else ""
            dead = "dead" if any(task_id == record.id for _, _, task_id in site.world.dead) else ""
            ends[record.id] = " ".join(filter(None, (state, item, dead)))
        return ends

    def _handle(self, call: CallMade) -> tuple[float, Outcome]:
        done = Completed(f"{call.bridge} {call.stamp.item} {call.number}".encode())
        if self._plan.calm:
            return self._chance.uniform(0.0, 3.0), done
        seconds = self._chance.choice([0.0, 0.0, 0.1, 3.0, 25.0, 90.0])
        outcomes: tuple[Outcome, ...] = (done, Failed("why"), Failed("later", 7 * NS_PER_S), Terminated("no"))
        return seconds, self._chance.choices(outcomes, (4, 3, 1, 1))[0]

    # What goes wrong, and what is done.

    async def _trouble(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._plan.trouble_s
        names, weights = list(self._plan.acts), list(self._plan.acts.values())
        while loop.time() < end - 0.001:
            await asyncio.sleep(min(self._chance.expovariate(1 / 2), end - loop.time()))
            if names:
                name = self._chance.choices(names, weights)[0]
                self._act(getattr(self, f"_{name}")())
            if not self._site.bridges and self._chance.random() < 0.3:
                self._site.bridge()

    def _act(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._acting.add(task)
        task.add_done_callback(self._acted)

    def _acted(self, task: "asyncio.Future[None]") -> None:
        self._acting.discard(task)
        task.result()

    def _a_bridge(self) -> SimBridge | None:
        return self._chance.choice(list(self._site.bridges.values())) if self._site.bridges else None

    def _a_task(self) -> TaskRecord:
        return self._chance.choice(self._plan.tasks)[0]

    async def _cut(self) -> None:
        bridge = self._a_bridge()
        if bridge is not None:
            self._site.cut(bridge.way, self._chance.choice([0.5, 3.0, 3.0, LEASE_S - 1, LEASE_S + 5]))

    async def _freeze(self) -> None:
        bridge = self._a_bridge()
        if bridge is not None:
            self._site.freeze(bridge.way, self._chance.choice([0.5, 3.0, 3.0, LEASE_S - 1, LEASE_S + 5]))

    async def _crash(self) -> None:
        bridge = self._a_bridge()
        if bridge is not None:
            bridge.crash()
            await asyncio.sleep(self._chance.choice([0, 1, 20]))
            self._site.bridge()

    async def _drain(self) -> None:
        bridge = self._a_bridge()
        if bridge is not None and not bridge.stop.is_set():
            self._site.history.note("sim", f"{bridge.name} is to stop")
            self._site.history.gone.add(bridge.name)
            bridge.stop.set()
            self._site.bridge()

    async def _publish_again(self) -> None:
        record = self._a_task()
        stored = self._site.world.get(record.id)
        if stored is not None and not stored.readable().state.final:
            self._site.history.note("sim", f"publishes {record.id} again")
            try:
                self._site.world.publish(QUEUE, record.id, replace=True)
            except StoreError:
                return

    async def _handlers_leave(self) -> None:
        self._site.away = True
        await asyncio.sleep(self._chance.choice([1, 20]))
        self._site.away = False

    async def _cancel(self) -> None:
        record = self._a_task()
        await self._interfere(record.id, "cancel", lambda desk: desk.tasks.cancel(record.id))

    async def _retry(self) -> None:
        record = self._a_task()
        await self._interfere(record.id, "retry", lambda desk: desk.tasks.retry(record.id))

    async def _force(self) -> None:
        record = self._a_task()
        await self._interfere(record.id, "retry by force", lambda desk: desk.tasks.retry(record.id, force=True))

    async def _run_now(self) -> None:
        record = self._a_task()
        if self._plan.schedules:
            await self._at_a_desk(f"run {record.id} now", lambda desk: run_now(desk.store, record.id))

    async def _enqueue_again(self) -> None:
        record, delay_s = self._chance.choice(self._plan.tasks)
        await self._enqueue(record, delay_s, tries=1)

    async def _make_anew(self) -> None:
        """Delete a task and enqueue another one under its id."""
        record = self._a_task()
        if await self._interfere(record.id, "delete", lambda desk: desk.tasks.delete(record.id)):
            await self._enqueue(record, 0.0)

    async def _interfere(self, task_id: str, what: str, act: Callable[[SimDesk], Awaitable[object]]) -> bool:
        """Take a task away from whoever has it: until that one hears of it, two calls may overlap."""
        interfered, now = self._site.history.interfered, asyncio.get_running_loop().time
        interfered[task_id] = float("inf")
        done = await self._at_a_desk(f"{what} {task_id}", act)
        interfered[task_id] = now() + 25.0  # what a late act of the desk may still do
        return done

    async def _enqueue(self, wanted: TaskRecord, delay_s: float, tries: int = 30) -> None:
        now_ns = self._site.world.now_ns()
        deadline_ns = None if wanted.deadline_ns is None else now_ns + wanted.deadline_ns
        record = wanted.replace(created_ns=now_ns, deadline_ns=deadline_ns)
        due = Due(at_ns=now_ns + int(delay_s * NS_PER_S), outside=True) if delay_s else None

        async def act(desk: SimDesk) -> None:
            self._site.history.acknowledged.add((await enqueue(desk.store, record, due=due)).id)

        for _ in range(tries):
            if await self._at_a_desk(f"enqueue {record.id}", act):
                return
            await asyncio.sleep(0.5)

    async def _at_a_desk(self, what: str, act: Callable[[SimDesk], Awaitable[object]]) -> bool:
        """Do something as a process of its own; False when it failed, or died over it."""
        desk = self._site.desk()
        self._site.history.note(desk.process.name, what)

        async def work() -> bool:
            try:
                await act(desk)
            except StoreError as err:
                self._site.history.note(desk.process.name, f"{what} failed:", err)
                return isinstance(err, TaskNotFoundError)
            except AsyncJobsError as err:
                self._site.history.note(desk.process.name, f"{what} is not to be done:", err)
            else:
                self._site.history.note(desk.process.name, f"{what}: done")
            return True

        task = desk.process.start(work())
        while not task.done() and not desk.process.dead:
            await asyncio.wait((task,), timeout=5.0)
        return task.done() and task.result()


_ACTS: Final = {
    "cut": 8,
    "freeze": 4,
    "crash": 3,
    "drain": 2,
    "publish_again": 8,
    "handlers_leave": 2,
    "cancel": 2,
    "retry": 3,
    "force": 2,
    "run_now": 2,
    "enqueue_again": 3,
    "make_anew": 1,
}
