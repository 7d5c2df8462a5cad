"""Breaking what is well-formed, in every way that we know of."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any, Final

__all__ = ["broken", "broken_objects", "huge"]

_DEEP: Final = 100_000
_HUGE: Final = 1 << 20

VALUES: Final[tuple[str, ...]] = (
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e400",
    "-0.0",
    "NaN",
    "Infinity",
    "9223372036854775808",
    "-9223372036854775809",
    "9" * 5000,
    '""',
    '"\\u0000"',
    '"\\ud800"',
    '"a b.c>*"',
    '"' + "\U0001f600" * 50 + '"',
    '"AAA"',
    '"9999-12-31T23:59:60Z"',
    '"0000-00-00T00:00:00Z"',
    '"2022-01-26T14:46:12.9999999999Z"',
    '"٣"',
    "[]",
    "{}",
    "[[[]]]",
    '{"a":{"a":1}}',
    "[null]",
    '[""]',
    '["*"]',
    '{"":null}',
)
"""JSON that may stand where something else is expected; not all of it is JSON."""


def broken(data: bytes, chance: Random) -> Iterator[bytes]:
    """Break any bytes: cut off at each byte, with bytes turned, doubled, left out and moved."""
    yield from (data[:end] for end in range(0, len(data), max(1, len(data) // 120)))
    yield data + data
    yield b"\xef\xbb\xbf" + data
    yield data + b"\0"
    for _ in range(120):
        at = chance.randrange(len(data) + 1)
        other = chance.randrange(len(data) + 1)
        turned = bytes([chance.choice([0, 9, 10, 13, 32, 34, 46, 48, 57, 92, 123, 127, 128, 255])])
        yield chance.choice(
            (
                data[:at] + turned + data[at + 1 :],
                data[:at] + turned * chance.choice([1, 40]) + data[at:],
                data[: min(at, other)] + data[max(at, other) :],
                data[:at] + data[min(at, other) : max(at, other)] + data[at:],
            )
        )


def broken_objects(data: bytes) -> Iterator[bytes]:
    """Break a JSON object: each field in turn gone, doubled, of every other type, nested and spelled otherwise."""
    fields: dict[str, Any] = json.loads(data)
    whole = {name: json.dumps(value) for name, value in fields.items()}
    for name, value in fields.items():
        others = [f"{json.dumps(key)}:{text}" for key, text in whole.items() if key != name]
        quoted = json.dumps(name)
        yield _object(others)
        for other in VALUES:
            yield _object([*others, f"{quoted}:{other}"])
        yield _object([*others, f"{quoted}:{whole[name]}", f"{quoted}:null"])
        yield _object([*others, f"{json.dumps(name.upper())}:{whole[name]}"])
        if isinstance(value, dict):
            for inner in broken_objects(whole[name].encode()):
                yield _object([*others, f"{quoted}:{inner.decode('utf-8', 'surrogatepass')}"])
    yield _object([*(f"{json.dumps(key)}:{text}" for key, text in whole.items()), '"AJ-new":{"a":[1,2,3]}'])


def _object(members: list[str]) -> bytes:
    return ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")


def huge(data: bytes) -> Iterator[bytes]:
    """Make it deep, or big."""
    yield b"[" * _DEEP
    yield b'{"a":' * _DEEP
    yield b"\x91" * _DEEP
    yield b"\x81\xa1a" * _DEEP
    yield b"x" * _HUGE
    yield b"9" * _HUGE
    yield b"a: b\r\n" * (_HUGE // 6)
    yield b"." * _HUGE
    at = data.rfind(b'"')
    if at >= 0:
        yield data[:at] + b"x" * _HUGE + data[at:]
        yield data[:at] + b'","zzz":' + b"[" * _DEEP + b"]" * _DEEP + b"}"
    middle = len(data) // 2
    yield data[:middle] + b"1" * _HUGE + data[middle:]
