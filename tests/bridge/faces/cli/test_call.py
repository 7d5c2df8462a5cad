"""`aj-bridge call` against a responder that runs beside it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aj_bridge.faces.cli.main import aj_bridge_group
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.connect import ConnectOptions
from aj_sdk.errors import RetryLater, Terminate
from aj_sdk.handling import Task
from aj_sdk.runner import Runner
from aj_sdk.services import Services

pytestmark = pytest.mark.server

SERVICES = Services()


@SERVICES.service("email:new")
async def new(task: Task, payload: bytes | None) -> bytes:
    match (payload or b"").decode():
        case "fail":
            raise RuntimeError("mailbox \x1b full")
        case "later":
            raise RetryLater(90, "busy")
        case "never":
            raise Terminate("no such address")
        case "sleep":
            await asyncio.sleep(3600)
        case "progress":
            task.progress(0.5, "half")
        case "large":
            return b"x" * 900_000
    return json.dumps({"try": task.tries, "queue": task.queue, "id": task.id}).encode()


@SERVICES.service("image:")
async def image(payload: bytes) -> bytes:
    return payload


class Call:
    def __init__(self, url: str) -> None:
        self.url = url

    async def __call__(self, *words: str, code: int, stdin: bytes | None = None) -> Result:
        arguments = ["--server", self.url, "call", *words]
        done = await asyncio.to_thread(CliRunner().invoke, aj_bridge_group(), arguments, input=stdin)
        assert done.exit_code == code, (done.output, done.exception)
        return done

    async def json(self, *words: str, code: int, stdin: bytes | None = None) -> Any:
        return json.loads((await self(*words, "--json", code=code, stdin=stdin)).stdout)


@pytest.fixture
async def call(server: EmbeddedServer) -> AsyncIterator[Call]:
    async with Runner(ConnectOptions.from_url(server.url), SERVICES):
        yield Call(server.url)


async def test_request_reply_and_what_a_bridge_would_make_of_them_are_shown(call: Call) -> None:
    lines = (await call("email:new", "{}", "--try", "2", code=0)).stdout.splitlines()
    assert lines[0] == "-> CHORIA_AJ.H.T.email:new"
    assert {"   AJ-Content-Type: application/x-asyncjobs-task+json", "   AJ-Task-Try: 2"} <= set(lines)
    assert "   payload: {} (2 B)" in lines
    assert any(line.startswith("<- ") and line.endswith(" s, reply") for line in lines)
    assert "it would be complete, with a result of " in lines[-1]
    shown = await call.json("email:new", "--id", "t1", "-q", "EMAIL", code=0)
    assert json.loads(shown["reply"]["body"]) == {"try": 1, "queue": "EMAIL", "id": "t1"}
    assert (shown["state"], shown["error"], shown["nobody"]) == ("complete", "", False)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("fail",), 75, "it failed, and would be tried again in about"),
        (("fail", "--try", "10"), 75, "the last try failed, and the task would be expired: RuntimeError: mailbox"),
        (("later",), 75, "would be tried again in about 1m"),
        (("never",), 78, "it would be terminated: no such address"),
        (("large",), 78, "it would be terminated: the task's record needs"),
    ],
)
async def test_the_exit_code_is_the_outcome_and_the_last_line_says_why(
    call: Call, words: tuple[str, ...], code: int, said: str
) -> None:
    done = await call("email:new", *words, code=code)
    assert said in done.stdout.splitlines()[-1]
    assert "\x1b" not in done.stdout


async def test_a_responder_that_is_late_is_told_so_and_interim_replies_are_shown(call: Call) -> None:
    assert "deadline exceeded" in (await call("email:new", "sleep", "--timeout", "300ms", code=75)).stdout
    shown = await call.json("email:new", "progress", code=0)
    assert [(each["headers"], each["body"]) for each in shown["interim"]] == [
        ({"AJ-Progress": "0.5"}, '{"note":"half"}')
    ]


async def test_a_payload_comes_from_a_file_or_standard_input_in_either_encoding(call: Call, tmp_path: Any) -> None:
    file = tmp_path / "picture"
    file.write_bytes(b"\xff\x00")
    shown = await call.json("image:scale", f"@{file}", "--route", "image:", "--encoding", "msgpack", code=0)
    assert shown["request"]["headers"]["AJ-Content-Type"] == "application/x-asyncjobs-task+msgpack"
    assert "body_base64" in shown["request"]
    assert shown["reply"]["body_base64"] == "/wA="
    assert (await call.json("image:scale", "-", "--route", "image:", code=0, stdin=b"in"))["reply"]["body"] == "in"


async def test_nobody_there_is_told_with_those_who_are(call: Call) -> None:
    told = (await call("report:month", code=69)).stdout.splitlines()[-1]
    assert told == "Nobody listens on CHORIA_AJ.H.T.report:month; handlers are there of email:new, image:"
    told = (await call("image:scale", code=69)).stdout.splitlines()[-1]
    assert told.endswith("there are handlers of image:: try --route 'image:'")
    shown = await call.json("report:month", code=69)
    assert (shown["nobody"], shown["state"], shown["handlers"]) == (True, None, ["email:new", "image:"])


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("a b",), "task type"),
        (("a", "--timeout", "0s"), "--timeout lies between"),
        (("a", "--deadline", "-1s"), "--deadline lies in the future"),
        (("a", "--try", "3", "--tries", "2"), "--try 3 is more than --tries 2"),
        (("a", "--route", "b:"), "--route b: does not take a"),
        (("a", "--backoff", "soon"), "soon"),
        (("a", "@/no/such/file"), "cannot read /no/such/file"),
    ],
)
async def test_what_means_nothing_is_refused(server: EmbeddedServer, words: tuple[str, ...], fault: str) -> None:
    done = await asyncio.to_thread(CliRunner().invoke, aj_bridge_group(), ["--server", server.url, "call", *words])
    assert fault in f"{done.output} {done.exception}"
    assert done.exit_code
