"""A task's record as a store keeps it: its bytes, its place, its owner, and the task where it can be read."""

from collections.abc import Mapping

import msgspec

from aj_sdk.errors import DecodeError
from aj_sdk.wire.names import task_id_of_subject
from aj_sdk.wire.stamp import Stamp, read_stamp
from aj_sdk.wire.task import TaskRecord

__all__ = ["Stored"]


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A task's record as it was read.

    Attributes:
        task_id: the id that its subject names.
        sequence: its stream sequence, for the next save.
        body: its bytes.
        stamp: who owns it, None where a Go worker or a producer saved it.
        record: the task, None when the bytes can't be read.
        fault: why not.
    """

    task_id: str
    sequence: int
    body: bytes
    stamp: Stamp | None = None
    record: TaskRecord | None = None
    fault: str = ""

    @classmethod
    def read(cls, subject: str, sequence: int, body: bytes, headers: Mapping[str, str] | None) -> "Stored":
        """Read a stored message; a record that names another task than its subject is unreadable."""
        task_id = task_id_of_subject(subject)
        record, fault = _read_record(body, task_id)
        return cls(
            task_id=task_id,
            sequence=sequence,
            body=body,
            stamp=read_stamp(headers),
            record=record,
            fault=fault,
        )

    def readable(self) -> TaskRecord:
        """Return the task.

        Raises:
            DecodeError: the bytes can't be read.
        """
        if self.record is None:
            raise DecodeError(f"task {self.task_id}", "", self.fault.removeprefix("task: "))
        return self.record


def _read_record(body: bytes, task_id: str) -> tuple[TaskRecord | None, str]:
    try:
        record = TaskRecord.from_wire(body)
    except DecodeError as err:
        return None, str(err)
    if record.id != task_id:
        return None, f"task: id: {record.id!r} stands under the subject of {task_id!r}"
    return record, ""
