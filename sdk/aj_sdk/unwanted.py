"""Calls that a bridge says are not wanted any more: which handler that stops.

Knows invocations and the work that they are; opens no connection.
"""

import asyncio
from contextlib import AbstractContextManager
from typing import Final

from aj_sdk.handling import Task
from aj_sdk.wire.call import Failed, Reply
from aj_sdk.wire.names import invocation_cancel_subject

__all__ = ["UNWANTED", "UNWANTED_SUBJECTS", "UnwantedCalls"]

UNWANTED: Final = Failed("cancelled: the bridge does not want the reply any more")
UNWANTED_SUBJECTS: Final = invocation_cancel_subject("*")
"""What a runner listens to, once for all of its calls: a subscription for each would cost more than most calls."""


class _Watching:
    """A class, because `contextmanager` costs a call three times that."""

    __slots__ = ("_invocation", "_task", "_tasks", "_work")

    def __init__(self, tasks: dict[str, Task], work: dict[str, asyncio.Task[Reply]], task: Task) -> None:
        self._tasks = tasks
        self._work = work
        self._task = task
        self._invocation = task.invocation

    def __enter__(self) -> None:
        if self._invocation:
            self._tasks[self._invocation] = self._task

    def __exit__(self, *_: object) -> None:
        self._tasks.pop(self._invocation, None)
        self._work.pop(self._invocation, None)


class UnwantedCalls:
    """The calls in hand, by invocation. Those of a Go worker have no id, and are never cancelled."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._work: dict[str, asyncio.Task[Reply]] = {}

    def watching(self, task: Task) -> AbstractContextManager[None]:
        """Have `task.cancelled` told while the block lasts."""
        return _Watching(self._tasks, self._work, task)

    def begun(self, task: Task, work: asyncio.Future[Reply]) -> None:
        """Have the work cancelled too, where it is a coroutine; a thread can only look at `task.cancelled`."""
        if task.invocation and isinstance(work, asyncio.Task):
            self._work[task.invocation] = work

    def on_message(self, subject: str) -> None:
        """Somebody was told to stop; most often it is another process."""
        invocation = subject.removeprefix(UNWANTED_SUBJECTS[:-1])
        task = self._tasks.get(invocation)
        if task is None or task.cancelled:
            return
        task.log.info("the bridge does not want the reply any more")
        task.mark_cancelled()
        work = self._work.get(invocation)
        if work is not None:
            work.cancel()
