"""Calling handlers: the route, the breaker of the type, what is counted, and what waits until somebody answers."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final

from aj_bridge.core.claim import owns
from aj_bridge.core.retry import RetryPolicy
from aj_bridge.core.settle import NoResponders
from aj_bridge.engine import meter as m
from aj_bridge.engine.breakers import Breakers
from aj_bridge.engine.held import Held
from aj_bridge.engine.limits import Room
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.patience import LeaseOver, patiently, quietly
from aj_bridge.engine.rates import Tally
from aj_bridge.engine.router import Invocation, Nobody
from aj_bridge.engine.running import Running
from aj_bridge.storage.protocols import Parked
from aj_sdk.errors import StoreError
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.interim import heartbeat_ns
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.trace import NO_TRACE, Trace, record_trace

__all__ = ["Calls"]

_log = logging.getLogger(__name__)

_WAKES_AT_ONCE: Final = 64


class Calls:
    """The calls for one queue's tasks.

    Args:
        parts: what the work on the queue is made of.
        spawn: begins work that the processor waits for when it stops.

    Attributes:
        tally: what they came to.
    """

    def __init__(self, parts: Parts, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._parts = parts
        self._spawn = spawn
        self._breakers = Breakers(parts.clock.monotonic, parts.random)
        self._invocations = count(1)
        self._running = Running()
        self._looking: dict[str, bool] = {}
        self.tally = Tally()

    def closed(self, task_type: str) -> tuple[int, str] | None:
        """Say whether a task of this type must wait because nobody answers: for how many nanoseconds, and why."""
        if self._parts.router.route(task_type) is None:
            self._breakers.missed(task_type)
            self._breakers.admit(task_type)  # counts the seconds; there is nobody to try
            self._parts.meter.inc(m.UNROUTED, queue=self._parts.storage.items.settings.name, type=task_type)
            return self._breakers.delay_ns(task_type), f"no route for task type {task_type!r}"
        if self._breakers.admit(task_type):
            return None
        return self._breakers.delay_ns(task_type), f"no handler for task type {task_type!r}"

    def parked(self, task_type: str, parked: Parked) -> bool:
        """Remember what waits for a handler; False when one has answered meanwhile."""
        return self._breakers.parked(task_type, parked)

    def room(self, task_type: str) -> Room | None:
        """Return the room of a type's route, None where it has no limit."""
        route = self._parts.router.route(task_type)
        return None if route is None else self._parts.limits.room(route)

    def waits_for_room(self, task_type: str, parked: Parked) -> None:
        """Have a parked task woken when its route has room."""
        room = self.room(task_type)
        waiting = self._parts.storage.waiting

        async def wake() -> bool:
            try:
                return await waiting.wake(parked)
            except StoreError as err:
                _log.info("storage failed: %s", err)
                return False  # it comes back when its delay is over

        if room is not None:
            room.remember(wake)

    def policy(self, task_type: str) -> RetryPolicy:
        """Return the backoff of a task type."""
        route = self._parts.router.route(task_type)
        return self._parts.policy if route is None or route.policy is None else route.policy

    async def call(self, held: Held, record: TaskRecord) -> Completed | Failed | Terminated | NoResponders:
        """Have a task handled that was saved `active`; returns what became of it.

        Raises:
            Stopped: somebody else has changed the record, so that the outcome would not be saved.
        """
        route = self._parts.router.route(record.type)
        assert route is not None
        meter = self._parts.meter
        labels = {"queue": record.queue, "type": record.type}
        settings = self._parts.storage.items.settings
        began = self._parts.clock.monotonic()
        meter.add(m.BUSY, 1)
        try:
            invocation = Invocation(
                id=f"{self._parts.owner}-{record.queue}-{next(self._invocations)}",
                task=record,
                route=route,
                run_time_ns=settings.max_run_time_ns,
                heartbeat_ns=heartbeat_ns(settings.lease_ns),
                trace=self._trace(record) if record.extra else NO_TRACE,
            )
            handle = self._parts.router.around(route, self._parts.dispatch[route.kind].call)
            held.invocation = invocation.id
            with self._running.call(held):
                outcome = await handle(invocation)
        except Nobody as nobody:
            meter.inc(m.NO_RESPONDERS, **labels)
            return NoResponders(nobody.subject, self._breakers.missed(record.type))
        finally:
            meter.add(m.BUSY, -1)
        meter.observe(m.HANDLER_RUNTIME, self._parts.clock.monotonic() - began, **labels)
        self.tally.calls += 1
        if not isinstance(outcome, Completed):
            self.tally.failed += 1
            meter.inc(m.HANDLER_ERRORS, **labels)
            _log.info(
                "a handler %s: %s",
                "terminated a task" if isinstance(outcome, Terminated) else "failed",
                outcome.error,
                extra={"task_id": record.id, "task_type": record.type, "queue": record.queue, "tries": record.tries},
            )
        released = self._breakers.answered(record.type)
        if released:
            self._spawn(self._release(record.type, released))
        return outcome

    def _trace(self, record: TaskRecord) -> Trace:
        trace, dropped = record_trace(record.extra)
        if dropped:
            self._parts.meter.inc(m.TRACE_DROPPED, queue=record.queue, type=record.type)
        return trace

    def reconsider(self, task_id: str) -> None:
        """Somebody says that a task was cancelled: have its record read, and its call stopped if it is so."""
        if task_id not in self._running:
            return
        if task_id in self._looking:
            self._looking[task_id] = True  # what is being read may be older than this
            return
        self._looking[task_id] = True
        self._spawn(self._reconsider(task_id))

    async def _reconsider(self, task_id: str) -> None:
        records = self._parts.storage.records
        try:
            while self._looking[task_id]:
                self._looking[task_id] = False
                stored = await patiently(lambda: records.load(task_id), lambda: task_id in self._running)
                for call in self._running.of(task_id):
                    if not owns(call.held.stamp, stored):
                        _log.info("stopping a call: somebody else has changed its task", extra={"task_id": task_id})
                        call.stop(stored)
        except LeaseOver:
            return  # the call has ended by itself
        finally:
            del self._looking[task_id]

    async def _release(self, task_type: str, released: list[Parked]) -> None:
        _log.info("a handler of %s is there again, releasing %d tasks", task_type, len(released))
        for start in range(0, len(released), _WAKES_AT_ONCE):
            await asyncio.gather(*map(self._wake, released[start : start + _WAKES_AT_ONCE]))

    async def _wake(self, parked: Parked) -> None:
        await quietly(self._parts.storage.waiting.wake(parked))
