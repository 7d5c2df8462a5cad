"""Which handlers show themselves, and which types of task wait."""

from typing import Any

import nats.micro
import pytest
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.micro.request import Request, ServiceError
from nats.micro.service import EndpointConfig, ServiceConfig

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.admin import Admin
from aj_sdk.connect import ConnectOptions
from aj_sdk.errors import InvalidConfigError
from aj_sdk.handlers import Handler, Handlers, listens_to
from aj_sdk.handling import Task
from aj_sdk.jetstream import JetStream
from aj_sdk.queue import Queue
from aj_sdk.runner import Runner
from aj_sdk.services import Services
from aj_sdk.store import Store
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

SECOND = 1_000_000_000


def handler(task_type: str, **changes: Any) -> Handler:
    fields: dict[str, Any] = {
        "subject": f"CHORIA_AJ.H.T.{task_type or 'catchall'}",
        "queue_group": "q",
        "service": "aj-handler",
        "instance": "x",
        "version": "1",
        "language": "go",
        "requests": 0,
        "errors": 0,
        "last_error": "",
        "processing_ns": 0,
        "in_flight": None,
        "started_ns": None,
    }
    return Handler(type=task_type, **(fields | changes))


@pytest.mark.parametrize(
    ("there", "task_type", "answered"),
    [
        (["email:new"], "email:new", "email:new"),
        (["email:", "email:new"], "email:new", "email:new"),
        (["email:", ""], "email:new", "email:"),
        (["email:", ""], "image:scale", ""),
        (["email:new"], "email:old", None),
        (["", "*"], "email:new", "*"),
        ([], "email:new", None),
    ],
)
def test_a_type_is_answered_by_its_own_handler_else_by_the_longest_prefix(
    there: list[str], task_type: str, answered: str | None
) -> None:
    assert listens_to([handler(each) for each in there], task_type) == answered


def test_a_timeout_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="timeout must be more than nothing"):
        Handlers(None, 0)  # type: ignore[arg-type]


@pytest.mark.server
async def test_handlers_of_any_service_are_found_with_their_figures_and_what_is_no_handler_is_left_out(
    clean_server: EmbeddedServer, connection: Connection, admin: Admin
) -> None:
    services = Services()

    @services.service("email:new")
    async def new(task: Task) -> str:
        return "sent"

    async def answer(request: Request) -> None:
        raise ServiceError("500", "no mailbox")

    async def garbage(message: Msg) -> None:
        await message.respond(b'{"name": "x", "id": ["no text"]}')

    stock = await nats.micro.add_service(connection, ServiceConfig(name="mailer", version="2.1.0"))
    await stock.add_endpoint(EndpointConfig(name="old", subject="CHORIA_AJ.H.T.email:old", handler=answer))
    await stock.add_endpoint(EndpointConfig(name="other", subject="other", handler=answer))
    await connection.subscribe("$SRV.INFO", cb=garbage)
    await connection.subscribe("$SRV.STATS", cb=garbage)
    async with Runner(ConnectOptions.from_url(clean_server.url), services):
        await connection.request("CHORIA_AJ.H.T.email:old", b"{}")
        ours, theirs = await admin.handlers.showing()
    await stock.stop()
    assert (ours.type, ours.service, ours.language, ours.in_flight, ours.requests) == (
        "email:new",
        "aj-handler",
        "python",
        0,
        0,
    )
    assert ours.started_ns is not None
    assert (theirs.type, theirs.service, theirs.version, theirs.language) == ("email:old", "mailer", "2.1.0", "")
    assert (theirs.queue_group, theirs.requests, theirs.errors, theirs.in_flight) == ("q", 1, 1, None)
    assert theirs.processing_ns > 0


@pytest.mark.server
async def test_types_wait_with_what_is_new_or_to_be_tried_again_and_not_with_what_runs_or_is_blocked(
    admin: Admin, store: Store, jetstream: JetStream
) -> None:
    assert (await admin.handlers.waiting()).types == ()
    await admin.ensure_task_store()
    await admin.ensure_delayed()
    await admin.create_queue(Queue("EMAIL"))
    for number, (task_type, state, error) in enumerate(
        (
            ("email:new", TaskState.NEW, ""),
            ("email:new", TaskState.RETRY, "no handler listens on CHORIA_AJ.H.T.email:new"),
            ("email:old", TaskState.ACTIVE, ""),
            ("image:scale", TaskState.NEW, ""),
        ),
        1,
    ):
        record = TaskRecord(
            id=f"t{number}", type=task_type, queue="EMAIL", state=state, last_err=error, created_ns=number * SECOND
        )
        await store.save(record, expected=0)
        await store.publish_item("EMAIL", record.id)
    await store.publish_item("EMAIL", "no-such-task")
    found = await admin.handlers.waiting()
    assert [(each.type, each.tasks, each.oldest_ns) for each in found.types] == [
        ("email:new", 2, SECOND),
        ("image:scale", 1, 4 * SECOND),
    ]
    assert found.types[0].error.startswith("no handler listens")
    assert (found.items, found.more) == (5, False)
    part = await admin.handlers.waiting(at_most=4)
    assert (part.items, part.more) == (2, True)
