"""How a running bridge stands, and what it may be told: the JSON on `AJ.BRIDGE.<id>.<endpoint>`."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from aj_sdk.wire.codec import Fields, decode_json, decode_map, encode_json
from aj_sdk.wire.times import format_time

__all__ = ["MAX_CONCURRENCY", "STATUS_KEYS", "BridgeStatus", "ServedStatus", "read_concurrency", "read_pause"]

MAX_CONCURRENCY: Final = 100_000
_MAX_QUEUES: Final = 10_000
_STATES: Final = ("working", "paused", "draining")

STATUS_KEYS: Final[Mapping[str, bool]] = {
    "id": True,
    "host": True,
    "pid": True,
    "version": True,
    "started": True,
    "state": True,
    "concurrency": True,
    "in_hand": True,
    "queues": True,
}
_QUEUE_KEYS: Final = {
    "name": True,
    "weight": True,
    "in_hand": True,
    "running": True,
    "calls": True,
    "failed": True,
    "calls_per_s": True,
    "failed_per_s": True,
}


class ServedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue of a bridge stands.

    Attributes:
        name: the queue.
        weight: its part of the bridge's slots, beside the other queues.
        in_hand: its items that the bridge has in hand.
        running: those of them that have a slot; the others wait for one.
        calls: calls of handlers that were answered since the bridge began.
        failed: those of them that failed.
        calls_per_s: answered calls a second, over the last minute.
        failed_per_s: those of them that failed.
    """

    name: str
    weight: int
    in_hand: int
    running: int
    calls: int
    failed: int
    calls_per_s: float
    failed_per_s: float

    @classmethod
    def of(cls, value: Any, at: int) -> "ServedStatus":
        """Read one of a status.

        Raises:
            DecodeError: it can't be read.
        """
        fields = decode_map(value, "bridge status", _QUEUE_KEYS, f"queues.{at}")
        return cls(
            name=fields.name("name"),
            weight=fields.integer("weight"),
            in_hand=fields.integer("in_hand"),
            running=fields.integer("running"),
            calls=fields.integer("calls"),
            failed=fields.integer("failed"),
            calls_per_s=_number(fields, "calls_per_s"),
            failed_per_s=_number(fields, "failed_per_s"),
        )


class BridgeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a bridge stands.

    Attributes:
        id: its id, new for each start.
        host: the machine it runs on, as that calls itself.
        pid: its process there.
        version: of this software.
        started_ns: since when it runs, nanoseconds since the epoch.
        state: `working`, `paused` (takes no new work) or `draining` (ends when what is in hand has ended).
        concurrency: tasks that it works on at once, over all queues.
        in_hand: items that it has in hand, over all queues.
        queues: its queues.
    """

    id: str
    host: str
    pid: int
    version: str
    started_ns: int
    state: str
    concurrency: int
    in_hand: int
    queues: tuple[ServedStatus, ...]

    @classmethod
    def from_wire(cls, data: bytes) -> "BridgeStatus":
        """Read a bridge's answer.

        Raises:
            DecodeError: it can't be read.
        """
        fields = decode_map(decode_json(data, "bridge status"), "bridge status", STATUS_KEYS)
        queues = fields.get("queues")
        if not isinstance(queues, list) or len(queues) > _MAX_QUEUES:
            raise fields.wrong("queues", f"must be a list of at most {_MAX_QUEUES} queues")
        state = fields.text("state")
        if state not in _STATES:
            raise fields.wrong("state", f"must be one of {', '.join(_STATES)}")
        return cls(
            id=fields.name("id"),
            host=fields.text("host"),
            pid=fields.integer("pid"),
            version=fields.text("version"),
            started_ns=fields.instant("started"),
            state=state,
            concurrency=fields.integer("concurrency"),
            in_hand=fields.integer("in_hand"),
            queues=tuple(ServedStatus.of(queue, at) for at, queue in enumerate(queues)),
        )

    def to_map(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "id": self.id,
            "host": self.host,
            "pid": self.pid,
            "version": self.version,
            "started": format_time(self.started_ns),
            "state": self.state,
            "concurrency": self.concurrency,
            "in_hand": self.in_hand,
            "queues": [msgspec.structs.asdict(queue) for queue in self.queues],
        }

    def to_wire(self) -> bytes:
        """Write it as JSON."""
        return encode_json(self.to_map())


def read_concurrency(data: bytes) -> int:
    """Read what a bridge is told: work on so many tasks at once.

    Raises:
        DecodeError: it can't be read, or is no number from 1 to 100,000.
    """
    fields = decode_map(decode_json(data, "request"), "request", {"concurrency": True})
    number = fields.integer("concurrency")
    if not 1 <= number <= MAX_CONCURRENCY:
        raise fields.wrong("concurrency", f"must be 1 to {MAX_CONCURRENCY}")
    return number


def read_pause(data: bytes) -> bool:
    """Read what a bridge is told: pause, or go on.

    Raises:
        DecodeError: it can't be read.
    """
    return decode_map(decode_json(data, "request"), "request", {"paused": True}).flag("paused")


def _number(fields: Fields, key: str) -> float:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise fields.wrong(key, "must be a number")
    return float(value)
