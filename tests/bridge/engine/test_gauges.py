"""The gauges of a bridge, in virtual time: they follow how it stands."""

import asyncio

from tests.virtual_time import virtual_time

from aj_bridge.engine.duties import on_duty
from aj_bridge.engine.gauges import Gauges
from aj_bridge.engine.meter import NoMeter
from aj_sdk.wire.bridge import BridgeStatus, ServedStatus


class Shown(NoMeter):
    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def set(self, name: str, value: float, /, **labels: str) -> None:
        self.values[" ".join((name, *labels.values()))] = value


def status(state: str, running: int) -> BridgeStatus:
    queue = ServedStatus(
        name="Q", weight=6, in_hand=running + 1, running=running, calls=0, failed=0, calls_per_s=0.0, failed_per_s=0.0
    )
    return BridgeStatus(
        id="b",
        host="h",
        pid=1,
        version="0.1.0",
        started_ns=0,
        state=state,
        concurrency=9,
        in_hand=running + 1,
        queues=(queue,),
    )


@virtual_time
async def test_gauges_follow_how_the_bridge_stands() -> None:
    now = [status("working", 3)]
    shown = Shown()
    async with on_duty([Gauges(lambda: now[0], shown)]):
        await asyncio.sleep(1)
        assert shown.values == {
            "bridge_concurrency": 9,
            "bridge_paused": 0,
            "bridge_in_hand Q": 4,
            "bridge_running Q": 3,
            "bridge_queue_weight Q": 6,
        }
        now[0] = status("paused", 0)
        await asyncio.sleep(2)
        assert (shown.values["bridge_paused"], shown.values["bridge_running Q"]) == (1, 0)
