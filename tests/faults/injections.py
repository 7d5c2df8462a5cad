"""What is done to the system while tasks run; each act is written down by the stand."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from tests.faults.proxy import Way
from tests.faults.stand import QUEUE, BridgeAtWork, Stand

from aj_sdk.errors import AsyncJobsError, StoreError

__all__ = ["Inject"]

Inject = Callable[[Stand], Coroutine[Any, Any, None]]
"""Does something to a stand while its tasks run."""

SAMPLES: Final = 16
LOST_S: Final = 15.0
"""Within which time a bridge must say that it can't work (L-4)."""
TASKS: Final = "CHORIA_AJ_TASKS"
EVENTS: Final = "RECORD_EVENTS"
"""Where the recorder keeps events: while it has no leader, they are told to nobody who writes them down."""
STREAM: Final = f"CHORIA_AJ_Q_{QUEUE}"

STEPS: Final = (
    *("claim", "load", "decision:start", "save:active", "event:active", "call", "reply:completed", "reply:failed"),
    *("decision:finish", "save:complete", "event:complete", "save:terminated", "dead_letter", "park", "save:retry"),
    *("leave", "ack", "progress", "attempt"),
)
"""After which steps a bridge is killed."""

SELDOM: Final = ("dead_letter", "save:terminated", "save:retry", "leave", "park", "attempt", "reply:failed")


async def nothing(stand: Stand) -> None:
    """Let the tasks and their handlers be the fault; replace handlers that die."""
    while len(stand.ended) < stand.total:
        for process in [each for each in stand.handlers if not each.running]:
            stand.happened("died", "handler", time.time_ns(), pid=process.pid)
            await stand.replace_handler(process)
        if await stand.idle(1.0):
            return


async def kill_after_steps(stand: Stand) -> None:
    """Kill bridges after one of their steps, one after the other."""

    async def one_after_the_other(steps: Sequence[str]) -> None:
        for step in steps:
            number = 1 if step in SELDOM else stand.chance.randint(1, 6)
            await stand.bridge_that_dies(f"{step}{'' if ':' in step else ':'}:{number}")

    # Two at a time: a bridge takes longer to start than to come to its last step.
    steps = stand.chance.sample(STEPS, 6)
    await asyncio.gather(one_after_the_other(steps[:3]), one_after_the_other(steps[3:]))


async def kill_one_bridge(stand: Stand) -> None:
    """Kill one bridge with tasks in hand."""
    await stand.until_ended(0.3)
    bridge = stand.pick()
    await stand.kill_bridge(bridge)
    await stand.replace(bridge)


async def kill_handlers(stand: Stand) -> None:
    """Kill handlers in the middle of their calls."""
    for share in (0.15, 0.4, 0.65):
        await stand.until_ended(share)
        process = stand.chance.choice(stand.handlers)
        at = time.time_ns()
        process.kill()
        stand.happened("kill -9", "handler", at, pid=process.pid)
        await stand.replace_handler(process)


async def terminate_all(stand: Stand) -> None:
    """Stop bridges and handlers in order, under load, and start others."""
    for share in (0.15, 0.4, 0.65):
        await stand.until_ended(share)
        bridge = stand.pick()
        with stand.fault("SIGTERM", "bridge", bridge.id):
            bridge.process.terminate()
            await bridge.process.ended(seconds=30)
        await stand.replace(bridge)
        process = stand.chance.choice(stand.handlers)
        with stand.fault("SIGTERM", "handler", pid=process.pid):
            process.terminate()
            await process.ended(seconds=30)
        await stand.replace_handler(process)


async def freeze_bridges(stand: Stand) -> None:
    """Freeze a bridge for longer than its leases, and let it go on."""
    for share in (0.1, 0.3, 0.5):
        await stand.until_ended(share)
        await asyncio.sleep(stand.setting.lease_s / 2)  # so that all have calls under way again
        bridge = stand.pick()
        with stand.fault("freeze", "bridge", bridge.id):
            bridge.process.pause()
            # The fault itself, not a wait for something.
            await asyncio.sleep(stand.setting.lease_s * stand.chance.uniform(1.2, 4))
            bridge.process.resume()


