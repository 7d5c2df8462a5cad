"""Bridges on a world in memory: the real processor, handlers that do what a test says, peers that can fall silent."""

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import msgspec

from aj_bridge.core.deliver import Holder
from aj_bridge.core.retention import KEEP_ALL, Retention
from aj_bridge.core.retry import POLICIES, RetryPolicy
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.dispatch import Dispatch
from aj_bridge.engine.held import HeldClaims
from aj_bridge.engine.journal import Journal
from aj_bridge.engine.journaled import JournaledStorage, journaled
from aj_bridge.engine.limits import Limits
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.peers import ASK_TIMEOUT_S
from aj_bridge.engine.processor import Processor
from aj_bridge.engine.router import Invocation as Wanted
from aj_bridge.engine.router import Nobody, RouteKind, Router
from aj_bridge.engine.slots import Slots
from aj_bridge.storage.memory import Fault, Link, MemoryStorage, MemoryWorld
from aj_bridge.storage.protocols import Storage
from aj_sdk.errors import RefusedError
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.signing import Verifier
from aj_sdk.wire.stamp import ItemRef
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

QUEUE = "Q"
DONE = Completed(b"done")
Outcome = Completed | Failed | Terminated
Handler = Callable[["Invocation"], Awaitable[Outcome]]


class Invocation(msgspec.Struct):
    """One call of a handler."""

    bridge: str
    task: TaskRecord
    subject: str
    invocation: str
    run_time_ns: int
    began: float
    ended: float | None = None
    outcome: Outcome | None = None

    @property
    def span(self) -> tuple[float, float]:
        return self.began, float("inf") if self.ended is None else self.ended


class Handlers:
    """What the handlers of all bridges do, and what they were asked; `Dispatch` for each bridge by `of`."""

    def __init__(self) -> None:
        self.calls: list[Invocation] = []
        self.away: set[str] = set()
        self.misses: list[tuple[float, str]] = []
        self.before_call: Callable[[Invocation], None] = lambda _call: None
        self._by_type: dict[str, Handler] = {}
        self._changed = asyncio.Condition()

    def on(self, task_type: str, handler: Handler) -> None:
        self._by_type[task_type] = handler

    def answers(self, task_type: str, *outcomes: Outcome) -> None:
        """Have a type give these outcomes in turn, the last one for ever."""
        left = list(outcomes)

        async def handler(_call: Invocation) -> Outcome:
            return left.pop(0) if len(left) > 1 else left[0]

        self.on(task_type, handler)

    def takes(self, task_type: str, seconds: float, outcome: Outcome = DONE) -> None:
        """Have a type work for a while."""

        async def handler(_call: Invocation) -> Outcome:
            await asyncio.sleep(seconds)
            return outcome

        self.on(task_type, handler)

    def of(self, bridge: str) -> "HandlersOfOne":
        return HandlersOfOne(self, bridge)

    async def begun(self, calls: int) -> None:
        """Wait until so many calls have begun."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.calls) >= calls)

    async def invoke(self, call: Invocation) -> Outcome:
        loop = asyncio.get_running_loop()
        self.before_call(call)
        self.calls.append(call)
        async with self._changed:
            self._changed.notify_all()
        handler = self._by_type.get(call.task.type)
        outcome: Outcome = DONE
        try:
            async with asyncio.timeout(call.run_time_ns / NS_PER_S):
                if handler is not None:
                    outcome = await handler(call)
        except TimeoutError:
            outcome = Failed("no reply")
        finally:
            call.ended = loop.time()
        call.outcome = outcome
        return outcome


class HandlersOfOne:
    def __init__(self, handlers: Handlers, bridge: str) -> None:
        self._handlers = handlers
        self._bridge = bridge

    async def call(self, wanted: Wanted) -> Outcome:
        await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        task, subject = wanted.task, wanted.route.subject(wanted.task.type)
        if task.type in self._handlers.away:
            self._handlers.misses.append((now, task.id))
            raise Nobody(subject)
        return await self._handlers.invoke(Invocation(self._bridge, task, subject, wanted.id, wanted.run_time_ns, now))


class Neighbours:
    """All bridges of a world, asking each other; `Peers` for each by `of`."""

    def __init__(self) -> None:
        self.running: dict[str, BridgeAtWork] = {}
        self.asked: list[tuple[str, str]] = []
        self.on_ask: Callable[[], None] = lambda: None

    def of(self, bridge: "BridgeAtWork") -> "Asking":
        return Asking(self, bridge)


class Linked(Protocol):
    link: Link


class Asking:
    def __init__(self, neighbours: Neighbours, asker: Linked) -> None:
        self._neighbours = neighbours
        self._asker = asker

    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        self._neighbours.asked.append((owner, task_id))
        self._neighbours.on_ask()
        other = self._neighbours.running.get(owner)
        if other is None:
            return Holder.SILENT  # nobody listens: the server says so at once
        if not (other.link.up and self._asker.link.up):
            await asyncio.sleep(ASK_TIMEOUT_S)
            return Holder.SILENT
        await asyncio.sleep(0)
        return Holder.YES if other.held.holds(task_id, item) else Holder.NO


class Counts:
    """`Meter` that keeps what it is told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.labels: list[tuple[str, dict[str, str]]] = []

    def inc(self, name: str, /, **labels: str) -> None:
        self.counts[name] += 1
        self.labels.append((name, labels))

    def set(self, name: str, value: float, /, **labels: str) -> None:
        pass

    def add(self, name: str, by: float, /, **labels: str) -> None:
        self.counts[name] += int(by)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        self.counts[name] += 1


