"""A dependency's edge: what stands on `CHORIA_AJ.W.<parent>.<child>` from when a task waits for another until it ends.

Our own addition: the Go project writes none, and is not disturbed by them.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from aj_sdk.errors import DecodeError
from aj_sdk.wire.codec import decode_json, decode_map, encode_json
from aj_sdk.wire.names import is_name
from aj_sdk.wire.state import TaskState, parse_state
from aj_sdk.wire.task import TaskRecord, TaskResult

__all__ = ["KEYS", "Edge", "Parent"]

KEYS: Final[Mapping[str, bool]] = {"queue": True, "load": False, "state": False, "result": False}


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """What a child waits for, and what became of it.

    Attributes:
        parent: id of the task that is waited for.
        child: id of the task that waits.
        queue: queue of the child.
        load: whether the child wants the parent's result.
        state: the parent's final state, `UNKNOWN` (empty) while it has not ended.
        result: the parent's result, where the child wants it.
    """

    parent: str
    child: str
    queue: str
    load: bool = False
    state: TaskState = TaskState.UNKNOWN
    result: TaskResult | None = None

    @classmethod
    def between(cls, parent: str, child: TaskRecord) -> "Edge":
        """Make the edge of a child whose parent has not ended."""
        return cls(parent=parent, child=child.id, queue=child.queue, load=child.load_dependencies)

    @classmethod
    def read(cls, subject: str, data: bytes) -> "Edge":
        """Read a stored edge.

        Raises:
            DecodeError: it is not one.
        """
        parent, _, child = subject.removeprefix("CHORIA_AJ.W.").partition(".")
        if not (is_name(parent) and is_name(child)):
            raise DecodeError("edge", "", f"stands under {subject[:100]!r}")
        fields = decode_map(decode_json(data, "edge"), "edge", KEYS)
        try:
            state = parse_state(fields.text("state"))
        except ValueError as err:
            raise fields.wrong("state", str(err)) from None
        result = fields.get("result")
        return cls(
            parent=parent,
            child=child,
            queue=fields.name("queue"),
            load=fields.flag("load"),
            state=state,
            result=None if result is None else TaskResult.from_map(result, "result"),
        )

    @property
    def done(self) -> bool:
        """Whether the parent has ended."""
        return self.state.final

    def of(self, parent: TaskRecord) -> "Edge":
        """Return the edge as it is when its parent is so: done with state and result, or open."""
        if not parent.state.final:
            return msgspec.structs.replace(self, state=TaskState.UNKNOWN, result=None)
        return msgspec.structs.replace(self, state=parent.state, result=parent.result if self.load else None)

    def to_wire(self) -> bytes:
        """Write the edge as JSON; parent and child stand in its subject."""
        fields: dict[str, Any] = {"queue": self.queue}
        if self.load:
            fields["load"] = True
        if self.state:
            fields["state"] = self.state.value
        if self.result is not None:
            fields["result"] = self.result.to_map()
        return encode_json(fields)


Parent: TypeAlias = TaskRecord | Edge
"""What is known of a parent: its record, or, where that is gone, the edge that says how it ended."""
