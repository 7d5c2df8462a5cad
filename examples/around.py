"""What stands around handlers: what is set up for all of them, middleware, progress, and the time that is left.

    python examples/around.py          # AJ_SERVER or AJ_CONTEXT says where; else this machine

Give it something to do: `ajc task add report:rows '{"month": "2026-11", "rows": 40}' --raw --queue EMAIL`.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aj_sdk import Handle, Task, Terminate, run, service, services


@services.lifespan
async def lifespan() -> AsyncIterator[sqlite3.Connection]:
    """Open the database before the first task, and close it after the last one; handlers find it in their task."""
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("CREATE TABLE done (task TEXT PRIMARY KEY, rows INTEGER)")
    try:
        yield database
    finally:
        database.close()
        print("closed", flush=True)


@services.middleware
async def timed(task: Task, call_next: Handle) -> Any:
    """Log how long each call took, of whatever handler. The first middleware is the outermost."""
    began = time.monotonic()
    try:
        return await call_next(task)
    finally:
        task.log.info("took %.0f ms", (time.monotonic() - began) * 1e3)


async def once(task: Task, call_next: Handle) -> Any:
    """Do nothing twice: a task may come again when its reply was lost, and has the same id then."""
    found = task.lifespan.execute("SELECT rows FROM done WHERE task = ?", (task.id,)).fetchone()
    if found is not None:
        return {"rows": found[0], "again": True}
    return await call_next(task)


@dataclass
class Report:
    """What a task of type `report:rows` brings. Another payload ends the task, and the error names the field."""

    month: str
    rows: int


@service("report:rows", middleware=[once])
async def report(task: Task, wanted: Report) -> dict[str, object]:
    """Count rows, and tell how far it has come: each number gives the try its whole time again."""
    for row in range(wanted.rows):
        if row % 10 == 0:
            task.progress(row / wanted.rows, f"{row} of {wanted.rows} rows of {wanted.month}")
        await asyncio.sleep(0)
    task.lifespan.execute("INSERT INTO done VALUES (?, ?)", (task.id, wanted.rows))
    return {"rows": wanted.rows, "again": False}


@service("number:factor")
def factor(task: Task, number: int) -> list[int]:
    """Find the factors of a number, in a thread. Nobody can cancel that, so it looks by itself."""
    if number < 1:
        raise Terminate("only numbers from 1")
    found = []
    divisor = 2
    while number > 1:
        if task.cancelled or task.remaining < 0.1:  # not wanted any more, or too late in a moment
            raise TimeoutError(f"stopped at {divisor}")
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return found


if __name__ == "__main__":
    run(on_ready=lambda: print("ready", flush=True))
