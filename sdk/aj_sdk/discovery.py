"""How a process shows itself as a NATS micro service: the answers to `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`.

Pure: values in, JSON out; whoever has a connection listens on `subjects()` and sends what `answer` gives. Source:
ADR-32 of the NATS architecture records. nats-py's own service object is not used: it handles requests one at a time.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from aj_sdk.errors import InvalidConfigError
from aj_sdk.wire.codec import encode_json
from aj_sdk.wire.times import format_time

__all__ = ["Endpoint", "EndpointStats", "ServiceDescription", "answer", "discovery_subject", "subjects"]

_PREFIX: Final = "$SRV"
_VERBS: Final = ("PING", "INFO", "STATS")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_MAX_ERROR: Final = 4096


def _name(value: str, what: str) -> str:
    if not _NAME.fullmatch(value):
        raise InvalidConfigError((f"{what} {value[:60]!r} is invalid: use the characters A-Z a-z 0-9 _ -",))
    return value


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a service answers.

    Attributes:
        name: A-Z a-z 0-9 _ - only: the `nats` command refuses others, so a task type is none.
        subject: where it listens.
        queue_group: whose members share the requests, empty where each one gets them all.
        metadata: what else there is to know.
    """

    name: str
    subject: str
    queue_group: str = ""
    metadata: Mapping[str, str] = {}


class EndpointStats(msgspec.Struct):
    """What an endpoint has done; the one value here that its owner changes.

    Attributes:
        requests: requests answered, with errors or not.
        errors: those of them answered with an error.
        last_error: the last error, empty for none.
        processing_ns: nanoseconds that all requests took together.
        data: anything else, that JSON can hold.
    """

    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0
    data: Any = None

    def count(self, took_ns: int, error: str = "") -> None:
        """Count a request that was answered.

        Args:
            took_ns: nanoseconds from its arrival to its answer.
            error: what went wrong, empty for nothing.
        """
        self.requests += 1
        self.processing_ns += max(0, took_ns)
        if error:
            self.errors += 1
            self.last_error = error[:_MAX_ERROR]


class ServiceDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a service.

    Attributes:
        name: the service: A-Z a-z 0-9 _ - only.
        id: of this instance, new for each start; the same characters.
        version: a semantic version.
        started_ns: when it began, nanoseconds since the epoch.
        description: in words.
        metadata: what else there is to know.
        endpoints: what it answers.

    Raises:
        InvalidConfigError: a name has other characters; it would not be found.
    """

    name: str
    id: str
    version: str
    started_ns: int
    description: str = ""
    metadata: Mapping[str, str] = {}
    endpoints: tuple[Endpoint, ...] = ()

    def __post_init__(self) -> None:
        _name(self.name, "service name")
        _name(self.id, "service id")
        for endpoint in self.endpoints:
            _name(endpoint.name, "endpoint name")


def discovery_subject(verb: str, name: str = "", instance: str = "") -> str:
    """Subject on which services are asked.

    Args:
        verb: `PING`, `INFO` or `STATS`.
        name: only services of this name.
        instance: only the instance of this id.
    """
    parts = [_PREFIX, verb]
    if name:
        parts.append(_name(name, "service name"))
        if instance:
            parts.append(_name(instance, "service id"))
    return ".".join(parts)


def subjects(service: ServiceDescription) -> tuple[str, ...]:
    """Subjects that a service listens on to be found; all without a queue group, so that each instance answers."""
    return tuple(
        discovery_subject(verb, *who) for verb in _VERBS for who in ((), (service.name,), (service.name, service.id))
    )


def answer(subject: str, service: ServiceDescription, stats: Sequence[EndpointStats] = ()) -> bytes | None:
    """Write the answer to a question on one of `subjects`.

    Args:
        subject: the question's subject.
        service: who is asked.
        stats: what its endpoints have done, in the order of `ServiceDescription.endpoints`; none = nothing yet.

    Returns:
        JSON, None for a question that is none of these or is meant for somebody else.
    """
    if subject not in subjects(service):
        return None
    verb = subject.split(".")[1]
    who: dict[str, Any] = {
        "name": service.name,
        "id": service.id,
        "version": service.version,
        "metadata": dict(service.metadata),
        "type": f"io.nats.micro.v1.{verb.lower()}_response",
    }
    if verb == "INFO":
        who |= {"description": service.description, "endpoints": [_info(endpoint) for endpoint in service.endpoints]}
    elif verb == "STATS":
        done = stats or [EndpointStats() for _ in service.endpoints]
        who |= {
            "started": format_time(service.started_ns),
            "endpoints": [_stats(*pair) for pair in zip(service.endpoints, done, strict=True)],
        }
    return encode_json(who)


def _info(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "subject": endpoint.subject,
        "queue_group": endpoint.queue_group,
        "metadata": dict(endpoint.metadata),
    }


def _stats(endpoint: Endpoint, stats: EndpointStats) -> dict[str, Any]:
    fields = {
        "name": endpoint.name,
        "subject": endpoint.subject,
        "queue_group": endpoint.queue_group,
        "num_requests": stats.requests,
        "num_errors": stats.errors,
        "last_error": stats.last_error,
        "processing_time": stats.processing_ns,
        "average_processing_time": stats.processing_ns // stats.requests if stats.requests else 0,
    }
    return fields if stats.data is None else {**fields, "data": stats.data}
