"""The simulated world: the storage in memory, bridges that are processes of their own, handlers, administrators.

The bridges are the real ones: processor, sweeper, election, dropped items, over the storage's protocols. What is
simulated is what lies between them: the ways, the other processes, and time.
"""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from random import Random
from typing import Any, Final

from tests.bridge.engine.bridges import Counts, Linked
from tests.bridge.engine.desk import Desk
from tests.sim.history import CallMade, History, Save
from tests.sim.loop import Process
from tests.sim.way import Mishaps, Way

from aj_bridge.core.deliver import Holder
from aj_bridge.core.retry import POLICIES
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.dropped import DroppedItems
from aj_bridge.engine.duties import on_duty
from aj_bridge.engine.election import TASK_SWEEPER, Election
from aj_bridge.engine.held import HeldClaims
from aj_bridge.engine.limits import Limits
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.peers import ASK_TIMEOUT_S
from aj_bridge.engine.processor import Processor
from aj_bridge.engine.router import Invocation, Nobody, Outcome, RouteKind, Router
from aj_bridge.engine.slots import Slots
from aj_bridge.engine.sweeper import Sweeper
from aj_bridge.storage.memory import Link, MemoryStorage, MemorySurvey, MemoryWorld
from aj_bridge.storage.memory.queue import Item
from aj_sdk.buckets import Entry
from aj_sdk.errors import ConflictError
from aj_sdk.wire.call import Completed, Failed
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.times import NS_PER_S

__all__ = ["LEASE_S", "QUEUE", "SimBridge", "SimDesk", "SimWorld", "Site"]

QUEUE: Final = "Q"
LEASE_S: Final = 10.0
_TERM_S: Final = 10.0
_SERVER: Final = contextvars.copy_context()


class SimWorld(MemoryWorld):
    """The world in memory, which tells the history what it does."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history
        self.saved = self._saved
        self.told = lambda event: history.told.add((event.task_id, event.state, event.tries))
        self._entry: Entry | None = None
        self._written = 0.0
        self._revision = 0

    def _saved(self, stored: Stored) -> None:
        history = self.history
        history.note("server", "saved", stored)
        saves = history.saves.setdefault(stored.task_id, [])
        saves.append(Save(asyncio.get_running_loop().time(), len(history.lines), stored))

    def put(self, task_id: str, body: bytes, **fields: Any) -> int:
        """See `MemoryWorld`."""
        try:
            return super().put(task_id, body, **fields)
        except ConflictError:
            stamp, current = fields.get("stamp"), self.get(task_id)
            self.history.note("server", "refused", task_id)
            if stamp is not None and (current is None or current.stamp != stamp):
                self.history.lost.add(stamp)
            raise

    def remove(self, task_id: str, sequence: int | None = None) -> None:
        """See `MemoryWorld`."""
        self.history.note("server", "removed", task_id)
        super().remove(task_id, sequence)

    def fire(self, queue: str, task_id: str, sequence: int, *, silence: bool = True) -> bool:
        """See `MemoryWorld`."""
        fired = super().fire(queue, task_id, sequence, silence=silence)
        self.history.note("server", "fires", task_id, fired)
        return fired

    # The bucket of elections.

    def leader(self) -> Entry | None:
        """Read who leads."""
        if self._entry is not None and asyncio.get_running_loop().time() >= self._written + _TERM_S:
            self._entry = None
        return self._entry

    def vote(self, value: bytes, revision: int) -> int | None:
        """Write who leads, under compare-and-set."""
        current = self.leader()
        if (0 if current is None else current.revision) != revision:
            return None
        self._revision += 1
        self._entry, self._written = Entry(value, self._revision, 0), asyncio.get_running_loop().time()
        return self._revision

    def resign(self, revision: int) -> bool:
        """Take the leader's word away."""
        current = self.leader()
        if current is None or current.revision != revision:
            return False
        self._entry = None
        return True


class Ballot:
    """`Ballot` over a way."""

    def __init__(self, world: SimWorld, way: Way) -> None:
        self._world = world
        self._way = way

    async def get(self, key: str) -> Entry | None:
        return await self._way.ask("ballot", key, self._world.leader)

    async def create(self, key: str, value: bytes) -> int | None:
        return await self.update(key, value, 0)

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        return await self._way.ask("ballot", key, lambda: self._world.vote(value, revision))

    async def delete(self, key: str, revision: int) -> bool:
        return await self._way.ask("ballot", key, lambda: self._world.resign(revision))


