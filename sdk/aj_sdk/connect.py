"""Connections to NATS: where to, as whom, with which settings.

The one place that opens a connection for our commands and for `Client.connect`. `resolve_connection` decides where
to; `ConnectOptions` says all that is needed; `connect` turns them into a nats-py client. Knows nothing of tasks.
"""

import asyncio
import contextlib
import importlib.util
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import nats.errors
from nats.aio.client import Client, Srv
from nats.aio.transport import TcpTransport

from aj_sdk.context import NatsContext, Secret, context_exists, load_context, selected_context
from aj_sdk.credentials import Credentials
from aj_sdk.errors import InvalidConfigError, NotConnectedError
from aj_sdk.servers import DEFAULT_SERVER, mask_url, split_servers
from aj_sdk.wire.names import API_PREFIX, EVENT_PREFIX

__all__ = [
    "DEFAULT_CONTEXT",
    "ConnectOptions",
    "ConnectionFlags",
    "connect",
    "resolve_connection",
]

DEFAULT_CONTEXT: Final = "AJC"
"""The context that the Go project's command uses when none is named."""

_CONTEXT_NAMES: Final = ("AJ_CONTEXT", "AJ_NATS_CONTEXT", "CONTEXT")

_TRY_TIMEOUT_S: Final = 2
_RECONNECT_WAIT_S: Final = 0.3
_PING_INTERVAL_S: Final = 20
_PENDING_SIZE: Final = 8 << 20
_CLOSE_TIMEOUT_S: Final = 1.0

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOptions:
    """Where to connect to, and as whom.

    Attributes:
        servers: URLs without credentials, tried in a random order.
        context: name of the NATS context that these come from, empty for none; for messages.
        name: name of the connection, shown by the server's monitoring.
        user: user name, empty for none.
        password: password of the user.
        token: token, sent beside whatever else there is.
        creds: credentials file, read again for each connect, or its content.
        nkey: file with an nkey seed, or its content.
        user_jwt: a user's JWT, with its seed in `user_seed` unless it is a bearer token.
        user_seed: the seed that belongs to `user_jwt`.
        tls_cert: file with the client's certificate, with its key in `tls_key`.
        tls_key: file with the private key of `tls_cert`.
        tls_ca: file with the certificates that may sign the server's; None for the system's.
        tls_first: the TLS handshake comes before the server's first line.
        inbox_prefix: subject prefix of inboxes.
        jetstream_domain: JetStream domain, empty for none.
        jetstream_api_prefix: subject prefix of the JetStream API, empty for the usual one; wins over the domain.
        jetstream_event_prefix: subject prefix of JetStream's events, empty for the usual one.
        timeout: seconds until the first connect is given up.
    """

    servers: tuple[str, ...] = (DEFAULT_SERVER,)
    context: str = ""
    name: str = "asyncjobs"
    user: str = ""
    password: Secret | None = None
    token: Secret | None = None
    creds: Path | Secret | None = None
    nkey: Path | Secret | None = None
    user_jwt: Secret | None = None
    user_seed: Secret | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    tls_first: bool = False
    inbox_prefix: str = "_INBOX"
    jetstream_domain: str = ""
    jetstream_api_prefix: str = ""
    jetstream_event_prefix: str = ""
    timeout: float = 5.0

    @classmethod
    def from_url(cls, url: str, *, name: str = "asyncjobs") -> Self:
        """Read a server's URL, or several separated by commas, with or without credentials in them.

        Raises:
            InvalidConfigError: a URL is wrong, or two of them name different credentials.
        """
        servers, user, password = split_servers(url)
        token = user if password is None else ""
        return cls(
            servers=servers,
            name=name,
            user="" if token else user,
            password=None if password is None else Secret(password),
            token=Secret(token) if token else None,
        )

    @classmethod
    def from_context(cls, context: NatsContext, *, name: str = "asyncjobs") -> Self:
        """Take what a NATS context says; its own credentials win over those in its URL.

        Raises:
            InvalidConfigError: its URL is wrong.
        """
        try:
            from_url = cls.from_url(context.url or DEFAULT_SERVER, name=name)
        except InvalidConfigError as err:
            where = f"NATS context {context.name!r} ({context.path}): url"
            raise InvalidConfigError(tuple(f"{where}: {fault}" for fault in err.faults)) from None
        own = context.user or context.creds or context.nkey or context.user_jwt
        return cls(
            servers=from_url.servers,
            context=context.name,
            name=name,
            user=context.user if own else from_url.user,
            password=context.password if own else from_url.password,
            token=context.token or (None if own else from_url.token),
            creds=context.creds,
            nkey=context.nkey,
            user_jwt=context.user_jwt,
            user_seed=context.user_seed,
            tls_cert=context.cert,
            tls_key=context.key,
            tls_ca=context.ca,
            tls_first=context.tls_first,
            inbox_prefix=context.inbox_prefix or "_INBOX",
            jetstream_domain=context.jetstream_domain,
            jetstream_api_prefix=context.jetstream_api_prefix,
            jetstream_event_prefix=context.jetstream_event_prefix,
        )

    @property
    def js_prefix(self) -> str:
        """Subject prefix of the JetStream API, without a dot at its end."""
        if self.jetstream_api_prefix:
            return self.jetstream_api_prefix
        return f"$JS.{self.jetstream_domain}.API" if self.jetstream_domain else API_PREFIX

    @property
    def js_event_prefix(self) -> str:
        """Subject prefix of JetStream's events, without a dot at its end."""
        return self.jetstream_event_prefix or EVENT_PREFIX

    @property
    def where(self) -> str:
        """The servers and the context, for messages."""
        shown = ", ".join(self.servers)
        return f"{shown} (context {self.context!r})" if self.context else shown


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFlags:
    """What a command line says about the connection; empty for nothing."""

    server: str = field(default="", repr=False)
    context: str = ""


