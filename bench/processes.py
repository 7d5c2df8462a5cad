"""What the benches share: workers and handlers as processes of their own, and what the system says of a process."""

import contextlib
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
UPSTREAM = HERE.parent / "interop" / "upstream"
TYPE = "bench:echo"
GO_PEERS = ("go", "go-local", "asynq")
REDIS_PEERS = ("asynq", "arq")
PACKAGES = {"taskiq": "taskiq_nats", "arq": "arq"}
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_END_S = 60.0


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def descriptors(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def quantile(spans: Sequence[float], part: float) -> float:
    """Return the value below which a part of the values lies."""
    return sorted(spans)[min(len(spans) - 1, int(len(spans) * part))]


def medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure of several rounds."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def machine(nats_server: str) -> dict[str, Any]:
    """Say on what it ran."""
    return {
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "nats_server": nats_server,
    }


@contextlib.contextmanager
def process(command: Sequence[str | Path], ready: str) -> Iterator[int]:
    """Run a process until the context is left; gives its pid once it has said that it is ready."""
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=complaints, text=True) as running,
    ):
        assert running.stdout is not None
        if ready not in running.stdout.readline():
            running.kill()
            complaints.seek(0)
            raise SystemExit(f"{command[0]} did not start:\n{complaints.read()}")
        try:
            yield running.pid
        finally:
            running.terminate()
            running.wait(_END_S)


def handler(server: str) -> contextlib.AbstractContextManager[int]:
    """Run the handler process."""
    return process([sys.executable, HERE / "handler.py", "--server", server, "--type", TYPE], "ready")


def bridge(server: str, queue: str, *options: str) -> contextlib.AbstractContextManager[int]:
    """Run `aj-bridge run` on a queue."""
    command = [sys.executable, "-m", "aj_bridge", "run", "--server", server, "--queue", queue, *options]
    return process(command, "ready: ")


def go_worker(server: str, queue: str) -> contextlib.AbstractContextManager[int]:
    """Run the Go project's worker on a queue, asking the same remote handlers."""
    command: list[str | Path] = [UPSTREAM / "bin" / "peer", "work", "--server", server, "--queue", queue, "--quiet"]
    return process([*command, "--concurrency", "100", "--mode", "remote", "--type", TYPE], "ready")


def missing(peers: Sequence[str]) -> dict[str, str]:
    """Build what peers need, and say which can't run here, and why."""
    absent: dict[str, str] = {}
    for peer in peers:
        needs = ["go"] if peer in GO_PEERS else []
        needs += ["redis-server"] if peer in REDIS_PEERS else []
        gone = [program for program in needs if shutil.which(program) is None]
        if peer in PACKAGES and importlib.util.find_spec(PACKAGES[peer]) is None:
            gone.append(f"the package {PACKAGES[peer]}")
        if gone:
            absent[peer] = f"{' and '.join(gone)} not installed"
    if {"go", "go-local"} & set(peers) - absent.keys():
        subprocess.run([str(UPSTREAM / "build")], check=True, stdout=sys.stderr)
    if "asynq" in set(peers) - absent.keys():
        build = ["go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", "bin/asynq", "."]
        subprocess.run(build, check=True, cwd=HERE / "asynq", stdout=sys.stderr)
    return absent
