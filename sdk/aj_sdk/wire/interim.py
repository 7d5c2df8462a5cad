"""Interim replies of a handler: that it lives, and how far it has come; and what they mean for the time that it has.

Both sides use it: a handler's process writes them, the bridge reads them and tells others of the progress.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from aj_sdk.errors import DecodeError
from aj_sdk.wire.codec import decode_json, decode_map, encode_json
from aj_sdk.wire.headers import find_header, header_text
from aj_sdk.wire.names import H_ERROR, H_PROGRESS, H_SERVICE_ERROR, H_TERMINATE
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S, format_time

__all__ = [
    "MAX_NOTE",
    "MISSED",
    "PROGRESS_KEYS",
    "Interim",
    "Patience",
    "Progress",
    "heartbeat_ns",
    "interim_reply",
    "read_interim",
]

MAX_NOTE: Final = 1024
"""Most bytes of a note, in UTF-8."""

MISSED: Final = 3
"""So many heartbeats in a row must be missing before a handler counts as lost."""

_MOST_NS: Final = 10 * NS_PER_S
_LEAST_NS: Final = NS_PER_S // 10
_FINAL_HEADERS: Final = (H_ERROR, H_TERMINATE, H_SERVICE_ERROR)
_NOTE_KEYS: Final = {"note": False}


class Interim(msgspec.Struct, frozen=True):
    """An interim reply.

    Attributes:
        fraction: how much is done, 0 to 1; None for a mere sign of life.
        note: a word about it, empty for none.
    """

    fraction: float | None = None
    note: str = ""


@lru_cache(maxsize=64)  # a queue's lease is the same for all its calls
def heartbeat_ns(lease_ns: int) -> int:
    """Return how often a handler shows that it lives: three times a lease, and every 10 s at most."""
    return max(_LEAST_NS, min(_MOST_NS, lease_ns // 3 // NS_PER_MS * NS_PER_MS)) if lease_ns > 0 else _MOST_NS


def interim_reply(interim: Interim) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of an interim reply."""
    # Without an exponent: not every reader takes one.
    number = "" if interim.fraction is None else f"{interim.fraction:.6f}".rstrip("0").rstrip(".")
    note = header_text(interim.note, MAX_NOTE)
    return {H_PROGRESS: number}, encode_json({"note": note}) if note else b""


def read_interim(headers: Mapping[str, str] | None, body: bytes) -> Interim | None:
    """Read a reply, None when it is not an interim one.

    A reply with an error is final, whatever else it says. A number that is none, or lies outside 0 to 1, and a body
    that can't be read, still prove that the handler lives.
    """
    text = find_header(headers, H_PROGRESS)
    if text is None or any(find_header(headers, name) is not None for name in _FINAL_HEADERS):
        return None
    try:
        fraction = float(text) if text.strip() else None
    except ValueError:
        fraction = None
    if fraction is not None and not 0 <= fraction <= 1:  # `nan` is neither
        fraction = None
    return Interim(fraction, _note(body))


def _note(body: bytes) -> str:
    if not body:
        return ""
    try:
        note = decode_map(decode_json(body, "note"), "note", _NOTE_KEYS).text("note")
    except DecodeError:
        return ""
    return header_text(note, MAX_NOTE)


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a bridge waits for a handler; times are seconds of a monotonic clock.

    Attributes:
        run_time_s: how long one stretch of work may take.
        heartbeat_s: how often a sign of life is to come, once there was one.
        until: when the deadline passes.
        lost_at: when the handler counts as lost; infinite before its first sign of life.
    """

    run_time_s: float
    heartbeat_s: float
    until: float
    lost_at: float = math.inf

    @classmethod
    def begin(cls, now: float, *, run_time_s: float, heartbeat_s: float) -> "Patience":
        """Begin to wait."""
        return cls(run_time_s=run_time_s, heartbeat_s=heartbeat_s, until=now + run_time_s)

    def after(self, interim: Interim, now: float) -> "Patience":
        """Return the patience after an interim reply: any proves life, a number moves the deadline too."""
        return msgspec.structs.replace(
            self,
            lost_at=now + MISSED * self.heartbeat_s,
            until=self.until if interim.fraction is None else now + self.run_time_s,
        )

    @property
    def limit(self) -> float:
        """Until when the next reply must come."""
        return min(self.until, self.lost_at)

    @property
    def lost(self) -> bool:
        """Whether it is the missing signs of life that end it, and not the deadline."""
        return self.lost_at < self.until


PROGRESS_KEYS: Final[Mapping[str, bool]] = {
    "task_id": True,
    "task_type": True,
    "queue": True,
    "try": True,
    "invocation": False,
    "progress": True,
    "note": False,
    "timestamp": True,
}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a task has come, as it is told on `CHORIA_AJ.P.<task id>`; best effort.

    Attributes:
        task_id: the task.
        task_type: its type.
        queue: its queue.
        try_: which try.
        invocation: which call.
        fraction: how much is done, 0 to 1.
        note: a word about it, empty for none.
        timestamp_ns: when, nanoseconds since the epoch.
    """

    task_id: str
    task_type: str
    queue: str
    try_: int
    invocation: str
    fraction: float
    note: str
    timestamp_ns: int

    def to_wire(self) -> bytes:
        """Return its JSON."""
        fields: dict[str, object] = {
            "task_id": self.task_id,
            "task_type": self.task_type,
            "queue": self.queue,
            "try": self.try_,
            "invocation": self.invocation,
            "progress": self.fraction,
        }
        if self.note:
            fields["note"] = self.note
        fields["timestamp"] = format_time(self.timestamp_ns)
        return encode_json(fields)

    @classmethod
    def from_wire(cls, data: bytes) -> "Progress":
        """Read its JSON.

        Raises:
            DecodeError: it is none; the error names the key.
        """
        fields = decode_map(decode_json(data, "progress"), "progress", PROGRESS_KEYS)
        fraction = fields.get("progress")
        if not isinstance(fraction, int | float) or isinstance(fraction, bool) or not 0 <= fraction <= 1:
            raise fields.wrong("progress", "must be a number from 0 to 1")
        return cls(
            task_id=fields.name("task_id"),
            task_type=fields.name("task_type"),
            queue=fields.name("queue"),
            try_=fields.integer("try"),
            invocation=fields.text("invocation"),
            fraction=float(fraction),
            note=fields.text("note"),
            timestamp_ns=fields.instant("timestamp"),
        )