class Site:
    """A world with one queue, and all who are at work in it.

    Args:
        chance: decides whatever is left to chance.
        mishaps: what goes wrong on the ways.
        schedules: whether items wait outside the queue.
        settings: of the queue.
    """

    def __init__(self, chance: Random, mishaps: Mishaps, settings: QueueSettings, *, schedules: bool) -> None:
        self.chance = chance
        self.mishaps = mishaps
        self.schedules = schedules
        self.history = History()
        self.history.start = asyncio.get_running_loop().time()
        self.world = SimWorld(self.history)
        self.world.add_queue(settings)
        self.queue = self.world.queue(settings.name)
        self.queue.expired = self._expired
        self._ack, self.queue.ack = self.queue.ack, self._acked  # type: ignore[method-assign]
        self._nak, self.queue.nak = self.queue.nak, self._given_back  # type: ignore[method-assign]
        self.bridges: dict[str, SimBridge] = {}
        self.graves: list[Process] = []
        self.away = False
        self.handle: Callable[[CallMade], tuple[float, Outcome]] = lambda _call: (0.0, Completed(b"done"))
        self.lossy = False
        self._holders: dict[ItemRef, str] = {}
        self._number = 0

    # What the desk asks for.

    def tell_cancelled(self, task_id: str) -> None:
        """Tell the bridges; as core messages go, who is cut off never hears of it."""
        for bridge in self.bridges.values():
            if bridge.way.up and not (self.lossy and self.chance.random() < 0.2):
                bridge.way.hand_over(functools.partial(bridge.processor.cancelled, task_id))

    async def ask(self, asker: Linked, owner: str, task_id: str, item: ItemRef) -> Holder:
        """Ask a bridge whether it holds an item."""
        way = asker.link
        assert isinstance(way, Way)
        answer: asyncio.Future[Holder] = asyncio.get_running_loop().create_future()

        def give(holder: Holder) -> None:
            if not answer.done():
                answer.set_result(holder)

        def at_owner(bridge: SimBridge) -> None:
            holder = Holder.YES if bridge.held.holds(task_id, item) else Holder.NO
            self.history.note(bridge.name, f"says whether it holds {task_id} item {item}:", holder.value)
            bridge.way.send(lambda: way.hand_over(lambda: give(holder)))

        def at_server() -> None:
            bridge = self.bridges.get(owner)
            if bridge is None:
                way.hand_over(lambda: give(Holder.SILENT))
            else:
                bridge.way.hand_over(lambda: at_owner(bridge))

        way.send(at_server)
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                holder = await answer
        except TimeoutError:
            holder = Holder.SILENT
        self.history.note(way.process.name, f"hears of {owner[:8]} about {task_id} item {item}:", holder.value)
        return holder

    # Bridges.

    def bridge(self) -> "SimBridge":
        """Start one."""
        self._number += 1
        bridge = SimBridge(self, f"b{self._number}")
        self.bridges[bridge.name] = bridge
        return bridge

    def way(self, process: Process) -> Way:
        """Make the way of a process."""
        way = Way(process, self.chance, self.mishaps, self.history)
        way.freeze_for_a_while = lambda: self.freeze(way, self.chance.choice([0.5, 3, LEASE_S - 1, LEASE_S + 3]))
        return way

    def desk(self) -> "SimDesk":
        """Give an administrator or a producer a desk, as a process of its own."""
        self._number += 1
        return SimDesk(self, f"d{self._number}")

    def freeze(self, way: Way, seconds: float) -> None:
        """Have a process stand still for a while."""
        if not way.up or way.process.still:
            return
        self.history.note("sim", f"{way.process.name} stands still for {seconds:.1f} s")
        way.cut()
        way.process.freeze()

        def thaw() -> None:
            if not way.process.dead:
                self.history.note("sim", f"{way.process.name} goes on")
                way.mend()
                way.process.thaw()

        asyncio.get_running_loop().call_later(seconds, thaw, context=_SERVER)

    def cut(self, way: Way, seconds: float) -> None:
        """Cut a process off for a while."""
        if not way.up or way.process.still:
            return
        self.history.note("sim", f"{way.process.name} is cut off for {seconds:.1f} s")
        way.cut()

        def mend() -> None:
            if not way.process.dead:
                self.history.note("sim", f"{way.process.name} is connected again")
                way.mend()

        asyncio.get_running_loop().call_later(seconds, mend, context=_SERVER)

    def delivered(self, bridge: "SimBridge", item: Item) -> None:
        """Take down a delivery."""
        reference = ItemRef(item.sequence, item.deliveries)
        self._holders[reference] = bridge.name
        what = "delivers to " + bridge.name + (" a fired item" if item.fired else " an item")
        self.history.note("server", what, f"{item.task_id} {reference}", "silent" if item.silent else "")

    def _acked(self, sequence: int) -> None:
        item = self.queue._items.get(sequence)
        stored = None if item is None else self.world.get(item.task_id)
        if item is not None and stored is not None and item.task_id not in self.history.interfered:
            stands = self.world.schedule_of(QUEUE, item.task_id) is not None or item.task_id in self.queue.sourced
            if not (stands or stored.readable().state.final):
                self.history.break_(f"C-7 {item.task_id}: its item is acknowledged while nothing else stands for it")
        self._ack(sequence)

    def _given_back(self, sequence: int, delay_ns: int = 0) -> None:
        item = self.queue._items.get(sequence)
        if item is not None:
            # Whichever delivery it is by now: the server goes by the item.
            self.history.given_back.add(ItemRef(item.sequence, item.deliveries))
            if delay_ns > 0 and self.schedules:
                self.history.break_(f"C-9 {item.task_id}: it waits inside the queue, and takes a place there")
        self._nak(sequence, delay_ns)

    def _expired(self, item: Item) -> None:
        reference = ItemRef(item.sequence, item.deliveries)
        self.history.note("server", "a lease is over", f"{item.task_id} {reference}")
        self.history.run_out.add((self._holders.get(reference, ""), reference))

    # Handlers.

    def request(self, call: CallMade, reply: Callable[[Outcome | Nobody], None]) -> None:
        """Hand a call to a handler, which answers when it likes."""
        loop = asyncio.get_running_loop()
        if self.away:
            reply(Nobody("t"))
            return
        call.began = loop.time()
        self.history.note("handler", f"begins {call.task.id} try {call.task.tries} for {call.bridge}")
        seconds, outcome = self.handle(call)

        def end() -> None:
            if call.ended is not None:
                return
            call.ended = loop.time()
            self.history.note(
                "handler", f"ends {call.task.id} try {call.task.tries} for {call.bridge}", type(outcome).__name__
            )
            chance = self.chance.random() if self.lossy and not self.mishaps.over else 1.0
            if chance > 0.06:
                reply(outcome)
            if 0.03 < chance < 0.1:  # late, or twice; below that never
                loop.call_later(self.chance.uniform(0.1, 30), reply, outcome)

        loop.call_later(seconds, end)

    async def bury(self) -> None:
        """End everybody, dead or alive."""
        for bridge in list(self.bridges.values()):
            bridge.crash()
        for process in self.graves:
            await process.bury()


