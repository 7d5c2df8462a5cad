"""One call of a remote handler without a queue: what crossed the wire, and what a bridge would make of it.

The call is made by the code that bridges call with, and judged by the function that they judge with.
"""

import random as chance
from collections.abc import Callable
from typing import Any, Final

import msgspec

from aj_bridge.core.decision import Finish, Park
from aj_bridge.core.retry import RetryPolicy
from aj_bridge.core.settle import NoResponders, Outcome, settle, too_large
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.dispatch import RemoteHandlers
from aj_bridge.engine.router import Invocation, Nobody
from aj_sdk.transport import Headers, Message, OnInterim, Transport
from aj_sdk.wire.frames import read_header_block
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Crossed", "Single", "call_once"]

_HEADERS_OF_A_SAVE: Final = 160
"""About what the owner, the item and the expected sequence take beside a record."""


class Crossed(msgspec.Struct, frozen=True, kw_only=True):
    """A message that crossed the wire.

    Attributes:
        subject: where it was sent.
        headers: its headers as they were spelled.
        body: its body.
        after_s: seconds since the request; 0 for the request itself.
        interim: whether it is a reply that only says that the handler lives, or how far it has come.
    """

    subject: str
    headers: dict[str, str]
    body: bytes
    after_s: float = 0.0
    interim: bool = False


class Single(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call.

    Attributes:
        outcome: what the call gave.
        decision: what a bridge would do with its task.
        took_s: seconds until that was known.
    """

    outcome: Outcome
    decision: Finish | Park
    took_s: float


async def call_once(
    transport: Transport,
    invocation: Invocation,
    *,
    policy: RetryPolicy,
    show: Callable[[Crossed], None],
    clock: Clock | None = None,
    random: Callable[[], float] = chance.random,
) -> Single:
    """Call a handler; cancelled, tell it to stop.

    Args:
        transport: the connection.
        invocation: the call.
        policy: the backoff that a failed try would wait for.
        show: is given the request and each reply, as they cross.
        clock: the time.
        random: gives a number in [0, 1).
    """
    clock = clock or Clock()
    began = clock.monotonic()
    watched = _Watched(transport, clock.monotonic, show)
    outcome: Outcome
    try:
        outcome = await RemoteHandlers(watched, clock).call(invocation)
    except Nobody as nobody:
        outcome = NoResponders(nobody.subject, NS_PER_S)
    task = invocation.task
    decision = settle(
        task,
        outcome,
        queue=QueueSettings(name=task.queue, max_run_time_ns=invocation.run_time_ns),
        policy=policy,
        attempt=task.tries,
        now_ns=clock.now_ns(),
        random=random,
    )
    if isinstance(decision, Finish):
        size = len(decision.record.to_wire()) + _HEADERS_OF_A_SAVE
        if size > transport.max_payload:
            decision = too_large(decision.record, size, transport.max_payload)
    return Single(outcome=outcome, decision=decision, took_s=clock.monotonic() - began)


class _Watched:
    """A transport that shows what the requests on it bring."""

    def __init__(self, inner: Transport, monotonic: Callable[[], float], show: Callable[[Crossed], None]) -> None:
        self._inner = inner
        self._monotonic = monotonic
        self._show = show

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Headers | None = None,
        timeout: float,  # noqa: ASYNC109 - as in Transport
        interim: OnInterim | None = None,
    ) -> Message:
        began = self._monotonic()
        # As they cross the wire: a block that is ready is no mapping.
        sent = read_header_block(headers) if isinstance(headers, bytes) else dict(headers or {})
        self._show(Crossed(subject=subject, headers=sent, body=data))

        def show(message: Message, *, on_the_way: bool) -> None:
            self._show(
                Crossed(
                    subject=message.subject,
                    headers=dict(message.headers or {}),
                    body=bytes(message.data),
                    after_s=self._monotonic() - began,
                    interim=on_the_way,
                )
            )

        def on_reply(message: Message) -> float | None:
            seconds = None if interim is None else interim(message)
            if seconds is not None:
                show(message, on_the_way=True)
            return seconds

        message = await self._inner.request(subject, data, headers=headers, timeout=timeout, interim=on_reply)
        show(message, on_the_way=False)
        return message
