"""The runner against a real server: it calls, limits, cancels, drains and stops."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from tests.signatures import attacks

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk import runner as runner_module
from aj_sdk.connect import ConnectOptions
from aj_sdk.errors import NotConnectedError, RetryLater, Terminate, UsageError
from aj_sdk.handling import Task
from aj_sdk.program import run
from aj_sdk.runner import HandlerStats, Runner
from aj_sdk.services import DEFAULT_SERVICES, Services
from aj_sdk.unwanted import UNWANTED
from aj_sdk.wire.call import Completed, Failed, Reply, Terminated, call_headers, read_reply
from aj_sdk.wire.names import handler_subject
from aj_sdk.wire.signing import Signer
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

pytestmark = pytest.mark.server

Patience = Callable[[float], float]
SHUTTING_DOWN = Failed("handler is shutting down")


class Bridge:
    """Calls handlers as a bridge does."""

    def __init__(self, connection: Client, patience: Patience) -> None:
        self.connection = connection
        self._patience = patience

    def request(self, task_type: str, payload: bytes | None, seconds: float) -> tuple[bytes, dict[str, str]]:
        now_ns = time.time_ns()
        record = TaskRecord(
            id="T1", type=task_type, queue="Q", state=TaskState.ACTIVE, payload=payload, created_ns=now_ns, tries=1
        )
        headers = call_headers(record, invocation="inv", now_ns=now_ns, give_up_ns=now_ns + 60 * 10**9)
        return record.to_wire(), headers | {"AJ-Handler-Timeout-Ms": str(int(seconds * 1000))}

    async def call(
        self, task_type: str, payload: bytes | None = None, *, seconds: float = 60, route: str | None = None
    ) -> Reply:
        body, headers = self.request(task_type, payload, seconds)
        answer = await self.ask(task_type if route is None else route, body, headers)
        return read_reply(answer.headers, answer.data)

    async def ask(self, route: str, body: bytes, headers: dict[str, str] | None) -> Msg:
        return await self.connection.request(handler_subject(route), body, timeout=self._patience(20), headers=headers)

    def begin(self, task_type: str, payload: bytes | None = None, *, seconds: float = 60) -> "asyncio.Task[Reply]":
        return asyncio.create_task(self.call(task_type, payload, seconds=seconds))


@pytest.fixture
async def connection(server: EmbeddedServer) -> AsyncIterator[Client]:
    """Give a connection, as a program has one."""
    client = await nats.connect(server.url)
    yield client
    await client.close()


@pytest.fixture
async def bridge(server: EmbeddedServer, patience: Patience) -> AsyncIterator[Bridge]:
    client = await nats.connect(server.url)
    yield Bridge(client, patience)
    await client.close()


@pytest.fixture
def services() -> Services:
    return Services()


class Gate:
    """Handlers wait here; the test sees how many do, and lets them go."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._arrivals: asyncio.Queue[str] = asyncio.Queue()

    async def wait(self, name: str = "") -> None:
        self._arrivals.put_nowait(name)
        await self._open.wait()

    def open(self) -> None:
        self._open.set()

    async def arrived(self) -> str:
        return await self._arrivals.get()

    @property
    def waiting(self) -> int:
        return self._arrivals.qsize()


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def test_what_a_handler_does_is_what_the_bridge_is_told(
    connection: Client, bridge: Bridge, services: Services
) -> None:
    @services.service("act")
    async def act(payload: dict[str, Any]) -> Any:
        match payload:
            case {"return": value}:
                return value
            case {"terminate": text}:
                raise Terminate(text)
            case {"later": seconds}:
                raise RetryLater(seconds, "later")
            case {"exit": code}:
                sys.exit(code)
            case {"cancel": _}:
                raise asyncio.CancelledError
            case {"cancel itself": _}:
                current = asyncio.current_task()
                assert current is not None
                current.cancel()
                await asyncio.Event().wait()
        raise ValueError(f"unknown: {payload}")

    async with Runner(connection, services):
        assert await bridge.call("act", b'{"return":{"a":1}}') == Completed(b'{"a":1}')
        assert await bridge.call("act", b'{"return":null}') == Completed(b"")
        assert await bridge.call("act", b'{"terminate":"no"}') == Terminated("no")
        assert await bridge.call("act", b'{"later":1.5}') == Failed("later", 1_500_000_000)
        assert await bridge.call("act", b'{"exit":3}') == Failed("SystemExit: 3")
        assert await bridge.call("act", b'{"cancel":0}') == Failed("CancelledError")
        assert await bridge.call("act", b'{"cancel itself":0}') == Failed("CancelledError")
        assert await bridge.call("act", b"{}") == Failed("ValueError: unknown: {}")
        assert await bridge.call("act", b"[]") == Terminated("payload: Expected `object`, got `array`")
        # The handler goes on after all of these.
        assert await bridge.call("act", b'{"return":"end"}') == Completed(b"end")
    assert connection.is_connected


