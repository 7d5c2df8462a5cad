"""What the work on one queue is made of."""

from collections.abc import Callable, Mapping

import msgspec

from aj_bridge.core.retention import KEEP_ALL, Retention
from aj_bridge.core.retry import RetryPolicy
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.dispatch import Dispatch
from aj_bridge.engine.journal import Journal
from aj_bridge.engine.limits import Limits
from aj_bridge.engine.meter import Meter
from aj_bridge.engine.peers import Peers
from aj_bridge.engine.router import RouteKind, Router
from aj_bridge.storage.protocols import Storage
from aj_sdk.wire.signing import Verifier

__all__ = ["Parts"]


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a processor is made of.

    Attributes:
        owner: id of the bridge.
        storage: the queue.
        dispatch: how a task gets to its handler, by the kind of its route.
        peers: the other bridges.
        router: which route a type takes.
        policy: the backoff.
        meter: what is counted.
        clock: the time.
        random: gives a number in [0, 1).
        verifier: what looks at the signatures of tasks; None where they are not looked at.
        retention: what becomes of the records of tasks that have ended.
        keep_all_attempts: tell also of the attempts that completed.
        limits: how many tasks of a route are handled at a time.
        journal: where each step is written down; None where it is not.
    """

    owner: str
    storage: Storage
    dispatch: Mapping[RouteKind, Dispatch]
    peers: Peers
    router: Router
    policy: RetryPolicy
    meter: Meter
    clock: Clock
    random: Callable[[], float]
    verifier: Verifier | None = None
    retention: Retention = KEEP_ALL
    keep_all_attempts: bool = False
    limits: Limits = msgspec.field(default_factory=lambda: Limits(Router()))
    journal: Journal | None = None
