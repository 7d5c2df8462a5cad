"""Reading a file that ought to be small: a device or a pipe tells no size, so it is the reading that has a limit."""

import errno
from pathlib import Path

__all__ = ["read_bounded"]


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a file of at most so many bytes.

    Raises:
        OSError: it can't be read, or is larger; `strerror` says so.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", str(path))
    return data
