"""Calling remote handlers over a real server: what is sent, and what an answer means."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import nats
import pytest

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.dispatch import RemoteHandlers
from aj_bridge.engine.router import EACH, Encoding, Invocation, Nobody, Route
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.fast import FastTransport
from aj_sdk.ids import new_id
from aj_sdk.transport import Message, NatsTransport, settle
from aj_sdk.wire.call import Cause, Completed, Failed, Terminated
from aj_sdk.wire.names import HANDLER_QUEUE_GROUP
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S, parse_time

pytestmark = pytest.mark.server

MINUTE = 60 * NS_PER_S
Answer = Callable[[Message], tuple[bytes, dict[str, str] | None] | None]


def task(task_type: str) -> TaskRecord:
    return TaskRecord(
        id="a", type=task_type, queue="Q", state=TaskState.ACTIVE, created_ns=time.time_ns(), tries=3, payload=b"{}"
    )


def wanted(
    record: TaskRecord, route: str = EACH, run_time_ns: int = MINUTE, encoding: Encoding = Encoding.JSON
) -> Invocation:
    return Invocation("b1-Q-7", record, Route(type=route, encoding=encoding), run_time_ns)


@pytest.fixture
def handlers(transport: NatsTransport) -> RemoteHandlers:
    return RemoteHandlers(transport, Clock())


@asynccontextmanager
async def answering(transport: NatsTransport, subject: str, answer: Answer) -> AsyncIterator[list[Message]]:
    """Answer requests as a handler in any language does."""
    asked: list[Message] = []
    sent: set[asyncio.Task[None]] = set()

    def on_request(message: Message) -> None:
        asked.append(message)
        reply = answer(message)
        if reply is not None:
            publish: Awaitable[None] = transport.publish(message.reply, reply[0], headers=reply[1])
            sent.add(asyncio.ensure_future(publish))

    subscription = await transport.subscribe(subject, on_request, queue=HANDLER_QUEUE_GROUP)
    await settle(transport._nc)
    try:
        yield asked
    finally:
        await subscription.close()


async def test_a_call_carries_the_task_and_what_a_handler_may_rely_on(
    handlers: RemoteHandlers, other: NatsTransport
) -> None:
    task_type = f"t:{new_id()}"
    record = task(task_type)
    async with answering(other, f"CHORIA_AJ.H.T.{task_type}", lambda _message: (b"\x00\xff", None)) as asked:
        outcome = await handlers.call(wanted(record))
    assert outcome == Completed(b"\x00\xff")
    (request,) = asked
    assert TaskRecord.from_wire(request.data) == record
    headers = dict(request.headers or {})
    deadline_ns = parse_time(headers.pop("AJ-Handler-Deadline"))
    timeout_ms = int(headers.pop("AJ-Handler-Timeout-Ms"))
    assert headers == {
        "AJ-Content-Type": "application/x-asyncjobs-task+json",
        "AJ-Protocol": "1.1",
        "AJ-Invocation": "b1-Q-7",
        "AJ-Task-Id": "a",
        "AJ-Task-Try": "3",
        "AJ-Cancel-Subject": "CHORIA_AJ.CI.b1-Q-7",
        "AJ-Heartbeat-Ms": "10000",
    }
    assert 57_000 <= timeout_ms <= 58_000
    assert abs(deadline_ns - time.time_ns() - timeout_ms * NS_PER_MS) < 30 * NS_PER_S


async def test_each_call_goes_to_one_handler_of_the_route(handlers: RemoteHandlers, other: NatsTransport) -> None:
    route = f"email-{new_id()}:"
    async with (
        answering(other, f"CHORIA_AJ.H.T.{route}", lambda _message: (b"1", None)) as first,
        answering(other, f"CHORIA_AJ.H.T.{route}", lambda _message: (b"2", None)) as second,
    ):
        for _ in range(10):
            await handlers.call(wanted(task(route + "new"), route))
    assert len(first) + len(second) == 10


async def test_the_empty_route_is_the_catch_all(handlers: RemoteHandlers, other: NatsTransport) -> None:
    async with answering(other, "CHORIA_AJ.H.T.catchall", lambda _message: (b"", None)):
        assert await handlers.call(wanted(task("anything"), "")) == Completed(b"")


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({"AJ-Error": "why"}, Failed("why")),
        ({"aj-error": ""}, Failed("handler failed without a text")),
        ({"AJ-Error": "why", "AJ-Retry-After-Ms": "1500"}, Failed("why", 1500 * NS_PER_MS)),
        ({"AJ-Terminate": "no"}, Terminated("no")),
        ({"AJ-Error": "why", "AJ-Terminate": "no"}, Terminated("no")),
        ({"Nats-Service-Error": "broken", "Nats-Service-Error-Code": "500"}, Failed("broken (500)")),
        ({"X-Other": "x"}, Completed(b"body")),
    ],
)
async def test_headers_of_a_reply_say_what_became_of_the_task(
    handlers: RemoteHandlers, other: NatsTransport, headers: dict[str, str], outcome: Completed | Failed | Terminated
) -> None:
    task_type = f"t:{new_id()}"
    async with answering(other, f"CHORIA_AJ.H.T.{task_type}", lambda _message: (b"body", headers)):
        assert await handlers.call(wanted(task(task_type))) == outcome


async def test_where_nobody_listens_is_told_at_once(
    handlers: RemoteHandlers, patience: Callable[[float], float]
) -> None:
    task_type = f"t:{new_id()}"
    async with asyncio.timeout(patience(5)):
        with pytest.raises(Nobody) as nobody:
            await handlers.call(wanted(task(task_type)))
    assert nobody.value.subject == f"CHORIA_AJ.H.T.{task_type}"


async def test_a_handler_that_does_not_answer_within_the_run_time_failed(
    handlers: RemoteHandlers, other: NatsTransport
) -> None:
    task_type = f"t:{new_id()}"
    subject = f"CHORIA_AJ.H.T.{task_type}"
    async with answering(other, subject, lambda _message: None):
        outcome = await handlers.call(wanted(task(task_type), run_time_ns=50 * NS_PER_MS))
    assert outcome == Failed(f"no reply from a handler on {subject} within 50ms", cause=Cause.DEADLINE)


async def test_a_reply_that_comes_too_late_is_nobodys(handlers: RemoteHandlers, other: NatsTransport) -> None:
    task_type = f"t:{new_id()}"
    async with answering(other, f"CHORIA_AJ.H.T.{task_type}", lambda _message: None) as asked:
        await handlers.call(wanted(task(task_type), run_time_ns=20 * NS_PER_MS))
        await other.publish(asked[0].reply, b"late")
        await settle(other._nc)
    async with answering(other, f"CHORIA_AJ.H.T.{task_type}", lambda _message: (b"own", None)):
        assert await handlers.call(wanted(task(task_type))) == Completed(b"own")


async def test_a_task_that_does_not_fit_a_request_ends(handlers: RemoteHandlers, transport: NatsTransport) -> None:
    record = task("big").replace(payload=b"x" * transport.max_payload)
    outcome = await handlers.call(wanted(record))
    assert isinstance(outcome, Terminated)
    assert outcome.error.startswith("the task does not fit a request: ")


async def test_a_call_over_a_closed_connection_failed(handlers: RemoteHandlers, transport: NatsTransport) -> None:
    await transport._nc.close()
    outcome = await handlers.call(wanted(task("t")))
    assert isinstance(outcome, Failed)
    assert outcome.error.startswith("the call was not made: ")


async def test_a_route_may_have_its_tasks_in_messagepack(handlers: RemoteHandlers, other: NatsTransport) -> None:
    record = msgspec.structs.replace(task(f"t:{new_id()}"), payload=b"\x00\xff")
    async with answering(other, f"CHORIA_AJ.H.T.{record.type}", lambda _message: (b"\xfe", None)) as asked:
        assert await handlers.call(wanted(record, encoding=Encoding.MSGPACK)) == Completed(b"\xfe")
    (request,) = asked
    assert (request.headers or {})["AJ-Content-Type"] == "application/x-asyncjobs-task+msgpack"
    assert msgspec.msgpack.decode(request.data)["payload"] == b"\x00\xff"
    assert TaskRecord.from_msgpack(request.data) == record


@asynccontextmanager
async def told_to_stop(transport: NatsTransport) -> AsyncIterator[asyncio.Event]:
    """Listen as the handler of the call does."""
    told = asyncio.Event()
    subscription = await transport.subscribe("CHORIA_AJ.CI.b1-Q-7", lambda _message: told.set())
    await settle(transport._nc)
    try:
        yield told
    finally:
        await subscription.close()


async def test_the_handler_of_a_cancelled_call_is_told(
    handlers: RemoteHandlers, other: NatsTransport, patience: Callable[[float], float]
) -> None:
    record = task(f"t:{new_id()}")
    came = asyncio.Event()

    def never(_message: Message) -> None:
        came.set()

    async with answering(other, f"CHORIA_AJ.H.T.{record.type}", never), told_to_stop(other) as told:
        async with asyncio.timeout(patience(10)):
            call = asyncio.create_task(handlers.call(wanted(record)))
            await came.wait()
            assert not told.is_set()
            call.cancel()
            await told.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_handler_that_is_given_up_is_told(
    handlers: RemoteHandlers, other: NatsTransport, patience: Callable[[float], float]
) -> None:
    record = task(f"t:{new_id()}")
    async with answering(other, f"CHORIA_AJ.H.T.{record.type}", lambda _message: None), told_to_stop(other) as told:
        assert isinstance(await handlers.call(wanted(record, run_time_ns=20 * NS_PER_MS)), Failed)
        async with asyncio.timeout(patience(10)):
            await told.wait()


async def test_a_reply_whose_headers_can_not_be_read_is_no_success(server: EmbeddedServer) -> None:
    """A block without a version, as no client of NATS writes it: nats-py drops it, and an error in it."""
    connection = await nats.connect(server.url)
    async with FastTransport(connection) as transport:
        host, port = server.url.removeprefix("nats://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await reader.readline()
        writer.write(b'CONNECT {"headers":true,"verbose":false}\r\nSUB CHORIA_AJ.H.T.bad 1\r\nPING\r\n')
        assert await reader.readline() == b"PONG\r\n"
        calling = asyncio.ensure_future(
            RemoteHandlers(transport, Clock()).call(
                Invocation(
                    id="b-Q-1",
                    task=TaskRecord(id="a", type="bad", queue="Q", created_ns=1, tries=1),
                    route=Route(type="bad"),
                    run_time_ns=30 * NS_PER_S,
                )
            )
        )
        reply = (await reader.readline()).split()[3]
        block = b"AJ-Error: no\r\n\r\n"
        writer.write(b"HPUB %s %d %d\r\n%s\r\n" % (reply, len(block), len(block), block))
        outcome = await calling
        writer.close()
    await connection.close()
    assert isinstance(outcome, Failed)
    assert outcome.error.startswith("the reply's headers can't be read: ")
