"""Records of tasks that have ended go as a real bridge was told: at once, after a time of their own, or not."""

import asyncio

import pytest
from tests.acceptance.world import World

from aj_sdk.errors import TaskNotFoundError
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance


async def gone(world: World, task_id: str) -> None:
    async with asyncio.timeout(world.patience(20)):
        while True:
            try:
                await world.client.load(task_id)
            except TaskNotFoundError:
                return
            await asyncio.sleep(0.05)  # the store tells nobody what it removed


async def test_records_are_discarded_and_kept_by_state(world: World) -> None:
    await world.ready(
        world.crew.bridge("Q", "--discard", "complete", "--keep", "terminated=1s"), world.crew.handlers("work")
    )
    async with world.overhear("CHORIA_AJ.E.task_state.*") as events:
        for task_id, order in (("a", "ok"), ("b", "terminate"), ("c", "fail")):
            await world.client.enqueue("work", {"do": order}, queue="Q", id=task_id, max_tries=1)
        await events.state("complete", task_id="a")
        assert (await world.ended("c")).state is TaskState.EXPIRED
        await gone(world, "a")
        await gone(world, "b")
    assert (await world.client.load("c")).state is TaskState.EXPIRED
    found = [each.letter.task_id async for each in world.client.admin.dead.letters()]
    assert sorted(found) == ["b", "c"]  # nothing of "a" was taken for a task that is not there
    assert (await world.client.enqueue("work", queue="Q", id="a")).state is TaskState.NEW
    await gone(world, "a")
