"""Calling a handler function in this process: a coroutine beside the others, a plain function in a thread.

The only place that calls one; `runner` does it for requests, a bridge for the functions that it was given.
"""

import asyncio
import functools
from collections.abc import Coroutine
from typing import Any

from aj_sdk.handling import Task
from aj_sdk.middleware import Handle, around
from aj_sdk.responder import failed, succeeded
from aj_sdk.services import Service
from aj_sdk.threads import Threads
from aj_sdk.tracing import context_within
from aj_sdk.wire.call import Cause, Failed, Reply, Terminated

__all__ = ["begin", "within_deadline"]


def begin(service: Service, task: Task, threads: Threads) -> asyncio.Future[Reply]:
    """Begin to handle a task.

    Args:
        service: the handler.
        task: the task.
        threads: where a plain function runs.

    Returns:
        What becomes of it, an `asyncio.Task` where the handler is a coroutine or has middleware; cancelling that one
        cancels them, though not while a plain function runs: that runs to its end, whatever becomes of the future.
    """
    context = context_within(task.trace)
    if service.is_async:
        return asyncio.create_task(_call_coroutine(service, task), context=context)
    if not service.middleware:
        return threads.submit(functools.partial(_call_function, service, task), context)
    inside = _Inside(service, threads)
    loop = asyncio.get_running_loop()
    return _AroundThread(_call_inside(inside, task), inside, loop=loop, context=context)


async def within_deadline(work: asyncio.Future[Reply], task: Task) -> Reply:
    """Wait for what `begin` returned, until the task's time is up; then, or when we are cancelled, cancel a coroutine.

    The future of a thread stays as it is: it tells when the thread is free again.
    """
    try:
        while not work.done() and (left := task.remaining) > 0:
            await _until(work, left)  # and again: progress gives a task more time
    finally:
        if isinstance(work, asyncio.Task) and not work.done():
            work.cancel()
    if not work.done():
        task.log.warning("deadline exceeded")
        return Failed("deadline exceeded", cause=Cause.DEADLINE)
    return Failed("CancelledError") if work.cancelled() else work.result()


async def _until(work: asyncio.Future[Reply], seconds: float) -> None:
    """Wait until it is done or the time is up: `asyncio.wait` for one future, at half of what that costs a call."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def wake(_: object = None) -> None:
        if not over.done():
            over.set_result(None)

    timer = loop.call_later(seconds, wake)
    work.add_done_callback(wake)
    try:
        await over
    finally:
        timer.cancel()
        work.remove_done_callback(wake)


async def _call_coroutine(service: Service, task: Task) -> Reply:
    try:
        middleware = service.middleware
        value = await (around(middleware, _unthreaded(service))(task) if middleware else service.bind(task)())
        return _log_reply(task, succeeded(value), None)
    except BaseException as err:  # noqa: BLE001 - the task boundary
        return _failed(task, err)


def _unthreaded(service: Service) -> Handle:
    async def handle(task: Task) -> Any:
        return await service.bind(task)()

    return handle


async def _call_inside(inside: "_Inside", task: Task) -> Reply:
    try:
        return _log_reply(task, succeeded(await inside.call(task)), None)
    except BaseException as err:  # noqa: BLE001 - the task boundary
        return _failed(task, err)


def _failed(task: Task, err: BaseException) -> Reply:
    """Say what an exception at the boundary means, and pass on what is none of the handler's."""
    # SystemExit is a failed try too: one handler does not end the program of the others.
    if isinstance(err, KeyboardInterrupt | GeneratorExit):
        raise err
    current = asyncio.current_task()
    if isinstance(err, asyncio.CancelledError) and current is not None and current.cancelling():
        raise err
    return _log_reply(task, failed(err), err)


class _Inside:
    """A plain function with middleware around it."""

    def __init__(self, service: Service, threads: Threads) -> None:
        self._service = service
        self._threads = threads
        self._running: asyncio.Future[tuple[Any, BaseException | None]] | None = None

    @property
    def running(self) -> "asyncio.Future[tuple[Any, BaseException | None]] | None":
        """The function's call, while it runs in a thread that is still waited for."""
        found = self._running
        return None if found is None or found.done() or self._threads.closed else found

    async def call(self, task: Task) -> Any:
        try:
            return await around(self._service.middleware, self._handle)(task)
        finally:
            if (left := self.running) is not None:
                await asyncio.wait({left})  # a middleware did not: what is freed with us is free then

    async def _handle(self, task: Task) -> Any:
        self._running = self._threads.submit(functools.partial(_captured, self._service, task))
        value, error = await asyncio.shield(self._running)
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            raise RuntimeError(f"the handler raised {type(error).__name__}") from error  # noqa: TRY004 - it stays one
        if error is not None:
            raise error
        return value


class _AroundThread(asyncio.Task[Reply]):
    """Middleware around a plain function.

    While the function runs it can't be cancelled: the middleware would take down what the function still uses, and its
    slot would be free too early. The cancel then comes to it when the function has returned.
    """

    def __init__(self, work: Coroutine[Any, Any, Reply], inside: _Inside, **options: Any) -> None:
        self._inside = inside
        self._later = False
        super().__init__(work, **options)

    def cancel(self, msg: Any | None = None) -> bool:
        running = self._inside.running
        if running is None:
            return super().cancel(msg)
        if not self._later:
            self._later = True
            running.add_done_callback(lambda _: self.cancel(msg))
        return True


def _captured(service: Service, task: Task) -> tuple[Any, BaseException | None]:
    try:
        return service.bind(task)(), None
    except BaseException as err:  # noqa: BLE001 - raised again on the other side of the thread
        return None, err


def _call_function(service: Service, task: Task) -> Reply:
    try:
        return _log_reply(task, succeeded(service.bind(task)()), None)
    except BaseException as err:  # noqa: BLE001 - the task boundary, in a thread of our own
        return _log_reply(task, failed(err), err)


def _log_reply(task: Task, reply: Reply, error: BaseException | None) -> Reply:
    """Log an outcome, and return it. Only a failure that nobody planned has a traceback."""
    if isinstance(reply, Terminated):
        task.log.warning("terminated: %s", reply.error)
    elif isinstance(reply, Failed) and reply.retry_after_ns is not None:
        task.log.info("to be tried again in %.3f s: %s", reply.retry_after_ns / 1e9, reply.error)
    elif isinstance(reply, Failed):
        task.log.error("handler failed: %s", reply.error, exc_info=error)
    else:
        task.log.debug("handled")
    return reply
