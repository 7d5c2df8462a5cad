"""Whether processes are gone that no test has started itself."""

import os
import select


def gone(pid: int) -> bool:
    """Wait until a process has ended, for a while; one that nobody has waited for yet has ended, too."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 30)[0])
    finally:
        os.close(descriptor)
