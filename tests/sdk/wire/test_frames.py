"""The client protocol as it comes from the socket: whole, in pieces of any size, and broken."""

import contextlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.errors import DecodeError
from aj_sdk.wire.frames import MAX_LINE, Control, Frame, FrameReader, HeaderForm, Other, header_block, read_header_block

Seen = list[tuple[str, str, bytes, bytes]]


def read(pieces: Iterable[bytes], sid: bytes = b"1") -> tuple[Seen, list[Control | Other], FrameReader]:
    reader = FrameReader()
    seen: Seen = []

    def take(frame: Frame) -> None:
        seen.append((frame.subject, frame.reply, frame.data, frame.block))

    reader.callbacks[sid] = take
    rest = [each for piece in pieces for each in reader.feed(piece)]
    return seen, rest, reader


def message(
    sid: int, data: bytes, *, subject: str = "a.b", reply: str = "", headers: dict[str, str] | None = None
) -> bytes:
    block = b"" if headers is None else header_block(headers)
    if headers is None:
        return f"MSG {subject} {sid} {f'{reply} ' if reply else ''}{len(data)}\r\n".encode() + data + b"\r\n"
    line = f"HMSG {subject} {sid} {f'{reply} ' if reply else ''}{len(block)} {len(block) + len(data)}\r\n"
    return line.encode() + block + data + b"\r\n"


def test_messages_reach_the_callback_of_their_subscription_and_all_else_comes_back() -> None:
    stream = (
        b'INFO {"a": 1} \r\n'
        + message(1, b"hi", reply="r")
        + b"PING\r\n"
        + message(2, b"", subject="c", headers={"A": "b"})
        + b"+OK\r\n-ERR 'Slow Consumer'\r\nPONG\r\n"
        + message(1, b"\r\nPING\r\n", headers={})
    )
    seen, rest, reader = read([stream])
    block = header_block({"A": "b"})
    assert seen == [("a.b", "r", b"hi", b""), ("a.b", "", b"\r\nPING\r\n", header_block({}))]
    assert rest == [
        Control("INFO", b'{"a": 1}'),
        Control("PING", b""),
        Other(2, b"c", b"", block, b""),
        Control("+OK", b""),
        Control("-ERR", b"'Slow Consumer'"),
        Control("PONG", b""),
    ]
    assert (reader.messages, reader.bytes, reader.unfinished) == (3, 10, False)


