"""The file of a journal: continued, bounded, and never a reason to stop working."""

import logging
import os
from pathlib import Path

import pytest

from aj_bridge.faces.journal import JournalFile, open_journal
from aj_sdk.errors import InvalidConfigError


def test_a_line_is_in_the_file_as_soon_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        journal.write(b"1\n")
        assert path.read_bytes() == b"1\n"


def test_a_journal_that_is_there_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for line in (b"1\n", b"2\n"):
        with open_journal(path) as journal:
            journal.write(line)
    assert path.read_bytes() == b"1\n2\n"


def test_a_full_file_is_put_aside_in_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = JournalFile(path, max_bytes=4)
    for line in (b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"):
        journal.write(line)
    journal.close()
    assert path.read_bytes() == b"5\n"
    assert Path(f"{path}.old").read_bytes() == b"3\n4\n"


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = JournalFile(tmp_path / "j")
    assert journal._descriptor is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._descriptor)
    os.close(full)
    with caplog.at_level(logging.ERROR):
        journal.write(b"1\n")
        journal.write(b"2\n")
    assert [record.getMessage() for record in caplog.records] == [
        f"the journal {tmp_path / 'j'} can't be written, working on without it: No space left on device"
    ]


def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "j"
    with pytest.raises(InvalidConfigError) as caught, open_journal(path):
        pass
    assert caught.value.faults == (f"cannot open the journal {path}: No such file or directory",)


def test_others_may_not_read_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path):
        assert not path.stat().st_mode & 0o007
