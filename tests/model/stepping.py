"""The bridge's and the SDK's own code, one operation of the server at a time.

Their coroutines run over a storage whose methods do nothing but say what they want of the server; whoever steps them
gives the answer. A coroutine can't be copied, but it can be begun anew and given the same answers: so what it has in
hand is known by its answers so far, which is a value that a state can hold.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from tests.bridge.engine.bridges import Counts

from aj_bridge.core.claim import Claim
from aj_bridge.core.deliver import Holder
from aj_bridge.core.retry import POLICIES
from aj_bridge.core.sweep import Close, Publish, Sighting, Whereabouts, judge_task
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.held import HeldClaims
from aj_bridge.engine.limits import Limits
from aj_bridge.engine.parts import Parts
from aj_bridge.engine.patience import Stopped
from aj_bridge.engine.processor import Processor
from aj_bridge.engine.router import Outcome, RouteKind, Router
from aj_bridge.engine.slots import Slots
from aj_bridge.storage.protocols import Parked
from aj_sdk.cancel import cancel
from aj_sdk.dependents import Dependents, StoredEdge
from aj_sdk.enqueue import enqueue
from aj_sdk.errors import AsyncJobsError, ConflictError, OutcomeUnknownError, QueueFullError
from aj_sdk.jetstream import JetStream
from aj_sdk.retry import retry
from aj_sdk.run_now import run_now
from aj_sdk.store import Place, Standing, Store
from aj_sdk.wire.call import Completed, Failed
from aj_sdk.wire.edge import Edge
from aj_sdk.wire.names import DELAYED_STREAM, item_subject, queue_stream, schedule_subject, task_subject
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = ["NOW_NS", "QUEUE", "Answer", "Job", "Op", "next_op", "own_code", "stored_of"]

QUEUE: Final = "Q"
NOW_NS: Final = 1_767_225_600 * NS_PER_S
_LATER_S: Final = 1e9


class Op(NamedTuple):
    """What somebody wants of the server."""

    name: str
    args: tuple[Any, ...] = ()


class Answer(NamedTuple):
    """What the server said; `touched` is the sequence at which a standing bridge saved the record again meanwhile."""

    value: Any = None
    raises: str = ""
    lost: bool = False
    touched: int = 0


class Job(NamedTuple):
    """What somebody is at: a delivered item, or an act from outside."""

    kind: str
    task: str
    bridge: str = ""
    item: tuple[int, int] = (0, 0)
    fired: bool = False
    silent: tuple[str, int] | None = None


class _Asked:
    def __init__(self, op: Op) -> None:
        self._op = op

    def __await__(self) -> Generator[Op, Any, Any]:
        return (yield self._op)


def ask(name: str, *args: Any) -> _Asked:
    return _Asked(Op(name, args))


Rec = tuple[bytes, str, tuple[int, int], int]
"""A record: its bytes, owner and item (empty for none), sequence."""


def stored_of(task_id: str, rec: Rec) -> Stored:
    """Make of a record what a store gives."""
    body, owner, item, sequence = rec
    stamp = Stamp(owner, ItemRef(*item)) if owner else None
    return Stored.read(task_subject(task_id), sequence, body, stamp.headers() if stamp is not None else {})


def _silent(text: str) -> tuple[str, int] | None:
    owner, _, sequence = text.partition(" ")
    return (owner, int(sequence)) if owner else None


class _Edges:
    async def leaving(self, parent_id: str) -> list[StoredEdge]:
        return _edges(await ask("leaving", parent_id))

    async def entering(self, child_id: str) -> list[StoredEdge]:
        return _edges(await ask("entering", child_id))

    async def between(self, parent_id: str, child_id: str) -> StoredEdge | None:
        return next(iter(_edges(await ask("between", parent_id, child_id))), None)

    async def first(self, child_id: str) -> StoredEdge | None:
        return next(iter(_edges(await ask("entering", child_id))), None)

    async def write(self, edge: Edge, expected: int) -> bool:
        return bool(await ask("write", edge.parent, edge.child, edge.to_wire(), expected))

    async def drop(self, child_id: str, parents: Iterable[str]) -> None:
        await ask("drop", child_id, tuple(parents))


def _edges(found: Iterable[tuple[str, str, bytes, int]]) -> list[StoredEdge]:
    return [
        StoredEdge(Edge.read(f"CHORIA_AJ.W.{parent}.{child}", wire), sequence)
        for parent, child, wire, sequence in found
    ]


class _Storage:
    """The bridge's storage: records, items and waiting items in one, as each says only what it wants."""

    schedules = True
    standstills = 0  # a bridge that goes on saves its records again at once: see `Answer.touched`

    def __init__(self, settings: QueueSettings) -> None:
        self.settings = settings
        self.ack_wait_ns = settings.lease_ns
        self.records = self.items = self.waiting = self.pulse = self.notices = self
        self.edges = _Edges()
        self.monotonic: Callable[[], float] = lambda: 0.0

    @property
    def since(self) -> float:
        return self.monotonic()

    async def load(self, task_id: str) -> Stored | None:
        found = await ask("load", task_id)
        return None if found is None else stored_of(task_id, found)

    async def load_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        wanted = tuple(task_ids)
        found = await ask("load_many", wanted)
        return {task_id: stored_of(task_id, rec) for task_id, rec in zip(wanted, found, strict=True) if rec is not None}

    async def save(self, record: TaskRecord, *, expected: int, stamp: Stamp, ttl_s: int | None = None) -> int:
        item = (stamp.item.sequence, stamp.item.delivery)
        return _saved(await ask("save", record.id, record.to_wire(), expected, stamp.owner, item), record.id, expected)

    async def ack(self, claim: Claim) -> None:
        await ask("ack", claim.task_id, claim.item.sequence)

    async def park(self, claim: Claim, due_ns: int, silent: str = "") -> Parked:
        sequence = await ask("park", claim.task_id, _silent(silent))
        return Parked(queue=claim.queue, task_id=claim.task_id, due_ns=due_ns, sequence=sequence, silent=silent)

    async def leave(self, claim: Claim, parked: Parked) -> None:
        await ask("ack", claim.task_id, claim.item.sequence)

    async def standing(self, queue: str, task_id: str) -> bool:
        return await ask("standing", task_id) is not None

    async def wake(self, parked: Parked) -> bool:
        return bool(await ask("fire", parked.task_id, parked.sequence))

    async def wake_task(self, queue: str, task_id: str) -> bool:
        return bool(await ask("wake", task_id))

    async def state_changed(self, *_: object) -> None:
        pass

    async def attempted(self, *_: object) -> None:
        pass

    async def bury(self, *_: object) -> None:
        pass

    async def beat(self) -> None:
        pass


