"""Running bridges, as their operators see and change them: who runs, how it stands, and what may be told to it.

A bridge is the NATS micro service `aj-bridge`; each also answers on `AJ.BRIDGE.<id>.<endpoint>`. `Bridges` asks, the
values here are what is asked and answered.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from aj_sdk.discovery import discovery_subject
from aj_sdk.errors import (
    BridgeNotFoundError,
    DecodeError,
    InvalidConfigError,
    NoRespondersError,
    OutcomeUnknownError,
    RefusedError,
)
from aj_sdk.queue import Span, span_ns
from aj_sdk.transport import Message, Transport, is_no_responders
from aj_sdk.wire.codec import Fields, decode_json, decode_map, encode_json
from aj_sdk.wire.names import H_SERVICE_ERROR, H_SERVICE_ERROR_CODE, bridge_subject, is_name
from aj_sdk.wire.times import NS_PER_S, format_time

__all__ = [
    "MAX_CONCURRENCY",
    "SERVICE",
    "BridgeStatus",
    "Bridges",
    "ServedStatus",
    "SilentBridge",
    "read_concurrency",
    "read_pause",
]

SERVICE: Final = "aj-bridge"
"""The name of the micro service that a bridge is."""

MAX_CONCURRENCY: Final = 100_000
_MAX_QUEUES: Final = 10_000
_STATES: Final = ("working", "paused", "draining")
_SHARE_OF_SILENCE: Final = 4
"""Who looks for bridges has seen all when none has answered for so small a part of the time there is."""

_STATUS_KEYS: Final = {
    "id": True,
    "host": True,
    "pid": True,
    "version": True,
    "started": True,
    "state": True,
    "concurrency": True,
    "in_hand": True,
    "queues": True,
}
_QUEUE_KEYS: Final = {
    "name": True,
    "weight": True,
    "in_hand": True,
    "running": True,
    "calls": True,
    "failed": True,
    "calls_per_s": True,
    "failed_per_s": True,
}


class ServedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue of a bridge stands.

    Attributes:
        name: the queue.
        weight: its part of the bridge's slots, beside the other queues.
        in_hand: its items that the bridge has in hand.
        running: those of them that have a slot; the others wait for one.
        calls: calls of handlers that were answered since the bridge began.
        failed: those of them that failed.
        calls_per_s: answered calls a second, over the last minute.
        failed_per_s: those of them that failed.
    """

    name: str
    weight: int
    in_hand: int
    running: int
    calls: int
    failed: int
    calls_per_s: float
    failed_per_s: float

    @classmethod
    def of(cls, value: Any, at: int) -> "ServedStatus":
        """Read one of a status.

        Raises:
            DecodeError: it can't be read.
        """
        fields = decode_map(value, "bridge status", _QUEUE_KEYS, f"queues[{at}]")
        return cls(
            name=fields.name("name"),
            weight=fields.integer("weight"),
            in_hand=fields.integer("in_hand"),
            running=fields.integer("running"),
            calls=fields.integer("calls"),
            failed=fields.integer("failed"),
            calls_per_s=_number(fields, "calls_per_s"),
            failed_per_s=_number(fields, "failed_per_s"),
        )


class BridgeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a bridge stands.

    Attributes:
        id: its id, new for each start.
        host: the machine it runs on, as that calls itself.
        pid: its process there.
        version: of this software.
        started_ns: since when it runs, nanoseconds since the epoch.
        state: `working`, `paused` (takes no new work) or `draining` (ends when what is in hand has ended).
        concurrency: tasks that it works on at once, over all queues.
        in_hand: items that it has in hand, over all queues.
        queues: its queues.
    """

    id: str
    host: str
    pid: int
    version: str
    started_ns: int
    state: str
    concurrency: int
    in_hand: int
    queues: tuple[ServedStatus, ...]

    @classmethod
    def from_wire(cls, data: bytes) -> "BridgeStatus":
        """Read a bridge's answer.

        Raises:
            DecodeError: it can't be read.
        """
        fields = decode_map(decode_json(data, "bridge status"), "bridge status", _STATUS_KEYS)
        queues = fields.get("queues")
        if not isinstance(queues, list) or len(queues) > _MAX_QUEUES:
            raise fields.wrong("queues", f"must be a list of at most {_MAX_QUEUES} queues")
        state = fields.text("state")
        if state not in _STATES:
            raise fields.wrong("state", f"must be one of {', '.join(_STATES)}")
        return cls(
            id=fields.name("id"),
            host=fields.text("host"),
            pid=fields.integer("pid"),
            version=fields.text("version"),
            started_ns=fields.instant("started"),
            state=state,
            concurrency=fields.integer("concurrency"),
            in_hand=fields.integer("in_hand"),
            queues=tuple(ServedStatus.of(queue, at) for at, queue in enumerate(queues)),
        )

    def to_map(self) -> dict[str, Any]:
        """Return it for JSON."""
        fields: dict[str, Any] = msgspec.structs.asdict(self)
        started = format_time(fields.pop("started_ns"))
        fields["queues"] = [msgspec.structs.asdict(queue) for queue in self.queues]
        return {**fields, "started": started}


class SilentBridge(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge that says that it is there, and not how it stands.

    Attributes:
        id: its id.
        reason: what it said instead, or that it said nothing.
    """

    id: str
    reason: str


def read_concurrency(data: bytes) -> int:
    """Read what a bridge is told: work on so many tasks at once.

    Raises:
        DecodeError: it can't be read, or is no number from 1 to 100,000.
    """
    fields = decode_map(decode_json(data, "request"), "request", {"concurrency": True})
    number = fields.integer("concurrency")
    if not 1 <= number <= MAX_CONCURRENCY:
        raise fields.wrong("concurrency", f"must be 1 to {MAX_CONCURRENCY}")
    return number


def read_pause(data: bytes) -> bool:
    """Read what a bridge is told: pause, or go on.

    Raises:
        DecodeError: it can't be read.
    """
    return decode_map(decode_json(data, "request"), "request", {"paused": True}).flag("paused")


