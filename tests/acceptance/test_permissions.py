"""Each role under the permissions that `aj-bridge permissions` prints, on a real server, both ways."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import nats
import pytest
from click.testing import CliRunner
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from tests.acceptance.processes import Crew, Process
from tests.acceptance.world import World

from aj_bridge.faces.cli.main import aj_bridge_group, ajc_group
from aj_bridge.faces.embedded import EmbeddedServer, find_binary
from aj_sdk import Client, TaskSpec, chain
from aj_sdk.errors import TaskFailedError
from aj_sdk.permissions import Act, Role
from aj_sdk.transport import settle
from aj_sdk.wire.event import Event, TaskStateEvent
from aj_sdk.wire.names import queue_stream
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance

PASSWORD: Final = "pass"
TOOLS: Final = Path(sys.executable).parent
GROUPS: Final = {"ajc": ajc_group(), "aj-bridge": aj_bridge_group()}


def told(*command: str) -> dict[str, Any]:
    """Return what `aj-bridge permissions` prints as JSON."""
    found: dict[str, Any] = json.loads(printed("permissions", *command, "--json"))
    return found


def printed(*command: str) -> str:
    """Return what `aj-bridge` prints, run in this process, which starts in no time."""
    done = CliRunner().invoke(GROUPS["aj-bridge"], command)
    assert done.exit_code == 0, (command, done.output, done.exception)
    return done.stdout


def authorization(*command: str) -> dict[str, Any]:
    """Return the server's configuration with these users, their password, and `root`, who may do everything."""
    config = told(*command)
    for user in config["authorization"]["users"]:
        user["password"] = PASSWORD
    config["authorization"]["users"].append({"user": "root", "password": PASSWORD})
    return config


