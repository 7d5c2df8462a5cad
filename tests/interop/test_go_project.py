"""Both directions on one server with the Go project's own library: its client, its worker, its command line.

Go's part is played by `interop/upstream/bin/peer`, on the Go project's library, and by its `ajc`; ours by real
`aj-bridge run` processes, the SDK's client, and handlers on the SDK's runner.
"""

import asyncio
import json
import time
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.processes import Process
from tests.acceptance.world import World, open_world
from tests.interop.conftest import Upstream

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.buckets import Bucket
from aj_sdk.enqueue import enqueue
from aj_sdk.errors import SignatureError
from aj_sdk.queue import Queue
from aj_sdk.wire.bridge import BridgeStatus
from aj_sdk.wire.names import ELECTIONS_BUCKET, schedule_subject, task_subject
from aj_sdk.wire.signing import Signer, Verifier
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

pytestmark = pytest.mark.interop

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
OTHER_SEED = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
SECOND_NS = 10**9
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True, slots=True)
class Go:
    """The Go project's side of a world."""

    world: World
    programs: Upstream
    contexts: Path

    async def peer(self, command: str, *arguments: str) -> list[dict[str, Any]]:
        """Run a command of the peer to its end, and return what it printed."""
        process = self.start(command, *arguments)
        if await process.ended(seconds=60):
            process.fail("failed")
        return [json.loads(line) for line in process.out]

    def start(self, command: str, *arguments: str) -> Process:
        """Start a command of the peer that runs until it is told to stop."""
        return self.world.crew.start(f"peer {command}", self.programs.peer, command, "--server", self.url, *arguments)

    async def ajc(self, *arguments: str) -> list[str]:
        """Run the Go project's command line, and return the lines that it printed."""
        settings = {"XDG_CONFIG_HOME": str(self.contexts)}
        process = self.world.crew.start("ajc", self.programs.ajc, *arguments, "--context", "WORLD", **settings)
        if await process.ended(seconds=60):
            process.fail("failed")
        return process.out

    async def enqueue(self, *arguments: str) -> str:
        """Enqueue a task into the queue Q, and return its id."""
        [told] = await self.peer("enqueue", "--queue", "Q", *arguments)
        return str(told["id"])

    async def load(self, task_id: str, *arguments: str) -> dict[str, Any]:
        """Read a task as the Go library does."""
        [told] = await self.peer("load", "--id", task_id, *arguments)
        task: dict[str, Any] = told["task"]
        return task

    @property
    def url(self) -> str:
        return self.world.crew.url


@pytest.fixture
async def world(
    clean_server: EmbeddedServer, tmp_path: Path, patience: Callable[[float], float]
) -> AsyncIterator[World]:
    async with open_world(clean_server.url, tmp_path, patience) as opened:
        yield opened


@pytest.fixture
def go(world: World, upstream: Upstream, tmp_path: Path) -> Go:
    contexts = tmp_path / "config"
    folder = contexts / "nats" / "context"
    folder.mkdir(parents=True)
    (folder / "WORLD.json").write_text(json.dumps({"url": world.crew.url}))
    return Go(world, upstream, contexts)


async def stop(worker: Process) -> list[dict[str, Any]]:
    """Stop a worker of the peer in order, and return the calls that it handled."""
    worker.terminate()
    if await worker.ended():
        worker.fail("did not stop in order")
    lines = [json.loads(line) for line in worker.out]
    return [line["handled"] for line in lines if isinstance(line.get("handled"), dict)]


async def configuration(world: World, queue: str = "Q") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configurations of a queue's stream and of its consumer."""
    jetstream = world.client.store.jetstream
    stream = await jetstream.stream_info(f"CHORIA_AJ_Q_{queue}")
    consumer = await jetstream.consumer_info(f"CHORIA_AJ_Q_{queue}", "WORKERS")
    assert stream is not None
    assert consumer is not None
    return stream["config"], consumer["config"]


# Go enqueues, ours runs, Go reads.


async def test_go_enqueues_we_run_and_go_reads_the_result(go: Go) -> None:
    world = go.world
    await world.ready(world.crew.bridge("Q"), world.crew.handlers("work"))
    task_id = await go.enqueue("--type", "work", "--payload", '{"do": "ok", "to": "é"}', "--deadline", "1h")
    await world.ended(task_id)
    task = await go.load(task_id)
    assert (task["state"], task["tries"], task["queue"], task.get("last_err")) == ("complete", 1, "Q", None)
    assert json.loads(b64decode(task["payload"])) == {"do": "ok", "to": "é"}
    [call] = world.calls(task_id)
    assert json.loads(b64decode(task["result"]["payload"]))["invocation"] == call["invocation"]


