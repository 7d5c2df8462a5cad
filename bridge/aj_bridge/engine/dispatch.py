"""Calling a remote handler: one request on the route's subject, one reply. Decides nothing but what a reply means."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.router import Encoding, Invocation, Nobody, Outcome
from aj_sdk.errors import DecodeError, MessageTooLargeError, NoRespondersError, NotConnectedError, OutcomeUnknownError
from aj_sdk.transport import Message, Transport
from aj_sdk.wire.call import Cause, Failed, Terminated, call_header_block, read_reply
from aj_sdk.wire.frames import Frame, read_header_block
from aj_sdk.wire.interim import MISSED, Patience, Progress, read_interim
from aj_sdk.wire.names import TASK_JSON, TASK_MSGPACK, invocation_cancel_subject, progress_subject
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
        self._telling: set[asyncio.Task[None]] = set()

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
        waiting = _Waiting(invocation, self._clock, self._tell)
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

    def _tell(self, progress: Progress) -> None:
        # Told from the callback that reads the connection, which must not wait.
        telling = asyncio.create_task(self._publish(progress_subject(progress.task_id), progress.to_wire()))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _publish(self, subject: str, body: bytes = b"") -> None:
        with contextlib.suppress(NotConnectedError):
            await self._transport.publish(subject, body)

    async def _tell_to_stop(self, invocation: Invocation) -> None:
        """Tell a handler that its reply will not be used; one that does not listen for it goes on."""
        await self._publish(invocation_cancel_subject(invocation.id))


class _Waiting:
    """What is known of a call while it waits for its reply."""

    __slots__ = ("_clock", "_invocation", "_tell", "patience")

    def __init__(self, invocation: Invocation, clock: Clock, tell: Callable[[Progress], None]) -> None:
        self._invocation = invocation
        self._clock = clock
        self._tell = tell
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
        if interim.fraction is not None:
            task = self._invocation.task
            self._tell(
                Progress(
                    task_id=task.id,
                    task_type=task.type,
                    queue=task.queue,
                    try_=task.tries,
                    invocation=self._invocation.id,
                    fraction=interim.fraction,
                    note=interim.note,
                    timestamp_ns=self._clock.now_ns(),
                )
            )
        return self.patience.limit - now


def _header_fault(message: Message) -> str:
    # nats-py drops a block that it can't read, and what was an error would count as a success. Our reader keeps it.
    if isinstance(message, Frame) and message.block:
        try:
            read_header_block(message.block)
        except DecodeError as err:
            return f"the reply's headers can't be read: {err.reason}"
    return ""
