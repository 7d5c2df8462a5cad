"""Calling a remote handler: one request on the route's subject, one reply. Decides nothing but what a reply means."""

from typing import Protocol

from aj_bridge.engine.clock import Clock
from aj_sdk.errors import MessageTooLargeError, NoRespondersError, NotConnectedError, OutcomeUnknownError
from aj_sdk.transport import Transport
from aj_sdk.wire.call import Completed, Failed, Terminated, call_headers, read_reply
from aj_sdk.wire.names import handler_subject
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S, format_duration

__all__ = ["Dispatch", "Nobody", "RemoteHandlers"]


class Nobody(Exception):  # noqa: N818 - not an error: it costs no try
    """Nobody listens for a task.

    Args:
        subject: where.
    """

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.subject = subject


class Dispatch(Protocol):
    """How a task gets to its handler."""

    async def call(
        self, task: TaskRecord, route: str, invocation: str, run_time_ns: int
    ) -> Completed | Failed | Terminated:
        """Have a task handled.

        Args:
            task: the task, saved `active` with this try counted.
            route: the route it takes.
            invocation: id of this one invocation.
            run_time_ns: how long it may take.

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

    async def call(
        self, task: TaskRecord, route: str, invocation: str, run_time_ns: int
    ) -> Completed | Failed | Terminated:
        """See `Dispatch`."""
        subject = handler_subject(route)
        now_ns = self._clock.now_ns()
        headers = call_headers(task, invocation=invocation, now_ns=now_ns, give_up_ns=now_ns + run_time_ns)
        try:
            message = await self._transport.request(
                subject, task.to_wire(), headers=headers, timeout=run_time_ns / NS_PER_S
            )
        except NoRespondersError:
            raise Nobody(subject) from None
        except OutcomeUnknownError:
            return Failed(f"no reply from a handler on {subject} within {format_duration(run_time_ns)}")
        except MessageTooLargeError as err:
            return Terminated(f"the task does not fit a request: {err}")
        except NotConnectedError as err:
            return Failed(f"the call was not made: {err}")
        return read_reply(message.headers, message.data)
