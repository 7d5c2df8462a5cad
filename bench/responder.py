"""Requests per second of a handler that `aj_sdk` runs, beside the same work in a bare nats-py subscription.

    python bench/responder.py
    python bench/responder.py --requests 20000 --rounds 5 --json
    python bench/responder.py --need 0.8        # exit code 1 where the ratio is lower

A driver with no logic sends the requests that a bridge sends, so many in flight, to one responder process at a time, in
alternating rounds; the figures are medians.

sdk    `@service` and the runner, as `aj_sdk.run` has them: slots, deadlines, signs of life, figures, cancels
plain  the same with a plain function, which runs in a thread
bare   a subscription of nats-py that reads the task's JSON, takes a field of its payload and answers with JSON
"""

import argparse
import asyncio
import base64
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import nats
import uvloop
from nats.aio.msg import Msg
from processes import TYPE, cpu, machine, medians, process
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.connect import ConnectOptions
from aj_sdk.fast import open_transport
from aj_sdk.handling import Task
from aj_sdk.ids import new_id
from aj_sdk.runner import Runner
from aj_sdk.services import Services
from aj_sdk.wire.call import call_header_block
from aj_sdk.wire.names import HANDLER_QUEUE_GROUP, handler_subject
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

KINDS = ("sdk", "plain", "bare")
_TIMEOUT_S = 60.0
_WARM_UP = 500


async def serve(kind: str, server: str) -> None:
    """Be the responder, until SIGTERM."""
    if kind == "bare":
        await _serve_bare(server)
        return
    services = Services()
    if kind == "sdk":

        @services.service(TYPE)
        async def echo(task: Task) -> Any:
            return {"to": task.payload["to"]}

    else:

        @services.service(TYPE)
        def echo_in_a_thread(task: Task) -> Any:
            return {"to": task.payload["to"]}

    runner = Runner(
        ConnectOptions(servers=(server,)), services, concurrency=1000, on_ready=lambda: print("ready", flush=True)
    )
    await runner.run()


async def _serve_bare(server: str) -> None:
    connection = await nats.connect(server)

    async def answer(message: Msg) -> None:
        task = json.loads(message.data)
        payload = json.loads(base64.b64decode(task["payload"]))
        await connection.publish(message.reply, json.dumps({"to": payload["to"]}).encode())

    await connection.subscribe(handler_subject(TYPE), HANDLER_QUEUE_GROUP, cb=answer)
    await connection.flush()
    print("ready", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await connection.close()


async def drive(server: str, count: int, in_flight: int, payload: int) -> float:
    """Send requests; returns the seconds from the first one to the last reply."""
    connection = await nats.connect(server, pending_size=8 << 20)
    body = json.dumps({"to": "a@example.net", "subject": "hello", "body": "x" * max(0, payload - 50)}).encode()
    now_ns = time.time_ns()
    task = TaskRecord(
        id=new_id(),
        type=TYPE,
        queue="BENCH",
        state=TaskState.ACTIVE,
        payload=body,
        created_ns=now_ns,
        tries=1,
        tried_ns=now_ns,
    )
    request = task.to_wire()
    numbers = iter(range(count))

    async with open_transport(connection) as transport:

        async def work() -> None:
            for number in numbers:
                now_ns = time.time_ns()
                headers = call_header_block(
                    task, invocation=f"bench-{number}", now_ns=now_ns, give_up_ns=now_ns + 60 * NS_PER_S
                )
                reply = await transport.request(handler_subject(TYPE), request, headers=headers, timeout=_TIMEOUT_S)
                if reply.data not in _RIGHT:
                    raise SystemExit(f"a wrong answer: {reply.headers} {reply.data!r}")

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(in_flight)))
        seconds = time.perf_counter() - began
    await connection.close()
    return seconds


_RIGHT = (b'{"to":"a@example.net"}', b'{"to": "a@example.net"}')


def bench(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Run all rounds."""
    kinds = [kind for kind in KINDS if kind in options.kinds.split(",") or kind == "bare"]
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    bar = progress.add_task("rounds", total=options.rounds * len(kinds))
    with EmbeddedServer() as server:
        for number in range(options.rounds):
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                progress.update(bar, description=f"round {number + 1}: {kind}")
                command: list[str | Path] = [sys.executable, Path(__file__), "--serve", kind, "--server", server.url]
                with process(command, "ready") as pid:
                    uvloop.run(drive(server.url, _WARM_UP, options.concurrency, options.payload))
                    before, beside = cpu(pid), cpu(server.pid)
                    seconds = uvloop.run(drive(server.url, options.requests, options.concurrency, options.payload))
                    rows[kind].append(
                        {
                            "requests_per_s": options.requests / seconds,
                            "cpu_us": (cpu(pid) - before) * 1e6 / options.requests,
                            "server_cpu_us": (cpu(server.pid) - beside) * 1e6 / options.requests,
                        }
                    )
                progress.advance(bar)
        version = server.version
    figures = {kind: {name: round(value, 1) for name, value in medians(found).items()} for kind, found in rows.items()}
    bare = figures["bare"]
    return {
        "ratios": {
            kind: round(ours["requests_per_s"] / bare["requests_per_s"], 2)
            for kind, ours in figures.items()
            if kind != "bare"
        },
        "cpu_ratios": {
            kind: round(ours["cpu_us"] / bare["cpu_us"], 2) for kind, ours in figures.items() if kind != "bare"
        },
        "responders": figures,
        "requests": options.requests,
        "rounds": options.rounds,
        "concurrency": options.concurrency,
        "payload": options.payload,
        "machine": machine(version),
    }


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(title="responder / a bare subscription, in requests a second")
    for heading in ("responder", "it / bare", "requests/s", "its CPU us a request", "its CPU / bare's"):
        table.add_column(heading, justify="left" if heading == "responder" else "right")
    for kind, figures in found["responders"].items():
        table.add_row(
            kind,
            str(found["ratios"].get(kind, "")),
            f"{figures['requests_per_s']:.0f}",
            f"{figures['cpu_us']:.0f}",
            str(found["cpu_ratios"].get(kind, "")),
        )
    Console().print(table)
    print(
        f"{found['requests']} requests of {found['payload']} bytes x {found['rounds']} rounds, {found['concurrency']} "
        f"in flight; {found['machine']}"
    )


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="requests a round (default 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each responder (default 3)")
    parser.add_argument("--concurrency", type=int, default=100, help="requests in flight (default 100)")
    parser.add_argument("--payload", type=int, default=110, help="bytes of a payload (default 110)")
    parser.add_argument("--kinds", default="sdk", help="which to measure beside bare: sdk, plain (default sdk)")
    parser.add_argument("--need", type=float, help="fail where sdk / bare is lower")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        # Each on the loop that `aj_sdk.run` takes.
        uvloop.run(serve(options.serve, options.server))
        return
    unknown = set(options.kinds.split(",")) - set(KINDS)
    if unknown:
        parser.error(f"no such responder: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = bench(options, progress)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    if options.need is not None and found["ratios"].get("sdk", 0) < options.need:
        raise SystemExit(f"sdk / bare is {found['ratios'].get('sdk')}, and should be at least {options.need}")


if __name__ == "__main__":
    main()
