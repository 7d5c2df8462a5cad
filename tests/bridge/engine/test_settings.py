"""The duty that reads a queue's settings again, in virtual time: trouble is told once, and so is its end."""

import asyncio

import pytest
from tests.bridge.engine.bridges import QUEUE, REFUSED, failing, site
from tests.virtual_time import virtual_time

from aj_bridge.engine.duties import on_duty
from aj_bridge.engine.settings import LOOK_EVERY_S, SettingsWatch
from aj_bridge.storage.memory import MemoryStorage
from aj_sdk.wire.queue import QueueSettings


@virtual_time
async def test_trouble_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    here = site()
    storage = MemoryStorage(here.world, QUEUE)
    async with on_duty([SettingsWatch(storage)]):
        await asyncio.sleep(3.5 * LOOK_EVERY_S)
        assert not caplog.messages
        here.world.remove_queue(QUEUE)
        await asyncio.sleep(3 * LOOK_EVERY_S)
        here.world.add_queue(QueueSettings(name=QUEUE))
        await asyncio.sleep(LOOK_EVERY_S)
        storage.link.faults = failing("refresh", REFUSED, times=2)
        await asyncio.sleep(5 * LOOK_EVERY_S)
    trouble = "settings of queue Q can't be read, work goes on with those of before: "
    assert caplog.messages == [
        trouble + "queue Q not found; `ajc queue add Q` makes it",
        "settings of queue Q can be read again",
        trouble + "test: no (503)",
        "settings of queue Q can be read again",
    ]
