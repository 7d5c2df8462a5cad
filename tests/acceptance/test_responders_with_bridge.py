"""Handlers in other languages, without a library of ours, answer a real bridge: each outcome that one may give."""

import json
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.processes import Crew
from tests.acceptance.world import World
from tests.interop.responders import BUILD_TIMEOUT, TOOLCHAINS

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.wire.names import task_subject
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import parse_time

pytestmark = [pytest.mark.interop, pytest.mark.timeout(BUILD_TIMEOUT)]

RUN_TIME_S = 30
TYPE = "email:new"


@pytest.fixture(scope="module", params=TOOLCHAINS)
def crew(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, patience: Callable[[float], float]
) -> Iterator[Crew]:
    """Give a bridge, and a responder in one of the languages."""
    language = str(request.param)
    with EmbeddedServer(start_timeout=patience(30)) as server:
        crew = Crew(server.url, tmp_path_factory.mktemp(language), patience)
        try:
            responder = crew.responder(language, TYPE)
            crew.ready(crew.bridge("EMAIL", "--max-run-time", f"{RUN_TIME_S}s"), responder)
            yield crew
        finally:
            crew.close()


@pytest.fixture
def language(crew: Crew) -> str:
    return next(name for name in TOOLCHAINS if crew.running(name))


@pytest.fixture
async def world(crew: Crew, patience: Callable[[float], float], tmp_path: Path) -> AsyncIterator[World]:
    async with Client.connect(crew.url, timeout=patience(5)) as client:
        yield World(crew, client, patience)


async def ended(world: World, do: str, **order: Any) -> TaskRecord:
    """Have a task done, and return what became of it."""
    task = await world.client.enqueue(TYPE, {"do": do, **order}, queue="EMAIL", max_tries=2)
    return await world.ended(task.id)


async def test_success(world: World, language: str) -> None:
    task = await ended(world, "ok")
    assert (task.state, task.tries, task.last_err) == (TaskState.COMPLETE, 1, "")
    assert await world.client.result(task.id) == {"handler": language, "id": task.id, "try": 1}


async def test_an_error_is_tried_again_when_the_handler_says(world: World, language: str) -> None:
    async with world.overhear("CHORIA_AJ.E.task_state.*") as events:
        began = time.monotonic()
        task = await ended(world, "retry_after", ms=300, error="mailbox is busy")
        took = time.monotonic() - began
        told = await events.state("retry", task_id=task.id)
    assert (told["last_error"], told["tries"]) == ("mailbox is busy", 1)
    assert (task.state, task.tries, task.last_err) == (TaskState.COMPLETE, 2, "")
    assert 0.3 <= took < 0.3 + world.patience(2)
    assert await world.client.result(task.id) == {"handler": language, "id": task.id, "try": 2}


async def test_the_error_of_the_last_try_stays(world: World) -> None:
    task = await world.client.enqueue(TYPE, {"do": "fail", "error": "no such host"}, queue="EMAIL", max_tries=1)
    task = await world.ended(task.id)
    assert (task.state, task.tries, task.last_err) == (TaskState.EXPIRED, 1, "no such host")


async def test_terminate(world: World) -> None:
    task = await ended(world, "terminate", error="no such mailbox")
    assert (task.state, task.tries, task.last_err) == (TaskState.TERMINATED, 1, "no such mailbox")


async def test_the_deadline_that_the_handler_sees_is_a_little_before_the_bridges(world: World) -> None:
    before_ns = time.time_ns()
    task = await ended(world, "deadline")
    after_ns = time.time_ns()
    seen = await world.client.result(task.id)
    # 2 s before the bridge gives up; the time is written in whole seconds.
    assert 27_000 <= seen["timeout_ms"] <= 28_000
    told_ns = parse_time(seen["deadline"])
    assert before_ns + 27e9 <= told_ns <= after_ns + 28e9
    assert (seen["protocol"], seen["content_type"]) == ("1.1", "application/x-asyncjobs-task+json")
    assert seen["invocation"]


async def test_the_trace_context_of_a_task_comes_to_its_handler(world: World) -> None:
    given: dict[str, Any] = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b,c=d",
    }
    task = await world.client.enqueue(TYPE, {"do": "headers"}, queue="EMAIL", **given)
    seen = (await world.client.result(task.id, timeout=world.patience(30)))["headers"]
    headers = {name.lower(): text for name, text in seen.items()}
    assert {name: headers[name] for name in given} in (given, {name: [text] for name, text in given.items()})


async def test_a_handler_that_outlives_its_deadline_says_so_in_time(
    world: World, language: str, patience: Callable[[float], float]
) -> None:
    # A queue of its own: nobody should wait half a minute for this.
    short = world.crew.bridge("SHORT", "--max-run-time", "1s")
    await world.ready(short)
    task = await world.client.enqueue(TYPE, {"do": "sleep", "ms": 3_600_000}, queue="SHORT", max_tries=1)
    task = await world.ended(task.id)
    assert (task.state, task.last_err) == (TaskState.EXPIRED, "deadline")
    short.terminate()
    assert await short.ended() == 0


async def test_a_result_of_any_bytes_is_stored_as_it_is(world: World) -> None:
    task = await ended(world, "binary")
    assert await world.client.result_bytes(task.id) == bytes(range(256))
    raw = await world.client.store.jetstream.last("CHORIA_AJ_TASKS", task_subject(task.id))
    assert raw is not None
    assert b64decode(json.loads(raw.data)["result"]["payload"]) == bytes(range(256))


async def test_the_text_of_an_error_may_be_any_unicode(world: World) -> None:
    task = await world.client.enqueue(TYPE, {"do": "unicode_error"}, queue="EMAIL", max_tries=1)
    task = await world.ended(task.id)
    assert (task.state, task.last_err) == (TaskState.EXPIRED, "dépassé ☃ 😀")


async def test_a_payload_comes_back_byte_for_byte(world: World) -> None:
    payload = json.dumps({"do": "echo", "text": "dépassé ☃ 😀"}, ensure_ascii=False).encode()
    task = await world.client.enqueue(TYPE, payload, queue="EMAIL")
    assert await world.client.result_bytes(task.id, timeout=world.patience(30)) == payload
