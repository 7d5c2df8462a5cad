"""The responders of interop/ pass all that the conformance runner says they must, and docs/matrix.md tells it."""

import os
import runpy
import shutil
from pathlib import Path

import pytest
from tests.interop.responders import BUILD_TIMEOUT, TOOLCHAINS, build

pytestmark = [pytest.mark.interop, pytest.mark.timeout(BUILD_TIMEOUT)]

MATRIX = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "matrix.py"))


def need(language: str) -> None:
    """Build a responder; skip where what it needs is missing (CI: fail)."""
    if language in TOOLCHAINS:
        build(language)
    elif language == "perl" and shutil.which("perl") is None:
        reason = "no perl on the PATH, so the responder in perl is not tried"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.mark.parametrize("language", MATRIX["COMMANDS"])
def test_a_responder_does_all_that_it_must_and_the_matrix_tells_what_else(language: str) -> None:
    need(language)
    patience = os.environ.get("AJ_TEST_TIMEOUT_FACTOR", "1")
    code, report = MATRIX["conformance"](language, patience=patience)
    cases = report["cases"]
    assert len(cases) >= 40
    assert [case for case in cases if case["outcome"] != "passed" and case["level"] == "must"] == []
    assert code == 0
    told = MATRIX["columns"](MATRIX["PAGE"].read_text(encoding="utf-8"))[language]
    came = {case["name"]: case["outcome"] for case in cases}
    if differing := [name for name in came if came[name] != told.get(name)]:
        # Of what a busy machine made late the page tells nothing: once more, alone.
        _, again = MATRIX["conformance"](language, patience=patience, cases=differing)
        came |= {case["name"]: case["outcome"] for case in again["cases"]}
    assert came == told, "`make matrix` writes the page anew"
