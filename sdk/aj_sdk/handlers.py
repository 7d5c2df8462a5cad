"""Handlers that show themselves as NATS micro services, whatever they are written in, and the types that wait.

A handler is any endpoint below `CHORIA_AJ.H.T.`: those of the service `aj-handler`, and of any other. One that is a
mere subscription can't be seen.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

import msgspec

from aj_sdk.discovery import discovery_subject
from aj_sdk.errors import RefusedError
from aj_sdk.jetstream import STREAM_NOT_FOUND, JetStream
from aj_sdk.queue import Span
from aj_sdk.roll_call import answers, patience_s
from aj_sdk.transport import Transport
from aj_sdk.wire.names import (
    DELAYED_STREAM,
    ITEM_SUBJECTS,
    QUEUE_STREAM_PREFIX,
    SCHEDULE_SUBJECTS,
    TASKS_STREAM,
    handler_subject,
    is_name,
    item_subjects,
    queue_of_stream,
    task_subject,
)
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.times import parse_time

__all__ = ["Handler", "Handlers", "Waiting", "WaitingType", "listens_to"]

_PREFIX: Final = handler_subject("x")[:-1]
_SUBJECT: Final = re.compile(r"[!-~]+")
_ANY: Final = ("*", ">")
_CATCH_ALL: Final = handler_subject("")
_MOST_ANSWERS: Final = 10_000
_READ_AT_ONCE: Final = 500
_WAITS: Final = frozenset({TaskState.NEW, TaskState.RETRY})


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint of one process.

    Attributes:
        type: the task type that it listens for; a prefix, or empty for the catch-all, where a bridge has such a route.
        subject: where it listens.
        queue_group: whose members share the calls; `q`, or each of several groups runs every task.
        service: the micro service that it is part of, `aj-handler` for ours.
        instance: id of the process, new for each start.
        version: of the service.
        language: what it is written in, as it says; empty when it does not.
        requests: calls answered.
        errors: those of them answered with an error.
        last_error: the last error, empty for none.
        processing_ns: nanoseconds that all calls took together.
        in_flight: calls that run now; None when it does not say.
        started_ns: when the process began, nanoseconds since the epoch; None when it does not say.
    """

    type: str
    subject: str
    queue_group: str
    service: str
    instance: str
    version: str
    language: str
    requests: int
    errors: int
    last_error: str
    processing_ns: int
    in_flight: int | None
    started_ns: int | None


