"""A process of handlers on plain nats-py, which write down each call of theirs; nothing of ours is in it.

    python handlers.py URL LOG TYPE...

The log has a JSON line for the beginning, each heartbeat and the end of each call; the end is written before the reply
is sent, so that no reply is unknown. A task's payload says what to do: `{"do": ORDER, "times": N, "ms": MS}`; an order
is followed for the first N tries (1), after which the task succeeds.
"""

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

BEATING: Final = {"ok", "fail", "later", "terminate", "twice", "big", "die", "malformed"}
MALFORMED: Final = (
    {"AJ-Error": ""},
    {"AJ-Progress": "2e9"},
    {"AJ-Retry-After-Ms": "soon", "AJ-Error": "x"},
    {"aj-terminate": ""},
)


class Handlers:
    """The calls of this process."""

    def __init__(self, connection: Client, log: Path) -> None:
        self._nc = connection
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._calls: set[asyncio.Task[None]] = set()

    async def take(self, message: Msg) -> None:
        call = asyncio.create_task(self._call(message))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def _note(self, what: str, invocation: str, **more: Any) -> None:
        line = {"what": what, "at": time.time_ns(), "invocation": invocation, **more}
        # One write of one line at the end of the file, so that the lines of several processes do not mix.
        os.write(self._log, json.dumps(line).encode() + b"\n")

    async def _call(self, message: Msg) -> None:
        headers = message.headers or {}
        task = json.loads(message.data)
        invocation, attempt = headers["AJ-Invocation"], int(headers["AJ-Task-Try"])
        given = json.loads(base64.b64decode(task.get("payload") or "bnVsbA=="))
        order: Mapping[str, Any] = given if isinstance(given, dict) else {}
        do = order.get("do", "ok") if attempt <= order.get("times", 1) else "ok"
        self._note("began", invocation, task=task["id"], **{"try": attempt}, pid=os.getpid())
        beat_s = int(headers.get("AJ-Heartbeat-Ms", "0")) / 1000
        beating = asyncio.create_task(self._beat(message, invocation, beat_s)) if beat_s and do in BEATING else None
        try:
            await asyncio.sleep(order.get("ms", 5) / 1000)
            if do == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            if beating is not None:
                beating.cancel()
        reply, said = self._answer(do, order, invocation, attempt)
        shown = base64.b64encode(reply).decode() if do != "silent" else None
        self._note("ended", invocation, headers=said, reply=shown)
        if do != "silent":
            for _ in range(2 if do == "twice" else 1):
                await self._nc.publish(message.reply, reply, headers=dict(said) or None)

    @staticmethod
    def _answer(do: str, order: Mapping[str, Any], invocation: str, attempt: int) -> tuple[bytes, Mapping[str, str]]:
        match do:
            case "fail":
                return b"", {"AJ-Error": "failed on purpose"}
            case "later":
                return b"", {"AJ-Error": "later", "AJ-Retry-After-Ms": str(order.get("after", 300))}
            case "terminate":
                return b"", {"AJ-Terminate": "terminated on purpose"}
            case "malformed":
                return b"malformed", MALFORMED[order.get("which", 0) % len(MALFORMED)]
            case "empty_error":
                return b"no result", {"AJ-Error": ""}
            case "big":
                return b"x" * order["bytes"], {}
        return json.dumps({"invocation": invocation, "try": attempt}).encode(), {}

    async def _beat(self, message: Msg, invocation: str, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self._note("beat", invocation)
            await self._nc.publish(message.reply, b"", headers={"AJ-Progress": ""})


async def main(url: str, log: str, *types: str) -> None:
    async def quiet(_error: Exception) -> None:
        """Say nothing: that the server goes away is what is tried here."""

    connection = await nats.connect(url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet)
    handlers = Handlers(connection, Path(log))
    for task_type in types:
        await connection.subscribe(f"CHORIA_AJ.H.T.{task_type}", queue="q", cb=handlers.take)
    await connection.flush()
    print("ready", flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    # As a responder should: take no more, end what runs, then leave.
    await asyncio.wait_for(connection.drain(), 30)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
