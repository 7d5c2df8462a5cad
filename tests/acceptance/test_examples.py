"""The examples do what they say, word for word, with a real bridge beside them."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from tests.acceptance.processes import Process
from tests.acceptance.world import World
from tests.interop.asking import SUBJECT, ask, connected, outcome, task

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

EXAMPLES = Path(__file__).parents[2] / "examples"

PRODUCED = [
    "queue EMAIL",
    "enqueued a task of type email:new",
    "result: {'sent': 'a@example.net', 'try': 1}",
    "enqueued again: the same task, state complete",
    "22 results, the last two: b'fetched at try 2', 'report-2026-11.txt'",
    "inverted: ff fe 00",
    "terminated: nobody is no address",
]

SCRIPTED = ["result: {'sent': 'a@example.net', 'try': 1}", *(f"user{number}@example.net" for number in range(1, 5))]


def example(world: World, name: str) -> Process:
    url = world.crew.url.partition(",")[0]  # a plain client of the smallest example takes one
    return world.crew.start(name, sys.executable, EXAMPLES / f"{name}.py", AJ_SERVER=url, NATS_URL=url)


async def test_the_producers_get_what_the_handlers_made(world: World) -> None:
    bridge, handlers = world.crew.bridge("EMAIL"), example(world, "handlers")
    await world.ready(bridge, handlers)
    producer = example(world, "producer")
    assert (await producer.ended(), producer.out, producer.err) == (0, PRODUCED, [])
    script = example(world, "script")
    assert (await script.ended(), script.out, script.err) == (0, SCRIPTED, [])
    handlers.terminate()
    assert (await handlers.ended(), handlers.out) == (0, ["ready"])
    assert sum("sending 'hello'" in line and "task_type=email:new" in line for line in handlers.err) == 21 + 5
    assert not any("Traceback" in line for line in handlers.err)


async def test_the_handlers_may_be_started_after_the_producer(world: World) -> None:
    bridge, producer = world.crew.bridge("EMAIL"), example(world, "producer")
    await world.ready(bridge)
    await producer.says("enqueued a task")
    await world.ready(example(world, "handlers"))
    assert (await producer.ended(), producer.out, producer.err) == (0, PRODUCED, [])


async def test_what_stands_around_handlers(world: World) -> None:
    bridge, handlers = world.crew.bridge("EMAIL"), example(world, "around")
    await world.ready(bridge, handlers)
    client = world.client
    async with client.progress() as told:
        report = await client.enqueue("report:rows", {"month": "2026-11", "rows": 40}, queue="EMAIL")
        heard = [await asyncio.wait_for(anext(told), world.patience(10)) for _ in range(4)]
    assert [(each.fraction, each.note) for each in heard][2] == (0.5, "20 of 40 rows of 2026-11")
    assert await client.result(report.id, timeout=world.patience(30)) == {"rows": 40, "again": False}
    await client.admin.tasks.retry(report.id)
    assert await client.result((await world.ended(report.id)).id) == {"rows": 40, "again": True}
    factors = await client.enqueue("number:factor", 360, queue="EMAIL")
    assert await client.result(factors.id, timeout=world.patience(30)) == [2, 2, 2, 3, 3, 5]
    wrong = await client.enqueue("report:rows", {"month": "2026-11", "rows": "many"}, queue="EMAIL")
    ended = await world.ended(wrong.id)
    assert (ended.state.value, ended.tries, "rows" in ended.last_err) == ("terminated", 1, True)
    handlers.terminate()
    assert (await handlers.ended(), handlers.out) == (0, ["ready", "closed"])
    assert sum("took " in line for line in handlers.err) == 4


async def test_the_handlers_run_under_the_command_too(world: World) -> None:
    bridge = world.crew.bridge("EMAIL")
    command = (sys.executable, "-m", "aj_bridge", "respond", "--app", "handlers")
    handlers = world.crew.start("respond", *command, AJ_SERVER=world.crew.url, PYTHONPATH=str(EXAMPLES))
    await world.ready(bridge, handlers)
    producer = example(world, "producer")
    assert (await producer.ended(), producer.out, producer.err) == (0, PRODUCED, [])
    handlers.terminate()
    assert (await handlers.ended(), handlers.out) == (0, ["ready: email:new, feed:fetch, report:month, image:invert"])


async def test_the_embedding_program_handles_its_own_tasks(world: World) -> None:
    await world.ready(world.crew.bridge("PRICES"))
    program = example(world, "embedded")
    assert await program.ended() == 0
    assert program.out == [
        "aj_sdk: ready: price:quote",
        "prices: a quote for 2 items",
        "quote: {'tea': 103, 'honey': 105}",
    ]
    assert program.err == []


async def test_a_program_is_its_own_bridge(world: World) -> None:
    program = example(world, "bridge")
    assert await program.ended() == 0, program.err
    assert program.out == [
        "resize: try 1 ended",
        "resize: try 2 ended",
        "{'width': 640, 'try': 2}",
        "attempt 1: failed: the disk is full",
    ]


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, str(EXAMPLES / "minimal.py")),
        (
            *(sys.executable, "-m", "aj_bridge", "respond", "--type", "email:new", "--stdin", "payload", "--"),
            str(EXAMPLES / "shell" / "send-email"),
        ),
    ],
    ids=["python", "shell"],
)
async def test_the_least_gives_the_three_outcomes(world: World, command: tuple[str, ...]) -> None:
    await world.ready(world.crew.start("least", *command, AJ_SERVER=world.crew.url.partition(",")[0]))
    async with connected(world.crew.url.partition(",")[0]) as nc:
        reply = await ask(nc, SUBJECT, task(b'{"to": "a@example.net"}'))
        assert (json.loads(reply.data), reply.headers) == ({"sent": "a@example.net"}, None)
        _, headers = outcome(await ask(nc, SUBJECT, task(b'{"to": "nobody@example.net"}')))
        assert list(headers) == ["AJ-Error"]
        assert headers["AJ-Error"].endswith("no such mailbox")
        assert outcome(await ask(nc, SUBJECT, task(b"{}"))) == (b"", {"AJ-Terminate": "no address"})
