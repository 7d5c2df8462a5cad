"""The W3C trace context that a task carries: two keys of its record, two headers of its calls.

Pure. Says what is well-formed; source: https://www.w3.org/TR/trace-context/, sections 3.2 and 3.3.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from aj_sdk.wire.headers import find_header
from aj_sdk.wire.names import H_TRACE_PARENT, H_TRACE_STATE

__all__ = ["MAX_TRACE_STATE", "NO_TRACE", "TRACE_KEYS", "Trace", "header_trace", "record_trace", "trace_fault"]

MAX_TRACE_STATE: Final = 4096
"""Bytes of a trace state; the standard asks for at least 512."""

_MAX_TRACE_PARENT: Final = 256
_MAX_MEMBERS: Final = 32

TRACE_KEYS: Final = frozenset({H_TRACE_PARENT, H_TRACE_STATE})
"""Keys in a task's JSON; the headers have the same names."""

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[\x21-\x7e]*)?")
_KEY: Final = r"[a-z0-9][a-z0-9_*/@-]{0,255}"
_VALUE: Final = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER: Final = re.compile(rf"{_KEY}={_VALUE}")


class Trace(msgspec.Struct, frozen=True):
    """A trace context.

    Attributes:
        parent: `traceparent`; empty where there is none.
        state: `tracestate`; empty where there is none.
    """

    parent: str = ""
    state: str = ""

    def __bool__(self) -> bool:
        return bool(self.parent)

    def to_map(self) -> dict[str, str]:
        """Return what is there of it, by the names that keys and headers have."""
        if not self.parent:
            return {}
        return {H_TRACE_PARENT: self.parent, H_TRACE_STATE: self.state} if self.state else {H_TRACE_PARENT: self.parent}


NO_TRACE: Final = Trace()


def trace_fault(parent: object, state: object = "") -> str:
    """Say what is wrong with a trace context; empty when it is well-formed.

    Args:
        parent: a `traceparent`.
        state: a `tracestate`; empty for none.
    """
    return _parent_fault(parent) or _state_fault(state)


def record_trace(extra: Mapping[str, Any]) -> tuple[Trace, bool]:
    """Return the trace context among the further keys of a record, and whether some of it had to be dropped."""
    if extra.keys().isdisjoint(TRACE_KEYS):
        return NO_TRACE, False
    return _usable(extra.get(H_TRACE_PARENT), extra.get(H_TRACE_STATE))


def header_trace(headers: Mapping[str, str] | None) -> Trace:
    """Return the trace context of a request; what is malformed counts as absent, as the standard has it."""
    parent = find_header(headers, H_TRACE_PARENT)
    return NO_TRACE if parent is None else _usable(parent, find_header(headers, H_TRACE_STATE))[0]


def _usable(parent: object, state: object) -> tuple[Trace, bool]:
    if not isinstance(parent, str) or _parent_fault(parent):
        return NO_TRACE, True
    if state is None or state == "":
        return Trace(parent), False
    return (Trace(parent), True) if not isinstance(state, str) or _state_fault(state) else (Trace(parent, state), False)


def _parent_fault(parent: object) -> str:
    if not isinstance(parent, str):
        return f"traceparent must be text, not {type(parent).__name__}"
    form = "traceparent is not of the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case"
    if len(parent) > _MAX_TRACE_PARENT:
        return form
    found = _PARENT.fullmatch(parent)
    # A later version may have more at its end, version 00 may not; ff is none.
    if found is None or found[1] == "ff" or (found[1] == "00" and found[4] is not None):
        return form
    if not found[2].strip("0") or not found[3].strip("0"):
        return "traceparent names no trace or no span: an id is all zeros"
    return ""


def _state_fault(state: object) -> str:
    if not isinstance(state, str):
        return f"tracestate must be text, not {type(state).__name__}"
    if len(state) > MAX_TRACE_STATE:
        return f"tracestate is longer than {MAX_TRACE_STATE} characters"
    members = [member for each in state.split(",") if (member := each.strip(" \t"))]
    if len(members) > _MAX_MEMBERS:
        return f"tracestate has more than {_MAX_MEMBERS} members"
    if not all(map(_MEMBER.fullmatch, members)):
        return "tracestate is not a list of key=value, separated by commas"
    return ""
