"""`aj-bridge tap` on a real server: what it listens to and when, and what it prints."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import nats.errors
import nats.micro
import pytest
from click.testing import CliRunner
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig
from tests.acceptance.processes import Process

from aj_bridge.faces.cli import tap
from aj_bridge.faces.cli.main import aj_bridge_group
from aj_bridge.faces.embedded import EmbeddedServer
from aj_bridge.faces.tap import Kind, Passed
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.transport import settle

TAP = [sys.executable, "-m", "aj_bridge.faces.cli.main", "aj-bridge"]
HEADERS = {"AJ-Content-Type": "application/x-asyncjobs-task+json", "AJ-Handler-Deadline": "2999-01-01T00:00:00Z"}
TASK = b'{"id":"t1","type":"email:new","payload":"eA==","created":"2024-02-29T16:05:06Z","tries":1,"state":"active"}'


@pytest.fixture
async def connection(clean_server: EmbeddedServer) -> AsyncIterator[Connection]:
    connection = await connect(ConnectOptions.from_url(clean_server.url))
    yield connection
    await connection.close()


async def handler(connection: Connection) -> Service:
    async def answer(request: Request) -> None:
        await request.respond(b"sent \x1b[31m")
        await request.respond(b"again")

    service = await nats.micro.add_service(connection, ServiceConfig(name="mailer", version="1.0.0"))
    await service.add_endpoint(EndpointConfig(name="new", subject="CHORIA_AJ.H.T.email:new", handler=answer))
    return service


@pytest.fixture
def start(clean_server: EmbeddedServer, patience: Callable[[float], float]) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(*words: str) -> Process:
        command = [*TAP, "--server", clean_server.url, "tap", *words]
        started.append(Process("tap", command, {}, patience))
        return started[-1]

    yield run
    for process in started:
        process.close()


@pytest.mark.server
async def test_a_type_is_tapped_while_a_handler_of_it_shows_itself(
    connection: Connection, start: Callable[..., Process]
) -> None:
    process = start("email:*", "--json")
    await process.logs("no handlers show themselves")
    # Nobody listens: the server says so at once, tap or no tap.
    with pytest.raises(nats.errors.NoRespondersError):
        await connection.request("CHORIA_AJ.H.T.email:new", TASK, timeout=5, headers=HEADERS)
    service = await handler(connection)
    await process.logs("tapping CHORIA_AJ.H.T.email:new")
    await connection.request("CHORIA_AJ.H.T.email:new", TASK, timeout=5, headers=HEADERS)
    await process.says('"text": "complete"', count=2)
    shown = [json.loads(line) for line in process.out]
    assert [each["kind"] for each in shown] == ["request", "reply", "reply"]
    assert [each["task_id"] for each in shown] == ["t1"] * 3
    assert [len(each["faults"]) for each in shown] == [0, 0, 1]
    await service.stop()
    await process.logs("no handler of CHORIA_AJ.H.T.email:new shows itself any more")
    with pytest.raises(nats.errors.NoRespondersError):
        await connection.request("CHORIA_AJ.H.T.email:new", TASK, timeout=5, headers=HEADERS)


@pytest.mark.server
async def test_faults_alone_are_shown_on_request_and_a_count_ends_it(
    connection: Connection, start: Callable[..., Process]
) -> None:
    await handler(connection)
    process = start("--faults", "--count", "1", "--no-events")
    await process.logs("tapping CHORIA_AJ.H.T.email:new")
    await connection.request("CHORIA_AJ.H.T.email:new", TASK, timeout=5, headers=HEADERS)
    assert await process.ended() == 0
    line, fault = process.out
    assert " <- email:new t1 after " in line
    assert "! protocol $: the request was answered already" in fault


@pytest.mark.server
async def test_a_login_that_may_not_see_replies_is_told(
    fresh_server: Callable[..., EmbeddedServer], start: Callable[..., Process]
) -> None:
    # One's own inbox, and not those of others.
    user = {"user": "u", "password": "p", "permissions": {"subscribe": ["$SRV.>", "_INBOX.*.*", "CHORIA_AJ.>"]}}
    url = fresh_server(config={"authorization": {"users": [user]}}).url.replace("://", "://u:p@")
    process = start("--server", url)
    assert (await process.logs("replies can't be shown")).endswith("this login may not subscribe to _INBOX.>")


@pytest.mark.server
async def test_what_comes_too_fast_is_counted_and_not_complained_of_one_by_one(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    missed = tap._Missed()
    log = logging.getLogger("aj_sdk.connect")
    log.addFilter(missed)
    came, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_: Msg) -> None:
        came.set()
        await go_on.wait()

    await connection.subscribe("x", cb=slowly, pending_msgs_limit=1)
    await connection.publish("x", b"")
    await came.wait()
    for _ in range(4):
        await connection.publish("x", b"")
    await settle(connection)
    go_on.set()
    log.removeFilter(missed)
    assert missed.take() == 3
    assert missed.take() == 0
    assert "slow consumer" not in caplog.text


def test_text_that_a_terminal_would_obey_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    tap._print(Passed(kind=Kind.REPLY, at_ns=0, subject="s", text="complete", content=b"\x1b[31m" + b"x" * 5000))
    out = capsys.readouterr().out
    assert "\\x1b[31m" in out
    assert "\x1b[31m" not in out
    assert len(out) < 500


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--unseen",), "--unseen needs the names of types"),
        (("a b",), "task type"),
        (("--inbox", "_INBOX.>"), "'_INBOX.>' is no prefix of a subject"),
        (("--count", "0"), "0 is not in the range"),
    ],
)
def test_what_means_nothing_is_refused(words: tuple[str, ...], fault: str) -> None:
    done = CliRunner().invoke(aj_bridge_group(), ["tap", *words])
    assert done.exit_code
    assert fault in f"{done.output} {done.exception}"
