"""`aj_sdk.testing`: handlers are called without a server, and what a bridge would make of it is told."""

import asyncio
import time
from base64 import b64decode
from dataclasses import dataclass

import pytest

from aj_sdk import RetryLater, Services, Task, Terminate, UsageError, testing
from aj_sdk.errors import InvalidNameError, PayloadError

services = Services()


@dataclass
class Email:
    to: str


@services.service("email:new")
async def send(email: Email, task: Task) -> dict[str, object]:
    if email.to == "nobody":
        raise Terminate("no such mailbox")
    if email.to == "busy" and task.tries == 1:
        raise RetryLater(30, "busy")
    if email.to == "broken":
        raise OSError("line one\r\nline two")
    return {"sent": email.to, "try": task.tries, "queue": task.queue, "protocol": task.protocol}


@services.service("report:")
def report(task: Task) -> bytes:
    task.progress(0.5, "half way")
    task.heartbeat()
    task.progress(1)
    return b"\xff" + task.type.encode()


@services.service("sum")
async def total(task: Task) -> int:
    return sum(int(b64decode(str(value))) for value in task.dependency_results.values())


@services.service("slow")
async def slow(task: Task) -> None:
    await asyncio.Event().wait()


@services.service("slow:thread")
def slow_thread(task: Task) -> None:
    while not task.cancelled:
        time.sleep(0.01)
    looked.append(task.id)


@services.service("big")
async def big(task: Task) -> bytes:
    return b"x" * (1024 * 1024 + 1)


looked: list[str] = []


async def test_a_success_has_the_result_as_the_client_gives_it() -> None:
    outcome = await testing.call("email:new", {"to": "a"}, services=services, tries=2, queue="EMAIL")
    assert outcome.completed
    assert outcome.result == {"sent": "a", "try": 2, "queue": "EMAIL", "protocol": "1.1"}
    assert outcome.result_as(bytes) == outcome.result_bytes
    assert (outcome.error, outcome.terminated, outcome.retry_after, outcome.timed_out) == ("", False, None, False)


@pytest.mark.parametrize(
    ("to", "terminated", "error", "retry_after"),
    [
        ("nobody", True, "no such mailbox", None),
        ("busy", False, "busy", 30),
        ("broken", False, "OSError: line one  line two", None),
    ],
)
async def test_a_failure_is_what_a_bridge_reads(
    to: str, terminated: bool, error: str, retry_after: float | None
) -> None:
    outcome = await testing.call("email:new", {"to": to}, services=services)
    assert (outcome.completed, outcome.terminated, outcome.retry_after) == (False, terminated, retry_after)
    assert outcome.error == error
    with pytest.raises(AssertionError, match=error.split(":", maxsplit=1)[0]):
        _ = outcome.result


async def test_a_payload_that_does_not_fit_ends_the_task_and_names_the_field() -> None:
    outcome = await testing.call("email:new", {"to": 7}, services=services)
    assert outcome.terminated
    assert "to" in outcome.error


def test_a_plain_function_tells_progress_and_a_test_may_be_plain() -> None:
    outcome = testing.call_blocking("report:month", services=services, route="report:")
    assert outcome.result == b"\xffreport:month"
    assert outcome.progress == ((0.5, "half way"), (1.0, ""))


async def test_results_of_dependencies_are_there() -> None:
    outcome = await testing.call("sum", services=services, dependency_results={"a": 3, "b": 4})
    assert outcome.result == 7


@pytest.mark.parametrize("task_type", ["slow", "slow:thread"])
async def test_what_takes_too_long_is_told(task_type: str) -> None:
    outcome = await testing.call(task_type, services=services, timeout=0.2, id=task_type)
    assert (outcome.completed, outcome.timed_out, outcome.error) == (False, True, "deadline exceeded")


async def test_a_result_that_no_server_takes_ends_the_task() -> None:
    outcome = await testing.call("big", services=services)
    assert outcome.terminated
    assert "too large" in outcome.error


async def test_a_type_that_nobody_takes_is_told_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"no handler takes the type 'other'; registered: big, email:new, report:"):
        await testing.call("other", services=services)
    every = Services()
    every.service("")(send)
    assert (await testing.call("other", {"to": "a"}, services=every, route="")).completed


@pytest.mark.parametrize("task_type", ["email:newer", "report:month"])
async def test_a_type_is_called_by_its_own_name_unless_a_route_is_given(task_type: str) -> None:
    # As a bridge does by default: a mistyped type must not pass here and find nobody there.
    with pytest.raises(UsageError, match=f"no handler takes the type '{task_type}'"):
        await testing.call(task_type, {"to": "a"}, services=services)


async def test_a_route_must_be_one_of_the_type_and_have_a_handler() -> None:
    with pytest.raises(UsageError, match="a route is a prefix of its types"):
        await testing.call("email:new", {"to": "a"}, services=services, route="report:")
    with pytest.raises(UsageError, match="no handler takes the route 'email:'"):
        await testing.call("email:new", {"to": "a"}, services=services, route="email:")


async def test_misuse_is_told() -> None:
    with pytest.raises(InvalidNameError):
        await testing.call("a b", services=services)
    with pytest.raises(UsageError, match="tries is at least 1"):
        await testing.call("sum", services=services, tries=0)
    with pytest.raises(PayloadError):
        await testing.call("sum", {"x": object()}, services=services)
    with pytest.raises(UsageError, match="an event loop runs here"):
        testing.call_blocking("sum", services=services)
