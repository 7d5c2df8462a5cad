"""What a task's stored result means to a program."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from aj_sdk.errors import PayloadError
from aj_sdk.results import result_bytes, result_value
from aj_sdk.wire.task import TaskResult


@dataclass
class Sent:
    to: str


class Receipt(msgspec.Struct):
    number: int


def reply(body: bytes) -> TaskResult:
    return TaskResult(payload=b64encode(body).decode(), completed_ns=0)


def plain(value: Any) -> TaskResult:
    return TaskResult(payload=value, completed_ns=0)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"to":"a"}', {"to": "a"}),
        (b"17", 17),
        (b'"text"', "text"),
        (b"null", None),
        (b"", None),
        (b"plain words", b"plain words"),
        (b"\xff\x00", b"\xff\x00"),
        (b"[" * 5000, b"[" * 5000),
    ],
)
def test_a_reply_is_read_as_json_when_it_is_json(body: bytes, value: Any) -> None:
    assert result_value(reply(body)) == value
    assert result_bytes(reply(body)) == body


@pytest.mark.parametrize("value", [{"a": [1]}, [1], 17, 1.5, True, None, "done, sir", "a===", "ab"])
def test_a_value_of_an_in_process_handler_is_left_as_it_is(value: Any) -> None:
    assert result_value(plain(value)) == value
    assert msgspec.json.decode(result_bytes(plain(value))) == value


def test_raw_bytes_of_a_messagepack_record_are_the_reply() -> None:
    assert result_value(plain(b"\xff")) == b"\xff"
    assert result_bytes(plain(b"\xff")) == b"\xff"


def test_a_type_decides_what_a_result_is_read_as() -> None:
    assert result_value(reply(b'{"to":"a"}'), Sent) == Sent("a")
    assert result_value(reply(b'{"number":1}'), Receipt) == Receipt(1)
    assert result_value(plain({"number": 1}), Receipt) == Receipt(1)
    assert result_value(reply(b"17"), int) == 17
    assert result_value(reply(b"17"), bytes) == b"17"
    assert result_value(plain({"a": 1}), bytes) == b'{"a":1}'
    assert result_value(reply(b"17"), str) == "17"
    assert result_value(reply("grüße".encode()), str) == "grüße"


def test_a_word_that_is_base64_by_chance_is_had_by_its_type() -> None:
    assert result_value(plain("done")) == b"v\x89\xde"
    assert result_value(plain("done"), str) == "done"
    assert result_value(plain("2024"), dict | str) == "2024"


def test_a_result_that_does_not_fit_its_type_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"payload at \$\.number"):
        result_value(reply(b'{"number":"x"}'), Receipt)
    with pytest.raises(PayloadError):
        result_value(plain({"number": "x"}), Receipt)
    with pytest.raises(PayloadError, match="the result is no text, but dict"):
        result_value(plain({}), str)
