"""A program with a NATS connection of its own that both produces and handles tasks on it.

    python examples/embedded.py          # NATS_URL says where; else this machine

The bridge runs beside it, on the same server: `aj-bridge run --queue PRICES --create`. Nothing of ours opens or
closes the connection, catches signals or sets up logging here: all that is the program's.
"""

import asyncio
import logging
import os
import sys

import nats

from aj_sdk import Client, Runner, Services, Task

log = logging.getLogger("prices")

# A registry of this program's own instead of the one behind `aj_sdk.service`, with its logger for `task.log`.
services = Services(logger=log)


@services.service("price:quote")
async def quote(task: Task, items: list[str]) -> dict[str, int]:
    """Say what things cost."""
    task.log.info("a quote for %d items", len(items))
    return {item: 100 + len(item) for item in items}


async def main() -> None:
    """Handle our own tasks, and whatever others enqueue."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    try:
        # The runner handles requests while it is entered, and finishes those in hand when it is left.
        async with Client(connection) as client, Runner(connection, services, grace=10):
            task = await client.enqueue("price:quote", ["tea", "honey"], queue="PRICES")
            print(f"quote: {await client.result(task.id, timeout=60)}")
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
