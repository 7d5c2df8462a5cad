"""What is installed is locked: the locks fit the project, hold by hashes, and a release is the same bytes each time."""

import json
import shutil
import subprocess
import sys
import tomllib
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "requirements"
USES: Final = {
    "demo": ("bridge", "embedded"),
    "dev": ("dev",),
    "bench": ("dev", "bench"),
    "release": ("all",),
}


def script(name: str) -> ModuleType:
    spec = util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit: Final = script("audit")
release: Final = script("release")


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """Return what the project asks for, extras of its own followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    requirements = list(map(Requirement, found))
    own = [each for each in requirements if each.name == project["name"]]
    others = [each for each in requirements if each.name != project["name"]]
    return others + [more for each in own for more in wanted(tuple(each.extras))]


@pytest.mark.parametrize("use", USES)
def test_a_lock_has_what_the_project_asks_for(use: str) -> None:
    pinned = {canonicalize_name(name): version for name, version, _, _ in release.locked(FOLDER / f"{use}.txt")}
    missing = [
        str(each)
        for each in wanted(USES[use])
        if not each.specifier.contains(pinned.get(canonicalize_name(each.name), "0"), prereleases=True)
        or canonicalize_name(each.name) not in pinned
    ]
    assert missing == [], "run: make lock"


def test_each_locked_package_is_held_by_a_hash_and_above_the_floors() -> None:
    assert audit.faults(ROOT) == []


def test_a_package_without_a_hash_and_an_old_one_are_found(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    shutil.copytree(
        ROOT / "interop",
        tmp_path / "interop",
        ignore=shutil.ignore_patterns("node_modules", "target", "bin", "*.class"),
    )
    lock = f"aiohttp==3.9.0 \\\n    --hash=sha256:{'0' * 64}\nclick==8.5.1\n"
    (tmp_path / "requirements" / "dev.txt").write_text(lock)
    assert audit.faults(tmp_path) == [
        "dev.txt: aiohttp 3.9.0 is older than 3.12.14: CVE-2025-53643",
        "dev.txt: click 8.5.1 is not held by a hash (in Maven: by a version)",
    ]


def test_a_database_that_can_not_be_asked_is_named_and_counts_as_no_answer() -> None:
    assert audit.ask("aj-no-such-tool", (), ROOT) == (None, "it is not installed")
    unreachable = "import sys; sys.exit('dial tcp: no such host')"
    assert audit.ask(sys.executable, ("-c", unreachable), ROOT)[0] is None
    assert audit.ask(sys.executable, ("-c", "import sys; sys.exit('1 advisory')"), ROOT) == (False, "1 advisory")


@pytest.mark.packaging
def test_a_release_is_the_same_bytes_each_time_and_its_bill_names_all_that_users_get(tmp_path: Path) -> None:
    archives = []
    for name in ("first", "second"):
        command = [sys.executable, str(FOLDER / "release.py"), str(tmp_path / name)]
        subprocess.run(
            command, check=True, capture_output=True, env={"PATH": "/usr/bin", "SOURCE_DATE_EPOCH": "1700000000"}
        )
        archives.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert archives[0] == archives[1]
    [bill_name] = [name for name in archives[0] if name.endswith(".cdx.json")]
    bill: dict[str, Any] = json.loads(archives[0][bill_name])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    named = {component["name"]: component for component in bill["components"]}
    assert {canonicalize_name(each.name) for each in wanted(("all",))} <= {canonicalize_name(name) for name in named}
    assert all(component["externalReferences"] for component in named.values())
