"""What stands around handlers: coroutines and plain functions alike."""

import asyncio
import threading
import time
from typing import Any

import pytest

from aj_sdk import testing
from aj_sdk.calling import begin, within_deadline
from aj_sdk.errors import PayloadError, RetryLater, Terminate, UsageError
from aj_sdk.handling import Task
from aj_sdk.middleware import Handle
from aj_sdk.responder import open_call
from aj_sdk.services import Services
from aj_sdk.threads import Threads
from aj_sdk.wire.call import Cause, Completed, Failed, call_headers
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

both = pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "plain"])


def handled(services: Services, plain: bool, raises: BaseException | None = None, **options: Any) -> None:
    """Register a handler of `t`, which gives its payload back."""

    def function(task: Task, payload: dict[str, Any]) -> dict[str, Any]:
        assert (threading.current_thread() is threading.main_thread()) is not plain
        if raises is not None:
            raise raises
        return payload

    async def coroutine(task: Task, payload: dict[str, Any]) -> dict[str, Any]:
        return function(task, payload)

    services.service("t", **options)(function if plain else coroutine)


def task(seconds: float = 60) -> Task:
    record = TaskRecord(id="a", type="t", queue="Q", state=TaskState.ACTIVE, created_ns=1, tries=1, payload=b"{}")
    headers = call_headers(record, invocation="i", now_ns=1, give_up_ns=1 + int(seconds * 10**9))
    opened = open_call(headers, record.to_wire(), now_ns=1, arrived=time.monotonic())
    assert isinstance(opened, Task)
    return opened


@both
async def test_the_first_one_given_is_the_outermost_and_those_of_all_stand_around_those_of_one(plain: bool) -> None:
    services, seen = Services(), []

    def named(name: str) -> Any:
        async def middleware(task: Task, call_next: Handle) -> Any:
            seen.append(f"{name}>")
            result = await call_next(task)
            seen.append(f"<{name}")
            return {**result, name: task.id}

        return middleware

    services.middleware(named("a"))
    handled(services, plain, middleware=[named("c"), named("d")])
    services.middleware(named("b"))  # counts for what was registered before it too
    outcome = await testing.call("t", {}, services=services, id="T")
    assert outcome.result == dict.fromkeys("abcd", "T")
    assert seen == ["a>", "b>", "c>", "d>", "<d", "<c", "<b", "<a"]


@both
async def test_it_sees_what_the_handler_raises_and_says_what_it_means(plain: bool) -> None:
    services, seen = Services(), []

    @services.middleware
    async def translate(task: Task, call_next: Handle) -> Any:
        try:
            return await call_next(task)
        except (KeyError, Terminate, PayloadError) as err:
            seen.append(err)
            if isinstance(err, KeyError):
                raise RetryLater(2, "not there yet") from err
            raise

    handled(services, plain, raises=KeyError("user"))
    assert (await testing.call("t", {}, services=services)).retry_after == 2
    assert (await testing.call("t", [1], services=services)).terminated  # the payload does not fit
    assert [type(err) for err in seen] == [KeyError, PayloadError]


@pytest.mark.parametrize(
    ("plain", "signal"), [(False, SystemExit(3)), (True, SystemExit(3)), (True, KeyboardInterrupt())], ids=repr
)
async def test_an_exit_is_a_failed_try(plain: bool, signal: BaseException) -> None:
    services = Services()

    @services.middleware
    async def pass_on(task: Task, call_next: Handle) -> Any:
        return await call_next(task)

    handled(services, plain, raises=signal)
    outcome = await testing.call("t", {}, services=services)
    assert type(signal).__name__ in outcome.error
    assert not outcome.completed


@both
async def test_it_may_answer_by_itself_or_end_the_task(plain: bool) -> None:
    services = Services()

    @services.middleware
    async def guard(task: Task, call_next: Handle) -> Any:
        if task.payload == {"cached": True}:
            return ["from the cache"]
        raise Terminate("not allowed")

    handled(services, plain, raises=AssertionError("was called"))
    assert (await testing.call("t", {"cached": True}, services=services)).result == ["from the cache"]
    outcome = await testing.call("t", {}, services=services)
    assert (outcome.terminated, outcome.error) == (True, "not allowed")


@both
async def test_it_may_call_again(plain: bool) -> None:
    services = Services()

    @services.middleware
    async def twice(task: Task, call_next: Handle) -> Any:
        return [await call_next(task), await call_next(task)]

    handled(services, plain)
    assert (await testing.call("t", {"n": 1}, services=services)).result == [{"n": 1}, {"n": 1}]


