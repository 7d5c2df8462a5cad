"""A bridge: one process that takes the items of its queues to their handlers.

`Bridge.run` is the whole life cycle: bind the queues, answer other bridges, take up the duties, work, drain.
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from aj_bridge.core.retention import KEEP_ALL, Retention
from aj_bridge.core.retry import POLICIES, RetryPolicy
from aj_bridge.engine.cancels import Cancels
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.commands import Commands
from aj_bridge.engine.control import control_answers
from aj_bridge.engine.dispatch import Dispatch, RemoteHandlers
from aj_bridge.engine.dropped import DroppedItems
from aj_bridge.engine.duties import Duty, on_duty
from aj_bridge.engine.functions import Functions
from aj_bridge.engine.gauges import Gauges
from aj_bridge.engine.held import HeldClaims
from aj_bridge.engine.journal import Journal
from aj_bridge.engine.journaled import JournaledPeers, JournaledStorage, journaled
from aj_bridge.engine.limits import Limits
from aj_bridge.engine.meter import POLL_ERRORS, POLLS, STRAY_REPLIES, Meter, NoMeter
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.peers import NatsPeers, Peers
from aj_bridge.engine.processor import Processor
from aj_bridge.engine.progress import ProgressTeller
from aj_bridge.engine.rates import Rates
from aj_bridge.engine.router import RouteKind, Router
from aj_bridge.engine.service import BridgeService
from aj_bridge.engine.settings import SettingsWatch
from aj_bridge.engine.slots import Seat, Slots
from aj_bridge.engine.sweeper import EVERY_S
from aj_bridge.engine.sweeping import Sweeping
from aj_bridge.storage.jetstream import PULL_S, SHORT_PULL_S, open_storage
from aj_bridge.storage.protocols import Storage
from aj_sdk.errors import InvalidConfigError
from aj_sdk.ids import new_id
from aj_sdk.jetstream import JetStream
from aj_sdk.transport import NatsTransport
from aj_sdk.version import __version__
from aj_sdk.wire.bridge import BridgeStatus, ServedStatus
from aj_sdk.wire.names import check_name
from aj_sdk.wire.queue import MAX_WEIGHT
from aj_sdk.wire.signing import Verifier
from aj_sdk.wire.stamp import ItemRef

__all__ = ["Bridge", "BridgeOptions", "Line", "ServedQueue"]


class ServedQueue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue that a bridge serves.

    Attributes:
        name: the queue.
        weight: its part of the slots, beside the other queues; None for the one that is stored with the queue.

    Raises:
        InvalidNameError: the name is none.
        InvalidConfigError: the weight is not 1 to 1000.
    """

    name: str
    weight: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "queue name")
        if self.weight is not None and not 1 <= self.weight <= MAX_WEIGHT:
            raise InvalidConfigError((f"queue {self.name}: weight must be 1 to {MAX_WEIGHT}",))


class BridgeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a bridge works.

    Attributes:
        queues: the queues, which must be there; at least one, none twice.
        router: which types it takes, and where they go.
        concurrency: tasks in hand at once, over all queues.
        policy: the backoff.
        adopt: let items of a queue that the Go project made wait outside it.
        grace_s: seconds that tasks in hand may take when the bridge stops.
        verifier: what looks at the signatures of tasks; None where they are not looked at.
        retention: what becomes of the records of tasks that have ended.
        keep_all_attempts: tell also of the attempts that completed; one more message for each task.
        sweep_every_s: seconds between two sweeps, where this bridge is elected for them.

    Raises:
        InvalidConfigError: no queue, or one that is there twice.
    """

    queues: tuple[ServedQueue, ...]
    router: Router = msgspec.field(default_factory=Router)
    concurrency: int = 100
    policy: RetryPolicy = POLICIES["default"]
    adopt: bool = True
    grace_s: float = 30.0
    verifier: Verifier | None = None
    retention: Retention = KEEP_ALL
    keep_all_attempts: bool = False
    sweep_every_s: float = EVERY_S

    def __post_init__(self) -> None:
        names = [queue.name for queue in self.queues]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise InvalidConfigError(tuple(f"queue {name} is there twice" for name in twice) or ("no queue to serve",))


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One queue at work.

    Attributes:
        storage: the queue.
        held: its claims in hand.
        seat: its place at the slots.
        processor: what works on it.
        rates: how fast its calls go.
    """

    storage: Storage
    held: HeldClaims
    seat: Seat
    processor: Processor
    rates: Rates

    @property
    def status(self) -> ServedStatus:
        """How it stands."""
        tally = self.processor.tally
        calls_per_s, failed_per_s = self.rates.per_s
        return ServedStatus(
            name=self.storage.items.settings.name,
            weight=self.seat.weight,
            in_hand=len(self.held),
            running=self.seat.running,
            calls=tally.calls,
            failed=tally.failed,
            calls_per_s=round(calls_per_s, 3),
            failed_per_s=round(failed_per_s, 3),
        )


