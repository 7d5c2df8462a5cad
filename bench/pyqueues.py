"""One worker process of a Python queue for the throughput bench: fills its queue, works it off, prints what that cost.

Both run the task in their own process, so they do without the request to a handler that the bridge makes. Each has its
usual broker: taskiq-nats a JetStream work queue with pulls of a hundred and no result backend, arq a Redis and results
that are kept.
"""

import argparse
import asyncio
import json
import logging
import resource
import time
from typing import Any

PAYLOAD = {"to": "a@example.net", "subject": "hello", "body": "x" * 60}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def taskiq(server: str, count: int, concurrency: int) -> tuple[float, float]:
    """Work with taskiq on taskiq-nats; returns seconds, and those of CPU."""
    from taskiq.api import run_receiver_task  # noqa: PLC0415 - it may not be installed
    from taskiq_nats import PullBasedJetStreamBroker  # noqa: PLC0415

    broker = PullBasedJetStreamBroker(server, pull_consume_batch=concurrency)
    done = asyncio.Event()
    left = count

    async def echo(payload: dict[str, Any]) -> dict[str, bool]:  # noqa: ARG001 - as a task has one
        nonlocal left
        left -= 1
        if left == 0:
            done.set()
        return {"ok": True}

    task = broker.register_task(echo, task_name="bench:echo")
    await broker.startup()
    for _ in range(0, count, concurrency):
        await asyncio.gather(*(task.kiq(PAYLOAD) for _ in range(concurrency)))
    broker.is_worker_process = True
    began, before = time.perf_counter(), _cpu()
    worker = asyncio.create_task(run_receiver_task(broker, max_async_tasks=concurrency, validate_params=False))
    await done.wait()
    figures = time.perf_counter() - began, _cpu() - before
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    await broker.shutdown()
    return figures


async def arq(server: str, count: int, concurrency: int) -> tuple[float, float]:
    """Work with arq; returns seconds, and those of CPU."""
    from arq import create_pool  # noqa: PLC0415 - it may not be installed
    from arq.connections import RedisSettings  # noqa: PLC0415
    from arq.worker import Worker  # noqa: PLC0415

    host, _, port = server.partition(":")
    pool = await create_pool(RedisSettings(host=host, port=int(port)))

    async def echo(_: dict[Any, Any], payload: dict[str, Any]) -> dict[str, bool]:  # noqa: ARG001
        return {"ok": True}

    for _ in range(0, count, concurrency):
        await asyncio.gather(*(pool.enqueue_job("echo", PAYLOAD) for _ in range(concurrency)))
    echo.__qualname__ = "echo"
    # In bursts it ends by itself when the queue is empty; it need not wait half a second for the next look.
    worker = Worker(
        [echo], redis_pool=pool, burst=True, max_jobs=concurrency, poll_delay=0, handle_signals=False, log_results=False
    )
    began, before = time.perf_counter(), _cpu()
    await worker.async_run()
    figures = time.perf_counter() - began, _cpu() - before
    if worker.jobs_complete != count:
        raise SystemExit(f"arq did {worker.jobs_complete} of {count}")
    await worker.close()
    return figures


WORKERS = {"taskiq": taskiq, "arq": arq}


def main() -> None:
    """Run one worker and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worker", choices=WORKERS)
    parser.add_argument("--server", required=True, help="URL of the NATS server, or HOST:PORT of the Redis server")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    options = parser.parse_args()
    if options.count % options.concurrency:
        parser.error("--count must be a multiple of --concurrency")
    logging.disable(logging.WARNING)
    seconds, cpu_seconds = asyncio.run(WORKERS[options.worker](options.server, options.count, options.concurrency))
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}), flush=True)


if __name__ == "__main__":
    main()
