"""Bugs, each planted at one seam of the bridge: what the simulator is worth is which of them it finds, and how soon."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final
from unittest.mock import patch

import msgspec
from tests.sim import world as sim
from tests.sim.scenario import Plan

from aj_bridge.core import deliver
from aj_bridge.core import settle as settling
from aj_bridge.core.decision import Decision, Finish, Look, Park, Start
from aj_bridge.core.deliver import Known
from aj_bridge.engine import processor, saves
from aj_bridge.engine.endings import Endings
from aj_bridge.engine.held import Held
from aj_bridge.engine.processor import Processor
from aj_bridge.engine.saves import Saves
from aj_bridge.engine.sweeper import Sweeper
from aj_bridge.storage.memory.storage import MemoryRecords
from aj_sdk.wire.stamp import Stamp
from aj_sdk.wire.task import TaskRecord

__all__ = ["BUGS", "Bug"]


class Bug(msgspec.Struct, frozen=True):
    """A bug.

    Attributes:
        about: what is wrong.
        broken: the invariants that it breaks, as `judge` names them; one of them is to be seen.
        plant: while its context is open, it is there.
        plan: in which kind of plan it shows.
    """

    about: str
    broken: tuple[str, ...]
    plant: Callable[[], AbstractContextManager[object]]
    plan: Callable[[int], Plan] = Plan.of


def _without(rule: Any) -> Callable[[], AbstractContextManager[object]]:
    return lambda: patch.object(deliver, "RULES", tuple(each for each in deliver.RULES if each is not rule))


def _ack_before_save() -> AbstractContextManager[object]:
    finish = Processor._finish

    async def wrong(self: Processor, held: Held, *rest: Any) -> None:
        await self._storage.items.ack(held.claim)
        await finish(self, held, *rest)

    return patch.object(Processor, "_finish", wrong)


def _ack_before_schedule() -> AbstractContextManager[object]:
    park = Processor._park

    async def wrong(self: Processor, held: Held, *rest: Any) -> None:
        await self._storage.items.ack(held.claim)
        await park(self, held, *rest)

    return patch.object(Processor, "_park", wrong)


def _refusals_ignored() -> AbstractContextManager[object]:
    async def wrong(
        self: MemoryRecords, record: TaskRecord, *, expected: int, stamp: Stamp, ttl_s: int | None = None
    ) -> int:
        return await self._link.ask("save", record, lambda: self._world.put(record.id, record.to_wire(), stamp=stamp))

    return patch.object(MemoryRecords, "save", wrong)


@contextlib.contextmanager
def _tries_counted_after_the_call() -> Iterator[None]:
    decide, settle = deliver.decide, settling.settle

    def uncounted(known: Known) -> Decision | Look:
        decision = decide(known)
        if isinstance(decision, Start):
            record = decision.record
            return msgspec.structs.replace(decision, record=record.replace(tries=record.tries - 1))
        return decision

    def counted(record: TaskRecord, *rest: Any, **more: Any) -> Finish | Park:
        return settle(record.replace(tries=record.tries + 1), *rest, **more)

    with patch.object(processor, "decide", uncounted), patch.object(processor, "settle", counted):
        yield


@contextlib.contextmanager
def _final_states_run() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(_without(deliver._final)())
        stack.enter_context(patch.object(saves, "is_edge", lambda *_: True))
        yield


@contextlib.contextmanager
def _deadline_ignored() -> Iterator[None]:
    with _without(deliver._past_deadline)(), patch.object(processor, "too_late", lambda *_: None):
        yield


def _second_ack_wait() -> AbstractContextManager[object]:
    own_item = deliver._own_item

    def wrong(known: Known, stored: Any, record: TaskRecord) -> Any:
        stamp = stored.stamp
        if stamp is not None and stamp.item.sequence == known.claim.item.sequence:
            late = msgspec.structs.replace(known.claim.item, delivery=known.claim.item.delivery - 1)
            known = msgspec.structs.replace(known, claim=msgspec.structs.replace(known.claim, item=late))
        return own_item(known, stored, record)

    rules = tuple(wrong if each is own_item else each for each in deliver.RULES)
    return patch.object(deliver, "RULES", rules)


def _blocked_items_wait_in_the_queue() -> AbstractContextManager[object]:
    park = Processor._park

    async def wrong(self: Processor, held: Held, before: TaskRecord, decision: Park) -> None:
        if not decision.for_parents:
            await park(self, held, before, decision)
            return
        items: Any = self._storage.items
        delay_ns = decision.due_ns - self._parts.clock.now_ns()
        await items._link.tell("leave", held.claim, lambda: items._queue.nak(held.claim.item.sequence, delay_ns))

    return patch.object(Processor, "_park", wrong)


def _no_timeout_of_calls() -> AbstractContextManager[object]:
    return patch.object(sim, "asyncio", _Untimed())


class _Untimed:
    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    def timeout(_delay: float) -> AbstractContextManager[object]:
        return asyncio.timeout(None)  # type: ignore[return-value]


def _steady_does_nothing() -> AbstractContextManager[object]:
    async def wrong(self: Saves, held: Held) -> None:
        pass

    return patch.object(Saves, "_save_again", wrong)


async def _nothing(*_: object) -> None:
    pass


BUGS: Final[dict[str, Bug]] = {
    "ack before save": Bug("an item is acknowledged before its outcome is saved", ("C-7",), _ack_before_save),
    "ack before schedule": Bug(
        "a parked item is acknowledged before its schedule stands", ("C-7",), _ack_before_schedule
    ),
    "refusals ignored": Bug("saves do not say what they expect", ("I-1", "I-2", "I-6", "C-3"), _refusals_ignored),
    "tries after the call": Bug("a try is counted when its outcome is saved", ("I-7",), _tries_counted_after_the_call),
    "final states run": Bug(
        "a task that has ended is run again when its item comes", ("I-2", "C-3"), _final_states_run
    ),
    "second ack wait": Bug(
        "the next delivery of an active task's item is refused, the one after that runs it",
        ("C-8",),
        _second_ack_wait,
        Plan.calm_of,
    ),
    "blocked items in the queue": Bug(
        "blocked items are NAKed with a delay", ("C-9",), _blocked_items_wait_in_the_queue
    ),
    "no timeout": Bug("the dispatch (the simulation's own) waits for ever", ("L-1",), _no_timeout_of_calls),
    "no rule 0": Bug(
        "the lease is not looked at before a save and a call",
        ("rule", "I-8"),
        lambda: patch.object(Saves, "check_lease", lambda self, held: None),
    ),
    "owner not asked": Bug("an active task is taken over by any other item", ("I-8",), _without(deliver._other_item)),
    "parents unchecked": Bug("a child runs without a look at its parents", ("I-9",), _without(deliver._parents)),
    "deadline ignored": Bug("a task is started after its deadline", ("I-11",), _deadline_ignored),
    "tries unlimited": Bug("used up tries are not looked at", ("I-7",), _without(deliver._tries_used_up)),
    "standstills ignored": Bug("who stood still does not save again", ("I-8",), _steady_does_nothing, Plan.still_of),
    "no dead letter": Bug(
        "what follows an end is left out", ("C-10",), lambda: patch.object(Endings, "after_final", _nothing)
    ),
    "no sweeper": Bug("nobody sweeps", ("L-1",), lambda: patch.object(Sweeper, "sweep", _nothing)),
}
