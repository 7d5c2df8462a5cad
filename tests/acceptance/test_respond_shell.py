"""A script answers a real bridge: `aj-bridge respond --type TYPE -- ./script`."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.acceptance.processes import Crew, Process
from tests.acceptance.world import World
from tests.pids import gone

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.wire.signing import Signer
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

SCRIPT = r"""#!/bin/sh
payload=$(cat)
case $payload in
  ok) printf 'sent by %s, try %s\n\377' "$CHORIA_AJ_TASK_TYPE" "$CHORIA_AJ_TASK_TRY" ;;
  trace) printf '%s %s' "$TRACEPARENT" "$TRACESTATE" ;;
  busy) echo "looking" >&2; echo "mailbox is busy" >&2; exit 75 ;;
  never) echo "no such mailbox" >&2; exit 78 ;;
  broken) exit 3 ;;
  big) yes ;;
  slow) trap 'echo "told to stop" >&2; exit 1' TERM; echo "$$ began" >&2; sleep 1000 & wait ;;
  steps) sleep 2; echo '50% half way' >&3; echo what >&3; sleep 2; echo 1 >&3; sleep 1; echo done ;;
  stubborn) trap '' TERM; echo "$$ began" >&2; while :; do sleep 1000; done ;;
esac
"""


def respond(crew: Crew, folder: Path, *options: str) -> Process:
    script = folder / "script"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    command = (sys.executable, "-m", "aj_bridge", "respond", *options, "--", str(script))
    return crew.start("respond", *command, AJ_SERVER=crew.url)


@pytest.fixture(scope="module")
def shell(
    tmp_path_factory: pytest.TempPathFactory, patience: Callable[[float], float]
) -> Iterator[tuple[Crew, Process]]:
    """Give a bridge whose calls may last three seconds, and the script behind it."""
    folder = tmp_path_factory.mktemp("shell")
    with EmbeddedServer(start_timeout=patience(30)) as server:
        crew = Crew(server.url, folder, patience)
        try:
            handler = respond(
                crew,
                folder,
                "--type",
                "email:",
                "--stdin",
                "payload",
                "--kill-after",
                "100ms",
                "--max-output",
                "1000",
                "--concurrency",
                "4",
            )
            crew.ready(
                crew.bridge("EMAIL", "--max-run-time", "3s", "--remote", "email:", "--remote", "signed"), handler
            )
            yield crew, handler
        finally:
            crew.close()


@pytest.fixture
def handler(shell: tuple[Crew, Process]) -> Process:
    return shell[1]


@pytest.fixture
async def world(shell: tuple[Crew, Process], patience: Callable[[float], float]) -> AsyncIterator[World]:
    async with Client.connect(shell[0].url, timeout=patience(5)) as client:
        yield World(shell[0], client, patience)


async def ended(world: World, payload: str) -> TaskRecord:
    task = await world.client.enqueue("email:new", payload.encode(), queue="EMAIL", max_tries=1)
    return await world.ended(task.id)


async def test_what_it_prints_is_the_result(world: World) -> None:
    task = await ended(world, "ok")
    assert task.state is TaskState.COMPLETE
    assert await world.client.result_bytes(task.id) == b"sent by email:new, try 1\n\xff"


@pytest.mark.parametrize(
    ("payload", "state", "error"),
    [
        ("busy", TaskState.EXPIRED, "mailbox is busy"),
        ("never", TaskState.TERMINATED, "no such mailbox"),
        ("broken", TaskState.EXPIRED, "exit code 3"),
        ("big", TaskState.TERMINATED, "the command printed more than 1000 bytes"),
    ],
)
async def test_its_exit_code_is_the_verdict(world: World, payload: str, state: TaskState, error: str) -> None:
    task = await ended(world, payload)
    assert (task.state, task.last_err) == (state, error)


async def test_it_finds_the_trace_context_in_its_environment(world: World) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    task = await world.client.enqueue("email:new", b"trace", queue="EMAIL", traceparent=parent, tracestate="a=b")
    assert await world.client.result_bytes(task.id, timeout=world.patience(30)) == f"{parent} a=b".encode()


async def test_its_complaints_are_logged_with_the_task(world: World, handler: Process) -> None:
    task = await ended(world, "busy")
    for line in ("looking", "mailbox is busy"):
        assert any(line in logged and f"task_id={task.id}" in logged for logged in handler.err)


@pytest.mark.parametrize("payload", ["slow", "stubborn"])
async def test_it_is_ended_at_the_deadline(world: World, handler: Process, payload: str) -> None:
    task = await ended(world, payload)
    assert (task.state, task.last_err) == (TaskState.EXPIRED, "deadline exceeded")
    (began,) = [line for line in handler.err if "began" in line and f"task_id={task.id}" in line]
    pid = int(began.split(" began")[0].split()[-1])
    assert await asyncio.to_thread(gone, pid)
    if payload == "slow":
        await handler.logs(f"told to stop.*task_id={task.id}")


async def test_what_it_writes_to_descriptor_3_is_its_progress_and_gives_it_time(world: World, handler: Process) -> None:
    async with world.client.progress() as told:
        task = await ended(world, "steps")  # five seconds of work, where three are allowed
        heard = [await asyncio.wait_for(anext(told), world.patience(10)) for _ in range(2)]
    assert task.state is TaskState.COMPLETE, task.last_err
    assert [(each.task_id, each.fraction, each.note) for each in heard] == [
        (task.id, 0.5, "half way"),
        (task.id, 1.0, ""),
    ]
    await handler.logs("'what' on descriptor 3 is no progress")


async def test_it_is_ended_when_its_task_is_cancelled(world: World, handler: Process) -> None:
    task = await world.client.enqueue("email:new", b"slow", queue="EMAIL")
    await handler.logs(f"began.*task_id={task.id}")
    await world.client.cancel(task.id, reason="not wanted")
    await handler.logs(f"told to stop.*task_id={task.id}")
    assert (await world.client.load(task.id)).state is TaskState.TERMINATED


async def test_the_whole_task_is_read_by_default(world: World, tmp_path: Path) -> None:
    (tmp_path / "script").unlink(missing_ok=True)
    command = (sys.executable, "-m", "aj_bridge", "respond", "--type", "", "--queue-group", "other", "--", "cat")
    every = world.crew.start("respond", *command, NATS_URL=world.crew.url, AJ_SERVER=world.crew.url)
    bridge = world.crew.bridge("ALL", "--remote", "")
    await world.ready(every, bridge)
    assert every.out[-1] == "ready: catchall"
    task = await world.client.enqueue("report:month", b'"june"', queue="ALL")
    seen = json.loads(await world.client.result_bytes(task.id, timeout=world.patience(30)))
    assert (seen["id"], seen["type"], seen["payload"], seen["state"]) == (task.id, "report:month", "Imp1bmUi", "active")
    every.terminate()
    assert await every.ended() == 0


async def test_with_keys_it_runs_for_signed_tasks_alone(world: World, tmp_path: Path) -> None:
    signer = Signer("7" * 64)
    key = tmp_path / "key.pub"
    key.write_text(signer.public_key_hex)
    handler = respond(world.crew, tmp_path, "--type", "signed", "--verify", str(key), "--stdin", "payload")
    await world.ready(handler)
    plain = await world.client.enqueue("signed", b"ok", queue="EMAIL")
    assert (refused := await world.ended(plain.id)).state is TaskState.TERMINATED
    assert "not signed" in refused.last_err
    async with Client.connect(world.crew.url, signer=signer) as client:
        task = await client.enqueue("signed", b"ok", queue="EMAIL")
        assert await client.result_bytes(task.id, timeout=world.patience(30)) == b"sent by signed, try 1\n\xff"


@pytest.mark.parametrize("key", ["", "12", "no/such/file"])
async def test_a_key_that_is_none_is_an_error_and_not_no_check(world: World, tmp_path: Path, key: str) -> None:
    handler = respond(world.crew, tmp_path, "--type", "other", "--verify", key)
    assert await handler.ended() == 2
    assert any("public key" in line for line in handler.err), handler.err
