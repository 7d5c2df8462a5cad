"""`aj-bridge handlers`: what it prints; who is found is shown by `tests/sdk/test_handlers.py`."""

import asyncio
import json

import pytest
from click.testing import CliRunner
from tests.sdk.test_handlers import handler

from aj_bridge.faces.cli import handlers
from aj_bridge.faces.cli.main import aj_bridge_group
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.handlers import WaitingType


def test_types_that_nobody_answers_stand_first_and_strange_handlers_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [
        handler("email:new", instance="a", requests=6, errors=2, in_flight=3, processing_ns=14_000_000),
        handler("email:new", instance="b", requests=4, in_flight=1, processing_ns=6_000_000),
        handler("odd:one", service="mine\x1b", queue_group="", language=""),
        handler(""),
    ]
    waiting = [
        WaitingType(type="email:new", tasks=7, oldest_ns=1, error=""),
        WaitingType(type="image:scale", tasks=1200, oldest_ns=1, error="no handler listens on it"),
        WaitingType(type="report:month", tasks=1, oldest_ns=1, error=""),
    ]
    answered = {"email:new": "email:new", "image:scale": None, "report:month": ""}
    handlers._print(found, waiting, answered, more=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 handlers"
    rows = [" ".join(line.split()) for line in lines[4:9]]
    assert rows == [
        "image:scale nobody 1,200 no handler listens on it",
        "report:month 1 answered as catchall, where a bridge has that route",
        "email:new go 1 2 4 10 2 2ms 7",
        "odd:one unknown 1 1 unknown 0 0 service mine\\x1b; queue group none, not q: calls may run more than once",
        "catchall go 1 1 unknown 0 0",
    ]
    assert lines[-2].startswith("1 type has waiting tasks and nobody who answers")
    assert lines[-1].endswith("--look-at N")


@pytest.mark.server
def test_a_check_fails_where_tasks_wait_for_nobody(clean_server: EmbeddedServer) -> None:
    async def enqueue() -> None:
        async with Client.connect(clean_server.url) as client:
            await client.enqueue("image:scale", b"{}")

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(
            aj_bridge_group(), ["--server", clean_server.url, "handlers", "--timeout", "400ms", *arguments]
        )
        return done.exit_code, done.output

    assert run("--check") == (0, "No handlers show themselves, and no tasks wait\n")
    asyncio.run(enqueue())
    assert run("--check", "email:*")[0] == 0
    assert run("--check", "--look-at", "0")[0] == 0
    code, out = run("--check", "image:*", "--json")
    shown = json.loads(out)
    assert code == 1
    assert shown["handlers"] == []
    assert [(each["type"], each["tasks"], each["answered_as"]) for each in shown["waiting"]] == [
        ("image:scale", 1, None)
    ]