_names = st.text("abcdefgh", min_size=1, max_size=5)
_messages = st.builds(
    message,
    st.integers(1, 2),
    st.binary(max_size=40),
    subject=_names,
    reply=st.one_of(st.just(""), _names),
    headers=st.one_of(st.none(), st.dictionaries(_names, st.text(max_size=8), max_size=3)),
)
_streams = st.lists(st.one_of(_messages, st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n"])), max_size=12)


@given(_streams, st.data())
def test_it_does_not_matter_in_which_pieces_the_bytes_come(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole_seen, whole_rest, _ = read([stream])
    for given_pieces in (pieces, [stream[at : at + 1] for at in range(len(stream))]):
        seen, rest, reader = read(given_pieces)
        assert seen == whole_seen
        assert rest == whole_rest
        assert not reader.unfinished


@pytest.mark.parametrize("size", [1, 100, 32_768, 1 << 20])
def test_a_large_message_comes_whole_however_large_the_reads_are(size: int) -> None:
    body = bytes(range(256)) * 4096
    stream = message(1, body, headers={"A": "b"}) + message(1, b"next")
    if size == 1:
        stream = message(1, body[:2000]) + message(1, b"next")
    seen, _, _ = read([stream[at : at + size] for at in range(0, len(stream), size)])
    assert [data for _, _, data, _ in seen] == [body[:2000] if size == 1 else body, b"next"]


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_whatever_comes_is_read_or_refused_with_one_kind_of_error(pieces: list[bytes]) -> None:
    with contextlib.suppress(DecodeError):
        read(pieces)


@pytest.mark.parametrize(
    "stream",
    [
        b"MSG\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 x\r\nhi\r\n",
        b"MSG a 1 -1\r\n\r\n",
        b"MSG a 1 r s 2\r\nhi\r\n",
        b"MSG a 1 2\r\nhiXX",
        b"MSGS a 1 2\r\nhi\r\n",
        b"MSG a one 2\r\nhi\r\n",
        b"HMSG a 1 12\r\n",
        b"HMSG a 1 14 12\r\nNATS/1.0\r\n\r\n\r\n",
        b"HMSG a 1 -2 2\r\nhi\r\n",
        b"PINGS\r\n",
        b"HELLO\r\n",
        b"\r\n",
        b"INFOX {}\r\n",
        b"x" * (MAX_LINE + 1),
        b"MSG a 9 99999999999\r\n",
    ],
)
def test_what_is_not_the_protocol_is_refused(stream: bytes) -> None:
    with pytest.raises(DecodeError):
        read([stream], sid=b"9")


def test_after_a_reset_the_rest_of_an_old_message_is_forgotten() -> None:
    reader = FrameReader()
    seen: list[bytes] = []
    reader.callbacks[b"1"] = lambda frame: seen.append(frame.data)
    reader.feed(b"MSG a 1 100\r\nhalf")
    assert reader.unfinished
    reader.reset()
    assert reader.feed(message(1, b"new") + b"PONG\r\n") == [Control("PONG", b"")]
    assert seen == [b"new"]


# Headers.


@pytest.mark.parametrize(
    ("block", "headers"),
    [
        (b"NATS/1.0\r\n\r\n", {}),
        (b"NATS/1.0\r\nA: b\r\nc:d : e \r\n\r\n", {"A": "b", "c": "d : e"}),
        (b"NATS/1.0\r\nA:\r\n\r\n", {"A": ""}),
        (b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n", {"A": "2"}),
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (b"NATS/1.0 100 Idle Heartbeat\r\nX: 1\r\n\r\n", {"Status": "100", "Description": "Idle Heartbeat", "X": "1"}),
        (b"NATS/1.0\r\nA: \xff\xc3\xa4\r\n\r\n", {"A": "\N{REPLACEMENT CHARACTER}ä"}),
    ],
)
def test_a_header_block_is_read(block: bytes, headers: dict[str, str]) -> None:
    assert read_header_block(block) == headers
    assert Frame("a", "", b"", block).headers == (headers or None)


@pytest.mark.parametrize(
    "block", [b"", b"NATS/2.0\r\n\r\n", b"A: b\r\n\r\n", b"NATS/1.0\r\nno colon\r\n\r\n", b"NATS/1.0\r\n: x\r\n\r\n"]
)
def test_a_header_block_that_is_none_is_refused(block: bytes) -> None:
    with pytest.raises(DecodeError):
        read_header_block(block)
    assert Frame("a", "", b"", block).headers is None


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=5))
def test_a_header_can_not_break_out_of_its_line(headers: dict[str, str]) -> None:
    block = header_block(headers)
    assert block.count(b"\n") == block.count(b"\r") == len(headers) + 2
    assert block.startswith(b"NATS/1.0\r\n")
    assert block.endswith(b"\r\n\r\n")


@given(
    st.dictionaries(
        st.from_regex("[A-Za-z-]{1,12}", fullmatch=True), st.from_regex("[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)
    )
)
def test_usual_headers_are_read_as_they_were_written(headers: dict[str, str]) -> None:
    assert read_header_block(header_block(headers)) == headers


@given(st.text(max_size=20), st.integers())
def test_a_form_writes_what_is_written_header_by_header(text: str, number: int) -> None:
    assert HeaderForm("A", "B").block(text, number) == header_block({"A": text, "B": str(number)})


def test_names_that_are_the_same_when_cleaned_keep_their_lines() -> None:
    assert header_block({"": "", "\x85": "\r"}) == b"NATS/1.0\r\n: \r\n: \r\n\r\n"
