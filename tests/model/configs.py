"""The small worlds that are looked at."""

from collections.abc import Mapping
from typing import Final

import msgspec
from tests.model.stepping import NOW_NS, QUEUE

from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = ["CONFIGS", "Config"]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A small world.

    Attributes:
        about: in words.
        parents: the tasks, each with those that it waits for.
        tries: how often a task may be tried.
        bridges: how many.
        slots: how many claims each has in hand at a time.
        faults: how many things go wrong, of `kinds`.
        kinds: `crash`, `stall`, `ack lost`, `unheard`, `refused`, `dies`, `dropped`.
        acts: how many things are done from outside, of `users`.
        users: `enqueue`, `publish` (an item in place of the one that is there), `cancel`, `retry`, `force`, `run_now`.
        fails: whether handlers may fail.
        discards: whether the queue discards old items.
        deep: whether it is too big to be looked at in each test run.
    """

    about: str
    parents: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=lambda: {"a": ()})
    tries: int = 2
    bridges: int = 2
    slots: int = 1
    faults: int = 0
    kinds: tuple[str, ...] = ()
    acts: int = 0
    users: tuple[str, ...] = ()
    fails: bool = True
    discards: bool = False
    deep: bool = False

    @property
    def settings(self) -> QueueSettings:
        """Settings of the queue."""
        return QueueSettings(name=QUEUE, lease_ns=30 * NS_PER_S, discard_old=self.discards, max_entries=1)

    @property
    def records(self) -> dict[str, TaskRecord]:
        """The tasks as they are enqueued."""
        return {
            task_id: TaskRecord(
                id=task_id,
                type="t",
                queue=QUEUE,
                state=TaskState.BLOCKED if parents else TaskState.NEW,
                created_ns=NOW_NS,
                max_tries=self.tries,
                dependencies=parents,
            )
            for task_id, parents in self.parents.items()
        }


_PAIR: Final = {"a": (), "b": ("a",)}

CONFIGS: Final[dict[str, Config]] = {
    "one": Config(about="a task, 2 tries, nothing goes wrong"),
    "crash": Config(about="a task, 2 tries, 1 crash", faults=1, kinds=("crash",), fails=False),
    "stall": Config(about="a task, 1 try, 1 stall or lost ack", tries=1, faults=1, kinds=("stall", "ack lost")),
    "unheard": Config(about="a task, 1 try, 2 answers to saves lost", tries=1, faults=2, kinds=("unheard",)),
    "again": Config(
        about="a task, 2 tries, its item published again, 1 crash",
        faults=1,
        kinds=("crash",),
        acts=1,
        users=("publish",),
        fails=False,
    ),
    "acts": Config(
        about="a task, 1 try, 1 of cancel, retry, run now", tries=1, acts=1, users=("cancel", "retry", "run_now")
    ),
    "force": Config(about="a task, 1 try, 1 bridge, 1 retry by force", tries=1, bridges=1, acts=1, users=("force",)),
    "cancel-dies": Config(
        about="a task, 1 try, 1 bridge, 1 cancel or retry, whose client or bridge dies",
        tries=1,
        bridges=1,
        acts=1,
        users=("cancel", "retry"),
        faults=1,
        kinds=("dies", "crash"),
        fails=False,
    ),
    "full": Config(
        about="a task, 1 try, enqueued again, 1 refusal or dead client",
        tries=1,
        acts=1,
        users=("enqueue",),
        faults=1,
        kinds=("refused", "dies"),
    ),
    "dropped": Config(
        about="a task, 1 try, in a queue that drops its item",
        tries=1,
        faults=1,
        kinds=("dropped",),
        discards=True,
    ),
    "pair": Config(about="a parent and its child, 1 try, 1 bridge", parents=_PAIR, tries=1, bridges=1),
    "pair-crash": Config(
        about="a parent and its child, 1 try, 1 bridge, 1 crash",
        parents=_PAIR,
        tries=1,
        bridges=1,
        faults=1,
        kinds=("crash",),
        fails=False,
        deep=True,
    ),
    "pair-dies": Config(
        about="a parent and its child, whose producer dies, 1 try, 1 bridge",
        parents=_PAIR,
        tries=1,
        bridges=1,
        faults=1,
        kinds=("dies",),
        fails=False,
    ),
    # Too many for each test run.
    "crash-deep": Config(
        about="a task, 2 tries, 1 crash, stall or lost ack", faults=1, kinds=("crash", "stall", "ack lost"), deep=True
    ),
    "again-deep": Config(
        about="a task, 2 tries, its item published again, 1 crash or stall",
        faults=1,
        kinds=("crash", "stall"),
        acts=1,
        users=("publish",),
        fails=False,
        deep=True,
    ),
    "force-deep": Config(
        about="a task, 1 try, 1 bridge with 2 slots, 1 retry by force",
        tries=1,
        bridges=1,
        slots=2,
        acts=1,
        users=("force",),
        deep=True,
    ),
    "dropped-deep": Config(
        about="a task, 1 try, in a queue that drops its item, 1 crash",
        tries=1,
        faults=2,
        kinds=("dropped", "crash"),
        discards=True,
        fails=False,
        deep=True,
    ),
    "pair-deep": Config(
        about="a parent and its child, 1 try, 1 bridge, 1 crash or lost ack",
        parents=_PAIR,
        tries=1,
        bridges=1,
        faults=1,
        kinds=("crash", "ack lost"),
        deep=True,
    ),
    "trio-deep": Config(
        about="two parents and their child, 1 try, 1 bridge",
        parents={"a": (), "b": (), "c": ("a", "b")},
        tries=1,
        bridges=1,
        fails=False,
        deep=True,
    ),
}
