"""The work item: what stands in a queue for a task, on `CHORIA_AJ.Q.<queue>.<task id>`.

Source: ProcessItem in the Go project's processor.go.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from aj_sdk.wire.codec import decode_json, decode_map, encode_json
from aj_sdk.wire.headers import find_header
from aj_sdk.wire.names import H_DUE, is_name

__all__ = ["KEYS", "WorkItem", "read_due"]

KEYS: Final[Mapping[str, bool]] = {"kind": False, "job": True}
_TASK: Final = 0
_MAX_DIGITS: Final = 19
"""Of 64 bits of nanoseconds."""


class WorkItem(msgspec.Struct, frozen=True):
    """A reference to a task.

    Attributes:
        task_id: id of the task; the wire calls it `job`.
    """

    task_id: str

    @classmethod
    def from_wire(cls, data: bytes) -> "WorkItem":
        """Read an item's JSON.

        Raises:
            DecodeError: it is not an item, or of a kind that we do not know.
        """
        try:
            plain = _decode_plain(data)
            if plain.kind == _TASK and is_name(plain.job):
                return cls(plain.job)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # read key by key below, to say which key failed
        fields = decode_map(decode_json(data, "work item"), "work item", KEYS)
        if fields.integer("kind") != _TASK:
            raise fields.wrong("kind", "is not the kind of a task (0)")
        return cls(fields.name("job"))

    def to_wire(self) -> bytes:
        """Write the item as JSON."""
        return encode_json({"kind": _TASK, "job": self.task_id})


def read_due(headers: Mapping[str, str] | None) -> int:
    """Read before when an item is not to run, nanoseconds since the epoch; 0 where it does not say, or not so."""
    text = find_header(headers, H_DUE) or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 0


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    kind: int
    job: str


_decode_plain = msgspec.json.Decoder(_Plain).decode
