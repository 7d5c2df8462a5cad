"""The responder: from a request's headers and bytes to an answer's, without any I/O."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aj_sdk.errors import PayloadError, RetryLater, Terminate
from aj_sdk.handling import Task
from aj_sdk.responder import Response, close_call, failed, open_call, succeeded
from aj_sdk.wire.call import Completed, Failed, Reply, Terminated, call_headers, read_reply
from aj_sdk.wire.names import TASK_JSON, TASK_MSGPACK
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

NOW_NS = 1_700_000_000_000_000_000
SECOND = 10**9
MAX_PAYLOAD = 1 << 20

RECORD = TaskRecord(
    id="T1", type="t", queue="Q", state=TaskState.ACTIVE, payload=b"{}", created_ns=NOW_NS, tries=1, tried_ns=NOW_NS
)
HEADERS = call_headers(RECORD, invocation="inv", now_ns=NOW_NS, give_up_ns=NOW_NS + 20 * SECOND)
GO_HEADERS = {name: HEADERS[name] for name in ("AJ-Content-Type", "AJ-Handler-Deadline")}


def open_at(headers: Mapping[str, str] | None, body: bytes, *, now_ns: int = NOW_NS) -> Task | Reply:
    return open_call(headers, body, now_ns=now_ns, arrived=50.0, clock=lambda: 50.0)


def test_a_request_of_a_bridge_becomes_a_task_with_its_relative_deadline() -> None:
    # The bridge's clock may be wrong by a year: only the relative deadline counts.
    task = open_at(HEADERS, RECORD.to_wire(), now_ns=NOW_NS + 31_536_000 * SECOND)

    assert isinstance(task, Task)
    assert (task.id, task.invocation, task.tries, task.protocol) == ("T1", "inv", 1, "1.1")
    assert task.remaining == pytest.approx(18.0)


def test_a_request_of_a_go_worker_becomes_a_task_with_its_absolute_deadline() -> None:
    task = open_at(GO_HEADERS, RECORD.to_wire(), now_ns=NOW_NS + 8 * SECOND)

    assert isinstance(task, Task)
    assert (task.invocation, task.tries, task.protocol) == ("", 1, "")
    assert task.remaining == pytest.approx(10.0)


def test_a_request_in_messagepack() -> None:
    headers = HEADERS | {"AJ-Content-Type": TASK_MSGPACK}

    task = open_at(headers, RECORD.to_msgpack())

    assert isinstance(task, Task)
    assert task.record == RECORD


def test_header_names_are_read_without_regard_to_case() -> None:
    task = open_at({name.lower(): value for name, value in HEADERS.items()}, RECORD.to_wire())

    assert isinstance(task, Task)
    assert task.invocation == "inv"


@pytest.mark.parametrize(
    ("headers", "now_ns"),
    [
        (HEADERS | {"AJ-Handler-Timeout-Ms": "0"}, NOW_NS),
        (GO_HEADERS, NOW_NS + 18 * SECOND),
        (GO_HEADERS, NOW_NS + 3600 * SECOND),
    ],
)
def test_a_request_that_comes_too_late_fails(headers: dict[str, str], now_ns: int) -> None:
    reply = open_at(headers, RECORD.to_wire(), now_ns=now_ns)

    assert reply == Failed("the deadline had passed when the request arrived")


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (None, b"{}", "AJ-Content-Type: missing"),
        ({}, b"{}", "AJ-Content-Type: missing"),
        ({"AJ-Content-Type": "text/plain"}, b"{}", "'text/plain' is not known"),
        ({"AJ-Content-Type": TASK_JSON}, RECORD.to_wire(), "AJ-Handler-Deadline: '' is not"),
        (HEADERS | {"AJ-Handler-Deadline": "soon"}, RECORD.to_wire(), "AJ-Handler-Deadline: 'soon' is not"),
        (HEADERS | {"AJ-Handler-Timeout-Ms": "-1"}, RECORD.to_wire(), "AJ-Handler-Timeout-Ms"),
        (HEADERS | {"AJ-Task-Try": "x"}, RECORD.to_wire(), "AJ-Task-Try"),
        (HEADERS, b"", "task: not valid JSON"),
        (HEADERS, b"[]", "task: must be an object"),
        (HEADERS, b"{}", "task: id: is missing"),
        (HEADERS, b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_request_that_can_not_be_read_ends_the_task_with_the_reason(
    headers: dict[str, str] | None, body: bytes, reason: str
) -> None:
    reply = open_at(headers, body)

    assert isinstance(reply, Terminated)
    assert reply.error.startswith("the request can't be read: ")
    assert reason in reply.error


@pytest.mark.parametrize(
    ("value", "result"), [(None, b""), (b"\xff", b"\xff"), ("ü", b"\xc3\xbc"), ({"a": 1}, b'{"a":1}')]
)
def test_what_a_handler_returns_is_the_result(value: Any, result: bytes) -> None:
    assert succeeded(value) == Completed(result)


def test_a_result_that_can_not_be_encoded_ends_the_task() -> None:
    reply = succeeded(object())

    assert reply == Terminated(
        "the result of type object can't be encoded as JSON: values of type object have no JSON form"
    )


def test_a_coroutine_instead_of_a_result_ends_the_task() -> None:
    async def forgotten() -> None: ...

    assert succeeded(forgotten()) == Terminated("the handler returned a coroutine: it must be declared with async def")


class Odd(Exception):  # noqa: N818 - a name from an application
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (Terminate("no such user"), Terminated("no such user")),
        (Terminate(""), Terminated("terminated by handler")),
        (Terminate(), Terminated("terminated by handler")),
        (RetryLater(1.5, "rate limit"), Failed("rate limit", 1_500_000_000)),
        (RetryLater(0, ""), Failed("retry later", 0)),
        (RetryLater(float("inf")), Failed("retry later", 366 * 86_400 * SECOND)),
        (PayloadError("payload at $.to: expected text"), Terminated("payload at $.to: expected text")),
        (ValueError("bad"), Failed("ValueError: bad")),
        (KeyError("k"), Failed("KeyError: 'k'")),
        (ValueError(), Failed("ValueError")),
        (Odd(), Failed("Odd")),
        (SystemExit(3), Failed("SystemExit: 3")),
        (asyncio.CancelledError(), Failed("CancelledError")),
        (
            ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [OSError("b")])]),
            Failed(
                "ExceptionGroup: g (2 sub-exceptions): ValueError: a; ExceptionGroup: h (1 sub-exception): OSError: b"
            ),
        ),
        (ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [Terminate("x")])]), Terminated("x")),
        (ExceptionGroup("g", [RetryLater(2, "y")]), Failed("y", 2 * SECOND)),
    ],
)
def test_what_a_handler_raises(error: BaseException, reply: Reply) -> None:
    assert failed(error) == reply


def test_a_success_has_no_headers() -> None:
    assert close_call(Completed(b"\x00"), max_payload=MAX_PAYLOAD, offered=True) == Response(b"\x00", None)


def test_a_failure_and_its_delay() -> None:
    reply = Failed("x", 1_500_000_000)

    assert close_call(reply, max_payload=MAX_PAYLOAD, offered=True) == Response(
        b"", {"AJ-Error": "x", "AJ-Retry-After-Ms": "1500"}
    )


def test_a_delay_is_told_only_to_who_offered_it() -> None:
    reply = Failed("x", 1_500_000_000)

    assert close_call(reply, max_payload=MAX_PAYLOAD, offered=False) == Response(b"", {"AJ-Error": "x"})


def test_texts_are_made_fit_for_a_header() -> None:
    reply = Terminated("a\r\nAJ-Retry-After-Ms: 1\0" + "ü" * 10_000)

    headers = close_call(reply, max_payload=MAX_PAYLOAD, offered=True).headers

    assert headers is not None
    text = headers["AJ-Terminate"]
    assert text.startswith("a  AJ-Retry-After-Ms: 1 ü")
    assert len(text.encode()) <= 4096


def test_the_largest_result_fits_and_a_larger_one_ends_the_task_with_the_sizes() -> None:
    assert close_call(Completed(b"x" * 1000), max_payload=1000, offered=True).headers is None

    response = close_call(Completed(b"x" * 1001), max_payload=1000, offered=True)

    assert response.body == b""
    assert response.headers == {"AJ-Terminate": "the result of 1001 bytes is too large: the server takes 1000"}


def test_an_error_fits_a_server_that_takes_little() -> None:
    for max_payload in (1, 300, 1000):
        headers = close_call(Failed("x" * 5000), max_payload=max_payload, offered=True).headers
        assert headers is not None
        assert len(headers["AJ-Error"]) <= max(16, max_payload - 200)


_TEXT = st.text(max_size=20) | st.sampled_from(["1.1", "5", "-1", "2023-11-14T22:13:38Z", TASK_JSON, TASK_MSGPACK])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_BODY = (
    st.binary()
    | _JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({}, optional=dict.fromkeys(RECORD.to_map(), _JSON)).map(
        lambda changes: json.dumps({**json.loads(RECORD.to_wire()), **changes}).encode()
    )
)


@given(
    st.none() | st.dictionaries(st.sampled_from([*HEADERS, *map(str.upper, HEADERS)]) | st.text(max_size=5), _TEXT),
    _BODY,
    st.integers(0, 2 * NOW_NS),
)
@example(None, b"", 0)
def test_any_request_is_a_task_or_has_an_answer(headers: dict[str, str] | None, body: bytes, now_ns: int) -> None:
    for known in ({}, HEADERS):
        opened = open_at({**known, **(headers or {})}, body, now_ns=now_ns)
        if isinstance(opened, Task):
            assert opened.remaining > 0
        else:
            response = close_call(opened, max_payload=MAX_PAYLOAD, offered=False)
            assert response.headers is not None
            assert read_reply(response.headers, response.body) != Completed(b"")


@given(
    st.builds(Completed, st.binary())
    | st.builds(Failed, st.text(), st.none() | st.integers(0, 10**20))
    | st.builds(Terminated, st.text()),
    st.integers(64, 10**6),
    st.booleans(),
)
def test_any_outcome_has_an_answer_that_means_it(reply: Reply, max_payload: int, offered: bool) -> None:
    response = close_call(reply, max_payload=max_payload, offered=offered)

    read = read_reply(response.headers, response.body)
    if isinstance(reply, Completed):
        assert isinstance(read, Completed) == (len(reply.result) <= max_payload)
    else:
        assert type(read) is type(reply)
    for value in (response.headers or {}).values():
        assert not set(value) & set("\r\n\0")
