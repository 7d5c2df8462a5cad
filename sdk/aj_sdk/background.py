"""One thread with an event loop, in which an asynchronous client lives; other threads wait for its calls."""

import asyncio
import contextlib
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

from aj_sdk.errors import OutcomeUnknownError, UsageError

__all__ = ["Background"]

R = TypeVar("R")

_CLOSING_S: Final = 10.0
_SLICE_S: Final = 0.5


class Background:
    """Keeps an asynchronous context manager open in a thread of its own, and runs calls there.

    It is opened once and closed once. Any number of threads may call at a time; each waits for its own call only.

    Args:
        managed: what is entered when the thread starts, and left before it ends.
    """

    def __init__(self, managed: AbstractAsyncContextManager[Any]) -> None:
        self._managed = managed
        self._lock = threading.Lock()
        self._calls: dict[Future[Any], asyncio.Task[Any]] = {}
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._closed = False

    def open(self) -> None:
        """Start the thread; returns when what it manages is open.

        Raises:
            UsageError: it was opened before, or this thread runs an event loop.
            BaseException: what entering it raised; it is then closed.
        """
        self._refuse_fork("open")
        _refuse_event_loop()
        with self._lock:
            if self._loop is not None:
                raise UsageError("the client was opened before: make a new one with Client.connect(...)")
            self._pid = os.getpid()
            self._loop = asyncio.new_event_loop()
            opened: Future[None] = Future()
            # Made before its loop runs, so that there is something to cancel from the first moment on.
            serving = self._loop.create_task(self._serve(opened))
            self._thread = threading.Thread(target=self._work, args=(serving,), name="aj-blocking", daemon=True)
        try:
            self._thread.start()
            _wait(opened, None)
        except BaseException:  # an interrupt of this thread too
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                self._loop.call_soon_threadsafe(serving.cancel)
            self.close()
            raise

    def close(self) -> None:
        """End the calls under way, close what is managed, and end the thread; again, it does nothing.

        In a process that was forked from the one that opened it, it does nothing either: all of it is the parent's.
        """
        if self._pid != os.getpid():
            return
        _refuse_event_loop()
        with self._lock:
            self._closed = True
            # From here on no call is begun; those begun before come before this in the loop.
            with contextlib.suppress(RuntimeError):
                self._running().call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            with contextlib.suppress(RuntimeError):  # an interrupt came while it was being started
                self._thread.join(_CLOSING_S)

    def call(self, make: Callable[[], Coroutine[Any, Any, R]], what: str, seconds: float | None) -> R:
        """Run a coroutine in the thread and wait for what it returns.

        An exception in the waiting thread, such as `KeyboardInterrupt`, stops the call, and nobody knows then how far
        it came.

        Args:
            make: makes the coroutine; called in the thread, in a copy of the caller's context.
            what: the call's name, for errors.
            seconds: how long to wait; None for as long as it takes.

        Raises:
            UsageError: it is not open, not in this process, or this thread runs an event loop.
            OutcomeUnknownError: it took too long, and was stopped.
            BaseException: what the coroutine raised.
        """
        # First: the lock of a forked process may be held for ever by a thread that it does not have.
        self._refuse_fork(what)
        _refuse_event_loop()
        # Made before the call begins, so that whatever interrupts this thread can stop the call.
        outcome: Future[R] = Future()
        try:
            self._submit(make, outcome, what)
            return _wait(outcome, seconds)
        except CancelledError:
            raise UsageError(f"{what}: the client was closed meanwhile: whether it was done is not known") from None
        except TimeoutError:
            if outcome.done():
                return outcome.result()  # it ended after all, or this is its own error
            self._give_up(outcome)
            raise OutcomeUnknownError(f"{what}, stopped after {seconds:g} s") from None
        except BaseException:
            self._give_up(outcome)
            raise

    def _refuse_fork(self, what: str) -> None:
        if self._loop is not None and self._pid != os.getpid():
            raise UsageError(
                f"{what}: the client was opened in process {self._pid}, from which this one, {os.getpid()}, was forked:"
                " a connection can't be shared, so make a client in each process, after the fork"
            )

    def _running(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None
        return self._loop

    def _work(self, serving: "asyncio.Task[None]") -> None:
        # The runner also ends what the program's own code, such as a payload's encoder, may have left behind.
        with asyncio.Runner(loop_factory=self._running) as runner:
            runner.run(_ended(serving))

    async def _serve(self, opened: "Future[None]") -> None:
        try:
            async with self._managed:
                opened.set_result(None)
                await self._stop.wait()
                calls = list(self._calls.values())
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
        except BaseException as err:
            if opened.done():
                raise
            opened.set_exception(err)

    def _submit(self, make: Callable[[], Coroutine[Any, Any, R]], outcome: Future[R], what: str) -> None:
        with self._lock:
            if self._loop is None:
                raise UsageError(f"{what}: the client is not open: use it in `with`, or call open()")
            if self._closed:
                raise UsageError(f"{what}: the client is closed: make a new one with Client.connect(...)")
            self._loop.call_soon_threadsafe(self._begin, make, outcome)

    def _begin(self, make: Callable[[], Coroutine[Any, Any, R]], outcome: Future[R]) -> None:
        task = self._calls[outcome] = asyncio.create_task(_made(make))
        task.add_done_callback(functools.partial(self._end, outcome))

    def _end(self, outcome: Future[R], task: asyncio.Task[R]) -> None:
        del self._calls[outcome]
        if task.cancelled():
            outcome.cancel()
        elif (error := task.exception()) is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    def _give_up(self, outcome: Future[Any]) -> None:
        """Stop a call for which nobody waits any more."""

        def cancel() -> None:
            if (task := self._calls.get(outcome)) is not None:
                task.cancel()

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it may be closed by now
                self._loop.call_soon_threadsafe(cancel)


def _wait(future: Future[R], seconds: float | None) -> R:
    """Return a future's result; `TimeoutError` when it is not there in time.

    In slices: CPython does not notice a signal that comes between releasing the GIL and waiting for a lock.
    """
    until = math.inf if seconds is None else time.monotonic() + seconds
    while not future.done() and (left := until - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            return future.result(min(left, _SLICE_S))
    return future.result(0)


async def _made(make: Callable[[], Coroutine[Any, Any, R]]) -> R:
    return await make()


async def _ended(task: "asyncio.Task[None]") -> None:
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # closing failed: nobody waits for that, so the thread shows it


def _refuse_event_loop() -> None:
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise UsageError(
            "aj_sdk.blocking would stop the event loop that runs in this thread: use aj_sdk.Client with await here,"
            " or asyncio.to_thread()"
        )
