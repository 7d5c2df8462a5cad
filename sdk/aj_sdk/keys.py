"""Signing keys as people keep them: hex text, or a file with it. An empty or malformed one is an error, never "off".

Source of the forms: clientOpts in the Go project's ajc/task_command.go, and its client's options.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from aj_sdk.bounded import read_bounded
from aj_sdk.errors import UsageError
from aj_sdk.wire.signing import Signer

__all__ = ["load_key", "load_seed", "new_seed", "save_seed"]

_KEY_BYTES: Final = 32
_MAX_FILE: Final = 4096
_MAX_SHOWN: Final = 200


def load_key(given: str) -> str:
    """Return a public key in hex.

    Args:
        given: 32 bytes in hex, or the path of a file with them.

    Raises:
        UsageError: it is neither.
    """
    return _checked(given, "public key", (_KEY_BYTES,))


def load_seed(given: str) -> str:
    """Return the seed of a signing key in hex.

    Args:
        given: the 32-byte seed in hex, or the 64 bytes of seed and public key that Go calls a private key, or the path
            of a file with either.

    Raises:
        UsageError: it is none of these.
    """
    found = _checked(given, "signing seed", (_KEY_BYTES, 2 * _KEY_BYTES))
    seed, public = found[: 2 * _KEY_BYTES], found[2 * _KEY_BYTES :]
    if public and Signer(seed).public_key_hex != public:
        raise UsageError("the signing seed and the public key beside it do not belong together")
    return seed


def new_seed() -> str:
    """Make the seed of a new signing key, in hex."""
    return secrets.token_hex(_KEY_BYTES)


def save_seed(path: Path, seed_hex: str) -> None:
    """Write a seed into a new file that only its owner can read.

    Raises:
        UsageError: the file is there already, or can't be written.
    """
    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600), encoding="ascii") as file:
            file.write(seed_hex)  # no newline: the Go project takes none
    except OSError as err:
        raise UsageError(f"cannot write {path}: {err.strerror}") from None


def _checked(given: str, what: str, sizes: tuple[int, ...]) -> str:
    text = given.strip()
    if not text:
        raise UsageError(f"the {what} is empty; give hex text or a file with it, or leave the setting out")
    if (key := _hex(text, sizes)) is not None:
        return key
    size = " or ".join(map(str, sizes))
    try:
        if "\0" in text or not Path(text).expanduser().is_file():
            raise UsageError(f"the {what} must be {size} bytes in hex, or a file with them")
        content = read_bounded(Path(text).expanduser(), _MAX_FILE).decode("ascii", "replace").strip()
    except (OSError, RuntimeError) as err:
        reason = getattr(err, "strerror", None) or err
        # What is too long for a path may be a secret, and is not repeated.
        shown = text if len(text) <= _MAX_SHOWN else "its file"
        raise UsageError(f"the {what} can't be read from {shown}: {reason}") from None
    if (key := _hex(content, sizes)) is None:
        raise UsageError(f"the file {text} does not hold a {what}: that is {size} bytes in hex")
    return key


def _hex(text: str, sizes: tuple[int, ...]) -> str | None:
    # What is refused is not repeated: it may be most of a secret.
    try:
        key = bytes.fromhex(text)
    except ValueError:
        return None
    return key.hex() if len(key) in sizes and len(text) == 2 * len(key) else None
