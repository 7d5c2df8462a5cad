"""The rows of the fault list: what is set up, which tasks there are, and what is done while they run."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.stand import Setting, Stand

from aj_sdk.spec import TaskSpec

__all__ = ["LEFT_OUT", "ROWS", "Row"]

Orders = Callable[[random.Random, str, int], Sequence[TaskSpec]]
Inject = Callable[[Stand], Coroutine[Any, Any, None]]

STEPS: Final = (
    *("claim", "load", "decision:start", "save:active", "event:active", "call", "reply:completed", "reply:failed"),
    *(
        "decision:finish",
        "save:complete",
        "event:complete",
        "save:terminated",
        "dead_letter",
        "park",
        "save:retry",
        "leave",
    ),
    *("ack", "progress", "attempt"),
)
"""After which steps a bridge is killed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the fault list.

    Attributes:
        name: its name.
        what: what is done, in the words of the list.
        inject: does it.
        orders: makes the tasks, of a chance, the prefix of their ids and their number.
        setting: what it wants to find.
        seconds: over how many seconds tasks are enqueued.
    """

    name: str
    what: str
    inject: Inject
    orders: Orders
    setting: Setting = field(default_factory=Setting)
    seconds: float = 4.0


def mixed(chance: random.Random, prefix: str, number: int) -> list[TaskSpec]:
    """Make tasks of all kinds: short and long ones, some that fail, wait, are terminated, and families."""
    kinds: list[tuple[int, dict[str, Any]]] = [
        (50, {"do": "ok"}),
        (15, {"do": "ok", "ms": 300}),
        (5, {"do": "ok", "ms": 1500}),
        (10, {"do": "fail"}),
        (8, {"do": "later"}),
        (4, {"do": "terminate"}),
        (4, {"do": "fail", "times": 9}),
        (4, {"do": "twice"}),
    ]
    orders = chance.choices([order for _, order in kinds], [weight for weight, _ in kinds], k=number)
    specs: list[TaskSpec] = []
    for at, order in enumerate(orders):
        parents: list[str] = []
        if specs and chance.random() < 0.15:
            parents = [chance.choice(specs[-10:]).id or "" for _ in range(chance.randint(1, 2))]
        specs.append(
            TaskSpec(
                "work",
                order,
                id=f"{prefix}-{at}",
                max_tries=3 if order.get("times") else 10,
                dependencies=[*set(parents)],
            )
        )
    return specs


async def kill_after_steps(stand: Stand) -> None:
    """Kill bridges after one of their steps, one after the other."""

    async def one_after_the_other(steps: Sequence[str]) -> None:
        for step in steps:
            number = 1 if step in _SELDOM else stand.chance.randint(1, 6)
            await stand.bridge_that_dies(f"{step}{'' if ':' in step else ':'}:{number}")

    # Two at a time: a bridge takes longer to start than to come to its last step.
    steps = stand.chance.sample(STEPS, 6)
    await asyncio.gather(one_after_the_other(steps[:3]), one_after_the_other(steps[3:]))


async def freeze_bridges(stand: Stand) -> None:
    """Freeze a bridge for longer than its leases, and let it go on."""
    for share in (0.1, 0.35, 0.6):
        await stand.until_ended(share)
        bridge = stand.pick()
        with stand.fault("freeze", "bridge", bridge.id):
            bridge.process.pause()
            # The fault itself, not a wait for something.
            await asyncio.sleep(stand.setting.lease_s * stand.chance.uniform(1.2, 4))
            bridge.process.resume()


async def kill_server(stand: Stand) -> None:
    """Kill the server and start it again on the same store."""
    for share in (0.2, 0.5):
        await stand.until_ended(share)
        with stand.fault("kill -9", "server"):
            stand.server.kill()
            await asyncio.sleep(stand.chance.uniform(0.05, 2))
            await stand.server.astart()
            await stand.reached()


_SELDOM: Final = ("dead_letter", "save:terminated", "save:retry", "leave", "park", "attempt", "reply:failed")

LEFT_OUT: Final[dict[str, str]] = {
    "scheduler": "the scheduler is not built yet",
}
"""Rows of the list that are not run, and why."""

ROWS: Final[dict[str, Row]] = {
    row.name: row
    for row in (
        Row(
            name="kill-bridge",
            what="kill -9 of the bridge after each named step",
            inject=kill_after_steps,
            orders=mixed,
            setting=Setting(bridges=1),
            seconds=6,
        ),
        Row(
            name="freeze-bridge",
            what="SIGSTOP of the bridge longer than the lease, then SIGCONT",
            inject=freeze_bridges,
            orders=mixed,
        ),
        Row(
            name="kill-server",
            what="kill -9 and restart of nats-server on the same store",
            inject=kill_server,
            orders=mixed,
        ),
    )
}
