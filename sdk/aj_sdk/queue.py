"""A queue as a program writes it down: `Queue("EMAIL", max_run_time=60, max_tries=5)`."""

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import TypeAlias

from aj_sdk.errors import InvalidConfigError
from aj_sdk.wire.queue import DEFAULT_LEASE_NS, QueueSettings
from aj_sdk.wire.times import NS_PER_S, to_timedelta_ns

__all__ = ["Queue", "Span", "span_ns"]

Span: TypeAlias = timedelta | float
"""A length of time: a timedelta, or seconds."""


def span_ns(span: Span) -> int:
    """Turn a length of time into nanoseconds.

    Raises:
        ValueError: it is no number of seconds (`nan`, infinite).
    """
    if isinstance(span, timedelta):
        return to_timedelta_ns(span)
    try:
        return round(span * NS_PER_S)
    except OverflowError as err:
        raise ValueError(str(err)) from None


@dataclass(frozen=True, slots=True)
class Queue:
    """What a queue should be like; `client.admin.create_queue` makes it.

    Args:
        name: unique; of the characters A-Z a-z 0-9 _ : -
        max_run_time: how long one invocation of a handler may take; one hour when it is not said.
        max_tries: cap on a task's tries, -1 for none.
        max_concurrent: tasks in flight over all workers.
        replicas: copies that a cluster keeps, 1 to 5.
        memory: keep the items in memory instead of on disk.
        max_age: how long an item may stay; None for ever.
        max_entries: how many items may wait, -1 for no limit.
        discard_old: at that limit drop the oldest item instead of refusing the new one.
        lease: how long a bridge owns an item without a sign of life; 30 seconds when it is not said.
        go_workers: make it for workers of the Go project too, which know one time only, the max run time.
        weight: its part of the slots of a bridge that serves other queues beside it, 1 to 1000.

    Raises:
        InvalidConfigError: with every fault.
    """

    name: str
    _: KW_ONLY
    max_run_time: Span | None = None
    max_tries: int = -1
    max_concurrent: int = 100
    replicas: int = 1
    memory: bool = False
    max_age: Span | None = None
    max_entries: int = -1
    discard_old: bool = False
    lease: Span | None = None
    go_workers: bool = False
    weight: int = 1

    def __post_init__(self) -> None:
        if self.go_workers and self.lease is not None:
            raise InvalidConfigError(("a queue for Go workers has no lease: give one of lease and go_workers",))
        self.settings.check()

    @property
    def settings(self) -> QueueSettings:
        """The queue as the wire knows it."""
        try:
            lease = DEFAULT_LEASE_NS if self.lease is None else max(span_ns(self.lease), 1)
            spans = {
                "lease_ns": 0 if self.go_workers else lease,
                "max_age_ns": 0 if self.max_age is None else span_ns(self.max_age),
            }
            if self.max_run_time is not None:
                spans["max_run_time_ns"] = span_ns(self.max_run_time)
        except ValueError as err:
            raise InvalidConfigError((f"a length of time is no number: {err}",)) from err
        return QueueSettings(
            name=self.name,
            max_tries=self.max_tries,
            max_concurrent=self.max_concurrent,
            replicas=self.replicas,
            memory=self.memory,
            max_entries=self.max_entries,
            weight=self.weight,
            discard_old=self.discard_old,
            **spans,
        )
