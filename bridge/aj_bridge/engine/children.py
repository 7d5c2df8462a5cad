"""One run of an external program, with bounds: what it may print, and that nothing of it is left behind.

Knows processes and pipes; knows nothing of tasks. Used where a bridge runs commands itself and by
`aj-bridge respond -- COMMAND`.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["PROGRESS_FD", "ChildEnded", "ChildLimits", "run_child"]

PROGRESS_FD: Final = 3
"""The descriptor on which a child may write lines beside its output, when somebody wants them."""

_MAX_LINE: Final = 8192
_CHUNK: Final = 1 << 16
_READ_UP_S: Final = 1.0
_LOOK_S: Final = 0.2

# A shell moves the pipe to descriptor 3, because neither asyncio nor uvloop lets us choose the number: a function of
# our own between fork and exec is not safe in a process with threads. By its path, as dash knows only one digit.
_WITH_PROGRESS: Final = 'fd=$1; shift; exec "$@" 3>"/dev/fd/$fd"'

Take = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """What a child may do.

    Attributes:
        max_output: bytes that it may print on standard output; one that prints more is ended.
        kill_after: seconds between SIGTERM and SIGKILL when it has to end.
    """

    max_output: int
    kill_after: float = 5.0


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """How a child ended.

    Attributes:
        code: its exit code; minus the number of the signal that ended it.
        output: what it printed on standard output, up to the limit.
        overflow: whether it printed more than it may; then it was ended.
        complaint: the last line that was not empty on standard error, empty for none.
    """

    code: int
    output: bytes
    overflow: bool
    complaint: str


async def run_child(
    command: Sequence[str | Path],
    *,
    limits: ChildLimits,
    stdin: bytes = b"",
    environ: Mapping[str, str],
    on_error_line: Take,
    on_progress_line: Take | None = None,
) -> ChildEnded:
    """Run a program in a process group of its own, to its end.

    Cancelled, it sends the group SIGTERM, waits, sends SIGKILL to what is left of it, and only then passes the
    cancellation on. A child that leaves others behind which hold its output is waited for as long as it lives itself;
    then they are ended too.

    Args:
        command: the program and its arguments; no shell reads them.
        limits: what it may do.
        stdin: what it finds on standard input.
        environ: its whole environment.
        on_error_line: called with each line of standard error, as it comes, without its end; long ones are cut.
        on_progress_line: the same for descriptor 3; None: the child has no such descriptor.

    Raises:
        OSError: the program could not be started.
    """
    argv = [str(part) for part in command]
    output = _Output(limits.max_output)
    complaint = _LastLine(on_error_line)
    if on_progress_line is None:
        process = await _start(argv, environ)
        await _follow(process, limits, stdin, output, complaint)
    else:
        with _ProgressPipe(on_progress_line) as pipe:
            process = await _start(
                ["/bin/sh", "-c", _WITH_PROGRESS, "sh", str(pipe.writer), *argv], environ, pipe.writer
            )
            pipe.passed_on()
            await _follow(process, limits, stdin, output, complaint)
            pipe.read_up()
    assert process.returncode is not None
    return ChildEnded(process.returncode, bytes(output.data), output.overflow, complaint.text)


async def _start(argv: list[str], environ: Mapping[str, str], *passed: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environ),
        pass_fds=passed,
        start_new_session=True,
    )


async def _follow(
    process: asyncio.subprocess.Process, limits: ChildLimits, stdin: bytes, output: "_Output", complaint: "_LastLine"
) -> None:
    """See a child to its end, or end it when we are cancelled."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = [
        asyncio.create_task(_feed(process.stdin, stdin)),
        asyncio.create_task(output.read(process.stdout)),
        asyncio.create_task(_read_lines(process.stderr, complaint)),
    ]
    try:
        await _until_over(process, output)
        if output.overflow:
            await _end(process, limits.kill_after)
        _, left = await asyncio.wait(pipes, timeout=_READ_UP_S)
        if left:
            # Somebody else holds its pipes: what it left running in the background, in its own group.
            _signal(process, signal.SIGKILL)
            await asyncio.wait(pipes, timeout=_READ_UP_S)
    except BaseException:
        await _end(process, limits.kill_after)
        raise
    finally:
        # The only way to close our ends, where somebody in a session of his own holds the others.
        process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001
        for task in pipes:
            task.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)


