"""The work item: what stands in a queue for a task, on `CHORIA_AJ.Q.<queue>.<task id>`.

Source: ProcessItem in the Go project's processor.go.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from aj_sdk.wire.codec import decode_json, decode_map, encode_json
from aj_sdk.wire.names import is_name

__all__ = ["KEYS", "WorkItem"]

KEYS: Final[Mapping[str, bool]] = {"kind": False, "job": True}
_TASK: Final = 0


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


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    kind: int
    job: str


_decode_plain = msgspec.json.Decoder(_Plain).decode
