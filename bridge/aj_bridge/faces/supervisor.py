"""`aj-bridge run --workers N`: several bridges as processes of their own under one that watches them.

The supervisor starts them, starts again who ends without being told to, passes signals on and answers for all of them
on one monitoring port. It takes no task itself. The first worker is started alone: what is wrong with the settings, the
server or the queues then shows once, and ends the command as without workers.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from aj_bridge.core.retry import RetryPolicy
from aj_bridge.faces.channel import ENV, Hello, Question, SupervisorEnd, Word
from aj_bridge.faces.metrics import Family, Kind, Metrics
from aj_bridge.faces.monitor import merged
from aj_sdk.wire.times import NS_PER_S

__all__ = ["FAMILIES", "RESTARTS", "Supervisor"]

_log = logging.getLogger(__name__)

RESTARTS: Final = RetryPolicy.exponential(timedelta(seconds=1), timedelta(seconds=30))
"""How long a worker that ended waits before it is started again; one that lived for a minute begins anew."""

_WORKERS: Final = "bridge_workers"
_RESTARTED: Final = "bridge_worker_restarts_total"
FAMILIES: Final = (
    Family(Kind.GAUGE, _WORKERS, "Worker processes that are ready for work."),
    Family(Kind.COUNTER, _RESTARTED, "Worker processes that ended without being told to, and were started again."),
)

_STEADY_S: Final = 60.0
_ANSWER_S: Final = 2.0
_FAILED: Final = 1


class _Worker:
    """A running worker process."""

    def __init__(self, process: asyncio.subprocess.Process, end: SupervisorEnd) -> None:
        self.end = end
        self._process = process
        self._reading = asyncio.create_task(end.read())

    @classmethod
    async def start(cls, command: Sequence[str], hello: Hello) -> "_Worker":
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, ENV: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor, which passes it on
            )
        return cls(process, SupervisorEnd(ours, hello))

    async def ended(self) -> int:
        """Wait until it has ended and all it said is read; returns its exit code, negative for a signal."""
        code = await self._process.wait()
        await self._reading
        return code

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


class Supervisor:
    """The workers of one command.

    Args:
        command: starts a worker.
        count: how many there are.
        server: URL of the server that runs beside them; empty for none.
    """

    def __init__(self, command: Sequence[str], count: int, server: str = "") -> None:
        self._command = command
        self._count = count
        self._server = server
        self._metrics = Metrics(FAMILIES)
        self._workers: dict[int, _Worker] = {}
        self._absent: dict[int, str] = {}
        self._stopping = asyncio.Event()
        self._codes: list[int] = []
        self._proven = False

    async def run(self, on_ready: Callable[[], None]) -> int:
        """Keep the workers running until they are told to stop.

        Args:
            on_ready: called once, when all are ready for the first time.

        Returns:
            The exit code for the command: the greatest of those of the workers; 0 when all drained in time.
        """
        started = [asyncio.Event() for _ in range(self._count)]
        async with asyncio.TaskGroup() as slots:
            slots.create_task(self._keep(1, started[0]))
            await started[0].wait()
            for number, event in enumerate(started[1:], 2):
                slots.create_task(self._keep(number, event))
            for event in started:
                await event.wait()
            if not self._stopping.is_set():
                on_ready()
        return max(self._codes, default=0)

    def stop(self) -> None:
        """Let the workers drain; the second time, let them end what they have in hand."""
        self._stopping.set()
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)

    async def exposition(self) -> bytes:
        """Return the metrics of all workers that answer, and our own, told apart by the label `worker`."""
        self._metrics.set(_WORKERS, sum(worker.end.ready.is_set() for worker in self._workers.values()))
        pages = {str(number): page for number, page in (await self._ask(Question.METRICS)).items() if page is not None}
        return merged({**pages, "supervisor": self._metrics.exposition()}, "worker")

    async def fault(self) -> str | None:
        """Say what is wrong with any of them."""
        faults = [f"worker {number} {how}" for number, how in self._absent.items()]
        for number, answer in (await self._ask(Question.FAULT)).items():
            if answer is None:
                faults.append(f"worker {number} does not answer")
            elif answer:
                faults.append(f"worker {number}: {answer.decode()}")
        return "; ".join(faults) or None

    async def _ask(self, question: Question) -> dict[int, bytes | None]:
        asked = dict(sorted(self._workers.items()))
        answers = await asyncio.gather(*(worker.end.ask(question, _ANSWER_S) for worker in asked.values()))
        return dict(zip(asked, answers, strict=True))

    async def _keep(self, number: int, started: asyncio.Event) -> None:
        """Run one worker after the other, until we are told to stop, or the worker itself was.

        Args:
            number: which.
            started: set when the first is ready, or there is nothing to wait for any more.
        """
        loop = asyncio.get_running_loop()
        failures = 0
        try:
            while not self._stopping.is_set():
                began = loop.time()
                worker = await self._start(number)
                code = await self._until_ended(worker, started)
                del self._workers[number]
                if self._stopping.is_set() or Word.DRAINED in worker.end.words:
                    told_early = code == -signal.SIGTERM and not worker.end.ready.is_set()
                    self._codes.append(0 if told_early else _exit_code(code))
                    if not self._stopping.is_set():
                        _log.info("worker %d was drained, and stays away", number)
                    return
                if not self._proven:
                    self._codes.append(_exit_code(code) or _FAILED)
                    self.stop()
                    return
                failures = 0 if loop.time() - began > _STEADY_S else failures
                pause_s = RESTARTS.duration_ns(failures, random.random) / NS_PER_S
                self._absent[number] = f"{_how(code)} and starts again"
                _log.error("worker %d %s, and starts again in %.1f s", number, _how(code), pause_s)
                self._metrics.inc(_RESTARTED)
                failures += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause_s)
        finally:
            started.set()

    async def _start(self, number: int) -> _Worker:
        worker = await _Worker.start(self._command, Hello(number, self._count, self._server))
        self._workers[number] = worker
        self._absent.pop(number, None)
        if self._stopping.is_set():  # told while it began
            worker.signal(signal.SIGTERM)
        return worker

    async def _until_ended(self, worker: _Worker, started: asyncio.Event) -> int:
        ended = asyncio.create_task(worker.ended())
        ready = asyncio.create_task(worker.end.ready.wait())
        try:
            await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
            if worker.end.ready.is_set():
                self._proven = True
                started.set()
            return await ended
        finally:
            ready.cancel()
            if not ended.done():  # we go ourselves, and not in order
                worker.signal(signal.SIGKILL)
                ended.cancel()


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def _how(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"
