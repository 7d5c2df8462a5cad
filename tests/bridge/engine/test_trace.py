"""The trace context of a task on its way to the handler, with the real processor in virtual time."""

from typing import Any

import msgspec
import pytest
from tests.bridge.engine.bridges import site
from tests.virtual_time import virtual_time

from aj_bridge.engine import meter as m
from aj_bridge.engine.router import Handle, Invocation, Outcome, Router
from aj_sdk.wire.trace import NO_TRACE, Trace

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-aaaaaaaaaaaaaaaa-01"


@pytest.mark.parametrize(
    ("extra", "trace", "dropped"),
    [
        ({}, NO_TRACE, 0),
        ({"other": 1}, NO_TRACE, 0),
        ({"traceparent": PARENT, "tracestate": "a=b"}, Trace(PARENT, "a=b"), 0),
        ({"traceparent": PARENT, "tracestate": "what"}, Trace(PARENT), 1),
        ({"traceparent": PARENT + "\r\nAJ-Protocol: 9"}, NO_TRACE, 1),
        ({"traceparent": 7}, NO_TRACE, 1),
    ],
)
@virtual_time
async def test_a_call_has_what_is_well_formed_and_the_rest_is_counted(
    extra: dict[str, Any], trace: Trace, dropped: int
) -> None:
    seen = []

    async def look(invocation: Invocation, following: Handle) -> Outcome:
        seen.append(invocation.trace)
        return await following(invocation)

    here = site()
    async with here.bridge(router=Router(middleware=[look])) as bridge:
        here.enqueue("a", extra=extra)
        (task,) = await here.ended("a")
    assert seen == [trace]
    assert bridge.meter.counts[m.TRACE_DROPPED] == dropped
    assert task.extra == extra  # what was saved of it is as it was


@virtual_time
async def test_a_middleware_may_pass_on_a_span_of_its_own() -> None:
    seen = []

    async def begin(invocation: Invocation, following: Handle) -> Outcome:
        return await following(msgspec.structs.replace(invocation, trace=Trace(OTHER)))

    async def look(invocation: Invocation, following: Handle) -> Outcome:
        seen.append(invocation.trace)
        return await following(invocation)

    here = site()
    async with here.bridge(router=Router(middleware=[begin, look])):
        here.enqueue("a", extra={"traceparent": PARENT})
        await here.ended("a")
    assert seen == [Trace(OTHER)]
