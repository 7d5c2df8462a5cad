"""What the tests of other languages start from: programs on the Go project's own library, responders, a connection."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.client import Client
from tests.interop.asking import connected
from tests.interop.responders import TOOLCHAINS, responder

from aj_bridge.faces.embedded import EmbeddedServer

MODULE = Path(__file__).parents[2] / "interop" / "upstream"
BUILD_TIMEOUT = 900  # seconds; a first build compiles nats-server and natscli


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    vectors: Path
    peer: Path
    ajc: Path
    nats: Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first test that asks for the programs waits for the build, within its own time limit.
    for item in items:
        if "upstream" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BUILD_TIMEOUT))


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    if shutil.which("go") is None:
        reason = "no Go toolchain on the PATH, so nothing is tried against the Go project's library"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    built = subprocess.run(
        [MODULE / "build"], capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False, stdin=subprocess.DEVNULL
    )
    if built.returncode != 0:
        pytest.fail(f"interop/upstream/build failed:\n{built.stdout}{built.stderr}")
    programs = MODULE / "bin"
    return Upstream(vectors=programs / "vectors", peer=programs / "peer", ajc=programs / "ajc", nats=programs / "nats")


@pytest.fixture(scope="module", params=TOOLCHAINS)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared(language: str, server: EmbeddedServer) -> Iterator[str]:
    """Give the subject of a responder that many tests ask."""
    with responder(language, server.url, AJ_TYPE=f"shared:{language}") as running:
        yield running.ready()


@pytest.fixture
async def nc(server: EmbeddedServer) -> AsyncIterator[Client]:
    async with connected(server.url) as client:
        yield client
