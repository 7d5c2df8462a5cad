"""Holds the Python types and the schemas together: a difference in either direction fails here.

The same documents go through a schema and through the decoder, one key at a time, and both must say the same of
each; where a decoder refuses, it must name the key.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

import pytest
from jsonschema import Draft202012Validator
from tests.schemas.refused import REFUSED

from aj_schemas import load, names, vectors
from aj_sdk.errors import DecodeError, InvalidConfigError
from aj_sdk.wire import attempt, bridge, call, edge, event, interim, item, queue, schedule, task
from aj_sdk.wire.codec import JSON, decode_json, encode_json
from aj_sdk.wire.state import TaskState


class Wire(Protocol):
    def to_wire(self) -> bytes: ...


class Kind(NamedTuple):
    keys: Mapping[str, bool]
    read: Callable[[bytes], Wire]


def read_settings(data: bytes) -> queue.QueueSettings:
    # Types are the decoder's business, ranges are `check`'s: a configuration is told all its faults at once.
    return queue.QueueSettings.from_wire(data).check()


KINDS: Final[Mapping[str, Kind]] = {
    "attempt": Kind(attempt.ATTEMPT_KEYS, attempt.Attempt.from_wire),
    "bridge_status": Kind(bridge.STATUS_KEYS, bridge.BridgeStatus.from_wire),
    "edge": Kind(edge.KEYS, lambda data: edge.Edge.read("CHORIA_AJ.W.parent.child", data)),
    "leader_elected_event": Kind(event.LEADER_ELECTED_KEYS, event.LeaderElectedEvent.from_wire),
    "progress": Kind(interim.PROGRESS_KEYS, interim.Progress.from_wire),
    "queue_settings": Kind(queue.KEYS, read_settings),
    "schedule": Kind(schedule.KEYS, schedule.Schedule.from_wire),
    "task": Kind(task.KEYS, task.TaskRecord.from_wire),
    "task_result": Kind(task.RESULT_KEYS, task.TaskResult.from_wire),
    "task_state_event": Kind(event.TASK_STATE_KEYS, event.TaskStateEvent.from_wire),
    "work_item": Kind(item.KEYS, item.WorkItem.from_wire),
}
EXAMPLES: Final[list[tuple[str, JSON]]] = [(name, example) for name in KINDS for example in load(name)["examples"]]

ANY_TYPE: Final[tuple[JSON, ...]] = (None, True, False, 0, 7, -1, 2**63, 1.5, "", "text", "*", [], [7], {}, {"a": 7})
"""A value of each JSON type and some that borders on a rule. No 7.0: JSON Schema and Go's JSON differ on it."""

every_kind = pytest.mark.parametrize("name", KINDS)
every_example = pytest.mark.parametrize(("name", "example"), EXAMPLES)


def fullest_example(name: str) -> dict[str, Any]:
    example: dict[str, Any] = max(load(name)["examples"], key=len)
    return example


def refusal(read: Callable[[bytes], object], value: JSON) -> DecodeError | InvalidConfigError | None:
    try:
        read(encode_json(value))
    except (DecodeError, InvalidConfigError) as err:
        return err
    return None


def doubtful_values(name: str, key: str) -> Iterator[JSON]:
    # By their JSON text, because Python takes True for 1.
    yield from {encode_json(value): value for value in (*ANY_TYPE, *REFUSED[name][key])}.values()


def test_every_schema_has_its_type() -> None:
    assert set(names()) == {*KINDS, "request_headers", "reply_headers", "conformance_order", "vector"}


@every_kind
def test_the_keys_are_the_properties(name: str) -> None:
    schema = load(name)
    assert set(schema["properties"]) == set(KINDS[name].keys)
    assert set(schema["required"]) == {key for key, required in KINDS[name].keys.items() if required}


@every_kind
def test_a_key_is_missed_by_both_or_by_none(name: str) -> None:
    schema = load(name)
    validator = Draft202012Validator(schema)
    for key in schema["properties"]:
        value = {other: item for other, item in fullest_example(name).items() if other != key}
        error = refusal(KINDS[name].read, value)
        assert (error is None) == validator.is_valid(value), key
        assert error is None or (isinstance(error, DecodeError) and error.key == key)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        pytest.param(name, key, value, id=f"{name}-{key}-{str(value)[:30]!a}")
        for name in KINDS
        for key in load(name)["properties"]
        for value in doubtful_values(name, key)
    ],
)
def test_a_value_is_refused_by_both_or_by_none(name: str, key: str, value: JSON) -> None:
    document = fullest_example(name) | {key: value}
    error = refusal(KINDS[name].read, document)
    assert (error is None) == Draft202012Validator(load(name)).is_valid(document), error
    if isinstance(error, DecodeError):
        assert error.key.split(".")[0] == key


@every_example
def test_an_example_is_read_and_written_as_the_schema_says(name: str, example: JSON) -> None:
    written = KINDS[name].read(encode_json(example)).to_wire()
    Draft202012Validator(load(name)).validate(decode_json(written, name))
    assert KINDS[name].read(written).to_wire() == written


@every_example
def test_what_is_written_has_the_properties_in_the_schemas_order(name: str, example: JSON) -> None:
    written = list(decode_json(KINDS[name].read(encode_json(example)).to_wire(), name))
    assert written == [key for key in load(name)["properties"] if key in written]


