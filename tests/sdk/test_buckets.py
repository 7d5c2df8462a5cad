"""Key-value buckets, against servers with and without times for keys, and beside a NATS client's own."""

import asyncio

import pytest
from nats.aio.client import Client as Connection
from tests.sdk.world import World
from tests.versions import NO_BATCHES

from aj_sdk.buckets import Bucket
from aj_sdk.errors import RefusedError
from aj_sdk.jetstream import JetStream

pytestmark = pytest.mark.server


async def test_of_several_who_write_at_the_same_revision_one_wins(any_world: World) -> None:
    bucket = Bucket(any_world.jetstream, "B")
    await bucket.ensure()
    made = await asyncio.gather(*(bucket.create("a.b", b"%d" % number) for number in range(9)))
    (first,) = [revision for revision in made if revision is not None]
    entry = await bucket.get("a.b")
    assert entry is not None
    assert (entry.value, entry.revision, entry.ttl_ns) == (b"%d" % made.index(first), first, None)
    assert entry.at_ns > 1_700_000_000 * 10**9
    changed = await asyncio.gather(*(bucket.update("a.b", b"x", first) for _ in range(9)))
    (second,) = [revision for revision in changed if revision is not None]
    assert not await bucket.delete("a.b", first)
    assert await bucket.delete("a.b", second)
    assert await bucket.get("a.b") is None
    assert await bucket.create("a.b", b"again") is not None


async def test_a_key_has_a_time_of_its_own_where_the_server_can(
    any_world: World, request: pytest.FixtureRequest
) -> None:
    old = request.node.callspec.params["any_world"] == NO_BATCHES
    bucket = Bucket(any_world.jetstream, "B")
    await bucket.ensure()  # as somebody made it who needs no times
    assert await bucket.ensure(key_ttls=True) is not old
    assert await bucket.create("a", b"x", ttl_s=1) is not None
    entry = await bucket.get("a")
    assert entry is not None
    assert entry.ttl_ns == 10**9
    # The server takes it away when it is due: then it can be made once more.
    while not old and await bucket.create("a", b"y") is None:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)


async def test_a_bucket_that_is_not_there_has_no_keys_and_takes_none(jetstream: JetStream) -> None:
    bucket = Bucket(jetstream, "NONE")
    assert await bucket.get("a") is None
    with pytest.raises(RefusedError, match="bucket NONE: not found"):
        await bucket.create("a", b"")


async def test_a_nats_client_reads_and_writes_the_same_bucket(jetstream: JetStream, connection: Connection) -> None:
    ours = Bucket(jetstream, "B")
    await ours.ensure(max_age_ns=10 * 10**9)
    theirs = await connection.jetstream().key_value("B")
    revision = await ours.create("a", b"ours")
    read = await theirs.get("a")
    assert (read.value, read.revision) == (b"ours", revision)
    await theirs.delete("a")
    assert await ours.get("a") is None
    assert await ours.create("a", b"again") is not None
    await theirs.purge("a")
    assert await ours.create("a", b"and again") is not None
    assert (await theirs.get("a")).value == b"and again"
