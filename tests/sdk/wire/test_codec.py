"""The checks that all decoders share."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.errors import DecodeError
from aj_sdk.wire.codec import (
    Fields,
    decode_json,
    decode_map,
    decode_msgpack,
    encode_base64,
    encode_json,
    encode_msgpack,
)

KNOWN = {"id": True, "count": False}


def fields(**values: Any) -> Fields:
    return decode_map(values, "thing", dict.fromkeys(values, False))


def test_json_and_messagepack_are_read() -> None:
    assert decode_json(b'{"a":[1,null,"x"]}', "thing") == {"a": [1, None, "x"]}
    assert decode_msgpack(encode_msgpack({"a": b"\xff"}), "thing") == {"a": b"\xff"}


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'"\xff"', b'"\\ud800"', b"{} x", b"[" * 100_000])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^thing: (not valid JSON|nested too deeply)"):
        decode_json(data, "thing")


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xa1\xff", b"\x91" * 100_000, b"\x81\xc0\xc0\xc0"])
def test_what_is_not_messagepack_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^thing: (not valid MessagePack|nested too deeply)"):
        decode_msgpack(data, "thing")


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (decode_json, decode_msgpack):
        try:
            decode(data, "thing")
        except DecodeError:
            continue


def test_bytes_are_written_as_go_writes_them() -> None:
    assert encode_base64(b"\xfb\xff") == "+/8="
    assert encode_json({"a": "<ü>"}) == '{"a":"<ü>"}'.encode()


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_a_thing_must_be_an_object(value: Any) -> None:
    with pytest.raises(DecodeError, match=r"^thing: must be an object$"):
        decode_map(value, "thing", KNOWN)
    with pytest.raises(DecodeError, match=r"^thing: part: must be an object$"):
        decode_map(value, "thing", KNOWN, "part")


def test_a_required_key_is_missed() -> None:
    with pytest.raises(DecodeError) as caught:
        decode_map({"count": 1}, "thing", KNOWN)
    assert (caught.value.what, caught.value.key, caught.value.reason) == ("thing", "id", "is missing")
    with pytest.raises(DecodeError, match=r"^thing: part\.id: is missing$"):
        decode_map({}, "thing", KNOWN, "part")


def test_keys_are_read_without_regard_to_case_and_the_exact_spelling_wins() -> None:
    assert decode_map({"ID": "a", "Count": 1}, "thing", KNOWN).text("id") == "a"
    assert decode_map({"ID": "a", "id": "b"}, "thing", KNOWN).text("id") == "b"
    assert decode_map({"id": "b", "ID": "a"}, "thing", KNOWN).text("id") == "b"
    assert decode_map({"ID": "a", "Id": "b"}, "thing", KNOWN).text("id") == "a"


def test_unknown_keys_are_kept_as_they_are() -> None:
    read = decode_map({"id": "a", "New": 1, "other": None}, "thing", KNOWN)

    assert read.rest(KNOWN) == {"New": 1, "other": None}
    assert decode_map({"id": "a"}, "thing", KNOWN).rest(KNOWN) == {}
    assert decode_map({"ID": "a"}, "thing", KNOWN).rest(KNOWN) == {}


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(DecodeError, match="a key that is not text"):
        decode_map({"id": "a", 1: 2}, "thing", KNOWN)


@pytest.mark.parametrize(
    ("read", "value", "result"),
    [
        (Fields.get, [1], [1]),
        (Fields.text, "x", "x"),
        (Fields.text, None, ""),
        (Fields.name, "email:new", "email:new"),
        (lambda f, key: f.name(key, empty=True), "", ""),
        (lambda f, key: f.name(key, empty=True), None, ""),
        (lambda f, key: f.names(key, 2), ["a", "b"], ("a", "b")),
        (lambda f, key: f.names(key, 2), None, ()),
        (Fields.integer, 2**63 - 1, 2**63 - 1),
        (Fields.integer, -(2**63), -(2**63)),
        (Fields.integer, None, 0),
        (lambda f, key: f.integer(key, 10), None, 10),
        (Fields.flag, True, True),
        (Fields.flag, None, False),
        (Fields.time, "1970-01-01T00:00:01Z", 10**9),
        (Fields.time, None, None),
        (Fields.blob, "+/8=", b"\xfb\xff"),
        (Fields.blob, "", b""),
        (Fields.blob, b"\xff", b"\xff"),
        (Fields.blob, None, None),
    ],
)
def test_a_field_is_read(read: Callable[[Fields, str], Any], value: Any, result: Any) -> None:
    assert read(fields(key=value), "key") == result


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (Fields.text, 1),
        (Fields.text, b"x"),
        (Fields.name, ""),
        (Fields.name, "a b"),
        (Fields.name, 7),
        (lambda f, key: f.name(key, empty=True), "a\n"),
        (lambda f, key: f.names(key, 2), "ab"),
        (lambda f, key: f.names(key, 2), ["a", "b", "c"]),
        (lambda f, key: f.names(key, 2), ["a", "*"]),
        (lambda f, key: f.names(key, 2), ["a", 1]),
        (Fields.integer, 2**63),
        (Fields.integer, -(2**63) - 1),
        (Fields.integer, 1.0),
        (Fields.integer, True),
        (Fields.integer, "1"),
        (Fields.flag, 1),
        (Fields.flag, "true"),
        (Fields.time, 1),
        (Fields.time, "yesterday"),
        (Fields.blob, "a"),
        (Fields.blob, "a b="),
        (Fields.blob, "_-8="),
        (Fields.blob, "ü"),
        (Fields.blob, [1]),
    ],
)
def test_a_field_of_another_kind_is_refused_by_name(read: Callable[[Fields, str], Any], value: Any) -> None:
    with pytest.raises(DecodeError, match=r"^thing: part\.key: "):
        read(decode_map({"key": value}, "thing", {"key": False}, "part"), "key")


def test_an_integer_that_messagepack_can_not_hold_is_a_float_as_in_go() -> None:
    value = {"a": [2**64 - 1, -(2**63), 2**64, -(10**20)], "b": (10**400, -(10**400)), "c": True}

    assert decode_msgpack(encode_msgpack(value), "thing") == {
        "a": [2**64 - 1, -(2**63), 2.0**64, -1e20],
        "b": [float("inf"), float("-inf")],
        "c": True,
    }


def test_a_time_that_must_be_there_is_missed() -> None:
    assert fields(key="1970-01-01T00:00:01Z").instant("key") == 10**9
    with pytest.raises(DecodeError, match=r"^thing: key: must be an RFC 3339 time$"):
        fields(key=None).instant("key")


@given(st.binary())
def test_bytes_survive_base64(data: bytes) -> None:
    assert fields(key=encode_base64(data)).blob("key") == data