@pytest.mark.parametrize(
    ("payload", "state", "last_err"),
    [
        ({"do": "terminate", "error": "no such mailbox"}, "terminated", "no such mailbox"),
        ({"do": "later", "times": 9, "ms": 50, "error": "dépassé ☃"}, "expired", "dépassé ☃"),
    ],
)
async def test_go_reads_how_a_task_failed_here(go: Go, payload: object, state: str, last_err: str) -> None:
    world = go.world
    await world.ready(world.crew.bridge("Q"), world.crew.handlers("work"))
    task_id = await go.enqueue("--type", "work", "--payload", json.dumps(payload), "--max-tries", "2")
    await world.ended(task_id)
    task = await go.load(task_id)
    assert (task["state"], task["last_err"], task["max_tries"]) == (state, last_err, 2)
    assert task["tries"] == len(world.calls(task_id))


async def test_a_dependency_that_go_enqueued_is_kept_here(go: Go) -> None:
    world = go.world
    handlers = world.crew.handlers("work")
    await world.ready(world.crew.bridge("Q"), handlers)
    parent = await go.enqueue("--type", "work", "--payload", '{"do": "hold"}')
    await handlers.says(f"^began {parent} 1$")
    payload = ("--payload", '{"do": "parents"}')
    async with world.overhear("CHORIA_AJ.D.S.>") as parked:
        child = await go.enqueue("--type", "work", *payload, "--depends", parent, "--load")
        await parked.message(lambda message: message.subject.endswith(child))
    handlers.tell(f"release {parent} 1")
    ended = await world.ended(child)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    task = await go.load(child)
    assert json.loads(b64decode(task["dependency_results"][parent]["payload"]))["id"] == parent
    parent_end = next(line for line in world.journal() if line["task"] == parent and line["what"] == "ended")
    assert parent_end["at"] < world.calls(child)[0]["at"]


async def test_our_child_runs_here_when_a_go_worker_has_completed_its_parent(go: Go) -> None:
    world = go.world
    for name in ("GO", "OURS"):
        await world.client.admin.create_queue(Queue(name, max_run_time=timedelta(minutes=1), go_workers=name == "GO"))
    bridge, handlers = world.crew.bridge("OURS"), world.crew.handlers("work")
    await world.ready(bridge, handlers)
    async with world.overhear("CHORIA_AJ.D.S.>") as parked:
        parent = await world.client.enqueue("work", queue="GO", delay=2)
        child = await world.client.enqueue(
            "work", {"do": "parents"}, queue="OURS", dependencies=[parent], load_dependencies=True
        )
        await parked.message(lambda message: message.subject.endswith(child.id))
    worker = go.start("work", "--queue", "GO")
    await world.ready(worker)
    # Nobody wakes it: it looks for itself, after 5 s.
    ended = await world.ended(child.id, seconds=60)
    assert (ended.state, list(ended.dependency_results)) == (TaskState.COMPLETE, [parent.id])
    assert [call["id"] for call in await stop(worker)] == [parent.id]
    assert (await go.load(child.id))["state"] == "complete"


# Ours enqueues, Go runs.


@pytest.mark.parametrize("go_workers", [False, True], ids=["ours", "for-go"])
async def test_we_enqueue_and_a_go_worker_runs_it(go: Go, go_workers: bool) -> None:
    world = go.world
    await world.client.admin.create_queue(Queue("Q", max_run_time=timedelta(minutes=1), go_workers=go_workers))
    worker = go.start("work", "--queue", "Q")
    await world.ready(worker)
    task = await world.client.enqueue(
        "email:new", {"to": "a"}, queue="Q", deadline=timedelta(hours=1), traceparent=TRACE, tracestate="a=b"
    )
    assert task.extra == {"traceparent": TRACE, "tracestate": "a=b"}
    result = await world.client.result(task.id, timeout=world.patience(30))
    assert result == {"handled_by": "go", "id": task.id}
    ended = await world.client.load(task.id)
    assert (ended.state, ended.tries, ended.payload) == (TaskState.COMPLETE, 1, task.payload)
    # What Go saved again is what we wrote, to the nanosecond.
    assert (ended.created_ns, ended.deadline_ns) == (task.created_ns, task.deadline_ns)
    assert ended.extra == {}  # keys that Go does not know do it no harm, and are gone once it saves
    assert [(call["id"], call["outcome"]) for call in await stop(worker)] == [(task.id, "ok")]


