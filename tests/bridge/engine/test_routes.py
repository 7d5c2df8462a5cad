"""What a route changes for its tasks, with the real processor in virtual time."""

import asyncio
from datetime import timedelta

import pytest
from tests.bridge.engine.bridges import DONE, Outcome, site
from tests.virtual_time import virtual_time

from aj_bridge.core.retry import POLICIES, RetryPolicy
from aj_bridge.engine import meter as m
from aj_bridge.engine.router import EACH, Handle, Invocation, Middleware, Route, Router
from aj_sdk.errors import RetryLater, Terminate
from aj_sdk.wire.call import Failed
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_S


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


@virtual_time
async def test_a_full_route_holds_up_no_other_type_and_all_of_its_tasks_run() -> None:
    here = site()
    at_once, most = 0, 0

    async def slow(_call: object) -> Outcome:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(1)
        at_once -= 1
        return DONE

    here.handlers.on("slow", slow)
    async with here.bridge(concurrency=5, router=Router([Route(type="slow", concurrency=2), Route(type=EACH)])) as one:
        for number in range(40):
            here.enqueue(f"s{number}", "slow")
        began = now()
        for number in range(10):
            here.enqueue(f"c{number}")
            await here.ended(f"c{number}")
        assert now() - began < 1  # beside forty that take a second each
        await here.ended(*(f"s{number}" for number in range(40)))
        assert now() - began < 22  # two at a time, without pauses
    assert most == 2
    assert one.meter.counts[m.BUSY] == 0
    assert all(here.record(f"s{number}").tries == 1 for number in range(40))


@virtual_time
async def test_what_waits_for_room_comes_back_where_its_bridge_is_gone() -> None:
    here = site()
    here.handlers.takes("slow", 1000)
    limited = Router([Route(type="slow", concurrency=1)])
    first = here.bridge(router=limited)
    async with first:
        here.enqueue("a", "slow")
        await here.handlers.begun(1)
        here.enqueue("b", "slow")
        while here.world.standing(here.queue, "b") is None:  # noqa: ASYNC110 - in virtual time a look costs nothing
            await asyncio.sleep(0.01)
    assert here.record("b").state is TaskState.NEW
    here.handlers.answers("slow", DONE)
    async with here.bridge(router=limited):
        began = now()
        await here.ended("b")
        assert now() - began < 31


@virtual_time
async def test_a_task_that_waits_for_room_expires_at_its_deadline() -> None:
    here = site()
    here.handlers.takes("slow", 500)
    async with here.bridge(router=Router([Route(type="slow", concurrency=1)])):
        here.enqueue("a", "slow")
        await here.handlers.begun(1)
        here.enqueue("b", "slow", deadline_ns=here.world.now_ns() + 5 * NS_PER_S)
        began = now()
        (record,) = await here.ended("b")
        assert 5 <= now() - began < 6
    assert (record.state, record.tries) == (TaskState.EXPIRED, 0)


@virtual_time
async def test_two_bridges_share_what_waits_for_room() -> None:
    here = site()
    here.handlers.takes("slow", 1)
    limited = Router([Route(type="slow", concurrency=1)])
    async with here.bridge(router=limited), here.bridge(router=limited):
        for number in range(20):
            here.enqueue(f"s{number}", "slow")
        began = now()
        await here.ended(*(f"s{number}" for number in range(20)))
        assert now() - began < 20  # faster than one alone
