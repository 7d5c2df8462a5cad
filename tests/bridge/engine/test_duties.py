"""Duties run for as long as their bridge, whatever happens to them."""

import asyncio

from tests.virtual_time import VirtualTimeLoop

from aj_bridge.engine.duties import on_duty
from aj_sdk.errors import StoreError


class Failing:
    name = "failing"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.began: list[float] = []
        self.ended = False
        self.settled = asyncio.Event()

    async def run(self) -> None:
        self.began.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        self.settled.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


def test_a_duty_that_fails_is_begun_again_after_growing_pauses() -> None:
    async def scenario() -> list[float]:
        duty = Failing(StoreError("away"), RuntimeError("a defect"))
        async with on_duty([duty]):
            await duty.settled.wait()
        return duty.began

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        began = runner.run(scenario())
    assert [round(at - began[0]) for at in began] == [0, 1, 3]


def test_duties_have_ended_when_the_bridge_goes_on() -> None:
    async def scenario() -> bool:
        duty = Failing()
        async with on_duty([duty]):
            await duty.settled.wait()
        return duty.ended

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(scenario())
