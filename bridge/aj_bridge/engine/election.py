"""One leader among processes: a key in a bucket whose values go after a time, as in the Go project's election package.

A candidate creates the key, a leader writes it again and again, both under compare-and-set, so at any time the server
knows one leader at most. A win is made use of from the next write on, so that whoever led before has noticed by then.
A leader judges by its own monotonic clock, from the moment before each write: one that stood still does not act on.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.meter import ELECTION_CAMPAIGNS, ELECTION_INTERVAL, ELECTION_LEADER, Meter
from aj_sdk.buckets import Entry
from aj_sdk.errors import OutcomeUnknownError, StoreError

__all__ = ["TASK_SCHEDULER", "TASK_SWEEPER", "Ballot", "Election"]

_log = logging.getLogger(__name__)

TASK_SWEEPER: Final = "task_sweeper"
TASK_SCHEDULER: Final = "task_scheduler"
"""The component under which the Go project elects its own scheduler."""

_WRITES_PER_TERM: Final = 3


class Ballot(Protocol):
    """The bucket of elections; `aj_sdk.buckets.Bucket` is one."""

    async def get(self, key: str) -> Entry | None:
        """Read a key, None when it has no value."""

    async def create(self, key: str, value: bytes) -> int | None:
        """Give a value to a key that has none; its revision, None when it has one."""

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """Write a key that stands at a revision; its new one, None when somebody else wrote."""

    async def delete(self, key: str, revision: int) -> bool:
        """Take a key's value away, if it stands at a revision."""


class Election:
    """`Duty`: takes part in the election of a component's leader.

    Args:
        ballot: where it is held.
        component: of what.
        name: our name, like no other.
        term_s: seconds after which a value that is not written again goes.
        meter: what is counted.
        clock: the time.
        elected: told when we have become the leader.
    """

    def __init__(
        self,
        ballot: Ballot,
        component: str,
        name: str,
        *,
        term_s: float,
        meter: Meter,
        clock: Clock,
        elected: Callable[[], Awaitable[None]],
    ) -> None:
        self._ballot = ballot
        self._key = component
        self._value = name.encode()
        self._labels = {"election": component, "identity": name}
        self._term_s = term_s
        self._meter = meter
        self._clock = clock
        self._elected = elected
        self._revision = 0
        self._until = 0.0
        self._confirmed = False
        self.name = f"election of the {component}"

    @property
    def leads(self) -> bool:
        """Whether we are surely the leader at this moment; ask before each act."""
        return self._confirmed and self._clock.monotonic() < self._until

    async def run(self) -> None:
        """See `Duty`."""
        interval_s = self._term_s / _WRITES_PER_TERM
        self._meter.set(ELECTION_INTERVAL, interval_s, **self._labels)
        try:
            while True:
                await self._campaign()
                await asyncio.sleep(interval_s)
        finally:
            await self._stand_down()

    async def _campaign(self) -> None:
        state = "leader" if self._revision else "candidate"
        self._meter.inc(ELECTION_CAMPAIGNS, state=state, **self._labels)
        sent = self._clock.monotonic()
        led = self._confirmed
        try:
            if self._revision:
                await self._stay(sent)
            else:
                await self._stand(sent)
        except OutcomeUnknownError as err:
            _log.info("%s: %s", self.name, err)
        except StoreError:
            self._lose()
            raise
        if led and not self.leads:
            _log.info("%s: lost", self.name)
            self._confirmed = False
        self._meter.set(ELECTION_LEADER, 1 if self.leads else 0, **self._labels)
        if self.leads and not led:
            _log.info("%s: won", self.name)
            await self._elected()

    async def _stand(self, sent: float) -> None:
        revision = await self._ballot.create(self._key, self._value)
        if revision is None:
            await self._find_own()
            return
        self._revision, self._until = revision, sent + self._term_s

    async def _stay(self, sent: float) -> None:
        revision = await self._ballot.update(self._key, self._value, self._revision)
        if revision is None:
            self._lose()
            await self._find_own()
            return
        self._revision, self._until, self._confirmed = revision, sent + self._term_s, True

    async def _find_own(self) -> None:
        # A write of ours may have been carried out though no answer came; the next one says how long it holds.
        entry = await self._ballot.get(self._key)
        if entry is not None and entry.value == self._value:
            self._revision = entry.revision

    def _lose(self) -> None:
        self._revision, self._until, self._confirmed = 0, 0.0, False

    async def _stand_down(self) -> None:
        revision = self._revision
        self._lose()
        self._meter.set(ELECTION_LEADER, 0, **self._labels)
        if revision:
            with contextlib.suppress(StoreError):
                await self._ballot.delete(self._key, revision)
