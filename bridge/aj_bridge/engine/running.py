"""The calls under way, by task: who calls a handler can be found, and made to stop."""

import asyncio
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

from aj_bridge.engine.held import Held
from aj_bridge.engine.patience import Stopped
from aj_sdk.wire.stored import Stored

__all__ = ["Call", "Running"]


class Call:
    """A call under way, for as long as its `with` block; a stopped one leaves the block with `Stopped`.

    It is cancelled, as `asyncio.timeout` does it: no task of its own, so that a call costs no more than an entry in a
    table.
    """

    __slots__ = ("_cancelling", "_running", "_stopped", "_task", "held", "older")

    def __init__(self, running: "Running", held: Held) -> None:
        self.held = held
        self.older: Call | None = None
        self._running = running
        self._stopped: Stopped | None = None

    def stop(self, stored: Stored | None) -> None:
        """Cancel it.

        Args:
            stored: the record as somebody else saved it, None when it is gone.
        """
        if self._stopped is None:
            self._stopped = Stopped(stored)
            self._task.cancel()

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._running.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._running.remove(self)
        if self._stopped is None:
            return False
        if self._task.uncancel() > self._cancelling and kind is asyncio.CancelledError:
            return False  # the bridge stops, too
        raise self._stopped from None


class Running:
    """All calls under way of one queue."""

    def __init__(self) -> None:
        # A bridge that lost a lease may get its own task again while it still calls: then there are two.
        self._newest: dict[str, Call] = {}

    def call(self, held: Held) -> Call:
        """Make the block in which a claim's handler is called."""
        return Call(self, held)

    def of(self, task_id: str) -> Iterator[Call]:
        """Give the calls of a task."""
        call = self._newest.get(task_id)
        while call is not None:
            yield call
            call = call.older

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._newest

    def add(self, call: Call) -> None:
        """Take down that a call begins."""
        task_id = call.held.claim.task_id
        call.older = self._newest.get(task_id)
        self._newest[task_id] = call

    def remove(self, call: Call) -> None:
        """Take down that a call has ended."""
        task_id = call.held.claim.task_id
        newest = self._newest[task_id]
        if newest is call:
            if call.older is None:
                del self._newest[task_id]
            else:
                self._newest[task_id] = call.older
            return
        while newest.older is not call:
            assert newest.older is not None
            newest = newest.older
        newest.older = call.older
