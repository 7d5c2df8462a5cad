"""What the end of a command means for its task."""

import signal
from typing import Final

from aj_sdk.wire.call import Completed, Failed, Reply, Terminated, clip_error

__all__ = ["EXIT_RETRY", "EXIT_TERMINATE", "reply_of_exit"]

EXIT_RETRY: Final = 75
"""EX_TEMPFAIL of sysexits.h: not now, try again."""

EXIT_TERMINATE: Final = 78
"""EX_CONFIG of sysexits.h: no other try can help."""


def reply_of_exit(code: int, output: bytes, complaint: str) -> Reply:
    """Say what a command that ended by itself made of its task.

    Args:
        code: its exit code; minus the number of the signal that ended it.
        output: its standard output: the result, byte for byte.
        complaint: its last words on standard error; they become the task's error.
    """
    if code == 0:
        return Completed(output)
    ended = f"ended by {_signal_name(-code)}" if code < 0 else f"exit code {code}"
    if code in (EXIT_RETRY, EXIT_TERMINATE) and complaint:
        text = complaint
    else:
        text = f"{ended}: {complaint}" if complaint else ended
    return Terminated(clip_error(text)) if code == EXIT_TERMINATE else Failed(clip_error(text))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
