"""How queues and the task store stand: values, and how they are read from what the server tells. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from aj_sdk import streams
from aj_sdk.wire.queue import QueueSettings, read_settings
from aj_sdk.wire.times import parse_time

__all__ = [
    "BoundQueue",
    "Overview",
    "QueueInfo",
    "TaskStoreInfo",
    "paused_until",
    "read_queue_info",
    "read_task_store_info",
]


class BoundQueue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as a bridge finds it.

    Attributes:
        settings: its settings.
        parks: whether waiting items fire into it, so that they may wait outside of its consumer.
        sourced: whether its stream names the stream of waiting items as a source, which is not enough on each server.
        created: when its stream was made, as the server tells it; a queue made again under its name has another.
        pulls: requests for work, of all workers, that wait on the server.
        paused_until_ns: until when it hands out nothing, in nanoseconds since the epoch; None when it is not paused.
    """

    settings: QueueSettings
    parks: bool
    sourced: bool = False
    created: str = ""
    pulls: int = 0
    paused_until_ns: int | None = None


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A queue and how it stands.

    Attributes:
        settings: its settings.
        parks: whether waiting items fire into it.
        items: items in its stream, those in flight too.
        waiting: items that nobody has been handed.
        in_flight: items handed to a worker and not yet acknowledged.
        redelivered: those of them that were handed out before.
        parked: items that wait outside (backoff, blocked), None where that can't be told.
        pulls: requests for work that wait on the server.
        bytes: what its stream takes.
        created_ns: when it was made, in nanoseconds since the epoch.
        oldest_ns: when its oldest item came, None when it is empty.
        newest_ns: when its newest item came, None when it is empty.
        paused_until_ns: until when it hands out nothing, in nanoseconds since the epoch; None when it is not paused.
    """

    settings: QueueSettings
    parks: bool
    items: int
    waiting: int
    in_flight: int
    redelivered: int
    parked: int | None
    pulls: int
    bytes: int
    created_ns: int
    oldest_ns: int | None
    newest_ns: int | None
    paused_until_ns: int | None = None


class TaskStoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The task store and how it stands.

    Attributes:
        tasks: how many it holds.
        bytes: what they take.
        retention_ns: how long a task is kept after its last change, 0 = for ever.
        replicas: copies that a cluster keeps.
        memory: whether the tasks are kept in memory.
        direct_get: whether many tasks can be read in one request.
        created_ns: when the store was made, in nanoseconds since the epoch.
        first_ns: when the record that was changed longest ago was, None when the store is empty.
        last_ns: when a record was last changed, None when the store is empty.
    """

    tasks: int
    bytes: int
    retention_ns: int
    replicas: int
    memory: bool
    direct_get: bool
    created_ns: int
    first_ns: int | None
    last_ns: int | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at a glance.

    Attributes:
        api_level: the server's JetStream API level: 0 before 2.11, 1 in 2.11, 2 from 2.12 on.
        task_store: the task store, None where there is none.
        queues: the queues, sorted by name.
        parked: items that wait outside of their queues, None where nothing can wait there.
        dead_letters: records that nobody could handle, None where there is no stream of them.
    """

    api_level: int
    task_store: TaskStoreInfo | None
    queues: tuple[QueueInfo, ...]
    parked: int | None
    dead_letters: int | None


def read_queue_info(name: str, stream: Mapping[str, Any], consumer: Mapping[str, Any], parked: int | None) -> QueueInfo:
    """Read a queue from the descriptions of its stream and of its consumer.

    Args:
        name: the queue.
        stream: what the server tells of the stream.
        consumer: what it tells of the consumer.
        parked: items that wait outside.
    """
    settings, _ = read_settings(name, stream["config"], consumer["config"])
    state = stream["state"]
    return QueueInfo(
        settings=settings,
        parks=streams.has_source(stream["config"]),
        items=int(state["messages"]),
        waiting=int(consumer.get("num_pending") or 0),
        in_flight=int(consumer.get("num_ack_pending") or 0),
        redelivered=int(consumer.get("num_redelivered") or 0),
        parked=parked,
        pulls=int(consumer.get("num_waiting") or 0),
        bytes=int(state["bytes"]),
        created_ns=parse_time(stream["created"]),
        oldest_ns=_message_time(state, "first_ts"),
        newest_ns=_message_time(state, "last_ts"),
        paused_until_ns=paused_until(consumer),
    )


def read_task_store_info(info: Mapping[str, Any]) -> TaskStoreInfo:
    """Read the task store from the description of its stream."""
    config, state = info["config"], info["state"]
    return TaskStoreInfo(
        tasks=int(state["messages"]),
        bytes=int(state["bytes"]),
        retention_ns=int(config.get("max_age") or 0),
        replicas=int(config.get("num_replicas") or 1),
        memory=config.get("storage") == "memory",
        direct_get=bool(config.get("allow_direct")),
        created_ns=parse_time(info["created"]),
        first_ns=_message_time(state, "first_ts"),
        last_ns=_message_time(state, "last_ts"),
    )


def _message_time(state: Mapping[str, Any], key: str) -> int | None:
    # An empty stream tells Go's zero time, or that of a message that is gone.
    return parse_time(state[key]) if int(state["messages"]) else None


def paused_until(consumer: Mapping[str, Any]) -> int | None:
    """Read until when a consumer is paused from its description, None when it is not."""
    # Its configuration still tells the time of a pause that is over.
    until = consumer["config"].get("pause_until")
    return parse_time(until) if consumer.get("paused") and until else None
