"""Threads in which plain functions run beside an event loop.

Not `concurrent.futures`: the interpreter waits for its threads at the end, so a handler that hangs would keep a
program alive that was told to stop and whose grace period is over. These are daemon threads.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["Threads"]

R = TypeVar("R")


class Threads:
    """Threads that take one call after the other; started when they are needed, and then kept.

    A kept thread keeps its thread-local values, such as a database connection, from call to call. There is no limit
    here: who submits knows how many calls may run.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], Callable[[], None]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0
        self._closed = False

    def submit(self, call: Callable[[], R], context: contextvars.Context | None = None) -> asyncio.Future[R]:
        """Run a call in a thread.

        Args:
            call: must not raise: whoever would be told may be gone.
            context: the context that it runs in; None for a copy of the current one.

        Returns:
            A future of the running loop. Cancelling it does not stop the call.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        within = contextvars.copy_context() if context is None else context

        def job() -> Callable[[], None]:
            value = within.run(call)
            return lambda: _tell(loop, future, value)

        self._jobs.put(job)
        if not self._idle.acquire(blocking=False):
            self._started += 1
            threading.Thread(target=self._work, name=f"aj-handler-{self._started}", daemon=True).start()
        return future

    @property
    def closed(self) -> bool:
        """Whether nobody waits any more for what still runs."""
        return self._closed

    def close(self) -> None:
        """Let the threads end, each when its call does."""
        self._closed = True
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            tell = job()
            # Before the result is told: who learns that a call is over may submit the next one, to this thread.
            self._idle.release()
            tell()
            # Nothing of a finished call is kept alive while this thread waits for the next one.
            del job, tell


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[R], value: R) -> None:
    # The loop may be closed by now: nobody waits for this call any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_fulfil, future, value)


def _fulfil(future: asyncio.Future[R], value: R) -> None:
    if not future.done():
        future.set_result(value)
