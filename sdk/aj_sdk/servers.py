"""Server URLs: what they may look like, and how they are shown. Pure; opens nothing."""

from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from aj_sdk.errors import InvalidConfigError

__all__ = ["DEFAULT_SERVER", "mask_url", "split_servers"]

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"

_MAX_SHOWN: Final = 200
"""Characters of a URL that an error repeats, its secrets masked."""

_PORTS: Final = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}


def mask_url(url: str) -> str:
    """Return a URL, even a malformed one, without the credentials in it."""
    head, mark, rest = url.partition("://")
    if not mark:
        head, rest = "", url
    # The last @ ends the credentials, whatever else they hold.
    _, at, host = rest.rpartition("@")
    return f"{head}{mark}{'***@' if at else ''}{host}"


def split_servers(text: str) -> tuple[tuple[str, ...], str, str | None]:
    """Split a list of URLs, separated by commas, into clean ones and the identity that they share.

    nats-py would take credentials from a URL as they stand, escapes and all, and would not use them for servers that
    it learns of later.

    Returns:
        The URLs without credentials, the user (or, without a password, the token) and the password.

    Raises:
        InvalidConfigError: a URL is wrong, or two of them name different credentials; all faults at once, masked.
    """
    faults = []
    servers: list[str] = []
    identities: list[tuple[str, str | None]] = []
    for part in text.split(","):
        url = part.strip()
        if not url:
            continue
        try:
            server, identity = _split_url(url)
        except ValueError as err:
            # A comma in a password cuts the URL in two, and leaves its beginning without the @ that shows it.
            shown = repr(mask_url(url)[:_MAX_SHOWN]) if "@" in url or "@" not in text else "one of the URLs"
            faults.append(f"{shown}: {err}")
            continue
        servers.append(server)
        if identity is not None and identity not in identities:
            identities.append(identity)
    if not servers and not faults:
        faults.append(f"no server is named; write it like {DEFAULT_SERVER}")
    if len(identities) > 1:
        faults.append("the servers' URLs name different credentials; use the same for all, or a context")
    if len({server.startswith("ws") for server in servers}) > 1:
        faults.append("ws:// and wss:// servers can't be mixed with nats:// and tls:// ones")
    if faults:
        raise InvalidConfigError(tuple(faults))
    user, password = identities[0] if identities else ("", None)
    return tuple(servers), user, password


def _split_url(url: str) -> tuple[str, tuple[str, str | None] | None]:
    """Split one URL into itself without credentials, and these.

    Raises:
        ValueError: what is wrong, in words that hold nothing secret.
    """
    if not url.isprintable() or " " in url:
        raise ValueError("holds a space or a control character")
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
    except ValueError:
        # In our words: the library's may quote the whole of it.
        raise ValueError(f"is no URL; write it like {DEFAULT_SERVER}") from None
    scheme = parts.scheme
    if scheme not in _PORTS:
        raise ValueError(f"must begin with one of {', '.join(f'{each}://' for each in _PORTS)}")
    host = parts.hostname
    if not host or host.startswith("-") or any(mark in parts.netloc.rpartition("@")[2] for mark in "\\<>\"'`{}|^*"):
        raise ValueError(f"names no host; write it like {DEFAULT_SERVER}")
    port = _port(parts) or _PORTS[scheme]
    if scheme in ("nats", "tls") and (parts.path not in ("", "/") or parts.query or parts.fragment):
        raise ValueError("has something after the port")
    path = "" if scheme in ("nats", "tls") else parts.path
    server = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"
    if parts.username is None:
        return server, None
    if not parts.username and parts.password:
        raise ValueError("has a password without a user")
    return server, (unquote(parts.username), None if parts.password is None else unquote(parts.password))


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("has no valid port: it must be a number from 1 to 65535")
    return port or 0