def _saved(answer: int | None, task_id: str, expected: int) -> int:
    if answer is None:
        raise ConflictError(task_id, expected)
    return answer


class _Transport:
    max_payload = 1 << 20

    async def publish(self, *_: object, **__: object) -> None:
        pass


class _Store(Store):
    """The SDK's store: what it asks of JetStream is asked of the model."""

    def __init__(self) -> None:
        super().__init__(JetStream(_Transport()))  # type: ignore[arg-type]
        self.edges = _Edges()
        self.dependents = Dependents(self.edges, self.wake_task)

    def now_ns(self) -> int:
        return NOW_NS

    async def load(self, task_id: str) -> Stored | None:
        found = await ask("load", task_id)
        return None if found is None else stored_of(task_id, found)

    async def _save(
        self, task_id: str, body: bytes, expected: int, stamp: Stamp | None, ttl_s: int | None = None
    ) -> int:
        owner, item = ("", (0, 0)) if stamp is None else (stamp.owner, (stamp.item.sequence, stamp.item.delivery))
        return _saved(await ask("save", task_id, body, expected, owner, item), task_id, expected)

    async def publish_item(
        self, queue: str, task_id: str, *, replace: bool = False, headers: Mapping[str, str] | None = None
    ) -> bool:
        said = await ask("publish", task_id, replace)
        if said == "full":
            raise QueueFullError(queue, task_id)
        return bool(said)

    async def standing(self, queue: str, task_id: str) -> Standing | None:
        sequence = await ask("standing", task_id)
        return None if sequence is None else Standing(sequence, {})

    async def wake_item(
        self, queue: str, task_id: str, sequence: int, headers: Mapping[str, str] | None = None
    ) -> bool:
        return bool(await ask("fire", task_id, sequence))

    async def wake_task(self, queue: str, task_id: str) -> bool:
        return bool(await ask("wake", task_id))

    async def find_items(self, queue: str, task_id: str) -> list[Place]:
        schedule, item = await ask("find", task_id)
        places = [] if schedule is None else [Place(DELAYED_STREAM, schedule_subject(queue, task_id), schedule)]
        return places if item is None else [*places, Place(queue_stream(queue), item_subject(queue, task_id), item)]

    async def remove_items(self, places: Iterable[Place]) -> None:
        for place in places:
            await ask("purge", place.subject.split(".")[-1], place.stream == DELAYED_STREAM, place.sequence)

    async def tell_bridges(self, task_id: str) -> None:
        pass  # whoever has lost its record may hear of it at any time


