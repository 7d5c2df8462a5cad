"""One worker process of the throughput bench: takes N tasks to a remote handler, then prints what it cost.

`bridge` is ours, with all its bookkeeping; `plain` is the loop that one writes first on nats-py: each of the
concurrent workers fetches one item, loads its task, saves it active, asks the handler, saves the result and acks;
`floor` sends the
messages of a bridge with no logic: a pull as large as the free slots, one batched read a burst, the save before the
call, the call, the save after it, two events, the acknowledgement. No lease, no decision, no metric, no record is read:
it says what the server, the handler and the two cores leave room for.
"""

import argparse
import asyncio
import base64
import gc
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import nats
import uvloop

from aj_bridge.engine.bridge import Bridge, BridgeOptions, ServedQueue
from aj_bridge.engine.meter import UPDATES
from aj_bridge.engine.router import EACH, Encoding, Route, Router
from aj_bridge.faces.metrics import Metrics
from aj_sdk.fast import open_transport
from aj_sdk.jetstream import JetStream
from aj_sdk.transport import Message
from aj_sdk.wire.codec import encode_json
from aj_sdk.wire.names import TASKS_STREAM, handler_subject, queue_stream, task_event_subject, task_subject

TYPE = "bench:echo"


class CountingMetrics(Metrics):
    """The metrics of `aj-bridge run`, which stop the bridge at the last completed task."""

    def __init__(self, wanted: int, done: Callable[[], None]) -> None:
        super().__init__()
        self._left = wanted
        self._done = done

    def inc(self, name: str, by: float = 1, /, **labels: str) -> None:
        """Count."""
        super().inc(name, by, **labels)
        if name == UPDATES and labels.get("state") == "complete":
            self._left -= 1
            if self._left == 0:
                self._done()


async def bridge(server: str, queue: str, count: int, concurrency: int, encoding: str) -> float:
    """Work with our bridge; returns the seconds from its being ready to the last completed task."""
    connection = await nats.connect(server, pending_size=8 << 20, skip_subject_validation=True)
    times: dict[str, float] = {}
    route = Route(type=EACH, encoding=Encoding(encoding))

    def done() -> None:
        times["end"] = time.perf_counter()
        worker.stop()

    async with open_transport(connection) as transport:
        worker = Bridge(
            JetStream(transport),
            BridgeOptions(queues=(ServedQueue(name=queue),), concurrency=concurrency, router=Router([route])),
            CountingMetrics(count, done),
        )
        await worker.run(lambda *_: times.update(begin=time.perf_counter()))
    await connection.close()
    return times["end"] - times["begin"]


async def plain(server: str, queue: str, count: int, concurrency: int, _encoding: str) -> float:
    """Work with the plain loop; returns the seconds for all tasks."""
    connection = await nats.connect(server)
    js = connection.jetstream()
    left = count

    async def work() -> None:
        nonlocal left
        pull = await js.pull_subscribe_bind("WORKERS", f"CHORIA_AJ_Q_{queue}")
        while left > 0:
            left -= 1
            (item,) = await pull.fetch(1, timeout=30)
            task_id = json.loads(item.data)["job"]
            subject = f"CHORIA_AJ.T.{task_id}"
            stored = await js.get_last_msg("CHORIA_AJ_TASKS", subject)
            assert stored.data is not None
            task: dict[str, Any] = json.loads(stored.data)
            task |= {"state": "active", "tries": task["tries"] + 1, "tried": _now()}
            headers = {"Nats-Expected-Last-Subject-Sequence": str(stored.seq)}
            saved = await js.publish(subject, json.dumps(task).encode(), headers=headers)
            reply = await connection.request(
                f"CHORIA_AJ.H.T.{task['type']}",
                json.dumps(task).encode(),
                timeout=30,
                headers={"AJ-Content-Type": "application/x-asyncjobs-task+json", "AJ-Handler-Deadline": _now()},
            )
            result = {"payload": base64.b64encode(reply.data).decode(), "completed": _now()}
            task |= {"state": "complete", "result": result}
            headers = {"Nats-Expected-Last-Subject-Sequence": str(saved.seq)}
            await js.publish(subject, json.dumps(task).encode(), headers=headers)
            await item.ack()

    begin = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    seconds = time.perf_counter() - begin
    await connection.close()
    return seconds


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


