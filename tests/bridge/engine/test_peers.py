"""Bridges asking each other who holds an item, over a real server."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from aj_bridge.core.deliver import Holder
from aj_bridge.engine import peers as module
from aj_bridge.engine.peers import NatsPeers
from aj_bridge.engine.service import BridgeService
from aj_sdk.ids import new_id
from aj_sdk.transport import Message, NatsTransport, settle
from aj_sdk.wire.stamp import ItemRef

pytestmark = pytest.mark.server

ITEM = ItemRef(7, 2)


def nothing(_task_id: str, _item: ItemRef) -> bool:
    return False


def only_a(task_id: str, item: ItemRef) -> bool:
    return (task_id, item) == ("a", ITEM)


def answering(transport: NatsTransport, owner: str) -> AbstractAsyncContextManager[None]:
    peers = NatsPeers(transport, owner, only_a)
    return BridgeService(transport, owner, {"holds": peers.answer}).answering()


@pytest.fixture
def asking(transport: NatsTransport) -> NatsPeers:
    return NatsPeers(transport, new_id(), nothing)


async def test_a_bridge_says_whether_it_holds_this_very_delivery(asking: NatsPeers, other: NatsTransport) -> None:
    owner = new_id()
    async with answering(other, owner):
        await settle(other._nc)
        assert await asking.ask(owner, "a", ITEM) is Holder.YES
        assert await asking.ask(owner, "b", ITEM) is Holder.NO
        assert await asking.ask(owner, "a", ItemRef(7, 1)) is Holder.NO
        assert await asking.ask(owner, "a", ItemRef(8, 2)) is Holder.NO


async def test_a_bridge_that_is_gone_is_silent_at_once(asking: NatsPeers, patience: Callable[[float], float]) -> None:
    async with asyncio.timeout(patience(1.5)):
        assert await asking.ask(new_id(), "a", ITEM) is Holder.SILENT


async def test_a_bridge_answers_no_more_when_it_has_ended(asking: NatsPeers, other: NatsTransport) -> None:
    owner = new_id()
    async with answering(other, owner):
        pass
    await settle(other._nc)
    assert await asking.ask(owner, "a", ITEM) is Holder.SILENT


async def test_a_bridge_that_does_not_answer_in_time_is_silent(
    asking: NatsPeers, other: NatsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_TIMEOUT_S", 0.05)
    owner = new_id()
    subscription = await other.subscribe(f"AJ.BRIDGE.{owner}.holds", lambda _message: None)
    await settle(other._nc)
    assert await asking.ask(owner, "a", ITEM) is Holder.SILENT
    await subscription.close()


async def test_we_ask_ourselves_without_a_message(transport: NatsTransport) -> None:
    own = new_id()
    peers = NatsPeers(transport, own, only_a)
    assert await peers.ask(own, "a", ITEM) is Holder.YES
    assert await peers.ask(own, "b", ITEM) is Holder.NO


@pytest.mark.parametrize(
    "answer", [b"", b"x", b"[]", b"{}", b'{"holds":"yes"}', b'{"holds":1}', b'{"error":"no"}', b"[" * 10_000]
)
async def test_an_answer_that_cannot_be_read_is_none(asking: NatsPeers, other: NatsTransport, answer: bytes) -> None:
    owner = new_id()
    sent: list[asyncio.Task[None]] = []

    def on_question(message: Message) -> None:
        sent.append(asyncio.create_task(other.publish(message.reply, answer)))

    subscription = await other.subscribe(f"AJ.BRIDGE.{owner}.holds", on_question)
    await settle(other._nc)
    assert await asking.ask(owner, "a", ITEM) is Holder.SILENT
    await subscription.close()


@pytest.mark.parametrize(
    "question",
    [b"", b"{}", b'{"task":"a","sequence":"7","delivery":2}', b'{"task":"*","sequence":7,"delivery":2}'],
)
async def test_a_question_that_cannot_be_read_gets_a_reason(
    transport: NatsTransport, other: NatsTransport, question: bytes
) -> None:
    owner = new_id()
    subject = f"AJ.BRIDGE.{owner}.holds"
    async with answering(other, owner):
        await settle(other._nc)
        reply = await transport.request(subject, question, timeout=5)
        assert b'"error":' in reply.data
        await transport.publish(subject, question)  # without a reply subject nobody is told
        reply = await transport.request(subject, b'{"task":"a","sequence":7,"delivery":2}', timeout=5)
        assert reply.data == b'{"holds":true}'