async def test_a_cancelled_task_is_terminated_for_go_too_and_its_worker_never_gets_it(go: Go) -> None:
    world = go.world
    await world.client.admin.create_queue(Queue("Q", max_run_time=timedelta(minutes=1), go_workers=True))
    cancelled = await world.client.enqueue("email:new", queue="Q")
    await world.client.cancel(cancelled.id, reason="not needed")
    deleted = await world.client.enqueue("email:new", queue="Q")
    await world.client.admin.tasks.delete(deleted.id)
    worker = go.start("work", "--queue", "Q")
    await world.ready(worker)
    after = await world.client.enqueue("email:new", queue="Q")
    await world.client.result(after.id, timeout=world.patience(30))
    task = await go.load(cancelled.id)
    assert (task["state"], task["last_err"], task["tries"]) == ("terminated", "cancelled: not needed", 0)
    assert [call["id"] for call in await stop(worker)] == [after.id]


async def test_what_a_go_worker_makes_of_a_task_that_was_cancelled_meanwhile_is_refused(go: Go) -> None:
    world = go.world
    await world.client.admin.create_queue(Queue("Q", max_run_time=timedelta(minutes=1), go_workers=True))
    handlers = world.crew.handlers("work")
    worker = go.start("work", "--queue", "Q", "--mode", "remote", "--type", "work")
    await world.ready(handlers, worker)
    held = await world.client.enqueue("work", {"do": "hold"}, queue="Q")
    await handlers.says(f"began {held.id} 1")
    ended = await world.client.cancel(held.id)
    handlers.tell(f"release {held.id} 1")
    await handlers.says(f"ended {held.id} 1")
    # It goes on with the next one, and what it had of the first is not saved.
    after = await world.client.enqueue("work", queue="Q")
    await world.client.result(after.id, timeout=world.patience(30))
    assert await world.client.load(held.id) == ended
    assert (ended.state, ended.tries) == (TaskState.TERMINATED, 0)  # Go counts a try when it saves its outcome
    await world.client.admin.tasks.retry(held.id)
    assert (await world.ended(held.id)).state is TaskState.COMPLETE
    await handlers.says(f"began {held.id} 1", count=2)


async def test_we_enqueue_and_a_go_worker_tries_again_and_gives_up(go: Go) -> None:
    world = go.world
    await world.client.admin.create_queue(Queue("Q", max_run_time=timedelta(minutes=1), go_workers=True))
    failing = go.start("work", "--queue", "Q", "--type", "fails", "--mode", "fail", "--backoff", "fast")
    await world.ready(failing)
    task = await world.client.enqueue("fails", queue="Q")
    ended = await world.ended(task.id)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    assert [call["outcome"] for call in await stop(failing)] == ["error", "ok"]
    given_up = go.start("work", "--queue", "Q", "--mode", "terminate")
    await world.ready(given_up)
    task = await world.client.enqueue("fails", queue="Q")
    ended = await world.ended(task.id)
    assert (ended.state, ended.tries) == (TaskState.TERMINATED, 1)
    assert ended.last_err.startswith("terminated on purpose")


@pytest.mark.parametrize("route", ["work", ""], ids=["type", "catchall"])
async def test_a_go_worker_asks_our_handlers(go: Go, route: str) -> None:
    world = go.world
    await world.client.admin.create_queue(Queue("Q", max_run_time=timedelta(minutes=1), go_workers=True))
    handlers = world.crew.handlers(route)
    worker = go.start("work", "--queue", "Q", "--mode", "remote", "--backoff", "fast", "--type", route)
    await world.ready(handlers, worker)
    done = await world.client.enqueue("work", {"do": "ok"}, queue="Q")
    failed = await world.client.enqueue("work", {"do": "fail", "error": "not yet"}, queue="Q")
    terminated = await world.client.enqueue("work", {"do": "terminate", "error": "never"}, queue="Q")
    binary = await world.client.enqueue("work", {"do": "binary"}, queue="Q")
    result = await world.client.result(done.id, timeout=world.patience(30))
    assert (result["id"], result["try"], result["invocation"]) == (done.id, 1, "")  # Go has no invocation ids
    assert (await world.ended(failed.id)).state is TaskState.COMPLETE
    assert [call["try"] for call in world.calls(failed.id)] == [1, 2]
    ended = await world.ended(terminated.id)
    assert (ended.state, ended.last_err.startswith("never")) == (TaskState.TERMINATED, True)
    assert await world.client.result_bytes(binary.id, timeout=world.patience(30)) == bytes(range(256))


