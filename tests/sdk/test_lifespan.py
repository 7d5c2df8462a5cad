"""What handlers need is set up before the first task, and taken down after the last one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import nats
import pytest
from tests.bridge.engine.hearing import Hearing
from tests.sdk.test_runner import Bridge

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.functions import Functions
from aj_bridge.engine.router import Invocation, Outcome, Route
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk import lifespan as lifespan_module
from aj_sdk import testing
from aj_sdk.errors import LifespanError, UsageError
from aj_sdk.handling import Task
from aj_sdk.lifespan import Lifespan
from aj_sdk.runner import Runner
from aj_sdk.services import Service, Services
from aj_sdk.wire.call import Completed
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord


@pytest.fixture
def seen() -> list[str]:
    """Give a list of what happened, in order."""
    return []


@pytest.fixture
def services(seen: list[str]) -> Services:
    """Give a handler of `t` that tells what the lifespan yielded, and its last words."""
    services = Services()

    @services.lifespan
    async def lifespan() -> AsyncIterator[dict[str, str]]:
        seen.append("begins")
        async with asyncio.TaskGroup():  # it must be left in the task that entered it
            yield {"pool": "of connections"}
        seen.append("ends")

    @services.service("t")
    async def handle(task: Task) -> Any:
        try:
            seen.append("handled")
            return task.lifespan
        finally:
            await asyncio.sleep(0)

    return services


async def test_a_call_without_a_server_has_it_around_itself(services: Services, seen: list[str]) -> None:
    assert (await testing.call("t", services=services)).result == {"pool": "of connections"}
    assert seen == ["begins", "handled", "ends"]


async def test_a_test_may_give_what_it_would_yield(services: Services, seen: list[str]) -> None:
    assert (await testing.call("t", services=services, lifespan={"pool": "of the test"})).result == {
        "pool": "of the test"
    }
    assert seen == ["handled"]


async def test_without_one_there_is_nothing() -> None:
    services = Services()
    services.service("t")(lambda task: task.lifespan is None)
    assert (await testing.call("t", services=services)).result is True


@pytest.mark.server
async def test_a_runner_begins_it_before_it_listens_and_ends_it_after_the_last_task(
    server: EmbeddedServer, services: Services, seen: list[str], patience: Callable[[float], float]
) -> None:
    connection = await nats.connect(server.url)
    go, arrived = asyncio.Event(), asyncio.Event()

    @services.service("lifespan:slow")
    async def slow(task: Task) -> None:
        arrived.set()
        await go.wait()
        seen.append("the last one")

    ready = asyncio.Event()

    def on_ready() -> None:
        seen.append("ready")
        ready.set()

    runner = Runner(connection, services, on_ready=on_ready)
    running = asyncio.create_task(runner.run(signals=False))
    await ready.wait()
    call = Bridge(connection, patience).begin("lifespan:slow")
    await arrived.wait()
    runner.stop()
    await asyncio.sleep(0)
    go.set()
    await call
    await running
    assert seen == ["begins", "ready", "the last one", "ends"]
    assert connection.is_connected
    await connection.close()


@pytest.mark.server
async def test_a_runner_that_is_stopped_meanwhile_does_not_wait_for_its_beginning(server: EmbeddedServer) -> None:
    services, begun, cleaned = Services(), asyncio.Event(), asyncio.Event()

    @services.lifespan
    async def lifespan() -> AsyncIterator[None]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()
        yield

    services.service("t")(lambda task: None)
    connection = await nats.connect(server.url)
    runner = Runner(connection, services, on_ready=lambda: pytest.fail("it listens"))
    running = asyncio.create_task(runner.run(signals=False))
    await begun.wait()
    runner.stop()
    await running
    assert cleaned.is_set()
    await connection.close()


@pytest.mark.server
async def test_a_runner_says_why_it_can_not_begin(server: EmbeddedServer, caplog: pytest.LogCaptureFixture) -> None:
    services = Services()

    @services.lifespan
    async def lifespan() -> AsyncIterator[None]:
        await asyncio.open_connection("127.0.0.1", 1)
        yield

    services.service("t")(lambda task: None)
    connection = await nats.connect(server.url)
    with pytest.raises(LifespanError, match=r"failed at its start: ConnectionRefusedError: .*127\.0\.0\.1"):
        await Runner(connection, services).run(signals=False)
    assert [record.exc_info is not None for record in caplog.records] == [True]  # where it happened is in the log
    await connection.close()


async def test_functions_of_a_bridge_have_those_of_their_registries_each_once(
    services: Services, seen: list[str]
) -> None:
    other = Services()

    @other.lifespan
    async def another() -> AsyncIterator[str]:
        seen.append("another begins")
        yield "another"
        seen.append("another ends")

    other.service("o")(lambda task: task.lifespan)
    services.service("second")(lambda task: None)
    functions = Functions(Clock(), Hearing().teller())
    await functions.begin([*services, *other])

    async def called(service: Service) -> Outcome:
        record = TaskRecord(id="a", type=service.route, state=TaskState.ACTIVE, created_ns=1, tries=1)
        return await functions.call(Invocation("b1.7", record, Route.to(service), 60 * 10**9))

    assert await called(next(iter(services))) == Completed(b'{"pool":"of connections"}')
    assert await called(next(iter(other))) == Completed(b"another")
    await functions.close()
    assert seen == ["begins", "another begins", "handled", "another ends", "ends"]


async def test_what_began_is_ended_when_the_next_one_fails(services: Services, seen: list[str]) -> None:
    other = Services()

    @other.lifespan
    async def failing() -> AsyncIterator[None]:
        await asyncio.open_connection("127.0.0.1", 1)
        yield

    other.service("o")(lambda task: None)
    functions = Functions(Clock(), Hearing().teller())
    with pytest.raises(LifespanError):
        await functions.begin([*services, *other])
    await functions.close()
    assert seen == ["begins", "ends"]


async def test_a_bridge_that_is_stopped_meanwhile_does_not_wait_for_its_beginning() -> None:
    services, stop = Services(), asyncio.Event()

    @services.lifespan
    async def lifespan() -> AsyncIterator[None]:
        stop.set()
        await asyncio.Event().wait()
        yield

    services.service("t")(lambda task: None)
    functions = Functions(Clock(), Hearing().teller())
    await functions.begin(services, stop)
    await functions.close()


async def test_what_goes_wrong_at_its_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> AsyncIterator[None]:
        yield
        raise OSError("disk full")

    lifespan = Lifespan(failing)
    await lifespan.begin()
    await lifespan.end()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        "the lifespan of the handlers failed at its end",
    )


async def test_an_end_that_hangs_is_cancelled(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifespan_module, "_END_S", 0.05)
    cancelled = asyncio.Event()

    async def hanging() -> AsyncIterator[None]:
        yield
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        cancelled.set()

    lifespan = Lifespan(hanging)
    await lifespan.begin()
    await lifespan.end()
    assert cancelled.is_set()
    assert "did not end within" in caplog.text


async def test_one_without_a_yield_has_not_begun() -> None:
    async def empty() -> AsyncIterator[None]:
        if asyncio.Event().is_set():
            yield

    with pytest.raises(LifespanError, match="didn't yield"):
        await Lifespan(empty).begin()


async def coroutine() -> None: ...


async def with_app(app: object) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    "wrong", [coroutine, with_app, print, 7, None], ids=["coroutine", "with_app", "print", "7", "None"]
)
def test_another_form_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"can't be a lifespan: it must be `async def .*\(\)` with one `yield`"):
        Services().lifespan(wrong)


def test_there_is_one(services: Services) -> None:
    async def second() -> AsyncIterator[None]:
        yield

    with pytest.raises(UsageError, match="one lifespan for all handlers"):
        services.lifespan(second)
