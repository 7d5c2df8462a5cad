"""What is told of attempts, with the real processor in virtual time."""

import asyncio

from tests.bridge.engine.bridges import DONE, Outcome, Site, site
from tests.virtual_time import virtual_time

from aj_bridge.engine.router import Route, Router
from aj_sdk.wire.attempt import Attempt, AttemptOutcome
from aj_sdk.wire.call import Cause, Failed, Terminated
from aj_sdk.wire.names import is_name
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_S


def told(here: Site, task_id: str) -> list[Attempt]:
    return list(here.world.attempts.get(task_id, ()))


def outcomes(here: Site, task_id: str) -> list[tuple[int, str, str]]:
    return [(attempt.try_, attempt.outcome.value, attempt.error) for attempt in told(here, task_id)]


@virtual_time
async def test_attempts_that_did_not_complete_are_kept_and_others_cost_nothing() -> None:
    here = site()
    here.handlers.answers("t", Failed("no such host"), Failed("silence", cause=Cause.DEADLINE), DONE)
    async with here.bridge("b1", router=Router([Route(type="t")])):
        here.enqueue("a")
        here.enqueue("b", "other")
        await here.ended("a")
    assert outcomes(here, "a") == [(1, "failed", "no such host"), (2, "deadline", "silence")]
    first = told(here, "a")[0]
    assert (first.bridge, first.invocation, first.kind, first.handler) == (
        "b1",
        f"b1-{first.queue}-1",
        "remote",
        "CHORIA_AJ.H.T.t",
    )
    assert is_name(first.invocation)  # one token of the subject on which its handler is told to stop
    assert first.ended_ns >= first.started_ns > 0
    assert told(here, "b") == []  # a type without a route is no attempt


@virtual_time
async def test_all_are_kept_where_that_is_wanted() -> None:
    here = site()
    here.handlers.takes("t", 2)
    async with here.bridge(keep_all_attempts=True):
        here.enqueue("a")
        await here.ended("a")
        await here.quiet()
    (attempt,) = told(here, "a")
    assert (attempt.outcome, attempt.error, attempt.duration_ns) == (AttemptOutcome.COMPLETED, "", 2 * NS_PER_S)


@virtual_time
async def test_a_terminated_attempt_says_why() -> None:
    here = site()
    here.handlers.answers("t", Terminated("no such user"))
    async with here.bridge():
        here.enqueue("a")
        await here.ended("a")
        await here.quiet()
    assert outcomes(here, "a") == [(1, "terminated", "no such user")]


@virtual_time
async def test_that_nobody_listens_is_told_once_not_for_each_look() -> None:
    here = site()
    here.handlers.away.add("t")
    async with here.bridge():
        here.enqueue("a")
        await asyncio.sleep(100)
        here.handlers.away.clear()
        await here.ended("a")
    assert outcomes(here, "a") == [(1, "no_responders", "no handler listens on CHORIA_AJ.H.T.t")]


@virtual_time
async def test_an_attempt_lost_in_a_crash_is_told_by_whoever_takes_over() -> None:
    here = site()
    here.handlers.takes("t", 1000)
    async with here.bridge("dead") as first:
        here.enqueue("a")
        await here.handlers.begun(1)
        await first.crash()
        here.handlers.answers("t", DONE)
        async with here.bridge("heir"):
            await here.ended("a")
    (attempt,) = told(here, "a")
    assert (attempt.outcome, attempt.try_, attempt.bridge) == (AttemptOutcome.LEASE_LOST, 1, "dead")
    assert attempt.invocation == ""


@virtual_time
async def test_a_task_that_ends_with_its_lost_attempt_has_it_told_too() -> None:
    here = site()
    here.handlers.takes("t", 1000)
    async with here.bridge("dead") as first:
        here.enqueue("a", max_tries=1)
        await here.handlers.begun(1)
        await first.crash()
        async with here.bridge("heir"):
            (record,) = await here.ended("a")
            await here.quiet()
    assert record.state is TaskState.EXPIRED
    assert [attempt.outcome for attempt in told(here, "a")] == [AttemptOutcome.LEASE_LOST]


@virtual_time
async def test_what_a_drain_breaks_off_is_told() -> None:
    here = site()
    here.handlers.takes("t", 1000)
    bridge = here.bridge(grace_s=1.0)
    async with bridge:
        here.enqueue("a")
        await here.handlers.begun(1)
        assert await bridge.drain() == 1
    assert outcomes(here, "a") == [(1, "drained", "its bridge stopped before it had ended")]


@virtual_time
async def test_a_call_stopped_by_a_cancelled_task_is_told() -> None:
    here = site()
    here.handlers.takes("t", 1000)
    async with here.bridge() as bridge:
        here.enqueue("a")
        await here.handlers.begun(1)
        cancelled = here.record("a").replace(state=TaskState.TERMINATED, last_err="cancelled")
        here.world.put("a", cancelled.to_wire())
        bridge.processor.cancelled("a")
        await here.quiet()
    assert outcomes(here, "a") == [(1, "cancelled", "somebody else changed the task")]


@virtual_time
async def test_an_outcome_that_is_refused_is_told() -> None:
    here = site()

    async def overtaken(_call: object) -> Outcome:
        done = here.record("a").replace(state=TaskState.COMPLETE)
        here.world.put("a", done.to_wire())
        return DONE

    here.handlers.on("t", overtaken)
    async with here.bridge():
        here.enqueue("a")
        await here.quiet()
    assert [each[:2] for each in outcomes(here, "a")] == [(1, "refused")]
