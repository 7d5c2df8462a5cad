"""The main job with a JetStream that is elsewhere.

The hub's domain, reached over a leaf node that has a domain of its own; another account's, imported under a prefix.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from tests.acceptance.processes import Crew, Process
from tests.acceptance.world import World

from aj_bridge.core.deliver import Holder
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.doctor import learn
from aj_bridge.engine.duties import on_duty
from aj_bridge.engine.election import TASK_SWEEPER, Election
from aj_bridge.engine.meter import NoMeter
from aj_bridge.engine.sweeper import Sweeper
from aj_bridge.faces.embedded import EmbeddedServer
from aj_bridge.storage.jetstream.survey import open_survey
from aj_sdk import Client, Queue
from aj_sdk.buckets import Bucket
from aj_sdk.errors import NoRespondersError, OutcomeUnknownError, RefusedError, StoreError
from aj_sdk.jetstream import JetStream
from aj_sdk.wire.names import ELECTIONS_BUCKET
from aj_sdk.wire.stamp import ItemRef
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

pytestmark = pytest.mark.acceptance

CONTEXT: Final = "ELSEWHERE"
STORED: Final = tuple(f"CHORIA_AJ.{kind}.>" for kind in "TQDXWA")
"""What goes into streams; calls, cancels, progress and events stay in the account."""


class Nobody:
    """Other bridges, none of which answers."""

    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        del owner, task_id, item
        return Holder.SILENT


@pytest.fixture(params=["leaf", "account"])
async def world(
    request: pytest.FixtureRequest,
    fresh_server: Callable[..., EmbeddedServer],
    tmp_path: Path,
    patience: Callable[[float], float],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    """Give processes whose context names a JetStream that is not the one of where they are connected."""
    if request.param == "leaf":
        url, context = a_leaf(fresh_server, request.getfixturevalue("free_port"))
    else:
        url, context = an_account(fresh_server)
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    (folder / f"{CONTEXT}.json").write_text(json.dumps({"url": url, **context}))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    crew = Crew(url, tmp_path, patience)
    try:
        async with Client.connect(context=CONTEXT, timeout=patience(5)) as client:
            async with asyncio.timeout(patience(20)):
                while not await _reached(client.store.jetstream):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.05)
            yield World(crew, client, patience)
    finally:
        crew.close()


def a_leaf(start: Callable[..., EmbeddedServer], port: int) -> tuple[str, dict[str, str]]:
    """Start a hub and a leaf, each with a domain."""
    start(config={"jetstream": {"domain": "hub"}, "leafnodes": {"host": "127.0.0.1", "port": port}})
    remotes = [{"url": f"nats-leaf://127.0.0.1:{port}"}]
    leaf = start(config={"jetstream": {"domain": "leaf"}, "leafnodes": {"remotes": remotes}})
    return leaf.url, {"jetstream_domain": "hub"}


def an_account(start: Callable[..., EmbeddedServer]) -> tuple[str, dict[str, str]]:
    """Start a server with an account that imports another one's JetStream, as docs/operations.md says."""
    many = {"response_type": "stream"}
    exported = ("$JS.ACK.>", "$KV.>", *STORED)
    jobs = {
        "jetstream": True,
        "users": [{"user": "jobs", "password": "jobs"}],
        "exports": [
            {"service": "$JS.API.>", **many},
            *({"service": subject} for subject in exported),
            {"stream": "$JS.EVENT.ADVISORY.>"},
        ],
    }
    application = {
        "users": [{"user": "app", "password": "app"}],
        "imports": [
            {"service": {"account": "JOBS", "subject": "$JS.API.>"}, "to": "JS.jobs.API.>"},
            {"service": {"account": "JOBS", "subject": "$KV.>"}, "to": "JS.jobs.API.$KV.>"},
            *({"service": {"account": "JOBS", "subject": subject}} for subject in ("$JS.ACK.>", *STORED)),
            {"stream": {"account": "JOBS", "subject": "$JS.EVENT.ADVISORY.>"}, "to": "JS.jobs.EVENT.ADVISORY.>"},
        ],
    }
    server = start(config={"accounts": {"JOBS": jobs, "APPLICATION": application}})
    context = {"jetstream_api_prefix": "JS.jobs.API", "jetstream_event_prefix": "JS.jobs.EVENT"}
    return server.url.replace("//", "//app:app@"), context


async def _reached(jetstream: JetStream) -> bool:
    try:
        return bool(await jetstream.call("INFO"))
    except StoreError:
        return False


def tool(world: World, program: str, *command: str) -> Process:
    """Start one of our programs, where the context says."""
    name = "bridge" if command[0] == "run" else program
    return world.crew.start(name, Path(sys.executable).with_name(program), *command, "--context", CONTEXT)


async def printed(world: World, *command: str) -> str:
    """Run a command to its end, and return what it printed."""
    process = tool(world, *command)
    assert await process.ended() == 0, process.err
    return "\n".join(process.out)


