"""Several bridges in a world where everything goes wrong, in virtual time: the promises hold, and all tasks end.

The real processor on the storage in memory. A seed decides what goes wrong and when; after a few minutes the world is
left in peace, and what was recorded is judged.
"""

import asyncio
import contextlib
import logging
from base64 import b64encode
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from random import Random
from typing import Any, Final

import pytest
from tests.bridge.engine.bridges import QUEUE, BridgeAtWork, Invocation, Outcome, Site, site
from tests.bridge.engine.desk import Desk
from tests.virtual_time import virtual_time

from aj_bridge.core.claim import Claim
from aj_bridge.core.lifecycle import EDGES, Event
from aj_bridge.engine.held import Held
from aj_bridge.storage.memory import Fault
from aj_sdk.enqueue import enqueue
from aj_sdk.errors import (
    AsyncJobsError,
    ConflictError,
    DeadlinePassedError,
    OutcomeUnknownError,
    RefusedError,
    StoreError,
    TaskNotFoundError,
    TaskStateError,
)
from aj_sdk.tasks import Tasks
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.stamp import ItemRef
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.times import NS_PER_S

LEASE_S: Final = 10.0
TROUBLE_S: Final = 300
PEACE_S: Final = 1500
TASKS: Final = 12
_CHANGES: Final = {(edge.before, edge.after) for edge in EDGES}
_NEW_RUN: Final = {(edge.before, edge.after) for edge in EDGES if edge.event in (Event.RETRIED, Event.FORCED)}


