"""A world of processes for one test, and one that the tests of a module share.

With AJ_TEST_NODES=3 the same tests run on a cluster of three servers, where everything has three copies.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.acceptance.processes import Crew
from tests.acceptance.world import World, open_world
from tests.cluster import Cluster

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client

NODES: Final = int(os.environ.get("AJ_TEST_NODES", "1"))


@pytest.fixture
def clean_server(fresh_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    """Give an empty server for this test alone, to kill, freeze and restart at will."""
    if NODES > 1:
        pytest.skip("does something to its only server; test_cluster.py does to one of three")
    return fresh_server()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give where an empty JetStream is, for this test alone."""
    if NODES == 1:
        server: EmbeddedServer = request.getfixturevalue("clean_server")
        yield server.url
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    yield cluster.url
    asyncio.run(cluster.clear())


@pytest.fixture
async def world(url: str, tmp_path: Path, patience: Callable[[float], float]) -> AsyncIterator[World]:
    """Give a JetStream for this test alone, with no process around it yet."""
    async with open_world(url, tmp_path, patience, NODES) as opened:
        yield opened


@pytest.fixture(scope="module")
def _shared_url(patience: Callable[[float], float]) -> Iterator[str]:
    with EmbeddedServer(start_timeout=patience(30)) if NODES == 1 else Cluster(patience(60)) as server:
        yield server.url


@pytest.fixture(scope="module")
def shared_crew(
    _shared_url: str, tmp_path_factory: pytest.TempPathFactory, patience: Callable[[float], float]
) -> Iterator[Crew]:
    """Give a bridge of the queue MAIN and handlers of the type `work`, for all tests of the module."""
    crew = Crew(_shared_url, tmp_path_factory.mktemp("shared"), patience, NODES)
    try:
        crew.ready(
            crew.bridge("MAIN", "--max-run-time", "30s", "--backoff", "1m", "--max-concurrent", "20"),
            crew.handlers("work", "other"),
        )
        yield crew
    finally:
        crew.close()


@pytest.fixture
async def main(shared_crew: Crew, patience: Callable[[float], float]) -> AsyncIterator[World]:
    """Give the shared world with a client of this test's own."""
    async with Client.connect(shared_crew.url, timeout=patience(5)) as client:
        yield World(shared_crew, client, patience)


@pytest.fixture(scope="module")
def _narrow_bridge(shared_crew: Crew) -> None:
    shared_crew.ready(shared_crew.bridge("NARROW", "--max-concurrent", "1", lease="10m"))


@pytest.fixture
def narrow(main: World, _narrow_bridge: None) -> World:
    """Give the shared world with a bridge of the queue NARROW: one item that is held holds up all others for long."""
    return main
