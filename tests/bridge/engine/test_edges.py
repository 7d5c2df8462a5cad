"""Every edge of the lifecycle table that a bridge takes, one test each; its name is the edge.

The table makes the list: a new edge without a scenario fails here. Those of producers and administrators stand in
`tests/sdk/test_edges.py`.
"""

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from tests.bridge.engine.bridges import DONE, QUEUE, Site, site
from tests.virtual_time import virtual_time

from aj_bridge.core.lifecycle import EDGES, Edge, Event, Hand
from aj_bridge.engine.router import Route, Router
from aj_sdk.wire.call import Failed, Terminated
from aj_sdk.wire.signing import Signer, Verifier
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
MAX_PAYLOAD = 4096
OURS = [edge for edge in EDGES if edge.hand is Hand.BRIDGE]

Scenario = Callable[[Site, Edge], Awaitable[str]]
"""Brings a task over an edge; gives what its last error is then."""

FIRST_ITEM = ItemRef(1, 0)
"""The delivery before the first one of the first item: an owner whose lease ran out."""


def before(edge: Edge) -> TaskState:
    assert edge.before is not None
    return edge.before


def put(here: Site, state: TaskState, *, full: bool = False, **fields: Any) -> None:
    """Store the task `a` in a state, and put its item into the queue; if `full`, as large as a record may be."""
    tried = {"tries": 1} if state in (TaskState.RETRY, TaskState.ACTIVE) else {}
    values = {**tried, **fields}
    task = TaskRecord(id="a", type="t", queue=QUEUE, state=state, created_ns=here.world.now_ns(), **values)
    if full:
        room = here.world.max_payload - len(task.replace(payload=b"").to_wire())
        task = task.replace(payload=b"x" * (room // 4 * 3))
    here.world.put("a", task.to_wire(), stamp=Stamp("gone", FIRST_ITEM) if state is TaskState.ACTIVE else None)
    here.world.publish(QUEUE, "a")


async def over(here: Site, edge: Edge, **options: Any) -> str:
    """Let a bridge work until the task has come over the edge."""
    async with here.bridge(**options):
        await here.until(lambda: (edge.before, edge.after) in steps(here))
    return last_error(here, edge)


def steps(here: Site) -> list[tuple[TaskState, TaskState]]:
    return [(first.state, second.state) for first, second in pairwise(records(here))]


def records(here: Site) -> list[TaskRecord]:
    return [stored.record for _, stored in here.saves if stored.record is not None]


def last_error(here: Site, edge: Edge) -> str:
    return next(
        second.last_err
        for first, second in pairwise(records(here))
        if (first.state, second.state) == (edge.before, edge.after)
    )


async def started(here: Site, edge: Edge) -> str:
    put(here, before(edge))
    return await over(here, edge)


async def answered(here: Site, edge: Edge, outcome: Any, **fields: Any) -> str:
    here.handlers.answers("t", outcome)
    put(here, TaskState.NEW, **fields)
    return await over(here, edge)


async def no_handler(here: Site, edge: Edge) -> str:
    if edge.before is TaskState.ACTIVE:
        here.handlers.away.add("t")  # found out by the call
        put(here, TaskState.NEW)
        return await over(here, edge)
    put(here, before(edge))
    return await over(here, edge, router=Router([Route(type="another")]))


async def parent_failed(here: Site, edge: Edge) -> str:
    put(here, before(edge), dependencies=("absent",), tries=0)
    return await over(here, edge)


async def past_deadline(here: Site, edge: Edge) -> str:
    put(here, before(edge), deadline_ns=here.world.now_ns() - NS_PER_S)
    return await over(here, edge)


async def tries_used_up(here: Site, edge: Edge) -> str:
    put(here, before(edge), max_tries=2, tries=2)
    return await over(here, edge)


async def too_large(here: Site, edge: Edge) -> str:
    if edge.before is TaskState.ACTIVE:
        here.handlers.answers("t", type(DONE)(b"x" * MAX_PAYLOAD))
        put(here, TaskState.NEW)
    else:
        put(here, before(edge), full=True)
    return await over(here, edge)


async def signature_refused(here: Site, edge: Edge) -> str:
    put(here, before(edge))
    return await over(here, edge, verifier=Verifier(Signer(SEED).public_key_hex))


SCENARIOS: dict[Event, tuple[Scenario, str]] = {
    Event.STARTED: (started, ""),
    Event.TAKEN_OVER: (started, ""),
    Event.SUCCEEDED: (lambda here, edge: answered(here, edge, DONE), ""),
    Event.FAILED: (lambda here, edge: answered(here, edge, Failed("busy")), "busy"),
    Event.TERMINATED: (lambda here, edge: answered(here, edge, Terminated("never")), "never"),
    Event.LAST_TRY_FAILED: (lambda here, edge: answered(here, edge, Failed("busy"), max_tries=1), "busy"),
    Event.NO_HANDLER: (no_handler, "no "),
    Event.PARENT_FAILED: (parent_failed, "task dependencies failed: absent was not found"),
    Event.PAST_DEADLINE: (past_deadline, "past deadline"),
    Event.TRIES_USED_UP: (tries_used_up, "exceeded maximum tries"),
    Event.TOO_LARGE: (too_large, "the task's record needs"),
    Event.SIGNATURE_REFUSED: (signature_refused, "task is not signed"),
}


def named(edge: Edge) -> str:
    return f"{'nothing' if edge.before is None else edge.before.value or 'unknown'}-{edge.event}-{edge.after.value}"


@pytest.mark.parametrize("edge", OURS, ids=named)
def test_a_bridge_takes_a_task_over(edge: Edge) -> None:
    scenario, error = SCENARIOS[edge.event]

    @virtual_time
    async def run() -> None:
        found = await scenario(site(max_payload=MAX_PAYLOAD), edge)
        assert found.startswith(error)

    run()
