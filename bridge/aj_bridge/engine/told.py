"""What a program finds in its environment about its task, and what becomes of its complaints and its progress.

The same for commands that a bridge runs itself and for those behind `aj-bridge respond`.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from aj_sdk.wire.interim import Interim
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import format_time
from aj_sdk.wire.trace import Trace

__all__ = ["log_complaints", "progress_lines", "read_progress", "told_of"]

_MAX_LINES: Final = 1000
_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,20})?", re.ASCII)
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\t")}


def told_of(task: TaskRecord, *, invocation: str, deadline_ns: int, trace: Trace) -> dict[str, str]:
    """Return the environment variables that tell a program of its task.

    Args:
        task: the task, with this try counted.
        invocation: id of this one invocation; empty when a Go worker calls.
        deadline_ns: when the program must have ended, in nanoseconds since the epoch.
        trace: the trace context to go on with. Its variables are there without one too, and then empty: those of the
            bridge's own environment are about something else.
    """
    return {
        "CHORIA_AJ_TASK_ID": task.id,
        "CHORIA_AJ_TASK_TYPE": task.type,
        "CHORIA_AJ_TASK_TRY": str(task.tries),
        "CHORIA_AJ_QUEUE": task.queue,
        "CHORIA_AJ_INVOCATION": invocation,
        "CHORIA_AJ_DEADLINE": format_time(deadline_ns),
        "TRACEPARENT": trace.parent,
        "TRACESTATE": trace.state,
    }


def read_progress(line: str) -> tuple[float | None, str] | None:
    """Read a line of progress that a program wrote.

    Args:
        line: a share from 0 to 1, or a percentage such as `40%`, and a note if it likes; nothing at all proves life.

    Returns:
        The share, None for a sign of life only, and the note; None for a line that is neither.
    """
    first, _, note = line.strip().partition(" ")
    if not first:
        return None, ""
    number, percent = (first[:-1], 100.0) if first.endswith("%") else (first, 1.0)
    # Not everything that Python takes for a number: no nan, no underscores, no digits of other scripts.
    if not _NUMBER.fullmatch(number) or float(number) > percent:
        return None
    return float(number) / percent, note.strip()


def progress_lines(
    program: str,
    log: logging.Logger | logging.LoggerAdapter[Any],
    take: Callable[[Interim], None],
    fields: Mapping[str, object] | None = None,
) -> Callable[[str], None]:
    """Return what reads the lines that a program writes about its progress; the first that is none is logged.

    Args:
        program: its name.
        log: where to.
        take: is given what each says.
        fields: what stands beside the log's line.
    """
    complained = False

    def read(line: str) -> None:
        nonlocal complained
        progress = read_progress(line)
        if progress is not None:
            take(Interim(*progress))
        elif not complained:
            complained = True
            log.warning(
                "%s: %r on descriptor 3 is no progress: 0 to 1 or 0%% to 100%%, then a note",
                program,
                line[:100],
                extra=dict(fields or {}),
            )

    return read


def log_complaints(
    program: str, log: logging.Logger | logging.LoggerAdapter[Any], fields: Mapping[str, object] | None = None
) -> Callable[[str], None]:
    """Return what logs the lines of a program's standard error, up to a bound.

    Args:
        program: its name.
        log: where to.
        fields: what stands beside each line.
    """
    lines = 0
    extra = dict(fields or {})

    def take(line: str) -> None:
        nonlocal lines
        lines += 1
        if lines <= _MAX_LINES:
            log.info("%s: %s", program, line.translate(_ESCAPES), extra=extra)
        elif lines == _MAX_LINES + 1:
            log.warning("%s: wrote more than %d lines, the others are not logged", program, _MAX_LINES, extra=extra)

    return take
