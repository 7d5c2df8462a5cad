"""Everything around one run: the server, bridges and handlers that are killed and replaced, the producer, the logs.

Rows speak to it: `kill`, `freeze`, `cut`, wait until a share of the tasks has ended. Each act is written down.
"""

import asyncio
import contextlib
import json
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.acceptance.processes import Crew, Process
from tests.cluster import Cluster
from tests.faults.proxy import Proxy
from tests.faults.recorder import Log, Recorder

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.errors import (
    AsyncJobsError,
    OutcomeUnknownError,
    QueueFullError,
    StoreError,
    TaskTooLargeError,
    UsageError,
)
from aj_sdk.spec import TaskSpec
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.times import NS_PER_S

__all__ = ["QUEUE", "BridgeAtWork", "Setting", "Stand", "open_stand"]

QUEUE: Final = "Q"
Servers: TypeAlias = EmbeddedServer | Cluster
_FINAL: Final = ("complete", "expired", "terminated", "unreachable", "queue_error")
_HANDLERS: Final = Path(__file__).with_name("handlers.py")
_READY_S: Final = 30.0
_LOOK_S: Final = 1.0
_PROBE_S: Final = 0.5
_TICK_S: Final = 0.05
_STILL: Final = 0.3
"""Of a lease, for how long a standstill of the machine counts."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a row wants to find.

    Attributes:
        bridges: how many run.
        handlers: how many processes of handlers.
        lease_s: the queue's lease.
        max_run_time_s: the queue's limit for one run.
        max_concurrent: items in hand over all bridges.
        options: further options of each bridge.
        proxied: each bridge has a proxy before the server.
        settle_s: within which time all must have ended, once nothing disturbs any more.
        quiet_s: within which time all items must be gone after that.
        canaries: tasks of a type of their own come all the time, and must not be held up.
        users: bridges have a login of their own, which can be changed.
        cluster: three servers, and three copies of everything.
        skew_s: how wrong the clocks of bridges may be.
    """

    bridges: int = 2
    handlers: int = 2
    lease_s: float = 1.0
    max_run_time_s: float = 3.0
    max_concurrent: int = 100
    options: tuple[str, ...] = ("--backoff", "200ms,500ms,1s", "--concurrency", "20")
    users: bool = False
    cluster: bool = False
    skew_s: float = 0.0
    proxied: bool = False
    settle_s: float = 45.0
    quiet_s: float = 6.0
    canaries: bool = False

    @property
    def admin(self) -> dict[str, Any]:
        """The login of all but the bridges."""
        return {"user": "admin", "password": "admin"}

    @property
    def bridge_user(self) -> dict[str, Any]:
        """The login of the bridges."""
        return {"user": "bridge", "password": "bridge"}

    @property
    def server(self) -> dict[str, Any]:
        """The configuration of the server."""
        return {"authorization": {"users": [self.admin, self.bridge_user]}} if self.users else {}


class BridgeAtWork:
    """A bridge's process, the proxy before it, and its journal."""

    def __init__(self, process: Process, proxy: Proxy | None, journal: Path) -> None:
        self.process = process
        self.proxy = proxy
        self._journal = journal
        self.monitor = ""

    @property
    def id(self) -> str:
        """Its id; empty while it has not begun to work."""
        first = self._journal.read_text().partition("\n")[0] if self._journal.exists() else ""
        return str(json.loads(first)["bridge"]) if first else ""

    async def ready(self) -> None:
        line = await self.process.says("^ready: bridge ", seconds=_READY_S)
        if found := re.search(r"http://([0-9.]+):([0-9]+)", line):
            self.monitor = f"{found[1]}:{found[2]}"

    async def is_ready(self) -> bool:
        """Ask it whether it is ready to work; one that does not answer in time is not."""
        host, _, port = self.monitor.partition(":")
        try:
            async with asyncio.timeout(_PROBE_S):
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
                    answer = await reader.readline()
                finally:
                    writer.close()  # also where a frozen one lets us wait
        except (TimeoutError, OSError):
            return False
        return b" 200 " in answer