# Queues and stores that the other side made.


async def test_a_queue_that_go_made_is_adopted(go: Go) -> None:
    world = go.world
    await go.peer("init")
    await go.peer("queue", "--name", "Q", "--max-run-time", "1m", "--max-tries", "2", "--max-concurrent", "7")
    stream_before, consumer_before = await configuration(world)
    await world.ready(world.crew.bridge("Q", create=False))
    stream, consumer = await configuration(world)
    assert [source["name"] for source in stream["sources"]] == ["CHORIA_AJ_DELAYED"]
    assert (consumer["ack_wait"], consumer["max_deliver"], consumer["max_ack_pending"]) == (60 * SECOND_NS, 2, 7)
    assert consumer == consumer_before
    assert {**stream, "sources": None} == {**stream_before, "sources": None}
    # Nobody listens, so the task is set aside again and again; in the queue that would use up the two deliveries.
    async with world.overhear(schedule_subject("Q", "parked")) as parked:
        await world.client.enqueue("work", {"do": "later", "ms": 50}, queue="Q", id="parked")
        await parked.message(count=3)
    await world.ready(world.crew.handlers("work"))
    ended = await world.ended("parked")
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    _, consumer = await configuration(world)
    assert consumer == consumer_before


async def test_a_queue_that_go_made_is_left_alone_when_told_so(go: Go) -> None:
    world = go.world
    await go.peer("init")
    await go.peer("queue", "--name", "Q", "--max-run-time", "1m", "--max-tries", "2")
    before = await configuration(world)
    await world.ready(world.crew.bridge("Q", "--no-adopt", create=False))
    async with (
        world.overhear("CHORIA_AJ.Q.Q.parked") as items,
        world.overhear("CHORIA_AJ.E.task_state.parked") as events,
    ):
        # It waits inside of the queue, where each wait uses up a delivery, and there are two: so it is published anew.
        await world.client.enqueue("work", {"do": "later", "ms": 50}, queue="Q", id="parked")
        await events.state("retry", count=3)
        await world.ready(world.crew.handlers("work"))
        ended = await world.ended("parked")
        assert len(items.messages) >= 2
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    assert await configuration(world) == before
    assert await world.client.store.jetstream.stream_info("CHORIA_AJ_DELAYED") is None


async def test_a_backoff_near_the_last_delivery_is_kept_without_adoption(go: Go) -> None:
    world = go.world
    await go.peer("init")
    await go.peer("queue", "--name", "Q", "--max-run-time", "1m", "--max-tries", "3")
    await world.ready(world.crew.bridge("Q", "--no-adopt", create=False), world.crew.handlers("work"))
    orders = [{"do": "later", "times": times, "ms": 300} for times in (1, 2, 3)]
    tasks = await world.client.enqueue_many([("work", order) for order in orders], queue="Q")
    states = []
    for task in tasks:
        ended = await world.ended(task.id)
        states.append((ended.state, ended.tries))
        starts = [call["at"] for call in world.calls(task.id)]
        assert len(starts) == ended.tries
        assert all(later - earlier >= 0.3 for earlier, later in pairwise(starts))
    assert states == [(TaskState.COMPLETE, 2), (TaskState.COMPLETE, 3), (TaskState.EXPIRED, 3)]


@pytest.mark.parametrize("adopt", [True, False], ids=["adopted", "left-alone"])
async def test_a_task_store_that_go_made_holds_our_tasks(go: Go, adopt: bool) -> None:
    world = go.world
    jetstream = world.client.store.jetstream
    await go.peer("init")
    before = await jetstream.stream_info("CHORIA_AJ_TASKS")
    assert before is not None
    assert not before["config"].get("allow_direct")
    options = () if adopt else ("--no-adopt",)
    await world.ready(world.crew.bridge("Q", *options), world.crew.handlers("work"))
    after = await jetstream.stream_info("CHORIA_AJ_TASKS")
    assert after is not None
    assert bool(after["config"].get("allow_direct")) is adopt
    assert {**after["config"], "allow_direct": None} == {**before["config"], "allow_direct": None}
    tasks = await world.client.enqueue_many([("work", {})] * 100, queue="Q")
    for task in tasks:
        assert (await world.ended(task.id)).state is TaskState.COMPLETE
    assert (await go.load(tasks[-1].id))["state"] == "complete"


