"""JetStream's API as raw JSON, against real servers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from tests.sdk.lossy import LossyTransport
from tests.versions import NO_BATCHES, OLD_VERSIONS, SCHEDULES, server_binary

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.errors import MessageTooLargeError, NoRespondersError, OutcomeUnknownError, RefusedError
from aj_sdk.jetstream import (
    EXPECTED_LAST_SUBJECT_SEQUENCE,
    STREAM_NOT_FOUND,
    WRONG_LAST_SEQUENCE,
    JetStream,
    StoredMessage,
)
from aj_sdk.transport import Message, NatsTransport
from aj_sdk.wire.times import parse_time

pytestmark = pytest.mark.server

STREAM = {"name": "S", "subjects": ["s.*"], "max_msgs_per_subject": 1, "allow_direct": True}
NO_DIRECT = {**STREAM, "allow_direct": False}


@pytest.fixture(params=["newest", *OLD_VERSIONS])
async def any_jetstream(
    request: pytest.FixtureRequest, fresh_server: Callable[..., EmbeddedServer]
) -> AsyncIterator[JetStream]:
    binary = None if request.param == "newest" else server_binary(request.param)
    server = fresh_server(binary=binary)
    connection = await connect(ConnectOptions.from_url(server.url))
    async with NatsTransport(connection) as transport:
        yield JetStream(transport)
    await connection.close()


async def fill(jetstream: JetStream, count: int) -> list[str]:
    subjects = [f"s.{number}" for number in range(count)]
    await asyncio.gather(*(jetstream.publish(subject, subject.encode()) for subject in subjects))
    return subjects


async def scanned(jetstream: JetStream, subject: str = "s.*", start: int = 1) -> list[StoredMessage]:
    return [message async for message in jetstream.scan("S", subject, start)]


async def test_a_stored_message_is_read_back_with_its_headers(jetstream: JetStream) -> None:
    await jetstream.create_stream(STREAM)
    sequence = await jetstream.publish("s.a", b"\x00\xff", {"A": "ä: b", "Empty": ""})
    message = await jetstream.last("S", "s.a")
    assert message is not None
    assert message == StoredMessage("s.a", sequence, b"\x00\xff", {"A": "ä: b", "Empty": ""}, message.time)
    assert abs(parse_time(message.time) - time.time_ns()) < 60 * 10**9
    assert await jetstream.last_many("S", ["s.a", "s.b"]) == {"s.a": await jetstream.last("S", "s.a")}


async def test_a_subject_without_a_message_reads_as_none(jetstream: JetStream) -> None:
    await jetstream.create_stream(STREAM)
    assert await jetstream.last("S", "s.a") is None
    assert await jetstream.last_many("S", ["s.a", "s.b"]) == {}
    assert await jetstream.last_many("S", []) == {}


async def test_a_publish_that_expects_another_sequence_is_refused(jetstream: JetStream) -> None:
    await jetstream.create_stream(STREAM)
    sequence = await jetstream.publish("s.a", b"1", {EXPECTED_LAST_SUBJECT_SEQUENCE: "0"})
    with pytest.raises(RefusedError) as caught:
        await jetstream.publish("s.a", b"2", {EXPECTED_LAST_SUBJECT_SEQUENCE: "0"})
    assert caught.value.code in WRONG_LAST_SEQUENCE
    await jetstream.publish("s.a", b"2", {EXPECTED_LAST_SUBJECT_SEQUENCE: str(sequence)})


async def test_a_subject_that_no_stream_takes_has_no_responders(jetstream: JetStream) -> None:
    with pytest.raises(NoRespondersError):
        await jetstream.publish("s.a", b"")


async def test_an_answer_that_is_no_acknowledgement_is_refused(transport: NatsTransport, jetstream: JetStream) -> None:
    async with asyncio.TaskGroup() as group:

        def answer(message: Message) -> None:
            group.create_task(transport.publish(message.reply, b"+OK"))

        await transport.subscribe("s.a", answer)
        with pytest.raises(RefusedError, match="not an acknowledgement"):
            await jetstream.publish("s.a", b"")


async def test_a_message_larger_than_the_server_takes_is_not_sent(jetstream: JetStream) -> None:
    await jetstream.create_stream(STREAM)
    with pytest.raises(MessageTooLargeError):
        await jetstream.publish("s.a", b"x" * (jetstream.transport.max_payload + 1))


async def test_reading_from_a_stream_that_is_not_there_is_refused(any_jetstream: JetStream) -> None:
    for read in (
        any_jetstream.last("S", "s.a"),
        any_jetstream.last_many("S", ["s.a", "s.b"]),
        scanned(any_jetstream),
        any_jetstream.purge("S"),
        any_jetstream.delete_stream("S"),
    ):
        with pytest.raises(RefusedError) as caught:
            await read
        assert caught.value.code == STREAM_NOT_FOUND
    assert await any_jetstream.stream_info("S") is None
    assert await any_jetstream.consumer_info("S", "C") is None
    assert await any_jetstream.count("S", "s.*") is None


async def test_a_direct_get_from_a_stream_that_is_not_there_has_no_responders(any_jetstream: JetStream) -> None:
    with pytest.raises(NoRespondersError):
        await any_jetstream.latest_of("NONE", ["a"])


@pytest.mark.parametrize("config", [STREAM, NO_DIRECT], ids=["direct", "no direct"])
async def test_many_subjects_are_read_whatever_the_server_and_the_stream_can(
    any_jetstream: JetStream, config: dict[str, object]
) -> None:
    await any_jetstream.create_stream(config)
    subjects = await fill(any_jetstream, 1100)
    wanted = ["s.absent", *subjects]
    found = await any_jetstream.last_many("S", wanted)
    assert {subject: message.data for subject, message in found.items()} == {
        subject: subject.encode() for subject in subjects
    }


@pytest.mark.parametrize("config", [STREAM, NO_DIRECT], ids=["direct", "no direct"])
async def test_a_scan_gives_all_messages_in_the_streams_order(
    any_jetstream: JetStream, config: dict[str, object]
) -> None:
    await any_jetstream.create_stream(config)
    subjects = await fill(any_jetstream, 700)
    for subject in subjects[::3]:  # leaves gaps, and puts these at the end
        await any_jetstream.publish(subject, b"again")
    messages = await scanned(any_jetstream)
    sequences = [message.sequence for message in messages]
    assert sorted(message.subject for message in messages) == sorted(subjects)
    assert sequences == sorted(sequences)
    assert {message.subject for message in messages if message.data == b"again"} == set(subjects[::3])
    half = sequences[len(sequences) // 2]
    assert [message.sequence for message in await scanned(any_jetstream, start=half)] == [
        sequence for sequence in sequences if sequence >= half
    ]
    assert [message.data for message in await scanned(any_jetstream, "s.1")] == [b"s.1"]
    assert await scanned(any_jetstream, start=sequences[-1] + 1) == []
    assert await scanned(any_jetstream, "other.*") == []


@pytest.mark.parametrize("config", [STREAM, NO_DIRECT], ids=["direct", "no direct"])
async def test_a_scan_of_an_empty_stream_gives_nothing(any_jetstream: JetStream, config: dict[str, object]) -> None:
    await any_jetstream.create_stream(config)
    assert await scanned(any_jetstream) == []


async def test_a_scan_steps_over_a_gap_of_any_width(jetstream: JetStream) -> None:
    await jetstream.create_stream(NO_DIRECT)
    await fill(jetstream, 3)
    for _ in range(500):
        await jetstream.publish("s.busy", b"")
    await fill(jetstream, 2)
    assert [message.subject for message in await scanned(jetstream)] == ["s.2", "s.busy", "s.0", "s.1"]


async def test_large_messages_are_scanned_in_several_batches(jetstream: JetStream) -> None:
    """The server ends a batch early when it grows large; what it left must not be lost."""
    await jetstream.create_stream(STREAM)
    for number in range(60):
        await jetstream.publish(f"s.{number}", b"x" * 900_000)
    assert len(await scanned(jetstream)) == 60
    assert len(await jetstream.last_many("S", [f"s.{number}" for number in range(60)])) == 60


async def test_messages_are_counted_where_the_server_can(jetstream: JetStream) -> None:
    await jetstream.create_stream(STREAM)
    assert await jetstream.count("S", "s.*") == 0
    await fill(jetstream, 300)
    assert await jetstream.count("S", "s.*") == 300
    assert await jetstream.count("S", "s.1") == 1


async def test_a_stream_that_learns_direct_gets_is_counted_and_batched_from_then_on(jetstream: JetStream) -> None:
    await jetstream.create_stream(NO_DIRECT)
    subjects = await fill(jetstream, 3)
    assert await jetstream.count("S", "s.*") is None
    assert len(await jetstream.last_many("S", subjects)) == 3
    info = await jetstream.stream_info("S")
    assert info is not None
    await jetstream.update_stream({**info["config"], "allow_direct": True})
    jetstream.batches_again("S")
    lossy = LossyTransport(jetstream.transport)
    again = JetStream(lossy)
    assert len(await again.last_many("S", subjects)) == 3
    assert lossy.requests == []  # one batch, no single reads
    assert await jetstream.count("S", "s.*") == 3


async def test_what_a_batch_misses_is_asked_of_the_leader(transport: NatsTransport, jetstream: JetStream) -> None:
    await jetstream.create_stream(STREAM)
    await fill(jetstream, 2)
    lossy = LossyTransport(transport)
    found = await JetStream(lossy).last_many("S", ["s.0", "s.1", "s.absent"])
    assert set(found) == {"s.0", "s.1"}
    assert lossy.requests == ["$JS.API.STREAM.MSG.GET.S"]


async def test_no_answer_leaves_the_outcome_unknown(
    clean_server: EmbeddedServer, transport: NatsTransport, jetstream: JetStream
) -> None:
    await jetstream.create_stream(STREAM)
    hasty = JetStream(transport, timeout=0.1)
    clean_server.pause()
    try:
        for act in (hasty.publish("s.a", b""), hasty.last("S", "s.a"), hasty.count("S", "s.*"), hasty.api_level()):
            with pytest.raises(OutcomeUnknownError):
                await act
    finally:
        clean_server.resume()


async def test_messages_are_purged_by_subject(jetstream: JetStream) -> None:
    await jetstream.create_stream({**STREAM, "max_msgs_per_subject": 10})
    for _ in range(3):
        await jetstream.publish("s.a", b"")
    await jetstream.publish("s.b", b"")
    assert await jetstream.purge("S", "s.a") == 3
    assert await jetstream.purge("S") == 1


async def test_a_message_is_removed_by_its_sequence_once(jetstream: JetStream) -> None:
    await jetstream.create_stream(STREAM)
    sequence = await jetstream.publish("s.a", b"")
    await jetstream.delete_message("S", sequence)
    assert await jetstream.last("S", "s.a") is None
    with pytest.raises(RefusedError):
        await jetstream.delete_message("S", sequence)


async def test_streams_are_listed_by_subject_over_several_pages(jetstream: JetStream) -> None:
    names = [f"S{number}" for number in range(1100)]
    for name in names:
        await jetstream.create_stream({"name": name, "subjects": [f"list.{name}"], "storage": "memory"})
    await jetstream.create_stream(STREAM)
    assert sorted(await jetstream.stream_names("list.>")) == sorted(names)
    assert len(await jetstream.stream_names()) == len(names) + 1
    assert await jetstream.stream_names("none.>") == []


async def test_a_stream_of_the_same_name_with_other_settings_is_refused(jetstream: JetStream) -> None:
    await jetstream.create_stream(STREAM)
    await jetstream.create_stream(STREAM)
    with pytest.raises(RefusedError, match=r"STREAM\.CREATE\.S"):
        await jetstream.create_stream(NO_DIRECT)


async def test_a_consumer_is_created_once_and_updated(jetstream: JetStream) -> None:
    await jetstream.create_stream(STREAM)
    config = {"durable_name": "C", "ack_policy": "explicit", "ack_wait": 10**9}
    await jetstream.save_consumer("S", config, "create")
    with pytest.raises(RefusedError):
        await jetstream.save_consumer("S", {**config, "ack_wait": 2 * 10**9}, "create")
    await jetstream.save_consumer("S", {**config, "ack_wait": 2 * 10**9}, "update")
    info = await jetstream.consumer_info("S", "C")
    assert info is not None
    assert info["config"]["ack_wait"] == 2 * 10**9


@pytest.mark.parametrize(("version", "levels"), [(None, range(2, 100)), (SCHEDULES, range(2, 4)), (NO_BATCHES, [0])])
async def test_the_api_level_tells_what_a_server_can(
    fresh_server: Callable[..., EmbeddedServer], version: str | None, levels: "range | list[int]"
) -> None:
    server = fresh_server(binary=None if version is None else server_binary(version))
    connection = await connect(ConnectOptions.from_url(server.url))
    async with NatsTransport(connection) as transport:
        assert await JetStream(transport).api_level() in levels
    await connection.close()


async def test_a_server_without_jetstream_has_no_responders(jetstream: JetStream) -> None:
    with pytest.raises(NoRespondersError):
        await JetStream(jetstream.transport, prefix="$JS.elsewhere.API").api_level()