async def test_a_plain_function_runs_in_a_thread_that_is_kept(
    connection: Client, bridge: Bridge, services: Services
) -> None:
    local = threading.local()

    @services.service("plain")
    def plain(task: Task, payload: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        if payload == "fail":
            raise StopIteration(payload)
        if payload == "exit":
            sys.exit(payload)
        local.calls = getattr(local, "calls", 0) + 1
        return f"{task.id} {local.calls}"

    async with Runner(connection, services):
        assert await bridge.call("plain", b'"go"') == Completed(b"T1 1")
        assert await bridge.call("plain", b'"go"') == Completed(b"T1 2")
        assert await bridge.call("plain", b'"fail"') == Failed("StopIteration: fail")
        assert await bridge.call("plain", b'"exit"') == Failed("SystemExit: exit")
        assert await bridge.call("plain", b"1") == Terminated("payload: Expected `str`, got `int`")


async def test_prefixes_and_all_types_have_subjects_of_their_own(
    connection: Client, bridge: Bridge, services: Services
) -> None:
    @services.service("email:")
    async def emails(task: Task) -> str:
        return f"email {task.type}"

    @services.service("")
    async def anything(task: Task) -> str:
        return f"any {task.type}"

    async with Runner(connection, services) as runner:
        assert await bridge.call("email:new", route="email:") == Completed(b"email email:new")
        assert await bridge.call("other", route="") == Completed(b"any other")
        assert set(runner.stats) == {"email:", "catchall"}


async def test_each_request_goes_to_one_member_of_the_queue_group(
    connection: Client, bridge: Bridge, gate: Gate
) -> None:
    def make(name: str) -> Services:
        services = Services()

        @services.service("shared")
        async def shared(task: Task) -> str:
            await gate.wait(name)
            return name

        return services

    async with Runner(connection, make("a")), Runner(connection, make("b")):
        calls = [bridge.begin("shared") for _ in range(40)]
        arrived = [await gate.arrived() for _ in calls]
        gate.open()
        answers = await asyncio.gather(*calls)

    assert gate.waiting == 0
    assert set(arrived) == {"a", "b"}
    assert sorted(arrived) == sorted(answer.result.decode() for answer in answers if isinstance(answer, Completed))


async def test_two_groups_each_get_every_request(connection: Client, bridge: Bridge, gate: Gate) -> None:
    one, two = Services(), Services()

    @one.service("grouped")
    async def first(task: Task) -> None:
        await gate.wait("first")

    @two.service("grouped", queue_group="audit")
    async def second(task: Task) -> None:
        await gate.wait("second")

    gate.open()
    async with Runner(connection, one), Runner(connection, two):
        await bridge.call("grouped")
        assert {await gate.arrived(), await gate.arrived()} == {"first", "second"}


async def test_requests_are_handled_side_by_side_up_to_the_limits(
    connection: Client, bridge: Bridge, services: Services, gate: Gate
) -> None:
    @services.service("narrow", concurrency=2)
    async def narrow(task: Task) -> None:
        await gate.wait("narrow")

    @services.service("wide")
    async def wide(task: Task) -> None:
        await gate.wait("wide")

    @services.service("probe")
    async def probe(task: Task) -> None: ...

    async with Runner(connection, services, concurrency=5) as runner:
        calls = [bridge.begin("narrow") for _ in range(4)]
        assert [await gate.arrived(), await gate.arrived()] == ["narrow"] * 2
        # Two requests wait for the narrow handler; the others have the rest of the five slots.
        calls += [bridge.begin("wide") for _ in range(2)]
        assert [await gate.arrived(), await gate.arrived()] == ["wide"] * 2
        assert await bridge.call("probe") == Completed(b"")
        assert gate.waiting == 0
        assert runner.stats["narrow"] == HandlerStats(requests=4, errors=0, in_flight=2)

        calls += [bridge.begin("wide")]
        assert await gate.arrived() == "wide"
        late = bridge.begin("probe")
        await wait_for(lambda: runner.stats["probe"].requests == 2, bridge)
        assert runner.stats["probe"].in_flight == 0
        gate.open()
        assert await asyncio.gather(late, *calls) == [Completed(b"")] * 8
        assert runner.stats["narrow"] == HandlerStats(requests=4, errors=0, in_flight=0)


async def wait_for(condition: Callable[[], bool], bridge: Bridge) -> None:
    """Wait until something is so; each look is a round trip through the server, so that messages get on."""
    async with asyncio.timeout(30):
        while not condition():
            await bridge.connection.flush()


async def no_more(bridge: Bridge, task_type: str) -> None:
    """Wait until nobody takes requests for a type any more."""
    with contextlib.suppress(nats.errors.NoRespondersError):
        while True:
            await bridge.call(task_type, seconds=0.05)


async def test_plain_functions_run_side_by_side_up_to_the_limit(
    connection: Client, bridge: Bridge, services: Services
) -> None:
    barrier = threading.Barrier(20, timeout=30)

    @services.service("meet")
    def meet(task: Task) -> None:
        barrier.wait()

    async with Runner(connection, services, concurrency=20):
        assert await asyncio.gather(*(bridge.begin("meet") for _ in range(40))) == [Completed(b"")] * 40


async def test_a_request_whose_deadline_passes_while_it_waits_is_answered(
    connection: Client, bridge: Bridge, services: Services, gate: Gate
) -> None:
    @services.service("busy", concurrency=1)
    async def busy(task: Task) -> None:
        await gate.wait()

    @services.service("other")
    async def other(task: Task) -> None:
        await gate.wait()

    async with Runner(connection, services, concurrency=2) as runner:
        first = bridge.begin("busy")
        await gate.arrived()
        assert await bridge.call("busy", seconds=0.05) == Failed("deadline passed before a slot was free")
        second = bridge.begin("other")
        await gate.arrived()
        # Now the runner itself has no slot, for a handler that has.
        assert await bridge.call("other", seconds=0.05) == Failed("deadline passed before a slot was free")
        gate.open()
        assert [await first, await second] == [Completed(b"")] * 2
        assert await bridge.call("busy") == Completed(b"")
        assert await bridge.call("other") == Completed(b"")
        assert runner.stats["busy"] == HandlerStats(requests=3, errors=1, in_flight=0)


async def test_requests_beyond_the_backlog_are_answered_at_once(
    connection: Client, bridge: Bridge, services: Services, gate: Gate
) -> None:
    @services.service("full")
    async def full(task: Task) -> None:
        await gate.wait()

    async with Runner(connection, services, concurrency=1, backlog=2):
        calls = [bridge.begin("full") for _ in range(3)]
        await gate.arrived()
        assert await bridge.call("full") == Failed("handler is busy: 2 requests are waiting")
        gate.open()
        assert await asyncio.gather(*calls) == [Completed(b"")] * 3


async def test_a_coroutine_is_cancelled_at_its_deadline(connection: Client, bridge: Bridge, services: Services) -> None:
    cancelled = asyncio.Event()

    @services.service("slow", concurrency=1)
    async def slow(payload: bool) -> None:
        if payload:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    async with Runner(connection, services) as runner:
        assert await bridge.call("slow", b"true", seconds=0.05) == Failed("deadline exceeded")
        await cancelled.wait()
        assert await bridge.call("slow", b"false") == Completed(b"")
        assert runner.stats["slow"] == HandlerStats(requests=2, errors=1, in_flight=0)


async def test_a_timeout_of_the_handler_s_own_is_its_error(
    connection: Client, bridge: Bridge, services: Services
) -> None:
    @services.service("own")
    async def own(task: Task) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async with Runner(connection, services):
        assert await bridge.call("own") == Failed("TimeoutError")


async def test_a_coroutine_that_will_not_be_cancelled_is_answered_for_and_keeps_its_slot(
    connection: Client, bridge: Bridge, services: Services, gate: Gate
) -> None:
    @services.service("stubborn", concurrency=1)
    async def stubborn(task: Task) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await gate.wait()

    async with Runner(connection, services) as runner:
        assert await bridge.call("stubborn", seconds=0.05) == Failed("deadline exceeded")
        await gate.arrived()
        assert runner.stats["stubborn"].in_flight == 1
        assert await bridge.call("stubborn", seconds=0.05) == Failed("deadline passed before a slot was free")
        gate.open()


async def test_a_thread_is_answered_for_at_its_deadline_and_keeps_its_slot(
    connection: Client, bridge: Bridge, services: Services
) -> None:
    let_go = threading.Event()

    @services.service("stuck", concurrency=1)
    def stuck(task: Task) -> str:
        let_go.wait(30)
        return "late"

    async with Runner(connection, services) as runner:
        assert await bridge.call("stuck", seconds=0.05) == Failed("deadline exceeded")
        assert runner.stats["stuck"].in_flight == 1
        assert await bridge.call("stuck", seconds=0.05) == Failed("deadline passed before a slot was free")
        let_go.set()
        assert await bridge.call("stuck") == Completed(b"late")


async def test_a_result_that_no_message_can_hold_ends_the_task(
    connection: Client, bridge: Bridge, services: Services
) -> None:
    @services.service("big")
    async def big(payload: int) -> bytes:
        return b"x" * payload

    limit = connection.max_payload
    async with Runner(connection, services) as runner:
        assert await bridge.call("big", str(limit).encode()) == Completed(b"x" * limit)
        assert await bridge.call("big", str(limit + 1).encode()) == Terminated(
            f"the result of {limit + 1} bytes is too large: the server takes {limit}"
        )
        assert runner.stats["big"].errors == 1


async def test_bad_requests_are_answered_and_those_without_a_reply_subject_are_left(
    connection: Client, bridge: Bridge, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    @services.service("picky")
    async def picky(task: Task) -> None: ...

    async with Runner(connection, services) as runner:
        answer = await bridge.ask("picky", b"{", None)
        assert read_reply(answer.headers, answer.data) == Terminated(
            "the request can't be read: request: AJ-Content-Type: missing; expected "
            "application/x-asyncjobs-task+json or application/x-asyncjobs-task+msgpack"
        )
        body, headers = bridge.request("picky", None, 60)
        await bridge.connection.publish(handler_subject("picky"), body, headers=headers)
        assert await bridge.call("picky") == Completed(b"")
        assert await bridge.call("picky", seconds=0) == Failed("the deadline had passed when the request arrived")
        assert runner.stats["picky"] == HandlerStats(requests=4, errors=3, in_flight=0)
    assert "it has no reply subject" in caplog.text


async def test_a_runner_that_is_stopped_takes_no_more_and_finishes_the_rest(
    connection: Client, bridge: Bridge, services: Services, gate: Gate
) -> None:
    @services.service("rest")
    async def rest(task: Task) -> None:
        await gate.wait()

    ready = asyncio.Event()
    runner = Runner(connection, services, concurrency=2, on_ready=ready.set)
    running = asyncio.create_task(runner.run(signals=False))
    await ready.wait()
    calls = [bridge.begin("rest") for _ in range(5)]
    await gate.arrived()
    await gate.arrived()
    await wait_for(lambda: runner.stats["rest"].requests == 5, bridge)

    runner.stop()
    await no_more(bridge, "rest")
    assert not running.done()
    gate.open()

    assert await asyncio.gather(*calls) == [Completed(b"")] * 5
    await running
    assert connection.is_connected


async def test_no_request_is_lost_when_a_runner_stops_under_load(
    server: EmbeddedServer, bridge: Bridge, services: Services
) -> None:
    @services.service("load")
    async def load(task: Task) -> None: ...

    async def call_until_nobody_is_there() -> int:
        answers = 0
        with contextlib.suppress(nats.errors.NoRespondersError):
            while True:
                assert await bridge.call("load") == Completed(b"")
                answers += 1
        return answers

    async with Runner(ConnectOptions.from_url(server.url), services) as runner:
        callers = [asyncio.create_task(call_until_nobody_is_there()) for _ in range(50)]
        await wait_for(lambda: runner.stats["load"].requests > 500, bridge)
    assert sum(await asyncio.gather(*callers)) == runner.stats["load"].requests


async def test_what_is_not_finished_within_the_grace_period_is_cancelled_and_answered(
    connection: Client, bridge: Bridge, services: Services, gate: Gate
) -> None:
    let_go = threading.Event()
    cleaned_up = False

    @services.service("endless", concurrency=1)
    async def endless(task: Task) -> None:
        nonlocal cleaned_up
        try:
            await gate.wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up = True

    @services.service("hanging")
    def hanging(task: Task) -> None:
        let_go.wait(30)

    async with Runner(connection, services, grace=0.05) as runner:
        calls = [bridge.begin("endless"), bridge.begin("endless"), bridge.begin("hanging")]
        await gate.arrived()
        await wait_for(lambda: runner.stats["endless"].requests == 2 and runner.stats["hanging"].in_flight == 1, bridge)
    let_go.set()

    assert await asyncio.gather(*calls) == [SHUTTING_DOWN] * 3
    assert cleaned_up
    assert gate.waiting == 0


async def test_a_second_stop_does_not_wait(connection: Client, bridge: Bridge, services: Services, gate: Gate) -> None:
    @services.service("hurry")
    async def hurry(task: Task) -> None:
        await gate.wait()

    ready = asyncio.Event()
    runner = Runner(connection, services, grace=600, on_ready=ready.set)
    running = asyncio.create_task(runner.run(signals=False))
    await ready.wait()
    call = bridge.begin("hurry")
    await gate.arrived()

    runner.stop()
    runner.stop()

    await running
    assert await call == SHUTTING_DOWN


async def test_a_stubborn_coroutine_does_not_keep_the_runner(
    connection: Client, bridge: Bridge, services: Services, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_CANCEL_TIMEOUT_S", 0.05)

    begun = asyncio.Event()

    @services.service("mule")
    async def mule(task: Task) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await gate.wait()

    async with Runner(connection, services, grace=0):
        call = bridge.begin("mule")
        await begun.wait()
    assert await call == SHUTTING_DOWN
    gate.open()
    await gate.arrived()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_stop_it(
    connection: Client, bridge: Bridge, services: Services, gate: Gate, number: signal.Signals
) -> None:
    @services.service("signalled")
    async def signalled(task: Task) -> None:
        await gate.wait()

    before = signal.getsignal(number)
    ready = asyncio.Event()
    running = asyncio.create_task(Runner(connection, services, grace=600, on_ready=ready.set).run())
    await ready.wait()
    call = bridge.begin("signalled")
    await gate.arrived()

    os.kill(os.getpid(), number)
    await no_more(bridge, "signalled")
    assert not running.done()
    # A second one ends it at once.
    os.kill(os.getpid(), number)

    await running
    assert await call == SHUTTING_DOWN
    assert signal.getsignal(number) == before


async def test_a_connection_of_its_own_is_opened_and_closed(
    server: EmbeddedServer, bridge: Bridge, services: Services
) -> None:
    @services.service("own:connection")
    async def handler(task: Task) -> None: ...

    async with Runner(ConnectOptions.from_url(server.url), services) as runner:
        assert await bridge.call("own:connection") == Completed(b"")
        connection = runner._connection
        assert connection.is_connected
    assert connection.is_closed
    with pytest.raises(nats.errors.NoRespondersError):
        await bridge.call("own:connection")


async def test_a_connection_that_can_not_be_made_is_told(services: Services) -> None:
    services.service("t")(lambda task: task)
    with pytest.raises(NotConnectedError, match=r"127\.0\.0\.1:1"):
        await Runner(ConnectOptions.from_url("nats://127.0.0.1:1", name="x"), services).run()


async def test_a_connection_that_is_closed_for_good_ends_the_run(server: EmbeddedServer, services: Services) -> None:
    services.service("t")(lambda task: task)
    ready = asyncio.Event()
    runner = Runner(ConnectOptions.from_url(server.url), services, on_ready=ready.set)
    running = asyncio.create_task(runner.run(signals=False))
    await ready.wait()

    await runner._connection.close()

    with pytest.raises(NotConnectedError, match="closed the connection for good"):
        await running


async def test_a_closed_connection_is_refused(connection: Client, services: Services) -> None:
    services.service("t")(lambda task: task)
    await connection.close()
    with pytest.raises(NotConnectedError, match="subscribing failed"):
        async with Runner(connection, services):
            pass


async def test_what_fails_when_it_is_ready_leaves_nothing_behind(
    server: EmbeddedServer, bridge: Bridge, services: Services
) -> None:
    services.service("unready")(lambda task: task)

    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        async with Runner(ConnectOptions.from_url(server.url), services, on_ready=fail):
            pass
    with pytest.raises(nats.errors.NoRespondersError):
        await bridge.call("unready")


async def test_handlers_answer_again_after_the_server_was_away(
    clean_server: EmbeddedServer, services: Services, patience: Patience
) -> None:
    services.service("back")(lambda task: task.id)
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    async with Runner(ConnectOptions.from_url(clean_server.url), services) as runner:
        await clean_server.astop()
        await clean_server.astart()
        client = await nats.connect(clean_server.url, reconnected_cb=reconnected)
        bridge = Bridge(client, patience)
        async with asyncio.timeout(patience(30)):
            while True:
                with contextlib.suppress(nats.errors.NoRespondersError):
                    assert await bridge.call("back") == Completed(b"T1")
                    break
        assert runner.stats["back"].requests == 1
        await client.close()


@pytest.mark.parametrize("owned", [False, True])
async def test_it_stops_while_the_server_is_away(
    clean_server: EmbeddedServer, services: Services, gate: Gate, patience: Patience, owned: bool
) -> None:
    @services.service("away")
    async def away(task: Task) -> None:
        await gate.wait()

    program_s = await nats.connect(clean_server.url, max_reconnect_attempts=-1)
    async with Runner(ConnectOptions.from_url(clean_server.url) if owned else program_s, services) as runner:
        connection = runner._connection
        body, headers = Bridge(connection, patience).request("away", None, 60)
        await connection.publish(handler_subject("away"), body, reply="nobody", headers=headers)
        await gate.arrived()
        await clean_server.astop()
        async with asyncio.timeout(patience(30)):
            while connection.is_connected:  # noqa: ASYNC110 - nothing tells, on a connection that the runner made
                await asyncio.sleep(0)
        gate.open()
    assert connection.is_closed == owned
    with contextlib.suppress(OSError):
        await program_s.close()


async def test_an_answer_that_can_not_be_sent_is_logged(
    server: EmbeddedServer, bridge: Bridge, services: Services, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    @services.service("mute")
    async def mute(task: Task) -> None:
        await gate.wait()

    connection = await nats.connect(server.url)
    async with Runner(connection, services):
        body, headers = bridge.request("mute", None, 60)
        await bridge.connection.publish(handler_subject("mute"), body, reply="nobody", headers=headers)
        await gate.arrived()
        await connection.close()
        gate.open()
    assert "an answer of mute could not be sent" in caplog.text
    assert "taking back the subscription of mute failed" in caplog.text


async def test_a_runner_runs_once(connection: Client, services: Services) -> None:
    services.service("once")(lambda task: task)
    runner = Runner(connection, services)
    async with runner:
        pass
    with pytest.raises(UsageError, match="runs once"):
        await runner.run(signals=False)


async def test_what_comes_after_the_end_is_refused(connection: Client, bridge: Bridge, services: Services) -> None:
    @services.service("zombie")
    async def zombie(task: Task) -> None: ...

    runner = Runner(connection, services)
    async with runner:
        pass
    # A subscription can outlive the runner when the connection breaks while it is taken back.
    body, headers = bridge.request("zombie", None, 60)
    inbox = await bridge.connection.subscribe("inbox.zombie")
    # Twice: nats-py lets the first PING overtake the subscription.
    await bridge.connection.flush()
    await bridge.connection.flush()
    message = Msg(connection, handler_subject("zombie"), "inbox.zombie", body, headers)
    runner._on_request(runner._lanes[0], message)
    answer = await inbox.next_msg(20)
    assert read_reply(answer.headers, answer.data) == SHUTTING_DOWN


async def test_outcomes_are_logged_with_the_task(
    connection: Client, bridge: Bridge, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    @services.service("logged")
    async def logged(payload: str) -> None:
        match payload:
            case "fail":
                raise ValueError("bad")
            case "later":
                raise RetryLater(1)
            case "terminate":
                raise Terminate("never")

    with caplog.at_level(logging.DEBUG, "aj_sdk"):
        async with Runner(connection, services):
            for payload in (b'"ok"', b'"fail"', b'"later"', b'"terminate"'):
                await bridge.call("logged", payload)

    assert "ready: logged" in caplog.messages
    found = {r.getMessage(): (r.levelname, bool(r.exc_info)) for r in caplog.records if hasattr(r, "task_id")}
    assert found == {
        "handled": ("DEBUG", False),
        "handler failed: ValueError: bad": ("ERROR", True),
        "to be tried again in 1.000 s: retry later": ("INFO", False),
        "terminated: never": ("WARNING", False),
    }


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"grace": -1}, "grace"),
        ({"grace": float("inf")}, "grace"),
        ({"backlog": -1}, "backlog"),
    ],
)
def test_wrong_options_are_refused(services: Services, options: dict[str, Any], reason: str) -> None:
    services.service("t")(lambda task: task)
    with pytest.raises(UsageError, match=reason):
        Runner(ConnectOptions(), services, **options)


def test_a_runner_without_handlers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DEFAULT_SERVICES, "_by_subject", {})
    with pytest.raises(UsageError, match="no handlers are registered"):
        Runner(ConnectOptions())


