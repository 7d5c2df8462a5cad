"""The AsyncAPI description of what crosses NATS: `python docs/generate.py` writes `schemas/aj_schemas/asyncapi.yaml`.

The messages come from the JSON Schemas, the subjects from `aj_sdk.wire.names`; the only thing told here is who sends
what where.
"""
# ruff: noqa: INP001 - a script's module, not a package

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aj_schemas import load, names
from aj_sdk.wire.names import (
    HANDLER_QUEUE_GROUP,
    PROTOCOL,
    TASK_JSON,
    attempts_subject,
    edge_subject,
    handler_subject,
    invocation_cancel_subject,
    item_subject,
    leader_event_subject,
    progress_subject,
    task_event_subject,
    task_subject,
)

__all__ = ["asyncapi"]

_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_RESERVED: Final = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_LEFT_OUT: Final = {"$schema", "$id", "$defs", "$comment"}
_NOT_SENT: Final = {"vector", "conformance_order", "queue_settings"}

_X: Final = "X0X"
"""Stands for a parameter while a subject is made."""

# Channel -> address, what it is, its messages.
_CHANNELS: Final[Mapping[str, tuple[str | None, str, tuple[str, ...]]]] = {
    "handler": (handler_subject(_X).replace(_X, "{type}"), "Where the calls of a type come.", ("request",)),
    "reply": (None, "The reply subject of a request.", ("result", "interim")),
    "invocationCancel": (
        invocation_cancel_subject(_X).replace(_X, "{invocation}"),
        "A message here means: stop, your reply will not be used.",
        ("cancel",),
    ),
    "task": (task_subject(_X).replace(_X, "{task_id}"), "A task's record, in the stream CHORIA_AJ_TASKS.", ("task",)),
    "item": (
        item_subject("Q0Q", _X).replace("Q0Q", "{queue}").replace(_X, "{task_id}"),
        "A task's work item, in the stream of its queue.",
        ("work_item",),
    ),
    "edge": (
        edge_subject(_X, f"{_X}2").replace(f"{_X}2", "{child_id}").replace(_X, "{parent_id}"),
        "What a task waits for, in the stream CHORIA_AJ_DEPS.",
        ("edge",),
    ),
    "attempts": (attempts_subject(_X).replace(_X, "{task_id}"), "The ledger of a task's attempts.", ("attempt",)),
    "taskEvent": (task_event_subject(_X).replace(_X, "{task_id}"), "What becomes of a task.", ("task_state_event",)),
    "progress": (
        progress_subject(_X).replace(_X, "{task_id}"),
        "How far a task has come. Best effort, and kept nowhere.",
        ("progress",),
    ),
    "leaderEvent": (
        leader_event_subject(_X).replace(_X, "{component}"),
        "Who was elected.",
        ("leader_elected_event",),
    ),
    "schedule": (
        "$KV.CHORIA_AJ_CONFIGURATION.scheduled_tasks.{name}",
        "A schedule, in a key-value bucket.",
        ("schedule",),
    ),
}
_PARAMETERS: Final[Mapping[str, str]] = {
    "type": "An exact task type, a prefix, or `catchall`.",
    "task_id": "The task's id.",
    "parent_id": "The id of the task that is waited for.",
    "child_id": "The id of the task that waits.",
    "queue": "The queue's name.",
    "invocation": "The id of the call.",
    "component": "What was elected.",
    "name": "The schedule's name.",
}
# Operation -> who does it, whether it sends, its channel.
_OPERATIONS: Final[Mapping[str, tuple[str, str, str]]] = {
    "handleTask": ("A handler takes a call and replies.", "receive", "handler"),
    "hearCancel": ("A handler hears that a call is not wanted any more.", "receive", "invocationCancel"),
    "saveTask": ("A producer or a bridge saves a task.", "send", "task"),
    "enqueueItem": ("A producer or a bridge puts a task into a queue.", "send", "item"),
    "waitFor": ("A producer or a bridge writes down what a task waits for, and how that ended.", "send", "edge"),
    "keepAttempt": ("A bridge writes an attempt down.", "send", "attempts"),
    "tellTaskState": ("A producer or a bridge tells what became of a task.", "send", "taskEvent"),
    "tellProgress": ("A bridge tells how far a task has come.", "send", "progress"),
    "tellLeader": ("A scheduler or a sweeper tells that it was elected.", "send", "leaderEvent"),
    "saveSchedule": ("An administrator saves a schedule.", "send", "schedule"),
}


