"""A dead letter: what could not be processed, why, and the record as it was.

The body is the record's own bytes (the item's, where there is no record); all else stands in headers.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from aj_sdk.errors import DecodeError
from aj_sdk.wire.headers import find_header, header_text
from aj_sdk.wire.names import is_name
from aj_sdk.wire.times import format_time, parse_time

__all__ = ["DeadLetter", "DeadReason"]

H_REASON: Final = "AJ-Dead-Reason"
H_DETAIL: Final = "AJ-Dead-Detail"
H_AT: Final = "AJ-Dead-At"
H_TRUNCATED: Final = "AJ-Dead-Truncated"
H_SEQUENCE: Final = "AJ-Dead-Sequence"
H_TYPE: Final = "AJ-Task-Type"
H_TRIES: Final = "AJ-Task-Tries"

_UNKNOWN: Final = "_"
_TOKENS: Final = 5


class DeadReason(StrEnum):
    """Why something is dead; the names are the third part of its subject."""

    EXPIRED = "expired"
    TERMINATED = "terminated"
    UNREACHABLE = "unreachable"
    QUARANTINED = "quarantined"


_REASONS: Final = frozenset(reason.value for reason in DeadReason)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be processed, and why.

    Attributes:
        reason: which kind of end it was.
        detail: in words.
        queue: its queue, empty when unknown.
        task_id: its task, empty when unknown.
        task_type: its type, empty when unknown.
        tries: invocations started.
        body: the record, or the item where there is no record, as it was.
        at_ns: when, nanoseconds since the epoch.
        whole_size: how many bytes the body had before it was cut; None when it is whole.
        sequence: where the body stands in the task store, if it can't be read there; None otherwise.
    """

    reason: str
    detail: str
    queue: str
    task_id: str
    task_type: str
    tries: int
    body: bytes
    at_ns: int
    whole_size: int | None = None
    sequence: int | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that go with the body."""
        headers = {
            H_REASON: self.reason,
            H_DETAIL: header_text(self.detail),
            H_AT: format_time(self.at_ns),
            H_TYPE: header_text(self.task_type),
            H_TRIES: str(self.tries),
        }
        if self.whole_size is not None:
            headers[H_TRUNCATED] = str(self.whole_size)
        if self.sequence is not None:
            headers[H_SEQUENCE] = str(self.sequence)
        return headers

    def cut(self, limit: int) -> "DeadLetter":
        """Return the letter with a body of at most so many bytes."""
        if len(self.body) <= limit:
            return self
        return msgspec.structs.replace(self, body=self.body[:limit], whole_size=len(self.body))

    @classmethod
    def read(cls, subject: str, body: bytes, headers: Mapping[str, str] | None) -> "DeadLetter":
        """Read a stored dead letter.

        Raises:
            DecodeError: its subject or a header is not what it should be.
        """
        tokens = subject.split(".")
        if len(tokens) != _TOKENS:
            raise DecodeError("dead letter", "subject", f"{subject[:120]!r} is none of a dead letter")
        reason, queue, task_id = tokens[2:]
        if reason not in _REASONS:
            raise DecodeError("dead letter", "subject", f"the reason {reason[:40]!r} is not known")
        try:
            at_ns = parse_time(find_header(headers, H_AT) or "")
        except ValueError as err:
            raise DecodeError("dead letter", H_AT, str(err)) from None
        return cls(
            reason=DeadReason(reason),
            detail=find_header(headers, H_DETAIL) or "",
            queue=queue if is_name(queue) and queue != _UNKNOWN else "",
            task_id=task_id if is_name(task_id) and task_id != _UNKNOWN else "",
            task_type=find_header(headers, H_TYPE) or "",
            tries=_number(headers, H_TRIES) or 0,
            body=body,
            at_ns=at_ns,
            whole_size=_number(headers, H_TRUNCATED),
            sequence=_number(headers, H_SEQUENCE),
        )


def _number(headers: Mapping[str, str] | None, name: str) -> int | None:
    text = find_header(headers, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise DecodeError("dead letter", name, f"{text[:40]!r} is not a whole number")
    return int(text)
