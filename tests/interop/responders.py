"""Build and start the responders of interop/: processes that answer tasks, each in a language of its own.

Knows their folders, their two scripts and their environment variables; knows nothing of what they are asked.
"""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

TOOLCHAINS: Final = {"go": "go", "node": "npm", "rust": "cargo", "java": "mvn"}
"""Language to the program that its `build` needs."""


class Minimal(NamedTuple):
    """The least that a handler needs: its file, and what runs it in its folder once that is built."""

    source: str
    command: tuple[str, ...]


MINIMAL: Final = {
    "go": Minimal("minimal/main.go", ("bin/minimal",)),
    "node": Minimal("minimal.js", ("node", "minimal.js")),
    "rust": Minimal("src/minimal.rs", ("target/debug/minimal",)),
    "java": Minimal("src/main/java/Minimal.java", ("java", "-cp", "target/classes:target/lib/*", "Minimal")),
}

INTEROP: Final = Path(__file__).parents[2] / "interop"
BUILD_TIMEOUT: Final = 600  # seconds; a first build fetches the NATS client
STOP_TIMEOUT: Final = 30


@functools.cache
def build(language: str) -> Path:
    """Build the responder, once a session, and return its folder; skip where its toolchain is missing (CI: fail)."""
    if shutil.which(TOOLCHAINS[language]) is None:
        reason = f"no {TOOLCHAINS[language]} on the PATH, so the responder in {language} is not tried"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = INTEROP / language
    built = subprocess.run(
        [folder / "build"], capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False, stdin=subprocess.DEVNULL
    )
    if built.returncode != 0:
        pytest.fail(f"interop/{language}/build failed:\n{built.stdout}{built.stderr}")
    return folder


class Responder:
    """A running responder.

    Args:
        language: a key of `TOOLCHAINS`.
        command: what runs it, in its folder.
        url: of the server.
        settings: its other environment variables.
    """

    def __init__(self, language: str, command: Sequence[str], url: str, settings: Mapping[str, str]) -> None:
        self.language = language
        folder = build(language)
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "NATS_URL": url, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> str:
        """Wait until it says that it listens, and return the subject."""
        assert self.process.stdout is not None
        word, _, subject = self.process.stdout.readline().rstrip("\n").partition(" ")
        if word != "ready":
            self.process.kill()
            pytest.fail(f"the responder in {self.language} did not get ready: {self.process.communicate()}")
        return subject

    def terminate(self) -> None:
        """Ask it to stop in order, without waiting."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> tuple[int, str]:
        """Wait until it has ended; return its exit code and what it said on stderr."""
        _, complaints = self.process.communicate(timeout=STOP_TIMEOUT)
        return self.process.returncode, complaints


def responder(language: str, url: str, **settings: str) -> contextlib.AbstractContextManager[Responder]:
    """Start the responder of a language, as `running` does."""
    return running(language, ["./run"], url, **settings)


@contextlib.contextmanager
def running(language: str, command: Sequence[str], url: str, **settings: str) -> Iterator[Responder]:
    """Start a responder, not waiting until it is ready; it is gone at the end, whatever the test did."""
    started = Responder(language, command, url, settings)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.communicate()
