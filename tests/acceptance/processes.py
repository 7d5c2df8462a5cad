"""Real processes: start them, wait for what they say, signal them, and leave none behind.

Knows the commands of our programs and of the responders of interop/; knows nothing of tasks. Each stream of a process
is read by a thread, so that a process may outlive the event loop of one test.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Final, NoReturn, TypeVar

import pytest
from tests.interop.responders import build

__all__ = ["Crew", "Process"]

T = TypeVar("T")
Patience = Callable[[float], float]

READY_S: Final = 30.0
_WAIT_S: Final = 30.0
_END_S: Final = 30.0
_READ_UP_S: Final = 5.0
_SHOWN_LINES: Final = 60
_HANDLERS: Final = Path(__file__).with_name("handlers.py")
_DEFECTS: Final = ("Traceback (most recent call last)", "a defect of the bridge", "Task exception was never retrieved")


class _Lines:
    """The lines of a stream, those that came and those that will."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._waiters: list[tuple[re.Pattern[str], int, Future[list[str]]]] = []
        self._over = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def all(self) -> list[str]:
        with self._lock:
            return list(self._lines)

    def matching(self, pattern: str, count: int) -> Future[list[str]]:
        """Give the first `count` lines in which a pattern is found, once they are there."""
        waiter: Future[list[str]] = Future()
        compiled = re.compile(pattern)
        with self._lock:
            if not self._answered(compiled, count, waiter):
                self._waiters.append((compiled, count, waiter))
        return waiter

    def read_up(self, seconds: float | None = None) -> None:
        self._thread.join(seconds)

    def close(self) -> None:
        self.read_up()
        self._stream.close()

    def _read(self) -> None:
        for line in self._stream:
            self._take(line.rstrip("\n"))
        with self._lock:
            self._over = True
            self._look()

    def _take(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)
            self._look()

    def _look(self) -> None:
        self._waiters = [waiter for waiter in self._waiters if not self._answered(*waiter)]

    def _answered(self, pattern: re.Pattern[str], count: int, waiter: Future[list[str]]) -> bool:
        if waiter.cancelled():
            return True
        found = [line for line in self._lines if pattern.search(line)]
        if len(found) >= count:
            waiter.set_result(found[:count])
        elif self._over:
            waiter.set_exception(EOFError())
        return waiter.done()


class Process:
    """A running process.

    Args:
        name: for messages.
        command: what to run.
        settings: environment variables beside those of the tests.
        patience: turns seconds into those of this machine.
    """

    def __init__(self, name: str, command: Sequence[str | Path], settings: dict[str, str], patience: Patience) -> None:
        self.name = name
        self.ended_at: float | None = None
        self._patience = patience
        self._process = subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,  # a Ctrl-C in the terminal is for pytest, which ends us in order
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out = _Lines(self._process.stdout)
        self._err = _Lines(self._process.stderr)
        self._exit: Future[int] = Future()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        code = self._process.wait()
        self.ended_at = time.monotonic()
        # So that whoever learns of the end finds all that was said; a pipe that somebody inherited stays open.
        for lines in (self._out, self._err):
            lines.read_up(_READ_UP_S)
        self._exit.set_result(code)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return not self._exit.done()

    @property
    def out(self) -> list[str]:
        """Its standard output so far."""
        return self._out.all

    @property
    def err(self) -> list[str]:
        """Its standard error so far."""
        return self._err.all

    # Waiting. The first form is for tests, the second for fixtures, which have no event loop.

    async def says(self, pattern: str, *, count: int = 1, seconds: float = _WAIT_S) -> str:
        """Wait for the n-th line of standard output in which a pattern is found, one that came before included."""
        waiter = self._out.matching(pattern, count)
        return (await self._patiently(asyncio.wrap_future(waiter), f"say {pattern!r}", seconds))[-1]

    async def logs(self, pattern: str, *, count: int = 1, seconds: float = _WAIT_S) -> str:
        """As `says`, on standard error."""
        waiter = self._err.matching(pattern, count)
        return (await self._patiently(asyncio.wrap_future(waiter), f"log {pattern!r}", seconds))[-1]

    async def ended(self, *, seconds: float = _END_S) -> int:
        """Wait until it has ended, and return its exit code (negative for a signal)."""
        return await self._patiently(asyncio.wrap_future(self._exit), "end", seconds)

    def wait_says(self, pattern: str, *, seconds: float = READY_S) -> str:
        waiter = self._out.matching(pattern, 1)
        try:
            return waiter.result(self._patience(seconds))[-1]
        except (TimeoutError, EOFError):
            self.fail(f"did not say {pattern!r}")

    async def _patiently(self, waiter: asyncio.Future[T], what: str, seconds: float) -> T:
        try:
            async with asyncio.timeout(self._patience(seconds)):
                return await waiter
        except TimeoutError:
            self.fail(f"did not {what} within {self._patience(seconds):g} s")
        except EOFError:
            self.fail(f"ended and did not {what}")

    def fail(self, what: str) -> NoReturn:
        """Fail the test, showing what the process said last."""
        shown = "\n".join(
            f"--- {stream}\n" + "\n".join(lines[-_SHOWN_LINES:])
            for stream, lines in (("stdout", self.out), ("stderr", self.err))
        )
        pytest.fail(f"{self.name} {what}\n{shown}", pytrace=False)

    # Doing something to it.

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill it as a crash would; returns when it is gone."""
        self._process.kill()
        self._exit.result()

    def pause(self) -> None:
        """Freeze it; returns when it stands."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, whatever it does, and let go of its streams."""
        if self.running:
            self._process.kill()
        self._watcher.join()
        self._out.close()
        self._err.close()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # something we told it may be on its way still
            self._process.stdin.close()


