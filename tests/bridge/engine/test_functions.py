"""Functions of the bridge's own process as handlers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.bridge.engine.hearing import Hearing

from aj_bridge.engine import functions
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.functions import Functions
from aj_bridge.engine.router import Invocation, Route, RouteKind
from aj_sdk import RetryLater, Services, Task, Terminate
from aj_sdk.wire.call import Cause, Completed, Failed, Terminated
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S


@pytest.fixture
def hearing() -> Hearing:
    return Hearing()


@pytest.fixture
async def dispatch(hearing: Hearing) -> AsyncIterator[Functions]:
    dispatch = Functions(Clock(), hearing.teller())
    yield dispatch
    await dispatch.close()


def wanted(function: Callable[..., Any], run_time_ns: int = 60 * NS_PER_S) -> Invocation:
    services = Services()
    services.service("t")(function)
    (service,) = services
    record = TaskRecord(
        id="a", type="t", queue="Q", state=TaskState.ACTIVE, created_ns=1, tries=3, payload=b'{"to": "someone"}'
    )
    return Invocation("b1.7", record, Route(type="t", kind=RouteKind.FUNCTION, service=service), run_time_ns)


async def test_a_coroutine_and_a_plain_function_are_called_as_a_handlers_process_does(dispatch: Functions) -> None:
    async def coroutine(task: Task, payload: dict[str, str]) -> dict[str, Any]:
        assert 57 < task.remaining <= 58
        return {"to": payload["to"], "tries": task.tries, "invocation": task.invocation}

    def plain(payload: dict[str, str]) -> str:
        assert threading.current_thread() is not threading.main_thread()
        return payload["to"]

    outcome = await dispatch.call(wanted(coroutine))
    assert outcome == Completed(b'{"to":"someone","tries":3,"invocation":"b1.7"}')
    assert await dispatch.call(wanted(plain)) == Completed(b"someone")


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (Terminate("never"), Terminated("never")),
        (RetryLater(1.5, "soon"), Failed("soon", 1500 * NS_PER_MS)),
        (KeyError("user"), Failed("KeyError: 'user'")),
    ],
)
async def test_what_it_raises_is_its_outcome(dispatch: Functions, raised: Exception, outcome: Any) -> None:
    async def coroutine(task: Task) -> None:
        raise raised

    def plain(task: Task) -> None:
        raise raised

    assert await dispatch.call(wanted(coroutine)) == outcome
    assert await dispatch.call(wanted(plain)) == outcome


async def test_a_payload_that_does_not_fit_ends_the_task(dispatch: Functions) -> None:
    def plain(payload: list[int]) -> None:
        raise AssertionError

    assert isinstance(await dispatch.call(wanted(plain)), Terminated)


async def test_a_coroutine_is_cancelled_at_its_deadline(dispatch: Functions) -> None:
    cleaned: list[bool] = []

    async def coroutine(task: Task) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    outcome = await dispatch.call(wanted(coroutine, 50 * NS_PER_MS))
    assert outcome == Failed("deadline exceeded", cause=Cause.DEADLINE)
    assert cleaned == [True]


async def test_a_coroutine_is_cancelled_with_its_call(dispatch: Functions) -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def coroutine(task: Task) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    call = asyncio.create_task(dispatch.call(wanted(coroutine)))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert cleaned.is_set()


async def test_plain_functions_that_outlast_their_deadlines_are_bounded(
    dispatch: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "_MAX_OVERDUE", 1)
    go_on = threading.Event()
    outcome = await dispatch.call(wanted(lambda task: go_on.wait(), 20 * NS_PER_MS))
    assert outcome == Failed("deadline exceeded", cause=Cause.DEADLINE)
    refused = await dispatch.call(wanted(lambda task: "late"))
    assert refused == Failed("1 calls of functions outlast their deadlines, and no more are begun")

    async def coroutine(task: Task) -> str:
        return "not concerned"

    assert await dispatch.call(wanted(coroutine)) == Completed(b"not concerned")
    go_on.set()
    while dispatch._overdue:  # noqa: ASYNC110 - a thread's end has no event here
        await asyncio.sleep(0)
    assert await dispatch.call(wanted(lambda task: "again")) == Completed(b"again")


async def test_progress_is_told_and_gives_a_coroutine_its_whole_time_again(
    dispatch: Functions, hearing: Hearing
) -> None:
    async def coroutine(task: Task) -> str:
        for step in range(4):
            await asyncio.sleep(task.remaining * 0.6)  # in all more than it has
            task.heartbeat()
            task.progress(step / 4, f"step {step}")
        return "done"

    assert await dispatch.call(wanted(coroutine, NS_PER_S)) == Completed(b"done")
    await asyncio.wait_for(hearing.came.wait(), 30)
    assert [(subject, told.fraction, told.note) for subject, told in hearing.told[:3]] == [
        ("CHORIA_AJ.P.a", step / 4, f"step {step}") for step in range(3)
    ]
    assert {(told.invocation, told.try_) for _, told in hearing.told} == {("b1.7", 3)}


async def test_a_plain_function_tells_its_progress_from_its_thread(dispatch: Functions, hearing: Hearing) -> None:
    def plain(task: Task) -> str:
        task.progress(0.5)
        return "done"

    assert await dispatch.call(wanted(plain)) == Completed(b"done")
    await asyncio.wait_for(hearing.came.wait(), 30)
    assert [told.fraction for _, told in hearing.told] == [0.5]
