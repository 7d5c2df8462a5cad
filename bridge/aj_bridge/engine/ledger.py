"""What is told of attempts: the ledger of a task, beside its record. Nothing waits for it."""

from collections.abc import Callable, Coroutine
from typing import Any

from aj_bridge.core.settle import NO_HANDLER, NoResponders
from aj_bridge.core.settle import Outcome as Result
from aj_bridge.engine.held import Held
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.patience import quietly
from aj_bridge.engine.router import Route, RouteKind
from aj_sdk.wire.attempt import Attempt, AttemptOutcome
from aj_sdk.wire.call import Completed, Failed
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["Ledger"]


class Ledger:
    """The attempts of one queue's tasks.

    Args:
        parts: what the work on the queue is made of.
        spawn: begins work that the processor waits for when it stops.
    """

    def __init__(self, parts: Parts, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._parts = parts
        self._spawn = spawn

    def ended(self, held: Held, record: TaskRecord, result: Result) -> None:
        """Take down how a call ended whose outcome was saved.

        Args:
            held: the claim.
            record: the record as it was saved for the call.
            result: what the call gave.
        """
        if isinstance(result, Completed):
            if self._parts.keep_all_attempts:
                self._tell(held, record, AttemptOutcome.COMPLETED, "")
        elif isinstance(result, NoResponders):
            # Once for each time that nobody is there, not for each look.
            if not record.last_err.startswith(NO_HANDLER):
                self._tell(held, record, AttemptOutcome.NO_RESPONDERS, f"{NO_HANDLER} {result.subject}")
        elif isinstance(result, Failed):
            self._tell(held, record, AttemptOutcome(result.cause.value), result.error)
        else:
            self._tell(held, record, AttemptOutcome.TERMINATED, result.error)

    def broken_off(self, held: Held, record: TaskRecord, outcome: AttemptOutcome, error: str) -> None:
        """Take down that a call has no outcome, or one that was not saved."""
        self._tell(held, record, outcome, error)

    def lost(self, stored: Stored) -> None:
        """Take down, for its owner, an attempt that ended without a word."""
        record = stored.record
        assert record is not None
        now_ns = self._parts.clock.now_ns()
        owner = "" if stored.stamp is None else stored.stamp.owner
        self._spawn(
            self._write(
                Attempt(
                    task_id=record.id,
                    task_type=record.type,
                    queue=self._parts.storage.items.settings.name,
                    try_=record.tries,
                    outcome=AttemptOutcome.LEASE_LOST,
                    started_ns=record.tried_ns or now_ns,
                    ended_ns=now_ns,
                    error="its owner let its lease run out" if owner else "a Go worker outran its run time",
                    bridge=owner,
                )
            )
        )

    def _tell(self, held: Held, record: TaskRecord, outcome: AttemptOutcome, error: str) -> None:
        now_ns = self._parts.clock.now_ns()
        route = self._parts.router.route(record.type)
        self._spawn(
            self._write(
                Attempt(
                    task_id=record.id,
                    task_type=record.type,
                    queue=held.claim.queue,
                    try_=record.tries,
                    outcome=outcome,
                    started_ns=record.tried_ns or now_ns,
                    ended_ns=now_ns,
                    error=error,
                    bridge=self._parts.owner,
                    invocation=held.invocation,
                    kind="" if route is None else route.kind.value,
                    handler="" if route is None else _handler(route, record.type),
                )
            )
        )

    async def _write(self, attempt: Attempt) -> None:
        await quietly(self._parts.storage.notices.attempted(attempt))


def _handler(route: Route, task_type: str) -> str:
    if route.kind is RouteKind.REMOTE:
        return route.subject(task_type)
    if route.service is not None:
        function = route.service.function
        return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
    return str(route.command)
