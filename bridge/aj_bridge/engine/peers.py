"""Bridges asking each other who holds an item: `AJ.BRIDGE.<id>.holds`."""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from aj_bridge.core.deliver import Holder
from aj_sdk.holders import ASK_TIMEOUT_S, holds
from aj_sdk.transport import Transport
from aj_sdk.wire.codec import decode_json, decode_map
from aj_sdk.wire.stamp import ItemRef

__all__ = ["ASK_TIMEOUT_S", "Holds", "NatsPeers", "Peers"]

_log = logging.getLogger(__name__)

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
        held: whether we hold a delivery.
    """

    def __init__(self, transport: Transport, bridge_id: str, held: Holds) -> None:
        self._transport = transport
        self._bridge_id = bridge_id
        self._holds = held

    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        """See `Peers`."""
        if owner == self._bridge_id:
            return Holder.YES if self._holds(task_id, item) else Holder.NO
        answer = await holds(self._transport, owner, task_id, item)
        if answer is None:
            return Holder.SILENT
        return Holder.YES if answer else Holder.NO

    async def answer(self, question: bytes) -> dict[str, bool]:
        """Answer another bridge's question on `AJ.BRIDGE.<id>.holds`.

        Raises:
            DecodeError: the question can't be read.
        """
        fields = decode_map(decode_json(question, "question"), "question", _REQUEST_KEYS)
        item = ItemRef(fields.integer("sequence"), fields.integer("delivery"))
        return {"holds": self._holds(fields.name("task"), item)}
