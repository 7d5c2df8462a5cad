"""Reading a stream through, on a real server: all of it in order, nothing left behind, and a way without consumers."""

from collections.abc import AsyncIterator, Callable

import nats
import pytest

from aj_bridge.faces.embedded import EmbeddedServer
from aj_bridge.storage.jetstream.reading import open_reading
from aj_bridge.storage.jetstream.survey import open_survey
from aj_sdk.admin import Admin
from aj_sdk.errors import RefusedError
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
    expected = [found async for found in jetstream.scan(TASKS_STREAM, ">", 100)]
    async with open_reading(jetstream, TASKS_STREAM, 100) as reading:
        found = [(each.sequence, each.subject, each.data) async for each in reading.messages()]
        assert len(await _consumers(jetstream)) == 1
    assert len(found) > 256
    assert found == [(each.sequence, each.subject, each.data) for each in expected]
    async with open_reading(jetstream, TASKS_STREAM, 801) as reading:
        assert [each async for each in reading.messages()] == []
    with pytest.raises(RefusedError):
        async with open_reading(jetstream, "NOWHERE", 1):
            pass
    async with open_survey(jetstream) as survey:
        records = survey.scan(100)
        assert (await anext(records)).sequence == found[0][0]
        await records.aclose()  # half-way
        assert [each.sequence async for each in survey.scan(100)] == [sequence for sequence, _, _ in found]
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
                        assert [each.sequence async for each in survey.scan(start)] == list(range(start, 301))
        await connection.close()