async def kill_server(stand: Stand) -> None:
    """Kill the server and start it again on the same store."""
    for share in (0.2, 0.5):
        await stand.until_ended(share)
        with stand.fault("kill -9", "server"):
            stand.server.kill()
            await asyncio.sleep(stand.chance.uniform(0.05, 2))
            await stand.server.astart()
            await stand.reached()


async def freeze_server(stand: Stand) -> None:
    """Freeze the server for one to four leases."""
    for share in (0.2, 0.5):
        await stand.until_ended(share)
        with stand.fault("freeze", "server"):
            stand.server.pause()
            await asyncio.sleep(stand.setting.lease_s * stand.chance.uniform(1, 4))
            stand.server.resume()
            await stand.reached()


async def freeze_server_for_long(stand: Stand) -> None:
    """Freeze the server for so long that bridges must say that they can't work."""
    await stand.until_ended(0.3)
    with stand.fault("freeze", "server"):
        stand.server.pause()
        await asyncio.sleep(stand.patience(LOST_S) + 2)
        stand.server.resume()
        await stand.reached()
    await asyncio.sleep(stand.patience(6))  # so that the answers after healing are heard


async def partition(stand: Stand) -> None:
    """Cut a bridge off: delayed, deaf, dumb, reset, refused, or with its acks or its answers lost."""
    ways = ["delay", "deaf", "dumb", "both", "reset", "refused", "acks", "answers"]
    for share, way in zip((0.1, 0.25, 0.45, 0.65), stand.chance.sample(ways, 4), strict=True):
        await stand.until_ended(share)
        bridge = stand.pick()
        proxy = bridge.proxy
        assert proxy is not None
        with stand.fault(way, "network", bridge.id):
            match way:
                case "delay":
                    proxy.delay_s = stand.chance.uniform(0.02, 0.4)
                case "deaf":
                    proxy.silent = {Way.TO_CLIENT}
                case "dumb":
                    proxy.silent = {Way.TO_SERVER}
                case "both":
                    proxy.silent = {*Way}
                case "reset":
                    proxy.reset()
                case "refused":
                    proxy.refusing = True
                    proxy.reset()
                case "acks":
                    proxy.swallow = lambda way, frame: way is Way.TO_SERVER and b"+ACK" in frame
                case "answers":
                    proxy.swallow = lambda way, frame: way is Way.TO_CLIENT and b'"stream":"CHORIA_AJ' in frame
            await asyncio.sleep(stand.setting.lease_s * stand.chance.uniform(0.5, 4))
            proxy.heal()


async def fill_store(stand: Stand) -> None:
    """Let the store, then the queue, refuse what is new for a while."""
    js = stand.client.store.jetstream
    for share, name, key in ((0.15, TASKS, "max_bytes"), (0.45, STREAM, "max_msgs")):
        await stand.until_ended(share)
        info = await js.stream_info(name)
        if info is None:
            continue
        with stand.fault(f"{name} is full", "server"):
            small = max(1, info["state"]["bytes" if key == "max_bytes" else "messages"])
            await js.update_stream({**info["config"], key: small, "discard": "new"})
            await asyncio.sleep(stand.setting.lease_s * stand.chance.uniform(0.5, 2.5))
            await js.update_stream(info["config"])


async def spoil(stand: Stand) -> None:
    """Put items and records into the streams that nobody can read, or that lie."""
    js = stand.client.store.jetstream
    bodies = (
        b"",
        b"x",
        b"{}",
        b"[]",
        b'{"kind":0,"job":"*"}',
        b'{"kind":0,"job":">"}',
        b'{"kind":9,"job":"a"}',
        b"\xff" * 64,
    )
    records = (
        b"",
        b"x",
        b"{}",
        b"[1]",
        b'{"id":"other","type":"work","queue":"Q","state":"new","tries":0}',
        b'{"state":7}',
    )
    for number in range(20):
        await stand.until_ended(number / 30)
        task = f"bad-{number}"
        with contextlib.suppress(StoreError), stand.fault("bad item or record", "task"):
            if number % 2:
                await js.publish(f"CHORIA_AJ.T.{task}", stand.chance.choice(records))
            await js.publish(f"CHORIA_AJ.Q.{QUEUE}.{task}", stand.chance.choice(bodies))


