"""Handlers in the forms that a handler may have: async or plain, payload by annotation, a task ended on purpose.

    python examples/handlers.py                            # AJ_SERVER or AJ_CONTEXT says where; else this machine
    cd examples && aj-bridge respond --app handlers        # the same, with the options of a command

It needs a NATS server and a bridge; `producer.py` has something for it to do. Ctrl-C or SIGTERM ends it: it takes
nothing new, finishes what it has in hand, and leaves. Start it as often as you like, each task goes to one of them.
"""

import time
from dataclasses import dataclass

from aj_sdk import RetryLater, Task, Terminate, run, service


@dataclass
class Email:
    """What a task of type `email:new` brings; the JSON payload becomes this, or the task is terminated."""

    to: str
    subject: str = "hello"


@service("email:new")
async def send(task: Task, email: Email) -> dict[str, object]:
    """Send an e-mail. What a handler returns is the task's result: bytes, text, or anything that JSON can hold."""
    if "@" not in email.to:
        # No further try can mend it: the task ends here.
        raise Terminate(f"{email.to} is no address")
    # Goes to the program's own logging, with the task's id and type beside it.
    task.log.info("sending %r", email.subject)
    return {"sent": email.to, "try": task.tries}


@service("feed:fetch")
async def fetch(task: Task) -> str:
    """Fetch a feed that is busy at first: ask for a delay of our own instead of the bridge's backoff."""
    if task.tries == 1:
        raise RetryLater(0.2, "the feed is busy")
    return f"fetched at try {task.tries}"


@service("report:month", concurrency=2)
def report(month: str) -> dict[str, str]:
    """Write a report. A plain function runs in a thread, so it may block; two of these at a time are enough."""
    time.sleep(0.05)
    return {"month": month, "file": f"report-{month}.txt"}


@service("image:invert")
def invert(pixels: bytes) -> bytes:
    """Turn an image into its negative: a payload annotated `bytes` comes as it is, and bytes go back as they are."""
    return bytes(255 - pixel for pixel in pixels)


if __name__ == "__main__":
    run(on_ready=lambda: print("ready", flush=True))
