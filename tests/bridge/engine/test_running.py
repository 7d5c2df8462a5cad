"""Calls under way are found by their task, and stopped, whatever else happens to them at the time."""

import asyncio
from typing import Any

import pytest

from aj_bridge.core.claim import Claim
from aj_bridge.engine.held import Held
from aj_bridge.engine.patience import Stopped
from aj_bridge.engine.running import Running
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.stored import Stored

STORED = Stored(task_id="a", sequence=9, body=b"", fault="x")


def held(delivery: int = 1, task_id: str = "a") -> Held:
    item = ItemRef(1, delivery)
    claim = Claim(queue="Q", task_id=task_id, body=b"", item=item, received=0.0, token="")
    return Held(claim, Stamp("b", item), 30.0)


def stop_all(running: Running, task_id: str = "a") -> None:
    for call in running.of(task_id):
        call.stop(STORED)


async def call(running: Running, claim: Held, work: Any = None) -> str:
    with running.call(claim):
        await (work or asyncio.Event().wait())
    return "ended"


async def begun(*works: Any) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.sleep(0)
    return tasks


async def test_a_stopped_call_ends_with_what_it_was_stopped_for_and_its_task_goes_on() -> None:
    running = Running()

    async def work() -> str:
        with pytest.raises(Stopped) as caught:
            await call(running, held())
        await asyncio.sleep(0)  # not cancelled any more
        current = asyncio.current_task()
        assert current is not None
        assert (caught.value.stored, current.cancelling()) == (STORED, 0)
        return "stopped"

    [task] = await begun(work())
    assert "a" in running
    stop_all(running)
    stop_all(running)  # once is enough
    assert await task == "stopped"
    assert "a" not in running


async def test_two_calls_of_one_task_are_both_found_in_whichever_order_they_end() -> None:
    for first_to_end in (0, 1):
        running, gates = Running(), [asyncio.Event(), asyncio.Event()]
        tasks = await begun(*(call(running, held(number + 1), gate.wait()) for number, gate in enumerate(gates)))
        assert [each.held.claim.item.delivery for each in running.of("a")] == [2, 1]
        gates[first_to_end].set()
        assert await tasks[first_to_end] == "ended"
        assert [each.held.claim.item.delivery for each in running.of("a")] == [2 - first_to_end]
        stop_all(running)
        with pytest.raises(Stopped):
            await tasks[1 - first_to_end]
        assert "a" not in running


async def test_other_tasks_are_left_alone() -> None:
    running = Running()
    [task] = await begun(call(running, held(task_id="b")))
    stop_all(running)
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_that_is_stopped_and_cancelled_at_the_same_time_is_cancelled() -> None:
    running = Running()
    [task] = await begun(call(running, held()))
    stop_all(running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_what_a_call_makes_of_being_stopped_does_not_count() -> None:
    async def swallows() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("while it was ended")

    for work in (swallows, fails):
        running = Running()
        [task] = await begun(call(running, held(), work()))
        stop_all(running)
        with pytest.raises(Stopped):
            await task
