"""Option values: what is read, what is refused, and that what is shown can be read again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_bridge.faces.kinds import (
    HOST_PORT,
    SERVERS,
    TRUTH,
    Address,
    Kind,
    choice,
    duration,
    name,
    number,
    path,
    text,
    weighted,
)
from aj_sdk.errors import AsyncJobsError

KINDS = {
    "text": text("X"),
    "name": name("queue name"),
    "empty name": name("task type", empty=True),
    "choice": choice(("a", "b")),
    "number": number(1, 100),
    "unlimited": number(1, unlimited=True),
    "duration": duration(1000),
    "bounded duration": duration(1000, 3600 * 10**9),
    "path": path("DIR"),
    "truth": TRUTH,
    "address": HOST_PORT,
    "servers": SERVERS,
    "weighted": weighted("queue name"),
}


@pytest.mark.parametrize(
    ("kind", "given_text", "value"),
    [
        ("text", " as it is ", " as it is "),
        ("name", "email:new", "email:new"),
        ("empty name", "", ""),
        ("choice", "A", "a"),
        ("number", "100", 100),
        ("unlimited", "-1", -1),
        ("duration", "1m30s", 90_000_000_000),
        ("bounded duration", "1h", 3600 * 10**9),
        ("path", "/a/b", Path("/a/b")),
        ("truth", "Yes", True),
        ("truth", "0", False),
        ("address", "9090", Address("127.0.0.1", 9090)),
        ("address", ":9090", Address("", 9090)),
        ("address", "0.0.0.0:0", Address("0.0.0.0", 0)),
        ("address", "[::1]:9090", Address("::1", 9090)),
        ("servers", "nats://u:p@a,b", "nats://u:p@a,b"),
        ("weighted", "EMAIL", ("EMAIL", None)),
        ("weighted", "EMAIL=1000", ("EMAIL", 1000)),
    ],
)
def test_a_value_is_read(kind: str, given_text: str, value: object) -> None:
    assert KINDS[kind].parse(given_text) == value


@pytest.mark.parametrize(
    ("kind", "given_text", "reason"),
    [
        ("name", "a.b", "queue name 'a.b' is invalid"),
        ("name", "", "is invalid"),
        ("weighted", "a.b=3", "queue name 'a.b' is invalid"),
        ("weighted", "=3", "is invalid"),
        ("weighted", "EMAIL=", "must be a whole number from 1 to 1000"),
        ("weighted", "EMAIL=0", "from 1 to 1000, not 0"),
        ("weighted", "EMAIL=1001", "from 1 to 1000, not 1001"),
        ("weighted", "EMAIL=1=2", "must be a whole number"),
        ("name", "a\n", "is invalid"),
        ("choice", "c", "'c' is not one of a, b"),
        ("number", "0", "from 1 to 100, not 0"),
        ("number", "101", "from 1 to 100, not 101"),
        ("number", "1_0", "not '1_0'"),
        ("number", "٣", "must be a whole number"),
        ("number", "1.0", "must be a whole number"),
        ("number", "9" * 100, "must be a whole number"),
        ("unlimited", "-2", "or -1 for no limit"),
        ("duration", "30", "write it like 30s"),
        ("duration", "999ns", "must be at least 1µs"),
        ("duration", "-1s", "must be at least"),
        ("bounded duration", "1h1ns", "must be at most 1h, not 1h1ns"),
        ("path", "", "must name a file"),
        ("path", "~nobody-of-this-name/x", "the home of nobody here"),
        ("truth", "maybe", "write 1 or 0"),
        ("address", "host", "no port"),
        ("address", "host:65536", "no port"),
        ("address", "::1", "ambiguous"),
        ("address", "a b:1", "names no host"),
        ("address", "http://a:1", "ambiguous"),
        ("servers", "http://a", "must begin with"),
    ],
)
def test_a_wrong_value_is_refused_with_the_way_to_write_it(kind: str, given_text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        KINDS[kind].parse(given_text)


def test_durations_are_shown_as_people_write_them() -> None:
    show = KINDS["duration"].show
    assert [show(KINDS["duration"].parse(t)) for t in ("1h", "30s", "1m", "1h30m", "1h0m1s", "10m", "250ms")] == [
        *("1h", "30s", "1m", "1h30m", "1h0m1s", "10m", "250ms")
    ]


@given(st.sampled_from(list(KINDS.values())), st.text(max_size=40))
def test_what_is_shown_can_be_read_again_and_anything_else_is_refused_in_words(kind: Kind, given_text: str) -> None:
    try:
        value = kind.parse(given_text)
    except (ValueError, AsyncJobsError):
        return
    assert kind.parse(kind.show(value)) == value
