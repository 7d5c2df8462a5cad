"""A process of handlers that do what a task's payload says, and write down each call of theirs.

    AJ_SERVER=nats://... AJ_TEST_JOURNAL=FILE python handlers.py TYPE...

The journal has a JSON line for the beginning and one for the end of each call, of all processes. On standard output
stand `began ID TRY` and `ended ID TRY`; on standard input it takes `release ID TRY`, for a call that is held.

Payloads: `{"do": ORDER, ...}` with the orders below; without one it is a success.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aj_sdk import RetryLater, Services, Task, Terminate, run

BINARY = bytes(range(256))
BAD_TEXT = "dépassé ☃ 😀\nsecond line\x00"

services = Services()
released: dict[str, asyncio.Event] = defaultdict(asyncio.Event)


def note(what: str, task: Task) -> None:
    line = {
        "what": what,
        "task": task.id,
        "try": task.tries,
        "invocation": task.invocation,
        "pid": os.getpid(),
        "at": time.monotonic(),
        "at_ns": time.time_ns(),
    }
    # One write of one line at the end of the file, so that the lines of several processes do not mix.
    with Path(os.environ["AJ_TEST_JOURNAL"]).open("ab", buffering=0) as journal:
        journal.write(json.dumps(line).encode() + b"\n")
    print(what, task.id, task.tries, flush=True)


async def handle(task: Task) -> Any:
    note("began", task)
    try:
        return await obey(task, task.payload or {})
    finally:
        note("ended", task)


async def obey(task: Task, order: Mapping[str, Any]) -> Any:
    times = order.get("times", 1)
    match order.get("do", "ok"):
        case "fail" if task.tries <= times:
            raise RuntimeError(order.get("error", "failed on purpose"))
        case "later" if task.tries <= times:
            raise RetryLater(order["ms"] / 1000, order.get("error", "later"))
        case "terminate":
            raise Terminate(order.get("error", "terminated on purpose"))
        case "bad_text":
            raise Terminate(BAD_TEXT)
        case "sleep":
            await asyncio.sleep(order["ms"] / 1000)
        case "hold":
            await released[f"{task.id} {task.tries}"].wait()
        case "die" if task.tries <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        case "binary":
            return BINARY
        case "big":
            return b"x" * order["bytes"]
        case "parents":
            return dict(task.dependency_results)
    return {"id": task.id, "try": task.tries, "invocation": task.invocation, "language": "python"}


def listen() -> None:
    """Take orders from standard input; called in the event loop when the subscriptions stand."""
    loop = asyncio.get_running_loop()
    rest = b""

    def read() -> None:
        nonlocal rest
        chunk = os.read(sys.stdin.fileno(), 65536)
        if not chunk:
            loop.remove_reader(sys.stdin.fileno())
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            verb, _, call = line.decode().partition(" ")
            if verb == "release":
                released[call].set()

    loop.add_reader(sys.stdin.fileno(), read)
    print("ready", flush=True)


if __name__ == "__main__":
    for task_type in sys.argv[1:]:
        services.service(task_type)(handle)
    run(services, on_ready=listen)
