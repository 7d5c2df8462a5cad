"""Message headers: read without regard to case, written without what would break a header block."""

from collections.abc import Mapping
from typing import Final

__all__ = ["MAX_HEADER_BYTES", "find_header", "header_text"]

MAX_HEADER_BYTES: Final = 4096
_BREAKERS: Final = str.maketrans({"\r": " ", "\n": " ", "\0": " "})


def find_header(headers: Mapping[str, str] | None, name: str) -> str | None:
    """Return a header's value, None when it is absent; a header that is there but empty counts as there."""
    if not headers:
        return None
    value = headers.get(name)
    if value is not None:
        return value
    wanted, length = name.lower(), len(name)
    for key, value in headers.items():
        # Most often it is absent, and no other name is as long.
        if len(key) == length and key.lower() == wanted:
            return value
    return None


def header_text(text: str, limit: int = MAX_HEADER_BYTES) -> str:
    """Make text fit for a header: CR, LF and NUL become spaces, and it is cut at `limit` bytes of UTF-8."""
    # Lone surrogates (a handler may have them from bytes it could not decode) can't be encoded.
    clean = text.translate(_BREAKERS).encode("utf-8", "replace")
    if len(clean) > limit:
        clean = clean[: limit - 3] + b"..."
    return clean.decode("utf-8", "ignore").strip()
