"""The storages under contract: each with a queue of its own, and what a producer and an onlooker need beside it."""

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Final, Protocol

import msgspec
import nats
import pytest
from tests.conftest import TIMEOUT_FACTOR
from tests.virtual_time import VirtualTimeLoop

from aj_bridge.core.claim import Claim
from aj_bridge.faces.embedded import EmbeddedServer
from aj_bridge.storage.jetstream import open_storage
from aj_bridge.storage.jetstream.survey import open_survey
from aj_bridge.storage.memory import MemoryStorage, MemorySurvey, MemoryWorld
from aj_bridge.storage.protocols import Parked, Storage, Survey
from aj_sdk import streams
from aj_sdk.admin import Admin
from aj_sdk.fast import open_transport
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.transport import NatsTransport, settle
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.names import (
    ATTEMPTS_STREAM,
    DEAD_STREAM,
    attempts_subject,
    dead_subject,
    item_subject,
    queue_stream,
    task_subject,
)
from aj_sdk.wire.queue import QueueSettings, read_settings
from aj_sdk.wire.times import NS_PER_S

__all__ = ["LEASE_S", "PLENTY_S", "Hand", "JetStreamPlace", "Place", "contract"]

LEASE_S: Final = 0.6 * TIMEOUT_FACTOR
PLENTY_S: Final = 10 * TIMEOUT_FACTOR
_LIMIT_S: Final = 6 * PLENTY_S
_BACKENDS: Final = (
    "memory",
    pytest.param("jetstream", marks=pytest.mark.server),
    pytest.param("jetstream-plain", marks=pytest.mark.server),
)
"""JetStream with our own reader and writer, and on nats-py's public API alone."""

_numbers = count()


class Place(Protocol):
    """One queue, and all who may touch it."""

    queue: str

    async def storage(self) -> Storage:
        """Give one more bridge's view."""

    async def survey(self) -> Survey:
        """Give a sweeper's view."""

    def now_ns(self) -> int:
        """Tell the wall clock's time."""

    async def put(self, task_id: str, body: bytes) -> int:
        """Save a record as a producer does, whatever it was before."""

    async def publish(self, task_id: str, body: bytes | None = None, *, replace: bool = False) -> None:
        """Put an item into the queue."""

    async def configure(self, **changes: Any) -> None:
        """Change settings of the queue, as an administrator does."""

    async def items(self) -> int:
        """Count the items in the queue."""

    async def in_flight(self) -> int:
        """Count the items that were handed out and are not settled."""

    async def events(self) -> "asyncio.Queue[TaskStateEvent]":
        """Listen for events from now on."""

    async def attempts(self, task_id: str) -> list[Attempt]:
        """Read the attempts at a task."""

    async def dead(self, reason: str, task_id: str) -> DeadLetter | None:
        """Read a dead letter."""


class MemoryPlace:
    def __init__(self, settings: QueueSettings, schedules: bool) -> None:
        self.queue = settings.name
        self._world = MemoryWorld()
        self._world.add_queue(settings)
        self._schedules = schedules

    async def storage(self) -> Storage:
        return MemoryStorage(self._world, self.queue, schedules=self._schedules)

    async def survey(self) -> Survey:
        return MemorySurvey(self._world)

    def now_ns(self) -> int:
        return self._world.now_ns()

    async def put(self, task_id: str, body: bytes) -> int:
        return self._world.put(task_id, body)

    async def publish(self, task_id: str, body: bytes | None = None, *, replace: bool = False) -> None:
        self._world.publish(self.queue, task_id, body, replace=replace)

    async def configure(self, **changes: Any) -> None:
        queue = self._world.queue(self.queue)
        queue.configure(msgspec.structs.replace(queue.settings, **changes))

    async def items(self) -> int:
        return len(self._world.queue(self.queue))

    async def in_flight(self) -> int:
        return self._world.queue(self.queue).in_flight

    async def events(self) -> "asyncio.Queue[TaskStateEvent]":
        line: asyncio.Queue[TaskStateEvent] = asyncio.Queue()
        self._world.told = line.put_nowait
        return line

    async def attempts(self, task_id: str) -> list[Attempt]:
        return list(self._world.attempts.get(task_id, ()))

    async def dead(self, reason: str, task_id: str) -> DeadLetter | None:
        return self._world.dead.get((reason, self.queue, task_id))