def url_of(server: EmbeddedServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:{PASSWORD}@")


def violations(server: EmbeddedServer) -> list[str]:
    """Return what the server's log says of things that were forbidden."""
    return [line for line in server.log_path.read_text().splitlines() if "Violation" in line]


class Roles:
    """A server whose users are the roles, and processes that run as one of them."""

    def __init__(self, server: EmbeddedServer, crew: Crew, patience: Callable[[float], float]) -> None:
        self.server = server
        self.crew = crew
        self.patience = patience

    def client(self, role: str) -> Client:
        return Client.connect(url_of(self.server, role), timeout=self.patience(5))

    def start(self, role: str, program: str, *command: str, **settings: str) -> Process:
        name = "bridge" if command[0] == "run" else program
        return self.crew.start(name, TOOLS / program, *command, AJ_SERVER=url_of(self.server, role), **settings)

    async def printed(self, role: str, program: str, *command: str) -> str:
        """Run a command in this process, which starts in no time, and return what it printed."""
        words = ["--server", url_of(self.server, role), *command]
        done = await asyncio.to_thread(CliRunner().invoke, GROUPS[program], words)
        assert done.exit_code == 0, (command, done.output, done.exception)
        return done.stdout

    @asynccontextmanager
    async def world(self, role: str) -> AsyncIterator[World]:
        async with self.client(role) as client:
            yield World(self.crew, client, self.patience)


@pytest.fixture
def roles(
    fresh_server: Callable[..., EmbeddedServer], tmp_path: Path, patience: Callable[[float], float]
) -> Iterator["Roles"]:
    server = fresh_server(config=authorization(*Role, "handler+producer"))
    crew = Crew(server.url, tmp_path, patience)
    try:
        yield Roles(server, crew, patience)
    finally:
        crew.close()


async def test_each_role_does_its_whole_part_with_the_permissions_that_are_printed_for_it(roles: Roles) -> None:
    await prepare(roles)
    bridges = [
        roles.start("bridge", "aj-bridge", "run", "--sweep-every", "1s", "--backoff", "50ms", *more)
        for more in (["--queue", "MAIN", "--queue", "SMALL"], ["--queue", "GONE", "--discard", "complete"])
    ]
    handlers = roles.crew.handlers("work", AJ_SERVER=url_of(roles.server, "handler"))
    for process in (*bridges, handlers):
        await process.says("ready")
    await produce(roles, handlers)
    await look(roles)
    await administer(roles)
    for process in (*bridges, handlers):
        process.terminate()
        await process.ended()
    assert violations(roles.server) == []


async def prepare(roles: Roles) -> None:
    await roles.printed("admin", "ajc", "task", "initialize", "--all", "--retention", "1h")
    for name, *options in (
        ("MAIN",),
        ("SMALL", "--entries", "2", "--discard-old"),
        ("GONE",),
        ("OTHER", "--lease", "1s"),
    ):
        await roles.printed("admin", "ajc", "queue", "add", name, *options)


async def produce(roles: Roles, handlers: Process) -> None:
    """Enqueue in every way there is, as a producer, and wait for what becomes of it."""
    async with roles.world("producer") as world:
        client = world.client
        async with client.progress() as _, client.watch("plain") as events:
            await client.enqueue("work", {"do": "ok"}, queue="MAIN", id="plain")
            assert await state_of(events) is TaskState.NEW
        await client.result("plain", timeout=world.patience(20))
        failed = await client.enqueue("work", {"do": "fail"}, queue="MAIN")
        delayed = await client.enqueue("work", queue="MAIN", delay=timedelta(milliseconds=200))
        unique = [
            await client.enqueue("work", queue="MAIN", unique_key="k", unique_for=timedelta(minutes=1))
            for _ in range(2)
        ]
        assert unique[0].id == unique[1].id
        graph = await client.enqueue_graph(chain(TaskSpec("work"), TaskSpec("work")), queue="MAIN")
        terminated = await client.enqueue("work", {"do": "terminate"}, queue="MAIN")
        lost = await client.enqueue("work", queue="MAIN", dependencies=[terminated.id], id="child")
        for task in (failed, delayed, *unique, *graph):
            await client.result(task.id, timeout=world.patience(20))
        for task in (terminated, lost):
            with pytest.raises(TaskFailedError):
                await client.result(task.id, timeout=world.patience(20))
        held = [(await client.enqueue("work", {"do": "hold"}, queue="SMALL")).id for _ in range(3)]
        for task_id in held:
            await handlers.says(f"began {task_id}")
        for task_id in held:
            handlers.tell(f"release {task_id} 1")
            assert (await world.ended(task_id)).state is TaskState.COMPLETE
        async with client.watch("gone") as events:
            await client.enqueue("work", queue="GONE", id="gone")
            assert [await state_of(events) for _ in range(3)][-1] is TaskState.COMPLETE
        await client.enqueue("work", {"do": "hold"}, queue="MAIN", id="running")
        await handlers.says("began running")
    async with roles.world("root") as world:
        # Its item is lost: the sweeper, whichever bridge it is at, brings it back.
        # It has time for some heartbeats, so that more than one reply must be allowed.
        await world.client.enqueue("work", {"do": "sleep", "ms": 1500}, queue="OTHER", id="lost")
        jetstream = world.client.store.jetstream
        await jetstream.purge(queue_stream("OTHER"))
        serving = roles.start("bridge", "aj-bridge", "run", "--queue", "OTHER")
        await serving.says("ready")
        await world.ended("lost", seconds=60)
        serving.terminate()
        await serving.ended()


async def state_of(events: AsyncIterator[Event]) -> TaskState:
    event = await anext(events)
    assert isinstance(event, TaskStateEvent)
    return event.state


async def look(roles: Roles) -> None:
    """Look at everything, as a viewer."""
    for command in (
        ("ajc", "info"),
        ("ajc", "task", "view", "plain"),
        ("ajc", "task", "list"),
        ("ajc", "queue", "list"),
        ("ajc", "queue", "info", "MAIN"),
        ("ajc", "dead", "list"),
        ("ajc", "dead", "view", "child"),
        ("aj-bridge", "handlers"),
        ("aj-bridge", "doctor", "--no-sweep"),
    ):
        assert await roles.printed("viewer", *command)
    [first, *_] = json.loads(await roles.printed("viewer", "aj-bridge", "ps", "--json"))
    assert first["queues"]
    await roles.printed("viewer", "aj-bridge", "ctl", first["id"], "status")
    watch = roles.start("viewer", "ajc", "task", "watch")
    await watch.logs("Watching")
    await roles.printed("handler+producer", "ajc", "task", "add", "work", "{}", "--raw", "--queue", "MAIN")
    await watch.says("complete")


async def administer(roles: Roles) -> None:
    """Do all that `ajc` does, as an administrator."""
    for command in (
        "ajc info",
        "ajc task cancel running",
        "ajc task add work {} --raw --queue MAIN --id later --in 1h",
        "ajc task run-now later",
        "ajc task add work {} --raw --queue MAIN --id waits --in 1h --unique-key u --unique-for 1m",
        "ajc task cancel waits",
        "ajc task retry waits",
        "ajc task retry running",
        "ajc task retry running --force",
        "ajc task cancel running",
        "ajc task delete waits -f",
        "ajc task delete --type work --state terminated -f",
        "ajc task configure 2h 1",
        "ajc queue configure MAIN --run-time 1h --entries 1000",
        "ajc queue pause MAIN",
        "ajc queue resume MAIN",
        "ajc queue info MAIN",
        "ajc queue purge OTHER -f",
        "ajc queue delete OTHER -f",
        "ajc dead list",
        "ajc dead configure --expired 7d",
        "ajc dead replay child",
        "ajc dead purge --all -f",
        "ajc task purge -f",
        "aj-bridge doctor --after 100ms",
        "aj-bridge ps",
    ):
        await roles.printed("admin", *command.split())
    [first, *_] = json.loads(await roles.printed("admin", "aj-bridge", "ps", "--json"))
    for act in ("concurrency 3", "pause", "resume", "drain"):
        await roles.printed("admin", "aj-bridge", "ctl", first["id"], *act.split())


API: Final = "$JS.API."
FORBIDDEN: Final = {
    Role.PRODUCER: (
        (Act.PUBLISH, "CHORIA_AJ.Q.OTHER.x"),
        (Act.PUBLISH, "CHORIA_AJ.D.S.OTHER.x"),
        (Act.PUBLISH, "CHORIA_AJ.H.T.work"),
        (Act.PUBLISH, "CHORIA_AJ.X.terminated.MAIN.x"),
        (Act.PUBLISH, "CHORIA_AJ.A.x"),
        (Act.PUBLISH, "CHORIA_AJ.C.x"),
        (Act.PUBLISH, "CHORIA_AJ.CI.x"),
        (Act.PUBLISH, "CHORIA_AJ.E.leader_election.task_sweeper"),
        (Act.PUBLISH, "AJ.BRIDGE.x.drain"),
        (Act.PUBLISH, "$KV.CHORIA_AJ_ELECTIONS.task_sweeper"),
        (Act.PUBLISH, "$JS.ACK.CHORIA_AJ_Q_MAIN.WORKERS.1.1.1.1.1"),
        (Act.PUBLISH, API + "CONSUMER.MSG.NEXT.CHORIA_AJ_Q_MAIN.WORKERS"),
        (Act.PUBLISH, API + "CONSUMER.CREATE.CHORIA_AJ_TASKS.SPY"),
        (Act.PUBLISH, API + "STREAM.CREATE.SPY"),
        (Act.PUBLISH, API + "STREAM.UPDATE.CHORIA_AJ_Q_MAIN"),
        (Act.PUBLISH, API + "STREAM.DELETE.CHORIA_AJ_TASKS"),
        (Act.PUBLISH, API + "STREAM.PURGE.CHORIA_AJ_TASKS"),
        (Act.PUBLISH, API + "STREAM.MSG.GET.ORDERS"),
        (Act.PUBLISH, "_INBOX.x"),
        (Act.SUBSCRIBE, "CHORIA_AJ.H.T.work"),
        (Act.SUBSCRIBE, "CHORIA_AJ.T.*"),
        (Act.SUBSCRIBE, ">"),
    ),
    Role.BRIDGE: (
        (Act.PUBLISH, "CHORIA_AJ.Q.OTHER.x"),
        (Act.PUBLISH, "CHORIA_AJ.H.T.other"),
        (Act.PUBLISH, "CHORIA_AJ.C.x"),
        (Act.PUBLISH, "AJ.BRIDGE.x.drain"),
        (Act.PUBLISH, "$KV.CHORIA_AJ_UNIQUE.x"),
        (Act.PUBLISH, "$JS.ACK.CHORIA_AJ_Q_OTHER.WORKERS.1.1.1.1.1"),
        (Act.PUBLISH, API + "CONSUMER.MSG.NEXT.CHORIA_AJ_Q_OTHER.WORKERS"),
        (Act.PUBLISH, API + "CONSUMER.DELETE.CHORIA_AJ_Q_MAIN.WORKERS"),
        (Act.PUBLISH, API + "STREAM.CREATE.SPY"),
        (Act.PUBLISH, API + "STREAM.DELETE.CHORIA_AJ_TASKS"),
        (Act.PUBLISH, API + "STREAM.PURGE.CHORIA_AJ_TASKS"),
        (Act.PUBLISH, API + "STREAM.MSG.GET.ORDERS"),
        (Act.SUBSCRIBE, "CHORIA_AJ.H.T.work"),
        (Act.SUBSCRIBE, "CHORIA_AJ.E.>"),
        (Act.SUBSCRIBE, ">"),
    ),
    Role.HANDLER: (
        (Act.PUBLISH, "CHORIA_AJ.T.x"),
        (Act.PUBLISH, "CHORIA_AJ.Q.MAIN.x"),
        (Act.PUBLISH, "CHORIA_AJ.H.T.work"),
        (Act.PUBLISH, "CHORIA_AJ.CI.x"),
        (Act.PUBLISH, "AJ.BRIDGE.x.status"),
        (Act.PUBLISH, API + "INFO"),
        (Act.PUBLISH, API + "DIRECT.GET.CHORIA_AJ_TASKS"),
        (Act.PUBLISH, "_INBOX.x"),
        # Outside of the queue group it would overhear the calls of others.
        (Act.SUBSCRIBE, "CHORIA_AJ.H.T.work"),
        (Act.SUBSCRIBE, "CHORIA_AJ.H.T.other q"),
        (Act.SUBSCRIBE, "CHORIA_AJ.E.>"),
        (Act.SUBSCRIBE, "_INBOX.>"),
    ),
    Role.VIEWER: (
        (Act.PUBLISH, "CHORIA_AJ.T.x"),
        (Act.PUBLISH, "CHORIA_AJ.Q.MAIN.x"),
        (Act.PUBLISH, "CHORIA_AJ.C.x"),
        (Act.PUBLISH, "CHORIA_AJ.H.T.work"),
        (Act.PUBLISH, "AJ.BRIDGE.x.pause"),
        (Act.PUBLISH, "AJ.BRIDGE.x.drain"),
        (Act.PUBLISH, "$KV.CHORIA_AJ_UNIQUE.x"),
        (Act.PUBLISH, "$JS.ACK.CHORIA_AJ_Q_MAIN.WORKERS.1.1.1.1.1"),
        (Act.PUBLISH, API + "CONSUMER.MSG.NEXT.CHORIA_AJ_Q_MAIN.WORKERS"),
        (Act.PUBLISH, API + "CONSUMER.PAUSE.CHORIA_AJ_Q_MAIN.WORKERS"),
        # It may have its messages delivered anywhere.
        (Act.PUBLISH, API + "CONSUMER.CREATE.CHORIA_AJ_TASKS.SPY"),
        (Act.PUBLISH, API + "STREAM.CREATE.SPY"),
        (Act.PUBLISH, API + "STREAM.UPDATE.CHORIA_AJ_TASKS"),
        (Act.PUBLISH, API + "STREAM.PURGE.CHORIA_AJ_DEAD"),
        (Act.PUBLISH, API + "STREAM.MSG.DELETE.CHORIA_AJ_TASKS"),
        (Act.PUBLISH, API + "STREAM.MSG.GET.ORDERS"),
        (Act.SUBSCRIBE, "CHORIA_AJ.H.T.*"),
        (Act.SUBSCRIBE, "CHORIA_AJ.T.*"),
    ),
    Role.ADMIN: (
        (Act.PUBLISH, "CHORIA_AJ.H.T.work"),
        (Act.PUBLISH, "$KV.CHORIA_AJ_ELECTIONS.task_sweeper"),
        (Act.PUBLISH, "$JS.ACK.CHORIA_AJ_Q_MAIN.WORKERS.1.1.1.1.1"),
        (Act.PUBLISH, API + "CONSUMER.MSG.NEXT.CHORIA_AJ_Q_MAIN.WORKERS"),
        (Act.PUBLISH, API + "STREAM.CREATE.SPY"),
        (Act.PUBLISH, API + "STREAM.DELETE.ORDERS"),
        (Act.PUBLISH, API + "STREAM.MSG.GET.ORDERS"),
        (Act.PUBLISH, API + "ACCOUNT.PURGE.$G"),
        (Act.PUBLISH, "_INBOX.x"),
        (Act.SUBSCRIBE, "CHORIA_AJ.H.T.work"),
        (Act.SUBSCRIBE, ">"),
    ),
}
"""What each role must not do, when it is narrowed to the queue MAIN and the type `work`."""


async def test_each_role_is_refused_what_is_not_its_part(fresh_server: Callable[..., EmbeddedServer]) -> None:
    server = fresh_server(config=authorization(*Role, "--queue", "MAIN", "--type", "work"))
    accepted = {}
    for role, acts in FORBIDDEN.items():
        refused: list[str] = []
        connection = await connected(server, role, refused)
        for act, subject in acts:
            if act is Act.PUBLISH:
                await connection.publish(subject, b"{}")
            else:
                place, _, group = subject.partition(" ")
                await connection.subscribe(place, queue=group)
        await settle(connection)
        await connection.close()
        # The server's words, in which nats-py writes all letters small.
        told = {
            subject
            for act, subject in acts
            for words in refused
            if f'{act} to "{subject.split()[0]}"'.replace("subscribe", "subscription").lower() in words
        }
        accepted[role] = {subject for _, subject in acts} - told
    assert accepted == {role: set() for role in Role}


async def test_a_handler_answers_what_it_was_asked_and_nothing_else(
    fresh_server: Callable[..., EmbeddedServer],
) -> None:
    server = fresh_server(config=authorization(Role.HANDLER, "--type", "work"))
    refused: list[str] = []
    handler, bridge = await connected(server, Role.HANDLER, refused), await connected(server, "root", [])

    async def answer(request: Msg) -> None:
        for word in (b"interim", b"interim", b"result"):
            await request.respond(word)
        await handler.publish(f"{request.reply}x", b"forged")

    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        heard.put_nowait(message.data)

    await handler.subscribe("CHORIA_AJ.H.T.work", queue="q", cb=answer)
    await settle(handler)
    inbox = bridge.new_inbox()
    await bridge.subscribe(f"{inbox}.*", cb=hear)
    await bridge.publish("CHORIA_AJ.H.T.work", b"{}", reply=f"{inbox}.1")
    assert [await heard.get() for _ in range(3)] == [b"interim", b"interim", b"result"]
    await settle(handler)
    await settle(bridge)
    assert heard.empty()
    assert len(refused) == 1
    assert "publish to" in refused[0]
    await handler.close()
    await bridge.close()


async def connected(server: EmbeddedServer, user: str, refused: list[str]) -> Connection:
    async def note(error: Exception) -> None:
        refused.append(str(error).lower())

    return await nats.connect(url_of(server, user), error_cb=note)


@pytest.mark.parametrize("options", [[], ["--queue", "A", "--type", "", "--domain", "hub", "--no-make"]])
def test_a_server_takes_the_configuration_as_it_is_printed(options: list[str], tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(printed("permissions", *Role, *options))
    passwords = {f"NATS_PASSWORD_{role.upper()}": "secret" for role in Role}
    command = [str(find_binary()), "-t", "-c", str(config)]
    checked = subprocess.run(command, capture_output=True, text=True, env=passwords, check=False)
    assert checked.returncode == 0, checked.stderr
