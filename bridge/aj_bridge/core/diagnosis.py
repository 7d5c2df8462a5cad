"""What `aj-bridge doctor` makes of what it has learned of a server and an account: findings, each with what to do.

Pure: takes values, gives values. What can't be learned over NATS is said, not guessed.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from aj_sdk.wire.names import API_PREFIX, DELAYED_STREAM, TASKS_STREAM
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S, format_duration

__all__ = ["Facts", "Finding", "Level", "diagnose"]

_NEEDED_FREE: Final = 0.2
_SKEW_NS: Final = 500 * NS_PER_MS
_BAD_SKEW_NS: Final = 10 * NS_PER_S
_USUAL_PAYLOAD: Final = 1024 * 1024
_NO_WAY_OUT: Final = "2.12.8"


class Level(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an operator should know.

    Attributes:
        level: how bad it is.
        what: what is so.
        where: which server, stream or account setting.
        advice: what to do.
    """

    level: Level
    what: str
    where: str
    advice: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned.

    Attributes:
        api_level: the JetStream API level (ADR-44): 0 before 2.11, 1 in 2.11, 2 from 2.12 on.
        version: the server's version, empty where it does not tell.
        max_payload: bytes that a message may have.
        headroom: bytes of it that enqueueing leaves free.
        limits: the account's limits, as the server tells them.
        storage: bytes that the account uses on disk.
        streams_used: streams that the account has.
        streams: our streams by name, with their configuration; None for one that is missing.
        skew_ns: how far the server's clock is ahead of ours; None where it does not tell.
        unanswered: requests that got no answer or a refusal, with what came instead.
        api_prefix: subject prefix of the JetStream API that was asked.
        domain: JetStream domain that answered, empty for none.
        stored_twice: our streams that the JetStream of the server we are connected to, another one, has too.
    """

    api_level: int
    version: str = ""
    max_payload: int
    headroom: int
    limits: Mapping[str, Any]
    storage: int = 0
    streams_used: int = 0
    streams: Mapping[str, Mapping[str, Any] | None]
    skew_ns: int | None = None
    unanswered: Mapping[str, str] = {}
    api_prefix: str = API_PREFIX
    domain: str = ""
    stored_twice: Sequence[str] = ()


def diagnose(facts: Facts) -> list[Finding]:
    """Return what is to be said, the worst first."""
    found = [
        finding
        for check in (_server, _durability, _clock, _sizes, _account, _reading, _rights, _elsewhere)
        for finding in check(facts)
    ]
    return sorted(found, key=lambda finding: list(Level).index(finding.level))


def _warn(what: str, where: str, advice: str, level: Level = Level.WARNING) -> Finding:
    return Finding(level=level, what=what, where=where, advice=advice)


def _server(facts: Facts) -> Iterator[Finding]:
    where = f"nats-server {facts.version}".strip()
    if facts.api_level < 1:
        yield _warn(
            "the server is older than 2.11: many records are read one by one, queues can't be paused, records and "
            "unique keys have no time of their own",
            where,
            "use nats-server 2.12 or newer, not 2.12.8",
        )
    if facts.api_level < 2:
        yield _warn(
            "the server is older than 2.12: tasks that wait hold a place of their queue's max concurrent, and delayed "
            "tasks do not survive their queue",
            where,
            "use nats-server 2.12 or newer, not 2.12.8",
        )
    if facts.version == _NO_WAY_OUT:
        yield _warn(
            "this version does not let waiting items into their queues; they wait inside, as on older servers",
            where,
            "use another version",
        )


def _durability(facts: Facts) -> Iterator[Finding]:
    ours = {name: config for name, config in facts.streams.items() if config is not None}
    replicas = {name: int(config.get("num_replicas") or 1) for name, config in ours.items()}
    for name in sorted(name for name, config in ours.items() if config.get("storage") == "memory"):
        yield _warn(
            "it is kept in memory", f"stream {name}", "what it holds is gone when its servers restart; intended?"
        )
    single = sorted(name for name, number in replicas.items() if number == 1)
    if single:
        yield _warn(
            "one copy only: what was acknowledged just before the machine dies may be lost, unless the server has "
            "`sync_interval: always`, which can't be learned over NATS",
            f"streams {', '.join(single)}",
            "set `jetstream { sync_interval: always }`, or keep three copies in a cluster: `ajc task configure`, "
            "`ajc queue configure NAME --replicas 3`",
        )
    tasks = replicas.get(TASKS_STREAM, 0)
    fewer = sorted(name for name, number in replicas.items() if number < tasks)
    if fewer:
        yield _warn(
            f"fewer copies than the task store, which has {tasks}",
            f"streams {', '.join(fewer)}",
            "`ajc task configure RETENTION REPLICAS` gives them as many, as does a bridge that starts; "
            "`ajc queue configure NAME --replicas N` is for queues",
        )


def _clock(facts: Facts) -> Iterator[Finding]:
    if facts.skew_ns is None:
        yield _warn(
            "no stream yet, or a server before 2.10: its time is not told",
            "clock",
            "compare the clocks by hand",
            Level.INFO,
        )
    elif abs(facts.skew_ns) > _SKEW_NS:
        ahead = "ahead of" if facts.skew_ns > 0 else "behind"
        yield _warn(
            f"the server's clock is {format_duration(abs(facts.skew_ns) // NS_PER_MS * NS_PER_MS)} {ahead} ours: "
            "delays, backoffs and deadlines are off by as much",
            "clock",
            "synchronise the clocks (NTP) of this machine and the servers",
            Level.ERROR if abs(facts.skew_ns) > _BAD_SKEW_NS else Level.WARNING,
        )


def _sizes(facts: Facts) -> Iterator[Finding]:
    room = facts.max_payload - facts.headroom
    if room <= 0:
        yield _warn(
            f"max_payload is {facts.max_payload} bytes: no task fits",
            "server",
            f"set max_payload to more than {2 * facts.headroom}",
            Level.ERROR,
        )
    elif facts.max_payload < _USUAL_PAYLOAD:
        yield _warn(
            f"max_payload is {facts.max_payload} bytes: tasks have room for {room}, as base64",
            "server",
            "set max_payload to 1MB where tasks or results are larger",
        )
    for name, config in facts.streams.items():
        size = int((config or {}).get("max_msg_size") or -1)
        if 0 < size < facts.max_payload:
            yield _warn(
                f"it takes messages of {size} bytes only", f"stream {name}", "take its max_msg_size away", Level.WARNING
            )


def _account(facts: Facts) -> Iterator[Finding]:
    missing = sorted(name for name, config in facts.streams.items() if config is None)
    if facts.limits.get("max_bytes_required") and missing:
        yield _warn(
            f"each stream must have a limit of bytes, and ours are made without; missing: {', '.join(missing)}",
            "account",
            "make them by hand with a limit before a bridge starts (docs/operations.md, Limits of an account), or drop "
            "the account's max_bytes_required",
            Level.ERROR,
        )
    most = int(facts.limits.get("max_streams") or -1)
    if 0 <= most < facts.streams_used + len(missing):
        yield _warn(
            f"{facts.streams_used} of {most} streams are used, {len(missing)} more are needed: {', '.join(missing)}",
            "account",
            "raise max_streams; without CHORIA_AJ_DELAYED tasks wait inside their queues",
            Level.ERROR,
        )
    storage = int(facts.limits.get("max_storage") or -1)
    if storage > 0 and facts.storage > storage * (1 - _NEEDED_FREE):
        yield _warn(
            f"{facts.storage} of {storage} bytes of storage are used",
            "account",
            "raise max_storage, or shorten the retention: `ajc task configure RETENTION REPLICAS`",
            Level.ERROR if facts.storage >= storage else Level.WARNING,
        )


def _reading(facts: Facts) -> Iterator[Finding]:
    tasks = facts.streams.get(TASKS_STREAM)
    if tasks is None:
        yield _warn(
            "there is no task store yet", f"stream {TASKS_STREAM}", "`ajc task initialize` makes it", Level.INFO
        )
    elif not tasks.get("allow_direct"):
        yield _warn(
            "no direct gets: records are read one by one",
            f"stream {TASKS_STREAM}",
            "`aj-bridge run` allows them, unless with --no-adopt or without the permission to STREAM.UPDATE",
        )
    delayed = facts.streams.get(DELAYED_STREAM)
    if delayed is not None and not delayed.get("allow_msg_schedules"):
        yield _warn(
            "it has no message schedules", f"stream {DELAYED_STREAM}", "remove it; a bridge makes it anew", Level.ERROR
        )


def _rights(facts: Facts) -> Iterator[Finding]:
    for request, answer in facts.unanswered.items():
        yield _warn(
            f"{request}: {answer}", "permissions", "allow this identity to publish it, and its inbox", Level.ERROR
        )
    yield _warn(
        "what may be published can't be asked; a bridge says in its log what was refused",
        "permissions",
        "see docs/operations.md, Permissions",
        Level.INFO,
    )


def _elsewhere(facts: Facts) -> Iterator[Finding]:
    if facts.api_prefix == API_PREFIX:
        return
    where = f"JetStream domain {facts.domain}" if facts.domain else f"JetStream of {facts.api_prefix}"
    if facts.stored_twice:
        yield _warn(
            "the server that we are connected to has a JetStream of its own, and these streams in it too: "
            f"{', '.join(facts.stored_twice)}; what is published is stored in both",
            where,
            "remove them from one of the two, after a look for tasks in them",
            Level.ERROR,
        )
    yield _warn(
        f"JetStream is reached under {facts.api_prefix}; tasks, calls of handlers and events go by plain subjects",
        where,
        "let CHORIA_AJ.>, AJ.BRIDGE.>, $SRV.>, $JS.ACK.> and the advisories through (docs/operations.md, A JetStream "
        "elsewhere)",
        Level.INFO,
    )