class SimBridge:
    """A bridge that is a process: the real processor, sweeper and duties over the storage in memory."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.name = name
        self.process = Process(name)
        self.way = site.way(self.process)
        self.link: Link = self.way
        self.way.crash = self.crash
        loop = asyncio.get_running_loop()
        skew_ns = int(site.chance.choice([0, 0, 0, -4, 4, 0.2]) * NS_PER_S)
        self.clock = Clock(now_ns=lambda: site.world.now_ns() + skew_ns, monotonic=loop.time)
        self.storage = MemoryStorage(site.world, QUEUE, schedules=site.schedules, link=self.way)
        items = self.storage.items
        deliver = items.deliver

        def delivered(item: Item) -> None:
            site.delivered(self, item)
            deliver(item)

        items.deliver = delivered  # type: ignore[method-assign]
        self.held = HeldClaims(name, items, self.clock)
        self.meter = Counts()
        self.processor = Processor(
            Parts(
                owner=name,
                storage=self.storage,
                dispatch=dict.fromkeys(RouteKind, self),
                peers=self,
                router=Router(),
                limits=Limits(Router()),
                policy=POLICIES["1m"],
                meter=self.meter,
                clock=self.clock,
                random=site.chance.random,
            ),
            self.held,
            Slots(site.chance.choice([1, 3, 10]), self.clock.monotonic).seat(items, lambda: len(self.held)),
        )
        self.stop = asyncio.Event()
        self.work = self.process.start(self._run())
        site.history.note("sim", f"{name} starts")

    async def _run(self) -> None:
        election = Election(
            Ballot(self.site.world, self.way),
            TASK_SWEEPER,
            self.name,
            term_s=_TERM_S,
            meter=self.meter,
            clock=self.clock,
            elected=_nothing,
        )
        survey = MemorySurvey(self.site.world, self.way)
        sweeper = Sweeper(survey, self, election, self.meter, self.clock)
        dropped = DroppedItems(self.storage, self.held, self.meter, self.clock)
        async with on_duty([election, sweeper, dropped]):
            await self.processor.run(self.stop, 15.0)
        self.leave()

    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        """See `Peers`."""
        if owner == self.name:
            return Holder.YES if self.held.holds(task_id, item) else Holder.NO
        return await self.site.ask(self, owner, task_id, item)

    async def call(self, wanted: Invocation) -> Outcome:
        """See `Dispatch`."""
        loop = asyncio.get_running_loop()
        held = next(held for held in self.held if held.invocation == wanted.id)
        history = self.site.history
        call = CallMade(self.name, held.stamp, wanted.task, loop.time(), self.clock.now_ns(), len(history.lines))
        history.note(self.name, "calls", wanted.task)
        history.calls.append(call)
        self._judge(call)
        answer: asyncio.Future[Outcome | Nobody] = loop.create_future()

        def arrived(outcome: Outcome | Nobody) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self.way._send(
            "request", lambda: self.site.request(call, lambda outcome: self.way.hand_over(lambda: arrived(outcome)))
        )
        try:
            async with asyncio.timeout(wanted.run_time_ns / NS_PER_S):
                outcome = await answer
        except TimeoutError:
            outcome = Failed("no reply")
        except asyncio.CancelledError:
            self.way._send("request", lambda: self._told_to_stop(call))
            raise
        finally:
            call.let_go = loop.time()
        if isinstance(outcome, Nobody):
            call.missed = True
            raise outcome
        if isinstance(outcome, Completed):
            call.result = outcome.result
        history.note(self.name, "hears of its handler", wanted.task, type(outcome).__name__)
        return outcome

    def _told_to_stop(self, call: CallMade) -> None:
        if call.ended is None and call.began is not None and self.site.chance.random() < 0.5:
            call.ended = asyncio.get_running_loop().time()

    def _judge(self, call: CallMade) -> None:
        history, now = self.site.history, call.sent
        if (self.name, call.stamp.item) in history.run_out and call.stamp.item not in history.given_back:
            history.break_(f"rule 0: {self.name} calls {call.task.id} without a lease")
        for other in history.calls:
            if other is call or other.task.id != call.task.id or other.let_go is not None:
                continue
            if other.bridge in history.crashed or (other.bridge, other.stamp.item) in history.run_out:
                continue
            if history.interfered.get(call.task.id, -1.0) >= other.sent:
                continue  # somebody took it away from its bridge, who tells its handler
            bridge = self.site.bridges.get(other.bridge)
            if bridge is not None and (now - bridge.way.since >= LEASE_S or not bridge.has(other.stamp)):
                continue  # cut off for a lease, or was, and knows it
            history.break_(f"I-8 {call.task.id}: {self.name} calls it while {other.bridge} does, which lost nothing")

    def has(self, stamp: Stamp) -> bool:
        """Say whether it believes that a claim is its own."""
        return any(held.stamp == stamp and self.held.valid(held) for held in self.held)

    def crash(self) -> None:
        """Stop dead, at this very await."""
        if self.process.dead:
            return
        self.site.history.note("sim", f"{self.name} crashes")
        self.site.history.crashed[self.name] = asyncio.get_running_loop().time()
        self.site.history.gone.add(self.name)
        self.process.die()
        self.leave()

    def leave(self) -> None:
        """The server sees that it is gone."""
        self.site.bridges.pop(self.name, None)
        self.site.queue.detach(self.storage.items)
        if self.process not in self.site.graves:
            self.site.graves.append(self.process)


class SimDesk(Desk):
    """A producer or an administrator, as a process that may die over its work."""

    def __init__(self, site: Site, name: str) -> None:
        self.process = Process(name)
        way = site.way(self.process)
        super().__init__(site, way)
        self.site = site
        way.crash = self._crash
        site.graves.append(self.process)

    def _crash(self) -> None:
        self.site.history.note("sim", f"{self.process.name} crashes")
        self.site.history.crashed[self.process.name] = asyncio.get_running_loop().time()
        self.process.die()


async def _nothing() -> None:
    pass
