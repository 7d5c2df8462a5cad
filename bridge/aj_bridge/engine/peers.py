"""Bridges asking each other who holds an item: `AJ.BRIDGE.<id>.holds`."""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from aj_bridge.core.deliver import Holder
from aj_sdk.errors import DecodeError, NoRespondersError, OutcomeUnknownError
from aj_sdk.transport import Transport
from aj_sdk.wire.codec import decode_json, decode_map, encode_json
from aj_sdk.wire.names import bridge_subject
from aj_sdk.wire.stamp import ItemRef

__all__ = ["ASK_TIMEOUT_S", "Holds", "NatsPeers", "Peers"]

_log = logging.getLogger(__name__)

ASK_TIMEOUT_S: Final = 2.0
_REQUEST_KEYS: Final = {"task": True, "sequence": True, "delivery": True}

Holds = Callable[[str, ItemRef], bool]


class Peers(Protocol):
    """The other bridges."""

    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        """Ask a bridge whether it holds this very delivery; silence is an answer too."""


class NatsPeers:
    """`Peers` over NATS, and our own answer to them.

    Args:
        transport: the connection.
        bridge_id: our id.
        holds: whether we hold a delivery.
    """

    def __init__(self, transport: Transport, bridge_id: str, holds: Holds) -> None:
        self._transport = transport
        self._bridge_id = bridge_id
        self._holds = holds

    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        """See `Peers`."""
        if owner == self._bridge_id:
            return Holder.YES if self._holds(task_id, item) else Holder.NO
        request = encode_json({"task": task_id, "sequence": item.sequence, "delivery": item.delivery})
        try:
            reply = await self._transport.request(bridge_subject(owner, "holds"), request, timeout=ASK_TIMEOUT_S)
            holds = decode_map(decode_json(reply.data, "answer"), "answer", {"holds": True}).flag("holds")
        except (NoRespondersError, OutcomeUnknownError):
            return Holder.SILENT
        except DecodeError as err:
            _log.warning("bridge %s gave an answer that can't be read: %s", owner, err)
            return Holder.SILENT
        return Holder.YES if holds else Holder.NO

    async def answer(self, question: bytes) -> dict[str, bool]:
        """Answer another bridge's question on `AJ.BRIDGE.<id>.holds`.

        Raises:
            DecodeError: the question can't be read.
        """
        fields = decode_map(decode_json(question, "question"), "question", _REQUEST_KEYS)
        item = ItemRef(fields.integer("sequence"), fields.integer("delivery"))
        return {"holds": self._holds(fields.name("task"), item)}
