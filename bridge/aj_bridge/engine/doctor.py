"""Learns what `core/diagnosis.py` wants to know, and what the sweeper would do; changes nothing."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from aj_bridge.core.diagnosis import Facts
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.meter import SWEEP_SCANNED, NoMeter
from aj_bridge.engine.peers import NatsPeers
from aj_bridge.engine.sweep_acts import Swept
from aj_bridge.engine.sweeper import Sweeper
from aj_bridge.storage.jetstream.survey import JetStreamSurvey, open_survey
from aj_sdk import streams
from aj_sdk.dependents import StoredEdge
from aj_sdk.errors import StoreError
from aj_sdk.jetstream import JetStream
from aj_sdk.side_streams import SIDE_STREAMS
from aj_sdk.store import HEADROOM
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.names import (
    API_PREFIX,
    ITEM_SUBJECTS,
    QUEUE_STREAM_PREFIX,
    TASKS_STREAM,
)
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import parse_time

__all__ = ["learn", "would_sweep"]

_OURS: Final = (TASKS_STREAM, *SIDE_STREAMS)
_LATER_S: Final = 7 * 86_400.0


async def learn(jetstream: JetStream) -> Facts:
    """Ask the server.

    Raises:
        StoreError: JetStream is not there.
    """
    info = await jetstream.call("INFO")
    unanswered: dict[str, str] = {}
    names = list(_OURS)
    try:
        names += await jetstream.stream_names(ITEM_SUBJECTS)
    except StoreError as err:
        unanswered[f"{jetstream.prefix}.STREAM.NAMES"] = str(err)
    found: dict[str, Mapping[str, Any] | None] = {}
    skew_ns, version = None, ""
    for name in names:
        before = time.time_ns()
        try:
            described = await jetstream.stream_info(name)
        except StoreError as err:
            unanswered[f"{jetstream.prefix}.STREAM.INFO.{name}"] = str(err)
            continue
        found[name] = None if described is None else described["config"]
        if described is not None:
            version = version or streams.server_version(described["config"])
            if "ts" in described:
                skew_ns = parse_time(described["ts"]) - (before + time.time_ns()) // 2
    return Facts(
        api_level=int((info.get("api") or {}).get("level", 0)),
        version=version,
        max_payload=jetstream.transport.max_payload,
        headroom=HEADROOM,
        limits=info.get("limits") or {},
        storage=int(info.get("storage") or 0),
        streams_used=int(info.get("streams") or 0),
        streams=found,
        skew_ns=skew_ns,
        unanswered=unanswered,
        api_prefix=jetstream.prefix,
        domain=str(info.get("domain") or ""),
        stored_twice=await _stored_twice(jetstream, info),
    )


async def _stored_twice(jetstream: JetStream, info: Mapping[str, Any]) -> list[str]:
    """Find our streams in the JetStream of the server that we are connected to, where we use another one."""
    if jetstream.prefix == API_PREFIX:
        return []
    here = JetStream(jetstream.transport, timeout=jetstream.timeout)
    try:
        if (await here.call("INFO")).get("domain") == info.get("domain"):
            return []
        return sorted(
            name for name in await here.stream_names() if name in _OURS or name.startswith(QUEUE_STREAM_PREFIX)
        )
    except StoreError:
        return []  # it has none, or we may not ask


async def would_sweep(jetstream: JetStream, after_s: float, read: Callable[[], None] | None = None) -> list[Swept]:
    """Find what the sweeper would do about what does not change for so many seconds.

    Args:
        jetstream: the API of the account.
        after_s: how many.
        read: called for each record that was read.

    Raises:
        StoreError: the store failed.
    """
    later = 0.0
    clock = Clock(monotonic=lambda: time.monotonic() + later)
    found: list[Swept] = []
    async with open_survey(jetstream) as survey:
        peers = NatsPeers(jetstream.transport, "", lambda _task, _item: False)
        sweeper = Sweeper(_DryRun(survey), peers, _Always(), _Reading(read), clock, tell=found.append)
        await sweeper.sweep()
        await asyncio.sleep(after_s)
        later = _LATER_S
        await sweeper.sweep()
    return found


class _Always:
    leads = True


class _Reading(NoMeter):
    """`Meter` that tells of each record that was read."""

    def __init__(self, read: Callable[[], None] | None) -> None:
        self._read = read

    def inc(self, name: str, /, **_labels: str) -> None:
        if name == SWEEP_SCANNED and self._read is not None:
            self._read()


class _DryRun:
    """`Survey` that reads, and changes nothing."""

    def __init__(self, survey: JetStreamSurvey) -> None:
        self._survey = survey
        self.notices = _Silence(survey)
        self.last_sequence = survey.last_sequence
        self.load_many = survey.load_many
        self.queues = survey.queues
        self.locate = survey.locate
        self.items = survey.items
        self.edges = survey.edges

    def scan(self, start: int, end: int) -> AsyncGenerator[Stored, None]:
        return self._survey.scan(start, end)

    async def publish(self, *_args: str) -> bool:
        return True

    async def take_out(self, queue: str, task_id: str, sequence: int) -> None:
        pass

    async def save(self, _record: TaskRecord, expected: int) -> int:
        return expected

    async def ended(self, record: TaskRecord) -> None:
        pass

    async def removed(self, _parent_id: str) -> int:
        return 1

    async def drop_edge(self, edge: StoredEdge) -> None:
        pass


class _Silence:
    """`Notices` that tell nobody."""

    def __init__(self, survey: JetStreamSurvey) -> None:
        self._survey = survey

    async def state_changed(self, record: TaskRecord, now_ns: int) -> None:
        pass

    async def bury(self, letter: DeadLetter) -> bool:
        return letter.sequence is None or not await self._survey.notices.buried(letter)

    async def attempted(self, *_args: Any, **_named: Any) -> None:
        pass
