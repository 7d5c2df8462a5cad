"""What an application does with the SDK alone; run by the Python of an environment that holds nothing else of ours.

python smoke.py nats://127.0.0.1:4222
"""

import asyncio
import sys
from dataclasses import dataclass

import nats

from aj_schemas import load, names, vectors
from aj_sdk import Client, Queue, Runner, Services, Task, TaskRecord, TaskState
from aj_sdk.wire.call import call_headers
from aj_sdk.wire.names import handler_subject

TYPE = "packaging:smoke"
services = Services()


@dataclass
class Order:
    number: int


@services.service(TYPE)
async def double(task: Task, order: Order) -> dict[str, int]:
    return {"doubled": 2 * order.number, "try": task.tries}


async def main(server: str) -> None:
    connection = await nats.connect(server)
    async with Client(connection) as client, Runner(connection, services):
        await client.admin.create_queue(Queue("SMOKE"))
        task = await client.enqueue(TYPE, {"number": 21}, queue="SMOKE")
        assert (await client.load(task.id)).state is TaskState.NEW
        # No bridge here: call the handler as one would.
        active = task.replace(state=TaskState.ACTIVE, tries=1)
        headers = call_headers(active, invocation="x", now_ns=task.created_ns, give_up_ns=task.created_ns + 10**10)
        reply = await connection.request(handler_subject(TYPE), active.to_wire(), headers=headers, timeout=10)
        assert (reply.data, reply.headers) == (b'{"doubled":42,"try":1}', None), reply
    await connection.close()


asyncio.run(main(sys.argv[1]))
assert all(load(name)["title"] for name in names())
for vector in vectors():
    if vector["kind"] == "task":
        assert TaskRecord.from_wire(vector["text"].encode()).id == vector["decoded"]["id"]
print("enqueued, handled, validated")