class Stand:
    """One run's world; `open_stand` makes it."""

    def __init__(
        self,
        *,
        setting: Setting,
        folder: Path,
        servers: Servers,
        client: Client,
        crew: Crew,
        chance: random.Random,
        stack: contextlib.AsyncExitStack,
        patience: Callable[[float], float],
        bug: str,
    ) -> None:
        self.setting = setting
        self.folder = folder
        self._servers = servers
        self.cluster = servers if isinstance(servers, Cluster) else None
        self.client = client
        self.chance = chance
        self.recorder = Recorder(client.store.jetstream, folder)
        self.patience = patience
        self.bridges: list[BridgeAtWork] = []
        self.handlers: list[Process] = []
        self.tasks: set[str] = set()
        self.total = 0
        self.injected = 0
        self.ended: set[str] = set()
        self._crew = crew
        self._stack = stack
        self._bug = bug
        self._faults = Log(folder / "faults.jsonl")
        self._producer = Log(folder / "producer.jsonl")
        self._ready = Log(folder / "ready.jsonl")
        self.gate = asyncio.Event()
        """Set when tasks may be enqueued."""
        self._changed = asyncio.Event()
        self._numbers = 0

    async def begin(self) -> None:
        """Make streams and queue, and start the processes."""
        setting = self.setting
        copies = 3 if setting.cluster else 1
        await self.recorder.begin(replicas=copies)
        self.recorder.on_save = self._on_save
        await self.client.admin.create_queue(
            QueueSettings(
                name=QUEUE,
                lease_ns=int(setting.lease_s * NS_PER_S),
                max_run_time_ns=int(setting.max_run_time_s * NS_PER_S),
                max_concurrent=setting.max_concurrent,
                replicas=copies,
            )
        )
        bridges = [await self._bridge() for _ in range(setting.bridges)]
        handlers = [self._handler() for _ in range(setting.handlers)]
        for bridge in bridges:
            await bridge.ready()
        for process in handlers:
            await process.says("ready", seconds=_READY_S)

    @property
    def server(self) -> EmbeddedServer:
        """The one server."""
        assert isinstance(self._servers, EmbeddedServer)
        return self._servers

    def _url(self, user: str) -> str:
        return _login(self._servers.url, user) if self.setting.users else self._servers.url

    async def _bridge(self, **settings: str) -> BridgeAtWork:
        self._numbers += 1
        proxy, url = None, self._url("bridge")
        if self.setting.proxied:
            proxy = await self._stack.enter_async_context(Proxy("127.0.0.1", self.server.port))
            url = proxy.url
        journal = self.folder / f"bridge-{self._numbers}.jsonl"
        command = [sys.executable, "-m", "tests.faults.bridge", "run", "--server", url, "--queue", QUEUE]
        command += ["--drain-timeout", "5s", "--monitor", "127.0.0.1:0"]
        settings["AJ_TEST_SAMPLES"] = str(self.folder / "samples.jsonl")
        if self._bug:
            settings["AJ_TEST_BUG"] = self._bug
        process = self._crew.start("bridge", *command, "--journal", journal, *self.setting.options, **settings)
        bridge = BridgeAtWork(process, proxy, journal)
        self.bridges.append(bridge)
        return bridge

    def _handler(self) -> Process:
        log = self.folder / "handlers.jsonl"
        process = self._crew.start("handlers", sys.executable, _HANDLERS, self._url("admin"), log, "work", "canary")
        self.handlers.append(process)
        return process

    def _on_save(self, task: str, state: str) -> None:
        (self.ended.add if state in _FINAL else self.ended.discard)(task)
        self._changed.set()

    async def probe(self) -> None:
        """Ask all bridges again and again whether they are ready, until cancelled."""
        while True:
            for bridge in [each for each in self.bridges if each.monitor and each.process.running]:
                ready = await bridge.is_ready()
                self._ready.write(at=time.time_ns(), bridge=bridge.id, ready=ready)
            await asyncio.sleep(_PROBE_S / 2)

    async def watch_machine(self) -> None:
        """Write down when this machine stands still, by our own loop: bridges may lose leases by that."""
        while True:
            began, began_ns = time.monotonic(), time.time_ns()
            await asyncio.sleep(_TICK_S)
            if time.monotonic() - began - _TICK_S > self.setting.lease_s * _STILL:
                self._faults.write(what="stood still", target="machine", begins=began_ns, ends=time.time_ns())

    # Producing.

    async def produce(self, specs: Sequence[TaskSpec], seconds: float) -> None:
        """Enqueue tasks, evenly over some seconds; one whose outcome is unknown is enqueued again under its id."""
        await self.gate.wait()
        pause = seconds / max(1, len(specs))
        async with asyncio.TaskGroup() as group:
            for spec in specs:
                group.create_task(self.enqueue(spec))
                await asyncio.sleep(pause)

    async def enqueue(self, spec: TaskSpec) -> None:
        assert spec.id is not None
        self.tasks.add(spec.id)
        began = time.time_ns()
        while True:
            outcome = "stored"
            try:
                await self.client.enqueue_many([spec], queue=QUEUE)
            except (UsageError, TaskTooLargeError):
                # It will never be stored, and nothing was.
                self.act("enqueue", spec.id, "refused", at=began)
                self.tasks.discard(spec.id)
                self.total -= 1
                return
            except (OutcomeUnknownError, QueueFullError, StoreError) as err:
                outcome = "refused" if isinstance(err, QueueFullError) else "unknown"
            self.act("enqueue", spec.id, outcome, at=began, canary=spec.type == "canary")
            if outcome == "stored":
                return
            await asyncio.sleep(0.3)

    def act(
        self, what: str, task: str, outcome: str = "stored", *, at: int | None = None, canary: bool = False
    ) -> None:
        """Write down what a user did."""
        self._producer.write(at=at or time.time_ns(), what=what, task=task, outcome=outcome, canary=canary)

    async def user(self, what: str, task: str, act: Callable[[], Any]) -> None:
        """Do something as a user, and write it down."""
        self.act(what, task, "unknown")
        with contextlib.suppress(AsyncJobsError):
            await act()
        self.act(what, task)

    # Waiting.

    async def until_ended(self, share: float) -> None:
        """Wait until a share of all tasks has ended, or until nothing ends any more for a while."""
        while len(self.ended) < share * self.total:
            self._changed.clear()
            try:
                async with asyncio.timeout(self.patience(5)):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def settled(self, seconds: float) -> None:
        """Wait until all tasks have ended and their items are gone, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._unfinished():
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_S):
                            await self._changed.wait()
        # Acks are on their way; an item whose ack was lost comes again, and is acknowledged then.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience(self.setting.quiet_s)):
                while await self._items_left():  # noqa: ASYNC110 - the server tells nobody of an ack
                    await asyncio.sleep(0.1)

    async def _unfinished(self) -> list[str]:
        try:
            return await self.recorder.unfinished(self.tasks)
        except StoreError:
            return ["?"]

    async def _items_left(self) -> bool:
        js = self.client.store.jetstream
        try:
            info = await js.stream_info(f"CHORIA_AJ_Q_{QUEUE}")
            # A schedule of a task that has ended fires once more, and its item is then acknowledged.
            waiting = await js.count("CHORIA_AJ_DELAYED", "CHORIA_AJ.D.S.>")
        except StoreError:
            return True
        return bool(waiting) or (info is not None and bool(info["state"]["messages"]))

    # Faults.

    @contextlib.contextmanager
    def fault(self, what: str, target: str, bridge: str = "", pid: int = 0) -> Iterator[None]:
        """Write down a fault that is made inside the context."""
        self.injected += 1
        begins = time.time_ns()
        try:
            yield
        finally:
            self._faults.write(what=what, target=target, begins=begins, ends=time.time_ns(), bridge=bridge, pid=pid)

    def happened(self, what: str, target: str, at: int, bridge: str = "", pid: int = 0) -> None:
        """Write down a fault that has happened."""
        self.injected += 1
        self._faults.write(what=what, target=target, begins=at, ends=at, bridge=bridge, pid=pid)

    async def reached(self) -> None:
        """Wait until the server answers us again."""
        while True:
            try:
                await self.client.store.jetstream.transport.ping(1)
            except StoreError:
                await asyncio.sleep(0.05)
            else:
                return

    def pick(self) -> BridgeAtWork:
        """Choose a bridge that runs."""
        return self.chance.choice(self.bridges)

    async def idle(self, seconds: float) -> bool:
        """Wait for a save; say whether there was none for so long, and all tasks are enqueued."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return len(self.tasks) >= self.total
        return False

    async def replace(self, bridge: BridgeAtWork, **settings: str) -> BridgeAtWork:
        """Start another bridge in place of one that has gone."""
        self.bridges.remove(bridge)
        new = await self._bridge(**settings)
        await new.ready()
        return new

    async def kill_bridge(self, bridge: BridgeAtWork) -> None:
        at = time.time_ns()
        bridge.process.kill()
        self.happened("kill -9", "bridge", at, bridge.id)

    async def bridge_that_dies(self, after: str) -> None:
        """Start one more bridge, which is killed after a step of its own; wait for that, or for all tasks."""
        victim = await self._bridge(AJ_TEST_KILL_AFTER=after)
        if not self.gate.is_set():
            await victim.ready()
            self.gate.set()
        ending = asyncio.create_task(self.until_ended(1.0))
        while victim.process.running and not ending.done():  # noqa: ASYNC110 - a process tells nobody of its death
            await asyncio.sleep(0.01)
        ending.cancel()
        if not victim.process.running:
            self.bridges.remove(victim)
            self.happened("kill -9", "bridge", time.time_ns(), victim.id)

    async def replace_handler(self, process: Process, *, wait: bool = True) -> None:
        """Start another process of handlers in place of one that has gone."""
        self.handlers.remove(process)
        new = self._handler()
        if wait:
            await new.says("ready", seconds=_READY_S)

    async def restore(self) -> None:
        """Have as many bridges and handlers at work as there were in the beginning."""
        for bridge in [each for each in self.bridges if not each.process.running]:
            self.bridges.remove(bridge)
        for process in [each for each in self.handlers if not each.running]:
            self.handlers.remove(process)
        for bridge in self.bridges:
            if bridge.proxy is not None:
                bridge.proxy.heal()
        while len(self.bridges) < self.setting.bridges:
            await (await self._bridge()).ready()
        while len(self.handlers) < self.setting.handlers:
            await self._handler().says("ready", seconds=_READY_S)

    async def end(self) -> None:
        """Stop all in order, and read what was recorded."""
        for bridge in self.bridges:
            bridge.process.terminate()
        for bridge in self.bridges:
            await bridge.process.ended(seconds=20)
        await self.recorder.end()
        for log in (self._faults, self._producer, self._ready):
            log.close()


