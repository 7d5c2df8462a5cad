"""Signing keys as people keep them."""

import stat
from pathlib import Path

import pytest

from aj_sdk.errors import UsageError
from aj_sdk.keys import load_key, load_seed, new_seed, save_seed
from aj_sdk.wire.signing import Signer

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # RFC 8032, section 7.1, test 1


def test_a_key_is_hex_or_a_file_with_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(PUBLIC.upper() + "\n")
    assert load_key(PUBLIC) == load_key(f" {PUBLIC} ") == load_key(str(file)) == PUBLIC


def test_a_seed_may_come_with_its_public_key_as_go_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "private"
    file.write_text(SEED + PUBLIC)
    assert load_seed(SEED) == load_seed(SEED + PUBLIC) == load_seed(str(file)) == SEED
    with pytest.raises(UsageError, match="do not belong together"):
        load_seed(SEED + SEED)


@pytest.mark.parametrize("given", ["", "  ", "zz", PUBLIC[:-2], PUBLIC + "00", "\0", "/no/such/file", PUBLIC[:-1]])
def test_a_key_that_is_none_is_an_error_and_is_not_repeated(given: str) -> None:
    for load in (load_key, load_seed):
        with pytest.raises(UsageError) as caught:
            load(given)
        assert len(given) < 8 or given not in str(caught.value)


@pytest.mark.parametrize("content", ["", "not hex", PUBLIC[:-2], PUBLIC * 100])
def test_a_file_that_holds_no_key_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(UsageError, match=str(file)):
        load_key(str(file))


def test_a_new_seed_is_written_for_its_owner_alone_and_never_over_another(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    seed = new_seed()
    save_seed(file, seed)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_seed(str(file)) == seed
    assert len(Signer(seed).public_key_hex) == 64
    with pytest.raises(UsageError, match="exists"):
        save_seed(file, new_seed())
    assert load_seed(str(file)) == seed
    with pytest.raises(UsageError, match="cannot write"):
        save_seed(tmp_path / "away" / "seed", seed)


def test_a_key_file_that_is_too_large_is_refused_instead_of_read(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"0" * 5000)
    with pytest.raises(UsageError, match="it is larger than 4096 bytes"):
        load_key(str(large))
