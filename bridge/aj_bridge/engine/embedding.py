"""A bridge inside a program of its own: `Bridge(queues, router).run()`.

The program keeps its event loop, its signals, its logging and, where it gives one, its connection.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Self

from nats.aio.client import Client as Connection

from aj_bridge.core.retry import POLICIES, RetryPolicy
from aj_bridge.engine.bridge import Bridge as Engine
from aj_bridge.engine.bridge import BridgeOptions, ServedQueue
from aj_bridge.engine.meter import Meter
from aj_bridge.engine.router import Router
from aj_sdk.admin import Admin
from aj_sdk.connect import ConnectionFlags, ConnectOptions, connect, resolve_connection
from aj_sdk.errors import NotConnectedError, QueueNotFoundError, UsageError
from aj_sdk.fast import open_transport
from aj_sdk.jetstream import JetStream
from aj_sdk.queue import Queue
from aj_sdk.store import Store
from aj_sdk.wire.names import API_PREFIX, DEFAULT_QUEUE, EVENT_PREFIX
from aj_sdk.wire.queue import default_queue
from aj_sdk.wire.signing import Verifier

__all__ = ["Bridge"]


class Bridge:
    """A bridge for a program to run.

    `await bridge.run()` works until `stop` is called; as `async with bridge:` it works while the block does. Leaving
    either takes no new tasks, gives those in hand their time, cancels the rest (they run again when their leases are
    over), and closes the connection if the bridge opened it.

    Args:
        queues: what it serves: names of queues that are there (`DEFAULT` is made), or `Queue` values, which are made
            where they are missing.
        router: which types it takes, and where they go; None for each to remote handlers by its own name.
        connection: a connection that the program has, which is left open; or options, to make one; None for what the
            environment says (`AJ_SERVER`, `AJ_CONTEXT`, ...).
        jetstream_prefix: subject prefix of the JetStream API on that connection, for a domain (`$JS.hub.API`) or an
            imported account; None for the usual one. Options and the environment have their own.
        jetstream_event_prefix: subject prefix of JetStream's events on that connection, the same way.
        concurrency: tasks in hand at a time, over all queues.
        policy: the backoff of routes that have none of their own.
        grace: how long tasks in hand may take when it stops.
        verifier: takes only tasks that its keys have signed; None for all.
        keep_all_attempts: keep the attempts that completed too, for one more message a task.
        meter: counts what happens; None for nobody.

    Raises:
        UsageError: a setting is wrong.
        InvalidNameError: a queue's name is none.
    """

    def __init__(
        self,
        queues: str | Queue | Sequence[str | Queue],
        router: Router | None = None,
        *,
        connection: Connection | ConnectOptions | None = None,
        jetstream_prefix: str | None = None,
        jetstream_event_prefix: str | None = None,
        concurrency: int = 100,
        policy: RetryPolicy = POLICIES["default"],
        grace: timedelta = timedelta(seconds=30),
        verifier: Verifier | None = None,
        keep_all_attempts: bool = False,
        meter: Meter | None = None,
    ) -> None:
        self._queues = [queues] if isinstance(queues, str | Queue) else list(queues)
        if concurrency < 1:
            raise UsageError("concurrency must be at least 1")
        if grace < timedelta(0):
            raise UsageError("grace must not be negative")
        self._options = BridgeOptions(
            queues=tuple(ServedQueue(name=queue if isinstance(queue, str) else queue.name) for queue in self._queues),
            router=router or Router(),
            concurrency=concurrency,
            policy=policy,
            grace_s=grace.total_seconds(),
            verifier=verifier,
            keep_all_attempts=keep_all_attempts,
        )
        self._given = connection
        if not isinstance(connection, Connection) and (jetstream_prefix or jetstream_event_prefix):
            raise UsageError("the prefixes belong to a connection that is given; ConnectOptions have their own")
        self._prefix = jetstream_prefix or API_PREFIX
        self._event_prefix = jetstream_event_prefix or EVENT_PREFIX
        self._meter = meter
        self._engine: Engine | None = None
        self._asked = 0
        self._lost = False
        self._running: asyncio.Task[int] | None = None

    @property
    def id(self) -> str:
        """Its id, as `aj-bridge ps` shows it; empty before it runs."""
        return "" if self._engine is None else self._engine.id

    def stop(self) -> None:
        """Ask `run` to stop; asked a second time, it does not wait for the tasks in hand any more."""
        self._asked += 1
        if self._engine is not None:
            self._engine.stop()

    async def run(self, on_ready: Callable[[], None] | None = None) -> int:
        """Work until `stop` is called.

        Args:
            on_ready: called once when work begins.

        Returns:
            How many tasks in hand were cancelled because the grace period was over.

        Raises:
            NotConnectedError: no connection could be made, or the server closed it for good.
            QueueNotFoundError: a queue is not there.
            StoreError: the store failed while beginning.
            UsageError: it ran before.
        """
        if self._engine is not None:
            raise UsageError("a bridge runs once; make another one")
        async with AsyncExitStack() as stack:
            connection = await self._connect(stack)
            transport = await stack.enter_async_context(open_transport(connection))
            jetstream = JetStream(transport, prefix=self._prefix, event_prefix=self._event_prefix)
            await self._need_queues(jetstream)
            self._engine = Engine(jetstream, self._options, self._meter)
            for _ in range(self._asked):
                self._engine.stop()
            cancelled = await self._engine.run(None if on_ready is None else lambda _lines: on_ready())
        if self._lost:
            raise NotConnectedError("the server closed the connection for good; see the log for its reason")
        return cancelled

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        self._running = asyncio.create_task(self.run(ready.set))
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait({self._running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._running.cancel()
            await asyncio.wait({self._running})
            raise
        finally:
            waiting.cancel()
        if self._running.done():
            await self._running  # it could not begin: says why
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._running is not None
        self.stop()
        await self._running

    async def _connect(self, stack: AsyncExitStack) -> Connection:
        if isinstance(self._given, Connection):
            return self._given
        options = self._given or resolve_connection(ConnectionFlags(), os.environ, name="aj-bridge")
        connection = await connect(options, on_closed=self._on_closed)
        stack.push_async_callback(connection.close)
        self._prefix, self._event_prefix = options.js_prefix, options.js_event_prefix
        return connection

    def _on_closed(self) -> None:
        if not self._asked:
            self._lost = True
            if self._engine is not None:
                self._engine.stop()

    async def _need_queues(self, jetstream: JetStream) -> None:
        admin = Admin(jetstream, Store(jetstream))
        await admin.ensure_task_store()
        names = await admin.queue_names()
        for queue in self._queues:
            if isinstance(queue, Queue):
                await admin.create_queue(queue)
            elif queue == DEFAULT_QUEUE:
                await admin.create_queue(default_queue())
            elif queue not in names:
                raise QueueNotFoundError(queue)
