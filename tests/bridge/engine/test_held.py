"""The claims in hand, and their leases, on a storage in memory and in virtual time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.virtual_time import virtual_time

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.held import Held, HeldClaims
from aj_bridge.storage.memory import Fault, MemoryStorage, MemoryWorld
from aj_sdk.errors import OutcomeUnknownError
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.times import NS_PER_S

LEASE_S = 6.0
UNKNOWN = Fault(OutcomeUnknownError("renew"))


def now() -> float:
    return asyncio.get_running_loop().time()


class Hand:
    """A bridge's claims over a queue in memory."""

    def __init__(self, world: MemoryWorld, name: str = "b1") -> None:
        self.storage = MemoryStorage(world, "Q")
        self.renewals: list[float] = []
        self.storage.link.faults = self._seen
        self.lost = False
        self.claims = HeldClaims(name, self.storage.items, Clock(now_ns=world.now_ns, monotonic=now))

    def _seen(self, act: str, about: object) -> Fault | None:
        if act == "renew":
            self.renewals.append(now())
            return UNKNOWN if self.lost else None
        return None

    async def take(self) -> Held:
        self.storage.items.want(1)
        (claim,) = await self.storage.items.next()
        return self.claims.take(claim)

    @contextlib.asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.claims.keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))


def world() -> MemoryWorld:
    made = MemoryWorld()
    made.add_queue(QueueSettings(name="Q", lease_ns=int(LEASE_S * NS_PER_S)))
    made.publish("Q", "a")
    return made


@virtual_time
async def test_a_claim_is_held_from_its_taking_to_its_dropping() -> None:
    hand = Hand(world())
    held = await hand.take()
    assert held.stamp == Stamp("b1", ItemRef(1, 1))
    assert len(hand.claims) == 1
    assert list(hand.claims) == [held]
    assert hand.claims.holds("a", ItemRef(1, 1))
    assert not hand.claims.holds("b", ItemRef(1, 1))
    assert not hand.claims.holds("a", ItemRef(1, 2))
    assert not hand.claims.holds("a", ItemRef(2, 1))
    hand.claims.drop(held)
    hand.claims.drop(held)
    assert len(hand.claims) == 0
    assert not hand.claims.holds("a", ItemRef(1, 1))


@virtual_time
async def test_a_claim_that_has_the_number_of_another_is_not_dropped_with_it() -> None:
    """A queue that was deleted and made anew numbers its items from 1 again."""
    hand = Hand(world())
    old = await hand.take()
    new = hand.claims.take(old.claim)
    hand.claims.drop(old)
    assert list(hand.claims) == [new]


@virtual_time
async def test_a_claim_is_valid_until_a_look_before_its_lease_ends() -> None:
    hand = Hand(world())
    held = await hand.take()
    assert hand.claims.valid(held)
    await asyncio.sleep(LEASE_S - LEASE_S / 12 - 0.01)
    assert hand.claims.valid(held)
    await asyncio.sleep(0.02)
    assert not hand.claims.valid(held)


@virtual_time
async def test_a_lease_is_counted_from_before_the_claim_was_sent() -> None:
    hand = Hand(world())
    hand.storage.items.want(0)
    hand.storage.link.cut()
    hand.storage.items.want(1)
    hand.storage.items._queue.serve()  # the server still has our request
    await asyncio.sleep(LEASE_S + 1)
    taking = asyncio.create_task(hand.take())
    await asyncio.sleep(0)
    hand.storage.link.mend()
    assert not hand.claims.valid(await taking)


@virtual_time
async def test_a_claim_in_hand_is_renewed_three_times_a_lease() -> None:
    hand = Hand(world())
    async with hand.keeping():
        held = await hand.take()
        await asyncio.sleep(10 * LEASE_S)
        assert hand.claims.valid(held)
    assert 25 <= len(hand.renewals) <= 31


@virtual_time
async def test_nothing_is_renewed_that_is_not_in_hand() -> None:
    hand = Hand(world())
    async with hand.keeping():
        hand.claims.drop(await hand.take())
        await asyncio.sleep(10 * LEASE_S)
    assert not hand.renewals


@virtual_time
async def test_a_renewal_that_fails_is_done_again_while_the_lease_lasts() -> None:
    hand = Hand(world())
    hand.lost = True
    async with hand.keeping():
        held = await hand.take()
        await asyncio.sleep(LEASE_S - 1.5)
        assert len(hand.renewals) >= 2
        hand.lost = False
        await asyncio.sleep(LEASE_S)
        assert hand.claims.valid(held)


@virtual_time
async def test_a_lease_that_is_over_stays_over_and_is_not_renewed() -> None:
    hand = Hand(world())
    hand.lost = True
    async with hand.keeping():
        held = await hand.take()
        await asyncio.sleep(LEASE_S + 0.1)
        hand.lost = False
        tried = len(hand.renewals)
        await asyncio.sleep(3 * LEASE_S)
        assert len(hand.renewals) == tried
        assert not hand.claims.valid(held)


@virtual_time
async def test_a_renewal_that_is_confirmed_too_late_does_not_count() -> None:
    """It may have extended the lease of the next owner: the server goes by the item."""
    here = world()
    hand = Hand(here)
    other = Hand(here, "b2")
    async with hand.keeping():
        held = await hand.take()
        hand.storage.link.latency_s = LEASE_S
        taken_over = await other.take()
        assert taken_over.claim.item == ItemRef(1, 2)
        await asyncio.sleep(LEASE_S)
        assert len(hand.renewals) >= 1
        assert not hand.claims.valid(held)


@virtual_time
async def test_a_renewal_never_shortens_a_lease() -> None:
    hand = Hand(world())
    async with hand.keeping():
        held = await hand.take()
        held.lease_until = now() + 3.0
        hand.storage.link.latency_s = 1.0
        before = held.lease_until
        await asyncio.sleep(1.5)
        held.lease_until = max(before, now() + 100)
        await asyncio.sleep(2)
        assert held.lease_until > now() + 90


@virtual_time
async def test_renewals_end_with_the_keeping() -> None:
    hand = Hand(world())
    async with hand.keeping():
        await hand.take()
        hand.storage.link.latency_s = 1000.0
        await asyncio.sleep(LEASE_S / 2)
    await asyncio.sleep(2000)
    assert not hand.renewals


@virtual_time
async def test_i_8_a_claim_that_comes_too_late_to_be_renewed_is_not_begun() -> None:
    """Found by the row freeze-bridge: a claim read just before its lease ended was begun, and never renewed."""
    hand = Hand(world())
    async with hand.keeping():
        held = await hand.take()
        for left_s, begun in ((0.05, False), (0.4, False), (0.6, True)):
            await asyncio.sleep(1)
            held.lease_until = now() + left_s
            renewals = len(hand.renewals)
            assert hand.claims.valid(held) == begun
            await asyncio.sleep(0.55)  # a look is 0.5 s after the one before
            assert not begun or len(hand.renewals) > renewals
