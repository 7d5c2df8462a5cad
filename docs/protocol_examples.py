"""The generated sections of protocol.md: golden vectors, the schemas' words, and what our own code really writes.

Nothing here is made up: stored records come from the vectors, which the Go project's library wrote; requests, replies
and saves are made or judged by the functions that the bridge and the SDK use.
"""
# ruff: noqa: INP001 - scripts, not a package

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, cast

from aj_bridge.core.decision import Park
from aj_bridge.core.retry import POLICIES
from aj_bridge.core.settle import settle
from aj_schemas import load, vectors
from aj_sdk import discovery
from aj_sdk.dead import DeadLetters
from aj_sdk.discovery import Endpoint, EndpointStats, ServiceDescription
from aj_sdk.enqueue import enqueue
from aj_sdk.handler_service import HANDLER_SERVICE
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.streams import dead_config
from aj_sdk.transport import Headers
from aj_sdk.wire import names
from aj_sdk.wire.call import call_headers, handler_deadline_ns, read_reply
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.frames import read_header_block
from aj_sdk.wire.interim import Interim, Patience, heartbeat_ns, interim_reply, read_interim
from aj_sdk.wire.names import DEAD_STREAM
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S, format_duration, format_time

BRIDGE: Final = "2d32zuIW87kWJTJ5R7PreX3KPhK"
QUEUE: Final = QueueSettings(name="EMAIL", max_run_time_ns=60 * NS_PER_S)
LATER_NS: Final = 90 * NS_PER_S

REPLIES: Final[tuple[tuple[Mapping[str, str], bytes], ...]] = (
    ({}, b"sent"),
    ({}, b'{"sent":true}'),
    ({}, b""),
    ({"AJ-Error": "mailbox full"}, b""),
    ({"aj-error": "mailbox full"}, b"this body is not read"),
    ({"AJ-Error": ""}, b""),
    ({"AJ-Error": "rate limited", "AJ-Retry-After-Ms": "30000"}, b""),
    ({"AJ-Error": "rate limited", "AJ-Retry-After-Ms": "soon"}, b""),
    ({"AJ-Retry-After-Ms": "30000"}, b"sent"),
    ({"AJ-Terminate": "no such address"}, b""),
    ({"AJ-Terminate": "no such address", "AJ-Error": "mailbox full"}, b""),
    ({"AJ-Terminate": ""}, b""),
    ({"Nats-Service-Error": "mailbox full", "Nats-Service-Error-Code": "500"}, b""),
)

INTERIM: Final[tuple[tuple[Mapping[str, str], bytes], ...]] = (
    ({"AJ-Progress": ""}, b""),
    ({"AJ-Progress": "0.4"}, b""),
    ({"AJ-Progress": "0.4"}, b'{"note":"page 4 of 10"}'),
    ({"aj-progress": "1"}, b""),
    ({"AJ-Progress": "40%"}, b"this is no JSON"),
    ({"AJ-Progress": "0.4", "AJ-Error": "mailbox full"}, b""),
    ({}, b'{"note":"page 4 of 10"}'),
)
LONG_CALL: Final = (
    (5, Interim()),
    (10, Interim()),
    (12, Interim(0.4, "page 4 of 10")),
    (35, Interim()),
    (60, Interim()),
    (70, Interim(0.9, "page 9 of 10")),
)
"""Seconds since the request, and what the handler says then."""

_VECTORS: Final = {vector["name"]: vector for vector in vectors()}


def sections() -> dict[str, str]:
    """Return all sections."""
    return {
        "subjects": _subjects(),
        "request": _request(),
        "task-keys": _keys("task"),
        "replies": _replies(),
        "deadlines": _deadlines(),
        "interim": _interim(),
        "long-call": _long_call(),
        "discovery": _discovery(),
        "task-new": _vector("task-state-new"),
        "task-active": _vector("task-state-active"),
        "task-retry": _vector("task-state-retry"),
        "task-complete": _vector("task-state-complete"),
        "task-expired": _vector("task-state-expired"),
        "task-dependencies": _vector("task-dependencies-results"),
        "results": _results(),
        "times": _times(),
        "work-item": _vector("work-item-new"),
        "enqueue": _enqueue(),
        "save": _save(),
        "event": _vector("task-event-retry"),
        "leader-event": _vector("leader-elected-event"),
        "park": _park(),
        "dead-letter": _dead_letter(),
        "schedule": _vector("schedule-deadline"),
        "schedule-keys": _keys("schedule"),
        "signature": _signature(),
        "vectors": _kinds(),
    }


