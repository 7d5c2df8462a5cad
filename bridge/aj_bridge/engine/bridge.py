"""A bridge: one process that takes the items of a queue to their handlers.

`Bridge.run` is the whole life cycle: bind the queue, answer other bridges, work, drain.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import msgspec

from aj_bridge.core.retry import POLICIES, RetryPolicy
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.dispatch import RemoteHandlers
from aj_bridge.engine.held import HeldClaims
from aj_bridge.engine.meter import POLL_ERRORS, POLLS, Meter, NoMeter
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.peers import NatsPeers
from aj_bridge.engine.processor import Processor
from aj_bridge.engine.router import Router
from aj_bridge.storage.jetstream import open_storage
from aj_sdk.ids import new_id
from aj_sdk.jetstream import JetStream
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.signing import Verifier

__all__ = ["Bridge", "BridgeOptions"]


class BridgeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a bridge works.

    Attributes:
        queue: the queue, which must be there.
        routes: which types it takes, by route; none = all, each by its own type.
        concurrency: tasks in hand at once.
        policy: the backoff.
        adopt: let items of a queue that the Go project made wait outside it.
        grace_s: seconds that tasks in hand may take when the bridge stops.
        verifier: what looks at the signatures of tasks; None where they are not looked at.
    """

    queue: str
    routes: tuple[str, ...] = ()
    concurrency: int = 100
    policy: RetryPolicy = POLICIES["default"]
    adopt: bool = True
    grace_s: float = 30.0
    verifier: Verifier | None = None


class Bridge:
    """A bridge on a connection that somebody else opens and closes.

    Args:
        jetstream: the API of the account.
        options: how it works.
        meter: what is counted.
    """

    def __init__(self, jetstream: JetStream, options: BridgeOptions, meter: Meter | None = None) -> None:
        self.id = new_id()
        self.options = options
        self._jetstream = jetstream
        self._meter = meter or NoMeter()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    def stop(self) -> None:
        """Begin to drain; asked a second time, wait for the tasks in hand no longer."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self, ready: Callable[[QueueSettings, bool], None] | None = None) -> int:
        """Work until `stop`.

        Args:
            ready: called once when the queue is bound, with its settings and whether waiting items wait outside it.

        Returns:
            How many tasks in hand were cancelled because the grace period was over.

        Raises:
            QueueNotFoundError: there is no such queue.
            StoreError: the store failed while binding.
        """
        async with self._open() as (processor, settings, schedules):
            if ready is not None:
                ready(settings, schedules)
            return await processor.run(self._stop, self.options.grace_s, self._hurry)

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[Processor, QueueSettings, bool]]:
        options = self.options
        clock = Clock()
        transport = self._jetstream.transport
        meter, queue = self._meter, options.queue

        def polled(well: bool) -> None:
            meter.inc(POLLS if well else POLL_ERRORS, queue=queue)

        async with open_storage(self._jetstream, queue, adopt=options.adopt, polled=polled) as storage:
            held = HeldClaims(self.id, storage.items, clock)
            peers = NatsPeers(transport, self.id, held.holds)
            parts = Parts(
                owner=self.id,
                storage=storage,
                dispatch=RemoteHandlers(transport, clock),
                peers=peers,
                router=Router(options.routes),
                policy=options.policy,
                meter=meter,
                clock=clock,
                random=random.random,
                verifier=options.verifier,
            )
            async with peers.answering():
                yield Processor(parts, held, options.concurrency), storage.items.settings, storage.waiting.schedules
