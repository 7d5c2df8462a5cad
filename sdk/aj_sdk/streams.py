"""What our streams and consumers look like to JetStream: configurations as values, and changes to them.

Pure: takes settings or a configuration as the server told it, gives a configuration to send. A change keeps every
field that it does not know. Source of the Go project's part: PrepareTasks and createQueue in its storage.go.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from aj_sdk.wire.names import (
    ATTEMPTS_STREAM,
    ATTEMPTS_SUBJECTS,
    CONSUMER,
    DEAD_STREAM,
    DEAD_SUBJECTS,
    DELAYED_STREAM,
    DELAYED_SUBJECTS,
    DEPS_STREAM,
    DEPS_SUBJECTS,
    TASK_SUBJECTS,
    TASKS_STREAM,
    bucket_stream,
    bucket_subject,
    fired_subjects,
    item_subjects,
    queue_stream,
)
from aj_sdk.wire.queue import META_WEIGHT, QueueSettings, ack_wait_ns
from aj_sdk.wire.times import NS_PER_S, format_duration, parse_duration

__all__ = [
    "ATTEMPTS_KEPT",
    "DEAD_LETTERS_KEPT_NS",
    "Config",
    "attempts_config",
    "bucket_config",
    "changed_stream",
    "consumer_config",
    "dead_config",
    "dead_retention",
    "delayed_config",
    "deps_config",
    "has_source",
    "kept",
    "max_age_ns",
    "queue_config",
    "restored_consumer",
    "server_version",
    "task_store_config",
    "with_age",
    "with_dead_retention",
    "with_source",
]

Config: TypeAlias = dict[str, Any]
"""A configuration in the form of the server's API."""

DEAD_LETTERS_KEPT_NS: Final = 30 * 86_400 * NS_PER_S

_DUPLICATE_WINDOW_NS: Final = 120 * NS_PER_S
_NO_LIMIT: Final = -1
_KEEP: Final = "aj.keep."
_SERVERS_OWN: Final = "_nats."
"""Prefix of the metadata that the server adds to what it tells."""

ATTEMPTS_KEPT: Final = 50
"""Of each task, the newest."""

_MAX_ATTEMPTS: Final = 1_000_000
"""Of all tasks: a store whose tasks are kept for ever must not fill up with what became of them."""


def task_store_config(*, memory: bool = False, replicas: int = 1, retention_ns: int = 0) -> Config:
    """Return the task store as the Go project makes it, with direct gets (which a Go client does not mind)."""
    return {
        "name": TASKS_STREAM,
        "description": "Choria Async Jobs Tasks",
        "subjects": [TASK_SUBJECTS],
        "max_msgs_per_subject": 1,
        "discard": "old",
        "allow_direct": True,
        **_common(memory=memory, replicas=replicas, max_age_ns=retention_ns),
    }


def delayed_config(*, memory: bool = False, replicas: int = 1) -> Config:
    """Return the stream of waiting items: schedules, and the items that they fire.

    A stream of its own, because one with schedules can't discard new messages, and because the Go project's
    unfiltered consumer would be handed the schedules themselves.
    """
    return {
        "name": DELAYED_STREAM,
        "description": "Waiting items of Choria Async Jobs queues",
        "subjects": list(DELAYED_SUBJECTS),
        "max_msgs_per_subject": 1,
        "discard": "old",
        "allow_direct": True,
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
        **_common(memory=memory, replicas=replicas),
    }


def deps_config(*, memory: bool = False, replicas: int = 1) -> Config:
    """Return the stream of the edges between tasks and those that wait for them."""
    return {
        "name": DEPS_STREAM,
        "description": "Dependencies of Choria Async Jobs tasks",
        "subjects": [DEPS_SUBJECTS],
        "max_msgs_per_subject": 1,
        "discard": "old",
        "allow_direct": True,
        **_common(memory=memory, replicas=replicas),
    }


