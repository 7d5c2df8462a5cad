"""What a route changes for its tasks, with the real processor in virtual time."""

import asyncio
from datetime import timedelta

import pytest
from tests.bridge.engine.bridges import DONE, Outcome, site
from tests.virtual_time import virtual_time

from aj_bridge.core.retry import POLICIES, RetryPolicy
from aj_bridge.engine.router import EACH, Handle, Invocation, Middleware, Route, Router
from aj_sdk.errors import RetryLater, Terminate
from aj_sdk.wire.call import Failed


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_time
async def test_a_route_has_a_backoff_of_its_own() -> None:
    here = site()
    quick = Route(type="quick", policy=RetryPolicy([timedelta(seconds=2)], jitter=1.0))
    async with here.bridge(router=Router([quick, Route(type=EACH)])):
        for task_type in ("quick", "t"):
            here.handlers.answers(task_type, Failed("no"), DONE)
            here.enqueue(task_type, task_type)
        began = now()
        await here.ended("quick")
        assert 2.0 <= now() - began < 2.1
        await here.ended("t")
        assert now() - began >= 0.5 * POLICIES["1m"].intervals[1].total_seconds() - 0.1


@virtual_time
async def test_a_call_passes_through_the_routers_middleware_and_then_its_routes() -> None:
    here = site()
    seen: list[str] = []

    def noting(name: str) -> Middleware:
        async def note(invocation: Invocation, following: Handle) -> Outcome:
            seen.append(f"{name} {invocation.task.id} {invocation.task.tries}")
            outcome = await following(invocation)
            seen.append(f"{name} {type(outcome).__name__}")
            return outcome

        return note

    own = Route(type="t", middleware=(noting("route"),))
    async with here.bridge(router=Router([own, Route(type=EACH)], middleware=[noting("first"), noting("second")])):
        here.enqueue("a")
        await here.ended("a")
        assert seen == [
            *("first a 1", "second a 1", "route a 1"),
            *("route Completed", "second Completed", "first Completed"),
        ]
        seen.clear()
        here.enqueue("b", "other")
        await here.ended("b")
        assert seen == ["first b 1", "second b 1", "second Completed", "first Completed"]


@virtual_time
@pytest.mark.parametrize(
    ("raised", "states"),
    [
        (Terminate("not for us"), ["new", "active", "terminated"]),
        (KeyError("user"), ["new", "active", "retry", "active", "complete"]),
        (RetryLater(3, "not yet"), ["new", "active", "retry", "active", "complete"]),
    ],
)
async def test_what_a_middleware_raises_is_an_outcome(raised: Exception, states: list[str]) -> None:
    async def guard(invocation: Invocation, following: Handle) -> Outcome:
        if invocation.task.tries == 1:
            raise raised
        return await following(invocation)

    here = site()
    async with here.bridge(router=Router(middleware=[guard])):
        here.enqueue("a")
        await here.ended("a")
    assert here.states("a") == states
    assert len(here.handlers.calls) == (0 if states[-1] == "terminated" else 1)
