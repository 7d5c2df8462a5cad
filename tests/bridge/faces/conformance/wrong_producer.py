"""A producer with a defect, for the tests of the conformance runner: `python wrong_producer.py DEFECT`."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime

import nats

DEFECT = sys.argv[1]


async def main() -> None:
    told = json.load(sys.stdin)
    if DEFECT == "says-no":
        sys.exit("no")
    payload = told["payload_base64"]
    if DEFECT == "null-as-text" and payload is None:
        payload = "bnVsbA=="
    task = {
        "id": told["id"],
        "type": told["type"],
        "queue": told["queue"],
        "payload": payload,
        "max_tries": 10 if DEFECT == "fixed-tries" else told.get("max_tries", 10),
        "state": "active" if DEFECT == "wrong-state" else "new",
        "created": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "tries": 0,
    }
    if told.get("deadline"):
        deadline = told["deadline"]
        task["deadline"] = f"{deadline[:26]}Z" if DEFECT == "microseconds" else deadline
    if told.get("dependencies"):
        task |= {"dependencies": told["dependencies"], "state": "new" if DEFECT == "never-blocks" else "blocked"}
    nc = await nats.connect(os.environ["NATS_URL"])
    js = nc.jetstream()
    once = {"Nats-Expected-Last-Subject-Sequence": "0"}
    await js.publish(f"CHORIA_AJ.T.{task['id']}", json.dumps(task).encode(), headers=once)
    if DEFECT != "no-item":
        item = {"kind": 0, "job": "another" if DEFECT == "wrong-item" else task["id"]}
        await js.publish(f"CHORIA_AJ.Q.{task['queue']}.{task['id']}", json.dumps(item).encode())
    await nc.close()


asyncio.run(main())
