"""A responder with a defect, for the tests of the conformance runner: `python wrong.py DEFECT`; `none` has none."""

import asyncio
import base64
import json
import os
import signal
import sys
import time
from datetime import datetime
from typing import Any

import nats
from nats.aio.msg import Msg

DEFECT = sys.argv[1]
KNOWN = {"id", "type", "queue", "payload", "max_tries", "state", "created", "tried", "tries"} | {
    *("deadline", "dependencies", "dependency_results", "load_dependencies", "last_err", "signature", "result"),
}
seen: set[str] = set()


class Reply(Exception):  # noqa: N818 - an outcome
    def __init__(self, body: bytes = b"", **headers: str) -> None:
        self.body = body
        self.headers = {name.replace("_", "-"): text for name, text in headers.items()}


def left(headers: dict[str, str]) -> float:
    named = {name.lower(): text for name, text in headers.items()}
    if DEFECT == "needs-protocol" and "aj-protocol" not in named:
        raise Reply(AJ_Terminate="no AJ-Protocol")
    if "aj-handler-timeout-ms" in named:
        return int(named["aj-handler-timeout-ms"]) / 1000
    return datetime.fromisoformat(named["aj-handler-deadline"]).timestamp() - time.time()


def told(text: str) -> str:
    if DEFECT == "first-line-only":
        text = text.splitlines()[0] if text else ""
    if DEFECT == "ascii-errors":
        text = text.encode("ascii", "replace").decode()
    return " ".join(text.split())


async def work(msg: Msg) -> bytes:
    asked = dict(msg.headers or {})
    try:
        task = json.loads(msg.data)
        payload = base64.b64decode(task["payload"] or "")
    except (ValueError, TypeError, KeyError):
        if DEFECT == "dies-of-garbage":
            os._exit(3)
        raise Reply(AJ_Terminate="not a task") from None
    if DEFECT == "known-keys-only" and set(task) - KNOWN:
        raise Reply(AJ_Terminate="unknown keys")
    if DEFECT == "needs-payload" and task["payload"] is None:
        raise Reply(AJ_Terminate="no payload")
    if DEFECT == "once-an-id" and task["id"] in seen:
        raise Reply(AJ_Terminate="had it")
    seen.add(task["id"])
    seconds = left(asked)
    if seconds <= 0 and DEFECT != "begins-late":
        raise Reply(AJ_Error="deadline")
    order = json.loads(payload or b"{}")
    try:
        async with asyncio.timeout(None if DEFECT == "ignores-deadline" or seconds <= 0 else seconds):
            return await do(order, payload, task, asked, msg)
    except TimeoutError:
        raise Reply(AJ_Error="deadline") from None


async def do(order: dict[str, Any], payload: bytes, task: Any, asked: dict[str, str], msg: Msg) -> bytes:
    text = told(order.get("error", "failed"))
    tries = task.get("tries", 1)
    match order.get("do"):
        case "echo":
            return payload.strip() if DEFECT == "trims" else payload
        case "empty":
            return b"null" if DEFECT == "null-for-nothing" else b""
        case "binary":
            data = bytes(range(256))
            return data.decode("utf-8", "replace").encode() if DEFECT == "text-only" else data
        case "big":
            size = int(order["bytes"])
            return b"x" * (min(size, 65536) if DEFECT == "cuts-results" else size)
        case "fail" | "case":
            raise Reply(text.encode()) if DEFECT == "error-in-body" else Reply(AJ_Error=text)
        case "unicode_error":
            raise Reply(AJ_Error=told("dépassé ☃ 😀"))
        case "terminate":
            raise Reply(AJ_Error=text) if DEFECT == "never-terminates" else Reply(AJ_Terminate=text)
        case "both":
            raise Reply(AJ_Error="not this one") if DEFECT == "error-wins" else Reply(AJ_Terminate=text)
        case "fail_once" if tries == 1 or DEFECT == "forgets-tries":
            raise Reply(AJ_Error=text)
        case "retry_after" if tries == 1:
            raise (
                Reply(AJ_Error=text, AJ_Retry_After_Ms=str(order.get("ms", 0)))
                if ("AJ-Protocol" in asked or DEFECT == "always-retry-after")
                else Reply(AJ_Error=text)
            )
        case "crash":
            if DEFECT != "survives-crash":
                os._exit(1)
        case "sleep":
            await asyncio.sleep(order.get("ms", 0) / 1000)
        case "progress":
            if DEFECT == "always-interim":
                await msg._client.publish(msg.reply, b"", headers={"AJ-Progress": "0.5"})
        case "heartbeat" if "AJ-Heartbeat-Ms" in asked:
            beats = asyncio.create_task(beat(msg, order["every_ms"] / 1000))
            await asyncio.sleep(order["ms"] / 1000)
            if DEFECT != "beats-on":
                beats.cancel()
        case "headers":
            return json.dumps({"headers": asked, "id": task["id"], "type": task["type"], "tries": tries}).encode()
        case "deadline":
            return json.dumps({"timeout_ms": None, "protocol": asked.get("AJ-Protocol")}).encode()
    return b"{}"


async def beat(msg: Msg, seconds: float) -> None:
    while True:
        await msg._client.publish(msg.reply, b"", headers={"AJ-Progress": ""})
        await asyncio.sleep(seconds)


async def answer(msg: Msg) -> None:
    reply: Reply
    try:
        body = await work(msg)
        reply = Reply(body) if len(body) <= 1048576 else Reply(AJ_Terminate="too large")
    except Reply as made:
        reply = made
    for _ in range(2 if DEFECT == "answers-twice" else 1):
        await msg._client.publish(msg.reply, reply.body, headers=reply.headers or None)


async def main() -> None:
    if DEFECT == "no-catch-all" and not os.environ["AJ_TYPE"]:
        sys.exit("no type")
    if DEFECT == "no-prefix" and os.environ["AJ_TYPE"].endswith(":"):
        sys.exit("not a type")
    nc = await nats.connect(os.environ["NATS_URL"], max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet)
    running: set[asyncio.Task[None]] = set()

    async def come(msg: Msg) -> None:
        if DEFECT == "one-by-one":
            await answer(msg)
            return
        task = asyncio.create_task(answer(msg))
        running.add(task)
        task.add_done_callback(running.discard)

    group = "" if DEFECT == "no-group" else os.environ["AJ_QUEUE_GROUP"]
    sub = await nc.subscribe(os.environ["AJ_SUBJECT"], queue=group, cb=come)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await nc.flush()
    await stop.wait()
    if DEFECT == "never-leaves":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        await asyncio.sleep(3600)
    if DEFECT == "drops-what-is-in-hand":
        os._exit(0)
    if DEFECT != "listens-on":
        await sub.drain()  # type: ignore[no-untyped-call]
    await asyncio.gather(*running)
    await nc.drain()


async def quiet(_: Exception) -> None:
    pass


asyncio.run(main())
