"""A producer on the Python SDK for the conformance runner: it enqueues the task that standard input tells.

aj-bridge conformance --producer -- python interop/python/produce.py
"""

import asyncio
import base64
import json
import os
import sys
import time

from aj_sdk import Client
from aj_sdk.enqueue import enqueue
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import parse_time


async def main() -> None:
    """Enqueue one task."""
    told = json.load(sys.stdin)
    payload, deadline = told["payload_base64"], told.get("deadline")
    record = TaskRecord(
        id=told["id"],
        type=told["type"],
        queue=told["queue"],
        payload=None if payload is None else base64.b64decode(payload),
        max_tries=told.get("max_tries", 10),
        deadline_ns=None if deadline is None else parse_time(deadline),
        dependencies=tuple(told.get("dependencies", ())),
        state=TaskState.BLOCKED if told.get("dependencies") else TaskState.NEW,
        created_ns=time.time_ns(),
    )
    async with Client.connect(os.environ["NATS_URL"]) as client:
        await enqueue(client.store, record)


asyncio.run(main())
