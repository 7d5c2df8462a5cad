"""Bridges as micro services, over a real server: the real service and the real client, found, asked and told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aj_bridge.engine.control import control_answers
from aj_bridge.engine.service import BridgeService
from aj_sdk.bridges import Bridges, SilentBridge
from aj_sdk.errors import (
    BridgeNotFoundError,
    DecodeError,
    InvalidConfigError,
    NoRespondersError,
    OutcomeUnknownError,
    RefusedError,
)
from aj_sdk.transport import NatsTransport, settle
from aj_sdk.wire.bridge import BridgeStatus, ServedStatus
from aj_sdk.wire.times import NS_PER_S

pytestmark = pytest.mark.server


class Told:
    """What is told: remembers it."""

    def __init__(self, who: str, started_ns: int = NS_PER_S) -> None:
        self.id = who
        self.started_ns = started_ns
        self.concurrency = 10
        self.state = "working"

    @property
    def status(self) -> BridgeStatus:
        queue = ServedStatus(
            name="Q", weight=6, in_hand=3, running=2, calls=7, failed=1, calls_per_s=1.5, failed_per_s=0.25
        )
        return BridgeStatus(
            id=self.id,
            host="here",
            pid=1,
            version="0.1.0",
            started_ns=self.started_ns,
            state=self.state,
            concurrency=self.concurrency,
            in_hand=3,
            queues=(queue,),
        )

    def drain(self) -> None:
        self.state = "draining"

    async def set_concurrency(self, number: int) -> None:
        self.concurrency = number

    async def pause(self) -> None:
        self.state = "paused"

    def resume(self) -> None:
        self.state = "working"


@asynccontextmanager
async def running(transport: NatsTransport, *bridges: Told) -> AsyncIterator[None]:
    services = [BridgeService(transport, told.id, control_answers(told), {"host": "here"}) for told in bridges]
    async with services[0].answering():
        if len(services) == 1:
            await settle(transport._nc)
            yield
        else:
            async with services[1].answering():
                await settle(transport._nc)
                yield


@pytest.fixture
def bridges(transport: NatsTransport) -> Bridges:
    return Bridges(transport, timeout=5)


async def test_those_that_run_are_found_the_oldest_first(bridges: Bridges, other: NatsTransport) -> None:
    assert await bridges.running() == []
    young, old = Told("abc1", 9 * NS_PER_S), Told("abd2", 2 * NS_PER_S)
    async with running(other, young, old):
        assert await bridges.within(1).running() == [old.status, young.status]
    await settle(other._nc)
    assert await bridges.running() == []


async def test_one_is_told_by_its_id_or_the_beginning_of_it(bridges: Bridges, other: NatsTransport) -> None:
    first, second = Told("abc1"), Told("abd2")
    bridges = bridges.within(1)
    async with running(other, first, second):
        assert await bridges.status("abc1") == first.status
        assert (await bridges.set_concurrency("abc", 50)).concurrency == 50
        assert (await bridges.pause("abd2")).state == "paused"
        assert (await bridges.resume("abd2")).state == "working"
        assert (await bridges.drain("abd")).state == "draining"
        assert (first.state, first.concurrency, second.state, second.concurrency) == ("working", 50, "draining", 10)
        for wrong, error in (("ab", "2 bridges begin with ab: abc1, abd2"), ("x", "bridge x not found")):
            with pytest.raises((InvalidConfigError, BridgeNotFoundError), match=error):
                await bridges.drain(wrong)
        for name in ("*", ">", "a.b", ""):
            with pytest.raises(BridgeNotFoundError):
                await bridges.drain(name)


async def test_what_a_bridge_cannot_do_is_refused_with_the_reason_and_counted(
    transport: NatsTransport, other: NatsTransport
) -> None:
    told = Told("abc1")
    async with running(other, told):
        for endpoint, body, reason in (
            ("concurrency", b"", "request: not valid JSON"),
            ("concurrency", b"[]", "request: must be an object"),
            ("concurrency", b'{"concurrency":0}', "request: concurrency: must be 1 to 100000"),
            ("concurrency", b'{"concurrency":true}', "request: concurrency: must be an integer"),
            ("pause", b'{"paused":"yes"}', "request: paused: must be true or false"),
            ("pause", b"{}", "request: paused: is missing"),
        ):
            reply = await transport.request(f"AJ.BRIDGE.abc1.{endpoint}", body, timeout=5)
            assert json.loads(reply.data)["error"].startswith(reason)
            assert reply.headers is not None
            assert reply.headers["Nats-Service-Error"].startswith(reason)
            assert reply.headers["Nats-Service-Error-Code"] == "400"
        stats = json.loads((await transport.request("$SRV.STATS.aj-bridge.abc1", timeout=5)).data)
    by_name = {endpoint["name"]: endpoint for endpoint in stats["endpoints"]}
    assert (by_name["concurrency"]["num_requests"], by_name["concurrency"]["num_errors"]) == (4, 4)
    assert by_name["pause"]["last_error"] == "request: paused: is missing"
    assert by_name["status"]["num_requests"] == 0
    assert told.status == Told("abc1").status


async def test_a_defect_is_told_and_the_service_goes_on(
    transport: NatsTransport, other: NatsTransport, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Told):
        def drain(self) -> None:
            raise RuntimeError("boom")

    async with running(other, Broken("abc1")):
        with pytest.raises(RefusedError, match="unexpected RuntimeError: boom"):
            await Bridges(transport).drain("abc1")
        assert (await Bridges(transport).status("abc1")).state == "working"
    assert "a defect in answering AJ.BRIDGE.abc1.drain" in caplog.text


async def test_one_that_says_it_is_there_and_not_how_it_stands_is_silent(
    bridges: Bridges, other: NatsTransport
) -> None:
    async def nonsense(_request: bytes) -> dict[str, str]:
        return {"id": "abd2"}

    async def never(_request: bytes) -> dict[str, str]:
        await asyncio.sleep(3600)
        return {}

    async with BridgeService(other, "abd2", {"status": nonsense}).answering():
        await settle(other._nc)
        (found,) = await bridges.within(1).running()
        assert isinstance(found, SilentBridge)
        assert (found.id, found.reason) == ("abd2", "bridge status: host: is missing")
        with pytest.raises(DecodeError):
            await bridges.status("abd2")
    hanging = BridgeService(other, "abe3", {"status": never})
    async with hanging.answering():
        await settle(other._nc)
        (found,) = await bridges.within(0.2).running()
        assert found == SilentBridge(id="abe3", reason="gave no answer within 0.2 s")
        with pytest.raises(OutcomeUnknownError):
            await bridges.within(0.2).status("abe3")


async def test_questions_without_a_reply_subject_are_nobodys(transport: NatsTransport, other: NatsTransport) -> None:
    told = Told("abc1")
    async with running(other, told):
        await transport.publish("AJ.BRIDGE.abc1.drain")
        await transport.publish("$SRV.PING")
        await Bridges(transport).status("abc1")
    assert told.state == "working"
    await settle(other._nc)
    with pytest.raises(NoRespondersError):
        await transport.request("$SRV.PING.aj-bridge.abc1", timeout=5)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_no_length_of_time_is_refused(transport: NatsTransport, timeout: float) -> None:
    with pytest.raises(InvalidConfigError):
        Bridges(transport, timeout)
