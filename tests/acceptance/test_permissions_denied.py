"""A bridge that lacks one permission, for each that it has: it says which, and nothing is lost.

An account for each permission, with a user that has all the others, and a JetStream of its own; many at a time.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

import pytest

from aj_bridge.core.retry import RetryPolicy
from aj_bridge.engine.bridge import Bridge, BridgeOptions, ServedQueue
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk import Client, Queue, Services, Task, TaskSpec, Terminate, chain
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.errors import AsyncJobsError, TaskFailedError
from aj_sdk.fast import open_transport
from aj_sdk.jetstream import JetStream
from aj_sdk.permissions import Act, Grant, Role, Scope, grants
from aj_sdk.runner import Runner
from aj_sdk.wire.names import API_PREFIX
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance

QUEUE: Final = "WORK"
ALL: Final = grants(Role.BRIDGE, Scope(queues=(QUEUE,), types=("work",)))
AT_ONCE: Final = 12
NOT_NEEDED_HERE: Final = (
    "STREAM.UPDATE.",  # all is as it should be
    "STREAM.MSG.DELETE.",  # no record is discarded, no item stands for nothing
    "CONSUMER.DELETE.",  # the server forgets the consumer by itself, half a minute later
    "DIRECT.GET.CHORIA_AJ_DELAYED",
    "DIRECT.GET.CHORIA_AJ_TASKS",
    "DIRECT.GET.CHORIA_AJ_Q_",
    "DIRECT.GET.KV_",  # buckets are read from the leader
    "STREAM.MSG.GET.CHORIA_AJ_DELAYED",
    "STREAM.MSG.GET.CHORIA_AJ_Q_",
    "STREAM.MSG.GET.KV_",  # nobody else stands for election
    "STREAM.CREATE.CHORIA_AJ_TASKS",  # its producers have made it, and the queue with its stream of waiting items
    "STREAM.CREATE.CHORIA_AJ_DELAYED",
    "STREAM.CREATE.CHORIA_AJ_DEPS",
    "STREAM.CREATE.CHORIA_AJ_Q_",
    "CONSUMER.CREATE.CHORIA_AJ_Q_",
    "STREAM.INFO.CHORIA_AJ_DEPS",
    "CHORIA_AJ.Q.WORK.",  # the sweeper's, for items that are lost
    "AJ.BRIDGE.*.holds",  # only one bridge runs
    "CHORIA_AJ.P.*",  # no handler tells its progress
    "CHORIA_AJ.CI.*",  # no call is stopped
    "$JS.ACK.",  # to answer a delivery once is a reply, which is allowed; a renewal is more
    "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.",  # the queue discards no old items
)
"""Permissions that the scenario below does without; `test_permissions` needs most of them."""


def needed(grant: Grant) -> bool:
    place = grant.subject.removeprefix(f"{API_PREFIX}.")
    return not any(place.startswith(each) for each in NOT_NEEDED_HERE)


def config(denied: list[Grant]) -> dict[str, Any]:
    """Return a server with an account for each permission that is denied."""
    accounts = {}
    for number, without in enumerate(denied):
        left = [grant for grant in ALL if grant is not without]
        permissions = {
            **{act.value: {"allow": [grant.subject for grant in left if grant.act is act]} for act in Act},
            "allow_responses": {"max": 1, "expires": "10s"},
        }
        users = [
            {"user": f"bridge-{number}", "password": "x", "permissions": permissions},
            {"user": f"root-{number}", "password": "x"},
        ]
        accounts[f"A{number}"] = {"jetstream": "enabled", "users": users}
    return {"accounts": accounts}


services: Final = Services()


@services.service("work")
async def work(task: Task) -> str:
    match task.payload:
        case "fail" if task.tries == 1:
            raise RuntimeError("failed on purpose")
        case "terminate":
            raise Terminate("terminated on purpose")
    return "done"


class Denied:
    """One permission that is denied, and what becomes of the tasks of its account."""

    def __init__(self, url: str, number: int, grant: Grant, patience: Callable[[float], float]) -> None:
        self._root = url.replace("//", f"//root-{number}:x@")
        self._bridge = url.replace("//", f"//bridge-{number}:x@")
        self._patience = patience
        self.grant = grant
        # As nats-py writes it: in small letters.
        pattern = re.escape(grant.subject.lower()).replace(r"\*", "[^.]+").replace(">", ".+")
        act = "publish" if grant.act is Act.PUBLISH else "subscription"
        self._words = re.compile(f'permissions violation for {act} to "{pattern}"')
        self._told = asyncio.Event()
        self.wrong: list[str] = []

    def hear(self, text: str) -> None:
        if self._words.search(text):
            self._told.set()

    async def play(self) -> None:
        """Work with what is left, until the missing permission is complained of; then with all, to the end."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(Client.connect(self._root, timeout=self._patience(5)))
            await client.admin.ensure_task_store()
            await client.admin.create_queue(Queue(QUEUE, lease=1))
            runner = Runner(await stack.enter_async_context(connected(self._root)), services)
            await stack.enter_async_context(runner)
            # What it may not make must not be there; for all else the streams are made before.
            if "STREAM.CREATE" not in self.grant.subject and self.grant.subject != "CHORIA_AJ.E.leader_election.*":
                await client.admin.ensure_everything()
            tasks = {
                (await client.enqueue("work", payload, queue=QUEUE)).id: state
                for payload, state in (
                    ("ok", TaskState.COMPLETE),
                    ("fail", TaskState.COMPLETE),
                    ("terminate", TaskState.TERMINATED),
                )
            }
            graph = await client.enqueue_graph(chain(TaskSpec("work"), TaskSpec("work")), queue=QUEUE)
            tasks |= dict.fromkeys((task.id for task in graph), TaskState.COMPLETE)
            try:
                async with asyncio.timeout(self._patience(10)), running(self._bridge):
                    await self._told.wait()
            except TimeoutError:
                self.wrong.append("nobody complained")
            async with running(self._root):
                for task_id, state in tasks.items():
                    with contextlib.suppress(TaskFailedError):
                        await client.result(task_id, timeout=self._patience(20))
                    found = (await client.load(task_id)).state
                    if found is not state:
                        self.wrong.append(f"a task is {found}, not {state}")


