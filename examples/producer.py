"""A producer: makes a queue, enqueues one task and many, waits for what came of them.

    python examples/producer.py          # AJ_SERVER or AJ_CONTEXT says where; else this machine

It needs a NATS server, a bridge of the queue EMAIL (`aj-bridge run --queue EMAIL --create`) and the handlers of
`handlers.py`. They may be started later: tasks wait.
"""

import asyncio
from datetime import timedelta

from aj_sdk import Client, Queue, TaskFailedError, TaskSpec

PATIENCE_S = 60


async def main() -> None:
    """Produce."""
    async with Client.connect() as client:
        # A queue that is there stays as it is, so every program may begin like this.
        queue = await client.admin.create_queue(Queue("EMAIL", max_run_time=60, max_tries=20, max_concurrent=50))
        print(f"queue {queue.name}")

        # One task. When this returns, it is stored; whoever handles it need not be there yet.
        task = await client.enqueue(
            "email:new", {"to": "a@example.net"}, queue="EMAIL", deadline=timedelta(hours=1), max_tries=3
        )
        print(f"enqueued a task of type {task.type}")
        print(f"result: {await client.result(task.id, timeout=PATIENCE_S)}")

        # Enqueued once more under its id, it is the same task: safe after a timeout, safe at any time.
        again = await client.enqueue("email:new", {"to": "a@example.net"}, queue="EMAIL", id=task.id)
        print(f"enqueued again: the same task, state {again.state}")

        # Many, pipelined: pairs of type and payload, or a `TaskSpec` where there is more to say.
        tasks = await client.enqueue_many(
            [
                *(("email:new", {"to": f"user{number}@example.net"}) for number in range(1, 21)),
                ("feed:fetch", None),
                TaskSpec("report:month", "2026-11", max_tries=5),
            ],
            queue="EMAIL",
        )
        results = await asyncio.gather(*(client.result(each.id, timeout=PATIENCE_S) for each in tasks))
        print(f"{len(results)} results, the last two: {results[-2]!r}, {results[-1]['file']!r}")

        # Bytes go through as they are.
        image = await client.enqueue("image:invert", bytes([0, 1, 255]), queue="EMAIL")
        print(f"inverted: {(await client.result_bytes(image.id, timeout=PATIENCE_S)).hex(' ')}")

        # A task that its handler gives up.
        wrong = await client.enqueue("email:new", {"to": "nobody"}, queue="EMAIL")
        try:
            await client.result(wrong.id, timeout=PATIENCE_S)
        except TaskFailedError as err:
            print(f"{err.state}: {err.last_err}")


if __name__ == "__main__":
    asyncio.run(main())
