"""Calling a remote handler: one request on the route's subject, one reply. Decides nothing but what a reply means."""

import asyncio
import contextlib
from typing import Protocol

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.progress import ProgressTeller
from aj_bridge.engine.router import Encoding, Invocation, Nobody, Outcome
from aj_sdk.errors import DecodeError, MessageTooLargeError, NoRespondersError, NotConnectedError, OutcomeUnknownError
from aj_sdk.transport import Message, Transport
from aj_sdk.wire.call import Cause, Failed, Terminated, call_header_block, read_reply
from aj_sdk.wire.frames import Frame, read_header_block
from aj_sdk.wire.interim import MISSED, Patience, read_interim
from aj_sdk.wire.names import TASK_JSON, TASK_MSGPACK, invocation_cancel_subject
from aj_sdk.wire.times import NS_PER_S, format_duration

__all__ = ["Dispatch", "RemoteHandlers"]


class Dispatch(Protocol):
    """How tasks get to their handlers; one for each kind of route."""

    async def call(self, invocation: Invocation) -> Outcome:
        """Have a task handled.

        Cancelled, it sees to it that the handler stops, as far as that is possible.

        Raises:
            Nobody: nobody listens.
        """


class RemoteHandlers:
    """`Dispatch` by request and reply.

    Args:
        transport: the connection.
        clock: the time.
    """

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._teller = ProgressTeller(transport, clock)

    async def call(self, invocation: Invocation) -> Outcome:
        """See `Dispatch`."""
        task, run_time_ns = invocation.task, invocation.run_time_ns
        subject = invocation.route.subject(task.type)
        now_ns = self._clock.now_ns()
        packed = invocation.route.encoding is Encoding.MSGPACK
        headers = call_header_block(
            task,
            invocation=invocation.id,
            now_ns=now_ns,
            give_up_ns=now_ns + run_time_ns,
            heartbeat_ns=invocation.heartbeat_ns,
            content_type=TASK_MSGPACK if packed else TASK_JSON,
            trace=invocation.trace,
        )
        body = task.to_msgpack() if packed else task.to_wire()
        waiting = _Waiting(invocation, self._clock, self._teller)
        try:
            message = await self._transport.request(
                subject, body, headers=headers, timeout=run_time_ns / NS_PER_S, interim=waiting.on_reply
            )
        except NoRespondersError:
            raise Nobody(subject) from None
        except asyncio.CancelledError:
            await self._tell_to_stop(invocation)
            raise
        except OutcomeUnknownError:
            await self._tell_to_stop(invocation)
            if waiting.patience.lost:
                silence = format_duration(MISSED * invocation.heartbeat_ns)
                return Failed(f"the handler on {subject} is lost: no sign of life for {silence}", cause=Cause.PROGRESS)
            waited = format_duration(run_time_ns)
            return Failed(f"no reply from a handler on {subject} within {waited}", cause=Cause.DEADLINE)
        except MessageTooLargeError as err:
            return Terminated(f"the task does not fit a request: {err}")
        except NotConnectedError as err:
            return Failed(f"the call was not made: {err}")
        fault = _header_fault(message)
        return Failed(fault) if fault else read_reply(message.headers, message.data)

    async def _tell_to_stop(self, invocation: Invocation) -> None:
        """Tell a handler that its reply will not be used; one that does not listen for it goes on."""
        with contextlib.suppress(NotConnectedError):
            await self._transport.publish(invocation_cancel_subject(invocation.id))


class _Waiting:
    """What is known of a call while it waits for its reply."""

    __slots__ = ("_clock", "_invocation", "_teller", "patience")

    def __init__(self, invocation: Invocation, clock: Clock, teller: ProgressTeller) -> None:
        self._invocation = invocation
        self._clock = clock
        self._teller = teller
        self.patience = Patience.begin(
            clock.monotonic(),
            run_time_s=invocation.run_time_ns / NS_PER_S,
            heartbeat_s=invocation.heartbeat_ns / NS_PER_S,
        )

    def on_reply(self, message: Message) -> float | None:
        """Take a reply: how long to wait for the next one, None when it is the last."""
        interim = read_interim(message.headers, message.data)
        if interim is None:
            return None
        now = self._clock.monotonic()
        self.patience = self.patience.after(interim, now)
        self._teller.tell(self._invocation, interim)
        return self.patience.limit - now


def _header_fault(message: Message) -> str:
    # nats-py drops a block that it can't read, and what was an error would count as a success. Our reader keeps it.
    if isinstance(message, Frame) and message.block:
        try:
            read_header_block(message.block)
        except DecodeError as err:
            return f"the reply's headers can't be read: {err.reason}"
    return ""
