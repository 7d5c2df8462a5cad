"""What every test may use: real NATS servers, and a world without the developer's own settings."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import hypothesis
import pytest
from tests.cluster import Cluster

from aj_bridge.faces.embedded import EmbeddedServer

# How long an example takes is the machine's business: a busy one is no defect of ours.
hypothesis.settings.register_profile("ours", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("ours")

TIMEOUT_FACTOR: Final = float(os.environ.get("AJ_TEST_TIMEOUT_FACTOR", "1"))
"""How much longer than usual to wait for things, for slow machines."""

_OURS: Final = ("AJ_", "AJC_")
_SHARED: Final = ("CONTEXT", "XDG_CONFIG_HOME")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_developer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide NATS contexts and settings of whoever runs the tests, from us and from the processes we start."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if (name.startswith(_OURS) and not name.startswith("AJ_TEST_")) or name in _SHARED:
                patch.delenv(name)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("xdg")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Let the processes that we start be interrupted: whoever runs us in the background had SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def patience() -> Callable[[float], float]:
    """Turn seconds that are plenty on a usual machine into seconds that are plenty on this one."""
    return lambda seconds: seconds * TIMEOUT_FACTOR


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """Give a server with JetStream that all tests of this pytest worker share: leave it running, and as it was."""
    with EmbeddedServer(start_timeout=30 * TIMEOUT_FACTOR) as shared:
        yield shared


@pytest.fixture
def fresh_server() -> Iterator[Callable[..., EmbeddedServer]]:
    """Give a function that starts a server for this test alone; its arguments are those of `EmbeddedServer`."""
    with ExitStack() as stack:

        def start(**settings: Any) -> EmbeddedServer:
            settings.setdefault("start_timeout", 30 * TIMEOUT_FACTOR)
            return stack.enter_context(EmbeddedServer(**settings))

        yield start


@pytest.fixture
def clean_server(fresh_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    """Give an empty server for this test alone, to kill, freeze and restart at will."""
    return fresh_server()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Give three servers that all tests of this pytest worker share: leave all three running, and empty."""
    with Cluster(60 * TIMEOUT_FACTOR) as shared:
        yield shared


@pytest.fixture
def free_port() -> int:
    """Give a loopback port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