def resolve_connection(
    flags: ConnectionFlags, environ: Mapping[str, str], *, name: str = "asyncjobs"
) -> ConnectOptions:
    """Decide where to connect to.

    Flags win over the environment, and a server over a context named in the same place. When neither is named: the
    context `AJC` if there is one, the context that the `nats` command has selected, a server on this machine.

    Args:
        flags: the command line.
        environ: the environment: `AJ_SERVER`, then `AJ_CONTEXT` and the Go project's `AJ_NATS_CONTEXT` and `CONTEXT`.
        name: name of the connection, shown by the server's monitoring.

    Raises:
        InvalidConfigError: a URL or a context is wrong; the message says where it was named.
    """
    if flags.server:
        return _from_url(flags.server, "--server", name)
    if flags.context:
        return ConnectOptions.from_context(load_context(flags.context, environ), name=name)
    if environ.get("AJ_SERVER"):
        return _from_url(environ["AJ_SERVER"], "AJ_SERVER", name)
    for variable in _CONTEXT_NAMES:
        if environ.get(variable):
            try:
                return ConnectOptions.from_context(load_context(environ[variable], environ), name=name)
            except InvalidConfigError as err:
                raise InvalidConfigError(tuple(f"{variable}: {fault}" for fault in err.faults)) from None
    chosen = DEFAULT_CONTEXT if context_exists(DEFAULT_CONTEXT, environ) else selected_context(environ)
    if chosen:
        return ConnectOptions.from_context(load_context(chosen, environ), name=name)
    return ConnectOptions(name=name)


async def connect(
    options: ConnectOptions,
    *,
    on_disconnected: Callable[[], None] | None = None,
    on_reconnected: Callable[[], None] | None = None,
    on_closed: Callable[[], None] | None = None,
) -> Client:
    """Open a connection.

    The first connect fails within `options.timeout`; a connection that was made once is made again for ever when it
    breaks. What happens to it is logged. nats-py still closes a connection for good at some errors of the server, such
    as too many subscriptions: that is logged as an error, and `on_closed` tells.

    Args:
        options: where to and as whom.
        on_disconnected: called when the connection broke.
        on_reconnected: called when it is there again, after the subscriptions were replayed; pull requests are not.
        on_closed: called when it is closed for good, by us or by the server.

    Raises:
        InvalidConfigError: a credentials, key or certificate file is wrong.
        NotConnectedError: no server answers, it refuses the credentials, or TLS fails; the message says which.
    """
    if any(server.startswith("ws") for server in options.servers) and importlib.util.find_spec("aiohttp") is None:
        raise InvalidConfigError((f"{options.where}: ws:// and wss:// need: pip install 'asyncjobs-nats[websocket]'",))
    credentials = Credentials(
        creds=options.creds, nkey=options.nkey, user_jwt=options.user_jwt, user_seed=options.user_seed
    )
    tls = _tls_context(options)
    client = _Client(only_tls=tls is not None)
    watch = _Watch(client, len(options.servers), on_disconnected, on_reconnected, on_closed)
    try:
        async with asyncio.timeout(options.timeout) as patience:
            watch.give_up = lambda: patience.reschedule(0)
            await client.connect(
                servers=list(options.servers),
                name=options.name,
                error_cb=watch.error,
                disconnected_cb=watch.disconnected,
                reconnected_cb=watch.reconnected,
                closed_cb=watch.closed,
                connect_timeout=_TRY_TIMEOUT_S,
                reconnect_time_wait=_RECONNECT_WAIT_S,  # type: ignore[arg-type]  # any number works
                # Two tries a server for the first connect; see below.
                max_reconnect_attempts=1,
                # Half-open links are noticed after 40 to 60 s instead of minutes.
                ping_interval=_PING_INTERVAL_S,
                pending_size=_PENDING_SIZE,
                # We build subjects from names that were checked; checking them again costs up to a sixth of our CPU.
                skip_subject_validation=True,
                tls=tls,
                tls_handshake_first=options.tls_first,
                user=options.user or None,
                # nats-py sends neither when one of them is None.
                password=(options.password.reveal() if options.password else "") if options.user else None,
                token=options.token.reveal() if options.token else None,
                inbox_prefix=options.inbox_prefix,
                **credentials.arguments(),
            )
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as err:
        watch.failures.append(err)
        await _abandon(client)
        raise NotConnectedError(_reason(options, watch.failures)) from err
    except BaseException:
        await _abandon(client)
        raise
    # From now on for ever. A bound from the start would make a wrong address look like a slow server.
    client.options["max_reconnect_attempts"] = -1
    watch.established = True
    return client