class Bridges:
    """The bridges that run on a NATS system; `client.admin.bridges`.

    Where a bridge is named, its id does, or the beginning of it that no other bridge's id has.

    Args:
        transport: the connection.
        timeout: how long to wait for answers; looking for all ends when none has come for a quarter of it.

    Raises:
        InvalidConfigError: the timeout is no length of time.
    """

    def __init__(self, transport: Transport, timeout: Span = 2.0) -> None:
        self._transport = transport
        try:
            self._timeout_s = span_ns(timeout) / NS_PER_S
        except ValueError as err:
            raise InvalidConfigError((f"timeout is no length of time: {err}",)) from err
        if self._timeout_s <= 0:
            raise InvalidConfigError(("timeout must be more than nothing",))

    def within(self, timeout: Span) -> "Bridges":
        """Return the same with another timeout.

        Raises:
            InvalidConfigError: it is no length of time.
        """
        return Bridges(self._transport, timeout)

    async def running(self) -> list[BridgeStatus | SilentBridge]:
        """Ask who is there, and each how it stands.

        Returns:
            The bridges, those that run longest first.

        Raises:
            StoreError: the connection failed.
        """
        found = await asyncio.gather(*(self._look(who) for who in await self._ids()))
        return sorted(found, key=lambda one: (one.started_ns if isinstance(one, BridgeStatus) else 0, one.id))

    async def status(self, bridge: str) -> BridgeStatus:
        """Ask a bridge how it stands.

        Raises:
            BridgeNotFoundError: there is none.
            InvalidConfigError: several begin so.
            StoreError: it gave no answer, or the connection failed.
            DecodeError: its answer can't be read.
        """
        return await self._tell(bridge, "status", None)

    async def drain(self, bridge: str) -> BridgeStatus:
        """Tell a bridge to take no new work, and to end when what it has in hand has ended.

        Raises:
            BridgeNotFoundError: there is none.
            InvalidConfigError: several begin so.
            StoreError: it gave no answer, or the connection failed.
            DecodeError: its answer can't be read.
        """
        return await self._tell(bridge, "drain", None)

    async def set_concurrency(self, bridge: str, number: int) -> BridgeStatus:
        """Tell a bridge how many tasks to work on at once; what runs beyond that ends in its own time.

        Raises:
            BridgeNotFoundError: there is none.
            InvalidConfigError: several begin so, or the number is not 1 to 100,000.
            StoreError: it gave no answer, or the connection failed.
            DecodeError: its answer can't be read.
        """
        if not 1 <= number <= MAX_CONCURRENCY:
            raise InvalidConfigError((f"concurrency must be 1 to {MAX_CONCURRENCY}",))
        return await self._tell(bridge, "concurrency", {"concurrency": number})

    async def pause(self, bridge: str) -> BridgeStatus:
        """Tell a bridge to take no new work; what it has in hand goes on. Other bridges take the queues' work.

        Raises:
            BridgeNotFoundError: there is none.
            InvalidConfigError: several begin so.
            StoreError: it gave no answer, or the connection failed.
            DecodeError: its answer can't be read.
        """
        return await self._tell(bridge, "pause", {"paused": True})

    async def resume(self, bridge: str) -> BridgeStatus:
        """Tell a bridge that was paused to take work again.

        Raises:
            BridgeNotFoundError: there is none.
            InvalidConfigError: several begin so.
            StoreError: it gave no answer, or the connection failed.
            DecodeError: its answer can't be read.
        """
        return await self._tell(bridge, "pause", {"paused": False})

    async def _tell(self, bridge: str, endpoint: str, body: Mapping[str, Any] | None) -> BridgeStatus:
        if not is_name(bridge):
            raise BridgeNotFoundError(bridge)
        try:
            return await self._ask(bridge, endpoint, body)
        except NoRespondersError:
            return await self._ask(await self._named(bridge), endpoint, body)

    async def _ask(self, who: str, endpoint: str, body: Mapping[str, Any] | None) -> BridgeStatus:
        data = b"" if body is None else encode_json(body)
        reply = await self._transport.request(bridge_subject(who, endpoint), data, timeout=self._timeout_s)
        headers = reply.headers or {}
        if H_SERVICE_ERROR in headers:
            code = headers.get(H_SERVICE_ERROR_CODE, "")
            raise RefusedError(f"bridge {who}", int(code) if code.isdecimal() else 0, headers[H_SERVICE_ERROR])
        return BridgeStatus.from_wire(reply.data)

    async def _look(self, who: str) -> BridgeStatus | SilentBridge:
        try:
            return await self._ask(who, "status", None)
        except (OutcomeUnknownError, NoRespondersError):
            return SilentBridge(id=who, reason=f"gave no answer within {self._timeout_s:g} s")
        except (RefusedError, DecodeError) as err:
            return SilentBridge(id=who, reason=str(err))

    async def _named(self, bridge: str) -> str:
        matching = [who for who in await self._ids() if who.startswith(bridge)]
        if not matching:
            raise BridgeNotFoundError(bridge)
        if len(matching) > 1:
            raise InvalidConfigError((f"{len(matching)} bridges begin with {bridge}: {', '.join(matching)}",))
        return matching[0]

    async def _ids(self) -> list[str]:
        ids: set[str] = set()
        async for message in _answers(self._transport, discovery_subject("PING", SERVICE), self._timeout_s):
            answer = decode_map(decode_json(message.data, "answer to a ping"), "answer to a ping", {"id": True})
            ids.add(answer.name("id"))
        return sorted(ids)


async def _answers(transport: Transport, subject: str, seconds: float) -> AsyncIterator[Message]:
    """Give the answers of all who listen, until no more came for a while or the time is over."""
    came: asyncio.Queue[Message] = asyncio.Queue()
    inbox = transport.open_inbox(came.put_nowait)
    loop = asyncio.get_running_loop()
    wait_until = end = loop.time() + seconds
    try:
        await transport.publish(subject, reply=inbox.subject)
        while True:
            try:
                async with asyncio.timeout_at(wait_until):
                    message = await came.get()
            except TimeoutError:
                return
            if is_no_responders(message):
                return
            yield message
            wait_until = min(end, loop.time() + seconds / _SHARE_OF_SILENCE)
    finally:
        inbox.close()


def _number(fields: Fields, key: str) -> float:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise fields.wrong(key, "must be a number")
    return float(value)
