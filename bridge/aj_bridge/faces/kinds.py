"""Kinds of option values: how each is written, read and refused.

A kind's `parse` raises ValueError, or an error of ours, that says what is wrong and how to write it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from aj_bridge.core.retry import read_policy, write_policy
from aj_sdk.keys import load_key, load_seed
from aj_sdk.servers import split_servers
from aj_sdk.wire.names import check_name
from aj_sdk.wire.queue import MAX_WEIGHT
from aj_sdk.wire.times import NS_PER_S, format_duration, parse_duration

__all__ = [
    "HOST_PORT",
    "SERVERS",
    "TRUTH",
    "Address",
    "Kind",
    "backoff",
    "choice",
    "duration",
    "kept",
    "key",
    "name",
    "number",
    "pair",
    "path",
    "seed",
    "text",
    "weighted",
]

_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")
_LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be.

    Attributes:
        metavar: stands for the value in help texts.
        parse: reads a text.
        show: writes a value as `parse` reads it.
        toml: the type that a TOML file has for it.
        from_table: turns a TOML table into the text that `parse` reads, where the file may have one; raises ValueError.
    """

    metavar: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    toml: type = str
    from_table: Callable[[Mapping[str, Any]], str] | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes:
        host: the address; empty for all of this machine's.
        port: the port; 0 for a free one.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def text(metavar: str) -> Kind:
    """Any text."""
    return Kind(metavar, str)


def name(what: str, metavar: str = "NAME", *, empty: bool = False) -> Kind:
    """A name that may cross the wire; also the empty one if `empty`."""
    return Kind(metavar, lambda given: given if empty and not given else check_name(given, what))


def weighted(what: str) -> Kind:
    """A name that may have a weight, `NAME` or `NAME=WEIGHT`; the value is the two, None for no weight."""
    return Kind("NAME[=WEIGHT]", partial(_weighted, what), _weight_text)


def choice(words: Sequence[str]) -> Kind:
    """One of a few words, in any case."""
    return Kind("|".join(words), partial(_one_of, words))


def backoff() -> Kind:
    """A retry policy: a name, `min=1s,max=10m,factor=2,jitter=0.5`, or intervals; in TOML also a table of the parts."""
    return Kind("NAME|SPEC", read_policy, write_policy, from_table=_policy_text)


def pair(what: str, metavar: str) -> Kind:
    """A name, possibly empty, and a text, `NAME=TEXT`; the value is the two."""
    return Kind(metavar, partial(_pair, what, metavar), "=".join)


def number(least: int, most: int = 1_000_000, *, unlimited: bool = False) -> Kind:
    """A whole number from `least` to `most`; also -1, for no limit, if `unlimited`."""
    return Kind("N", partial(_whole, least, most, unlimited), toml=int)


def duration(least_ns: int = 0, most_ns: int | None = None) -> Kind:
    """A duration as Go writes it, from `least_ns` to `most_ns`; the value is in nanoseconds."""
    return Kind("DURATION", partial(_duration, least_ns, most_ns=most_ns), _short)


def path(metavar: str) -> Kind:
    """A path of a file or folder; `~` is this user's home. Whether it is there is the business of who uses it."""
    return Kind(metavar, _path)


def key() -> Kind:
    """A public key that verifies tasks, in hex or in a file; the value is hex."""
    return Kind("KEY", load_key)


def seed() -> Kind:
    """A seed that signs tasks, in hex or in a file; the value is hex."""
    return Kind("SEED", load_seed)


def kept(states: Sequence[str]) -> Kind:
    """How long records of a state are kept, `STATE=DURATION`; the value is a pair of the state and nanoseconds."""
    return Kind("STATE=DURATION", partial(_kept, states), lambda value: f"{value[0]}={_short(value[1])}")


def _kept(states: Sequence[str], given: str) -> tuple[str, int]:
    state, equals, span = given.partition("=")
    if not equals:
        raise ValueError(f"{given[:60]!r} is not of the form {states[0]}=1h")
    return _one_of(states, state), _duration(NS_PER_S, span)


