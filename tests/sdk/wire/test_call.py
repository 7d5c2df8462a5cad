"""The call to a remote handler, from both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.wire.test_task import RECORDS

from aj_sdk.errors import DecodeError
from aj_sdk.wire.call import (
    MAX_ERROR_BYTES,
    REPLY_HEADERS,
    REQUEST_HEADERS,
    Completed,
    Failed,
    Reply,
    Terminated,
    call_headers,
    clip_error,
    handler_deadline_ns,
    read_call,
    read_reply,
    reply_headers,
)
from aj_sdk.wire.names import TASK_MSGPACK
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.trace import Trace

SECOND = 10**9
NOW_NS = 1_709_222_706_500_000_000
TASK = TaskRecord(id="T1", type="email:new", queue="EMAIL", state=TaskState.ACTIVE, created_ns=0, tries=3)


@pytest.mark.parametrize(
    ("left_ns", "before_ns"),
    [(60 * SECOND, 2 * SECOND), (20 * SECOND, 2 * SECOND), (10 * SECOND, SECOND), (1000, 100), (0, 0), (-SECOND, 0)],
)
def test_a_handler_is_told_to_be_done_before_the_bridge_gives_up(left_ns: int, before_ns: int) -> None:
    assert handler_deadline_ns(NOW_NS, NOW_NS + left_ns) == NOW_NS + left_ns - before_ns


def test_the_headers_of_a_request() -> None:
    headers = call_headers(TASK, invocation="inv", now_ns=NOW_NS, give_up_ns=NOW_NS + 60 * SECOND)

    assert headers == {
        "AJ-Content-Type": "application/x-asyncjobs-task+json",
        "AJ-Handler-Deadline": "2024-02-29T16:06:04Z",
        "AJ-Protocol": "1.1",
        "AJ-Handler-Timeout-Ms": "58000",
        "AJ-Invocation": "inv",
        "AJ-Task-Id": "T1",
        "AJ-Task-Try": "3",
        "AJ-Cancel-Subject": "CHORIA_AJ.CI.inv",
        "AJ-Heartbeat-Ms": "10000",
    }
    assert set(REQUEST_HEADERS) - set(headers) == {"traceparent", "tracestate"}  # of a task that has them


def test_the_headers_of_a_request_for_a_task_with_a_trace_context() -> None:
    trace = Trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=1")
    headers = call_headers(TASK, invocation="inv", now_ns=NOW_NS, give_up_ns=NOW_NS + SECOND, trace=trace)
    assert set(headers) == set(REQUEST_HEADERS)
    assert (headers["traceparent"], headers["tracestate"]) == (trace.parent, trace.state)


def test_fractions_are_written_when_a_second_matters() -> None:
    headers = call_headers(TASK, invocation="inv", now_ns=NOW_NS, give_up_ns=NOW_NS + SECOND)

    assert headers["AJ-Handler-Deadline"] == "2024-02-29T16:05:07.4Z"
    assert headers["AJ-Handler-Timeout-Ms"] == "900"


@given(RECORDS.filter(lambda task: task.tries < 10**18), st.integers(0, 2**62), st.integers(0, 2**61), st.booleans())
def test_a_request_is_read_as_it_was_made(task: TaskRecord, now_ns: int, left_ns: int, packed: bool) -> None:
    if packed:
        headers = call_headers(
            task, invocation="inv", now_ns=now_ns, give_up_ns=now_ns + left_ns, content_type=TASK_MSGPACK
        )
        call = read_call(headers, task.to_msgpack())
    else:
        headers = call_headers(task, invocation="inv", now_ns=now_ns, give_up_ns=now_ns + left_ns)
        call = read_call({name.lower(): value for name, value in headers.items()}, task.to_wire())

    assert call.task == task
    assert (call.invocation, call.protocol, call.try_) == ("inv", "1.1", task.tries)
    assert call.timeout_ns is not None
    deadline_ns = handler_deadline_ns(now_ns, now_ns + left_ns)
    assert 0 <= deadline_ns - now_ns - call.timeout_ns < 10**6
    assert 0 <= deadline_ns - call.deadline_ns < SECOND


def test_a_go_worker_s_request_has_two_headers() -> None:
    headers = {"AJ-Content-Type": "application/x-asyncjobs-task+json", "AJ-Handler-Deadline": "1970-01-01T00:00:01Z"}

    call = read_call(headers, TASK.to_wire())

    assert (call.invocation, call.protocol, call.try_, call.timeout_ns) == ("", "", 3, None)
    assert call.deadline_ns == SECOND
    assert read_call(headers, TASK.replace(tries=0).to_wire()).try_ == 1


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"AJ-Content-Type": "x" * 200}, "AJ-Content-Type"),
        ({"AJ-Content-Type": ""}, "AJ-Content-Type"),
        ({"AJ-Handler-Deadline": ""}, "AJ-Handler-Deadline"),
        ({"AJ-Handler-Deadline": "12:00"}, "AJ-Handler-Deadline"),
        ({"AJ-Handler-Timeout-Ms": "1.5"}, "AJ-Handler-Timeout-Ms"),
        ({"AJ-Handler-Timeout-Ms": ""}, "AJ-Handler-Timeout-Ms"),
        ({"AJ-Handler-Timeout-Ms": "9" * 19}, "AJ-Handler-Timeout-Ms"),
        ({"AJ-Handler-Timeout-Ms": "\u0661"}, "AJ-Handler-Timeout-Ms"),
        ({"AJ-Task-Try": "-1"}, "AJ-Task-Try"),
    ],
)
def test_a_wrong_header_is_refused_by_name(changes: dict[str, str], key: str) -> None:
    headers = call_headers(TASK, invocation="inv", now_ns=NOW_NS, give_up_ns=NOW_NS + 60 * SECOND)
    with pytest.raises(DecodeError) as caught:
        read_call(headers | changes, TASK.to_wire())
    assert (caught.value.what, caught.value.key) == ("request", key)


def test_a_request_without_headers_is_refused() -> None:
    with pytest.raises(DecodeError, match="AJ-Content-Type: missing"):
        read_call(None, TASK.to_wire())


@pytest.mark.parametrize(
    ("headers", "reply"),
    [
        (None, Completed(b"body")),
        ({}, Completed(b"body")),
        ({"Other": "x"}, Completed(b"body")),
        ({"AJ-Error": "bad"}, Failed("bad")),
        ({"aj-error": "bad"}, Failed("bad")),
        ({"AJ-Error": ""}, Failed("handler failed without a text")),
        ({"AJ-Error": " \t"}, Failed("handler failed without a text")),
        ({"AJ-Terminate": "never"}, Terminated("never")),
        ({"AJ-TERMINATE": ""}, Terminated("terminated by handler")),
        ({"AJ-Error": "bad", "AJ-Terminate": "never"}, Terminated("never")),
        ({"AJ-Error": "bad", "AJ-Retry-After-Ms": "1500"}, Failed("bad", 1_500_000_000)),
        ({"AJ-Error": "bad", "AJ-Retry-After-Ms": "0"}, Failed("bad", 0)),
        ({"AJ-Error": "bad", "AJ-Retry-After-Ms": "soon"}, Failed("bad")),
        ({"AJ-Error": "bad", "AJ-Retry-After-Ms": "-5"}, Failed("bad")),
        ({"AJ-Error": "bad", "AJ-Retry-After-Ms": "9" * 16}, Failed("bad")),
        ({"AJ-Error": "bad", "AJ-Retry-After-Ms": "9" * 15}, Failed("bad", 366 * 86_400 * SECOND)),
        ({"AJ-Retry-After-Ms": "1500"}, Completed(b"body")),
        ({"Nats-Service-Error": "boom", "Nats-Service-Error-Code": "500"}, Failed("boom (500)")),
        ({"Nats-Service-Error": "boom"}, Failed("boom")),
        ({"Nats-Service-Error-Code": "500"}, Failed("service error (500)")),
        ({"Nats-Service-Error-Code": ""}, Failed("handler failed without a text")),
        ({"Nats-Service-Error": "boom", "AJ-Error": "ours"}, Failed("ours")),
    ],
)
def test_what_a_reply_means(headers: dict[str, str] | None, reply: Reply) -> None:
    assert read_reply(headers, b"body") == reply


def test_an_error_is_cut_without_half_a_character() -> None:
    assert clip_error(" x ") == "x"
    assert clip_error("ü" * MAX_ERROR_BYTES) == "ü" * (MAX_ERROR_BYTES // 2)
    assert clip_error("x" + "ü" * MAX_ERROR_BYTES) == "x" + "ü" * (MAX_ERROR_BYTES // 2 - 1)
    assert clip_error("a\ud800") == "a?"


def test_the_headers_of_a_reply() -> None:
    assert reply_headers(Completed(b"x")) is None
    assert reply_headers(Failed("a\nb", 2 * SECOND)) == {"AJ-Error": "a b", "AJ-Retry-After-Ms": "2000"}
    assert reply_headers(Failed("a")) == {"AJ-Error": "a"}
    assert reply_headers(Terminated("a\r\nb")) == {"AJ-Terminate": "a  b"}


@given(
    st.builds(Completed, st.just(b"body"))
    | st.builds(Failed, st.text(), st.none() | st.integers(0, 366 * 86_400 * 1000).map(lambda ms: ms * 10**6))
    | st.builds(Terminated, st.text())
)
def test_a_reply_means_what_the_handler_said(reply: Reply) -> None:
    headers = reply_headers(reply)

    read = read_reply(headers, b"body")
    assert type(read) is type(reply)
    assert set(headers or {}) <= set(REPLY_HEADERS)
    if isinstance(reply, Failed) and isinstance(read, Failed):
        assert read.retry_after_ns == reply.retry_after_ns


@given(st.dictionaries(st.sampled_from(REPLY_HEADERS) | st.text(), st.text()), st.binary())
def test_any_reply_means_something(headers: dict[str, str], body: bytes) -> None:
    read = read_reply(headers, body)

    assert isinstance(read, Completed) or read.error