async def test_what_go_configures_on_a_queue_of_ours_holds_for_the_bridges_that_run(go: Go) -> None:
    world = go.world
    bridge = world.crew.bridge("Q=7", "--max-run-time", "1h", lease="3s")
    await world.ready(bridge, world.crew.handlers("work"))
    await go.ajc("queue", "configure", "Q", "--run-time", "40s", "--tries", "2", "--concurrent", "5")
    await bridge.logs("queue Q was configured from outside")
    await bridge.logs(
        "queue Q is configured anew: max_tries -1 -> 2, max_runtime 1h0m0s -> 40s, max_concurrent 100 -> 5"
    )
    stream, consumer = await configuration(world)
    assert (consumer["ack_wait"], consumer["max_deliver"]) == (3 * SECOND_NS + 10**6, -1)
    assert consumer["max_ack_pending"] == 5
    assert [source["name"] for source in stream["sources"]] == ["CHORIA_AJ_DELAYED"]
    info = await world.client.admin.queue_info("Q")
    assert (info.settings.max_run_time_ns, info.settings.max_tries) == (40 * SECOND_NS, 2)
    assert (info.settings.lease_ns, info.settings.weight) == (3 * SECOND_NS, 7)
    task = await world.client.enqueue("work", {"do": "later", "times": 9, "ms": 50}, queue="Q")
    ended = await world.ended(task.id)
    assert (ended.state, ended.tries) == (TaskState.EXPIRED, 2)


async def test_the_queue_default_that_go_made_on_demand_is_ours_too_and_the_other_way_round(go: Go) -> None:
    world = go.world
    [told] = await go.peer("enqueue", "--type", "work")
    await world.ready(world.crew.bridge("DEFAULT", create=False), world.crew.handlers("work"))
    task = await world.client.enqueue("work")
    assert (told["queue"], task.queue) == ("DEFAULT", "DEFAULT")
    for task_id in (told["id"], task.id):
        assert (await world.ended(task_id)).state is TaskState.COMPLETE


async def test_go_uses_the_queue_default_that_we_made_on_demand(go: Go) -> None:
    world = go.world
    task = await world.client.enqueue("work")
    worker = go.start("work", "--queue", "DEFAULT")
    await world.ready(worker)
    [told] = await go.peer("enqueue", "--type", "work")
    assert (told["queue"], task.queue) == ("DEFAULT", "DEFAULT")
    for task_id in (told["id"], task.id):
        assert (await world.ended(task_id)).state is TaskState.COMPLETE


# Both at once.


async def test_a_go_worker_and_our_bridge_share_a_queue(go: Go) -> None:
    world = go.world
    await go.peer("init")
    await go.peer("queue", "--name", "Q", "--max-run-time", "30s", "--max-tries", "5", "--max-concurrent", "40")
    worker = go.start("work", "--queue", "Q", "--concurrency", "10")
    bridge = world.crew.bridge("Q", "--concurrency", "10", create=False)
    await world.ready(worker, bridge, world.crew.handlers("work"))
    ours = await world.client.enqueue_many([("work", {"do": "sleep", "ms": 20})] * 100, queue="Q")
    theirs = await go.peer("enqueue", "--queue", "Q", "--type", "work", "--payload", "{}", "--count", "100")
    ids = [task.id for task in ours] + [told["id"] for told in theirs]
    for task_id in ids:
        ended = await world.ended(task_id)
        assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    by_go = Counter(call["id"] for call in await stop(worker))
    by_us = Counter(call["task"] for call in world.calls(*ids))
    assert by_go + by_us == Counter(ids)  # each was started once, by one of the two
    assert by_go
    assert by_us
    info = await world.client.admin.queue_info("Q")
    assert (info.items, info.in_flight, info.parked) == (0, 0, 0)


async def test_a_paused_queue_gives_nothing_to_go_workers_either(go: Go) -> None:
    world = go.world
    await go.peer("init")
    await go.peer("queue", "--name", "Q", "--max-run-time", "30s", "--max-tries", "5", "--max-concurrent", "40")
    await world.client.admin.create_queue(Queue("OTHER", go_workers=True))
    worker = go.start("work", "--queue", "Q")
    other = go.start("work", "--queue", "OTHER")
    await world.ready(worker, other, world.crew.bridge("Q", create=False), world.crew.handlers("work"))
    await world.client.admin.pause_queue("Q")
    task = await go.enqueue("--type", "work", "--payload", "{}")
    beside = await world.client.enqueue("work", queue="OTHER")
    await world.ended(beside.id)
    info = await world.client.admin.queue_info("Q")
    assert (info.waiting, info.in_flight) == (1, 0)
    assert info.pulls  # they ask for work, and get none
    await world.client.admin.resume_queue("Q")
    assert (await world.ended(task)).tries == 1


