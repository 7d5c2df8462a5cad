"""A task goes on with the trace of whoever made it, with OpenTelemetry's own library and without it."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import TracerProvider

from aj_sdk import testing
from aj_sdk.background import Background
from aj_sdk.errors import UsageError
from aj_sdk.handling import Task
from aj_sdk.services import Services
from aj_sdk.spec import TaskSpec, new_task
from aj_sdk.tracing import current_trace
from aj_sdk.wire.trace import NO_TRACE

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def span() -> Iterator[api.SpanContext]:
    """Give a span that is the current one."""
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("caller") as current:
        yield current.get_span_context()


def made(**options: Any) -> dict[str, object]:
    return dict(new_task(TaskSpec("t", **options), "Q", 1).record.extra)


def test_a_task_carries_what_it_is_given() -> None:
    assert made(traceparent=PARENT) == {"traceparent": PARENT}
    assert made(traceparent=PARENT, tracestate="a=b") == {"traceparent": PARENT, "tracestate": "a=b"}
    assert made() == {}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"traceparent": "00-what"}, "traceparent is not of the form 00-"),
        ({"traceparent": PARENT + "\r\nAJ-Protocol: 9"}, "traceparent"),
        ({"traceparent": PARENT, "tracestate": "a=b\r\nc"}, "tracestate is not a list of key=value"),
        ({"tracestate": "a=b"}, "a tracestate goes with a traceparent"),
    ],
)
def test_a_malformed_one_is_refused(options: dict[str, str], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        made(**options)


async def test_the_current_span_is_taken_where_nothing_is_said(span: api.SpanContext) -> None:
    wanted = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    assert made() == {"traceparent": wanted}
    assert await asyncio.create_task(asyncio.to_thread(made)) == {"traceparent": wanted}
    assert made(traceparent="") == {}
    assert made(traceparent=PARENT) == {"traceparent": PARENT}


def test_the_blocking_client_s_thread_sees_the_caller_s_span(span: api.SpanContext) -> None:
    async def look() -> str:
        return current_trace().parent

    background = Background(nullcontext())
    background.open()
    try:
        assert f"{span.trace_id:032x}" in background.call(look, "look", 30)
    finally:
        background.close()


@pytest.mark.parametrize("plain", [False, True])
async def test_spans_of_a_handler_belong_to_the_trace_of_its_task(plain: bool) -> None:
    services = Services()

    def seen(task: Task) -> list[str]:
        return [task.traceparent, task.tracestate, f"{api.get_current_span().get_span_context().trace_id:032x}"]

    @services.service("coroutine")
    async def coroutine(task: Task) -> list[str]:
        return seen(task)

    services.service("plain")(seen)
    name = "plain" if plain else "coroutine"
    outcome = await testing.call(name, services=services, traceparent=PARENT, tracestate="a=b")
    assert outcome.result == [PARENT, "a=b", "0af7651916cd43dd8448eb211c80319c"]
    # The next one, without a trace, does not find that of the one before.
    assert (await testing.call(name, services=services)).result == ["", "", "0" * 32]


def test_a_program_without_opentelemetry_does_not_get_it() -> None:
    look = (
        "import sys, aj_sdk, aj_sdk.tracing as tracing; print(tracing.current_trace() == tracing.NO_TRACE, "
        "[name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "True []\n"
    assert not NO_TRACE