def _from_url(url: str, source: str, name: str) -> ConnectOptions:
    try:
        return ConnectOptions.from_url(url, name=name)
    except InvalidConfigError as err:
        raise InvalidConfigError(tuple(f"{source}: {fault}" for fault in err.faults)) from None


def _tls_context(options: ConnectOptions) -> ssl.SSLContext | None:
    """Make the TLS settings when TLS is wanted; None leaves it to the server."""
    asked = any(server.startswith(("tls:", "wss:")) for server in options.servers)
    if not (asked or options.tls_first or options.tls_ca or options.tls_cert):
        return None
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
    except (OSError, ValueError) as err:
        raise InvalidConfigError((f"{options.tls_ca} holds no certificates: {_words(err)}",)) from None
    if options.tls_cert is not None:
        try:
            # A key with a passphrase would make OpenSSL ask on the terminal, and a service wait for ever.
            context.load_cert_chain(options.tls_cert, options.tls_key, password=lambda: "")
        except (OSError, ValueError) as err:
            files = f"{options.tls_cert} and {options.tls_key}"
            raise InvalidConfigError((f"{files} are no certificate and its unencrypted key: {_words(err)}",)) from None
    return context


class _Transport(TcpTransport):
    """nats-py's socket, whose closing ends: after a TLS handshake that failed it would be waited for without end."""

    def __bool__(self) -> bool:
        """Say yes before there is a socket too; nats-py would put its own in our place."""
        return True

    leaving = False
    """Whether the connection is being closed for good: what is left can't be sent when the server is away then."""

    def writelines(self, payload: list[bytes]) -> None:
        """See `Transport`."""
        try:
            super().writelines(payload)  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError):  # uvloop has the second for a socket that is closed
            if not self.leaving:
                raise

    async def drain(self) -> None:
        """See `Transport`."""
        try:
            await super().drain()  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError):
            if not self.leaving:
                raise

    async def wait_closed(self) -> None:
        """See `Transport`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await super().wait_closed()  # type: ignore[no-untyped-call]


class _Client(Client):
    """nats-py's client with four faults mended, by overriding methods that its authors count as private.

    It leaves TLS to what the server's first line, sent in the clear, says of itself: whoever sits between could leave
    it out and read the credentials. It forgets the socket of an attempt that failed after it was open, such as one
    with refused credentials, three a second. It gives up for good when credentials expire, although a file may hold
    newer ones by then. And while the server is away its `close` stops half-way and raises what the socket said.
    """

    def __init__(self, *, only_tls: bool) -> None:
        super().__init__()
        self._only_tls = only_tls

    def close_socket(self) -> None:
        """Close the socket, whatever state the client believes to be in."""
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]

    async def _connect_to_server(self, s: Srv) -> None:
        self.close_socket()
        if not self._transport and s.uri.scheme in ("nats", "tls"):
            self._transport = _Transport()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if isinstance(self._transport, _Transport):
            self._transport.leaving = True
        await super()._close(status, do_cbs)

    async def _process_err(self, err_msg: str) -> None:
        if "authentication" in err_msg.lower():
            await self._error_cb(nats.errors.Error(f"nats: {err_msg}"))
            await self._process_op_err(nats.errors.StaleConnectionError())
            return
        await super()._process_err(err_msg)

    def _connect_command(self) -> bytes:
        """Write the credentials."""
        scheme = self._current_server.uri.scheme if self._current_server else ""
        if self._only_tls and scheme != "wss" and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()


async def _abandon(client: _Client) -> None:
    """Close what a failed connect left: nats-py counts itself closed as soon as it begins to close, socket or not."""
    await client.close()
    client.close_socket()
    await asyncio.sleep(0)  # the loop closes the socket in its next round


class _Watch:
    """Hears what happens to a connection: collects while the first connect goes on, logs afterwards."""

    def __init__(
        self,
        client: Client,
        servers: int,
        on_disconnected: Callable[[], None] | None,
        on_reconnected: Callable[[], None] | None,
        on_closed: Callable[[], None] | None,
    ) -> None:
        self.failures: list[Exception] = []
        self.established = False
        self.give_up: Callable[[], None] = lambda: None
        self._client = client
        self._servers = servers
        self._on_disconnected = on_disconnected
        self._on_reconnected = on_reconnected
        self._on_closed = on_closed
        self._last = ""
        self._old_error: Exception | None = None

    async def error(self, error: Exception) -> None:
        if not self.established:
            self.failures.append(error)
            # Each server is tried once before any is tried again, so that as many refusals mean that all refused.
            if sum(map(_is_final, self.failures)) == self._servers:
                self.give_up()
            return
        text = _words(error)
        self._old_error = error
        if self._client.is_connected:
            _LOG.error("NATS connection: %s", text)
        elif text != self._last:
            # Three a second while a server is down: once is enough.
            _LOG.warning("NATS connection: %s; trying on", text)
            self._last = text

    async def disconnected(self) -> None:
        if not self.established:
            return
        if self._client.is_closed:
            _LOG.debug("NATS connection closing")
        else:
            _LOG.warning("NATS connection lost; reconnecting")
        if self._on_disconnected:
            self._on_disconnected()

    async def reconnected(self) -> None:
        self._last = ""
        self._old_error = self._client.last_error
        server = self._client.connected_url
        _LOG.info("NATS connection restored, to %s", mask_url(server.netloc) if server else "a server")
        if self._on_reconnected:
            self._on_reconnected()

    async def closed(self) -> None:
        if not self.established:
            return
        error = self._client.last_error
        if error is None or error is self._old_error:
            _LOG.debug("NATS connection closed")
        else:
            _LOG.error("NATS connection closed for good: %s", _words(error))
        if self._on_closed:
            self._on_closed()


def _reason(options: ConnectOptions, failures: list[Exception]) -> str:
    """Make the one line that says why the first connect failed; the most telling failure speaks."""
    for failure in failures:
        if _is_refusal(failure):
            whose = "the credentials" if _has_credentials(options) else "a connection without credentials"
            hint = "check them" if _has_credentials(options) else "name a context that has some"
            return f"{options.where} refused {whose} ({_words(failure)}); {hint}"
    for failure in failures:
        if isinstance(failure, nats.errors.SecureConnWantedError):
            return f"{options.where} does not offer TLS, and we were told not to speak without it"
        if isinstance(failure, ssl.SSLError | nats.errors.SecureConnFailedError):
            return f"TLS with {options.where} failed: {_words(failure)}; check the context's ca, cert and key"
    telling = [failure for failure in failures if not isinstance(failure, nats.errors.NoServersError)]
    words = _words(telling[-1]) if telling else "no server answered"
    return f"cannot connect to {options.where}: {words}; is a NATS server running there?"


def _is_refusal(failure: Exception) -> bool:
    text = str(failure).lower()
    return isinstance(failure, nats.errors.AuthorizationError) or "authorization" in text or "authentication" in text


def _is_final(failure: Exception) -> bool:
    """Say whether trying again is of no use."""
    return _is_refusal(failure) or isinstance(failure, ssl.SSLError | nats.errors.SecureConnWantedError)


def _has_credentials(options: ConnectOptions) -> bool:
    return bool(options.user or options.token or options.creds or options.nkey or options.user_jwt)


def _words(error: BaseException) -> str:
    """Say an error in few words, on one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None)
        return str(reason).replace("_", " ").lower() if reason else "TLS error"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).removeprefix("nats: ").strip("'").split()) or type(error).__name__