async def reconfigure(stand: Stand) -> None:
    """Delete and change streams, consumers and buckets under running bridges."""
    js = stand.client.store.jetstream

    async def consumer() -> None:
        await js.call(f"CONSUMER.DELETE.{STREAM}.WORKERS")

    async def ack_wait() -> None:
        info = await js.consumer_info(STREAM, "WORKERS")
        if info is not None:
            config = {**info["config"], "max_ack_pending": stand.chance.choice((5, 50))}
            await js.save_consumer(STREAM, config, "update")

    async def elections() -> None:
        await js.delete_stream("KV_CHORIA_AJ_ELECTIONS")

    async def dead() -> None:
        await js.delete_stream("CHORIA_AJ_ATTEMPTS")

    acts: list[Callable[[], Coroutine[Any, Any, None]]] = [consumer, ack_wait, elections, dead]
    for share, act in zip((0.1, 0.3, 0.5, 0.7), stand.chance.sample(acts, 4), strict=True):
        await stand.until_ended(share)
        with stand.fault(act.__name__, "server"):
            with contextlib.suppress(StoreError):
                await act()
            # Bridges look at their queues every ten seconds.
            await asyncio.sleep(11 if act is consumer else 0.2)


async def interfere(stand: Stand) -> None:
    """Retry, cancel and publish again, as users do, whatever the tasks are at."""
    admin, store = stand.client.admin.tasks, stand.client.store
    for number in range(40):
        await stand.until_ended(min(0.9, number / 40))
        if not stand.tasks:
            continue
        task = stand.chance.choice(sorted(stand.tasks))
        match stand.chance.choice(("retry", "retry", "cancel", "requeue", "requeue")):
            case "retry":
                await stand.user("retry", task, lambda task=task: admin.retry(task))  # type: ignore[misc]
            case "cancel":
                await stand.user("cancel", task, lambda task=task: stand.client.cancel(task))  # type: ignore[misc]
            case _:
                await stand.user(
                    "requeue",
                    task,
                    lambda task=task: store.publish_item(QUEUE, task, replace=True),  # type: ignore[misc]
                )
        stand.injected += 1


async def skew_clocks(stand: Stand) -> None:
    """Start bridges whose wall clocks are wrong, and kill them again."""
    for share, offset in ((0.1, "+3s"), (0.3, "-3s"), (0.5, "+1.5s")):
        await stand.until_ended(share)
        bridge = stand.pick()
        with stand.fault(f"clock {offset}", "clock", bridge.id):
            await stand.kill_bridge(bridge)
            await stand.replace(bridge, LD_PRELOAD=FAKETIME, FAKETIME=offset, DONT_FAKE_MONOTONIC="1")


FAKETIME: Final = next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), "")
"""The library that gives a process a wrong clock, where it is installed (Debian: libfaketime)."""


def reload(stand: Stand, settings: dict[str, Any]) -> None:
    """Have the server read another configuration."""
    path = stand.server.log_path.parent / "nats-server.conf"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    os.kill(stand.server.pid, signal.SIGHUP)


async def revoke(stand: Stand) -> None:
    """Take the bridges' login away, and give it back."""
    for share in (0.2, 0.5):
        await stand.until_ended(share)
        with stand.fault("login revoked", "server"):
            reload(stand, {"authorization": {"users": [stand.setting.admin]}})
            await asyncio.sleep(stand.setting.lease_s * stand.chance.uniform(0.5, 2))
            reload(stand, {"authorization": dict(stand.setting.server["authorization"])})
            await _bridges_again(stand)


async def deny(stand: Stand) -> None:
    """Deny the bridges one permission after the other, for a while each."""
    subjects = (
        *("CHORIA_AJ.T.>", "$JS.ACK.>", "CHORIA_AJ.H.T.>", "CHORIA_AJ.D.>", "CHORIA_AJ.E.>", "CHORIA_AJ.X.>"),
        *("$JS.API.CONSUMER.MSG.NEXT.>", "$JS.API.DIRECT.GET.>", "$JS.API.STREAM.MSG.GET.>", "CHORIA_AJ.A.>"),
    )
    chosen = stand.chance.sample(subjects, 4)
    for share, subject in zip((0.1, 0.3, 0.5, 0.7), chosen, strict=True):
        await stand.until_ended(share)
        with stand.fault(f"denied: publish {subject}", "server"):
            user = {**stand.setting.bridge_user, "permissions": {"publish": {"deny": [subject]}}}
            reload(stand, {"authorization": {"users": [stand.setting.admin, user]}})
            await asyncio.sleep(stand.setting.lease_s * stand.chance.uniform(0.8, 2))
            reload(stand, {"authorization": dict(stand.setting.server["authorization"])})
            await _bridges_again(stand)