@contextlib.asynccontextmanager
async def open_stand(
    setting: Setting, folder: Path, chance: random.Random, patience: Callable[[float], float], bug: str = ""
) -> AsyncIterator[Stand]:
    """Give a world with its processes at work; none is left at the end."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    async with contextlib.AsyncExitStack() as stack:
        servers: Servers
        if setting.cluster:
            servers = await asyncio.to_thread(Cluster(patience(60)).__enter__)
            stack.callback(servers.__exit__, None, None, None)
        else:
            servers = await stack.enter_async_context(EmbeddedServer(config=setting.server, start_timeout=patience(30)))
        url = _login(servers.url, "admin") if setting.users else servers.url
        crew = Crew(url, folder, patience)
        stack.callback(_close, crew, folder)
        client = await stack.enter_async_context(Client.connect(url, timeout=patience(1)))
        stand = Stand(
            setting=setting,
            folder=folder,
            servers=servers,
            client=client,
            crew=crew,
            chance=chance,
            stack=stack,
            patience=patience,
            bug=bug,
        )
        await stand.begin()
        yield stand


def _login(url: str, user: str) -> str:
    return url.replace("nats://", f"nats://{user}:{user}@")


def _close(crew: Crew, folder: Path) -> None:
    """End all processes; what they said last stands beside the recordings."""
    with (folder / "processes.log").open("w") as log, contextlib.redirect_stderr(log):
        crew.close()
