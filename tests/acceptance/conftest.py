"""A world of processes for one test, and one that the tests of a module share."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.acceptance.processes import Crew
from tests.acceptance.world import World, open_world

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client


@pytest.fixture
async def world(
    clean_server: EmbeddedServer, tmp_path: Path, patience: Callable[[float], float]
) -> AsyncIterator[World]:
    """Give a server for this test alone, with no process around it yet."""
    async with open_world(clean_server.url, tmp_path, patience) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_crew(tmp_path_factory: pytest.TempPathFactory, patience: Callable[[float], float]) -> Iterator[Crew]:
    """Give a bridge of the queue MAIN and handlers of the type `work`, for all tests of the module."""
    with EmbeddedServer(start_timeout=patience(30)) as server:
        crew = Crew(server.url, tmp_path_factory.mktemp("shared"), patience)
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
