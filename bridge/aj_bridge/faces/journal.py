"""The file of a journal: appended to, bounded, and never a reason to stop working.

Each line is one write to the end of the file, so that a bridge that is killed loses the line that it was writing at
most, and a reader never sees a part of an older one.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aj_sdk.errors import InvalidConfigError

__all__ = ["MAX_BYTES", "JournalFile", "open_journal"]

_log = logging.getLogger(__name__)

MAX_BYTES: Final = 256 << 20
"""How large the file becomes before it is put aside; with the one that was put aside before, twice that is the most."""

_MODE: Final = 0o640


class JournalFile:
    """An open journal; `open_journal` makes it.

    When it is full it is renamed to `<name>.old`, in place of the one before, and begun anew. When it can't be
    written any more, that is logged once and the bridge goes on without it.

    Args:
        path: the file.
        max_bytes: when it is full.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor: int | None = None
        self._size = 0
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, line: bytes) -> None:
        """Append a line."""
        if self._descriptor is None:
            return
        try:
            if self._size and self._size + len(line) > self._max_bytes:
                self.close()
                self._path.replace(f"{self._path}.old")
                self._open()
            written = os.write(self._descriptor, line)
        except OSError as err:
            self._give_up(err.strerror)
            return
        self._size += written
        if written != len(line):
            self._give_up("no space for a whole line")  # what came next would be spoilt by its rest

    def _give_up(self, reason: str | None) -> None:
        self.close()
        _log.error("the journal %s can't be written, working on without it: %s", self._path, reason)

    def close(self) -> None:
        """Close the file; what is written after that is lost."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


@contextmanager
def open_journal(path: Path) -> Iterator[JournalFile]:
    """Open a journal for appending; one that is there is continued.

    Raises:
        InvalidConfigError: it can't be opened; the message says why.
    """
    try:
        journal = JournalFile(path)
    except OSError as err:
        raise InvalidConfigError((f"cannot open the journal {path}: {err.strerror}",)) from None
    try:
        yield journal
    finally:
        journal.close()
