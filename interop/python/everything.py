"""A responder on the Python SDK that does what its payload orders, for the conformance runner.

    aj-bridge conformance -- python interop/python/everything.py

The orders: docs/conformance.md. `both` and `case` set headers by hand, which the SDK does not let a handler do, so it
only terminates, and only fails. A handler of yours looks like examples/handlers.py instead.
"""

import asyncio
import json
import os
from typing import Any

from aj_sdk import RetryLater, Services, Task, Terminate, run

services = Services()


class Failed(Exception):
    """Fails the try, with nothing but the text in the task."""


@services.service(os.environ.get("AJ_TYPE", "email:new"), queue_group=os.environ.get("AJ_QUEUE_GROUP", "q"))
async def work(task: Task) -> Any:
    """Do what the payload says."""
    order = read(task.payload_bytes)
    text, pause = str(order.get("error", "failed")), order.get("ms", 0) / 1000
    match order.get("do"):
        case "echo":
            return task.payload_bytes
        case "empty":
            return b""
        case "binary":
            return bytes(range(256))
        case "big":
            return b"x" * order.get("bytes", 0)
        case "fail" | "case":
            raise Failed(text)
        case "unicode_error":
            raise Failed("dépassé ☃ 😀")
        case "terminate" | "both":
            raise Terminate(text)
        case "fail_once" if task.tries == 1:
            raise Failed(text)
        case "retry_after" if task.tries == 1:
            raise RetryLater(pause, text)
        case "crash":
            os._exit(1)
        case "sleep":
            await asyncio.sleep(pause)
        case "heartbeat":
            end = asyncio.get_running_loop().time() + pause
            while asyncio.get_running_loop().time() < end:
                task.heartbeat()
                await asyncio.sleep(max(order.get("every_ms", 1), 1) / 1000)
        case "progress":
            steps = max(order.get("steps", 1), 1)
            for step in range(1, steps + 1):
                await asyncio.sleep(pause)
                task.progress(step / steps, f"step {step} of {steps}")
        case "cancel":
            await asyncio.Event().wait()  # cancelled by the SDK, when it is told and at the deadline
        case "headers":
            trace = {"traceparent": task.traceparent, "tracestate": task.tracestate}
            return {
                "headers": {name: text for name, text in trace.items() if text},
                "id": task.id,
                "type": task.type,
                "tries": task.tries,
            }
        case "deadline":
            return {
                "deadline": task.handler_deadline.isoformat(),
                "timeout_ms": None,
                "content_type": None,
                "protocol": task.protocol or None,
                "invocation": task.invocation or None,
            }
    return {"handler": "python", "id": task.id, "try": task.tries}


def read(payload: bytes) -> dict[str, Any]:
    """Read the order; no payload is none."""
    try:
        order = json.loads(payload or b"{}")
    except ValueError as err:
        raise Terminate(f"payload is not a JSON object: {err}") from None
    if not isinstance(order, dict):
        raise Terminate("payload is not a JSON object")
    return order


if __name__ == "__main__":
    run(services, server=os.environ.get("NATS_URL", ""), on_ready=lambda: print("ready", flush=True))
