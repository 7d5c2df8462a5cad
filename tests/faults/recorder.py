"""Writes down what a run leaves behind: saves and acks as they are overheard, events from a stream, and the end.

The task store republishes each save, and this listens: a stream that sourced the store would miss rapid overwrites, and
one that stored the copies would hold them to the sequences that the saves expected of the store, and refuse all that
come after one that was lost (seen). What a server that is killed does not tell is filled in from the journals of the
bridges. The recordings are files of JSON lines; `checker` reads them.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from aj_sdk.jetstream import JetStream, StoredMessage
from aj_sdk.streams import task_store_config
from aj_sdk.transport import Message
from aj_sdk.wire.times import parse_time

__all__ = ["Log", "Recorder"]

_STREAM: Final = "RECORD_EVENTS"
_SAVES: Final = "RECORD.T."
_EVENTS: Final = "CHORIA_AJ.E.task_state."
_ACKS: Final = "$JS.ACK.>"


class Log:
    """A file of JSON lines; each is written at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, **line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        self._file.close()


class Recorder:
    """Records one run.

    Args:
        jetstream: the API, on a connection that no fault is made on.
        folder: where the recordings go.
    """

    def __init__(self, jetstream: JetStream, folder: Path) -> None:
        self._js = jetstream
        self._folder = folder
        self._acks = Log(folder / "acks.jsonl")
        self._saves = Log(folder / "saves.jsonl")
        self.on_save: Callable[[str, str], None] = lambda _task, _state: None

    async def begin(self, *, replicas: int = 1) -> None:
        """Make the task store such that all is recorded; before anything else uses it."""
        await self._js.create_stream(
            {
                "name": _STREAM,
                "subjects": [f"{_EVENTS}*"],
                "storage": "file",
                "allow_direct": True,
                "num_replicas": replicas,
            }
        )
        republish = {"src": "CHORIA_AJ.T.*", "dest": f"{_SAVES}{{{{wildcard(1)}}}}"}
        await self._js.create_stream({**task_store_config(replicas=replicas), "republish": republish})
        await self._js.transport.subscribe(_ACKS, self._on_ack)
        await self._js.transport.subscribe(f"{_SAVES}*", self._on_save)
        await self._js.transport.ping(5)

    def _on_save(self, message: Message) -> None:
        row = _save(message)
        self._saves.write(**row)
        self.on_save(row["task"], str((row["body"] or {}).get("state", "")))

    def _on_ack(self, message: Message) -> None:
        tokens = message.subject.split(".")
        if len(tokens) == 9:
            word = message.data.split(b" ")[0].decode("ascii", "replace")
            self._acks.write(at=time.time_ns(), item=f"{tokens[5]}.{tokens[4]}", word=word)

    async def end(self) -> None:
        """Read what the server kept, and how all stands now."""
        await self._js.transport.ping(5)  # what was saved before is overheard
        events = Log(self._folder / "events.jsonl")
        async for message in self._js.scan(_STREAM, ">"):
            event = json.loads(message.data)
            events.write(at=parse_time(message.time), task=event["task_id"], state=event["state"])
        for log in (self._saves, events, self._acks):
            log.close()
        streams = await self._js.stream_names()
        items = [
            message.subject.split(".", 3)[3]
            for name in streams
            if name.startswith("CHORIA_AJ_Q_")
            for message in await self._all(name, "CHORIA_AJ.Q.>")
        ]
        schedules = await self._all("CHORIA_AJ_DELAYED", "CHORIA_AJ.D.S.>") if "CHORIA_AJ_DELAYED" in streams else []
        dead = await self._all("CHORIA_AJ_DEAD", "CHORIA_AJ.X.>") if "CHORIA_AJ_DEAD" in streams else []
        stored = {each.subject.split(".")[2]: each for each in await self._all("CHORIA_AJ_TASKS", ">")}
        bodies = {task: _body(each.data) for task, each in stored.items()}
        end = {
            # A record that names another task than its subject is nobody's.
            "records": {task: body if body and body.get("id") == task else None for task, body in bodies.items()},
            "sequences": {task: each.sequence for task, each in stored.items()},
            "items": items,
            "schedules": [each.subject.split(".")[4] for each in schedules],
            "dead": [(each.subject.split(".")[2], each.subject.split(".")[4]) for each in dead],
        }
        (self._folder / "end.json").write_text(json.dumps(end))

    async def _all(self, stream: str, subject: str) -> list[StoredMessage]:
        return [message async for message in self._js.scan(stream, subject)]

    async def unfinished(self, tasks: Iterable[str]) -> list[str]:
        """Say which of these tasks have not ended."""
        subjects = {f"CHORIA_AJ.T.{task}": task for task in tasks}
        found: dict[str, StoredMessage] = {}
        wanted = list(subjects)
        for start in range(0, len(wanted), 500):
            found |= await self._js.last_many("CHORIA_AJ_TASKS", wanted[start : start + 500])
        return [task for subject, task in subjects.items() if not _ended(found.get(subject))]


def _ended(message: StoredMessage | None) -> bool:
    body = None if message is None else _body(message.data)
    return body is not None and body.get("state") in ("complete", "expired", "terminated", "unreachable", "queue_error")


def _body(data: bytes) -> Mapping[str, Any] | None:
    try:
        body = json.loads(data)
    except ValueError:
        return None
    return body if isinstance(body, dict) and isinstance(body.get("state", ""), str) else None


def _save(message: Message) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in (message.headers or {}).items()}
    return {
        "task": message.subject.removeprefix(_SAVES),
        "at": parse_time(headers["nats-time-stamp"]),
        "sequence": int(headers["nats-sequence"]),
        "previous": int(headers["nats-last-sequence"]) if "nats-last-sequence" in headers else None,
        "owner": headers.get("aj-owner", ""),
        "item": headers.get("aj-item", ""),
        "body": _body(message.data),
    }