def asyncapi() -> str:
    """Return the description, as YAML."""
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "asyncjobs-nats",
            "version": PROTOCOL,
            "description": "What is stored in JetStream and what crosses NATS. The words to it: docs/protocol.md.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"nats": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "Any NATS with JetStream."}},
        "channels": {name: _channel(*told) for name, told in _CHANNELS.items()},
        "operations": {name: _operation(*told) for name, told in _OPERATIONS.items()},
        "components": {"messages": _messages(), "schemas": dict(sorted(_schemas()))},
    }
    note = "# Written by docs/generate.py from schemas/aj_schemas/v1. Do not edit.\n"
    return note + "\n".join(_yaml(document, "")) + "\n"


def _channel(address: str | None, description: str, messages: tuple[str, ...]) -> dict[str, Any]:
    channel: dict[str, Any] = {"address": address, "description": description}
    channel["messages"] = {name: _ref("messages", name) for name in messages}
    found = re.findall(r"\{(\w+)\}", address or "")
    if found:
        channel["parameters"] = {name: {"description": _PARAMETERS[name]} for name in found}
    return channel


def _operation(summary: str, action: str, channel: str) -> dict[str, Any]:
    operation: dict[str, Any] = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}
    if channel == "handler":
        operation["bindings"] = {"nats": {"queue": HANDLER_QUEUE_GROUP}}
        operation["reply"] = {"channel": {"$ref": "#/channels/reply"}}
    return operation


def _messages() -> dict[str, Any]:
    stored = {
        name: {"title": load(name)["title"], "payload": _ref("schemas", name)}
        for _, _, messages in _CHANNELS.values()
        for name in messages
        if name in names()
    }
    return {
        "request": {
            "title": "Request",
            "contentType": TASK_JSON,
            "headers": _ref("schemas", "request_headers"),
            "payload": _ref("schemas", "task"),
        },
        "result": {
            "title": "Reply",
            "description": "The outcome. The body of a success is the result, any bytes.",
            "contentType": "application/octet-stream",
            "headers": _ref("schemas", "reply_headers"),
        },
        "interim": {
            "title": "Interim reply",
            "description": "Has the header AJ-Progress; only where the request offers it.",
            "headers": _ref("schemas", "reply_headers"),
            "payload": {
                "type": "object",
                "properties": {"note": {"type": "string", "description": "What is being done."}},
            },
        },
        "cancel": {"title": "Cancel", "description": "Any message, also an empty one."},
        **stored,
    }


def _schemas() -> Iterator[tuple[str, Any]]:
    for name in set(names()) - _NOT_SENT:
        schema = load(name)
        # A definition is the same in all schemas that have it; a test says so.
        for key, definition in schema.get("$defs", {}).items():
            if key not in names():
                yield key, _moved(definition)
        yield name, _moved(schema)


def _moved(schema: Any) -> Any:
    """Return a schema whose references lead to the components."""
    if isinstance(schema, dict):
        return {
            key: value.replace("#/$defs/", "#/components/schemas/") if key == "$ref" else _moved(value)
            for key, value in schema.items()
            if key not in _LEFT_OUT
        }
    return [_moved(item) for item in schema] if isinstance(schema, list) else schema


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _yaml(value: Any, indent: str) -> Iterator[str]:
    """Write a mapping or a list as lines of YAML; scalars as JSON, which YAML reads the same way."""
    pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in pairs:
        head = f"{indent}-" if key is None else f"{indent}{_scalar(key)}:"
        if isinstance(item, dict | list) and item:
            yield head
            yield from _yaml(item, indent + "  ")
        else:
            yield f"{head} {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)
