"""Running bridges, as their operators see and change them: who runs, how it stands, and what may be told to it.

A bridge is the NATS micro service `aj-bridge`; each also answers on `AJ.BRIDGE.<id>.<endpoint>`, with the values of
`wire.bridge`.
"""

import asyncio
from collections.abc import Mapping
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
from aj_sdk.queue import Span
from aj_sdk.roll_call import answers, patience_s
from aj_sdk.transport import Transport
from aj_sdk.wire.bridge import MAX_CONCURRENCY, BridgeStatus
from aj_sdk.wire.codec import decode_json, decode_map, encode_json
from aj_sdk.wire.names import H_SERVICE_ERROR, H_SERVICE_ERROR_CODE, bridge_subject, is_name

__all__ = ["SERVICE", "Bridges", "SilentBridge"]

SERVICE: Final = "aj-bridge"
"""The name of the micro service that a bridge is."""

_MAX_DIGITS: Final = 9


class SilentBridge(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge that says that it is there, and not how it stands.

    Attributes:
        id: its id.
        reason: what it said instead, or that it said nothing.
    """

    id: str
    reason: str


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
        self._timeout_s = patience_s(timeout)

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
            raise RefusedError(
                f"bridge {who}",
                int(code) if code.isdecimal() and len(code) < _MAX_DIGITS else 0,
                headers[H_SERVICE_ERROR],
            )
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
        async for message in answers(self._transport, discovery_subject("PING", SERVICE), self._timeout_s):
            answer = decode_map(decode_json(message.data, "answer to a ping"), "answer to a ping", {"id": True})
            ids.add(answer.name("id"))
        return sorted(ids)
