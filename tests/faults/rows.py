"""The rows of the fault list: what is set up, which tasks there are, and what is done while they run."""

from dataclasses import dataclass, field, replace
from typing import Final

from tests.faults import injections as do
from tests.faults import orders as make
from tests.faults.stand import Setting

__all__ = ["LEFT_OUT", "ROWS", "Row"]

_FAST: Final = ("--backoff", "200ms,500ms,1s", "--concurrency", "20")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the fault list.

    Attributes:
        name: its name.
        what: what is done, in the words of the list.
        inject: does it.
        orders: makes the tasks.
        setting: what it wants to find.
        seconds: over how many seconds tasks are enqueued.
        gated: whether what is done says when the first task is enqueued.
        counts: whether each run must have made a fault that is counted; else the tasks are the fault.
    """

    name: str
    what: str
    inject: do.Inject
    orders: make.Orders = make.mixed
    setting: Setting = field(default_factory=Setting)
    seconds: float = 4.0
    gated: bool = False
    counts: bool = True


_SWEPT: Final = Setting(options=(*_FAST, "--sweep-every", "2s"), quiet_s=20)
"""A server that was killed may keep an item that was acknowledged (seen): the sweeper takes it out."""

_ALL: Final = (
    Row(
        name="kill-bridge",
        what="kill -9 of the bridge after each named step",
        inject=do.kill_after_steps,
        setting=Setting(bridges=1),
        seconds=6,
        gated=True,
    ),
    Row(
        name="kill-bridge-long-lease",
        what="kill -9 of the bridge with a lease of 8 s",
        inject=do.kill_one_bridge,
        orders=make.slow,
        setting=Setting(lease_s=8, max_run_time_s=20),
        seconds=3,
    ),
    Row(name="kill-handler", what="kill -9 of the handler mid-task", inject=do.kill_handlers, orders=make.slow),
    Row(name="sigterm", what="SIGTERM under load", inject=do.terminate_all),
    Row(
        name="kill-server",
        what="kill -9 and restart of nats-server on the same store",
        inject=do.kill_server,
        setting=_SWEPT,
    ),
    Row(
        name="freeze-bridge",
        what="SIGSTOP of the bridge longer than the lease, then SIGCONT",
        inject=do.freeze_bridges,
        orders=make.slow,
    ),
    Row(name="freeze-server", what="SIGSTOP of the server", inject=do.freeze_server),
    Row(
        name="freeze-server-long",
        what="SIGSTOP of the server for so long that bridges must say that they are not ready",
        inject=do.freeze_server_for_long,
    ),
    Row(
        name="partition",
        what="the bridge delayed, cut off one way or both, reset, refused; its acks or its answers lost",
        inject=do.partition,
        setting=Setting(proxied=True),
    ),
    Row(
        name="leader-loss",
        what="a three-node cluster losing its leader",
        inject=do.lose_leaders,
        setting=replace(_SWEPT, cluster=True),
    ),
    Row(name="lame-duck", what="lame-duck mode", inject=do.retire_nodes, setting=replace(_SWEPT, cluster=True)),
    Row(name="store-full", what="store full or stream limit hit", inject=do.fill_store),
    Row(
        name="deadline",
        what="a handler that ignores its deadline",
        inject=do.nothing,
        orders=make.over_their_deadline,
        counts=False,
    ),
    Row(
        name="replies",
        what="duplicate, late, missing and malformed replies",
        inject=do.nothing,
        orders=make.with_odd_replies,
        counts=False,
    ),
    Row(
        name="poison",
        what="poison handlers that exit, beside canaries",
        inject=do.nothing,
        orders=make.poison,
        setting=Setting(handlers=3),
        counts=False,
    ),
    Row(name="malformed", what="malformed work items and task records", inject=do.spoil),
    Row(
        name="sizes",
        what="payload and result one byte under, at and over max_payload",
        inject=do.nothing,
        orders=make.of_all_sizes,
        counts=False,
    ),
    Row(
        name="reconfigured",
        what="consumer, streams and buckets deleted or reconfigured under a running bridge",
        inject=do.reconfigure,
    ),
    Row(name="revoked", what="credentials revoked", inject=do.revoke, setting=Setting(users=True)),
    Row(name="denied", what="each permission denied in turn", inject=do.deny, setting=Setting(users=True)),
    Row(
        name="storm",
        what="a retry storm of failing and blocked tasks beside a canary",
        inject=do.nothing,
        orders=make.beside_a_storm,
        setting=Setting(canaries=True, max_concurrent=20, max_run_time_s=15, options=_FAST),
        counts=False,
    ),
    Row(
        name="soak",
        what="nothing; memory, descriptors, asyncio tasks and subscriptions are sampled (run it with many tasks)",
        inject=do.sample,
        counts=False,
    ),
    Row(name="acts", what="retry, cancel and requeue racing an active task", inject=do.interfere),
    Row(name="mix", what="random mixes of them", inject=do.all_of_it, setting=replace(_SWEPT, proxied=True), seconds=8),
    *(
        (
            Row(
                name="clock",
                what="clock jumps and skew (libfaketime)",
                inject=do.skew_clocks,
                setting=Setting(skew_s=3),
            ),
        )
        if do.FAKETIME
        else ()
    ),
)

ROWS: Final[dict[str, Row]] = {row.name: row for row in _ALL}

LEFT_OUT: Final[dict[str, str]] = {
    "scheduler": "the scheduler is not built yet",
    **({} if do.FAKETIME else {"clock": "libfaketime is not installed (Debian: apt-get install libfaketime)"}),
}
"""Rows of the list that are not run, and why."""
