"""A server with everything around it, and the words in which the acceptance tests speak of it."""

import asyncio
import contextlib
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from tests.acceptance.processes import Crew, Patience, Process

from aj_sdk.client import Client
from aj_sdk.errors import TaskFailedError
from aj_sdk.transport import Message
from aj_sdk.wire.task import TaskRecord

__all__ = ["Overheard", "World", "open_world", "read_metrics"]

_WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class World:
    """A server's processes and a client to it."""

    crew: Crew
    client: Client
    patience: Patience

    async def ready(self, *processes: Process) -> None:
        """Wait until processes are ready."""
        for process in processes:
            await process.says("ready")

    async def ended(self, task_id: str, *, seconds: float = _WAIT_S) -> TaskRecord:
        """Wait until a task has ended, however it did, and return it."""
        with contextlib.suppress(TaskFailedError):
            try:
                await self.client.result(task_id, timeout=self.patience(seconds))
            except TimeoutError:
                pytest.fail(f"task {task_id} has not ended: {await self.client.load(task_id)}")
        return await self.client.load(task_id)

    @contextlib.asynccontextmanager
    async def overhear(self, subject: str) -> AsyncIterator["Overheard"]:
        """Listen to a subject; what a stream stores can be heard too."""
        overheard = Overheard(self.patience)
        transport = self.client.store.jetstream.transport
        subscription = await transport.subscribe(subject, overheard.take)
        try:
            await transport.ping(self.patience(5))
            yield overheard
        finally:
            await subscription.close()

    def calls(self, *task_ids: str) -> list[dict[str, Any]]:
        """Read what the Python handlers noted of the beginnings of calls of these tasks, in their order."""
        return [line for line in self.journal() if line["what"] == "began" and line["task"] in task_ids]

    def journal(self) -> list[dict[str, Any]]:
        """Read all that the Python handlers noted."""
        if not self.crew.journal.exists():
            return []
        return [json.loads(line) for line in self.crew.journal.read_text().splitlines()]


class Overheard:
    """Messages on a subject, each of which can be waited for, also when it came before."""

    def __init__(self, patience: Patience) -> None:
        self.messages: list[Message] = []
        self._patience = patience
        self._came = asyncio.Event()

    def take(self, message: Message) -> None:
        self.messages.append(message)
        self._came.set()

    async def message(
        self, wanted: Callable[[Message], bool] = lambda _: True, *, count: int = 1, seconds: float = _WAIT_S
    ) -> Message:
        """Wait for the n-th message that is wanted."""
        try:
            async with asyncio.timeout(self._patience(seconds)):
                while True:
                    self._came.clear()
                    found = [message for message in self.messages if wanted(message)]
                    if len(found) >= count:
                        return found[count - 1]
                    await self._came.wait()
        except TimeoutError:
            seen = "\n".join(f"{message.subject} {message.data[:200]!r}" for message in self.messages[-20:])
            pytest.fail(f"the message did not come; these did:\n{seen}")

    async def state(self, state: str, *, task_id: str | None = None, count: int = 1) -> dict[str, Any]:
        """Wait for the n-th event that tells a state, and return it; for events only."""

        def wanted(message: Message) -> bool:
            event = json.loads(message.data)
            return event.get("state") == state and task_id in (None, event.get("task_id"))

        event: dict[str, Any] = json.loads((await self.message(wanted, count=count)).data)
        return event

    def states(self) -> list[str]:
        """Return the states that events told so far; for events only."""
        return [json.loads(message.data)["state"] for message in self.messages]


@contextlib.asynccontextmanager
async def open_world(url: str, folder: Path, patience: Patience, copies: int = 1) -> AsyncIterator[World]:
    """Give a server's world, with no process in it yet; none is left at the end."""
    crew = Crew(url, folder, patience, copies)
    try:
        async with Client.connect(url, timeout=patience(5)) as client:
            yield World(crew, client, patience)
    finally:
        crew.close()


def read_metrics(url: str) -> Mapping[str, float]:
    """Read the metrics that a bridge serves: `name{labels}` without the common prefix, to value."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(r"^choria_asyncjobs_(.+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}
