"""The responders of interop/ use what protocol 1.1 adds where a request offers it, and only there."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from tests.interop.asking import LONG, ask, from_bridge, from_go_worker, ordered, outcome, result
from tests.interop.responders import BUILD_TIMEOUT, responder

from aj_bridge.faces.embedded import EmbeddedServer

pytestmark = [pytest.mark.interop, pytest.mark.timeout(BUILD_TIMEOUT)]

OFFER = from_bridge() | {"AJ-Heartbeat-Ms": "100"}


class Asked:
    """A request that was sent, and the replies that come."""

    def __init__(self, nc: Client, replies: Subscription) -> None:
        self._nc = nc
        self._replies = replies

    @classmethod
    async def send(cls, nc: Client, subject: str, body: bytes, headers: dict[str, str]) -> "Asked":
        inbox = nc.new_inbox()
        replies = await nc.subscribe(inbox)
        await nc.publish(subject, body, inbox, headers)
        return cls(nc, replies)

    async def next(self) -> Msg:
        return await self._replies.next_msg(timeout=30)

    async def all(self) -> AsyncIterator[Msg]:
        """Give the replies up to the last one."""
        while True:
            reply = await self.next()
            yield reply
            if "AJ-Progress" not in (reply.headers or {}):
                return


def shares(replies: list[Msg]) -> list[str]:
    return [(reply.headers or {})["AJ-Progress"] for reply in replies]


async def test_work_that_takes_long_is_known_to_live(nc: Client, shared: str, language: str) -> None:
    asked = await Asked.send(nc, shared, ordered("sleep", ms=350), OFFER)
    *interim, last = [reply async for reply in asked.all()]
    assert 3 <= len(interim) <= 8
    assert {*shares(interim)} == {""}
    assert {reply.data for reply in interim} == {b""}
    assert result(last)["handler"] == language


async def test_short_work_is_answered_once(nc: Client, shared: str) -> None:
    asked = await Asked.send(nc, shared, ordered("ok"), OFFER)
    assert len([reply async for reply in asked.all()]) == 1


@pytest.mark.parametrize("order", [{"do": "sleep", "ms": 300}, {"do": "progress", "steps": 3, "ms": 50}])
async def test_a_go_worker_gets_one_reply(nc: Client, shared: str, order: dict[str, Any]) -> None:
    asked = await Asked.send(nc, shared, ordered(**order), from_go_worker())
    assert "AJ-Progress" not in ((await asked.next()).headers or {})


async def test_heartbeats_may_be_sent_by_hand(nc: Client, shared: str) -> None:
    slow = OFFER | {"AJ-Heartbeat-Ms": str(LONG)}
    asked = await Asked.send(nc, shared, ordered("heartbeat", every_ms=20, ms=150), slow)
    *interim, last = [reply async for reply in asked.all()]
    assert len(interim) > 1
    assert {*shares(interim)} == {""}
    assert not last.headers


async def test_progress_is_told_with_a_note(nc: Client, shared: str) -> None:
    slow = OFFER | {"AJ-Heartbeat-Ms": str(LONG)}
    asked = await Asked.send(nc, shared, ordered("progress", steps=4, ms=10), slow)
    *interim, last = [reply async for reply in asked.all()]
    assert [float(share) for share in shares(interim)] == [0.25, 0.5, 0.75, 1]
    assert json.loads(interim[0].data) == {"note": "step 1 of 4"}
    assert not last.headers


async def test_progress_moves_the_deadline(nc: Client, shared: str) -> None:
    short = OFFER | {"AJ-Handler-Timeout-Ms": "1000"}
    asked = await Asked.send(nc, shared, ordered("progress", steps=4, ms=500), short)
    assert not [reply async for reply in asked.all()][-1].headers


async def test_heartbeats_do_not_move_the_deadline(nc: Client, shared: str) -> None:
    short = OFFER | {"AJ-Handler-Timeout-Ms": "300"}
    asked = await Asked.send(nc, shared, ordered("heartbeat", every_ms=20, ms=LONG), short)
    assert outcome([reply async for reply in asked.all()][-1]) == (b"", {"AJ-Error": "deadline"})


async def test_a_call_that_is_not_wanted_any_more_is_ended(nc: Client, shared: str) -> None:
    asked = await Asked.send(nc, shared, ordered("cancel"), OFFER)
    await asked.next()  # a heartbeat: the work has begun
    await nc.publish("CHORIA_AJ.CI.another", b"")
    await nc.publish(OFFER["AJ-Cancel-Subject"], b"")
    assert outcome([reply async for reply in asked.all()][-1]) == (b"", {"AJ-Error": "cancelled"})


async def test_one_call_is_cancelled_of_many(nc: Client, shared: str) -> None:
    first, second = (OFFER | {"AJ-Cancel-Subject": f"CHORIA_AJ.CI.{name}"} for name in ("first", "second"))
    cancelled = await Asked.send(nc, shared, ordered("cancel"), first)
    other = await Asked.send(nc, shared, ordered("sleep", ms=1000), second)
    await cancelled.next()
    await nc.publish("CHORIA_AJ.CI.first", b"")
    assert outcome([reply async for reply in cancelled.all()][-1])[1] == {"AJ-Error": "cancelled"}
    assert not [reply async for reply in other.all()][-1].headers


async def test_after_the_last_reply_nothing_is_sent(nc: Client, shared: str) -> None:
    quick = OFFER | {"AJ-Heartbeat-Ms": "2"}
    asked = await Asked.send(nc, shared, ordered("sleep", ms=50), quick)
    assert not [reply async for reply in asked.all()][-1].headers
    # Replies keep their order: once another request is answered, a late heartbeat would have come.
    await ask(nc, shared, ordered("sleep", ms=50))
    assert asked._replies.pending_msgs == 0


async def test_headers_are_found_whatever_their_case(nc: Client, shared: str) -> None:
    lower = {name.lower(): value for name, value in OFFER.items()} | {"aj-handler-timeout-ms": "300"}
    asked = await Asked.send(nc, shared, ordered("cancel"), lower)
    *interim, last = [reply async for reply in asked.all()]
    assert interim
    assert outcome(last) == (b"", {"AJ-Error": "deadline"})


async def test_a_header_in_another_language_harms_nobody(nc: Client, shared: str) -> None:
    for headers in (from_bridge() | {"X-Text": "dépassé ☃"}, from_bridge()):
        assert result(await ask(nc, shared, ordered("ok"), headers))["try"] == 1


async def test_the_trace_of_a_request_is_seen(nc: Client, shared: str) -> None:
    headers = from_bridge() | {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    seen = result(await ask(nc, shared, ordered("headers"), headers))
    assert seen == {"headers": headers, "id": "2NVFxJqq5UoJoAqZ5ixCwZkeyjM", "type": "email:new", "tries": 1}


async def test_a_result_may_be_empty(nc: Client, shared: str) -> None:
    assert outcome(await ask(nc, shared, ordered("empty"))) == (b"", {})


async def test_a_result_may_be_large(nc: Client, shared: str) -> None:
    assert outcome(await ask(nc, shared, ordered("big", bytes=700_000))) == (b"x" * 700_000, {})


async def test_both_error_headers_may_be_sent(nc: Client, shared: str) -> None:
    headers = outcome(await ask(nc, shared, ordered("both", error="for good")))[1]
    assert headers == {"AJ-Error": "not this one", "AJ-Terminate": "for good"}


async def test_a_header_may_be_sent_in_another_case(nc: Client, shared: str) -> None:
    assert outcome(await ask(nc, shared, ordered("case", error="no"))) == (b"", {"aj-error": "no"})


async def test_an_answer_may_be_late(nc: Client, shared: str, language: str) -> None:
    short = from_bridge() | {"AJ-Handler-Timeout-Ms": "100"}
    assert result(await ask(nc, shared, ordered("late", ms=50), short))["handler"] == language


async def test_a_responder_may_crash(nc: Client, server: EmbeddedServer, language: str) -> None:
    with responder(language, server.url, AJ_TYPE="crash") as running:
        await nc.publish(running.ready(), ordered("crash"), nc.new_inbox(), from_bridge())
        code, _ = await asyncio.to_thread(running.ended)
        assert code == 1


async def discovered(nc: Client, verb: str, language: str) -> dict[str, Any]:
    """Ask the micro services, and give the answer of this language's."""
    inbox = nc.new_inbox()
    replies = await nc.subscribe(inbox)
    await nc.publish(f"$SRV.{verb}.aj-handler", b"", inbox)
    while True:
        answer: dict[str, Any] = json.loads((await replies.next_msg(timeout=30)).data)
        if answer["metadata"]["aj.language"] == language:
            return answer


async def test_it_is_found_as_a_micro_service(nc: Client, shared: str, language: str) -> None:
    info = await discovered(nc, "INFO", language)
    assert (info["name"], info["type"]) == ("aj-handler", "io.nats.micro.v1.info_response")
    (endpoint,) = info["endpoints"]
    assert endpoint == {
        "name": "run",
        "subject": shared,
        "queue_group": "q",
        "metadata": {"aj.type": f"shared:{language}"},
    }
    assert (await discovered(nc, "PING", language))["id"] == info["id"]


async def test_its_requests_are_counted(nc: Client, shared: str, language: str) -> None:
    (before,) = (await discovered(nc, "STATS", language))["endpoints"]
    asked = await Asked.send(nc, shared, ordered("cancel"), OFFER)
    await asked.next()
    (now,) = (await discovered(nc, "STATS", language))["endpoints"]
    assert now["data"]["in_flight"] == before["data"]["in_flight"] + 1
    await nc.publish(OFFER["AJ-Cancel-Subject"], b"")
    async for _ in asked.all():
        pass
    await ask(nc, shared, ordered("ok"))
    (after,) = (await discovered(nc, "STATS", language))["endpoints"]
    assert after["num_requests"] == before["num_requests"] + 2