async def test_at_the_deadline_a_middleware_that_waits_is_cancelled_and_the_function_never_begins() -> None:
    services, ended = Services(), asyncio.Event()

    @services.middleware
    async def wait(task: Task, call_next: Handle) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    handled(services, plain=True, raises=AssertionError("was called"))
    given, threads = task(0.1), Threads()
    work = begin(next(iter(services)), given, threads)
    assert await within_deadline(work, given) == Failed("deadline exceeded", cause=Cause.DEADLINE)
    await asyncio.wait({work})
    assert work.cancelled()
    assert ended.is_set()
    threads.close()


async def test_around_a_plain_function_it_stays_until_that_returns_and_is_cancelled_then() -> None:
    services, go, seen = Services(), threading.Event(), []

    @services.middleware
    async def connected(task: Task, call_next: Handle) -> Any:
        try:
            return await call_next(task)
        except asyncio.CancelledError:
            seen.append("rolled back")
            raise
        finally:
            seen.append("closed")

    @services.service("t")
    def function(task: Task) -> None:
        go.wait(60)
        seen.append("used")

    given, threads = task(0.1), Threads()
    work = begin(next(iter(services)), given, threads)
    assert await within_deadline(work, given) == Failed("deadline exceeded", cause=Cause.DEADLINE)
    work.cancel()  # as often as one likes
    assert not work.done()
    go.set()
    await asyncio.wait({work})
    assert work.cancelled()
    assert seen == ["used", "rolled back", "closed"]
    threads.close()


async def test_a_middleware_that_lets_a_plain_function_go_keeps_its_slot_until_that_returns() -> None:
    services, go, left = Services(), threading.Event(), asyncio.Event()
    calls = []

    @services.middleware
    async def impatient(task: Task, call_next: Handle) -> Any:
        calls.append(asyncio.ensure_future(call_next(task)))
        await asyncio.wait(calls, timeout=0.05)
        left.set()
        return "gave up"

    services.service("t")(lambda task: go.wait(60))
    threads = Threads()
    work = begin(next(iter(services)), task(), threads)
    await left.wait()
    assert not work.done()
    go.set()
    assert await work == Completed(b"gave up")
    await calls[0]
    threads.close()


async def test_a_timeout_of_a_middleware_counts_when_a_plain_function_has_returned() -> None:
    services, go, begun = Services(), threading.Event(), threading.Event()

    @services.middleware
    async def limited(task: Task, call_next: Handle) -> Any:
        try:
            async with asyncio.timeout(0.05):
                return await call_next(task)
        except TimeoutError:
            return "too slow"

    @services.service("t")
    def function(task: Task) -> None:
        begun.set()
        go.wait(60)

    threads = Threads()
    work = begin(next(iter(services)), task(), threads)
    assert await asyncio.to_thread(begun.wait, 60)
    await asyncio.wait({work}, timeout=0.1)
    assert not work.done()
    go.set()
    assert await work == Completed(b"too slow")
    threads.close()


async def test_when_the_program_ends_it_is_not_kept_by_a_function_that_hangs() -> None:
    services, go, begun = Services(), threading.Event(), threading.Event()

    @services.middleware
    async def pass_on(task: Task, call_next: Handle) -> Any:
        return await call_next(task)

    @services.service("t")
    def function(task: Task) -> None:
        begun.set()
        go.wait(60)

    threads = Threads()
    work = begin(next(iter(services)), task(), threads)
    assert await asyncio.to_thread(begun.wait, 60)
    threads.close()
    work.cancel()
    await asyncio.wait({work})
    assert work.cancelled()
    go.set()


@pytest.mark.parametrize("wrong", [lambda task, call_next: None, print, int, 7, None], ids=list("abcde"))
def test_what_is_no_coroutine_function_is_refused(wrong: Any) -> None:
    services = Services()
    with pytest.raises(UsageError, match="can't be a middleware: it must be `async def"):
        services.middleware(wrong)
    with pytest.raises(UsageError, match="can't be a middleware"):
        services.service("t", middleware=[wrong])


async def test_an_object_with_an_async_call_may_be_one() -> None:
    class Counting:
        calls = 0

        async def __call__(self, task: Task, call_next: Handle) -> Any:
            self.calls += 1
            return await call_next(task)

    services, counting = Services(), Counting()
    services.middleware(counting)
    handled(services, plain=False)
    assert (await testing.call("t", {}, services=services)).completed
    assert counting.calls == 1