# `run`, in processes of its own

HANDLERS = """
import asyncio, threading
import aj_sdk
from aj_sdk import Task, service

@service("echo")
async def echo(task: Task, payload: bytes) -> bytes:
    task.log.info("echo \\x1b[31m")
    return payload

@service("wait")
async def wait(task: Task) -> None:
    task.log.info("waiting")
    await asyncio.Event().wait()

@service("hang")
def hang(task: Task) -> None:
    task.log.info("hanging")
    threading.Event().wait()

SETUP
if __name__ == "__main__":
    aj_sdk.run(OPTIONS)
"""


class Program:
    """A handler program, and the lines that it writes to standard error."""

    def __init__(self, path: Path, *, server: str, options: str = "", setup: str = "", **environ: str) -> None:
        path.write_text(HANDLERS.replace("OPTIONS", options).replace("SETUP", setup))
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "AJ_SERVER": server, **environ},
        )

    async def line(self, part: str) -> str:
        """Read on until a line has this in it."""
        assert self.process.stderr is not None
        while True:
            line = await asyncio.to_thread(self.process.stderr.readline)
            assert line, f"ended without {part!r}"
            if part in line:
                return line

    async def end(self) -> int:
        return await asyncio.to_thread(self.process.wait, 60)


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Give a function that starts a handler program; what still runs at the end is killed."""
    started: list[Program] = []

    def start(**settings: Any) -> Program:
        started.append(Program(tmp_path / "handlers.py", **settings))
        return started[-1]

    yield start
    for program in started:
        program.process.kill()
        program.process.communicate()


async def test_a_program_handles_requests_until_sigterm(
    server: EmbeddedServer, bridge: Bridge, programs: Callable[..., Program]
) -> None:
    program = programs(server=server.url)

    assert (await program.line("ready")).endswith("INFO aj_sdk: ready: echo, wait, hang\n")
    assert await bridge.call("echo", b"\xff") == Completed(b"\xff")
    assert "aj_sdk.task: echo \\x1b[31m task_id=T1 task_type=echo tries=1" in await program.line("echo")
    program.process.send_signal(signal.SIGTERM)
    assert await program.end() == 0


async def test_a_program_that_hangs_ends_after_its_grace_period(
    server: EmbeddedServer, bridge: Bridge, programs: Callable[..., Program]
) -> None:
    program = programs(server=server.url, options="grace=0.2")
    await program.line("ready")
    calls = [bridge.begin("wait"), bridge.begin("hang")]
    for _ in calls:
        await program.line("ing task_id=")

    program.process.send_signal(signal.SIGTERM)

    assert await asyncio.gather(*calls) == [SHUTTING_DOWN] * 2
    assert await program.end() == 0


async def test_a_second_signal_ends_a_program_at_once(
    server: EmbeddedServer, bridge: Bridge, programs: Callable[..., Program]
) -> None:
    program = programs(server=server.url, options="grace=600")
    await program.line("ready")
    calls = [bridge.begin("wait"), bridge.begin("hang")]
    for _ in calls:
        await program.line("ing task_id=")

    program.process.send_signal(signal.SIGINT)
    await program.line("stopping: 2 requests in hand")
    program.process.send_signal(signal.SIGINT)

    assert await asyncio.gather(*calls) == [SHUTTING_DOWN] * 2
    assert await program.end() == 0


async def test_a_program_s_own_logging_is_left_alone(server: EmbeddedServer, programs: Callable[..., Program]) -> None:
    setup = "import logging; logging.basicConfig(format='mine %(message)s', level=logging.INFO)"
    program = programs(server=server.url, setup=setup)

    assert await program.line("ready") == "mine ready: echo, wait, hang\n"


@pytest.mark.parametrize(
    ("settings", "code", "reason"),
    [
        ({"server": "nats://127.0.0.1:1"}, 1, "error: .*127.0.0.1:1"),
        ({"server": "ftp://x"}, 2, "error: AJ_SERVER: "),
        ({"server": "", "AJ_CONTEXT": "nope"}, 2, "error: AJ_CONTEXT: there is no NATS context 'nope'"),
        ({"server": "", "options": "concurrency=0"}, 2, "error: concurrency must be at least 1"),
        ({"server": "", "options": "aj_sdk.Services()"}, 2, "error: no handlers are registered"),
    ],
)
def test_a_program_that_can_not_run_says_why_in_one_line(
    programs: Callable[..., Program], settings: dict[str, str], code: int, reason: str
) -> None:
    program = programs(**settings)
    _, errors = program.process.communicate(timeout=60)

    assert program.process.returncode == code
    (line,) = [line for line in errors.splitlines() if "WARNING" not in line]
    assert re.match(reason, line)


FAILING = """
@aj_sdk.services.lifespan
async def lifespan():
    raise OSError("no database")
    yield
