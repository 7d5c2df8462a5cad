"""Handlers as a micro service: what is said of them, and that it is right while many calls run."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import nats
import pydantic
import pytest

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.connect import ConnectOptions
from aj_sdk.handler_service import describe_handlers
from aj_sdk.handling import Task
from aj_sdk.payload import payload_schema
from aj_sdk.runner import HandlerStats, Runner
from aj_sdk.services import Services
from aj_sdk.version import __version__
from aj_sdk.wire.call import call_headers
from aj_sdk.wire.names import handler_subject
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord


@dataclass
class Email:
    """What an e-mail needs."""

    to: str
    copies: int = 1


class Order(pydantic.BaseModel):
    """Of pydantic."""

    item: str


def test_a_payload_has_the_schema_of_its_annotation() -> None:
    def schema(annotation: Any) -> Any:
        encoded = payload_schema(annotation)
        return None if encoded is None else msgspec.json.decode(encoded)

    email = schema(Email)["$defs"]["Email"]
    assert (email["required"], email["properties"]["copies"]) == (["to"], {"type": "integer", "default": 1})
    assert schema(Order)["properties"]["item"]["type"] == "string"
    assert schema(list[Order])["items"] == {"$ref": "#/$defs/Order"}
    assert schema(dict[str, int]) == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert [schema(kind) for kind in (bytes, bytes | None, Any, object)] == [None] * 4


def test_each_handler_is_an_endpoint_with_its_type_and_schema() -> None:
    services = Services()

    @services.service("email:new")
    def new(task: Task, email: Email) -> None: ...

    @services.service("email:raw", queue_group="mine")
    def raw(task: Task) -> None: ...

    shown = describe_handlers(services, instance="A1", started_ns=5)
    assert (shown.name, shown.id, shown.version, shown.started_ns) == ("aj-handler", "A1", __version__, 5)
    assert shown.metadata["aj.language"] == "python"
    first, second = shown.endpoints
    assert (first.name, first.subject, first.queue_group) == ("run", "CHORIA_AJ.H.T.email:new", "q")
    assert (second.name, second.subject, second.queue_group) == ("run_2", "CHORIA_AJ.H.T.email:raw", "mine")
    assert dict(second.metadata) == {"aj.type": "email:raw", "aj.language": "python", "aj.sdk": __version__}
    assert (first.metadata["aj.type"], "to" in first.metadata["aj.schema"]) == ("email:new", True)


def test_schemas_that_are_too_large_are_left_out() -> None:
    def kind(fields: int) -> type:
        return msgspec.defstruct("Kind", [(f"field_{number}", int) for number in range(fields)])

    def schemas(kinds: list[type]) -> list[int]:
        services = Services()
        for number, each in enumerate(kinds):

            def handler(payload: Any) -> None: ...

            handler.__annotations__["payload"] = each
            services.service(f"t{number}")(handler)
        shown = describe_handlers(services, instance="A1", started_ns=5)
        return [len(endpoint.metadata.get("aj.schema", "")) for endpoint in shown.endpoints]

    small, large = schemas([kind(10), kind(1000)])
    assert (small > 0, large) == (True, 0)
    many = schemas([kind(100)] * 200)
    assert (many[0] > 0, many[-1], sum(many) <= 256 * 1024) == (True, 0, True)


def request(kind: str, number: int) -> tuple[bytes, dict[str, str]]:
    now_ns = time.time_ns()
    record = TaskRecord(
        id=f"T{number}",
        type=kind,
        queue="Q",
        state=TaskState.ACTIVE,
        payload=str(number).encode(),
        created_ns=now_ns,
        tries=1,
    )
    return record.to_wire(), call_headers(
        record, invocation=f"i{number}", now_ns=now_ns, give_up_ns=now_ns + 60 * 10**9
    )


@pytest.mark.server
async def test_figures_are_right_after_a_thousand_calls_and_asking_holds_none_up(
    server: EmbeddedServer, patience: Callable[[float], float]
) -> None:
    services = Services()
    together, running, gate = 0, 0, asyncio.Event()

    @services.service("counted:work")
    async def work(number: int) -> int:
        nonlocal together, running
        running += 1
        together = max(together, running)
        if running == 50:
            gate.set()
        await gate.wait()
        await asyncio.sleep(0)
        running -= 1
        if number % 10 == 0:
            raise ValueError(f"no {number}")
        return number

    @services.service("counted:held")
    async def held(number: int) -> None:
        entered.set()
        await asyncio.Event().wait()

    entered = asyncio.Event()
    nc = await nats.connect(server.url)

    async def ask(verb: str, who: str) -> dict[str, Any]:
        reply = await nc.request(f"$SRV.{verb}.aj-handler.{who}", b"", timeout=patience(10))
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def call(number: int) -> None:
        body, headers = request("counted:work", number)
        await nc.request(handler_subject("counted:work"), body, timeout=patience(30), headers=headers)

    async with Runner(ConnectOptions.from_url(server.url), services, concurrency=51, grace=0) as runner:
        found = await nc.request("$SRV.PING.aj-handler", b"", timeout=patience(10))
        who = json.loads(found.data)["id"]
        body, headers = request("counted:held", 5000)
        await nc.publish(handler_subject("counted:held"), body, nc.new_inbox(), headers)
        await entered.wait()
        calls = [asyncio.create_task(call(number)) for number in range(1000)]
        seen = []
        while not all(each.done() for each in calls):
            run, _ = (await ask("STATS", who))["endpoints"]
            seen.append(run["num_requests"])
        await asyncio.gather(*calls)
        stats = await ask("STATS", who)
        run, run_2 = stats["endpoints"]
        assert (run["num_requests"], run["num_errors"], run["data"]) == (1000, 100, {"in_flight": 0})
        assert run["last_error"].startswith("ValueError: no ")
        assert 0 < run["average_processing_time"] == run["processing_time"] // 1000
        assert (run_2["num_requests"], run_2["data"]) == (0, {"in_flight": 1})
        assert (together, seen) == (50, sorted(seen))
        assert runner.stats["counted:work"] == HandlerStats(1000, 100, 0)
        info = await ask("INFO", who)
        assert [endpoint["metadata"]["aj.type"] for endpoint in info["endpoints"]] == ["counted:work", "counted:held"]
    with pytest.raises(nats.errors.NoRespondersError):
        await ask("PING", who)
    await nc.close()


@pytest.mark.server
async def test_a_login_that_may_not_be_found_handles_its_tasks_and_says_so_once(
    fresh_server: Callable[..., EmbeddedServer], patience: Callable[[float], float], caplog: pytest.LogCaptureFixture
) -> None:
    limited = {"subscribe": ["CHORIA_AJ.H.T.>", "CHORIA_AJ.CI.*", "_INBOX.>"]}
    users = [{"user": "all", "password": "p"}, {"user": "handler", "password": "p", "permissions": limited}]
    server = fresh_server(config={"authorization": {"users": users}})
    services = Services()

    @services.service("work")
    async def work(number: int) -> int:
        return number

    nc = await nats.connect(server.url, user="all", password="p")
    mine = server.url.replace("nats://", "nats://handler:p@")
    async with Runner(ConnectOptions.from_url(mine), services):
        body, headers = request("work", 7)
        reply = await nc.request(handler_subject("work"), body, timeout=patience(10), headers=headers)
        assert reply.data == b"7"
        with pytest.raises(nats.errors.NoRespondersError):
            await nc.request("$SRV.PING.aj-handler", b"", timeout=patience(10))
    said = [record.message for record in caplog.records if "nats micro" in record.message]
    assert said == ["handlers are not shown by `nats micro`: this login may not subscribe to $SRV.>"]
    await nc.close()
