"""Reading a stream through, on a real server: all of it in order, nothing left behind, and a way without consumers."""

from collections.abc import AsyncIterator, Callable

import nats
import pytest

from aj_bridge.faces.embedded import EmbeddedServer
from aj_bridge.storage.jetstream.reading import StreamReading
from aj_bridge.storage.jetstream.survey import open_survey
from aj_sdk.admin import Admin
from aj_sdk.errors import OutcomeUnknownError, RefusedError
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Store
from aj_sdk.transport import NatsTransport
from aj_sdk.wire.names import TASKS_STREAM, task_subject

pytestmark = pytest.mark.server


@pytest.fixture
async def jetstream(clean_server: EmbeddedServer) -> AsyncIterator[JetStream]:
    connection = await nats.connect(clean_server.url)
    async with NatsTransport(connection) as transport:
        found = JetStream(transport)
        await Admin(found, Store(found)).ensure_task_store()
        yield found
    await connection.close()


async def _consumers(jetstream: JetStream) -> list[str]:
    names: list[str] = (await jetstream.call(f"CONSUMER.NAMES.{TASKS_STREAM}"))["consumers"]
    return names


async def test_all_that_was_stored_since_a_sequence_is_read_in_order_and_nothing_is_left_behind(
    jetstream: JetStream,
) -> None:
    for number in range(700):
        await jetstream.publish(task_subject(f"t{number}"), str(number).encode())
    for number in range(0, 300, 3):
        await jetstream.publish(task_subject(f"t{number}"), b"again")
    await jetstream.delete_message(TASKS_STREAM, 500)
    expected = [(found.sequence, found.subject, found.data) async for found in jetstream.scan(TASKS_STREAM, ">", 100)]
    reading = await StreamReading.open(jetstream, TASKS_STREAM, 100)
    parts = [
        [(each.sequence, each.subject, each.data) async for each in reading.messages(end)]
        for end in (99, 420, 420, 799, 5000)
    ]
    assert len(expected) > 256
    assert [found for part in parts for found in part] == expected
    assert [bool(part) for part in parts] == [False, True, False, True, True]
    assert reading.position == 801
    await jetstream.publish(task_subject("t0"), b"later")
    assert [each.data async for each in reading.messages(801)] == [b"later"]
    assert len(await _consumers(jetstream)) == 1
    await reading.close()
    with pytest.raises(OutcomeUnknownError):
        assert [each async for each in reading.messages(5000)]
    with pytest.raises(RefusedError):
        await StreamReading.open(jetstream, "NOWHERE", 1)
    assert await _consumers(jetstream) == []


async def test_a_survey_reads_on_where_it_stands_and_anew_when_its_consumer_is_gone(jetstream: JetStream) -> None:
    for number in range(400):
        await jetstream.publish(task_subject(f"t{number}"), b"{}")
    async with open_survey(jetstream) as survey:
        records = survey.scan(1, 400)
        assert [(await anext(records)).sequence for _ in range(50)] == list(range(1, 51))
        await records.aclose()
        assert [each.sequence async for each in survey.scan(51, 300)] == list(range(51, 301))
        [consumer] = await _consumers(jetstream)
        assert [each.sequence async for each in survey.scan(7, 9)] == [7, 8, 9]  # it was broken off, say
        [other] = await _consumers(jetstream)
        assert other != consumer
        await jetstream.call(f"CONSUMER.DELETE.{TASKS_STREAM}.{other}")
        assert [each.sequence async for each in survey.scan(10, 256)] == list(range(10, 257))  # had come before
        assert [each.sequence async for each in survey.scan(257, 400)] == list(range(257, 401))
    assert await _consumers(jetstream) == []


async def test_where_no_consumer_may_be_made_the_records_are_read_all_the_same(
    fresh_server: Callable[..., EmbeddedServer], patience: Callable[[float], float]
) -> None:
    limited = {"publish": {"deny": f"$JS.API.CONSUMER.CREATE.{TASKS_STREAM}.>"}}
    users = [{"user": "all", "password": "p"}, {"user": "bridge", "password": "p", "permissions": limited}]
    server = fresh_server(config={"authorization": {"users": users}})
    for user in ("all", "bridge"):
        connection = await nats.connect(server.url, user=user, password="p")
        async with NatsTransport(connection) as transport:
            jetstream = JetStream(transport, timeout=patience(1.0))
            if user == "all":
                await Admin(jetstream, Store(jetstream)).ensure_task_store()
                for number in range(300):
                    await jetstream.publish(task_subject(f"t{number}"), b"{}")
            else:
                async with open_survey(jetstream) as survey:
                    for start in (1, 299):
                        assert [each.sequence async for each in survey.scan(start, 300)] == list(range(start, 301))
        await connection.close()