"""


async def test_a_program_whose_lifespan_fails_says_why_and_where(
    server: EmbeddedServer, programs: Callable[..., Program]
) -> None:
    program = programs(server=server.url, setup=FAILING)
    await program.line('raise OSError("no database")')
    assert await program.line("error: ") == (
        "error: the lifespan of the handlers failed at its start: OSError: no database\n"
    )
    assert await program.end() == 1


async def test_run_inside_an_event_loop_is_refused() -> None:
    with pytest.raises(UsageError, match="await Runner"):
        run()


async def test_a_coroutine_whose_reply_is_not_wanted_is_cancelled(
    connection: Client, bridge: Bridge, services: Services, gate: Gate
) -> None:
    ended: list[bool] = []

    @services.service("stop")
    async def stop(task: Task) -> None:
        try:
            await gate.wait()
        finally:
            ended.append(task.cancelled)

    async with Runner(connection, services):
        call = bridge.begin("stop")
        await gate.arrived()
        await bridge.connection.publish("CHORIA_AJ.CI.another", b"")
        await bridge.connection.publish("CHORIA_AJ.CI.inv", b"")
        assert await call == Failed("cancelled: the bridge does not want the reply any more")
    assert ended == [True]


async def test_a_plain_function_sees_that_its_reply_is_not_wanted(
    connection: Client, bridge: Bridge, services: Services
) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    @services.service("stop")
    def stop(task: Task) -> str:
        loop.call_soon_threadsafe(began.set)
        while not task.cancelled and task.remaining:
            time.sleep(0.01)
        return f"cancelled: {task.cancelled}"

    async with Runner(connection, services):
        call = bridge.begin("stop")
        await began.wait()
        await bridge.connection.publish("CHORIA_AJ.CI.inv", b"")
        assert await call == Completed(b"cancelled: True")


@contextlib.contextmanager
def unwanted_seen() -> Iterator[asyncio.Event]:
    """Give what is set when a handler's log says that its call is not wanted."""
    seen = asyncio.Event()

    class OnRecord(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "does not want the reply" in record.getMessage():
                seen.set()

    logger, handler = logging.getLogger("aj_sdk.task"), OnRecord()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield seen
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def test_a_call_that_waits_for_a_slot_and_is_not_wanted_never_begins(
    connection: Client, bridge: Bridge, services: Services, gate: Gate
) -> None:
    @services.service("stop", concurrency=1)
    async def stop(task: Task) -> None:
        await gate.wait(task.invocation)

    async with Runner(connection, services, backlog=1):
        body, headers = bridge.request("stop", None, 60)
        first = asyncio.create_task(bridge.ask("stop", body, headers | {"AJ-Invocation": "first"}))
        await gate.arrived()
        inbox = bridge.connection.new_inbox()
        second = await bridge.connection.subscribe(inbox)
        await bridge.connection.publish("CHORIA_AJ.H.T.stop", body, inbox, headers | {"AJ-Invocation": "second"})
        await bridge.ask("stop", body, headers | {"AJ-Invocation": "refused"})  # so the second one waits by now
        with unwanted_seen() as seen:
            await bridge.connection.publish("CHORIA_AJ.CI.second", b"")
            await seen.wait()
        gate.open()
        await first
        answer = await second.next_msg(timeout=20)
        assert read_reply(answer.headers, answer.data) == UNWANTED
        assert gate.waiting == 0


async def test_a_runner_with_keys_calls_handlers_for_what_is_signed_by_one_of_them_alone(
    connection: Client, bridge: Bridge, services: Services
) -> None:
    handled: list[str] = []

    @services.service("t")
    async def handle(task: Task) -> str:
        handled.append(task.record.signature)
        return "done"

    first, second, stranger = (Signer(digit * 64) for digit in "123")
    body, headers = bridge.request("t", b"{}", 60)
    plain = TaskRecord.from_wire(body)
    signed = second.sign(plain)

    async def ask(record: TaskRecord) -> Reply:
        answer = await bridge.ask("t", record.to_wire(), headers)
        return read_reply(answer.headers, answer.data)

    async with Runner(connection, services, verify=[first.public_key_hex, second.public_key_hex]) as runner:
        replies = [await ask(record) for record in (plain, stranger.sign(plain), signed.replace(payload=b"[]"))]
        assert all(isinstance(reply, Terminated) for reply in replies)
        assert ["not signed" in str(reply) for reply in replies] == [True, False, False]
        assert ["invalid task signature" in str(reply) for reply in replies] == [False, True, True]
        attacked = attacks(second, plain, other_type="u")
        for attack, why in attacked.values():
            assert why in str(await ask(attack))
        assert handled == []
        assert isinstance(await ask(signed), Completed)
        assert handled == [signed.signature]
        assert runner.stats["t"] == HandlerStats(requests=4 + len(attacked), errors=3 + len(attacked), in_flight=0)


@pytest.mark.parametrize("verify", ["", "  ", "12", [], [""], ["1" * 64, ""]])
def test_a_key_that_is_none_is_refused_at_the_start(services: Services, verify: str | list[str]) -> None:
    services.service("t")(lambda task: None)
    with pytest.raises(UsageError, match="key"):
        Runner(ConnectOptions(), services, verify=verify)