class Trouble:
    """What goes wrong, as a seed decides."""

    def __init__(self, here: Site, seed: int) -> None:
        self.here = here
        self.chance = Random(seed)
        self.bridges: list[BridgeAtWork] = []
        self.over = False
        self.wrong: list[str] = []
        self.interfered: dict[str, float] = {}
        here.handlers.before_call = self.judge_call
        self.run_out: set[ItemRef] = set()
        here.world.queue(QUEUE).expired = lambda item: self.run_out.add(ItemRef(item.sequence, item.deliveries))

    def bridge(self) -> BridgeAtWork:
        bridge = self.here.bridge(concurrency=self.chance.choice([1, 3, 10]), random=self.chance.random)
        bridge.link.latency_s = self.chance.choice([0.0, 0.001, 0.2, 1.0])
        bridge.link.faults = self.faults
        bridge.start()
        self.bridges.append(bridge)
        return bridge

    def faults(self, act: str, _about: object) -> Fault | None:
        if self.over or self.chance.random() > 0.04:
            return None
        error = self.chance.choice([OutcomeUnknownError(act), RefusedError(act, 503, "no")])
        return Fault(error, applied=isinstance(error, OutcomeUnknownError) and self.chance.random() < 0.5)

    async def handler(self, call: Invocation) -> Outcome:
        await asyncio.sleep(self.chance.choice([0.0, 0.1, 3.0, 50.0, 90.0]))
        done, failed, later = Completed(call.invocation.encode()), Failed("why"), Failed("later", 7 * NS_PER_S)
        outcomes: tuple[Outcome, ...] = (done, failed, later, Terminated("no"))
        return self.chance.choices(outcomes, (4, 3, 1, 1))[0]

    def judge_call(self, call: Invocation) -> None:
        """Note a call by who has lost its lease, and one that overlaps another whose lease is not over."""
        mine = self.claim_of(call)
        if mine is None or self.taken_away(mine.claim):
            self.wrong.append(f"rule 0: {call.bridge} calls {call.task.id} without a lease")
        for other in self.here.handlers.calls:
            if other.task.id == call.task.id and other.ended is None:
                held = self.claim_of(other)
                away = held is None or self.taken_away(held.claim) or self.was_away(other.bridge, held)
                if not away and self.interfered.get(call.task.id, 0.0) < other.began:
                    self.wrong.append(f"I-8: {other.bridge} and {call.bridge} call {call.task.id}")

    def claim_of(self, call: Invocation) -> Held | None:
        bridge = next((bridge for bridge in self.bridges if bridge.name == call.bridge), None)
        if bridge is None:
            return None  # it crashed
        return next((held for held in bridge.held if held.active is not None and held.active == call.task), None)

    def taken_away(self, claim: Claim) -> bool:
        """Say whether the lease of a claim ran out on the server, sooner or later."""
        return claim.item in self.run_out

    def was_away(self, name: str, held: Held) -> bool:
        """Say whether a bridge is cut off, and has been for a lease, or knows that it was."""
        bridge = next(bridge for bridge in self.bridges if bridge.name == name)
        away_s = asyncio.get_running_loop().time() - bridge.link.since
        return away_s >= LEASE_S or not bridge.held.valid(held)

    async def make(self) -> None:
        """Let things go wrong for a while, then heal."""
        acts: list[tuple[int, Callable[[], Any]]] = [
            (8, self.cut),
            (4, self.stutter),
            (3, self.crash),
            (2, self.drain),
            (12, self.publish_again),
            (2, self.handlers_leave),
            (2, self.cancel),
            (3, self.retry),
            (2, self.start_over),
            (1, self.make_anew),
        ]
        loop = asyncio.get_running_loop()
        end = loop.time() + TROUBLE_S
        async with asyncio.TaskGroup() as group:
            while loop.time() < end:
                await asyncio.sleep(self.chance.expovariate(1 / 2))
                act = self.chance.choices([act for _, act in acts], [weight for weight, _ in acts])[0]
                group.create_task(act())
        self.over = True
        self.here.handlers.away.clear()
        if not self.bridges:
            self.bridge()

    async def cut(self) -> None:
        if self.bridges:
            bridge = self.chance.choice(self.bridges)
            bridge.link.cut()
            await asyncio.sleep(self.chance.choice([0.5, 3.0, 3.0, LEASE_S - 1, LEASE_S + 5]))
            bridge.link.mend()

    async def stutter(self) -> None:
        """Cut a bridge off again and again, never for as long as a lease."""
        if self.bridges:
            bridge = self.chance.choice(self.bridges)
            for _ in range(6):
                bridge.link.cut()
                await asyncio.sleep(self.chance.uniform(2.5, 6))
                bridge.link.mend()
                await asyncio.sleep(self.chance.uniform(0.2, 6))

    async def crash(self) -> None:
        if self.bridges:
            bridge = self.bridges.pop(self.chance.randrange(len(self.bridges)))
            await bridge.crash()
            await asyncio.sleep(self.chance.choice([0, 1, 20]))
            self.bridge()

    async def drain(self) -> None:
        if self.bridges:
            bridge = self.chance.choice(self.bridges)
            if not bridge.stop.is_set():
                await bridge.drain()
                if bridge in self.bridges:  # else it crashed meanwhile
                    self.bridges.remove(bridge)
                    self.bridge()

    async def publish_again(self) -> None:
        name = self.chance.choice(list(names()))
        stored = self.here.world.get(name)
        if stored is not None and stored.record is not None and not stored.record.state.final:
            self.here.world.publish(QUEUE, name, replace=True)

    async def handlers_leave(self) -> None:
        self.here.handlers.away.add("t")
        await asyncio.sleep(self.chance.choice([1, 20]))
        self.here.handlers.away.discard("t")

    def desk(self) -> Desk:
        desk = Desk(self.here)
        desk.link.latency_s = self.chance.choice([0.0, 0.0, 0.1, 1.0])
        desk.link.faults = self.faults
        return desk

    async def cancel(self) -> None:
        name, tasks = self.chance.choice(names()), self.desk().tasks
        self.interfered[name] = asyncio.get_running_loop().time()
        await insist(lambda: tasks.cancel(name))
        self.interfered[name] = asyncio.get_running_loop().time()

    async def retry(self) -> None:
        name, tasks = self.chance.choice(names()), self.desk().tasks
        # One without an answer may have begun, and have no item yet: then it is no retry of an ended task any more.
        await insist(lambda: tasks.retry(name), lambda: self.force(tasks, name))

    async def start_over(self) -> None:
        name, tasks = self.chance.choice(names()), self.desk().tasks
        await insist(lambda: self.force(tasks, name))

    async def make_anew(self) -> None:
        """Delete a task and enqueue another one under its id."""
        name, desk = self.chance.choice(names()), self.desk()
        stored = self.here.world.get(name)
        if stored is None:
            return  # somebody else is at it
        self.interfered[name] = asyncio.get_running_loop().time()
        await insist(lambda: desk.tasks.delete(name))
        self.interfered[name] = asyncio.get_running_loop().time()
        await insist(lambda: enqueue(desk.store, stored.readable().fresh()), but=())

    async def force(self, tasks: Tasks, name: str) -> None:
        def interfered(record: logging.LogRecord | None = None) -> None:
            if record is None or (record.args and name in record.args):
                self.interfered[name] = asyncio.get_running_loop().time()

        # It says when a call may go on beside the new run; without an answer it could not say it.
        with told_by("aj_sdk.retry", interfered):
            try:
                await tasks.retry(name, force=True)
            except AsyncJobsError:
                interfered()
                raise


NOT_TO_BE_DONE: Final = (TaskStateError, DeadlinePassedError, TaskNotFoundError, ConflictError)


async def insist(
    *acts: Callable[[], Awaitable[object]], but: tuple[type[AsyncJobsError], ...] = NOT_TO_BE_DONE
) -> None:
    """Do something until it is done or can't be done; without an answer go on with the next act, the last for ever."""
    left = list(acts)
    while True:
        try:
            await left[0]()
        except but:
            return
        except StoreError:
            await asyncio.sleep(0.5)
            left = left[1:] or left
        else:
            return


