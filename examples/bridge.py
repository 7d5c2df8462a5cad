"""A program that is its own bridge: it takes tasks from a queue and handles them in this very process.

    python examples/bridge.py            # AJ_SERVER or AJ_CONTEXT says where; else this machine

No `aj-bridge` runs beside it. Retries, deadlines and leases work as they do there, and several of these programs share
the queue.
"""

import asyncio
import time
from datetime import timedelta

from aj_bridge import Bridge, Handle, Invocation, Outcome, RetryPolicy, Route, Router, chain
from aj_sdk import Client, Queue, RetryLater, Services, Task, Terminate

services = Services()


@services.service("resize", concurrency=2)
def resize(task: Task, width: int) -> dict[str, int]:
    """Do blocking work: a plain function runs in a thread, at most two of these at a time."""
    if task.tries == 1:
        raise RetryLater(0.05, "the disk is full")  # any other exception: after the route's backoff
    return {"width": width, "try": task.tries}


async def timed(invocation: Invocation, following: Handle) -> Outcome:
    """Stand around every call: the first middleware outermost."""
    began = time.monotonic()
    try:
        return await following(invocation)
    finally:
        assert time.monotonic() >= began
        print(f"{invocation.task.type}: try {invocation.task.tries} ended")


async def guarded(invocation: Invocation, following: Handle) -> Outcome:
    """Refuse what no handler should see; what a middleware raises counts as if the handler had raised it."""
    if invocation.task.payload == b"0":
        raise Terminate("nothing to resize")
    return await following(invocation)


async def main() -> None:
    """Serve a queue while we use it."""
    quick = RetryPolicy.exponential(timedelta(milliseconds=50), timedelta(seconds=1))
    routes = [Route.to(service, policy=quick) for service in services]
    router = Router([*routes, Route(type="*")], middleware=[chain(timed, guarded)])
    async with Bridge(Queue("PICTURES", max_tries=5), router), Client.connect() as client:
        task = await client.enqueue("resize", 640, queue="PICTURES")
        print(await client.result(task.id, timeout=60))
        for attempt in await client.attempts(task.id):
            print(f"attempt {attempt.try_}: {attempt.outcome}: {attempt.error}")


if __name__ == "__main__":
    asyncio.run(main())
