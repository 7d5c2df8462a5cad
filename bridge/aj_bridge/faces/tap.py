"""What passes between bridges and handlers, put together from what a listener hears. Pure: messages in, values out.

A reply names neither its task nor its type: it is known by the reply subject of its request. So as many requests are
remembered as there is room for, the oldest forgotten first.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from aj_bridge.faces.checks import Fault, faults
from aj_sdk.errors import DecodeError
from aj_sdk.wire.call import REPLY_HEADERS, REQUEST_HEADERS, Completed, Failed, read_call, read_reply
from aj_sdk.wire.event import TaskStateEvent, parse_event
from aj_sdk.wire.headers import find_header
from aj_sdk.wire.interim import read_interim
from aj_sdk.wire.names import (
    H_CONTENT_TYPE,
    H_HEARTBEAT_MS,
    H_INVOCATION,
    H_RETRY_AFTER_MS,
    H_TASK_ID,
    H_TRACE_PARENT,
    H_TRACE_STATE,
    TASK_MSGPACK,
    TASK_STATE_EVENTS,
)
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Kind", "Listener", "Passed"]

_KNOWN_REQUEST: Final = (*REQUEST_HEADERS, H_TRACE_PARENT, H_TRACE_STATE)
_NO_RESPONDERS: Final = "503"
_TASK_EVENTS: Final = TASK_STATE_EVENTS.removesuffix("*")


class Kind(StrEnum):
    """What passed."""

    REQUEST = "request"
    INTERIM = "interim"
    REPLY = "reply"
    FAILURE = "failure"
    NOBODY = "nobody"
    SILENCE = "silence"
    CANCEL = "cancel"
    EVENT = "event"


class Passed(msgspec.Struct, frozen=True, kw_only=True):
    """Something that passed.

    Attributes:
        kind: what it is; a `failure` is a reply with an error, a `silence` one that did not come before the deadline.
        at_ns: when it was heard, nanoseconds since the epoch.
        subject: where it was sent; of a silence, where the request was.
        headers: its headers as they were spelled.
        body: its body.
        task_id: the task; empty where it can't be told.
        task_type: its type; empty where it can't be told.
        text: what it says, in a few words.
        content: what it brings: a request its task's payload, a reply its body; None for nothing.
        after_ns: nanoseconds since the request; None for what is no answer to one.
        faults: what is wrong with it.
    """

    kind: Kind
    at_ns: int
    subject: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    task_id: str = ""
    task_type: str = ""
    text: str = ""
    content: bytes | None = None
    after_ns: int | None = None
    faults: tuple[Fault, ...] = ()


class _Call(msgspec.Struct):
    """A request that was heard."""

    subject: str
    task_id: str
    task_type: str
    invocation: str
    began_ns: int
    deadline_ns: int | None
    allowed_ns: int
    interim: bool
    answers: int = 0
    overdue: bool = False


class Listener:
    """Puts together what is heard.

    Args:
        room: how many requests are remembered.

    Attributes:
        forgotten: requests that were forgotten for want of room before they were answered.
    """

    def __init__(self, room: int = 10_000) -> None:
        self._room = room
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._invocations: dict[str, str] = {}
        self.forgotten = 0

    def on_request(
        self, subject: str, reply: str, headers: Mapping[str, str] | None, body: bytes, now_ns: int
    ) -> Passed:
        """Take a request to a handler."""
        headers = headers or {}
        wrong = faults("request_headers", _named(headers, _KNOWN_REQUEST))
        task_id, task_type = find_header(headers, H_TASK_ID) or "", ""
        deadline_ns: int | None = None
        text, content = "can't be read", body or None
        packed = find_header(headers, H_CONTENT_TYPE) == TASK_MSGPACK
        try:
            call = read_call(headers, body)
        except DecodeError as err:
            if not packed:
                wrong += _faults("task", body)
            wrong = wrong or [Fault("task", "$", str(err))]
        else:
            task = call.task
            task_id, task_type = task.id, task.type
            deadline_ns = call.deadline_ns if call.timeout_ns is None else now_ns + call.timeout_ns
            left_s = max(0, deadline_ns - now_ns) / NS_PER_S
            text = f"try {call.try_}, {left_s:.1f} s left"
            # The schema is of JSON; in MessagePack bytes are raw, and what could be read has a form in JSON.
            wrong += _faults("task", task.to_wire() if packed else body)
            content = task.payload
        if not reply:
            wrong.append(Fault("protocol", "$", "the request has no reply subject"))
        else:
            self._remember(
                reply,
                _Call(
                    subject=subject,
                    task_id=task_id,
                    task_type=task_type,
                    invocation=find_header(headers, H_INVOCATION) or "",
                    began_ns=now_ns,
                    deadline_ns=deadline_ns,
                    allowed_ns=0 if deadline_ns is None else max(0, deadline_ns - now_ns),
                    interim=find_header(headers, H_HEARTBEAT_MS) is not None,
                ),
            )
        return Passed(
            kind=Kind.REQUEST,
            at_ns=now_ns,
            subject=subject,
            headers=dict(headers),
            body=body,
            task_id=task_id,
            task_type=task_type,
            text=text,
            content=content,
            faults=tuple(wrong),
        )

    def on_inbox(self, subject: str, headers: Mapping[str, str] | None, body: bytes, now_ns: int) -> Passed | None:
        """Take a message to an inbox; None when it answers no request that is remembered."""
        call = self._calls.get(subject)
        if call is None:
            return None
        headers = headers or {}
        interim = read_interim(headers, body)
        wrong = faults("reply_headers", _named(headers, REPLY_HEADERS))
        if call.answers:
            wrong.append(Fault("protocol", "$", "the request was answered already: is there one queue group only?"))
        if call.overdue:
            wrong.append(Fault("protocol", "$", "the answer comes after the deadline"))
        if interim is not None:
            kind = Kind.INTERIM
            share = "alive" if interim.fraction is None else f"{interim.fraction:.0%}"
            text = f"{share} {interim.note}".rstrip()
            if not call.interim:
                wrong.append(Fault("protocol", "$", f"an interim reply that no {H_HEARTBEAT_MS} asked for"))
            elif interim.fraction is not None and call.deadline_ns is not None:
                call.deadline_ns = now_ns + call.allowed_ns  # a number begins the time again
        elif find_header(headers, "Status") == _NO_RESPONDERS and not body:
            kind, text, wrong = Kind.NOBODY, "nobody listens", []
            call.answers += 1
        else:
            kind, text = _meaning(headers, body)
            call.answers += 1
        return Passed(
            kind=kind,
            at_ns=now_ns,
            subject=call.subject,
            headers=dict(headers),
            body=body,
            task_id=call.task_id,
            task_type=call.task_type,
            text=text,
            content=body or None,
            after_ns=now_ns - call.began_ns,
            faults=tuple(wrong),
        )

    def on_cancel(self, subject: str, now_ns: int) -> Passed:
        """Take a message that tells a handler to stop."""
        call = self._calls.get(self._invocations.get(subject.rpartition(".")[2], ""))
        return Passed(
            kind=Kind.CANCEL,
            at_ns=now_ns,
            subject=subject,
            task_id=call.task_id if call else "",
            task_type=call.task_type if call else "",
            text="told to stop",
            after_ns=now_ns - call.began_ns if call else None,
        )

    def on_event(self, subject: str, body: bytes, now_ns: int) -> Passed:
        """Take a lifecycle event."""
        schema = "task_state_event" if subject.startswith(_TASK_EVENTS) else "leader_elected_event"
        wrong = _faults(schema, body)
        task_id = task_type = ""
        text = "can't be read"
        try:
            event = parse_event(body)
        except DecodeError as err:
            wrong = wrong or [Fault(schema, "$", str(err))]
        else:
            if isinstance(event, TaskStateEvent):
                task_id, task_type = event.task_id, event.task_type
                error = f", {event.last_error}" if event.last_error else ""
                text = f"state {event.state.value}, tries {event.tries}{error}"
            else:
                text = f"{event.name} leads {event.component}"
        return Passed(
            kind=Kind.EVENT,
            at_ns=now_ns,
            subject=subject,
            body=body,
            task_id=task_id,
            task_type=task_type,
            text=text,
            faults=tuple(wrong),
        )

    def overdue(self, now_ns: int) -> list[Passed]:
        """Return the requests whose deadline passed without an answer, each once."""
        late = [
            call
            for call in self._calls.values()
            if not (call.answers or call.overdue) and call.deadline_ns is not None and call.deadline_ns < now_ns
        ]
        for call in late:
            call.overdue = True
        return [
            Passed(
                kind=Kind.SILENCE,
                at_ns=now_ns,
                subject=call.subject,
                task_id=call.task_id,
                task_type=call.task_type,
                text="no answer before the deadline",
                after_ns=now_ns - call.began_ns,
                faults=(Fault("protocol", "$", "every request must be answered, before its deadline"),),
            )
            for call in late
        ]

    def _remember(self, reply: str, call: _Call) -> None:
        if len(self._calls) >= self._room:
            _, old = self._calls.popitem(last=False)
            self._invocations.pop(old.invocation, None)
            self.forgotten += not (old.answers or old.overdue)
        self._calls[reply] = call
        if call.invocation:
            self._invocations[call.invocation] = reply


def _faults(name: str, text: bytes) -> list[Fault]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as err:
        return [Fault(name, "$", f"can't be read: {err}")]
    return faults(name, value)


def _named(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, Any]:
    """Return headers under the names that the schemas know them by."""
    known = {name: value for name in names if (value := find_header(headers, name)) is not None}
    folded = {name.lower() for name in names}
    return known | {name: value for name, value in headers.items() if name.lower() not in folded}


def _meaning(headers: Mapping[str, str], body: bytes) -> tuple[Kind, str]:
    reply = read_reply(headers, body)
    if isinstance(reply, Completed):
        return Kind.REPLY, "complete"
    if not isinstance(reply, Failed):
        return Kind.FAILURE, f"terminated: {reply.error}"
    again = "" if reply.retry_after_ns is None else f" (again after {find_header(headers, H_RETRY_AFTER_MS)} ms)"
    return Kind.FAILURE, f"failed: {reply.error}{again}"
