"""Spans of calls, with OpenTelemetry's own library and the real processor in virtual time."""

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from tests.bridge.engine.bridges import DONE, Site, site
from tests.virtual_time import virtual_time

from aj_bridge.engine.router import Handle, Invocation, Outcome, Router
from aj_bridge.engine.spans import spans
from aj_sdk.wire.call import Failed
from aj_sdk.wire.trace import Trace

TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = f"00-{TRACE_ID:032x}-{SPAN_ID:016x}-01"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


class Spy:
    """A bridge whose calls have spans, and what its handlers were given."""

    def __init__(self, exported: InMemorySpanExporter) -> None:
        self.seen: list[Trace] = []
        self._exported = exported
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(exported))

    async def _look(self, invocation: Invocation, following: Handle) -> Outcome:
        self.seen.append(invocation.trace)
        return await following(invocation)

    async def run(self, here: Site, **fields: Any) -> tuple[ReadableSpan, ...]:
        async with here.bridge(router=Router(middleware=[*spans(self._provider), self._look])):
            here.enqueue("a", **fields)
            await here.ended("a")
        return self._exported.get_finished_spans()


@virtual_time
async def test_each_call_is_a_child_of_the_producers_span_and_the_parent_of_the_handlers(
    exported: InMemorySpanExporter,
) -> None:
    here, spy = site(), Spy(exported)
    here.handlers.answers("t", Failed("busy"), DONE)
    first, second = await spy.run(here, extra={"traceparent": PARENT, "tracestate": "a=b"})
    for span, given in zip((first, second), spy.seen, strict=True):
        assert span.context is not None
        assert span.parent is not None
        assert (span.parent.span_id, span.context.trace_id) == (SPAN_ID, TRACE_ID)
        assert given == Trace(f"00-{TRACE_ID:032x}-{span.context.span_id:016x}-01", "a=b")
    assert (first.name, first.status.status_code, first.status.description) == ("process t", StatusCode.ERROR, "busy")
    assert second.status.status_code is StatusCode.UNSET
    assert second.attributes is not None
    told = ("messaging.message.id", "messaging.destination.name", "asyncjobs.task.try")
    assert [second.attributes[name] for name in told] == ["a", "Q", 2]


@virtual_time
async def test_a_task_without_a_trace_begins_one(exported: InMemorySpanExporter) -> None:
    (span,) = await (spy := Spy(exported)).run(site())
    assert span.parent is None
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" in spy.seen[0].parent


@virtual_time
async def test_a_call_that_found_nobody_leaves_none(exported: InMemorySpanExporter) -> None:
    here, spy = site(), Spy(exported)
    here.handlers.away.add("t")
    async with here.bridge(router=Router(middleware=spans(spy._provider))):
        here.enqueue("a")
        await here.until(lambda: here.record("a").last_err != "")
    assert exported.get_finished_spans() == ()


def test_a_process_without_opentelemetry_gets_none() -> None:
    look = "import sys; from aj_bridge.engine.spans import spans; print(spans(), 'opentelemetry' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "() False\n"
