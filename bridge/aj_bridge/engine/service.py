"""A bridge as the NATS micro service `aj-bridge`: it is found, and answers on `AJ.BRIDGE.<id>.<endpoint>`.

Knows how questions come and answers go; what is asked and answered is its endpoints' own business.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeAlias

from aj_sdk import discovery
from aj_sdk.bridges import SERVICE
from aj_sdk.discovery import Endpoint, EndpointStats, ServiceDescription
from aj_sdk.errors import DecodeError, StoreError, UsageError
from aj_sdk.transport import Message, Subscription, Transport
from aj_sdk.version import __version__
from aj_sdk.wire.codec import encode_json
from aj_sdk.wire.headers import header_text
from aj_sdk.wire.names import H_SERVICE_ERROR, H_SERVICE_ERROR_CODE, bridge_subject

__all__ = ["Answer", "BridgeService"]

_log = logging.getLogger(__name__)

_LAST_ANSWERS_S: Final = 1.0
_REACHED_S: Final = 2.0

Answer: TypeAlias = Callable[[bytes], Awaitable[Mapping[str, Any]]]
"""What answers an endpoint's requests: body in, JSON out; raises DecodeError or UsageError for what it refuses."""


class BridgeService:
    """The service of one bridge.

    Args:
        transport: the connection.
        bridge_id: the bridge's id.
        answers: its endpoints by name.
        metadata: what `nats micro info` shows of it.
    """

    def __init__(
        self,
        transport: Transport,
        bridge_id: str,
        answers: Mapping[str, Answer],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._transport = transport
        self._answers = answers
        self._stats = [EndpointStats() for _ in answers]
        self._at_work: set[asyncio.Task[None]] = set()
        self.description = ServiceDescription(
            name=SERVICE,
            id=bridge_id,
            version=__version__,
            started_ns=time.time_ns(),
            description="Takes the tasks of queues to their handlers",
            metadata=metadata or {},
            endpoints=tuple(Endpoint(name=name, subject=bridge_subject(bridge_id, name)) for name in answers),
        )

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer while inside."""
        subscriptions: list[Subscription] = []
        try:
            for at, endpoint in enumerate(self.description.endpoints):
                subscriptions.append(await self._transport.subscribe(endpoint.subject, self._listener(at)))
            for subject in discovery.subjects(self.description):
                found = await self._transport.subscribe(subject, self._on_discovery)
                subscriptions.append(found)
            await self._reached()
            yield
        finally:
            for subscription in subscriptions:
                await subscription.close()
            if self._at_work:
                _, left = await asyncio.wait(self._at_work, timeout=_LAST_ANSWERS_S)
                for task in left:
                    task.cancel()

    async def _reached(self) -> None:
        # So that a bridge that says it is ready is found. A first ping may overtake what was written just before it.
        with contextlib.suppress(StoreError):
            for _ in range(2):
                await self._transport.ping(_REACHED_S)

    def _listener(self, at: int) -> Callable[[Message], None]:
        answer = self._answers[self.description.endpoints[at].name]

        def on_request(message: Message) -> None:
            if message.reply:
                self._spawn(self._handle(at, answer, message))

        return on_request

    def _on_discovery(self, message: Message) -> None:
        body = discovery.answer(message.subject, self.description, self._stats) if message.reply else None
        if body is not None:
            self._spawn(self._send(message.reply, body))

    async def _handle(self, at: int, answer: Answer, message: Message) -> None:
        began = time.perf_counter_ns()
        error, code = "", ""
        body: Mapping[str, Any]
        try:
            body = await answer(message.data)
        except (DecodeError, UsageError) as err:
            error, code = str(err), "400"
        except Exception as err:  # noqa: BLE001 - the request's boundary: whoever asks is told
            _log.exception("a defect in answering %s", message.subject)
            error, code = f"unexpected {type(err).__name__}: {err}", "500"
        headers = {}
        if error:
            body = {"error": error}
            headers = {H_SERVICE_ERROR: header_text(error), H_SERVICE_ERROR_CODE: code}
        await self._send(message.reply, encode_json(body), headers)
        self._stats[at].count(time.perf_counter_ns() - began, error)

    async def _send(self, reply: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        with contextlib.suppress(StoreError):  # who asked is told by the silence
            await self._transport.publish(reply, body, headers=headers)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