@dataclass
class Site:
    """A world with one queue, its handlers, and what was saved in it."""

    world: MemoryWorld
    handlers: Handlers = field(default_factory=Handlers)
    neighbours: Neighbours = field(default_factory=Neighbours)
    saves: list[tuple[float, Stored]] = field(default_factory=list)
    events: list[TaskStateEvent] = field(default_factory=list)
    queue: str = QUEUE
    schedules: bool = True
    number: int = 0

    def __post_init__(self) -> None:
        self._changed = asyncio.Event()
        self.world.saved = self._saved
        self.world.told = self.events.append

    def _saved(self, stored: Stored) -> None:
        self.saves.append((asyncio.get_running_loop().time(), stored))
        self._changed.set()

    def states(self, task_id: str) -> list[str]:
        """Return the states that a task went through."""
        return [
            stored.record.state.value
            for _, stored in self.saves
            if stored.task_id == task_id and stored.record is not None
        ]

    def enqueue(self, task_id: str, task_type: str = "t", **fields: Any) -> TaskRecord:
        state = TaskState.BLOCKED if fields.get("dependencies") else TaskState.NEW
        record = TaskRecord(
            id=task_id, type=task_type, queue=self.queue, state=state, created_ns=self.world.now_ns(), **fields
        )
        self.world.put(task_id, record.to_wire(), expected=0)
        self.world.publish(self.queue, task_id)
        return record

    def record(self, task_id: str) -> TaskRecord:
        stored = self.world.get(task_id)
        assert stored is not None
        assert stored.record is not None
        return stored.record

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until something holds, looking after each save."""
        while not predicate():
            self._changed.clear()
            await self._changed.wait()

    async def ended(self, *task_ids: str) -> list[TaskRecord]:
        """Wait until tasks are final."""
        await self.until(lambda: all(self.record(task_id).state.final for task_id in task_ids))
        return [self.record(task_id) for task_id in task_ids]

    async def quiet(self) -> None:
        """Wait until the queue is empty."""
        while len(self.world.queue(self.queue)):  # noqa: ASYNC110 - in virtual time a look costs nothing
            await asyncio.sleep(0.05)

    async def until_busy(self, bridge: "BridgeAtWork") -> None:
        """Wait until a bridge has a claim in hand."""
        while not bridge.processor.busy:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)

    def tell_cancelled(self, task_id: str) -> None:
        """Tell all bridges that a task was cancelled; who is cut off hears of it later."""
        for bridge in self.neighbours.running.values():
            bridge.link.hand_over(functools.partial(bridge.processor.cancelled, task_id))

    async def ask(self, asker: Linked, owner: str, task_id: str, item: ItemRef) -> Holder:
        """Ask a bridge whether it holds an item."""
        return await Asking(self.neighbours, asker).ask(owner, task_id, item)

    def bridge(self, name: str = "", **options: Any) -> "BridgeAtWork":
        self.number += 1
        return BridgeAtWork(self, name or f"b{self.number}", **options)


class BridgeAtWork:
    """A bridge: the real processor over a storage in memory."""

    def __init__(
        self,
        site: Site,
        name: str,
        *,
        concurrency: int = 10,
        policy: RetryPolicy = POLICIES["1m"],
        router: Router | None = None,
        grace_s: float = 10.0,
        random: Callable[[], float] = lambda: 0.0,
        verifier: Verifier | None = None,
        keep_all_attempts: bool = False,
        retention: Retention = KEEP_ALL,
        lines: Callable[[bytes], None] | None = None,
    ) -> None:
        self.name = name
        self.link = Link()
        self.meter = Counts()
        self.site = site
        self.grace_s = grace_s
        self.storage = MemoryStorage(site.world, site.queue, schedules=site.schedules, link=self.link)
        self.clock = clock = Clock(now_ns=site.world.now_ns, monotonic=asyncio.get_running_loop().time)
        journal = None if lines is None else Journal(name, lines, clock)
        dispatch: dict[RouteKind, Dispatch] = dict.fromkeys(RouteKind, site.handlers.of(name))
        storage: Storage = self.storage if journal is None else JournaledStorage(self.storage, journal)
        self.held = HeldClaims(name, storage.items, clock)
        self.processor = Processor(
            Parts(
                owner=name,
                storage=storage,
                dispatch=dispatch if journal is None else journaled(dispatch, journal),
                journal=journal,
                peers=site.neighbours.of(self),
                router=router or Router(),
                keep_all_attempts=keep_all_attempts,
                limits=Limits(router or Router()),
                policy=policy,
                meter=self.meter,
                clock=clock,
                random=random,
                verifier=verifier,
                retention=retention,
            ),
            self.held,
            Slots(concurrency, clock.monotonic).seat(self.storage.items, lambda: len(self.held)),
        )
        self.stop = asyncio.Event()
        self._task: asyncio.Task[int] | None = None

    def start(self) -> None:
        self.site.neighbours.running[self.name] = self
        self._task = asyncio.create_task(self.processor.run(self.stop, self.grace_s))

    async def drain(self) -> int:
        """Stop in an orderly way; returns how many claims were cancelled."""
        assert self._task is not None
        self.stop.set()
        try:
            return await self._task
        finally:
            self._task = None
            self.site.neighbours.running.pop(self.name, None)

    async def crash(self) -> None:
        """End as kill -9 does: nothing more is sent, and nobody answers."""
        self.link.cut()
        self.site.neighbours.running.pop(self.name, None)
        await self.storage.items.close()
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait((task,))

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            if self._task.done():
                await self._task  # it failed: show why
            self.grace_s = 0.0
            await self.crash()


def site(*, lease_s: float = 30.0, schedules: bool = True, max_payload: int = 1024 * 1024, **queue: Any) -> Site:
    """Make a world with one queue."""
    world = MemoryWorld(max_payload=max_payload)
    settings = QueueSettings(name=QUEUE, lease_ns=int(lease_s * NS_PER_S), **queue)
    world.add_queue(settings)
    return Site(world, schedules=schedules)


@contextlib.asynccontextmanager
async def one_bridge(**settings: Any) -> AsyncIterator[tuple[Site, BridgeAtWork]]:
    """Give a world with one bridge at work."""
    here = site(**settings)
    async with here.bridge() as bridge:
        yield here, bridge


def failing(act: str, fault: Fault, times: int = 1, when: Callable[[Any], bool] = lambda _: True) -> Any:
    """Make `Link.faults` that fail an act so many times."""
    left = [times]

    def faults(name: str, about: object) -> Fault | None:
        if name != act or left[0] <= 0 or not when(about):
            return None
        left[0] -= 1
        return fault

    return faults


REFUSED = Fault(RefusedError("test", 503, "no"))