def _policy_text(table: Mapping[str, Any]) -> str:
    parts = []
    for name, value in table.items():
        if name == "intervals" and isinstance(value, list):
            parts += [str(each) for each in value]
        else:
            parts.append(f"{name}={value}")
    return ",".join(parts)


def _pair(what: str, metavar: str, given: str) -> tuple[str, str]:
    first, equals, second = given.partition("=")
    if not equals or not second:
        raise ValueError(f"{given[:60]!r} is not of the form {metavar}")
    return check_name(first, what) if first else first, second


def _one_of(words: Sequence[str], given: str) -> str:
    if given.lower() not in words:
        raise ValueError(f"{given[:60]!r} is not one of {', '.join(words)}")
    return given.lower()


def _whole(least: int, most: int, unlimited: bool, given: str) -> int:
    rule = f"must be a whole number from {least} to {most}{', or -1 for no limit' if unlimited else ''}"
    # int() alone would take "1_0", " 1 " and digits of other scripts.
    if not given.removeprefix("-").isdecimal() or not given.isascii() or len(given) > 18:
        raise ValueError(f"{rule}, not {given[:60]!r}")
    value = int(given)
    if not least <= value <= most and not (unlimited and value == -1):
        raise ValueError(f"{rule}, not {value}")
    return value


def _truth(given: str) -> bool:
    if given.lower() not in (*_TRUE, *_FALSE):
        raise ValueError(f"{given[:60]!r} is neither true nor false; write 1 or 0")
    return given.lower() in _TRUE


def _duration(least_ns: int, given: str, *, most_ns: int | None = None) -> int:
    value = parse_duration(given)
    if value < least_ns:
        raise ValueError(f"must be at least {_short(least_ns)}, not {given[:60]}")
    if most_ns is not None and value > most_ns:
        raise ValueError(f"must be at most {_short(most_ns)}, not {given[:60]}")
    return value


def _short(span_ns: int) -> str:
    """Write a duration without the zeros at its end that Go writes: `1h` for `1h0m0s`."""
    shown = format_duration(span_ns)
    for tail, zero in (("m0s", "0s"), ("h0m", "0m")):
        shown = shown.removesuffix(zero) if shown.endswith(tail) else shown
    return shown


def _path(given: str) -> Path:
    if not given or "\0" in given:
        raise ValueError("must name a file or folder")
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise ValueError(f"{given[:60]!r} begins with the home of nobody here") from None


def _address(given: str) -> Address:
    host, colon, port = given.rpartition(":")
    if not port.isdecimal() or not port.isascii() or len(port) > 5 or int(port) > 65535:
        raise ValueError(f"{given[:60]!r} has no port from 0 to 65535; write it like 127.0.0.1:8080 or 8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{given[:60]!r} is ambiguous; write an address of IP version 6 in brackets")
    if not host.isprintable() or any(mark in host for mark in " /@[]"):
        raise ValueError(f"{given[:60]!r} names no host; write it like 127.0.0.1:8080")
    return Address(host if colon else _LOOPBACK, int(port))


def _servers(given: str) -> str:
    split_servers(given)
    return given


def _weight_text(value: tuple[str, int | None]) -> str:
    given, weight = value
    return given if weight is None else f"{given}={weight}"


def _weighted(what: str, given: str) -> tuple[str, int | None]:
    text, equals, weight = given.partition("=")
    if not equals:
        return check_name(text, what), None
    return check_name(text, what), _whole(1, MAX_WEIGHT, False, weight)


TRUTH: Final = Kind("", _truth, lambda value: "true" if value else "false", bool)
"""`1`, `true`, `yes`, `on` or their opposites, in any case."""

HOST_PORT: Final = Kind("[HOST:]PORT", _address)
"""`HOST:PORT`, `:PORT` for all addresses of this machine, or `PORT` on the loopback address."""

SERVERS: Final = Kind("URL", _servers)
"""URLs of NATS servers, separated by commas; checked, and kept as they are."""
