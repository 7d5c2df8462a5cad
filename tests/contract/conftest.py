"""The server that the contract runs on."""

from collections.abc import Iterator

import pytest
from tests.conftest import TIMEOUT_FACTOR

from aj_bridge.faces.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def contract_server() -> Iterator[EmbeddedServer]:
    """Give a server of which each test uses another queue."""
    with EmbeddedServer(start_timeout=30 * TIMEOUT_FACTOR) as server:
        yield server
