"""The NATS client protocol as a client reads it: bytes in, messages out, in one pass over each read.

Pure: a reader is fed what came from the socket and calls back for each message; what else a server says comes back as
values. Source: the client protocol of nats-server (`MSG`, `HMSG`, `PING`, `PONG`, `+OK`, `-ERR`, `INFO`).
"""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Final, TypeAlias

import msgspec

from aj_sdk.errors import DecodeError

__all__ = [
    "MAX_LINE",
    "Control",
    "Frame",
    "FrameReader",
    "HeaderForm",
    "Other",
    "header_block",
    "read_header_block",
]

MAX_LINE: Final = 1 << 20
"""Most bytes of a control line: a server's `INFO` names all servers of its cluster."""

_MAX_BODY: Final = 65 << 20
"""Most bytes of headers and body: a server takes no more than 64 MiB."""

_VERSION: Final = "NATS/1.0"
_VERSION_BYTES: Final = b"NATS/1.0"
_M: Final = ord("M")
_H: Final = ord("H")
_P: Final = ord("P")


class Frame:
    """A message that came; its headers are read when somebody asks for them.

    Attributes:
        subject: the subject it was published on.
        reply: where an answer goes, empty for nowhere.
        data: the body.
        block: the header block as it came, empty for none.
    """

    __slots__ = ("_headers", "block", "data", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, block: bytes) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.block = block
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers as they were spelled, `Status` and `Description` of a status line among them; None for none.

        A block that can't be read gives no headers: whoever must know looks with `read_header_block`.
        """
        if self._headers is None and self.block:
            try:
                self._headers = read_header_block(self.block)
            except DecodeError:
                self._headers = {}
        return self._headers or None


class Control(msgspec.Struct, frozen=True):
    """Something that a server says of the connection.

    Attributes:
        op: `PING`, `PONG`, `+OK`, `-ERR` or `INFO`.
        argument: what follows it on the line.
    """

    op: str
    argument: bytes


class Other(msgspec.Struct, frozen=True):
    """A message for a subscription that nobody registered here.

    Attributes:
        sid: the subscription's number.
        subject: the subject it was published on.
        reply: where an answer goes.
        block: the header block.
        data: the body.
    """

    sid: int
    subject: bytes
    reply: bytes
    block: bytes
    data: bytes


OnFrame: TypeAlias = Callable[[Frame], None]


class FrameReader:
    """Reads the protocol.

    Args:
        on_defect: called with the message whose callback has just raised, to go on with the next one; without it what
            was raised ends the reading.

    Attributes:
        callbacks: what is called with each message, by the subscription's number in decimal bytes. It may change at
            any time.
        messages: messages read so far, since this was set.
        bytes: bytes of their bodies.
    """

    def __init__(self, on_defect: OnFrame | None = None) -> None:
        self._on_defect = on_defect
        self.callbacks: MutableMapping[bytes, OnFrame] = {}
        self.messages = 0
        self.bytes = 0
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0

    @property
    def unfinished(self) -> bool:
        """Whether a frame has come in part."""
        return bool(self._parts)

    def reset(self) -> None:
        """Forget what has been read of an unfinished frame: the connection is a new one."""
        self._parts.clear()
        self._have = self._need = 0

    def feed(self, data: bytes) -> list[Control | Other]:
        """Read what came.

        Messages are handed to their callbacks at once, in their order.

        Returns:
            All else, in its order.

        Raises:
            DecodeError: it is not the protocol; the connection is of no use any more.
        """
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        rest: list[Control | Other] = []
        position = self._read(data, rest)
        if position < len(data):
            self._parts.append(data[position:] if position else data)
            self._have = len(data) - position
        return rest

    def _read(self, data: bytes, rest: list[Control | Other]) -> int:
        # The hot loop: local names, no slices but those that are kept.
        find, callbacks = data.find, self.callbacks
        position, end = 0, len(data)
        self._need = 0
        while position < end:
            line_end = find(b"\r\n", position)
            if line_end < 0:
                if end - position > MAX_LINE:
                    raise DecodeError("server", "", f"a line of more than {MAX_LINE} bytes")
                return position
            first = data[position]
            if first == _H or first == _M:  # noqa: PLR1714, SIM109 - twice as fast as a tuple
                words = data[position:line_end].split()
                with_headers = first == _H
                try:
                    body_end = line_end + 2 + int(words[-1])
                    header_end = line_end + 2 + (int(words[-2]) if with_headers else 0)
                    sid = words[2]
                except (ValueError, IndexError):
                    raise _malformed(data, position, line_end) from None
                expected = 5 if with_headers else 4
                if (
                    words[0] != (b"HMSG" if with_headers else b"MSG")
                    or not expected <= len(words) <= expected + 1
                    or not line_end + 2 <= header_end <= body_end <= line_end + _MAX_BODY
                ):
                    raise _malformed(data, position, line_end)
                if body_end + 2 > end:
                    self._need = body_end + 2 - position
                    return position
                if data[body_end] != 13 or data[body_end + 1] != 10:
                    raise _malformed(data, position, line_end)
                reply = words[3] if len(words) > expected else b""
                block = data[line_end + 2 : header_end] if with_headers else b""
                body = data[header_end:body_end]
                position = body_end + 2
                self.messages += 1
                self.bytes += len(body)
                callback = callbacks.get(sid)
                if callback is not None:
                    frame = Frame(words[1].decode("utf-8", "replace"), reply.decode("utf-8", "replace"), body, block)
                    try:
                        callback(frame)
                    except Exception:
                        if self._on_defect is None:
                            raise
                        self._on_defect(frame)
                else:
                    rest.append(_other(sid, words[1], reply, block, body))
                continue
            rest.append(_control(data[position:line_end], first))
            position = line_end + 2
        return position


def _other(sid: bytes, subject: bytes, reply: bytes, block: bytes, body: bytes) -> Other:
    if not sid.isdigit():
        raise DecodeError("server", "", f"{sid[:20]!r} is no number of a subscription")
    return Other(int(sid), subject, reply, block, body)


def _control(line: bytes, first: int) -> Control:
    op, _, argument = line.strip().partition(b" ")
    if first == _P and op in (b"PING", b"PONG"):
        return Control(op.decode(), b"")
    if op in (b"+OK", b"-ERR", b"INFO"):
        return Control(op.decode(), argument.strip())
    raise DecodeError("server", "", f"{line[:40]!r} is not of the protocol")


def _malformed(data: bytes, start: int, end: int) -> DecodeError:
    return DecodeError("server", "", f"{data[start : min(end, start + 80)]!r} is not of the protocol")


def read_header_block(block: bytes) -> dict[str, str]:
    """Read a header block.

    A name that stands there twice has the value of its last line. Bytes that are not UTF-8 become U+FFFD.

    Returns:
        The headers as they are spelled; a status line gives `Status` and, where it has one, `Description`.

    Raises:
        DecodeError: it does not begin with the version, or a line has no name.
    """
    if not block.startswith(_VERSION_BYTES):
        raise DecodeError("headers", "", f"{block[:20]!r} is not {_VERSION}")
    lines = block.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    status = lines[0][len(_VERSION) :].strip()
    if status:
        code, _, description = status.partition(" ")
        headers["Status"] = code
        if description.strip():
            headers["Description"] = description.strip()
    for line in lines[1:]:
        if not line:
            continue
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon or not name:
            raise DecodeError("headers", "", f"{line[:40]!r} is no header")
        headers[name] = value.strip()
    return headers


def header_block(headers: Mapping[str, str]) -> bytes:
    """Write a header block; what would break it (CR, LF) becomes a space."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        text = "".join([f"{_one_line(name)}: {_one_line(value)}\r\n" for name, value in headers.items()])
    return f"{_VERSION}\r\n{text}\r\n".encode("utf-8", "replace")


class HeaderForm:
    """A header block that is written again and again, each time with other values: four times as fast.

    Args:
        names: the names of the headers, in their order.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._form = "".join([f"{_VERSION}\r\n", *(f"{name}: %s\r\n" for name in names), "\r\n"])
        self._lines = self._form.count("\n")

    def block(self, *values: str | int) -> bytes:
        """Write the block; the values in the order of the names."""
        text = self._form % values
        if text.count("\n") != self._lines or text.count("\r") != self._lines:
            return header_block(dict(zip(self._names, map(str, values), strict=True)))
        return text.encode("utf-8", "replace")


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ").strip()
