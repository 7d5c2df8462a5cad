"""What a service says of itself, beside what nats-py's own service object says of the same."""

import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import nats.micro
import pytest
from nats.aio.client import Client as NatsClient
from nats.micro.request import Request

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.discovery import Endpoint, EndpointStats, ServiceDescription, answer, discovery_subject, subjects
from aj_sdk.errors import InvalidConfigError
from aj_sdk.wire.times import parse_time

SERVICE = ServiceDescription(
    name="aj-test",
    id="A1",
    version="1.2.3",
    started_ns=parse_time("2026-01-02T03:04:05.6Z"),
    description="a test",
    metadata={"lang": "python"},
    endpoints=(
        Endpoint(name="run", subject="x.run", queue_group="q", metadata={"aj.type": "email:new"}),
        Endpoint(name="status", subject="x.status"),
    ),
)


def said(subject: str, stats: tuple[EndpointStats, ...] = ()) -> dict[str, Any]:
    body = answer(subject, SERVICE, stats)
    assert body is not None
    fields: dict[str, Any] = json.loads(body)
    return fields


def test_a_service_listens_for_all_for_its_name_and_for_itself() -> None:
    assert subjects(SERVICE) == (
        "$SRV.PING",
        "$SRV.PING.aj-test",
        "$SRV.PING.aj-test.A1",
        "$SRV.INFO",
        "$SRV.INFO.aj-test",
        "$SRV.INFO.aj-test.A1",
        "$SRV.STATS",
        "$SRV.STATS.aj-test",
        "$SRV.STATS.aj-test.A1",
    )
    assert all(answer(subject, SERVICE) is not None for subject in subjects(SERVICE))


def test_a_question_for_somebody_else_gets_no_answer() -> None:
    for subject in ("$SRV.PING.other", "$SRV.PING.aj-test.B2", "$SRV.NAME", "$SRV", "PING", ""):
        assert answer(subject, SERVICE) is None


def test_stats_tell_what_was_counted() -> None:
    stats = (EndpointStats(), EndpointStats(data={"queues": 2}))
    stats[0].count(3_000)
    stats[0].count(1_000, "boom")
    stats[0].count(-5)
    run, status = said("$SRV.STATS", stats)["endpoints"]
    assert (run["num_requests"], run["num_errors"], run["last_error"]) == (3, 1, "boom")
    assert (run["processing_time"], run["average_processing_time"]) == (4_000, 1_333)
    assert "data" not in run
    assert (status["num_requests"], status["average_processing_time"], status["data"]) == (0, 0, {"queues": 2})
    assert said("$SRV.STATS")["started"] == "2026-01-02T03:04:05.6Z"


@pytest.mark.parametrize("name", ["", "email:new", "a.b", "a b", "*", "ä"])
def test_names_that_would_not_be_found_are_refused(name: str) -> None:
    with pytest.raises(InvalidConfigError):
        ServiceDescription(name=name, id="A", version="1.0.0", started_ns=0)
    with pytest.raises(InvalidConfigError):
        ServiceDescription(name="a", id=name, version="1.0.0", started_ns=0)
    with pytest.raises(InvalidConfigError):
        ServiceDescription(
            name="a", id="A", version="1.0.0", started_ns=0, endpoints=(Endpoint(name=name, subject="s"),)
        )
    if name:
        with pytest.raises(InvalidConfigError):
            discovery_subject("PING", name)


@pytest.fixture
async def theirs(server: EmbeddedServer) -> AsyncIterator[NatsClient]:
    """Give a connection beside which nats-py's own service of the same description runs."""
    connection = await nats.connect(server.url)
    service = await nats.micro.add_service(
        connection,
        name=SERVICE.name,
        version=SERVICE.version,
        description=SERVICE.description,
        metadata=dict(SERVICE.metadata),
    )

    async def handler(request: Request) -> None:
        await request.respond(b"")

    for endpoint in SERVICE.endpoints:
        await service.add_endpoint(
            name=endpoint.name, handler=handler, subject=endpoint.subject, metadata=dict(endpoint.metadata)
        )
    yield connection
    await service.stop()
    await connection.close()


@pytest.mark.server
@pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
async def test_an_answer_has_the_fields_of_an_official_client(theirs: NatsClient, verb: str) -> None:
    reply = await theirs.request(discovery_subject(verb, SERVICE.name), b"", timeout=5)
    official = json.loads(reply.data)
    ours = said(discovery_subject(verb, SERVICE.name))
    assert official.keys() <= ours.keys()
    for key in official.keys() - {"id", "started", "endpoints"}:
        assert ours[key] == official[key]
    for own, other in zip(ours.get("endpoints", ()), official.get("endpoints", ()), strict=True):
        assert {key for key, value in other.items() if value is not None} <= own.keys()
        assert (own["name"], own["subject"]) == (other["name"], other["subject"])
