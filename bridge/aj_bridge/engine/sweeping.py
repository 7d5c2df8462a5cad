"""The duty that takes part in the election of the sweeper, and sweeps while elected."""

import asyncio
import contextlib

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.duties import on_duty
from aj_bridge.engine.election import TASK_SWEEPER, Election
from aj_bridge.engine.meter import Meter
from aj_bridge.engine.peers import Peers
from aj_bridge.engine.sweeper import EVERY_S, Sweeper
from aj_bridge.storage.jetstream.survey import open_survey
from aj_sdk.buckets import ELECTION_TERM_NS, Bucket
from aj_sdk.errors import StoreError
from aj_sdk.ids import new_id
from aj_sdk.jetstream import JetStream
from aj_sdk.wire.event import LeaderElectedEvent
from aj_sdk.wire.names import ELECTIONS_BUCKET, leader_event_subject
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Sweeping"]


class Sweeping:
    """`Duty`: sweeps all queues, whenever it is this bridge's turn.

    Args:
        jetstream: the API of the account.
        bridge_id: our id.
        peers: the other bridges.
        meter: what is counted.
        clock: the time.
        every_s: seconds between two sweeps.
    """

    name = "sweeping"

    def __init__(
        self,
        jetstream: JetStream,
        bridge_id: str,
        peers: Peers,
        meter: Meter,
        clock: Clock,
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._js = jetstream
        self._id = bridge_id
        self._peers = peers
        self._meter = meter
        self._clock = clock
        self._every_s = every_s

    async def run(self) -> None:
        """See `Duty`."""
        ballot = Bucket(self._js, ELECTIONS_BUCKET)
        await ballot.ensure(max_age_ns=ELECTION_TERM_NS)
        term_ns = await ballot.max_age_ns() or ELECTION_TERM_NS
        election = Election(
            ballot,
            TASK_SWEEPER,
            self._id,
            term_s=term_ns / NS_PER_S,
            meter=self._meter,
            clock=self._clock,
            elected=self._tell,
        )
        async with open_survey(self._js) as survey:
            sweeper = Sweeper(survey, self._peers, election, self._meter, self._clock, every_s=self._every_s)
            async with on_duty([election, sweeper]):
                await asyncio.Event().wait()

    async def _tell(self) -> None:
        event = LeaderElectedEvent(
            event_id=new_id(), timestamp_ns=self._clock.now_ns(), name=self._id, component=TASK_SWEEPER
        )
        with contextlib.suppress(StoreError):
            await self._js.transport.publish(leader_event_subject(TASK_SWEEPER), event.to_wire())