async def test_a_task_of_a_killed_go_worker_runs_here_after_its_ack_wait(go: Go) -> None:
    world = go.world
    await go.peer("init")
    await go.peer("queue", "--name", "Q", "--max-run-time", "4s", "--max-tries", "5")
    worker = go.start("work", "--queue", "Q", "--type", "work", "--mode", "remote")
    handlers = world.crew.handlers("work")
    await world.ready(worker, handlers)
    task = await world.client.enqueue("work", {"do": "hold"}, queue="Q")
    await handlers.says(f"^began {task.id} ")
    [first] = world.calls(task.id)
    await world.ready(world.crew.bridge("Q", create=False))
    worker.kill()
    # Go counts a try when it saves the outcome, so ours is the first that is counted before its call.
    await handlers.says(f"^began {task.id} ", count=2)
    _, second = world.calls(task.id)
    assert 3.9 < second["at"] - first["at"] < 4 + world.patience(5)
    for each in (first, second):
        handlers.tell(f"release {task.id} {each['try']}")
    ended = await world.ended(task.id)
    assert ended.state is TaskState.COMPLETE
    assert (await world.client.result(task.id))["invocation"] == second["invocation"] != ""


async def test_go_retries_a_task_that_ended_here(go: Go) -> None:
    world = go.world
    await world.ready(world.crew.bridge("Q"), world.crew.handlers("work"))
    terminated = await go.enqueue("--type", "work", "--payload", '{"do": "terminate"}')
    complete = await go.enqueue("--type", "work")
    for task_id, state in ((terminated, TaskState.TERMINATED), (complete, TaskState.COMPLETE)):
        assert (await world.ended(task_id)).state is state
        async with world.overhear(f"CHORIA_AJ.E.task_state.{task_id}") as events:
            await go.peer("retry", "--queue", "Q", "--id", task_id)
            await events.state(state.value)
        ended = await world.client.load(task_id)
        # The Go project keeps the tries of the run before.
        assert (ended.state, ended.tries) == (state, 2)
        assert [call["try"] for call in world.calls(task_id)] == [1, 2]


async def test_go_retries_a_task_that_waits_here(go: Go) -> None:
    world = go.world
    await world.ready(world.crew.bridge("Q"), world.crew.handlers("work"))
    async with world.overhear("CHORIA_AJ.E.task_state.*") as events:
        task_id = await go.enqueue("--type", "work", "--payload", '{"do": "later", "ms": 2500}')
        await events.state("retry", task_id=task_id)
        await go.peer("retry", "--queue", "Q", "--id", task_id)
        ended = await world.ended(task_id)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)
    first, second = world.calls(task_id)
    # Its schedule stands, so the new item is a stray: the delay that the handler asked for holds.
    assert second["at"] - first["at"] >= 2.5


# Signatures.


async def test_what_go_signed_verifies_here(go: Go) -> None:
    world = go.world
    await world.client.admin.create_queue(Queue("Q"))
    arguments = ("--type", "work", "--payload", '{"a": "é"}', "--deadline", "1h", "--max-tries", "3")
    task_id = await go.enqueue(*arguments, "--sign", SEED)
    task = await world.client.load(task_id)
    Verifier(Signer(SEED).public_key_hex).verify(task)
    with pytest.raises(SignatureError):
        Verifier(Signer(OTHER_SEED).public_key_hex).verify(task)
    with pytest.raises(SignatureError):
        Verifier(Signer(SEED).public_key_hex).verify(task.replace(payload=b'{"a": "e"}'))


async def test_what_we_signed_verifies_in_go_and_is_run_there(go: Go) -> None:
    world = go.world
    await world.client.admin.ensure_task_store()
    await world.client.admin.create_queue(Queue("Q", max_run_time=timedelta(minutes=1), go_workers=True))
    signer = Signer(SEED)
    now_ns = time.time_ns()
    plain = TaskRecord(
        id="signed", type="email:new", queue="Q", payload=b'{"a": 1}', created_ns=now_ns, deadline_ns=now_ns + 10**13
    )
    await enqueue(world.client.store, signer.sign(plain))
    loaded = await go.load("signed", "--verify", signer.public_key_hex)
    assert loaded["signature"]
    worker = go.start("work", "--queue", "Q", "--verify", signer.public_key_hex)
    await world.ready(worker)
    assert (await world.ended("signed")).state is TaskState.COMPLETE
    refused = go.start("load", "--id", "signed", "--verify", Signer(OTHER_SEED).public_key_hex)
    assert await refused.ended() == 1
    assert "signature" in "".join(refused.err)


