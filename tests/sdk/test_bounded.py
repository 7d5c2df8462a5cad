"""A file that ought to be small is read to a limit, whatever it says of its size."""

from pathlib import Path

import pytest

from aj_sdk.bounded import read_bounded


def test_a_file_of_just_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert read_bounded(tmp_path / "file", 3) == b"abc"


@pytest.mark.parametrize("endless", [False, True])
def test_a_larger_one_is_refused_in_words_and_an_endless_one_too(tmp_path: Path, *, endless: bool) -> None:
    path = Path("/dev/zero") if endless else tmp_path / "file"
    if not endless:
        path.write_bytes(b"abcd")
    with pytest.raises(OSError, match="larger than 3 bytes") as caught:
        read_bounded(path, 3)
    assert caught.value.strerror == "it is larger than 3 bytes"
