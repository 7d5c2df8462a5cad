"""What a running bridge may be told over NATS: how it stands, drain, so many at a time, pause and go on."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from aj_bridge.engine.service import Answer
from aj_sdk.wire.bridge import BridgeStatus, read_concurrency, read_pause

__all__ = ["Controlled", "control_answers"]

_log = logging.getLogger(__name__)


class Controlled(Protocol):
    """What is told."""

    @property
    def status(self) -> BridgeStatus:
        """How it stands."""

    def drain(self) -> None:
        """Take no new work, and end."""

    async def set_concurrency(self, number: int) -> None:
        """Work on so many tasks at once."""

    async def pause(self) -> None:
        """Take no new work."""

    def resume(self) -> None:
        """Take work again."""


def control_answers(bridge: Controlled) -> Mapping[str, Answer]:
    """Return the endpoints through which a bridge is told; each answers how it stands then."""

    async def status(_request: bytes) -> dict[str, Any]:
        return bridge.status.to_map()

    async def drain(_request: bytes) -> dict[str, Any]:
        _log.info("draining, as was asked for over NATS")
        bridge.drain()
        return bridge.status.to_map()

    async def concurrency(request: bytes) -> dict[str, Any]:
        number = read_concurrency(request)
        _log.info("%d tasks at a time from now on, as was asked for over NATS", number)
        await bridge.set_concurrency(number)
        return bridge.status.to_map()

    async def pause(request: bytes) -> dict[str, Any]:
        if read_pause(request):
            _log.info("pausing, as was asked for over NATS")
            await bridge.pause()
        else:
            _log.info("going on, as was asked for over NATS")
            bridge.resume()
        return bridge.status.to_map()

    return {"status": status, "drain": drain, "concurrency": concurrency, "pause": pause}
