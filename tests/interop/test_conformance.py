"""The responders of interop/ pass all that the conformance runner says they must."""

import json
import os
import subprocess
import sys

import pytest
from tests.interop.responders import BUILD_TIMEOUT, TOOLCHAINS, build

pytestmark = [pytest.mark.interop, pytest.mark.timeout(BUILD_TIMEOUT)]

RUN_S = 300


@pytest.mark.parametrize("language", TOOLCHAINS)
def test_all_that_a_responder_must_do(language: str) -> None:
    patience = os.environ.get("AJ_TEST_TIMEOUT_FACTOR", "1")
    command = [sys.executable, "-m", "aj_bridge", "conformance", "--json", "--patience", patience]
    done = subprocess.run(
        [*command, "--type", "email:new", "--", str(build(language) / "run")],
        capture_output=True,
        text=True,
        timeout=RUN_S * float(patience),
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    cases = json.loads(done.stdout)["cases"]
    assert len(cases) >= 40
    assert [case for case in cases if case["outcome"] != "passed" and case["level"] == "must"] == []
    assert done.returncode == 0
