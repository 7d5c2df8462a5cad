"""The transport seam, against a real server: on nats-py's public API, and with our own reader and writer."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from nats.aio.client import Client as Connection

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.errors import MessageTooLargeError, NoRespondersError, NotConnectedError, OutcomeUnknownError
from aj_sdk.fast import FastTransport
from aj_sdk.transport import Message, NatsTransport, _Deadlines, is_no_responders
from aj_sdk.wire.frames import HeaderForm

pytestmark = pytest.mark.server

LONG = 10.0
KINDS: dict[str, type[NatsTransport]] = {"plain": NatsTransport, "fast": FastTransport}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[NatsTransport]:
    return KINDS[request.param]


@pytest.fixture
async def transport(connection: Connection, kind: type[NatsTransport]) -> AsyncIterator[NatsTransport]:
    async with kind(connection) as transport:
        yield transport


async def echo(transport: NatsTransport, message: Message) -> None:
    await transport.publish(message.reply, message.data, headers=message.headers)


class Listener:
    """Keeps what comes, and lets a test wait for it."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    def __call__(self, message: Message) -> None:
        self._messages.put_nowait(message)

    async def next(self) -> Message:
        async with asyncio.timeout(LONG):
            return await self._messages.get()

    @property
    def count(self) -> int:
        return self._messages.qsize()


async def test_a_request_gets_its_reply_with_headers(transport: NatsTransport) -> None:
    listener = Listener()
    await transport.subscribe("say", listener)
    asked = asyncio.ensure_future(transport.request("say", b"hello", headers={"A": "ä"}, timeout=LONG))
    await echo(transport, await listener.next())
    reply = await asked
    assert (reply.data, reply.headers) == (b"hello", {"A": "ä"})


async def test_a_block_of_headers_that_is_written_already_is_sent_as_it_is(transport: NatsTransport) -> None:
    listener = Listener()
    await transport.subscribe("say", listener)
    await transport.publish("say", b"hello", headers=HeaderForm("A", "B").block("ä", 7))
    message = await listener.next()
    assert (message.data, message.headers) == (b"hello", {"A": "ä", "B": "7"})


async def test_many_requests_at_once_each_get_their_own_reply(transport: NatsTransport) -> None:
    async with asyncio.TaskGroup() as group:

        def answer(message: Message) -> None:
            group.create_task(echo(transport, message))

        await transport.subscribe("say", answer)
        asked = [group.create_task(transport.request("say", b"%d" % n, timeout=LONG)) for n in range(500)]
    assert [task.result().data for task in asked] == [b"%d" % n for n in range(500)]


async def test_a_subject_without_listeners_is_told_at_once(transport: NatsTransport) -> None:
    with pytest.raises(NoRespondersError, match="no responders on nobody"):
        await transport.request("nobody", timeout=LONG)


async def test_a_listener_that_stays_silent_leaves_the_outcome_unknown(transport: NatsTransport) -> None:
    listener = Listener()
    await transport.subscribe("silent", listener)
    with pytest.raises(OutcomeUnknownError, match="request to silent"):
        await transport.request("silent", timeout=0.05)
    late = await listener.next()
    await echo(transport, late)  # heard by nobody, harms nobody
    await transport.ping(LONG)


async def test_an_inbox_hears_any_number_of_replies_until_it_is_closed(transport: NatsTransport) -> None:
    listener = Listener()
    inbox = transport.open_inbox(listener)
    await transport.publish(inbox.subject, b"1")
    await transport.publish(inbox.subject, b"2")
    assert [(await listener.next()).data, (await listener.next()).data] == [b"1", b"2"]
    inbox.close()
    await transport.publish(inbox.subject, b"3")
    await transport.ping(LONG)
    assert listener.count == 0


async def test_no_responders_on_an_inbox_can_be_told_from_a_message(transport: NatsTransport) -> None:
    listener = Listener()
    inbox = transport.open_inbox(listener)
    await transport.publish("nobody", reply=inbox.subject)
    assert is_no_responders(await listener.next())
    await transport.publish(inbox.subject, b"503", headers={"Status": "503"})
    assert not is_no_responders(await listener.next())


async def test_a_message_goes_to_one_member_of_a_queue_group(transport: NatsTransport) -> None:
    listener = Listener()
    for _ in range(3):
        await transport.subscribe("work", listener, queue="q")
    await transport.publish("work")
    await listener.next()
    await transport.ping(LONG)
    assert listener.count == 0


async def test_a_closed_subscription_hears_nothing(transport: NatsTransport) -> None:
    closed, drained, other = Listener(), Listener(), Listener()
    await (await transport.subscribe("news", closed)).close()
    await (await transport.subscribe("news", drained)).drain()
    await transport.subscribe("news", other)
    await transport.publish("news")
    await other.next()
    assert (closed.count, drained.count) == (0, 0)


async def test_closing_a_subscription_twice_is_harmless(transport: NatsTransport) -> None:
    subscription = await transport.subscribe("news", Listener())
    await subscription.close()
    await subscription.close()
    await subscription.drain()


async def test_a_body_too_large_is_refused_before_it_is_sent(transport: NatsTransport) -> None:
    with pytest.raises(MessageTooLargeError) as caught:
        await transport.publish("x", b"x" * (transport.max_payload + 1))
    assert caught.value.limit == transport.max_payload


async def test_headers_count_towards_the_size_of_a_message(transport: NatsTransport) -> None:
    """nats-py counts the body only, and the server then closes the connection."""
    listener = Listener()
    await transport.subscribe("x", listener)
    headers = {"Name": "välue"}
    block = len(b"NATS/1.0\r\nName: v\xc3\xa4lue\r\n\r\n")
    await transport.publish("x", b"x" * (transport.max_payload - block), headers=headers)
    assert len((await listener.next()).data) == transport.max_payload - block
    with pytest.raises(MessageTooLargeError):
        await transport.publish("x", b"x" * (transport.max_payload - block + 1), headers=headers)
    await transport.ping(LONG)
    assert transport.reconnects == 0