# Writing.


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _code(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```"


def _indented(data: str | bytes) -> str:
    return json.dumps(json.loads(data), indent=2, ensure_ascii=False)


def _message(subject: str, headers: Mapping[str, str], body: bytes, *, indent: bool = False) -> str:
    lines = [f"subject  {subject}"]
    label = "headers  "
    for name, value in headers.items():
        lines.append(f"{label}{name}: {value}".rstrip())
        label = "         "
    text = _indented(body) if indent else body.decode()
    return _code("\n".join([*lines, "body", *(f"  {line}" for line in text.splitlines())]))


def _quoted(text: str) -> str:
    return f"`{text}`" if text else "empty"


# Requests and replies.


def _subjects() -> str:
    rows = [
        (f"`{route}`" if route else "empty", f"`{names.handler_subject(route)}`")
        for route in ("email:new", "email:", "")
    ]
    return _table(("registered for", "subject"), rows)


def _active() -> TaskRecord:
    return TaskRecord.from_wire(_VECTORS["task-state-active"]["text"].encode())


def _request() -> str:
    task = _active()
    assert task.tried_ns is not None
    headers = call_headers(
        task,
        invocation=f"{BRIDGE}-EMAIL-17",
        now_ns=task.tried_ns,
        give_up_ns=task.tried_ns + QUEUE.max_run_time_ns,
    )
    return _message(names.handler_subject(task.type), headers, task.to_wire(), indent=True)


def _keys(schema: str) -> str:
    found = load(schema)
    required = set(found["required"])
    rows = [
        (f"`{name}`", "always" if name in required else "", described["description"])
        for name, described in found["properties"].items()
    ]
    return _table(("key", "there", "meaning"), rows)


def _replies() -> str:
    task = _active()
    now_ns = (task.tried_ns or 0) + NS_PER_S
    rows = []
    for headers, body in REPLIES:
        decision = settle(
            task,
            read_reply(headers, body),
            queue=QUEUE,
            policy=POLICIES["default"],
            attempt=task.tries,
            now_ns=now_ns,
            random=lambda: 0.5,
        )
        record = decision.record
        assert record is not None
        if isinstance(decision, Park):
            delay = decision.due_ns - now_ns
            asked = delay == 30 * NS_PER_S
            after = f"tried again after {format_duration(delay)}" if asked else "tried again after the backoff"
            outcome = f"`{record.state}`, {after}; `last_err` {_quoted(record.last_err)}"
        elif record.result is not None:
            stored = json.dumps(record.result.to_map()["payload"])
            outcome = f"`{record.state}`; result stored as `{stored}`"
        else:
            outcome = f"`{record.state}`; `last_err` {_quoted(record.last_err)}"
        shown = "<br>".join(f"`{name}: {value}`".replace(": `", ":` (empty)") for name, value in headers.items())
        rows.append((shown or "none", _quoted(body.decode()), outcome))
    return _table(("reply headers", "reply body", "the task becomes"), rows)


def _sent(headers: Mapping[str, str]) -> str:
    return "<br>".join(f"`{name}: {value}`" if value else f"`{name}:` (empty)" for name, value in headers.items())


def _interim() -> str:
    rows = []
    for headers, body in INTERIM:
        found = read_interim(headers, body)
        if found is None:
            means = "the outcome: this is no interim reply"
        elif found.fraction is None:
            means = "the handler lives"
        else:
            note = f", with the note `{found.note}`" if found.note else ""
            means = f"{found.fraction:.0%} is done{note}; the whole time begins again"
        rows.append((_sent(headers) or "none", _quoted(body.decode()), means))
    return _table(("reply headers", "reply body", "means"), rows)


def _long_call() -> str:
    run_time_s = QUEUE.max_run_time_ns / NS_PER_S
    patience = Patience.begin(0.0, run_time_s=run_time_s, heartbeat_s=heartbeat_ns(QUEUE.lease_ns) / NS_PER_S)
    rows = [("0 s", "the request", f"{patience.limit:g} s")]
    for at, said in LONG_CALL:
        headers, body = interim_reply(said)
        patience = patience.after(said, float(at))
        shown = _sent(headers) + (f" `{body.decode()}`" if body else "")
        rows.append((f"{at} s", shown, f"{patience.limit:g} s"))
    return _table(("at", "what is sent", "the bridge then waits until"), rows)


def _discovery() -> str:
    service = ServiceDescription(
        name=HANDLER_SERVICE,
        id=BRIDGE,
        version="1.4.0",
        started_ns=_active().created_ns,
        description="Sends e-mails",
        metadata={"aj.language": "perl"},
        endpoints=(
            Endpoint(
                name="run",
                subject=names.handler_subject("email:new"),
                queue_group=names.HANDLER_QUEUE_GROUP,
                metadata={"aj.type": "email:new"},
            ),
        ),
    )
    stats = EndpointStats(
        requests=7, errors=1, last_error="mailbox full", processing_ns=90_000_000, data={"in_flight": 2}
    )
    parts = []
    for verb in ("PING", "INFO", "STATS"):
        asked = [subject for subject in discovery.subjects(service) if f".{verb}" in subject]
        body = discovery.answer(asked[0], service, [stats])
        assert body is not None
        shown = ", ".join(f"`{subject}`" for subject in asked)
        parts.append(f"To {shown}:\n\n{_code(_indented(body), 'json')}")
    return "\n\n".join(parts)


def _deadlines() -> str:
    now_ns = _active().tried_ns or 0
    rows = []
    for seconds in (1.0, 2.5, 10.0, 20.0, 60.0, 3600.0):
        run_time_ns = int(seconds * NS_PER_S)
        deadline_ns = handler_deadline_ns(now_ns, now_ns + run_time_ns)
        headers = call_headers(_active(), invocation="x", now_ns=now_ns, give_up_ns=now_ns + run_time_ns)
        rows.append(
            (
                format_duration(run_time_ns),
                format_duration(deadline_ns - now_ns),
                headers[names.H_TIMEOUT_MS],
                headers[names.H_DEADLINE],
            )
        )
    head = ("the bridge waits", "the handler is told", f"`{names.H_TIMEOUT_MS}`", f"`{names.H_DEADLINE}`")
    return f"A call that begins at {format_time(now_ns)}:\n\n{_table(head, rows)}"


# Stored records.


def _vector(name: str) -> str:
    vector = _VECTORS[name]
    description = vector["description"]
    intro = f"Vector `{name}`: {description}."
    return (
        f"{intro}\n\n{_message(vector['subject'], vector.get('headers') or {}, vector['text'].encode(), indent=True)}"
    )


def _results() -> str:
    chosen = ("bytes-empty", "string", "int", "list", "map", "null")
    rows = []
    for name in ("task-state-complete", *(f"task-result-{kind}" for kind in chosen)):
        vector = _VECTORS[name]
        stored = json.dumps(json.loads(vector["text"])["result"]["payload"], ensure_ascii=False)
        rows.append((f"`{name}`", f"`{stored}`", vector["description"]))
    return _table(("vector", "`result.payload`", "what it was"), rows)


def _times() -> str:
    chosen = ("fraction-0", "fraction-1", "fraction-9", "offset", "before-epoch")
    rows = []
    for name in (f"task-time-{kind}" for kind in chosen):
        vector = _VECTORS[name]
        written = json.loads(vector["text"])["created"]
        rows.append((f"`{name}`", f"`{written}`", f"`{vector['decoded']['created_ns']}`"))
    return _table(("vector", "`created` as stored", "nanoseconds since 1970"), rows)


def _signature() -> str:
    vector = _VECTORS["signature-deadline"]
    decoded = vector["decoded"]
    lines = [
        f"seed        {decoded['seed_hex']}",
        f"public key  {decoded['public_key_hex']}",
        f"message     {decoded['signed_message']}",
        f"signature   {decoded['signature']}",
    ]
    return f"Vector `signature-deadline`: {vector['description']}.\n\n{_code(chr(10).join(lines))}"


def _kinds() -> str:
    kinds: dict[str, list[str]] = {}
    for name, vector in _VECTORS.items():
        kinds.setdefault(vector["kind"], []).append(name)
    rows = [(f"`{kind}`", str(len(found)), f"`{found[0]}`") for kind, found in sorted(kinds.items())]
    return _table(("kind", "vectors", "for example"), rows)


# What our own code sends.


class _Recorder:
    """Stands where JetStream's API stands, and keeps what would be stored."""

    def __init__(self) -> None:
        self.transport = SimpleNamespace(max_payload=1 << 20, publish=self._forget)
        self.stored: list[tuple[str, bytes, Mapping[str, str]]] = []

    async def publish(self, subject: str, data: bytes, headers: Headers | None = None) -> int:
        named = read_header_block(headers) if isinstance(headers, bytes) else headers or {}
        self.stored.append((subject, data, named))
        return len(self.stored)

    async def stream_info(self, stream: str) -> dict[str, Any]:
        return {"config": dead_config()} if stream == DEAD_STREAM else {"config": {}}

    async def _forget(self, *_: Any) -> None:
        pass

    @property
    def api(self) -> JetStream:
        return cast("JetStream", self)

    def shown(self) -> str:
        return "\n\n".join(_message(subject, headers, data) for subject, data, headers in self.stored)


def _enqueue() -> str:
    recorder = _Recorder()
    task = TaskRecord.from_wire(_VECTORS["task-state-new"]["text"].encode())
    asyncio.run(enqueue(Store(recorder.api), task))
    return recorder.shown()


def _save() -> str:
    recorder = _Recorder()
    task = _active()
    stamp = Stamp(BRIDGE, ItemRef(4711, 1))
    asyncio.run(Store(recorder.api).save(task, expected=4708, stamp=stamp))
    return recorder.shown()


def _park() -> str:
    recorder = _Recorder()
    task = _active()
    asyncio.run(Store(recorder.api).park_item(task.queue, task.id, (task.tried_ns or 0) + LATER_NS))
    return recorder.shown()


def _dead_letter() -> str:
    recorder = _Recorder()
    task = _active().replace(state=TaskState.TERMINATED, last_err="no such address")
    letter = DeadLetter(
        reason="terminated",
        detail=task.last_err,
        queue=task.queue,
        task_id=task.id,
        task_type=task.type,
        tries=task.tries,
        body=task.to_wire(),
        at_ns=(task.tried_ns or 0) + NS_PER_S,
    )
    asyncio.run(DeadLetters(recorder.api, Store(recorder.api)).bury(letter))
    return recorder.shown()
