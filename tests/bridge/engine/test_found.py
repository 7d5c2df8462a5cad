"""What the simulator found, each as the shortest story that shows it, named after the invariant that it broke."""

import asyncio

from tests.bridge.engine.bridges import DONE, QUEUE, failing, site
from tests.bridge.engine.desk import Desk
from tests.virtual_time import virtual_time

from aj_bridge.storage.memory import Fault
from aj_sdk.errors import OutcomeUnknownError
from aj_sdk.run_now import run_now

LEASE_S = 10.0


@virtual_time
async def test_i8_a_task_that_is_run_now_while_its_owner_is_silent_still_waits_a_lease() -> None:
    here = site(lease_s=LEASE_S)
    here.handlers.takes("t", 40.0)
    desk = Desk(here)
    async with here.bridge(concurrency=1) as owner:
        here.enqueue("a")
        await here.handlers.begun(1)
        async with here.bridge():
            owner.link.cut()
            here.world.publish(QUEUE, "a", replace=True)
            await asyncio.sleep(3.0)
            assert here.world.standing(QUEUE, "a") is not None  # its owner said nothing
            await run_now(desk.store, "a")
            await asyncio.sleep(3.0)
            assert len(here.handlers.calls) == 1
            owner.link.mend()
            await here.ended("a")
    assert len(here.handlers.calls) == 1


@virtual_time
async def test_i8_a_parent_that_tells_its_child_again_does_not_hurry_the_childs_silent_owner() -> None:
    here = site(lease_s=LEASE_S)
    here.world.schedule(QUEUE, "a", here.world.now_ns() + 10**12, silent="b1 7")
    assert await Desk(here).store.wake_task(QUEUE, "a")
    item = here.world.queue(QUEUE).item_of("a")
    assert item is not None
    assert item.silent == ""


@virtual_time
async def test_i8_a_save_that_is_heard_of_after_a_standstill_is_made_again_like_all_others() -> None:
    here = site(lease_s=LEASE_S)
    here.handlers.takes("t", 40.0)
    async with here.bridge(concurrency=1) as owner:
        unheard = Fault(OutcomeUnknownError("save"), applied=True)
        owner.link.faults = failing("save", unheard)
        owner.link.latency_s = 0.1
        here.enqueue("a")
        await here.until(lambda: here.states("a")[-1:] == ["active"])
        owner.link.cut()  # before it can look what became of its save
        saved = len(here.saves)
        await asyncio.sleep(LEASE_S - 1)
        owner.link.mend()
        await here.handlers.begun(1)
        # Whoever found it silent meanwhile sees by the record that it is back.
        assert len(here.saves) == saved + 1
        await here.ended("a")
    assert [call.outcome for call in here.handlers.calls] == [DONE]
