"""A bridge inside a program: its connection, its queues, its beginning and its end, on a real server."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import aj_bridge
from aj_bridge import Bridge, Route, Router
from aj_sdk import Client, Queue, QueueNotFoundError, Services, Task, UsageError
from aj_sdk.errors import NoRespondersError
from aj_sdk.ids import new_id
from aj_sdk.transport import NatsTransport

pytestmark = pytest.mark.server


def function(task_type: str, handler: Any) -> Router:
    services = Services()
    services.service(task_type)(handler)
    return Router(Route.to(service) for service in services)


async def test_it_serves_a_queue_on_a_given_connection_which_stays_open(transport: NatsTransport) -> None:
    connection = transport._nc
    queue = f"Q-{new_id()}"

    async def double(payload: int) -> int:
        return payload * 2

    async with Bridge(Queue(queue, lease=1), function("double", double), connection=connection) as bridge:
        assert bridge.id
        async with Client(connection) as client:
            task = await client.enqueue("double", 21, queue=queue)
            assert await client.result(task.id, timeout=30) == 42
    assert connection.is_connected


async def test_it_runs_until_it_is_told_to_stop_and_once(transport: NatsTransport) -> None:
    queue = f"Q-{new_id()}"
    bridge = Bridge([Queue(queue)], connection=transport._nc)
    assert await bridge.run(on_ready=bridge.stop) == 0
    with pytest.raises(UsageError, match="a bridge runs once"):
        await bridge.run()


async def test_what_is_in_hand_when_the_grace_is_over_is_cancelled_and_counted(transport: NatsTransport) -> None:
    queue, begun = f"Q-{new_id()}", asyncio.Event()

    async def hold(task: Task) -> None:
        begun.set()
        await asyncio.Event().wait()

    bridge = Bridge(Queue(queue), function("hold", hold), connection=transport._nc, grace=timedelta(0))
    ready = asyncio.Event()
    running = asyncio.create_task(bridge.run(ready.set))
    async with Client(transport._nc) as client:
        await ready.wait()
        task = await client.enqueue("hold", queue=queue)
        await begun.wait()
        bridge.stop()
        assert await running == 1
        (attempt,) = await client.attempts(task.id)
        assert attempt.outcome == "drained"


async def test_a_queue_that_is_not_there_is_told_at_the_beginning(transport: NatsTransport) -> None:
    with pytest.raises(QueueNotFoundError):
        async with Bridge("NO-SUCH", connection=transport._nc):
            raise AssertionError


@pytest.mark.parametrize("settings", [{"concurrency": 0}, {"grace": timedelta(seconds=-1)}])
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Bridge("Q", **settings)


def test_the_package_promises_what_a_program_needs() -> None:
    assert set(aj_bridge.__all__) == {
        *("Bridge", "Route", "RouteKind", "Router", "RetryPolicy"),
        *("Handle", "Invocation", "Middleware", "Outcome", "chain", "spans"),
    }


async def test_a_given_connection_may_have_its_jetstream_under_another_prefix(transport: NatsTransport) -> None:
    connection = transport._nc
    with pytest.raises(NoRespondersError, match=r"JS\.elsewhere\.API\."):
        await Bridge(f"Q-{new_id()}", connection=connection, jetstream_prefix="JS.elsewhere.API").run()
    with pytest.raises(UsageError, match="belong to a connection that is given"):
        Bridge("Q", jetstream_prefix="JS.elsewhere.API")
