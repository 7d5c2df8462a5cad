"""A queue's settings, and how they are read from a stream and its `WORKERS` consumer.

The Go project keeps a queue's settings in AckWait, MaxDeliver and MaxAckPending; ours are kept in metadata, because
our AckWait is a short lease and our MaxDeliver is without limit. Source: createQueue in the Go project's storage.go.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from aj_sdk.errors import InvalidConfigError
from aj_sdk.wire.codec import decode_json, decode_map, encode_json
from aj_sdk.wire.names import DEFAULT_QUEUE, is_name
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S, format_duration, parse_duration

__all__ = [
    "DEFAULT_LEASE_NS",
    "KEYS",
    "MAX_WEIGHT",
    "META_LEASE",
    "META_MAX_RUN_TIME",
    "META_MAX_TRIES",
    "META_WEIGHT",
    "QueueSettings",
    "ack_wait_ns",
    "default_queue",
    "read_settings",
]

DEFAULT_LEASE_NS: Final = 30 * NS_PER_S
_HOUR_NS: Final = 3600 * NS_PER_S
_MIN_LEASE_NS: Final = 200 * NS_PER_MS
_MAX_REPLICAS: Final = 5
_MAX_DIGITS: Final = 19
MAX_WEIGHT: Final = 1000

META_LEASE: Final = "aj.lease"
META_MAX_RUN_TIME: Final = "aj.max_run_time"
META_MAX_TRIES: Final = "aj.max_tries"
META_WEIGHT: Final = "aj.weight"

KEYS: Final[Mapping[str, bool]] = {
    "name": True,
    "max_age": False,
    "max_entries": False,
    "discard_old": False,
    "max_tries": False,
    "max_runtime": False,
    "max_concurrent": False,
    "replicas": False,
    "memory": False,
    "lease": False,
    "go_workers": False,
    "weight": False,
}


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue is made of.

    Attributes:
        name: unique.
        max_age_ns: how long an item may stay, 0 = for ever.
        max_entries: how many items may wait, <= 0 = no limit.
        discard_old: at the limit drop the oldest item instead of refusing the new one.
        max_tries: cap on a task's tries, <= 0 = no limit.
        max_run_time_ns: how long one invocation may take.
        max_concurrent: tasks in flight over all workers.
        replicas: 1 to 5.
        memory: keep the items in memory instead of on disk.
        lease_ns: how long a bridge owns an item without a sign of life; 0 where the queue is made for Go workers,
            which know one AckWait only, the max run time.
        weight: its part of the slots of a bridge that serves other queues beside it, 1 to 1000.
    """

    name: str
    max_age_ns: int = 0
    max_entries: int = -1
    discard_old: bool = False
    max_tries: int = -1
    max_run_time_ns: int = _HOUR_NS
    max_concurrent: int = 100
    replicas: int = 1
    memory: bool = False
    lease_ns: int = DEFAULT_LEASE_NS
    weight: int = 1

    @property
    def ours(self) -> bool:
        """Whether the queue has a short lease (made by us), or the Go project's long AckWait."""
        return self.lease_ns > 0

    @classmethod
    def from_wire(cls, data: bytes) -> "QueueSettings":
        """Read the settings' JSON.

        Raises:
            DecodeError: they are not settings; the error names the key.
        """
        fields = decode_map(decode_json(data, "queue settings"), "queue settings", KEYS)
        default = cls(name="_")
        lease_ns = fields.integer("lease", default.lease_ns)
        return cls(
            name=fields.name("name"),
            max_age_ns=fields.integer("max_age"),
            max_entries=fields.integer("max_entries", default.max_entries),
            discard_old=fields.flag("discard_old"),
            max_tries=fields.integer("max_tries", default.max_tries),
            max_run_time_ns=fields.integer("max_runtime", default.max_run_time_ns),
            max_concurrent=fields.integer("max_concurrent", default.max_concurrent),
            replicas=fields.integer("replicas", default.replicas),
            memory=fields.flag("memory"),
            lease_ns=0 if fields.flag("go_workers") else lease_ns,
            weight=fields.integer("weight", default.weight),
        )

    def to_map(self) -> dict[str, Any]:
        """Return the settings' fields; durations are integers of nanoseconds, as in Go."""
        return {
            "name": self.name,
            "max_age": self.max_age_ns,
            "max_entries": self.max_entries,
            "discard_old": self.discard_old,
            "max_tries": self.max_tries,
            "max_runtime": self.max_run_time_ns,
            "max_concurrent": self.max_concurrent,
            "replicas": self.replicas,
            "memory": self.memory,
            "lease": self.lease_ns,
            "go_workers": not self.ours,
            "weight": self.weight,
        }

    def to_wire(self) -> bytes:
        """Write the settings as JSON."""
        return encode_json(self.to_map())

    def check(self) -> "QueueSettings":
        """Return the settings, or refuse them.

        Raises:
            InvalidConfigError: with every fault.
        """
        faults = [
            fault
            for wrong, fault in (
                (not is_name(self.name), f"queue name {self.name[:60]!r} is invalid: use A-Z a-z 0-9 _ : -"),
                (self.max_age_ns < 0, "max age must not be negative"),
                (self.max_run_time_ns < NS_PER_MS, "max run time must be at least 1ms"),
                (self.max_concurrent < 1, "max concurrent must be at least 1"),
                (not 1 <= self.replicas <= _MAX_REPLICAS, "replicas must be 1 to 5"),
                (self.lease_ns != 0 and self.lease_ns < _MIN_LEASE_NS, "lease must be at least 200ms"),
                (not 1 <= self.weight <= MAX_WEIGHT, f"weight must be 1 to {MAX_WEIGHT}"),
            )
            if wrong
        ]
        if faults:
            raise InvalidConfigError(tuple(faults))
        return self

    def metadata(self) -> dict[str, str]:
        """Return what our metadata on the stream and on the consumer says."""
        metadata = {}
        if self.ours:
            metadata = {
                META_LEASE: format_duration(self.lease_ns),
                META_MAX_RUN_TIME: format_duration(self.max_run_time_ns),
                META_MAX_TRIES: str(self.max_tries),
            }
        return metadata if self.weight == 1 else {**metadata, META_WEIGHT: str(self.weight)}


