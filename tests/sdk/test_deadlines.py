"""The deadlines of requests behind one timer, on both event loops and on a machine that is slow at the wrong moment."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from aj_sdk.transport import _Deadlines


class LateLoop:
    """An event loop whose reader of the clock is put to sleep for a while each time that it has read it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, late_s: float) -> None:
        self._loop = loop
        self._late_s = late_s
        self.call_at = loop.call_at

    def time(self) -> float:
        return self._loop.time() - self._late_s


@pytest.mark.parametrize("late_s", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_l1_a_deadline_that_is_reached_before_its_timer_is_set_leaves_no_request_waiting(
    make_loop: Callable[[], asyncio.AbstractEventLoop], late_s: float
) -> None:
    """L-1: uvloop gives a handle that tells no time there; the bridge then took each later request for a defect."""

    async def run() -> list[str]:
        passed: list[str] = []
        both = asyncio.Event()

        def on_passed(token: str) -> None:
            passed.append(token)
            if len(passed) == 2:
                both.set()

        late = LateLoop(asyncio.get_running_loop(), late_s)
        deadlines = _Deadlines(late, {"a", "b"}, on_passed)  # type: ignore[arg-type]
        deadlines.add(0.0, "a")
        deadlines.add(0.005, "b")
        await asyncio.wait_for(both.wait(), 30)
        return passed

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(run()) == ["a", "b"]
