"""Calling a remote handler: one request on the route's subject, one reply. Decides nothing but what a reply means."""

import asyncio
import contextlib
from typing import Protocol

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.router import Encoding, Invocation, Nobody, Outcome
from aj_sdk.errors import MessageTooLargeError, NoRespondersError, NotConnectedError, OutcomeUnknownError
from aj_sdk.transport import Transport
from aj_sdk.wire.call import Cause, Failed, Terminated, call_headers, read_reply
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

    async def call(self, invocation: Invocation) -> Outcome:
        """See `Dispatch`."""
        task, run_time_ns = invocation.task, invocation.run_time_ns
        subject = invocation.route.subject(task.type)
        now_ns = self._clock.now_ns()
        packed = invocation.route.encoding is Encoding.MSGPACK
        headers = call_headers(
            task,
            invocation=invocation.id,
            now_ns=now_ns,
            give_up_ns=now_ns + run_time_ns,
            content_type=TASK_MSGPACK if packed else TASK_JSON,
        )
        body = task.to_msgpack() if packed else task.to_wire()
        try:
            message = await self._transport.request(subject, body, headers=headers, timeout=run_time_ns / NS_PER_S)
        except NoRespondersError:
            raise Nobody(subject) from None
        except asyncio.CancelledError:
            await self._tell_to_stop(invocation)
            raise
        except OutcomeUnknownError:
            await self._tell_to_stop(invocation)
            waited = format_duration(run_time_ns)
            return Failed(f"no reply from a handler on {subject} within {waited}", cause=Cause.DEADLINE)
        except MessageTooLargeError as err:
            return Terminated(f"the task does not fit a request: {err}")
        except NotConnectedError as err:
            return Failed(f"the call was not made: {err}")
        return read_reply(message.headers, message.data)

    async def _tell_to_stop(self, invocation: Invocation) -> None:
        """Tell a handler that its reply will not be used; one that does not listen for it goes on."""
        with contextlib.suppress(NotConnectedError):
            await self._transport.publish(invocation_cancel_subject(invocation.id))