def attempts_config(*, memory: bool = False, replicas: int = 1, retention_ns: int = 0) -> Config:
    """Return the stream of attempts, which are kept as long as the tasks."""
    return {
        "name": ATTEMPTS_STREAM,
        "description": "Attempts at Choria Async Jobs tasks",
        "subjects": [ATTEMPTS_SUBJECTS],
        "max_msgs_per_subject": ATTEMPTS_KEPT,
        "max_msgs": _MAX_ATTEMPTS,
        "discard": "old",
        "allow_direct": True,
        **_common(memory=memory, replicas=replicas, max_age_ns=retention_ns),
    }


def dead_config(*, memory: bool = False, replicas: int = 1) -> Config:
    """Return the stream of dead letters."""
    return {
        "name": DEAD_STREAM,
        "description": "Dead letters of Choria Async Jobs",
        "subjects": [DEAD_SUBJECTS],
        "max_msgs_per_subject": 1,
        "discard": "old",
        "allow_direct": True,
        **_common(memory=memory, replicas=replicas, max_age_ns=DEAD_LETTERS_KEPT_NS),
    }


def bucket_config(
    bucket: str, *, max_age_ns: int = 0, key_ttls: bool = False, memory: bool = False, replicas: int = 1
) -> Config:
    """Return a key-value bucket as the NATS clients make it (ADR-8), with one value a key."""
    config = {
        "name": bucket_stream(bucket),
        "subjects": [bucket_subject(bucket, ">")],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "deny_delete": True,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        **_common(memory=memory, replicas=replicas, max_age_ns=max_age_ns),
    }
    return {**config, "allow_msg_ttl": True} if key_ttls else config


def dead_retention(config: Mapping[str, Any]) -> dict[str, int]:
    """Return how long dead letters are kept by reason, in nanoseconds, 0 = for ever; what is not said is left out.

    A value that can't be read counts as not said.
    """
    metadata: Mapping[str, str] = config.get("metadata") or {}
    kept = {}
    for name, text in metadata.items():
        if name.startswith(_KEEP):
            try:
                kept[name.removeprefix(_KEEP)] = parse_duration(text)
            except ValueError:
                continue
    return kept


def with_dead_retention(config: Mapping[str, Any], kept_ns: Mapping[str, int]) -> Config:
    """Return the stream of dead letters with another retention by reason (nanoseconds, 0 = for ever).

    The stream's own limit is the longest one; letters that are kept for less, or for ever, carry their own time.
    """
    theirs: Mapping[str, str] = config.get("metadata") or {}
    metadata = {name: value for name, value in theirs.items() if not name.startswith(_SERVERS_OWN)}
    metadata |= {_KEEP + reason: format_duration(span_ns) for reason, span_ns in kept_ns.items()}
    changed = with_age(config, max(kept_ns.values(), default=0))
    # What is equal for all needs no time for each, which servers before 2.11 do not have.
    several = len(set(kept_ns.values())) > 1
    return {**changed, "metadata": metadata, **({"allow_msg_ttl": True} if several else {})}


def kept(config: Mapping[str, Any]) -> tuple[bool, int]:
    """Return whether a stream is kept in memory, and in how many copies."""
    return config.get("storage") == "memory", int(config.get("num_replicas") or 1)


def max_age_ns(config: Mapping[str, Any]) -> int:
    """Return how long a stream keeps a message, 0 = for ever."""
    return int(config.get("max_age") or 0)


def queue_config(settings: QueueSettings, *, parks: bool) -> Config:
    """Return a queue's stream.

    Args:
        settings: the queue.
        parks: let items come in from the stream of waiting items.
    """
    config = {
        "name": queue_stream(settings.name),
        "description": "Choria Async Jobs Work Queue",
        "subjects": [item_subjects(settings.name)],
        "retention": "workqueue",
        "max_msgs_per_subject": 1,
        "max_msgs": _limit(settings.max_entries),
        "discard": "old" if settings.discard_old else "new",
        # A stream with sources gets no window by itself, and Go producers rely on one (seen on 2.15.1).
        "duplicate_window": _window(settings.max_age_ns),
        "metadata": settings.metadata(),
        **_common(memory=settings.memory, replicas=settings.replicas, max_age_ns=settings.max_age_ns),
    }
    return with_source(config, settings.name) if parks else config


