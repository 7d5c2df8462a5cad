"""Asking a bridge whether it holds an item: `AJ.BRIDGE.<id>.holds`."""

import logging
from typing import Final

from aj_sdk.errors import DecodeError, NoRespondersError, OutcomeUnknownError
from aj_sdk.transport import Transport
from aj_sdk.wire.codec import decode_json, decode_map, encode_json
from aj_sdk.wire.names import bridge_subject
from aj_sdk.wire.stamp import ItemRef

__all__ = ["ASK_TIMEOUT_S", "holds"]

_log: Final = logging.getLogger(__name__)

ASK_TIMEOUT_S: Final = 2.0
"""How long a bridge has to answer another one, or an administrator."""


async def holds(transport: Transport, owner: str, task_id: str, item: ItemRef) -> bool | None:
    """Ask a bridge whether it holds this very delivery of a task's item.

    Returns:
        What it says; None when it says nothing, or nothing that can be read.

    Raises:
        NotConnectedError: there is no connection.
    """
    request = encode_json({"task": task_id, "sequence": item.sequence, "delivery": item.delivery})
    try:
        reply = await transport.request(bridge_subject(owner, "holds"), request, timeout=ASK_TIMEOUT_S)
        return decode_map(decode_json(reply.data, "answer"), "answer", {"holds": True}).flag("holds")
    except (NoRespondersError, OutcomeUnknownError):
        return None
    except DecodeError as err:
        _log.warning("bridge %s gave an answer that can't be read: %s", owner, err)
        return None