_PADDING = b" " * 150
"""What a record grows by on its way: state, tries, times and result."""


async def floor(server: str, queue: str, count: int, concurrency: int, _encoding: str) -> float:
    """Send the messages of so many tasks; returns the seconds that took."""
    connection = await nats.connect(server, pending_size=8 << 20, skip_subject_validation=True)
    async with open_transport(connection) as transport:
        jetstream = JetStream(transport)
        done = asyncio.Event()
        free, left, ended = concurrency, count, 0
        event = b'{"event_id":"","type":"io.choria.asyncjobs.v1.task_state"}' + _PADDING
        burst: list[Message] = []
        tasks: set[asyncio.Task[None]] = set()
        inbox = transport.new_subject()
        pull_subject = f"{jetstream.prefix}.CONSUMER.MSG.NEXT.{queue_stream(queue)}.WORKERS"

        def spawn(work: Any) -> None:
            task = asyncio.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        def on_item(message: Message) -> None:
            if message.subject.startswith(inbox):
                return
            if not burst:
                asyncio.get_running_loop().call_soon(lambda: spawn(load()))
            burst.append(message)

        async def load() -> None:
            items = burst.copy()
            burst.clear()
            by_subject = {task_subject(item.subject.rpartition(".")[2]): item for item in items}
            found = await jetstream.last_many(TASKS_STREAM, list(by_subject))
            for subject, item in by_subject.items():
                spawn(work(subject, item, found[subject].data, found[subject].sequence))

        async def work(subject: str, item: Message, body: bytes, sequence: int) -> None:
            nonlocal free, ended
            task_id = subject.rpartition(".")[2]
            told = task_event_subject(task_id)
            headers = {"Nats-Expected-Last-Subject-Sequence": str(sequence), "AJ-Owner": "x" * 27, "AJ-Item": "1.1"}
            sequence = await jetstream.publish(subject, body + _PADDING, headers)
            await transport.publish(told, event)
            asked = {"AJ-Content-Type": "application/x-asyncjobs-task+json", "AJ-Handler-Deadline": "x" * 20}
            await transport.request(handler_subject(TYPE), body + _PADDING, headers=asked, timeout=30)
            headers["Nats-Expected-Last-Subject-Sequence"] = str(sequence)
            await jetstream.publish(subject, body + _PADDING, headers)
            await transport.publish(told, event)
            await transport.publish(item.reply, b"+ACK")
            free += 1
            ended += 1
            if ended == count:
                done.set()
            elif free >= concurrency // 8:
                await pull()

        async def pull() -> None:
            nonlocal free, left
            batch = min(free, left)
            if batch <= 0:
                return
            free -= batch
            left -= batch
            request = encode_json({"batch": batch, "expires": 30_000_000_000})
            await transport.publish(pull_subject, request, reply=f"{inbox}.{left}")

        subscription = await transport.subscribe(inbox + ".*", on_item)
        began = time.perf_counter()
        await pull()
        await done.wait()
        seconds = time.perf_counter() - began
        await subscription.close()
    await connection.close()
    return seconds


WORKERS = {"bridge": bridge, "plain": plain, "floor": floor}


def main() -> None:
    """Run one worker and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worker", choices=WORKERS)
    parser.add_argument("--server", required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--encoding", choices=[each.value for each in Encoding], default=Encoding.JSON.value)
    options = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF)
    work = WORKERS[options.worker](options.server, options.queue, options.count, options.concurrency, options.encoding)
    if options.worker != "plain":
        # As `aj-bridge run` does.
        gc.freeze()
        gc.set_threshold(50_000, 50, 100)
    seconds = uvloop.run(work) if options.worker != "plain" else asyncio.run(work)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu}), flush=True)


if __name__ == "__main__":
    main()