def consumer_config(settings: QueueSettings) -> Config:
    """Return a queue's `WORKERS` consumer."""
    return {
        "durable_name": CONSUMER,
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_policy": "explicit",
        **_run_time(settings),
    }


def _run_time(settings: QueueSettings) -> Config:
    if settings.ours:
        ack_wait, max_deliver = ack_wait_ns(settings.lease_ns), _NO_LIMIT
    else:
        ack_wait, max_deliver = settings.max_run_time_ns, _limit(settings.max_tries)
    return {
        "ack_wait": ack_wait,
        "max_deliver": max_deliver,
        "max_ack_pending": settings.max_concurrent,
        "metadata": settings.metadata(),
    }


def restored_consumer(config: Mapping[str, Any], settings: QueueSettings) -> Config:
    """Return a consumer's configuration with a queue's settings written into it, all else as it was."""
    restored = {**config, **_run_time(settings)}
    restored["metadata"] = _metadata(config, settings)
    return restored


def changed_stream(config: Mapping[str, Any], settings: QueueSettings) -> Config:
    """Return a queue's stream with the queue's settings written into it, all else as it was."""
    changed = with_age(config, settings.max_age_ns)
    changed["max_msgs"] = _limit(settings.max_entries)
    changed["discard"] = "old" if settings.discard_old else "new"
    changed["num_replicas"] = settings.replicas
    changed["metadata"] = _metadata(config, settings)
    return changed


def with_age(config: Mapping[str, Any], max_age_ns: int) -> Config:
    """Return a stream with another maximum age; the duplicate window must not be longer."""
    window = int(config.get("duplicate_window") or 0)
    if max_age_ns:
        window = min(window, max_age_ns)
    return {**config, "max_age": max_age_ns, "duplicate_window": window}


def has_source(config: Mapping[str, Any]) -> bool:
    """Say whether waiting items fire into this queue's stream."""
    return any(source.get("name") == DELAYED_STREAM for source in config.get("sources") or ())


def with_source(config: Mapping[str, Any], queue: str) -> Config:
    """Return a queue's stream into which waiting items fire."""
    source = {
        "name": DELAYED_STREAM,
        "subject_transforms": [
            {"src": fired_subjects(queue), "dest": item_subjects(queue).removesuffix(">") + "{{wildcard(1)}}"}
        ],
    }
    return {**config, "sources": [*(config.get("sources") or ()), source]}


def server_version(config: Mapping[str, Any]) -> str:
    """Return the version of the server that told this configuration, empty before 2.11."""
    metadata: Mapping[str, str] = config.get("metadata") or {}
    return metadata.get(_SERVERS_OWN + "ver", "")


def _metadata(config: Mapping[str, Any], settings: QueueSettings) -> dict[str, str]:
    theirs: Mapping[str, str] = config.get("metadata") or {}
    kept = {name: value for name, value in theirs.items() if not name.startswith(_SERVERS_OWN) and name != META_WEIGHT}
    return kept | settings.metadata()


def _common(*, memory: bool, replicas: int, max_age_ns: int = 0) -> Config:
    return {"storage": "memory" if memory else "file", "num_replicas": replicas, "max_age": max_age_ns}


def _limit(value: int) -> int:
    return value if value > 0 else _NO_LIMIT


def _window(max_age_ns: int) -> int:
    return min(_DUPLICATE_WINDOW_NS, max_age_ns) if max_age_ns else _DUPLICATE_WINDOW_NS