@contextlib.contextmanager
def told_by(logger: str, tell: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Hear what is logged, as it is logged."""
    handler = logging.Handler()
    handler.emit = tell  # type: ignore[method-assign,assignment]
    logging.getLogger(logger).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(logger).removeHandler(handler)


def names() -> list[str]:
    return [f"t{number}" for number in range(TASKS)]


async def run(seed: int, here: Site) -> Trouble:
    trouble = Trouble(here, seed)
    here.handlers.on("t", trouble.handler)
    for _ in range(3):
        trouble.bridge()
    now_ns = here.world.now_ns()
    for number, name in enumerate(names()):
        # 3 waits for 1 and 2, 7 for 5, 6 and 3, and so on: ends are passed on.
        parents = tuple(names()[index] for index in (number - 2, number - 1, number - 4) if index >= 0)
        parents = parents if number % 4 == 3 else ()
        deadline_ns = now_ns + trouble.chance.randint(1, 200) * NS_PER_S if number % 2 else None
        here.enqueue(name, dependencies=parents, deadline_ns=deadline_ns, max_tries=trouble.chance.randint(1, 6))
    await trouble.make()
    async with asyncio.timeout(PEACE_S):
        await here.ended(*names())
        await here.quiet()
    for bridge in list(trouble.bridges):
        await bridge.drain()
    return trouble


def judge(here: Site, trouble: Trouble) -> None:
    history = defaultdict(list)
    for _, stored in here.saves:
        assert stored.record is not None
        history[stored.task_id].append(stored)
    calls = defaultdict(list)
    for call in here.handlers.calls:
        calls[call.task.id].append(call)
    assert not trouble.wrong
    for name in names():
        runs = runs_of(history[name])
        for run_saves in runs:
            judge_run(here, run_saves, calls[name], last=run_saves is runs[-1])
        assert not calls[name], f"I-3 {name}: calls without a save"
        last = history[name][-1].record
        assert last is not None
        if last.state in (TaskState.EXPIRED, TaskState.TERMINATED, TaskState.UNREACHABLE):
            assert (last.state.value, QUEUE, name) in here.world.dead, "C-10"
        assert here.world.standing(QUEUE, name) is None or last.state.final


def runs_of(saves: list[Stored]) -> list[list[Stored]]:
    """Split a task's history at each retry."""
    runs = [saves[:1]]
    for before, after in pairwise(saves):
        assert before.record is not None
        assert after.record is not None
        again = before.record == after.record and after.record.state is TaskState.ACTIVE  # after a standstill
        change = (before.record.state, after.record.state)
        assert again or change in _CHANGES, f"I-1 {before.task_id}: {change}"
        if change in _NEW_RUN and after.stamp is None:
            assert after.record.tries == 0
            runs.append([])
        runs[-1].append(after)
    return runs


def judge_run(here: Site, saves: list[Stored], calls: list[Invocation], *, last: bool) -> None:
    """Judge one run of a task, and take its calls out of those of the task."""
    records = [stored.record for stored in saves if stored.record is not None]
    name, end = records[0].id, records[-1]
    finals = [record.state.final for record in records]
    assert not any(finals[:-1]), f"I-2 {name}: a save after the final one"
    assert finals[-1] or not last, f"I-4 {name}"
    assert not end.max_tries or end.tries <= end.max_tries, "C-6"
    ours = [call for call in calls if call.task in records]
    calls[:] = [call for call in calls if call not in ours]
    assert len(ours) <= max(record.tries for record in records), "I-7"
    for call in ours:
        owners = [stored.stamp for stored in saves if stored.record == call.task and stored.stamp is not None]
        assert any(stamp.owner == call.bridge for stamp in owners), "I-3"
        assert call.task.deadline_ns is None or wall(here, call.began) <= call.task.deadline_ns, "I-11"
        for parent in call.task.dependencies:
            done = [at for at, stored in here.saves if stored.task_id == parent and is_complete(stored)]
            assert done, "I-9"
            assert done[0] <= call.began, "I-9"
    if end.state is TaskState.COMPLETE:
        assert end.result is not None
        outcomes = [call.outcome for call in ours]
        assert any(isinstance(each, Completed) and same(each, end.result.payload) for each in outcomes), "I-6"
    if end.state is TaskState.UNREACHABLE:
        assert not ours, "I-10"


def same(outcome: Completed, payload: object) -> bool:
    return payload == b64encode(outcome.result).decode()


def is_complete(stored: Any) -> bool:
    return stored.record is not None and stored.record.state is TaskState.COMPLETE


def wall(here: Site, loop_s: float) -> int:
    return here.world.now_ns() - int((asyncio.get_running_loop().time() - loop_s) * NS_PER_S)


@virtual_time
@pytest.mark.parametrize("schedules", [True, False])
@pytest.mark.parametrize("seed", range(40))
async def test_whatever_goes_wrong_the_promises_hold(seed: int, schedules: bool) -> None:
    here = site(lease_s=LEASE_S, schedules=schedules, max_run_time_ns=60 * NS_PER_S)
    judge(here, await run(seed, here))
