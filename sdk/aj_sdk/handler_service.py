"""Handlers as the NATS micro service `aj-handler`: what `nats micro ls|info|stats` shows of a runner.

Answers `$SRV` alone; the calls themselves stay the runner's business, so that they run beside each other.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from aj_sdk import discovery
from aj_sdk.discovery import Endpoint, EndpointStats, ServiceDescription
from aj_sdk.ids import new_id
from aj_sdk.payload import payload_schema
from aj_sdk.services import Service
from aj_sdk.transport import settle
from aj_sdk.version import __version__

__all__ = ["HANDLER_SERVICE", "HandlerService", "describe_handlers"]

HANDLER_SERVICE: Final = "aj-handler"
"""Name of the service that handlers are in any language; a task type can be none, for it may have a colon."""

_MAX_SCHEMA: Final = 8 * 1024
# All of them stand in one message, and a server takes 1 MiB unless it is told otherwise.
_MAX_SCHEMAS: Final = 256 * 1024

_LOG: Final = logging.getLogger("aj_sdk")


def describe_handlers(services: Iterable[Service], *, instance: str, started_ns: int) -> ServiceDescription:
    """Describe handlers as a micro service.

    Each is an endpoint `run`, `run_2` and so on, with the type in its metadata `aj.type` and, where its payload is
    annotated with a type that has one, a JSON Schema in `aj.schema` (8 KiB at most, 256 KiB for all of them).

    Args:
        services: the handlers.
        instance: id of the process: A-Z a-z 0-9 _ - only, new for each start.
        started_ns: when it began, nanoseconds since the epoch.
    """
    endpoints = []
    room = _MAX_SCHEMAS
    for number, service in enumerate(services, 1):
        metadata = {"aj.type": service.route, "aj.language": "python", "aj.sdk": __version__}
        schema = _schema(service)
        if schema and len(schema) <= min(_MAX_SCHEMA, room):
            metadata["aj.schema"] = schema.decode()
            room -= len(schema)
        endpoints.append(
            Endpoint(
                name="run" if number == 1 else f"run_{number}",
                subject=service.subject,
                queue_group=service.queue_group,
                metadata=metadata,
            )
        )
    return ServiceDescription(
        name=HANDLER_SERVICE,
        id=instance,
        version=__version__,
        started_ns=started_ns,
        description="Handles tasks",
        metadata={"aj.language": "python", "aj.client": "aj_sdk", "aj.sdk": __version__},
        endpoints=tuple(endpoints),
    )


class HandlerService:
    """What a runner shows of itself.

    Args:
        connection: the runner's connection.
        services: its handlers.
        stats: what they have done, in the same order; the runner counts.
        in_flight: how many calls of each of them run now, asked when somebody wants to know.
    """

    def __init__(
        self,
        connection: NatsClient,
        services: Sequence[Service],
        stats: Sequence[EndpointStats],
        in_flight: Callable[[], Iterable[int]],
    ) -> None:
        self._connection = connection
        self._stats = stats
        self._in_flight = in_flight
        self._subscriptions: list[Subscription] = []
        self.description = describe_handlers(services, instance=new_id(), started_ns=time.time_ns())

    async def open(self) -> None:
        """Be found from now on; where the login may not listen on `$SRV.>`, say so on one line and do without.

        Raises:
            nats.errors.Error: the connection broke.
        """
        first, *others = discovery.subjects(self.description)
        before = self._connection.last_error
        await self._listen(first)
        # The server says no at once or never, and says it for each subject: one is asked about before the others.
        await settle(self._connection)
        after = self._connection.last_error
        if after is not before and first.lower() in str(after).lower():
            await self.close()
            _LOG.warning("handlers are not shown by `nats micro`: this login may not subscribe to $SRV.>")
            return
        for subject in others:
            await self._listen(subject)

    async def close(self) -> None:
        """Be found no more."""
        while self._subscriptions:
            with contextlib.suppress(nats.errors.Error):
                await self._subscriptions.pop().unsubscribe()

    async def _listen(self, subject: str) -> None:
        self._subscriptions.append(await self._connection.subscribe(subject, cb=self._on_question))

    async def _on_question(self, message: Msg) -> None:
        if not message.reply:
            return
        for stats, in_flight in zip(self._stats, self._in_flight(), strict=True):
            stats.data = {"in_flight": in_flight}
        body = discovery.answer(message.subject, self.description, self._stats)
        if body is None:
            return
        try:
            await self._connection.publish(message.reply, body)
        except nats.errors.Error as err:
            _LOG.warning("a question on %s could not be answered: %s", message.subject, err)


def _schema(service: Service) -> bytes | None:
    """Return the JSON Schema of a handler's payload; None when it takes none, or one that has no schema."""
    found = (argument.annotation for argument in service.arguments if argument.read is not None)
    return next((payload_schema(annotation) for annotation in found), None)
