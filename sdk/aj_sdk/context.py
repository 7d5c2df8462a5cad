"""NATS contexts: the connection settings that the `nats` command keeps in JSON files.

Reads files and turns them into values; knows nothing of nats-py and opens no connection. Which keys there are and
what their values may look like follows the natscontext package of jsm.go (and ADR-21).
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aj_sdk.bounded import read_bounded
from aj_sdk.errors import InvalidConfigError

__all__ = ["NatsContext", "Secret", "context_exists", "known_contexts", "load_context", "selected_context"]

MAX_FILE: Final = 1 << 20
"""Bytes of a context, and of each file that it names."""

_UNSUPPORTED: Final = (
    "socks_proxy",
    "nsc",
    "windows_cert_store",
    "windows_cert_match_by",
    "windows_cert_match",
    "windows_ca_certs_match",
)
"""Keys that change where or how a connection is made, in ways that we can't follow; others are ignored."""

_FILE_ENDINGS: Final = (".creds", ".nk", ".jwt", ".seed", ".pem", ".crt", ".cer", ".key", ".txt")
"""A value that ends so is shown in an error; any other might be a secret pasted where a file's name belongs."""

_SCHEME: Final = re.compile(r"(file|env|op|nsc)://|(data):")
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SUBJECT: Final = re.compile(r"[^\s.*>\x00-\x1f\x7f]+(\.[^\s.*>\x00-\x1f\x7f]+)*")


