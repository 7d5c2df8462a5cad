"""Calling a handler function in this process: a coroutine beside the others, a plain function in a thread.

The only place that calls one; `runner` does it for requests, a bridge for the functions that it was given.
"""

import asyncio
import functools

from aj_sdk.handling import Task
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
        What becomes of it, an `asyncio.Task` where the handler is a coroutine; cancelling that one cancels the handler.
        A plain function runs to its end, whatever becomes of the future.
    """
    context = context_within(task.trace)
    if service.is_async:
        return asyncio.create_task(_call_coroutine(service, task), context=context)
    return threads.submit(functools.partial(_call_function, service, task), context)


async def within_deadline(work: asyncio.Future[Reply], task: Task) -> Reply:
    """Wait for what `begin` returned, until the task's time is up; then, or when we are cancelled, cancel a coroutine.

    The future of a thread stays as it is: it tells when the thread is free again.
    """
    try:
        while not work.done() and (left := task.remaining) > 0:
            await asyncio.wait({work}, timeout=left)  # and again: progress gives a task more time
    finally:
        if isinstance(work, asyncio.Task) and not work.done():
            work.cancel()
    if not work.done():
        task.log.warning("deadline exceeded")
        return Failed("deadline exceeded", cause=Cause.DEADLINE)
    return Failed("CancelledError") if work.cancelled() else work.result()


async def _call_coroutine(service: Service, task: Task) -> Reply:
    try:
        return _log_reply(task, succeeded(await service.bind(task)()), None)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as err:
        # The task boundary. SystemExit is a failed try too: one handler does not end the program of the others.
        current = asyncio.current_task()
        if isinstance(err, asyncio.CancelledError) and current is not None and current.cancelling():
            raise
        return _log_reply(task, failed(err), err)


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