async def test_our_bridge_runs_what_go_signed_and_refuses_the_rest_at_once(go: Go) -> None:
    world = go.world
    await world.ready(
        world.crew.bridge("Q", "--verify", Signer(OTHER_SEED).public_key_hex, "--verify-seed", SEED),
        world.crew.handlers("work"),
    )
    deadline = ("--type", "work", "--deadline", "1h")
    signed = [await go.enqueue(*deadline, "--sign", seed) for seed in (SEED, OTHER_SEED)]
    for task_id in signed:
        assert (await world.ended(task_id)).state is TaskState.COMPLETE
        await go.load(task_id, "--verify", Signer(SEED if task_id == signed[0] else OTHER_SEED).public_key_hex)
    plain = await world.ended(await go.enqueue(*deadline))
    forged = stolen(await world.client.load(signed[0]), id="forged", state=TaskState.NEW, tries=0, result=None)
    await enqueue(world.client.store, forged)
    refused = await world.ended("forged")
    for task, why in ((plain, "task is not signed"), (refused, "invalid task signature")):
        assert (task.state, task.tries, task.last_err) == (TaskState.TERMINATED, 0, why)
        [dead] = await world.client.admin.dead.find(task.id)
        assert dead.letter.detail == why
    assert world.calls(plain.id, "forged") == []


def stolen(task: TaskRecord, **changes: Any) -> TaskRecord:
    """Give another task the signature of this one, as a thief would."""
    return task.replace(**changes)


async def test_go_works_on_a_store_whose_records_have_a_time_of_their_own(go: Go) -> None:
    world = go.world
    await go.peer("init")
    await world.ready(world.crew.bridge("Q", "--keep", "complete=3600s"), world.crew.handlers("work"))
    ours = await go.enqueue("--type", "work")
    assert (await world.ended(ours)).state is TaskState.COMPLETE
    assert (await go.load(ours))["state"] == "complete"
    stored = await world.client.store.jetstream.last("CHORIA_AJ_TASKS", f"CHORIA_AJ.T.{ours}")
    assert stored is not None
    assert stored.headers["Nats-TTL"] == "3600s"
    await go.peer("retry", "--queue", "Q", "--id", ours)
    assert (await world.ended(ours)).state is TaskState.COMPLETE


# What Go's own tools make of our data.


async def test_go_understands_our_events(go: Go) -> None:
    world = go.world
    await world.ready(world.crew.bridge("Q"), world.crew.handlers("work"))
    watch = go.start("watch")
    await world.ready(watch)
    task = await world.client.enqueue("work", {"do": "later", "ms": 50, "error": "busy"}, queue="Q")
    await world.ended(task.id)
    await watch.says('"state":"complete"')
    watch.terminate()
    assert await watch.ended() == 0
    lines = [json.loads(line) for line in watch.out[1:]]
    assert [line.get("error") for line in lines] == [None] * len(lines)
    events = [line["event"] for line in lines]
    assert [event["state"] for event in events] == ["new", "active", "retry", "active", "complete"]
    assert [event["tries"] for event in events] == [0, 1, 1, 2, 2]
    assert {(event["task_id"], event["queue"], event["task_type"]) for event in events} == {(task.id, "Q", "work")}
    assert events[2]["last_error"] == "busy"
    assert 0 < events[0]["task_age"] < events[-1]["task_age"]


async def test_the_nats_command_finds_our_bridges_and_handlers(go: Go) -> None:
    world = go.world
    bridge = world.crew.bridge("Q=2", "--queue", "OTHER")
    handlers = world.crew.handlers("work", "other:work")
    await world.ready(bridge, handlers)
    (status,) = await world.client.admin.bridges.running()
    assert isinstance(status, BridgeStatus)

    async def nats(*words: str) -> str:
        process = world.crew.start("nats", go.programs.nats, "--server", go.url, "micro", *words)
        assert await process.ended() == 0, process.err
        return "\n".join(process.out)

    assert status.id in await nats("ls")
    info = json.loads(await nats("info", "aj-bridge", status.id, "--json"))
    info = info.get("info", info)
    assert {endpoint["name"] for endpoint in info["endpoints"]} == {"status", "holds", "drain", "concurrency", "pause"}
    assert (info["metadata"]["queues"], info["metadata"]["pid"]) == ("Q,OTHER", str(bridge.pid))
    assert "concurrency" in await nats("stats", "aj-bridge")

    task = await world.client.enqueue("work", {"do": "terminate", "error": "no such mailbox"}, queue="Q")
    await world.ended(task.id)
    assert "aj-handler" in await nats("ls")
    assert "other:work" in await nats("info", "aj-handler")
    (stats,) = json.loads(await nats("stats", "aj-handler", "--json"))
    run, run_2 = stats["endpoints"]
    assert (run["num_requests"], run["num_errors"], run["last_error"]) == (1, 1, "no such mailbox"), stats
    assert (run_2["num_requests"], run["data"]) == (0, {"in_flight": 0})