class Bridge:
    """A bridge on a connection that somebody else opens and closes.

    Args:
        jetstream: the API of the account.
        options: how it works.
        meter: what is counted.
        journal: takes a line for each step, see `Journal`; None for no journal.
    """

    def __init__(
        self,
        jetstream: JetStream,
        options: BridgeOptions,
        meter: Meter | None = None,
        journal: Callable[[bytes], None] | None = None,
    ) -> None:
        self.id = new_id()
        self.options = options
        self._jetstream = jetstream
        self._meter = meter or NoMeter()
        self._clock = Clock()
        self._journal = None if journal is None else Journal(self.id, journal, self._clock)
        self._limits = Limits(options.router)
        self._slots = Slots(options.concurrency, self._clock.monotonic)
        self._started_ns = self._clock.now_ns()
        self._lines: list[Line] = []
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    def stop(self) -> None:
        """Begin to drain; asked a second time, wait for the tasks in hand no longer."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def drain(self) -> None:
        """Begin to drain; asked again, nothing more happens."""
        self._stop.set()

    async def set_concurrency(self, number: int) -> None:
        """Work on so many tasks at once from now on; what runs beyond that ends in its own time."""
        fewer = number < self._slots.number
        self._slots.resize(number)
        if fewer:
            await self._take_back()

    async def pause(self) -> None:
        """Take no new work; what is in hand goes on."""
        self._slots.pause()
        await self._take_back()

    def resume(self) -> None:
        """Take work again after a pause."""
        self._slots.resume()

    @property
    def silent_s(self) -> float:
        """For how many seconds the server has not answered; 0 before the queues are bound."""
        since = min((line.storage.pulse.since for line in self._lines), default=None)
        return 0.0 if since is None else self._clock.monotonic() - since

    @property
    def status(self) -> BridgeStatus:
        """How it stands."""
        return BridgeStatus(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            started_ns=self._started_ns,
            state="draining" if self._stop.is_set() else "paused" if self._slots.paused else "working",
            concurrency=self._slots.number,
            in_hand=sum(len(line.held) for line in self._lines),
            queues=tuple(line.status for line in self._lines),
        )

    async def run(self, ready: Callable[[Sequence[Line]], None] | None = None) -> int:
        """Work until `stop`.

        Args:
            ready: called once when the queues are bound and work begins.

        Returns:
            How many tasks in hand were cancelled because the grace period was over.

        Raises:
            QueueNotFoundError: a queue is not there.
            StoreError: the store failed while binding.
            LifespanError: what its functions need could not be set up.
        """
        peers = NatsPeers(self._jetstream.transport, self.id, self._holds)
        transport = self._jetstream.transport
        if isinstance(transport, NatsTransport):
            transport.on_stray = lambda _message: self._meter.inc(STRAY_REPLIES)
        teller = ProgressTeller(transport, self._clock)
        functions = Functions(self._clock, teller)
        dispatch: dict[RouteKind, Dispatch] = {
            RouteKind.REMOTE: RemoteHandlers(transport, self._clock),
            RouteKind.FUNCTION: functions,
            RouteKind.COMMAND: Commands(self._clock, teller, max_output=transport.max_payload, environ=os.environ),
        }
        asked: Peers = peers
        if self._journal is not None:
            dispatch, asked = journaled(dispatch, self._journal), JournaledPeers(peers, self._journal)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(functions.close)
            services = [route.service for route in self.options.router.routes if route.service is not None]
            await functions.begin(services, self._stop)
            for queue in self.options.queues:
                self._lines.append(await stack.enter_async_context(self._line(queue, asked, dispatch)))
            stack.callback(self._slots.close)
            stack.callback(self._limits.close)
            await stack.enter_async_context(self._service(peers).answering())
            await stack.enter_async_context(on_duty(self._duties(peers)))
            if self._journal is not None:
                self._journal.started(",".join(queue.name for queue in self.options.queues))
            if ready is not None:
                ready(self._lines)
            cancelled = await self._work()
        if self._journal is not None:
            self._journal.note("stop", cancelled=cancelled)
        return cancelled

    def _duties(self, peers: Peers) -> list[Duty]:
        """All that this bridge does beside its tasks; they begin when the queues are bound and end after the tasks."""
        return [
            *(SettingsWatch(line.storage) for line in self._lines),
            *(DroppedItems(line.storage, line.held, self._meter, self._clock) for line in self._lines),
            *(line.rates for line in self._lines),
            Sweeping(self._jetstream, self.id, peers, self._meter, self._clock, every_s=self.options.sweep_every_s),
            Gauges(lambda: self.status, self._meter),
            Cancels(self._jetstream.transport, [line.processor.cancelled for line in self._lines]),
        ]

    def _service(self, peers: NatsPeers) -> BridgeService:
        return BridgeService(
            self._jetstream.transport,
            self.id,
            {"holds": peers.answer, **control_answers(self)},
            {
                "host": socket.gethostname(),
                "pid": str(os.getpid()),
                "queues": ",".join(queue.name for queue in self.options.queues),
            },
        )

    async def _take_back(self) -> None:
        # What was asked for is withdrawn, or it would come all the same.
        await asyncio.gather(*(line.storage.items.take_back() for line in self._lines))

    async def _work(self) -> int:
        async with asyncio.TaskGroup() as group:
            works = [
                group.create_task(line.processor.run(self._stop, self.options.grace_s, self._hurry))
                for line in self._lines
            ]
        return sum(work.result() for work in works)

    def _holds(self, task_id: str, item: ItemRef) -> bool:
        return any(line.held.holds(task_id, item) for line in self._lines)

    @contextlib.asynccontextmanager
    async def _line(
        self, queue: ServedQueue, peers: Peers, dispatch: Mapping[RouteKind, Dispatch]
    ) -> AsyncIterator[Line]:
        options, meter = self.options, self._meter

        def polled(well: bool) -> None:
            meter.inc(POLLS if well else POLL_ERRORS, queue=queue.name)

        # Beside others a queue must not have asked for much for long: its demand falls when it has no backlog.
        pull_s = PULL_S if len(options.queues) == 1 else SHORT_PULL_S
        async with open_storage(
            self._jetstream, queue.name, adopt=options.adopt, polled=polled, pull_s=pull_s
        ) as opened:
            storage: Storage = opened if self._journal is None else JournaledStorage(opened, self._journal)
            held = HeldClaims(self.id, storage.items, self._clock)
            seat = self._slots.seat(storage.items, lambda: len(held), queue.weight)
            parts = Parts(
                owner=self.id,
                storage=storage,
                dispatch=dispatch,
                peers=peers,
                router=options.router,
                policy=options.policy,
                meter=meter,
                clock=self._clock,
                random=random.random,
                verifier=options.verifier,
                retention=options.retention,
                keep_all_attempts=options.keep_all_attempts,
                limits=self._limits,
                journal=self._journal,
            )
            processor = Processor(parts, held, seat)
            rates = Rates(processor.tally, self._clock.monotonic)
            yield Line(storage=storage, held=held, seat=seat, processor=processor, rates=rates)
