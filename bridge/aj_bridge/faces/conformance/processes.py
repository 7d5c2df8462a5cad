"""A responder under test: a process of the user's, in a session of its own, with bounded memory of what it said."""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from aj_sdk.errors import UsageError

__all__ = ["ResponderProcess"]

_LINES: Final = 40
_LINE_BYTES: Final = 2000
_KILL_S: Final = 10.0


class ResponderProcess:
    """A running responder.

    Args:
        process: the process.
        subject: where it was told to listen.
    """

    def __init__(self, process: asyncio.subprocess.Process, subject: str) -> None:
        self._process = process
        self.subject = subject
        self.said: deque[str] = deque(maxlen=_LINES)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str], subject: str, environment: Mapping[str, str]) -> "ResponderProcess":
        """Start one.

        Raises:
            UsageError: the command can't be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        except OSError as err:
            raise UsageError(f"cannot start {command[0]!r}: {err.strerror}") from err
        return cls(process, subject)

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    def terminate(self) -> None:
        """Ask it to stop in order."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    async def ended(self, seconds: float) -> int | None:
        """Wait until it has ended; None when it has not in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        return None

    async def close(self) -> None:
        """End it with all that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.code is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            await self.ended(_KILL_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what it left behind
        self._reading.cancel()
        await asyncio.wait((self._reading,))

    async def _read(self) -> None:
        out = self._process.stdout
        if out is None:
            return
        rest = b""
        while data := await out.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[:_LINE_BYTES]
            self.said.extend(line[:_LINE_BYTES].decode("utf-8", "replace") for line in lines)
        if rest:
            self.said.append(rest.decode("utf-8", "replace"))
