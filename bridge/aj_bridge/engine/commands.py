"""Calling an external command: the task in a file, the result on standard output, the verdict in the exit code."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aj_bridge.core.exits import reply_of_exit
from aj_bridge.engine.children import ChildLimits, run_child
from aj_bridge.engine.clock import Clock
from aj_bridge.engine.progress import ProgressTeller
from aj_bridge.engine.router import Invocation, Outcome
from aj_bridge.engine.told import log_complaints, progress_lines, told_of
from aj_sdk.errors import UsageError
from aj_sdk.wire.call import Cause, Failed, Terminated, handler_deadline_ns
from aj_sdk.wire.interim import Interim
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S, format_duration

__all__ = ["Commands", "check_command"]

_log = logging.getLogger(__name__)


def check_command(path: str | Path) -> Path:
    """Return the absolute path of a command.

    Raises:
        UsageError: there is no such file, or it can't be executed.
    """
    # Absolute: what a relative one means must not change with the working directory.
    command = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - without following links
    if not command.is_file():
        raise UsageError(f"command {path}: there is no such file")
    if not os.access(command, os.X_OK):
        raise UsageError(f"command {path}: the file can't be executed; chmod +x makes it so")
    return command


class Commands:
    """`Dispatch` by running the route's command.

    The command finds the path of a file with the task in `CHORIA_AJ_TASK`. It is told to end at the deadline that a
    remote handler has, and killed with its process group when the run time is over. Progress that it writes to
    descriptor 3 gives it its whole time again, as with a remote handler.

    Args:
        clock: the time.
        teller: tells others of the progress.
        max_output: bytes that it may print; more ends the task.
        environ: the environment that it gets beside what tells of the task.
    """

    def __init__(self, clock: Clock, teller: ProgressTeller, *, max_output: int, environ: Mapping[str, str]) -> None:
        self._clock = clock
        self._teller = teller
        self._max_output = max_output
        self._environ = environ

    async def call(self, invocation: Invocation) -> Outcome:
        """See `Dispatch`."""
        command = invocation.route.command
        assert command is not None
        now_ns = self._clock.now_ns()
        give_up_ns = now_ns + invocation.run_time_ns
        deadline_ns = handler_deadline_ns(now_ns, give_up_ns)
        span_s = (deadline_ns - now_ns) / NS_PER_S
        limits = ChildLimits(max_output=self._max_output, kill_after=(give_up_ns - deadline_ns) / NS_PER_S)
        try:
            with _task_file(invocation.task) as path:
                told = told_of(
                    invocation.task, invocation=invocation.id, deadline_ns=deadline_ns, trace=invocation.trace
                )
                environ = {**self._environ, **told, "CHORIA_AJ_TASK": str(path)}
                fields = _fields(invocation.task)
                async with asyncio.timeout(span_s) as patience:

                    def on_progress(interim: Interim) -> None:
                        if interim.fraction is not None and not patience.expired():
                            patience.reschedule(asyncio.get_running_loop().time() + span_s)
                            self._teller.tell(invocation, interim)

                    ended = await run_child(
                        [command],
                        limits=limits,
                        environ=environ,
                        on_error_line=log_complaints(command.name, _log, fields),
                        on_progress_line=progress_lines(command.name, _log, on_progress, fields),
                    )
        except TimeoutError:
            waited = format_duration(deadline_ns - now_ns)
            return Failed(f"the command did not end within {waited}, and was ended", cause=Cause.DEADLINE)
        except OSError as err:
            return Failed(f"the command could not be started: {err.strerror or err}")
        if ended.overflow:
            return Terminated(f"the command printed more than {self._max_output} bytes")
        return reply_of_exit(ended.code, ended.output, ended.complaint)


@contextmanager
def _task_file(task: TaskRecord) -> Iterator[Path]:
    """Write a task into a file that only this user can read, in a folder of its own, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="aj-task-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "task.json"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(task.to_wire())
        yield path


def _fields(task: TaskRecord) -> dict[str, object]:
    return {"task_id": task.id, "task_type": task.type, "queue": task.queue, "tries": task.tries}