def default_queue() -> QueueSettings:
    """Return the queue that is made on demand. Source: newDefaultQueue in the Go project's queue.go."""
    return QueueSettings(name=DEFAULT_QUEUE, max_run_time_ns=60 * NS_PER_S, max_tries=100, max_concurrent=100)


def ack_wait_ns(lease_ns: int) -> int:
    """Return the AckWait that stands for a lease.

    One millisecond longer, so that a max run time of the same length, set by the Go project's `queue configure`,
    is seen to be somebody else's value.
    """
    return lease_ns + NS_PER_MS


def read_settings(name: str, stream: Mapping[str, Any], consumer: Mapping[str, Any]) -> tuple[QueueSettings, bool]:
    """Read a queue's settings from the configurations of its stream and of its consumer.

    A queue of ours tells them by metadata; where AckWait or MaxDeliver are not what we set, somebody used the Go
    project's `queue configure`, and the new values are the max run time and the max tries.

    Returns:
        The settings, and whether the consumer must be restored to them (somebody configured our queue).
    """
    metadata: Mapping[str, str] = consumer.get("metadata") or {}
    ack_wait = int(consumer.get("ack_wait") or 30 * NS_PER_S)
    max_deliver = int(consumer.get("max_deliver") or -1)
    try:
        lease = parse_duration(metadata.get(META_LEASE, "0"))
        run_time = parse_duration(metadata.get(META_MAX_RUN_TIME, "0"))
        tries = int(metadata.get(META_MAX_TRIES, "-1"))
    except ValueError:
        # Metadata that nobody of ours wrote: the queue is then what its consumer says.
        lease = run_time = 0
        tries = -1
    configured = False
    if lease < _MIN_LEASE_NS or run_time <= 0:
        lease, run_time, tries = 0, ack_wait, max_deliver
    else:
        if ack_wait != ack_wait_ns(lease):
            run_time, configured = ack_wait, True
        if max_deliver != -1:
            tries, configured = max_deliver, True
    settings = QueueSettings(
        name=name,
        max_age_ns=int(stream.get("max_age") or 0),
        max_entries=int(stream.get("max_msgs") or -1),
        discard_old=stream.get("discard") == "old",
        max_tries=tries,
        max_run_time_ns=run_time,
        max_concurrent=int(consumer.get("max_ack_pending") or 100),
        replicas=int(stream.get("num_replicas") or 1),
        memory=stream.get("storage") == "memory",
        lease_ns=lease,
        weight=_weight(metadata.get(META_WEIGHT, "")),
    )
    return settings, configured


def _weight(text: str) -> int:
    # Whatever else stands there was not written by us.
    return min(max(int(text), 1), MAX_WEIGHT) if text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS else 1