class _Dead:
    async def bury(self, *_: object) -> None:
        pass


class _Handlers:
    async def call(self, _wanted: object) -> Outcome:
        await ask("call")
        return Completed(b"done") if await ask("reply") else Failed("why")


class _Peers:
    async def ask(self, owner: str, task_id: str, item: ItemRef) -> Holder:
        return Holder(await ask("holds", owner, task_id, (item.sequence, item.delivery)))


async def _holds(_transport: object, owner: str, task_id: str, item: ItemRef) -> bool | None:
    said = Holder(await ask("holds", owner, task_id, (item.sequence, item.delivery)))
    return None if said is Holder.SILENT else said is Holder.YES


class _Spawned:
    def add_done_callback(self, _callback: object) -> None:
        pass


def _spawn(work: Coroutine[Any, Any, Any], **_: object) -> _Spawned:
    work.close()  # what is told of attempts
    return _Spawned()


class _Worker:
    """A bridge's processor with one claim; `lost` is what its clock says of the lease."""

    def __init__(self, job: Job, settings: QueueSettings) -> None:
        self.lost = False
        storage: Any = _Storage(settings)
        clock = Clock(now_ns=lambda: NOW_NS, monotonic=lambda: _LATER_S if self.lost else 0.0)
        storage.monotonic = clock.monotonic
        held = HeldClaims(job.bridge, storage, clock)
        processor = Processor(
            Parts(
                owner=job.bridge,
                storage=storage,
                dispatch=dict.fromkeys(RouteKind, _Handlers()),
                peers=_Peers(),
                router=Router(),
                limits=Limits(Router()),
                policy=POLICIES["1m"],
                meter=Counts(),
                clock=clock,
                random=lambda: 0.5,
            ),
            held,
            Slots(1, clock.monotonic).seat(storage, lambda: 0),
        )
        processor._create_task = _spawn  # type: ignore[assignment]
        silent = "" if job.silent is None else f"{job.silent[0]} {job.silent[1]}"
        claim = Claim(
            queue=QUEUE,
            task_id=job.task,
            body=b'{"kind":0,"job":"%s"}' % job.task.encode(),
            item=ItemRef(*job.item),
            received=0.0,
            token="",
            fired=job.fired,
            silent=silent,
        )
        storage.want = lambda _free: None
        self.held = held.take(claim)
        self.work = self._run(processor, storage)

    async def _run(self, processor: Processor, storage: _Storage) -> None:
        found = await storage.load_many([self.held.claim.task_id])
        await processor._claim(self.held, found.get(self.held.claim.task_id))