class JetStreamPlace:
    def __init__(self, stack: AsyncExitStack, transport: NatsTransport, queue: str) -> None:
        self.queue = queue
        self.jetstream = JetStream(transport)
        self._stack = stack
        self._transport = transport
        self._store = Store(self.jetstream)

    async def storage(self) -> Storage:
        return await self._stack.enter_async_context(open_storage(self.jetstream, self.queue, adopt=False))

    async def survey(self) -> Survey:
        return await self._stack.enter_async_context(open_survey(self.jetstream))

    def now_ns(self) -> int:
        return time.time_ns()

    async def put(self, task_id: str, body: bytes) -> int:
        return await self.jetstream.publish(task_subject(task_id), body)

    async def publish(self, task_id: str, body: bytes | None = None, *, replace: bool = False) -> None:
        if body is None:
            await self._store.publish_item(self.queue, task_id, replace=replace)
        else:
            await self.jetstream.publish(item_subject(self.queue, task_id), body)

    async def configure(self, **changes: Any) -> None:
        stream, consumer = queue_stream(self.queue), "WORKERS"
        was = await self.jetstream.stream_info(stream), await self.jetstream.consumer_info(stream, consumer)
        assert was[0] is not None
        assert was[1] is not None
        settings, _ = read_settings(self.queue, was[0]["config"], was[1]["config"])
        settings = msgspec.structs.replace(settings, **changes)
        await self.jetstream.update_stream(streams.changed_stream(was[0]["config"], settings))
        await self.jetstream.save_consumer(stream, streams.restored_consumer(was[1]["config"], settings), "update")

    async def items(self) -> int:
        info = await self.jetstream.stream_info(queue_stream(self.queue))
        assert info is not None
        return int(info["state"]["messages"])

    async def in_flight(self) -> int:
        info = await self.jetstream.consumer_info(queue_stream(self.queue), "WORKERS")
        assert info is not None
        return int(info["num_ack_pending"])

    async def events(self) -> "asyncio.Queue[TaskStateEvent]":
        line: asyncio.Queue[TaskStateEvent] = asyncio.Queue()
        subscription = await self._transport.subscribe(
            "CHORIA_AJ.E.task_state.*", lambda message: line.put_nowait(TaskStateEvent.from_wire(message.data))
        )
        self._stack.push_async_callback(subscription.close)
        await settle(self._transport._nc)
        return line

    async def attempts(self, task_id: str) -> list[Attempt]:
        found = self.jetstream.scan(ATTEMPTS_STREAM, attempts_subject(task_id))
        return [Attempt.from_wire(message.data) async for message in found]

    async def dead(self, reason: str, task_id: str) -> DeadLetter | None:
        message = await self.jetstream.last(DEAD_STREAM, dead_subject(reason, self.queue, task_id))
        if message is None:
            return None
        return DeadLetter.read(message.subject, message.data, message.headers)


Test = Callable[[Any], Coroutine[Any, Any, None]]


def contract(*, waits: Sequence[str] = ("outside", "inside"), **queue: Any) -> Callable[[Test], Callable[..., None]]:
    """Run a test on every storage, each with a queue of its own.

    Args:
        waits: where the queue's waiting items wait: `outside` of it as schedules, or `inside` with a delay.
        queue: settings of the queue.
    """

    def decorate(test: Test) -> Callable[..., None]:
        @pytest.mark.parametrize("waits_where", waits)
        @pytest.mark.parametrize("backend", _BACKENDS)
        def run(backend: str, waits_where: str, request: pytest.FixtureRequest) -> None:
            settings = {"lease_ns": int(LEASE_S * NS_PER_S), **queue}
            name = f"Q{next(_numbers)}"
            schedules = waits_where == "outside"
            if backend == "memory":
                with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
                    runner.run(_in_memory(test, QueueSettings(name=name, **settings), schedules))
            else:
                server: EmbeddedServer = request.getfixturevalue("contract_server")
                with asyncio.Runner() as runner:
                    fast = backend == "jetstream"
                    runner.run(_on_jetstream(server, test, QueueSettings(name=name, **settings), schedules, fast=fast))

        functools.update_wrapper(run, test)
        del run.__wrapped__  # type: ignore[attr-defined]  # pytest would take the test's own arguments for fixtures
        return run

    return decorate


async def _in_memory(test: Test, settings: QueueSettings, schedules: bool) -> None:
    async with asyncio.timeout(_LIMIT_S):
        await test(MemoryPlace(settings, schedules))


async def _on_jetstream(
    server: EmbeddedServer, test: Test, settings: QueueSettings, schedules: bool, *, fast: bool
) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(_LIMIT_S):
        connection = await nats.connect(server.url)
        stack.push_async_callback(connection.close)
        transport = await stack.enter_async_context(open_transport(connection, fast=fast))
        jetstream = JetStream(transport, timeout=PLENTY_S)
        admin = Admin(jetstream, Store(jetstream))
        await admin.ensure_task_store()
        await admin.enable_task_ttls()
        await admin.ensure_delayed()
        await jetstream.create_stream(streams.queue_config(settings, parks=schedules))
        await jetstream.save_consumer(queue_stream(settings.name), streams.consumer_config(settings), "create")
        await test(JetStreamPlace(stack, transport, settings.name))


class Hand:
    """Takes claims as an engine does: wants some, waits for them, puts off what is not due."""

    def __init__(self, place: Place, storage: Storage) -> None:
        self.storage = storage
        self._place = place

    @classmethod
    async def at(cls, place: Place) -> "Hand":
        """Give a hand with a storage of its own."""
        return cls(place, await place.storage())

    async def take(self, number: int) -> list[Claim]:
        """Take so many claims."""
        claims: list[Claim] = []
        async with asyncio.timeout(PLENTY_S):
            while len(claims) < number:
                self.storage.items.want(number - len(claims))
                claims += await self.storage.items.next()
        return claims

    async def one(self) -> Claim:
        """Take one claim."""
        (claim,) = await self.take(1)
        return claim

    async def due(self) -> Claim:
        """Take one claim that is due."""
        while True:
            claim = await self.one()
            if claim.due_ns <= self._place.now_ns():
                return claim
            await self.park(claim, claim.due_ns, claim.silent)

    async def park(self, claim: Claim, due_ns: int, silent: str = "") -> Parked:
        """Park a claim and let go of it."""
        parked = await self.storage.waiting.park(claim, due_ns, silent)
        await self.storage.waiting.leave(claim, parked)
        return parked