class Crew:
    """The processes around one server; none is left when it is closed.

    Args:
        url: of the server.
        folder: for what the handlers write down.
        patience: turns seconds into those of this machine.
        copies: that the bridges' queues and the task store have.
    """

    def __init__(self, url: str, folder: Path, patience: Patience, copies: int = 1) -> None:
        self.url = url
        self._copies = copies
        self.journal = folder / "journal.jsonl"
        self.patience = patience
        self._processes: list[Process] = []

    def start(self, name: str, *command: str | Path, **settings: str) -> Process:
        """Start any program."""
        process = Process(f"{name} {len(self._processes) + 1}", command, settings, self.patience)
        self._processes.append(process)
        return process

    def bridge(self, queue: str, *options: str, lease: str = "1s", create: bool = True) -> Process:
        """Start `aj-bridge run`; it is ready when it said so."""
        command = [sys.executable, "-m", "aj_bridge", "run", "--server", self.url, "--queue", queue]
        if create:
            command += ["--create", "--lease", lease]
            command += ["--replicas", str(self._copies)] if self._copies > 1 else []
        return self.start("bridge", *command, *options)

    def handlers(self, *types: str, **settings: str) -> Process:
        """Start a process with Python handlers of these types, see `handlers.py`; it is ready when it said so."""
        given = {"AJ_TEST_JOURNAL": str(self.journal), "AJ_SERVER": self.url, **settings}
        return self.start("handlers", sys.executable, _HANDLERS, *types, **given)

    def responder(self, language: str, task_type: str) -> Process:
        """Start the responder of another language; it is ready when it said so."""
        return self.start(language, build(language) / "run", NATS_URL=self.url, AJ_TYPE=task_type)

    def running(self, name: str) -> list[Process]:
        """Give the processes of a kind that run: `bridge`, `handlers`, a language."""
        return [process for process in self._processes if process.name.startswith(f"{name} ") and process.running]

    def ready(self, *processes: Process) -> None:
        """Wait until processes are ready, for fixtures."""
        for process in processes:
            process.wait_says("ready")

    def close(self) -> None:
        """End all that run, show what they said for the case that the test failed, and look for defects."""
        for process in self._processes:
            process.close()
        defects = []
        for process in self._processes:
            sys.stderr.write(f"=== {process.name}, exit code {process._process.returncode}\n")
            sys.stderr.writelines(f"{line}\n" for line in process.err[-_SHOWN_LINES:])
            if process.name.startswith("bridge"):
                defects += [f"{process.name}: {line}" for line in process.err if any(sign in line for sign in _DEFECTS)]
        self._processes.clear()
        assert not defects, "\n".join(defects)