async def _sweep(store: Store, settings: QueueSettings, task_id: str) -> None:
    """What the sweeper does with one task that is old enough."""
    stored = await store.load(task_id)
    assert stored is not None
    schedule, item = await ask("find", task_id)
    place = Whereabouts(item=item or 0, waits=schedule is not None)
    verdict = judge_task(Sighting(stored=stored, queue=settings, age_ns=10 * settings.lease_ns, place=place))
    if isinstance(verdict, Publish):
        await ask("publish", task_id, False)
    elif isinstance(verdict, Close):
        with contextlib.suppress(ConflictError):
            await store.save(verdict.record, expected=stored.sequence)
            await store.dependents.ended(verdict.record)


async def _publish(store: Store, task_id: str) -> None:
    """Whoever else puts an item of a task that goes on into its queue, in place of the one that is there."""
    stored = await store.load(task_id)
    if stored is not None and not stored.readable().state.final:
        await store.publish_item(QUEUE, task_id, replace=True)


class _Act:
    """An administrator, a producer or a sweeper."""

    def __init__(self, job: Job, settings: QueueSettings, records: Mapping[str, TaskRecord]) -> None:
        self.lost = False
        self.held: Any = None
        store, record = _Store(), records[job.task]
        acts: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "enqueue": lambda: enqueue(store, record),
            "publish": lambda: _publish(store, job.task),
            "cancel": lambda: cancel(store, _Dead(), job.task),  # type: ignore[arg-type]
            "retry": lambda: retry(store, job.task),
            "force": lambda: retry(store, job.task, force=True),
            "run_now": lambda: run_now(store, job.task),
            "sweep": lambda: _sweep(store, settings, job.task),
        }
        self.work = self._run(acts[job.kind]())

    async def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        with contextlib.suppress(AsyncJobsError):
            await work


class _Caller:
    def cancelling(self) -> int:
        return 0


async def _no_pause(_seconds: float) -> None:
    pass


async def _one_by_one(values: Iterable[Any], act: Callable[[Any], Any], limit: int = 0) -> None:
    for value in list(values):
        await act(value)


async def _nothing_inside(*_: object) -> None:
    pass


@contextlib.contextmanager
def own_code() -> Iterator[None]:
    """While inside, the code needs no loop: pauses take no time, and what is done at once is done one by one."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            patch.object(asyncio, "sleep", _no_pause),
            patch.object(asyncio, "current_task", _Caller),
            patch("aj_sdk.dependents.at_once", _one_by_one),
            patch("aj_sdk.retry.holds", _holds),
            patch("aj_sdk.run_now._waits_inside", _nothing_inside),
            patch("aj_sdk.retry.new_id", lambda: "force"),
        ):
            yield
    finally:
        logging.disable(before)


def next_op(
    job: Job, answers: tuple[Answer, ...], settings: QueueSettings, records: Mapping[str, TaskRecord]
) -> tuple[Op | None, int]:
    """Begin a job anew, give it its answers, and say what it wants next, None where it is done.

    Returns:
        That, and the sequence at which it knows its record.
    """
    party: Any = _Worker(job, settings) if job.kind == "item" else _Act(job, settings, records)
    work = party.work
    try:
        op: Op = work.send(None)
        for answer in answers:
            party.lost = answer.lost
            if answer.touched:
                party.held.sequence = answer.touched
            if answer.raises == "stopped":
                raises: Exception = Stopped(None if answer.value is None else stored_of(job.task, answer.value))
            elif answer.raises:
                raises = OutcomeUnknownError(op.name)
            else:
                op = work.send(answer.value)
                continue
            op = work.throw(raises)
    except StopIteration:
        return None, 0
    else:
        return op, 0 if party.held is None else party.held.sequence
    finally:
        work.close()
