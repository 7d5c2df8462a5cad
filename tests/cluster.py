"""Three real nats-servers as one JetStream cluster on the loopback interface, to kill, freeze and drain one by one."""

import asyncio
import contextlib
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.errors import NotConnectedError, StoreError
from aj_sdk.fast import open_transport
from aj_sdk.jetstream import JetStream

__all__ = ["Cluster"]

NODES: Final = 3
_NAME: Final = "AJTEST"
_LOOK_S: Final = 0.05
_ANSWER_S: Final = 2.0
_LAME_DUCK: Final = {"lame_duck_duration": "30s", "lame_duck_grace_period": "100ms"}


class Cluster:
    """The servers; started when the context is entered, gone when it is left.

    Args:
        patience_s: seconds that anything here may take at most.
    """

    def __init__(self, patience_s: float = 60.0) -> None:
        self._patience_s = patience_s
        routes = [f"nats://127.0.0.1:{port}" for port in _free_ports(NODES)]
        self.nodes: dict[str, EmbeddedServer] = {}
        for number, route in enumerate(routes):
            cluster = {"name": _NAME, "listen": route.removeprefix("nats://"), "routes": routes}
            # Clients learn of each other node from a server's INFO; ours know all of them from the start.
            config: dict[str, Any] = {"server_name": f"n{number + 1}", "cluster": {**cluster, "no_advertise": True}}
            self.nodes[f"n{number + 1}"] = EmbeddedServer(config={**config, **_LAME_DUCK}, start_timeout=patience_s)

    @property
    def url(self) -> str:
        """URLs of all nodes, separated by commas."""
        return ",".join(node.url for node in self.nodes.values())

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for node in self.nodes.values():
                stack.enter_context(node)
            asyncio.run(self.settled())
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            node.close()

    @contextlib.asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStream]:
        """Give a connection's JetStream API, that of whichever node is there."""
        options = ConnectOptions.from_url(self.url)
        connection = await connect(options)
        try:
            async with open_transport(connection) as transport:
                yield JetStream(transport, timeout=_ANSWER_S)
        finally:
            await connection.close()

    async def settled(self, streams: Sequence[str] = ()) -> None:
        """Wait until JetStream has a leader, and these streams have one and copies that are all up to date."""
        async with asyncio.timeout(self._patience_s):
            while True:
                # A server tells nobody when it is done with that: a look again and again is all there is.
                with contextlib.suppress(StoreError, NotConnectedError):
                    async with self.jetstream() as jetstream:
                        await jetstream.call("INFO")
                        if all([_whole(await jetstream.stream_info(stream)) for stream in streams]):
                            return
                await asyncio.sleep(_LOOK_S)

    async def leader_of(self, stream: str) -> str:
        """Return the name of the node that leads a stream, once there is one."""
        async with asyncio.timeout(self._patience_s), self.jetstream() as jetstream:
            while True:
                with contextlib.suppress(StoreError):
                    info = await jetstream.stream_info(stream) or {}
                    leader = (info.get("cluster") or {}).get("leader", "")
                    if leader in self.nodes:
                        return str(leader)
                await asyncio.sleep(_LOOK_S)

    async def retire(self, name: str) -> None:
        """Have a node go in lame-duck mode: it tells its clients, hands its leaderships over, and ends."""
        node = self.nodes[name]
        os.kill(node.pid, signal.SIGUSR2)
        async with asyncio.timeout(self._patience_s):
            await node.exited()
        node.stop()

    async def clear(self) -> None:
        """Remove all streams, so that the next test finds nothing."""
        async with self.jetstream() as jetstream:
            for name in await jetstream.stream_names():
                await jetstream.delete_stream(name)


def _whole(info: dict[str, Any] | None) -> bool:
    cluster = (info or {}).get("cluster") or {}
    replicas = cluster.get("replicas") or []
    return bool(cluster.get("leader")) and all(one.get("current") and not one.get("offline") for one in replicas)


def _free_ports(number: int) -> list[int]:
    """Find ports for the routes, below those that the system gives to whoever asks for any, such as our own nodes."""
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return found