@dataclass(frozen=True, slots=True)
class Secret:
    """Text that neither `repr`, `str` nor a format string shows."""

    _text: str = field(repr=False)

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __str__(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsContext:
    """One context, its references resolved.

    Attributes:
        name: name of the context.
        path: file that it was read from.
        url: servers, separated by commas, possibly with credentials in them; empty when the file has none.
        user: user name; wins over `creds`, `nkey` and `user_jwt`, which are then None (as in the Go package).
        password: password of the user.
        token: token, sent beside whatever else there is.
        creds: credentials file, or its content.
        nkey: file with an nkey seed, or its content.
        user_jwt: a user's JWT without its seed.
        user_seed: the seed that belongs to `user_jwt`.
        cert: file with the client's certificate, `key` with its private key.
        key: file with the private key of `cert`.
        ca: file with the certificates that may sign the server's.
        tls_first: the TLS handshake comes before the server's first line.
        inbox_prefix: subject prefix of inboxes, empty for the usual one.
        jetstream_domain: JetStream domain, empty for none.
        jetstream_api_prefix: subject prefix of the JetStream API, empty for the usual one.
        jetstream_event_prefix: subject prefix of JetStream's events, empty for the usual one.
    """

    name: str
    path: Path
    url: str = field(default="", repr=False)
    user: str = ""
    password: Secret | None = None
    token: Secret | None = None
    creds: Path | Secret | None = None
    nkey: Path | Secret | None = None
    user_jwt: Secret | None = None
    user_seed: Secret | None = None
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    tls_first: bool = False
    inbox_prefix: str = ""
    jetstream_domain: str = ""
    jetstream_api_prefix: str = ""
    jetstream_event_prefix: str = ""


def known_contexts(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the contexts that there are, sorted."""
    try:
        return tuple(sorted(path.stem for path in _folder(environ).glob("*.json") if path.is_file()))
    except OSError:
        return ()


def context_exists(name: str, environ: Mapping[str, str]) -> bool:
    """Say whether there is a file for this context."""
    try:
        return _is_name(name) and (_folder(environ) / f"{name}.json").is_file()
    except OSError:
        return False


def selected_context(environ: Mapping[str, str]) -> str:
    """Name of the context that `nats context select` chose last, empty when there is none."""
    try:
        return _selection(environ).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def load_context(name: str, environ: Mapping[str, str]) -> NatsContext:
    """Read a context.

    Args:
        name: its name.
        environ: the environment: where the folder is, and what `env://NAME` means.

    Raises:
        InvalidConfigError: there is no such context, or it has faults; each is named with the file and the key.
    """
    if not _is_name(name):
        raise InvalidConfigError((f"{name[:60]!r} is no name of a NATS context: a name holds no path",))
    path = _folder(environ) / f"{name}.json"
    reader = _Reader(environ, _entries(name, path, environ))
    for key in _UNSUPPORTED:
        reader.refuse(key)
    user = reader.literal("user")
    # The Go package takes the first of these that is set; a second one would only be read to be ignored.
    creds = None if user else reader.file_or_content("creds")
    nkey = None if user or creds else reader.file_or_content("nkey")
    jwt = None if user or creds or nkey else reader.content("user_jwt", is_literal=lambda text: text.startswith("eyJ"))
    context = NatsContext(
        name=name,
        path=path,
        url=reader.text("url"),
        user=user,
        password=reader.secret("password"),
        token=reader.secret("token"),
        creds=creds,
        nkey=nkey,
        user_jwt=jwt,
        user_seed=reader.content("user_seed", is_literal=lambda text: text.startswith("SU")) if jwt else None,
        cert=reader.path("cert"),
        key=reader.path("key"),
        ca=reader.path("ca"),
        tls_first=reader.flag("tls_first"),
        inbox_prefix=reader.subject("inbox_prefix"),
        jetstream_domain=reader.subject("jetstream_domain"),
        jetstream_api_prefix=reader.subject("jetstream_api_prefix"),
        jetstream_event_prefix=reader.subject("jetstream_event_prefix"),
    )
    if (context.cert is None) != (context.key is None):
        reader.faults.append("cert, key: one needs the other")
    if reader.faults:
        raise InvalidConfigError(tuple(f"NATS context {name!r} ({path}): {fault}" for fault in reader.faults))
    return context


def _is_name(name: str) -> bool:
    """Say whether a name stays inside the folder; the same rule as the Go package's, and no control characters."""
    return bool(name) and ".." not in name and "/" not in name and "\\" not in name and name.isprintable()


def _root(environ: Mapping[str, str]) -> Path:
    configured = environ.get("XDG_CONFIG_HOME", "")
    return (Path(configured) if configured else _home(environ) / ".config") / "nats"


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _folder(environ: Mapping[str, str]) -> Path:
    return _root(environ) / "context"


def _selection(environ: Mapping[str, str]) -> Path:
    return _root(environ) / "context.txt"


def _entries(name: str, path: Path, environ: Mapping[str, str]) -> dict[str, object]:
    """Read the file's keys, in lower case because Go reads them without regard to case."""
    where = f"NATS context {name!r} ({path})"
    try:
        found = json.loads(read_bounded(path, MAX_FILE).decode("utf-8-sig"))
    except FileNotFoundError:
        names = known_contexts(environ)
        hint = f"there are {', '.join(names)}" if names else "there are none; make one with: nats context add"
        raise InvalidConfigError((f"there is no NATS context {name!r} in {path.parent}: {hint}",)) from None
    except OSError as err:
        raise InvalidConfigError((f"{where}: cannot read the file: {err.strerror}",)) from None
    except json.JSONDecodeError as err:
        # Without the cause: it holds the document, and with it the passwords.
        raise InvalidConfigError(
            (f"{where}: not JSON: {err.msg} in line {err.lineno} column {err.colno}; mend or remove the file",)
        ) from None
    except (ValueError, RecursionError):
        raise InvalidConfigError((f"{where}: not JSON in UTF-8; mend or remove the file",)) from None
    if not isinstance(found, dict):
        raise InvalidConfigError((f"{where}: holds no JSON object; mend or remove the file",))
    return {str(key).lower(): value for key, value in found.items() if value is not None}


class _Reader:
    """Reads keys and collects every fault, so that a user mends them in one go. Faults never show a value."""

    def __init__(self, environ: Mapping[str, str], entries: Mapping[str, object]) -> None:
        self.faults: list[str] = []
        self._environ = environ
        self._entries = entries

    def refuse(self, key: str) -> None:
        """Refuse a key that is set."""
        if self._entries.get(key):
            self.faults.append(f"{key}: not supported; remove it or make another context")

    def text(self, key: str) -> str:
        """Read a text as it stands."""
        value = self._entries.get(key, "")
        if isinstance(value, str):
            return value
        self.faults.append(f"{key}: must be a text")
        return ""

    def flag(self, key: str) -> bool:
        """Read a truth value."""
        value = self._entries.get(key, False)
        if isinstance(value, bool):
            return value
        self.faults.append(f"{key}: must be true or false")
        return False

    def subject(self, key: str) -> str:
        """Read a subject prefix; a dot at its end is dropped."""
        value = self.text(key).removesuffix(".")
        if value and not _SUBJECT.fullmatch(value):
            self.faults.append(f"{key}: must be a subject without wildcards and spaces")
            return ""
        return value

    def path(self, key: str) -> Path | None:
        """Read the name of a file that must be there."""
        value = self.text(key)
        return self._file(key, value) if value else None

    def literal(self, key: str) -> str:
        """Read a text that may stand for itself or refer to another place."""
        found = self.content(key, is_literal=lambda _: True)
        return found.reveal() if found else ""

    def secret(self, key: str) -> Secret | None:
        """Read a secret that may stand for itself or refer to another place."""
        return self.content(key, is_literal=lambda _: True)

    def file_or_content(self, key: str) -> Path | Secret | None:
        """Read a reference: a file stays a file, because it may be replaced while we run, the rest becomes content."""
        value = self.text(key)
        if not value:
            return None
        scheme, rest = _split(value)
        return self._file(key, rest) if scheme == "file" else self._fetch(key, scheme, rest)

    def content(self, key: str, *, is_literal: Callable[[str], bool]) -> Secret | None:
        """Read what a reference stands for; a bare value is a file's name unless it is literal."""
        value = self.text(key)
        if not value:
            return None
        scheme, rest = _split(value)
        if not _SCHEME.match(value) and is_literal(value):
            return Secret(value)
        if scheme != "file":
            return self._fetch(key, scheme, rest)
        path = self._file(key, rest)
        if path is None:
            return None
        try:
            return Secret(read_bounded(path, MAX_FILE).decode().strip("\r\n"))
        except (OSError, UnicodeDecodeError):
            self.faults.append(f"{key}: cannot read the file that it names as text")
            return None

    def _file(self, key: str, text: str) -> Path | None:
        missing: list[str] = []

        def value_of(match: re.Match[str]) -> str:
            variable = match[1] or match[2]
            if not self._environ.get(variable):
                missing.append(variable)
            return self._environ.get(variable, "")

        path = Path(_VARIABLE.sub(value_of, text))
        if path.parts[:1] == ("~",):
            path = _home(self._environ).joinpath(*path.parts[1:])
        if missing:
            self.faults.append(f"{key}: the environment variable {missing[0]} is not set")
        elif not path.is_file():
            shown = str(path) if path.suffix in _FILE_ENDINGS else "of the name that it gives"
            self.faults.append(f"{key}: there is no file {shown}")
        else:
            return path
        return None

    def _fetch(self, key: str, scheme: str, rest: str) -> Secret | None:
        if scheme == "env":
            if self._environ.get(rest):
                return Secret(self._environ[rest].strip("\r\n"))
            self.faults.append(f"{key}: the environment variable {rest} is not set")
        elif scheme == "data":
            head, comma, body = rest.partition(",")
            if not comma or "base64" not in [part.strip() for part in head.split(";")]:
                self.faults.append(f"{key}: a data: value must look like data:;base64,...")
                return None
            try:
                return Secret(base64.b64decode(body, validate=True).decode().strip("\r\n"))
            except (binascii.Error, UnicodeDecodeError):
                self.faults.append(f"{key}: the data: value is not base64 of a text")
        else:
            self.faults.append(f"{key}: {scheme}:// values are not supported; use a file, env:// or data:")
        return None


def _split(value: str) -> tuple[str, str]:
    """Split a reference into its scheme and the rest; a bare value counts as a file."""
    match = _SCHEME.match(value)
    return (match[1] or match[2], value[match.end() :]) if match else ("file", value)
