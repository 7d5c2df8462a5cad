"""Acknowledgements: what their reply subject says, and the words that are sent to it.

Source: nats-server's consumer.go; the subject has 9 tokens, or 12 where it names a domain and an account.
"""

from typing import Final

import msgspec

from aj_sdk.wire.stamp import ItemRef

__all__ = [
    "ACK",
    "NAK",
    "PROGRESS",
    "TERM",
    "nak_after",
    "read_ack_subject",
    "read_deleted",
    "read_exhausted",
    "read_pending",
    "term",
]

ACK: Final = b"+ACK"
NAK: Final = b"-NAK"
PROGRESS: Final = b"+WPI"
TERM: Final = b"+TERM"

_DELETED: Final = "Unacknowledged message was deleted"
_V1_TOKENS: Final = 9
_V2_MIN_TOKENS: Final = 11


_MAX_DIGITS: Final = 20


class _Terminated(msgspec.Struct):
    stream_seq: int
    reason: str = ""


class _Exhausted(msgspec.Struct):
    stream: str
    stream_seq: int


def read_ack_subject(subject: str) -> ItemRef | None:
    """Read which delivery of which item an acknowledgement subject means; None when it is none."""
    tokens = subject.split(".")
    if tokens[:2] != ["$JS", "ACK"]:
        return None
    if len(tokens) == _V1_TOKENS:
        delivered, sequence = tokens[4], tokens[5]
    elif len(tokens) >= _V2_MIN_TOKENS:
        delivered, sequence = tokens[6], tokens[7]
    else:
        return None
    if not (_is_number(delivered) and _is_number(sequence)):
        return None
    return ItemRef(int(sequence), int(delivered))


def read_pending(subject: str) -> int:
    """Read how many items nobody had been handed when this one was delivered; 0 when it can't be told."""
    tokens = subject.split(".")
    pending = tokens[_V1_TOKENS - 1] if len(tokens) == _V1_TOKENS else tokens[10] if len(tokens) > 10 else ""
    return int(pending) if _is_number(pending) else 0


def read_deleted(advisory: bytes) -> int | None:
    """Read which item an advisory MSG_TERMINATED says went while it was in flight; None for a `+TERM`, or no advisory.

    Source: nats-server's consumer.go; the reason of a `+TERM` is whatever its sender wrote.
    """
    try:
        read = _read_terminated(advisory)
    except _UNREADABLE:
        return None
    return read.stream_seq if read.reason == _DELETED else None


def read_exhausted(advisory: bytes) -> tuple[str, int] | None:
    """Read of which message, by its stream and its sequence, an advisory MAX_DELIVERIES says that nobody gets it again.

    None for what is no advisory.
    """
    try:
        read = _read_exhausted(advisory)
    except _UNREADABLE:
        return None
    return read.stream, read.stream_seq


def nak_after(delay_ns: int) -> bytes:
    """Return the word that gives an item back after a delay."""
    return NAK + b" " + msgspec.json.encode({"delay": max(0, delay_ns)}) if delay_ns > 0 else NAK


def term(reason: str) -> bytes:
    """Return the word that takes an item out for good; the reason shows in the server's advisory."""
    return TERM + b" " + reason.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace")[:512]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


_read_terminated: Final = msgspec.json.Decoder(_Terminated).decode
_read_exhausted: Final = msgspec.json.Decoder(_Exhausted).decode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
