"""The small port that a monitoring system asks: `/metrics`, `/healthz`, `/readyz`, of one process or of several as one.

Knows HTTP, and how pages of several processes become one; what there is to tell is the business of who is watched.
"""

import asyncio
import contextlib
import errno
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from aj_bridge.faces.metrics import Metrics
from aj_sdk.errors import InvalidConfigError

__all__ = ["Bound", "Own", "Watched", "merged", "serve"]

_MAX_HEAD: Final = 8 * 1024
_REQUEST_TIMEOUT_S: Final = 5.0


class Watched(Protocol):
    """Who is asked how it is."""

    async def exposition(self) -> bytes:
        """Return the metrics in Prometheus's text format, version 0.0.4."""

    async def fault(self) -> str | None:
        """Say why `/healthz` and `/readyz` should answer 503; None while all is well."""


@dataclass(frozen=True, slots=True)
class Own:
    """This process.

    Attributes:
        metrics: what it counts.
        unhealthy: says what it suffers from, or None.
    """

    metrics: Metrics
    unhealthy: Callable[[], str | None] = lambda: None

    async def exposition(self) -> bytes:
        """As `Watched` says."""
        return self.metrics.exposition()

    async def fault(self) -> str | None:
        """As `Watched` says."""
        return self.unhealthy()


def merged(pages: Mapping[str, bytes], label: str) -> bytes:
    """Make one page of the pages of several processes; each sample tells by a label whose it is.

    They are not added up: a process that starts again begins its counters at 0, and only a sample of its own lets
    `rate()` see that. Add them with `sum without(<label>)`.

    Args:
        pages: pages as `Metrics.exposition` writes them, by the value of the label.
        label: name of the label.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for value, page in pages.items():
        family = ""
        for line in page.decode().splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
                samples.setdefault(family, [])
            if line.startswith("#"):
                head = heads.setdefault(family, [])
                if line not in head:
                    head.append(line)
                continue
            name, mark, rest = re.split("([ {])", line, maxsplit=1)
            samples[family].append(f'{name}{{{label}="{value}"{"," if mark == "{" else "} "}{rest}')
    lines = [line for family, head in heads.items() for line in (*head, *samples[family])]
    return ("\n".join(lines) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """URL of the metrics."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/metrics"


@contextlib.asynccontextmanager
async def serve(watched: Watched, host: str, port: int) -> AsyncIterator[Bound]:
    """Serve `/metrics`, `/healthz` and `/readyz` until the context is left; the last two say the same.

    All are answered by the event loop that does the work: a loop that hangs answers none, and that is the point.

    Args:
        watched: what to serve.
        host: address to listen on; empty for all.
        port: port to listen on; 0 for a free one.

    Raises:
        InvalidConfigError: the address is taken, or not ours.
    """
    handling: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handling.add(task)
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _response(watched, head))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError):
            pass  # somebody who sends no request, or goes away, is no concern of ours
        finally:
            handling.discard(task)
            writer.close()

    try:
        if host:
            server = await asyncio.start_server(answer, host, port, limit=_MAX_HEAD)
        else:
            server = await asyncio.start_server(answer, sock=_everywhere(port), limit=_MAX_HEAD)
    except OSError as err:
        taken = err.errno == errno.EADDRINUSE
        reason = "the port is taken; choose another, or 0 for a free one" if taken else err.strerror or str(err)
        raise InvalidConfigError((f"monitor: cannot listen on {host or '*'}:{port}: {reason}",)) from None
    try:
        address = server.sockets[0].getsockname()
        yield Bound(host=host or address[0], port=address[1])
    finally:
        server.close()
        for task in handling:
            task.cancel()
        await asyncio.gather(*handling, return_exceptions=True)
        await server.wait_closed()


def _everywhere(port: int) -> socket.socket:
    """Listen on all addresses with one socket, so that port 0 means one port for both versions of IP."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as err:
            if err.errno == errno.EADDRINUSE:
                raise
    return socket.create_server(("", port))


async def _response(watched: Watched, head: bytes) -> bytes:
    """Answer one request; nothing that a client sends is repeated to it."""
    method, _, rest = head.partition(b" ")
    target, _, version = rest.partition(b"\r\n")[0].partition(b" ")
    path = target.partition(b"?")[0]
    status, kind, body = "200 OK", "text/plain; charset=utf-8", b""
    if not version.startswith(b"HTTP/1."):
        status, body = "400 Bad Request", b"not an HTTP/1 request\n"
    elif path not in (b"/metrics", b"/healthz", b"/readyz"):
        status, body = "404 Not Found", b"there are /metrics, /healthz and /readyz\n"
    elif method not in (b"GET", b"HEAD"):
        status, body = "405 Method Not Allowed\r\nAllow: GET, HEAD", b"only GET\n"
    elif path == b"/metrics":
        kind, body = "text/plain; version=0.0.4; charset=utf-8", await watched.exposition()
    else:
        reason = await watched.fault()
        status = "503 Service Unavailable" if reason else status
        body = f"{reason or 'ok'}\n".encode()
    lines = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return lines.encode() + (b"" if method == b"HEAD" else body)
