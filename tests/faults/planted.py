"""The planted bugs: each is put around one named seam of the real program, which has no switch for any of them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from aj_bridge.core import deliver
from aj_bridge.core.decision import Drop, Start
from aj_bridge.engine import dispatch, processor, saves
from aj_bridge.storage.jetstream.acks import nak_after
from aj_sdk.errors import ConflictError
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

__all__ = ["BUGS", "Bug"]

_FOR_EVER_S: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A bug that the checker must catch.

    Attributes:
        what: what is wrong, in the words of the list.
        row: the row of faults under which it shows.
        plant: puts it into this process.
        caught_by: the invariants that may catch it; at least one must.
        tasks: how many tasks it takes to show.
        settle_s: how long to wait for the end: less than the sweeper's half minute, which repairs what it can.
    """

    what: str
    row: str
    plant: Callable[[], None]
    caught_by: frozenset[str]
    tasks: int = 80
    settle_s: float = 8.0


def _around(owner: object, name: str, make: Callable[[Any], Any]) -> None:
    """Put something in the place of an attribute, made of what stood there."""
    if not hasattr(owner, name):
        raise AttributeError(f"{owner!r} has no {name} any more: plant the bug elsewhere")
    setattr(owner, name, make(getattr(owner, name)))


def _ack_before_save() -> None:
    def wrong(finish: Any) -> Any:
        async def ack_first(self: Any, held: Any, *rest: Any) -> None:
            await self._storage.items.ack(held.claim)
            await asyncio.sleep(0.4)  # what lies between the two is never nothing
            await finish(self, held, *rest)

        return ack_first

    _around(processor.Processor, "_finish", wrong)


def _ignore_refusals() -> None:
    def wrong(was_saved: Any) -> Any:
        async def believe(self: Any, held: Any, record: Any, refusal: Any) -> bool:
            return isinstance(refusal, ConflictError) or await was_saved(self, held, record, refusal)

        return believe

    def still_ours(_: Any) -> Any:
        async def believe(*_args: Any) -> bool:
            return True

        return believe

    _around(saves.Saves, "_was_saved", wrong)
    _around(saves.Saves, "_still_ours", still_ours)


def _count_after_the_call() -> None:
    def uncounted(decide: Any) -> Any:
        def decide_wrong(known: Any) -> Any:
            decision = decide(known)
            if not isinstance(decision, Start):
                return decision
            return Start(decision.record.replace(tries=decision.record.tries - 1), decision.event)

        return decide_wrong

    _around(processor, "decide", uncounted)
    _around(
        processor,
        "settle",
        lambda settle: lambda record, *args, **more: settle(record.replace(tries=record.tries + 1), *args, **more),
    )


def _run_final_states() -> None:
    _around(deliver, "RULES", lambda rules: tuple(rule for rule in rules if rule.__name__ != "_final"))
    _around(saves, "is_edge", lambda _: lambda *_: True)


def _second_ack_wait() -> None:
    def too_young(known: Any, stored: Any, record: Any) -> Any:
        if record.state is not TaskState.ACTIVE or stored.stamp is None:
            return None
        if stored.stamp.item.sequence != known.claim.item.sequence:
            return None
        young = known.now_ns - (record.tried_ns or 0) < known.ack_wait_ns + NS_PER_S
        return Drop("tried a moment too short ago") if young else None

    _around(deliver, "RULES", lambda rules: (too_young, *rules))


def _nak_blocked() -> None:
    def wrong(park: Any) -> Any:
        async def nak(self: Any, held: Any, before: Any, decision: Any) -> None:
            if not decision.for_parents:
                await park(self, held, before, decision)
                return
            transport = self._storage.items._items._transport
            await transport.publish(held.claim.token, nak_after(500 * NS_PER_MS))

        return nak

    _around(processor.Processor, "_park", wrong)


def _empty_error_is_success() -> None:
    _around(
        dispatch,
        "read_reply",
        lambda read: lambda headers, body: read({name: text for name, text in (headers or {}).items() if text}, body),
    )


def _no_timeout() -> None:
    def wrong(call: Any) -> Any:
        async def for_ever(self: Any, invocation: Any) -> Any:
            return await call(self, msgspec.structs.replace(invocation, run_time_ns=int(_FOR_EVER_S * NS_PER_S)))

        return for_ever

    _around(dispatch.RemoteHandlers, "call", wrong)


BUGS: Final[Mapping[str, Bug]] = {
    "ack-before-save": Bug(
        what="ack before save",
        row="kill-bridge-long-lease",
        plant=_ack_before_save,
        settle_s=18,
        caught_by=frozenset({"I-4", "L-1", "L-3"}),
    ),
    "ignored-refusal": Bug(
        what="ignoring a compare-and-set refusal",
        row="freeze-bridge",
        plant=_ignore_refusals,
        caught_by=frozenset({"I-13", "I-16"}),
    ),
    "try-after-call": Bug(
        what="counting the try after the call",
        row="kill-handler",
        plant=_count_after_the_call,
        tasks=30,
        caught_by=frozenset({"I-7"}),
    ),
    "runs-final": Bug(
        what="running final states",
        row="acts",
        plant=_run_final_states,
        caught_by=frozenset({"I-1", "I-2"}),
    ),
    "second-ack-wait": Bug(
        what="waiting for a second ack wait",
        row="kill-bridge-long-lease",
        plant=_second_ack_wait,
        tasks=50,
        settle_s=30,
        caught_by=frozenset({"L-3"}),
    ),
    "nak-blocked": Bug(
        what="NAKing blocked items",
        row="storm",
        plant=_nak_blocked,
        tasks=60,
        settle_s=25,
        caught_by=frozenset({"L-2"}),
    ),
    "empty-error": Bug(
        what="empty error header taken as success",
        row="replies",
        plant=_empty_error_is_success,
        tasks=30,
        caught_by=frozenset({"I-6"}),
    ),
    "no-timeout": Bug(
        what="a request without timeout",
        row="replies",
        plant=_no_timeout,
        tasks=40,
        caught_by=frozenset({"L-1"}),
    ),
}
