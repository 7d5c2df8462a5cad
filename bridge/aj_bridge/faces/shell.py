"""Handlers that are programs of any kind: the task on standard input, the result on standard output.

Makes `Services` of a command, which the SDK's runner then runs like any other; knows no connection.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aj_bridge.core.exits import reply_of_exit
from aj_bridge.engine.children import ChildLimits, run_child
from aj_bridge.engine.told import log_complaints, progress_lines, told_of
from aj_sdk.errors import UsageError
from aj_sdk.handling import Task
from aj_sdk.services import Services
from aj_sdk.wire.call import Failed, Reply, Terminated
from aj_sdk.wire.interim import Interim
from aj_sdk.wire.times import from_datetime

__all__ = ["Shell", "command_services", "find_program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """How a command is run.

    Attributes:
        command: the program, found, and its arguments.
        environ: its environment, beside what tells of the task.
        limits: what it may do.
        payload_only: it finds the payload's bytes on standard input, instead of the task in JSON.
    """

    command: tuple[str, ...]
    environ: Mapping[str, str]
    limits: ChildLimits
    payload_only: bool = False


def find_program(command: Sequence[str]) -> tuple[str, ...]:
    """Return a command with its program found, so that a wrong one is told before the first task comes.

    Raises:
        UsageError: there is no such program, or it can't be executed.
    """
    name, *arguments = command
    found = shutil.which(name)
    if found is None:
        what = "can't be executed; chmod +x makes it so" if Path(name).is_file() else "was not found"
        here = f"; did you mean ./{name}?" if "/" not in name and Path(name).is_file() else ""
        raise UsageError(f"command {name!r} {what}{here}")
    return (str(Path(found).absolute()), *arguments)


def command_services(types: Sequence[str], shell: Shell, *, queue_group: str) -> Services:
    """Make handlers that run a command.

    Args:
        types: what they handle: task types, prefixes such as `email:`, or the empty string for all types.
        shell: the command.
        queue_group: each request goes to one member of the group.

    Raises:
        InvalidNameError: a type may not cross the wire.
        DuplicateHandlerError: a type is named twice.
    """
    services = Services()

    async def handle(task: Task) -> Reply:
        return await _run(shell, task)

    for each in types:
        services.service(each, queue_group=queue_group)(handle)
    return services


def _telling(task: Task) -> Callable[[Interim], None]:
    def tell(interim: Interim) -> None:
        if interim.fraction is None:
            task.heartbeat()
        else:
            task.progress(interim.fraction, interim.note)

    return tell


async def _run(shell: Shell, task: Task) -> Reply:
    """Run the command for a task. Cancelled (at the deadline, or when it is not wanted), it is ended with its group."""
    program = Path(shell.command[0]).name
    deadline_ns = from_datetime(task.handler_deadline)
    told = told_of(task.record, invocation=task.invocation, deadline_ns=deadline_ns, trace=task.trace)
    try:
        ended = await run_child(
            shell.command,
            limits=shell.limits,
            stdin=task.payload_bytes if shell.payload_only else task.record.to_wire(),
            environ={**shell.environ, **told},
            on_error_line=log_complaints(program, task.log),
            on_progress_line=progress_lines(program, task.log, _telling(task)),
        )
    except OSError as err:
        return Failed(f"the command could not be started: {err.strerror or err}")
    if ended.overflow:
        return Terminated(f"the command printed more than {shell.limits.max_output} bytes")
    return reply_of_exit(ended.code, ended.output, ended.complaint)
