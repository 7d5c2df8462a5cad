"""Which trace contexts are well-formed, and how a record and a call carry them."""

from typing import Any

import pytest

from aj_sdk.wire.call import call_headers, read_call
from aj_sdk.wire.names import TASK_JSON, TASK_MSGPACK
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.trace import MAX_TRACE_STATE, NO_TRACE, Trace, header_trace, record_trace, trace_fault

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "vendor=value,t61@other=a b"
TRACED = {"traceparent": PARENT, "tracestate": STATE}


@pytest.mark.parametrize("parent", [PARENT, PARENT[:-2] + "00", "cc" + PARENT[2:], "cc" + PARENT[2:] + "-what-follows"])
@pytest.mark.parametrize(
    "state", ["", STATE, "a=b , c=d,,", ",".join(f"k{n}=v" for n in range(32)), "0tenant@x=!", "a=" + "v" * 256]
)
def test_what_the_standard_allows_is_well_formed(parent: str, state: str) -> None:
    assert trace_fault(parent, state) == ""


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT + "\n",
        PARENT + "\r\nAJ-Protocol: 9",
        PARENT + "-more",
        PARENT[:-1],
        "ff" + PARENT[2:],
        "cc" + PARENT[2:] + "x",
        "cc" + PARENT[2:] + "-" + "x" * 300,
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        PARENT.replace("b7ad6b7169203331", "0" * 16),
        PARENT.replace("-01", "-\u0661\u0661"),
        None,
        7,
        b"00",
    ],
)
def test_another_parent_is_refused(parent: Any) -> None:
    assert "traceparent" in trace_fault(parent)
    assert record_trace({"traceparent": parent, "tracestate": STATE}) == (NO_TRACE, True)


@pytest.mark.parametrize(
    "state",
    [
        "what",
        "=b",
        "A=b",
        "a=b\r\nc: d",
        "a=b\0",
        "a=",
        "a=\u00e9",
        "a=b=c",
        "k" * 257 + "=v",
        "a=" + "v" * 257,
        ",".join(f"k{n}=v" for n in range(33)),
        ",".join(f"k{n}={'v' * 250}" for n in range(MAX_TRACE_STATE // 250 + 1)),
        7,
    ],
)
def test_another_state_is_refused_and_the_parent_goes_on_without_it(state: Any) -> None:
    assert "tracestate" in trace_fault(PARENT, state)
    assert record_trace({"traceparent": PARENT, "tracestate": state}) == (Trace(PARENT), True)


def test_a_record_without_one_has_nothing_to_drop() -> None:
    assert record_trace({}) == (NO_TRACE, False)
    assert record_trace({"other": 1}) == (NO_TRACE, False)
    assert record_trace({"tracestate": STATE}) == (NO_TRACE, True)
    assert not NO_TRACE


def record(**extra: Any) -> TaskRecord:
    return TaskRecord(id="a", type="t", queue="Q", state=TaskState.ACTIVE, created_ns=1, tries=1, extra=extra)


@pytest.mark.parametrize(
    "extra",
    [
        TRACED,
        {"traceparent": PARENT},
        {"tracestate": STATE},
        {"traceparent": "malformed"},
        {"traceparent": 7},
        {"traceparent": None, "tracestate": ["a"]},
        {**TRACED, "other": {"a": 1}},
    ],
)
def test_a_record_keeps_its_keys_whatever_they_hold(extra: dict[str, Any]) -> None:
    traced = record(**extra)
    assert TaskRecord.from_wire(traced.to_wire()) == traced
    assert TaskRecord.from_msgpack(traced.to_msgpack()) == traced
    # The quick way and the other one write the same.
    assert traced.replace(extra={**extra, "z": 1}).to_wire() == traced.to_wire()[:-1] + b',"z":1}'


@pytest.mark.parametrize("content_type", [TASK_JSON, TASK_MSGPACK])
def test_a_call_tells_it_in_its_headers(content_type: str) -> None:
    task = record(**TRACED)
    body = task.to_wire() if content_type == TASK_JSON else task.to_msgpack()
    trace, _ = record_trace(task.extra)
    headers = call_headers(task, invocation="i", now_ns=1, give_up_ns=10**10, content_type=content_type, trace=trace)
    assert {name: headers[name] for name in TRACED} == TRACED
    assert read_call(headers, body).trace == Trace(PARENT, STATE)
    assert "traceparent" not in call_headers(task, invocation="i", now_ns=1, give_up_ns=10**10)


def test_a_malformed_header_counts_as_absent_and_any_case_is_read() -> None:
    assert header_trace({"Traceparent": PARENT, "TraceState": STATE}) == Trace(PARENT, STATE)
    assert header_trace({"traceparent": PARENT, "tracestate": "?"}) == Trace(PARENT)
    assert header_trace({"traceparent": "00-what"}) == NO_TRACE
    assert header_trace(None) == NO_TRACE
