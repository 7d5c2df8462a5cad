"""The golden vectors in the checkout are what the Go project's library writes."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.interop.conftest import Upstream

pytestmark = pytest.mark.interop

VECTORS = Path(__file__).parents[2] / "schemas" / "aj_schemas" / "vectors" / "required"


def check(upstream: Upstream, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [upstream.vectors, "--check", directory], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_vectors_are_what_the_library_writes(upstream: Upstream) -> None:
    checked = check(upstream, VECTORS)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_vector_that_was_edited_is_named(upstream: Upstream, tmp_path: Path) -> None:
    copies = tmp_path / "vectors"
    shutil.copytree(VECTORS, copies)
    edited = copies / "task-state-new.json"
    vector = json.loads(edited.read_text())
    vector["decoded"]["created_ns"] += 1
    edited.write_text(json.dumps(vector, indent=2, ensure_ascii=False) + "\n")
    checked = check(upstream, copies)
    assert checked.returncode == 1
    assert "task-state-new.json differs" in checked.stderr
    assert "created_ns" in checked.stderr


def test_a_vector_that_is_missing_is_named(upstream: Upstream, tmp_path: Path) -> None:
    copies = tmp_path / "vectors"
    shutil.copytree(VECTORS, copies)
    (copies / "work-item-new.json").unlink()
    checked = check(upstream, copies)
    assert checked.returncode == 1
    assert "work-item-new.json" in checked.stderr


def test_a_vector_that_the_library_did_not_write_is_named(upstream: Upstream, tmp_path: Path) -> None:
    copies = tmp_path / "vectors"
    shutil.copytree(VECTORS, copies)
    (copies / "task-of-ours.json").write_text("{}\n")
    checked = check(upstream, copies)
    assert checked.returncode == 1
    assert "task-of-ours.json" in checked.stderr
