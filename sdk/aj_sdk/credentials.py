"""Who we are to a NATS server: answers its challenge with an nkey, a JWT and its seed, or a credentials file.

Reads files; makes no connection. nats-py's own reader of credentials files loops for ever on a file that holds no
JWT, and its reconnecting ends without a word on an error that is not its own: hence this module.
"""

import base64
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats.errors

from aj_sdk.bounded import read_bounded
from aj_sdk.context import MAX_FILE, Secret
from aj_sdk.errors import InvalidConfigError

__all__ = ["Credentials"]


class Credentials:
    """Credentials other than a user name, a password or a token.

    Args:
        creds: credentials file, read again for each connect because it may have been replaced, or its content.
        nkey: file with an nkey seed, or its content.
        user_jwt: a user's JWT.
        user_seed: the seed that belongs to `user_jwt`; None for a bearer token.

    Raises:
        InvalidConfigError: a file is missing, or holds something else; nothing secret is shown.
    """

    def __init__(
        self,
        *,
        creds: Path | Secret | None = None,
        nkey: Path | Secret | None = None,
        user_jwt: Secret | None = None,
        user_seed: Secret | None = None,
    ) -> None:
        self._creds = creds
        self._user_jwt = user_jwt
        self._user_seed = user_seed
        self._nkey_seed = _content(nkey, "nkey") if nkey else ""
        # Read once now, so that a fault shows before the first connect.
        if creds or user_jwt:
            _, seed = self._jwt_and_seed()
            if seed:
                _sign(seed, "", "creds" if creds else "user_seed")
        if nkey:
            _sign(self._nkey_seed, "", "nkey")

    def arguments(self) -> dict[str, Any]:
        """Arguments for nats-py's `connect`."""
        if self._creds or self._user_jwt:
            return {"user_jwt_cb": self._jwt, "signature_cb": self._signature}
        # Not as a file: nats-py works out the public key once only, so that a new seed would never fit it.
        return {"nkeys_seed_str": self._nkey_seed} if self._nkey_seed else {}

    def _jwt(self) -> bytes:
        with _as_nats_error():
            return self._jwt_and_seed()[0].encode()

    def _signature(self, nonce: str) -> bytes:
        with _as_nats_error():
            _, seed = self._jwt_and_seed()
            return _sign(seed, nonce, "creds") if seed else b""

    def _jwt_and_seed(self) -> tuple[str, str]:
        if self._user_jwt or not self._creds:
            return (self._user_jwt or Secret("")).reveal(), (self._user_seed or Secret("")).reveal()
        text = _content(self._creds, "creds")
        jwt, seed = _armoured(text, "NATS USER JWT"), _armoured(text, "USER NKEY SEED")
        if not jwt or not seed:
            shown = f"creds: {self._creds}" if isinstance(self._creds, Path) else "creds:"
            raise InvalidConfigError((f"{shown} holds no user JWT with its seed; make it with: nsc generate creds",))
        return jwt, seed


@contextlib.contextmanager
def _as_nats_error() -> Iterator[None]:
    """Raise what nats-py tries again after."""
    try:
        yield
    except InvalidConfigError as err:
        raise nats.errors.Error(str(err)) from err


def _content(source: Path | Secret, what: str) -> str:
    if isinstance(source, Secret):
        return source.reveal().strip()
    try:
        return read_bounded(source, MAX_FILE).decode().strip()
    except OSError as err:
        raise InvalidConfigError((f"{what}: cannot read {source}: {err.strerror}",)) from None
    except UnicodeDecodeError:
        raise InvalidConfigError((f"{what}: {source} is no text",)) from None


def _armoured(text: str, what: str) -> str:
    """Return the line after `-----BEGIN <what>-----`, empty when there is none."""
    for mark, line in itertools.pairwise(text.splitlines()):
        if f"BEGIN {what}" in mark:
            return line.strip()
    return ""


def _sign(seed: str, nonce: str, what: str) -> bytes:
    import nkeys  # noqa: PLC0415 - loads a cryptography library, which few connections need

    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
    except Exception:  # noqa: BLE001 - the library lets through whatever it meets
        # Without the cause: it may quote the seed.
        raise InvalidConfigError((f"{what}: holds no valid nkey seed",)) from None
    try:
        return base64.b64encode(pair.sign(nonce.encode()))
    finally:
        pair.wipe()