async def test_the_main_job_is_done_in_the_jetstream_that_a_context_names(world: World) -> None:
    client, jetstream = world.client, world.client.store.jetstream
    await client.admin.ensure_task_store()
    await client.admin.create_queue(Queue("FAR", lease=1))
    await client.admin.create_queue(Queue("SMALL", lease=1, max_entries=2, discard_old=True))

    # A stream and a bucket that are not there, or not any more: over a leaf node nobody says so.
    with pytest.raises(NoRespondersError):
        await jetstream.latest_of("NONE", ["a"])
    hasty = JetStream(jetstream.transport, prefix=jetstream.prefix, timeout=world.patience(0.5))
    await hasty.create_stream({"name": "BRIEF", "subjects": ["brief"], "allow_direct": True})
    assert await hasty.latest_of("BRIEF", ["brief"]) == []
    await hasty.delete_stream("BRIEF")
    with pytest.raises((OutcomeUnknownError, NoRespondersError)):
        await hasty.latest_of("BRIEF", ["brief"])
    with pytest.raises(NoRespondersError):
        await hasty.latest_of("BRIEF", ["brief"])
    with pytest.raises(RefusedError, match="bucket NONE: not found"):
        await Bucket(hasty, "NONE").create("a", b"")

    # A sweep by an elected leader: it brings back an item that was lost.
    await client.store.save(
        TaskRecord(id="lost", type="work", queue="FAR", state=TaskState.NEW, created_ns=1), expected=0
    )
    async with leading(jetstream) as (election, sweeper, later):
        assert election.leads
        await sweeper.sweep()
        later()
        await sweeper.sweep()

    # The items wait for a bridge, and the bridge's own sweeper is elected after the one before stood down.
    bridge = tool(world, "aj-bridge", "run", "--queue", "FAR=1", "--queue", "SMALL=1", "--backoff", "100ms")
    handlers = world.crew.handlers("work")
    await world.ready(bridge, handlers)
    await bridge.logs("election of the task_sweeper: won")
    assert (await world.ended("lost")).state is TaskState.COMPLETE

    failed = await client.enqueue("work", {"do": "fail"}, queue="FAR")
    assert ((ended := await world.ended(failed.id)).state, ended.tries) == (TaskState.COMPLETE, 2)
    terminated = await client.enqueue("work", {"do": "terminate"}, queue="FAR")
    assert (await world.ended(terminated.id)).state is TaskState.TERMINATED
    unique = {"queue": "FAR", "unique_key": "order-17", "unique_for": timedelta(minutes=1)}
    first, second = [await client.enqueue("work", {"do": "ok"}, **unique) for _ in range(2)]  # type: ignore[arg-type]
    assert first.id == second.id
    assert (await world.ended(first.id)).state is TaskState.COMPLETE
    assert len(world.calls(first.id)) == 1
    child = await client.enqueue("work", {"do": "parents"}, queue="FAR", dependencies=[failed.id])
    assert (await world.ended(child.id)).state is TaskState.COMPLETE

    # The hub tells what its queues drop, and it is heard here.
    held = []
    for _ in range(3):
        held.append((await client.enqueue("work", {"do": "hold"}, queue="SMALL")).id)
        await handlers.says(f"began {held[-1]}")
    await bridge.logs("the queue dropped the item of a task at work")
    for task_id in held:
        handlers.tell(f"release {task_id} 1")
        assert (await world.ended(task_id)).state is TaskState.COMPLETE

    # The commands see the same, and nothing of it is in the JetStream that is here, if there is one.
    assert "FAR" in await printed(world, "ajc", "queue", "list")
    assert terminated.id in await printed(world, "ajc", "dead", "list")
    assert bridge.out[0].split()[2].rstrip(",") in await printed(world, "aj-bridge", "ps")
    doctor = json.loads(await printed(world, "aj-bridge", "doctor", "--json", "--after", "1s"))
    assert doctor["sweep"] == []
    [finding] = [found for found in doctor["findings"] if "is reached under" in found["what"]]
    if finding["where"] == "JetStream domain hub":
        here = JetStream(jetstream.transport)
        assert await here.stream_names() == []
        await here.create_stream({"name": "CHORIA_AJ_Q_FAR", "subjects": ["elsewhere"]})
        assert (await learn(jetstream)).stored_twice == ["CHORIA_AJ_Q_FAR"]
    else:
        assert finding["where"] == "JetStream of JS.jobs.API"


@contextlib.asynccontextmanager
async def leading(jetstream: JetStream) -> AsyncIterator[tuple[Election, Sweeper, Callable[[], None]]]:
    """Give the elected leader, its sweeper, and how to move the sweeper's clock on by more than it waits."""
    ballot, ahead, elected = Bucket(jetstream, ELECTIONS_BUCKET), [0.0], asyncio.Event()
    await ballot.ensure(max_age_ns=10 * NS_PER_S)

    async def tell() -> None:
        elected.set()

    clock = Clock(monotonic=lambda: asyncio.get_running_loop().time() + ahead[0])
    election = Election(ballot, TASK_SWEEPER, "test", term_s=10, meter=NoMeter(), clock=Clock(), elected=tell)

    def later() -> None:
        ahead[0] += 61

    async with open_survey(jetstream) as survey, on_duty([election]), asyncio.timeout(60):
        await elected.wait()
        yield election, Sweeper(survey, Nobody(), election, NoMeter(), clock), later