async def _bridges_again(stand: Stand) -> None:
    # A server closes the connections of users that changed; whoever then gave up is started anew, as by a supervisor.
    await asyncio.sleep(0.5)
    for bridge in [each for each in stand.bridges if not each.process.running]:
        await stand.replace(bridge)


async def lose_leaders(stand: Stand) -> None:
    """Kill the node of a cluster that leads the task store or the queue, and start it again."""
    cluster = stand.cluster
    assert cluster is not None
    for share, stream in ((0.2, TASKS), (0.5, STREAM)):
        await stand.until_ended(share)
        name = await cluster.leader_of(stream)
        with stand.fault(f"leader of {stream} lost", "server"):
            node = cluster.nodes[name]
            node.kill()
            await asyncio.sleep(stand.chance.uniform(0.5, 3))
            await node.astart()
            await cluster.settled([TASKS, STREAM, EVENTS])


async def retire_nodes(stand: Stand) -> None:
    """Have nodes of a cluster leave in lame-duck mode, and start them again."""
    cluster = stand.cluster
    assert cluster is not None
    for share in (0.2, 0.5):
        await stand.until_ended(share)
        name = stand.chance.choice(sorted(cluster.nodes))
        with stand.fault(f"lame duck {name}", "server"):
            await cluster.retire(name)
            await cluster.nodes[name].astart()
            await cluster.settled([TASKS, STREAM, EVENTS])


async def sample(stand: Stand) -> None:
    """Have the bridges write down what they need, at equal distances; nothing else is done to them."""
    for number in range(1, SAMPLES + 1):
        await stand.until_ended(number / SAMPLES)
        for bridge in stand.bridges:
            os.kill(bridge.process.pid, signal.SIGUSR1)


async def all_of_it(stand: Stand) -> None:
    """Do some of all that can be done to one server and its bridges, in any order."""
    acts: list[Callable[[], Coroutine[Any, Any, None]]] = [
        lambda: _kill_some_bridge(stand),
        lambda: _kill_some_bridge(stand),
        lambda: _kill_some_handler(stand),
        lambda: _freeze_some(stand, stand.pick()),
        lambda: _cut_some(stand, stand.pick()),
        lambda: _restart(stand),
    ]
    stand.chance.shuffle(acts)
    for number, act in enumerate(acts):
        await stand.until_ended(0.1 + 0.12 * number)
        with contextlib.suppress(AsyncJobsError):
            await act()


async def _kill_some_bridge(stand: Stand) -> None:
    bridge = stand.pick()
    await stand.kill_bridge(bridge)
    await stand.replace(bridge)


async def _kill_some_handler(stand: Stand) -> None:
    process = stand.chance.choice(stand.handlers)
    at = time.time_ns()
    process.kill()
    stand.happened("kill -9", "handler", at, pid=process.pid)
    await stand.replace_handler(process)


async def _freeze_some(stand: Stand, bridge: BridgeAtWork) -> None:
    with stand.fault("freeze", "bridge", bridge.id):
        bridge.process.pause()
        await asyncio.sleep(stand.setting.lease_s * stand.chance.uniform(0.5, 3))
        bridge.process.resume()


async def _cut_some(stand: Stand, bridge: BridgeAtWork) -> None:
    proxy = bridge.proxy
    assert proxy is not None
    with stand.fault("both", "network", bridge.id):
        proxy.silent = {*Way}
        await asyncio.sleep(stand.setting.lease_s * stand.chance.uniform(0.5, 3))
        proxy.heal()


async def _restart(stand: Stand) -> None:
    with stand.fault("kill -9", "server"):
        stand.server.kill()
        await asyncio.sleep(stand.chance.uniform(0.05, 1))
        await stand.server.astart()
        await stand.reached()
