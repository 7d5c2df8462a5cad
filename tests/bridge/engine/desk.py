"""An administrator of a world in memory: the SDK's own acts on tasks, over a store that is the world.

Whatever an act sends goes through a link, which may be slow, cut or lossy, so that anything can come in between.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec
from tests.bridge.engine.bridges import Linked

from aj_bridge.core.deliver import Holder
from aj_bridge.storage.memory import Link, MemoryWorld
from aj_bridge.storage.memory.edges import MemoryEdges
from aj_sdk.dead import DeadLetters
from aj_sdk.dependents import Dependents
from aj_sdk.errors import ConflictError, NoRespondersError, TaskNotFoundError
from aj_sdk.jetstream import JetStream
from aj_sdk.store import Place, Standing, Store
from aj_sdk.tasks import Tasks
from aj_sdk.wire.codec import encode_json
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.names import (
    DEAD_STREAM,
    DELAYED_STREAM,
    H_DUE,
    H_SILENT,
    item_subject,
    queue_stream,
    schedule_subject,
    task_id_of_subject,
)
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.stored import Stored

__all__ = ["Desk"]


class Office(Protocol):
    """Where a desk stands."""

    @property
    def world(self) -> MemoryWorld: ...

    def tell_cancelled(self, task_id: str) -> None: ...

    async def ask(self, asker: Linked, owner: str, task_id: str, item: ItemRef) -> Holder: ...


class Answer(msgspec.Struct):
    data: bytes
    subject: str = ""
    reply: str = ""
    headers: dict[str, str] | None = None


class Wire:
    """What is told and asked beside the store: events, cancels, who holds an item."""

    max_payload = 1024 * 1024

    def __init__(self, site: Office, link: Link) -> None:
        self._site = site
        self.link = link

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(name)

    async def publish(self, subject: str, data: bytes = b"", **_: object) -> None:
        if subject.startswith("CHORIA_AJ.C."):
            task_id = task_id_of_subject(subject)
            await self.link.tell("cancelled", task_id, lambda: self._site.tell_cancelled(task_id))
        else:
            event = TaskStateEvent.from_wire(data)
            await self.link.tell("event", event, lambda: self._site.world.told(event))

    async def request(self, subject: str, data: bytes = b"", **_: object) -> Answer:
        if subject == f"$JS.API.STREAM.INFO.{DEAD_STREAM}":
            return Answer(encode_json({"config": {}, "state": {}}))  # it is always there
        owner = subject.split(".")[2]
        question = msgspec.json.decode(data)
        item = ItemRef(question["sequence"], question["delivery"])
        holder = await self._site.ask(self, owner, question["task"], item)
        if holder is Holder.SILENT:
            raise NoRespondersError(subject)
        return Answer(encode_json({"holds": holder is Holder.YES}))


class MemoryStore(Store):
    """The SDK's store over a world in memory."""

    def __init__(self, site: Office, link: Link) -> None:
        super().__init__(JetStream(Wire(site, link)))
        self._world = site.world
        self._link = link
        self.edges = MemoryEdges(site.world.edges, link)
        self.dependents = Dependents(self.edges, self.wake_task)

    async def wake_task(self, queue: str, task_id: str) -> bool:
        return await self._link.ask("wake", task_id, lambda: self._world.wake(queue, task_id))

    def now_ns(self) -> int:
        return self._world.now_ns()

    async def load(self, task_id: str) -> Stored | None:
        return await self._link.ask("load", task_id, lambda: self._world.get(task_id))

    async def _save(
        self, task_id: str, body: bytes, expected: int, stamp: Stamp | None, ttl_s: int | None = None
    ) -> int:
        assert ttl_s is None
        return await self._link.ask(
            "save", body, lambda: self._world.put(task_id, body, expected=expected, stamp=stamp)
        )

    async def remove(self, task_id: str, sequence: int) -> None:
        def remove() -> None:
            current = self._world.get(task_id)
            if current is None:
                raise TaskNotFoundError(task_id)
            if current.sequence != sequence:
                raise ConflictError(task_id, sequence)
            self._world.remove(task_id)

        await self._link.ask("remove", task_id, remove)

    async def publish_item(
        self, queue: str, task_id: str, *, replace: bool = False, headers: Mapping[str, str] | None = None
    ) -> bool:
        assert not headers
        return await self._link.ask("publish", task_id, lambda: self._world.publish(queue, task_id, replace=replace))

    async def park_item(
        self,
        queue: str,
        task_id: str,
        due_ns: int,
        *,
        headers: Mapping[str, str] | None = None,
        replace: bool = True,
    ) -> int:
        not_before_ns = int((headers or {}).get(H_DUE, "0"))

        def park() -> int:
            if not replace and self._world.schedule_of(queue, task_id) is not None:
                return 0
            return self._world.schedule(queue, task_id, due_ns, not_before_ns=not_before_ns)

        return await self._link.ask("park", task_id, park)

    async def standing(self, queue: str, task_id: str) -> Standing | None:
        sequence = await self._link.ask("standing", task_id, lambda: self._world.schedule_of(queue, task_id))
        return None if sequence is None else Standing(sequence, {})

    async def wake_item(
        self, queue: str, task_id: str, sequence: int, headers: Mapping[str, str] | None = None
    ) -> bool:
        return await self._link.ask(
            "wake", task_id, lambda: self._world.fire(queue, task_id, sequence, silence=H_SILENT in (headers or {}))
        )

    async def forget_attempts(self, task_id: str) -> None:
        await self._link.ask("forget", task_id, lambda: self._world.attempts.pop(task_id, None))

    async def find_items(self, queue: str, task_id: str) -> list[Place]:
        def find() -> list[Place]:
            schedule = self._world.schedule_of(queue, task_id)
            item = self._world.queue(queue).sequence_of(task_id)
            places = [] if schedule is None else [Place(DELAYED_STREAM, schedule_subject(queue, task_id), schedule)]
            return places if item is None else [*places, Place(queue_stream(queue), item_subject(queue, task_id), item)]

        return await self._link.ask("find", task_id, find)

    async def remove_items(self, places: Iterable[Place]) -> None:
        for place in places:
            queue, task_id = place.subject.split(".")[-2:]
            await self._link.ask("purge", place, functools.partial(self._purge, queue, task_id, place))

    def _purge(self, queue: str, task_id: str, place: Place) -> None:
        if place.stream == DELAYED_STREAM:
            self._world.unschedule(queue, task_id, place.sequence + 1)
        else:
            self._world.queue(queue).purge(task_id, place.sequence + 1)


class MemoryDead(DeadLetters):
    """The SDK's dead letters over a world in memory."""

    def __init__(self, site: Office, link: Link, store: Store) -> None:
        super().__init__(store.jetstream, store)
        self._world = site.world
        self._link = link

    async def bury(self, letter: DeadLetter) -> bool:
        return await self._link.ask("bury", letter, lambda: self._world.bury(letter))


class Desk:
    """What an administrator may do in a world, over a link of its own."""

    def __init__(self, site: Office, link: Link | None = None) -> None:
        self.link = link or Link()
        self.store = MemoryStore(site, self.link)
        self.tasks = Tasks(self.store, MemoryDead(site, self.link, self.store))