async def _until_over(process: asyncio.subprocess.Process, output: "_Output") -> None:
    ended = asyncio.create_task(_exited(process))
    full = asyncio.create_task(output.full.wait())
    try:
        await asyncio.wait((ended, full), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (ended, full):
            task.cancel()
        await asyncio.gather(ended, full, return_exceptions=True)


async def _end(process: asyncio.subprocess.Process, kill_after: float) -> None:
    """End a child with all its group; returns when it is gone. Cancelled, it does not wait for it to end in order."""
    _signal(process, signal.SIGTERM)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(kill_after):
                await _exited(process)
    finally:
        # Also when it has ended by itself: its own children may not have heard, or not have cared.
        _signal(process, signal.SIGKILL)
    await _exited(process)


async def _exited(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of the process itself; asyncio's own `wait` also waits for whoever else holds its pipes."""
    waiting = asyncio.create_task(process.wait())
    try:
        while process.returncode is None:
            await asyncio.wait({waiting}, timeout=_LOOK_S)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _feed(pipe: asyncio.StreamWriter, data: bytes) -> None:
    # A child need not read what it is given.
    with contextlib.suppress(OSError):
        pipe.write(data)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


class _Output:
    """Standard output, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.full = asyncio.Event()
        self._limit = limit

    @property
    def overflow(self) -> bool:
        return self.full.is_set()

    async def read(self, pipe: asyncio.StreamReader) -> None:
        while chunk := await pipe.read(_CHUNK):
            room = self._limit - len(self.data)
            self.data += chunk[:room]
            if len(chunk) > room:
                self.full.set()  # and read on, so that the child finds its end rather than a full pipe


class _LastLine:
    """Remembers the last line that says something."""

    def __init__(self, take: Take) -> None:
        self.text = ""
        self._take = take

    def __call__(self, line: str) -> None:
        if line.strip():
            self.text = line.strip()
        self._take(line)


class _Splitter:
    """Cuts bytes into lines, and long lines off."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._begun = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._add(line)
            self._flush()
        self._add(rest)

    def close(self) -> None:
        if self._begun:
            self._flush()

    def _add(self, part: bytes) -> None:
        room = _MAX_LINE - len(self._begun)
        self._begun += part[:room]
        self._cut = self._cut or len(part) > room

    def _flush(self) -> None:
        text = self._begun.decode("utf-8", "backslashreplace").rstrip("\r")
        self._take(f"{text} ..." if self._cut else text)
        self._begun.clear()
        self._cut = False


async def _read_lines(pipe: asyncio.StreamReader, take: Take) -> None:
    splitter = _Splitter(take)
    while data := await pipe.read(_CHUNK):
        splitter.feed(data)
    splitter.close()


class _ProgressPipe:
    """A pipe whose lines are taken as they come, while the context is open."""

    def __init__(self, take: Take) -> None:
        self._splitter = _Splitter(take)
        self._loop = asyncio.get_running_loop()
        self.reader, self.writer = os.pipe()
        self._open = {self.reader, self.writer}

    def __enter__(self) -> Self:
        os.set_blocking(self.reader, False)
        self._loop.add_reader(self.reader, self._read)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.remove_reader(self.reader)
        for end in self._open:
            os.close(end)

    def passed_on(self) -> None:
        """Close our copy of the writing end: the child has its own now."""
        self._open.remove(self.writer)
        os.close(self.writer)

    def read_up(self) -> None:
        """Take what is there now."""
        while self._read():
            pass
        self._splitter.close()

    def _read(self) -> bool:
        try:
            data = os.read(self.reader, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self.reader)
        self._splitter.feed(data)
        return bool(data)
