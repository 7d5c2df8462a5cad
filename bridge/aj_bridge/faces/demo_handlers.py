"""The demo's Python handler: what a user writes, with the payload saying how it shall end.

python -m aj_bridge.faces.demo_handlers        # AJ_SERVER says where
"""

import logging
from typing import TypedDict

from aj_sdk import RetryLater, Services, Task, Terminate, run

__all__ = ["services"]

services = Services()


class Email(TypedDict, total=False):
    """The payload of the demo's tasks."""

    to: str
    do: str
    error: str
    ms: int


@services.service("email:new")
async def send(task: Task, email: Email) -> dict[str, object]:
    """Send an e-mail, or what the payload asks for instead."""
    order = email.get("do", "ok")
    if order == "terminate":
        raise Terminate(email.get("error", "terminated"))
    if order == "retry_after" and task.tries == 1:
        raise RetryLater(email.get("ms", 0) / 1000, email.get("error", "retry later"))
    return {"handler": "python", "id": task.id, "try": task.tries}


if __name__ == "__main__":
    # The demo's failures are planned, and would hide its progress.
    logging.basicConfig(level=logging.CRITICAL)
    run(services, on_ready=lambda: print("ready", flush=True))