async def test_the_go_command_line_shows_our_tasks_and_queues(go: Go) -> None:
    world = go.world
    bridge = world.crew.bridge("Q", "--max-run-time", "90s", "--max-tries", "4", lease="20s")
    await world.ready(bridge, world.crew.handlers("work"))
    good = await world.client.enqueue("work", {"to": "a@example.net"}, queue="Q")
    bad = await world.client.enqueue("work", {"do": "terminate", "error": "no such mailbox"}, queue="Q")
    await world.ended(good.id)
    await world.ended(bad.id)
    viewed = json.loads("\n".join(await go.ajc("task", "view", good.id, "--json")))
    assert (viewed["id"], viewed["state"], viewed["tries"]) == (good.id, "complete", 1)
    assert json.loads(b64decode(viewed["payload"])) == {"to": "a@example.net"}
    shown = "\n".join(await go.ajc("task", "view", bad.id))
    assert "terminated" in shown
    assert "no such mailbox" in shown
    listed = "\n".join(await go.ajc("task", "list"))
    assert good.id in listed
    assert bad.id in listed
    info = "\n".join(await go.ajc("queue", "info", "Q"))
    assert "Q" in info
    assert "20s" in info or "20.00s" in info  # the Go project takes our lease for the run time
    assert "Q" in "\n".join(await go.ajc("queue", "list"))


# Repairs in a queue of the Go project's.


async def taken(world: World, number: int) -> None:
    """Have items of the queue Q handed out, and say no more of them, as a worker does that dies."""
    transport = world.client.store.jetstream.transport
    async with world.overhear("taken.*") as deliveries:
        request = b'{"batch":%d,"expires":20000000000}' % number
        await transport.publish("$JS.API.CONSUMER.MSG.NEXT.CHORIA_AJ_Q_Q.WORKERS", request, reply="taken.items")
        await deliveries.message(count=number)


async def test_what_is_lost_in_a_queue_of_go_is_set_right_by_a_bridge_of_another_and_go_goes_on(go: Go) -> None:
    world, store = go.world, go.world.client.store
    await world.client.admin.ensure_task_store()
    await Bucket(store.jetstream, ELECTIONS_BUCKET).ensure(max_age_ns=2 * SECOND_NS)
    await go.peer("queue", "--name", "Q", "--max-run-time", "1s", "--max-tries", "1")
    await world.ready(world.crew.bridge("OURS", "--sweep-every", "1s"))
    ids = {what: await go.enqueue("--type", "t", "--max-tries", "1") for what in ("spent", "stuck", "lost", "cut")}
    # Of two the only delivery is used up, by one before and by one after it had counted its try.
    stored = await store.load(ids["spent"])
    assert stored is not None
    failed = stored.readable().replace(state=TaskState.RETRY, tries=1, last_err="boom")
    await store.save(failed, expected=stored.sequence)
    for what in ("lost", "cut"):
        await store.remove_items(await store.find_items("Q", ids[what]))
    # Of another the record is cut off.
    cut = await store.load(ids["cut"])
    assert cut is not None
    await store.jetstream.publish(task_subject(ids["cut"]), cut.body[:-9])
    async with world.overhear("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>") as advisories:
        await taken(world, 2)
        waiting = asyncio.create_task(taken(world, 1))  # the server looks at a lease when somebody asks for work
        await advisories.message(count=2)
    await waiting
    assert (await world.ended(ids["spent"])).last_err == "boom"
    worker = go.start("work", "--queue", "Q")
    for what in ("stuck", "lost"):
        await world.ended(ids[what])
    found = {what: await go.load(ids[what]) for what in ("spent", "stuck", "lost")}
    assert {what: task["state"] for what, task in found.items()} == {
        "spent": "expired",
        "stuck": "complete",
        "lost": "complete",
    }
    assert len(await stop(worker)) == 2
    letters = [letter.letter async for letter in world.client.admin.dead.letters()]
    assert {(letter.task_id, letter.reason, letter.queue) for letter in letters} == {
        (ids["spent"], "expired", "Q"),
        (ids["cut"], "quarantined", ""),
    }
