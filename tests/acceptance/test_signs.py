"""A handler that shows signs of life through a real bridge: it has more time, it is missed, it is told of by others."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client as Connection
from tests.acceptance.world import World

from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.handling import Task
from aj_sdk.runner import Runner
from aj_sdk.services import Services
from aj_sdk.wire.interim import Progress
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance


@pytest.fixture
async def connection(world: World) -> AsyncIterator[Connection]:
    connection = await connect(ConnectOptions.from_url(world.crew.url))
    yield connection
    await connection.close()


async def test_progress_moves_the_deadline_and_is_told_and_a_hung_handler_runs_into_it(
    world: World, connection: Connection
) -> None:
    await world.ready(world.crew.bridge("Q", "--max-run-time", "2s", "--backoff", "1m"))
    services = Services()
    left: list[float] = []

    @services.service("steps")
    async def steps(task: Task) -> str:
        for number in range(1, 5):
            await asyncio.sleep(1)
            task.progress(number / 4, f"step {number}")
            left.append(task.remaining)
        return "done"

    @services.service("hangs")
    async def hangs(task: Task) -> None:
        await asyncio.Event().wait()  # heartbeats are sent for it, and do not help it

    @services.service("thread")
    def thread(task: Task) -> str:
        task.heartbeat()
        task.progress(1)
        return "done"

    async with Runner(connection, services), world.client.progress() as told:
        await world.client.enqueue("steps", queue="Q", id="steps")
        await world.client.enqueue("thread", queue="Q", id="thread")
        await world.client.enqueue("hangs", queue="Q", id="hangs", max_tries=1)
        # Four seconds of work in a queue where two are allowed.
        assert await world.client.result("steps", timeout=world.patience(20), as_type=str) == "done"
        assert await world.client.result("thread", timeout=world.patience(20), as_type=str) == "done"
        heard: list[Progress] = []
        async with asyncio.timeout(world.patience(10)):
            while len(heard) < 5:
                heard.append(await anext(told))
        hung = await world.ended("hangs")
    assert min(left) > 1.4
    steps_told = [(each.fraction, each.note) for each in heard if each.task_id == "steps"]
    assert steps_told == [(0.25, "step 1"), (0.5, "step 2"), (0.75, "step 3"), (1.0, "step 4")]
    assert {(each.task_id, each.task_type, each.try_) for each in heard} == {
        ("steps", "steps", 1),
        ("thread", "thread", 1),
    }
    assert (hung.state, hung.last_err) == (TaskState.EXPIRED, "deadline exceeded")


async def test_a_handler_that_misses_three_signs_is_lost_and_its_task_is_tried_again(world: World) -> None:
    # Leases of one second: a sign every third of one, lost after one without.
    await world.ready(world.crew.bridge("Q", "--max-run-time", "1h", "--backoff", "1m"))
    handlers = world.crew.handlers("work")
    await world.ready(handlers)
    await world.client.enqueue("work", {"do": "hold"}, queue="Q", id="a")
    async with world.overhear("_INBOX.>") as replies:
        await handlers.says("^began a 1$")
        await replies.message(lambda message: "AJ-Progress" in (message.headers or {}))
    handlers.kill()  # an hour would pass before anybody noticed
    async with world.overhear("CHORIA_AJ.E.task_state.a") as events:
        await events.state("retry", task_id="a")
    task = await world.client.load("a")
    assert task.last_err.startswith("the handler on CHORIA_AJ.H.T.work is lost: no sign of life for ")
    again = world.crew.handlers("work")
    await again.says("^began a 2$")
    again.tell("release a 2")
    assert (await world.ended("a")).state is TaskState.COMPLETE