@every_kind
def test_an_absent_key_has_the_default_of_the_schema(name: str) -> None:
    schema = load(name)
    least = {key: value for key, value in fullest_example(name).items() if key in schema["required"]}
    written = decode_json(KINDS[name].read(encode_json(least)).to_wire(), name)
    defaults = {key: value["default"] for key, value in schema["properties"].items() if "default" in value}
    # What Go leaves out when it is zero is left out here too.
    assert {key: written.get(key, default) for key, default in defaults.items()} == defaults


def test_the_states_are_the_ones_of_the_schema() -> None:
    for name in ("task", "task_state_event"):
        assert set(load(name)["$defs"]["state"]["enum"]) == {*map(str, TaskState), "completed"}


def request(headers: Mapping[str, str]) -> call.Call:
    record = task.TaskRecord.from_wire(encode_json(load("task")["examples"][0]))
    packed = headers.get("AJ-Content-Type", "").endswith("+msgpack")
    return call.read_call(headers, record.to_msgpack() if packed else record.to_wire())


def request_refusal(headers: Mapping[str, str]) -> DecodeError | None:
    try:
        request(headers)
    except DecodeError as err:
        return err
    return None


def test_the_request_headers_are_the_properties() -> None:
    schema = load("request_headers")
    assert set(schema["properties"]) == set(call.REQUEST_HEADERS)
    assert set(schema["required"]) == {key for key, required in call.REQUEST_HEADERS.items() if required}


def test_the_reply_headers_are_the_properties() -> None:
    assert set(load("reply_headers")["properties"]) == set(call.REPLY_HEADERS)


@pytest.mark.parametrize("headers", load("request_headers")["examples"])
def test_an_example_of_a_request_is_read(headers: dict[str, str]) -> None:
    assert request(headers).protocol == headers.get("AJ-Protocol", "")


@pytest.mark.parametrize("wait_ns", [100_000_000, 2_500_000_000, 60_000_000_000])
def test_what_a_bridge_sends_is_a_request(wait_ns: int) -> None:
    record = task.TaskRecord.from_wire(encode_json(load("task")["examples"][1]))
    now_ns = 1_643_208_369_000_000_001
    headers = call.call_headers(record, invocation="a", now_ns=now_ns, give_up_ns=now_ns + wait_ns)
    Draft202012Validator(load("request_headers")).validate(headers)


@pytest.mark.parametrize("header", call.REQUEST_HEADERS)
def test_a_request_that_the_schema_lets_through_is_read(header: str) -> None:
    validator = Draft202012Validator(load("request_headers"))
    for text in doubtful_values("request_headers", header):
        if isinstance(text, str):
            headers = fullest_example("request_headers") | {header: text}
            error = request_refusal(headers)
            # A handler is content with less than a bridge must send, so the other direction does not hold.
            assert error is None or not validator.is_valid(headers), text
            assert error is None or error.key == header


@pytest.mark.parametrize("header", [header for header, required in call.REQUEST_HEADERS.items() if required])
def test_a_required_request_header_is_missed(header: str) -> None:
    headers = fullest_example("request_headers")
    del headers[header]
    error = request_refusal(headers)
    assert error is not None
    assert error.key == header


@pytest.mark.parametrize(
    "reply",
    [
        call.Completed(b"done"),
        call.Failed("mailbox full"),
        call.Failed(""),
        call.Failed("line one\r\nline two\0", retry_after_ns=1_500_000_000),
        call.Terminated("no such address: käfer@example.net"),
        call.Terminated("x" * 10_000),
    ],
    ids=str,
)
def test_what_a_handler_answers_is_a_reply(reply: call.Reply) -> None:
    headers = call.reply_headers(reply) or {}
    Draft202012Validator(load("reply_headers")).validate(headers)
    assert type(call.read_reply(headers, b"done")) is type(reply)


@pytest.mark.parametrize(
    "headers",
    [headers for headers in load("reply_headers")["examples"] if "AJ-Progress" not in headers],
    ids=str,
)
def test_an_example_of_a_reply_means_what_its_headers_say(headers: dict[str, str]) -> None:
    reply = call.read_reply(headers, b"done")
    if "AJ-Terminate" in headers:
        assert reply == call.Terminated(headers["AJ-Terminate"])
    elif headers:
        assert isinstance(reply, call.Failed)
        assert (reply.retry_after_ns is None) == ("AJ-Retry-After-Ms" not in headers)
    else:
        assert reply == call.Completed(b"done")


@pytest.mark.parametrize(
    "headers", [headers for headers in load("reply_headers")["examples"] if "AJ-Progress" in headers], ids=str
)
def test_an_example_with_progress_is_interim(headers: dict[str, str]) -> None:
    read = interim.read_interim(headers, b"")
    assert read is not None
    assert read.fraction == (float(headers["AJ-Progress"]) if headers["AJ-Progress"] else None)


@pytest.mark.parametrize("fraction", [None, 0, 0.0, 1e-06, 1e-07, 0.25, 1 / 3, 0.9999999, 1])
def test_an_interim_reply_of_ours_is_what_the_schema_says(fraction: float | None) -> None:
    headers, _ = interim.interim_reply(interim.Interim(fraction))
    Draft202012Validator(load("reply_headers")).validate(headers)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        # What was captured to show a signature is a task.
        pytest.param("task" if vector["kind"] == "signature" else vector["kind"], vector["text"], id=vector["name"])
        for vector in vectors()
        if vector["kind"] in (*KINDS, "signature")
    ],
)
def test_a_golden_vector_is_valid_and_read(kind: str, text: str) -> None:
    validator = Draft202012Validator(load(kind))
    validator.validate(decode_json(text.encode(), kind))
    written = KINDS[kind].read(text.encode()).to_wire()
    validator.validate(decode_json(written, kind))