@contextlib.asynccontextmanager
async def connected(url: str) -> Any:
    connection = await connect(ConnectOptions.from_url(url))
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def running(url: str) -> Any:
    """Run a bridge; one that ends by itself has said why, and is let be."""
    options = BridgeOptions(
        queues=(ServedQueue(name=QUEUE),),
        policy=RetryPolicy.linear(1, timedelta(milliseconds=50), timedelta(milliseconds=50)),
        grace_s=0.2,
        sweep_every_s=1.0,
    )
    async with connected(url) as connection, open_transport(connection) as transport:
        bridge = Bridge(JetStream(transport, timeout=1.0), options)
        at_work = asyncio.create_task(bridge.run())
        try:
            yield
        finally:
            bridge.stop()
            with contextlib.suppress(AsyncJobsError):
                await at_work


async def test_each_permission_that_a_bridge_lacks_is_named_in_its_log_and_nothing_is_lost(
    fresh_server: Callable[..., EmbeddedServer],
    patience: Callable[[float], float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing = [grant for grant in ALL if needed(grant)]
    server = fresh_server(config=config(missing))
    cases = [Denied(server.url, number, grant, patience) for number, grant in enumerate(missing)]

    class Ears(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for case in cases:
                case.hear(record.getMessage())

    ears = Ears()
    logging.getLogger("aj_sdk.connect").addHandler(ears)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(case: Denied) -> None:
        async with slots:
            await case.play()

    try:
        async with asyncio.TaskGroup() as group:
            for case in cases:
                group.create_task(one(case))
    finally:
        logging.getLogger("aj_sdk.connect").removeHandler(ears)
    assert {case.grant.subject: case.wrong for case in cases if case.wrong} == {}