async def test_our_subjects_lie_below_the_inbox_prefix_and_differ(transport: NatsTransport) -> None:
    first, second = transport.new_subject(), transport.new_subject()
    assert first != second
    assert first.startswith("_INBOX.")


async def test_a_closed_connection_is_told_in_our_words(connection: Connection, transport: NatsTransport) -> None:
    await connection.close()
    assert transport.closed
    for act in (
        transport.publish("x"),
        transport.request("x", timeout=LONG),
        transport.subscribe("x", Listener()),
        transport.ping(LONG),
    ):
        with pytest.raises(NotConnectedError):
            await act


async def test_a_transport_can_not_be_opened_on_a_closed_connection(
    connection: Connection, kind: type[NatsTransport]
) -> None:
    await connection.close()
    parser = connection._ps
    with pytest.raises(NotConnectedError):
        await kind(connection).__aenter__()
    assert connection._ps is parser


async def test_leaving_ends_requests_under_way_and_leaves_the_connection_open(
    connection: Connection, kind: type[NatsTransport]
) -> None:
    async with kind(connection) as transport:
        listener = Listener()
        await transport.subscribe("silent", listener)
        asked = asyncio.ensure_future(transport.request("silent", timeout=LONG))
        await listener.next()
    with pytest.raises(NotConnectedError):
        await asked
    assert connection.is_connected


async def test_a_cancelled_request_leaves_nothing_behind(transport: NatsTransport) -> None:
    listener = Listener()
    await transport.subscribe("silent", listener)
    asked = asyncio.ensure_future(transport.request("silent", timeout=LONG))
    message = await listener.next()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await echo(transport, message)
    await transport.ping(LONG)
    assert not transport._waiters


async def test_a_server_restart_is_counted_and_subscriptions_live_on(
    clean_server: EmbeddedServer, transport: NatsTransport, patience: Callable[[float], float]
) -> None:
    listener = Listener()
    await transport.subscribe("news", listener)
    await transport.ping(LONG)
    await clean_server.astop()
    with pytest.raises(NotConnectedError):
        await transport.ping(0.1)
    # Sent while nobody is there: kept, and sent after the reconnect.
    await transport.publish("news", b"kept")
    await clean_server.astart()
    async with asyncio.timeout(patience(30)):
        message = await listener.next()
    assert (message.data, transport.reconnects, transport.closed) == (b"kept", 1, False)


async def test_m1_answered_requests_do_not_pile_up_until_their_deadlines(transport: NatsTransport) -> None:
    """M-1: a call may have an hour and be answered at once; a million of them must not wait in a heap."""

    async def answer(message: Message) -> None:
        await transport.publish(message.reply)

    async with asyncio.TaskGroup() as answers:

        def on_request(message: Message) -> None:
            answers.create_task(answer(message))

        await transport.subscribe("quick", on_request)
        await transport.subscribe("silent", lambda _: None)
        slow = asyncio.create_task(transport.request("silent", timeout=0.5))
        for _ in range(100):
            await asyncio.gather(*(transport.request("quick", timeout=3600) for _ in range(100)))
        assert len(transport._deadlines) <= 4097
        with pytest.raises(OutcomeUnknownError):
            await slow


async def test_interim_replies_give_a_request_more_time_and_the_last_one_ends_it(transport: NatsTransport) -> None:
    asked, seen, strays = Listener(), [], Listener()
    transport.on_stray = strays

    def on_reply(message: Message) -> float | None:
        seen.append(message.data)
        return 0.3 if message.data == b"interim" else None

    await transport.subscribe("slow", asked)
    waiting = asyncio.ensure_future(transport.request("slow", timeout=0.3, interim=on_reply))
    request = await asked.next()
    for _ in range(4):
        await asyncio.sleep(0.15)
        await transport.publish(request.reply, b"interim")
    await transport.publish(request.reply, b"last")
    await transport.publish(request.reply, b"second")
    assert (await waiting).data == b"last"
    assert seen == [b"interim"] * 4 + [b"last"]
    assert (await strays.next()).data == b"second"


async def test_a_request_that_interim_replies_stop_coming_for_has_no_outcome(transport: NatsTransport) -> None:
    asked = Listener()
    await transport.subscribe("slow", asked)
    waiting = asyncio.ensure_future(transport.request("slow", timeout=LONG * 10, interim=lambda _message: 0.1))
    await transport.publish((await asked.next()).reply, b"interim")
    began = asyncio.get_running_loop().time()
    with pytest.raises(OutcomeUnknownError):
        await waiting
    assert asyncio.get_running_loop().time() - began < LONG
    assert not transport._interim


class _Plain:
    """A handle as uvloop gives it for what is due already: without a time."""

    def cancel(self) -> None: ...


class _StandsStill:
    """A loop whose process stands still for a second whenever somebody asks for the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[Callable[[], None]] = []

    def time(self) -> float:
        self.now += 1
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> object:
        assert when < self.time()
        self.due.append(callback)
        return _Plain()


def test_deadlines_bear_a_process_that_stands_still_just_before_their_timer_is_set() -> None:
    loop, passed = _StandsStill(), list[str]()
    deadlines = _Deadlines(loop, {"a", "b"}, passed.append)  # type: ignore[arg-type]
    for token in ("a", "b"):
        deadlines.add(0.0, token)
    loop.due.pop()()
    assert passed == []  # what it stood still for comes first
    assert loop.due