class WaitingType(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks of one type that are due for a handler, or will be by themselves.

    Attributes:
        type: the type.
        tasks: how many there are, `new` or `retry`.
        oldest_ns: when the oldest of them was created, nanoseconds since the epoch.
        error: the last error of one of them, empty where none has failed.
    """

    type: str
    tasks: int
    oldest_ns: int
    error: str


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What waits.

    Attributes:
        types: by type, in the order of their names.
        items: work items that were looked at.
        more: whether there are more that were not.
    """

    types: tuple[WaitingType, ...]
    items: int
    more: bool


class _Endpoint(msgspec.Struct):
    # Of an answer to INFO or to STATS (ADR-32); each has its own half of it.
    name: str = ""
    subject: str = ""
    queue_group: str = ""
    metadata: dict[str, str] | None = None
    num_requests: int = 0
    num_errors: int = 0
    last_error: str = ""
    processing_time: int = 0
    data: Any = None


class _Service(msgspec.Struct):
    name: str
    id: str
    version: str = ""
    started: str = ""
    metadata: dict[str, str] | None = None
    endpoints: list[_Endpoint] | None = None


_READ: Final = msgspec.json.Decoder(_Service)


class Handlers:
    """The handlers on a NATS system; `client.admin.handlers`.

    Args:
        jetstream: the API of the account.
        timeout: how long to wait for answers; looking ends when none has come for a quarter of it.

    Raises:
        InvalidConfigError: the timeout is no length of time.
    """

    def __init__(self, jetstream: JetStream, timeout: Span = 2.0) -> None:
        self._js = jetstream
        self._timeout_s = patience_s(timeout)

    def within(self, timeout: Span) -> "Handlers":
        """Return the same with another timeout.

        Raises:
            InvalidConfigError: it is no length of time.
        """
        return Handlers(self._js, timeout)

    async def showing(self) -> list[Handler]:
        """Ask who is there.

        Returns:
            The handlers, sorted by type, language, version and process; at most 10,000 processes.

        Raises:
            StoreError: the connection failed.
        """
        transport = self._js.transport
        infos, stats = await asyncio.gather(
            *(_services(transport, discovery_subject(verb), self._timeout_s) for verb in ("INFO", "STATS"))
        )
        found = [handler for key, service in stats.items() for handler in _handlers(service, infos.get(key))]
        return sorted(found, key=lambda one: (one.type, one.language, one.version, one.instance, one.subject))

    async def waiting(self, at_most: int = 10_000) -> Waiting:
        """Say of which types tasks wait for a handler, in a queue or for their next try.

        Args:
            at_most: how many work items are looked at; each queue gets a share of it.

        Raises:
            StoreError: the store failed.
        """
        streams = [name for name in await self._js.stream_names(ITEM_SUBJECTS) if name.startswith(QUEUE_STREAM_PREFIX)]
        places = [(stream, item_subjects(queue_of_stream(stream))) for stream in streams]
        places.append((DELAYED_STREAM, SCHEDULE_SUBJECTS))
        share = max(1, at_most // len(places))
        ids: set[str] = set()
        items, more = 0, False
        for stream, subject in places:
            here = 0
            async for task_id in self._ids(stream, subject):
                if here == share:
                    more = True
                    break
                here += 1
                ids.add(task_id)
            items += here
        return Waiting(types=await self._types(sorted(ids)), items=items, more=more)

    async def _ids(self, stream: str, subject: str) -> AsyncIterator[str]:
        try:
            async for message in self._js.scan(stream, subject):
                task_id = message.subject.rpartition(".")[2]
                if is_name(task_id):
                    yield task_id
        except RefusedError as err:
            if err.code != STREAM_NOT_FOUND:  # it was removed just now, or nothing ever waited
                raise

    async def _types(self, ids: Sequence[str]) -> tuple[WaitingType, ...]:
        found: dict[str, WaitingType] = {}
        for start in range(0, len(ids), _READ_AT_ONCE):
            subjects = [task_subject(task_id) for task_id in ids[start : start + _READ_AT_ONCE]]
            for message in (await self._js.last_many(TASKS_STREAM, subjects)).values():
                record = Stored.read(message.subject, message.sequence, message.data, message.headers).record
                if record is None or record.state not in _WAITS:
                    continue
                so_far = found.get(record.type)
                found[record.type] = WaitingType(
                    type=record.type,
                    tasks=1 if so_far is None else so_far.tasks + 1,
                    oldest_ns=record.created_ns if so_far is None else min(so_far.oldest_ns, record.created_ns),
                    error=record.last_err or ("" if so_far is None else so_far.error),
                )
        return tuple(found[name] for name in sorted(found))


def listens_to(handlers: Iterable[Handler], task_type: str) -> str | None:
    """Say who would get the tasks of a type.

    Args:
        handlers: those that there are.
        task_type: the type.

    Returns:
        The type that the handlers registered for: this one, else the longest prefix or the catch-all (empty), which
        get them only from a bridge with such a route; a wildcard that takes it; None when there is nobody.
    """
    takes = {each.type for each in handlers if each.type in _ANY or task_type.startswith(each.type)}
    return max(takes, key=len) if takes else None


async def _services(transport: Transport, subject: str, seconds: float) -> dict[tuple[str, str], _Service]:
    found: dict[tuple[str, str], _Service] = {}
    async for message in answers(transport, subject, seconds):
        try:
            service = _READ.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # somebody else's service, and not our business
        found[service.name, service.id] = service
        if len(found) == _MOST_ANSWERS:
            break
    return found


def _handlers(stats: _Service, info: _Service | None) -> Iterable[Handler]:
    described = {endpoint.name: endpoint for endpoint in (info.endpoints if info else None) or ()}
    general = (info.metadata if info else stats.metadata) or {}
    for endpoint in stats.endpoints or ():
        if not endpoint.subject.startswith(_PREFIX) or not _SUBJECT.fullmatch(endpoint.subject):
            continue
        more = described.get(endpoint.name)
        metadata = general | ((more.metadata if more else None) or {})
        yield Handler(
            type="" if endpoint.subject == _CATCH_ALL else endpoint.subject.removeprefix(_PREFIX),
            subject=endpoint.subject,
            queue_group=endpoint.queue_group or (more.queue_group if more else ""),
            service=stats.name,
            instance=stats.id,
            version=stats.version,
            language=metadata.get("aj.language", ""),
            requests=endpoint.num_requests,
            errors=endpoint.num_errors,
            last_error=endpoint.last_error,
            processing_ns=endpoint.processing_time,
            in_flight=_in_flight(endpoint.data),
            started_ns=_started(stats.started),
        )


def _in_flight(data: Any) -> int | None:
    number = data.get("in_flight") if isinstance(data, dict) else None
    return number if type(number) is int and number >= 0 else None


def _started(text: str) -> int | None:
    try:
        return parse_time(text)
    except ValueError:
        return None
