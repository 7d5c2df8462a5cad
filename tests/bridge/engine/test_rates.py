"""Rates over the last minute, in virtual time."""

import asyncio

from tests.virtual_time import virtual_time

from aj_bridge.engine.duties import on_duty
from aj_bridge.engine.rates import Rates, Tally


@virtual_time
async def test_rates_are_those_of_the_last_minute_or_of_what_there_is() -> None:
    tally = Tally()
    rates = Rates(tally, asyncio.get_running_loop().time)
    assert rates.per_s == (0.0, 0.0)
    async with on_duty([rates]):
        for _ in range(20):
            await asyncio.sleep(1)
            tally.calls += 3
            tally.failed += 1
        calls, failed = rates.per_s
        assert (round(calls, 1), round(failed, 1)) == (3.0, 1.0)
        await asyncio.sleep(70)
        assert rates.per_s == (0.0, 0.0)
