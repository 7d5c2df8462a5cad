"""Connections: where they go, that the first one fails soon and in one line, and that secrets stay secret."""

import asyncio
import base64
import contextlib
import datetime as dt
import ipaddress
import json
import logging
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats.errors
import nkeys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nats.aio.client import Client

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk import connect as connect_module
from aj_sdk.connect import ConnectionFlags, ConnectOptions, connect, resolve_connection
from aj_sdk.context import Secret
from aj_sdk.errors import InvalidConfigError, NotConnectedError

Fresh = Callable[..., EmbeddedServer]
AddContext = Callable[..., Path]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}


@pytest.fixture
def add_context(tmp_path: Path) -> AddContext:
    """Give a function that writes a NATS context."""
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)

    def add(name: str, **keys: object) -> Path:
        path = folder / f"{name}.json"
        path.write_text(json.dumps(keys))
        return path

    return add


# Where to


def test_without_anything_the_server_is_on_this_machine(environ: dict[str, str]) -> None:
    assert resolve_connection(ConnectionFlags(), environ) == ConnectOptions(servers=("nats://127.0.0.1:4222",))


def test_each_place_wins_over_the_ones_below_it(
    environ: dict[str, str], add_context: AddContext, tmp_path: Path
) -> None:
    def server(flags: ConnectionFlags, **variables: str) -> str:
        return resolve_connection(flags, environ | variables).servers[0]

    (tmp_path / "nats" / "context.txt").write_text("selected\n")
    add_context("selected", url="nats://selected")
    assert server(ConnectionFlags()) == "nats://selected:4222"
    add_context("AJC", url="nats://ajc")
    assert server(ConnectionFlags()) == "nats://ajc:4222"
    for name in ("go", "container", "ours", "flag"):
        add_context(name, url=f"nats://{name}")
    variables = {"CONTEXT": "go"}
    assert server(ConnectionFlags(), **variables) == "nats://go:4222"
    variables["AJ_NATS_CONTEXT"] = "container"
    assert server(ConnectionFlags(), **variables) == "nats://container:4222"
    variables["AJ_CONTEXT"] = "ours"
    assert server(ConnectionFlags(), **variables) == "nats://ours:4222"
    variables["AJ_SERVER"] = "nats://env"
    assert server(ConnectionFlags(), **variables) == "nats://env:4222"
    assert server(ConnectionFlags(context="flag"), **variables) == "nats://flag:4222"
    assert server(ConnectionFlags(context="flag", server="nats://top"), **variables) == "nats://top:4222"


def test_a_fault_says_where_the_name_came_from(environ: dict[str, str], add_context: AddContext) -> None:
    path = add_context("bad", url="nats://u:hunter2@a:0")
    for flags, variables, expected in (
        (ConnectionFlags(server="http://a"), {}, "--server: 'http://a': must begin with"),
        (ConnectionFlags(), {"AJ_SERVER": "http://a"}, "AJ_SERVER: 'http://a'"),
        (ConnectionFlags(context="nope"), {}, "no NATS context 'nope'"),
        (ConnectionFlags(), {"CONTEXT": "nope"}, "CONTEXT: there is no NATS context 'nope'"),
        (ConnectionFlags(context="bad"), {}, f"NATS context 'bad' ({path}): url: 'nats://***@a:0'"),
    ):
        with pytest.raises(InvalidConfigError) as caught:
            resolve_connection(flags, environ | variables)
        assert expected in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_a_url_with_credentials_becomes_options_that_hide_them() -> None:
    options = ConnectOptions.from_url("nats://alice:p%40ss@a,nats://b", name="me")
    assert options == ConnectOptions(
        servers=("nats://a:4222", "nats://b:4222"), name="me", user="alice", password=Secret("p@ss")
    )
    assert ConnectOptions.from_url("nats://t0ken@a").token == Secret("t0ken")
    assert "p@ss" not in repr(options)
    assert "hunter2" not in repr(ConnectionFlags(server="nats://u:hunter2@a"))


def test_a_context_becomes_options(environ: dict[str, str], add_context: AddContext) -> None:
    add_context("c", user="u", password="p", tls_first=True, inbox_prefix="_I", jetstream_domain="hub", token="t")
    add_context("d", jetstream_event_prefix="JS.acc.EVENT")
    assert resolve_connection(ConnectionFlags(context="d"), environ).js_event_prefix == "JS.acc.EVENT"
    assert resolve_connection(ConnectionFlags(context="c"), environ, name="me") == ConnectOptions(
        context="c",
        name="me",
        user="u",
        password=Secret("p"),
        token=Secret("t"),
        tls_first=True,
        inbox_prefix="_I",
        jetstream_domain="hub",
    )


def test_a_contexts_own_credentials_win_over_its_url(environ: dict[str, str], add_context: AddContext) -> None:
    add_context("both", url="nats://x:y@a", user="u", password="p")
    add_context("url", url="nats://x:y@a")
    both = resolve_connection(ConnectionFlags(context="both"), environ)
    only = resolve_connection(ConnectionFlags(context="url"), environ)
    assert (both.user, both.password) == ("u", Secret("p"))
    assert (only.user, only.password) == ("x", Secret("y"))


def test_the_jetstream_api_prefix_follows_domain_and_prefix() -> None:
    assert ConnectOptions().js_prefix == "$JS.API"
    assert ConnectOptions().js_event_prefix == "$JS.EVENT"
    assert ConnectOptions(jetstream_domain="hub").js_prefix == "$JS.hub.API"
    assert ConnectOptions(jetstream_domain="hub", jetstream_api_prefix="JS.acc.API").js_prefix == "JS.acc.API"


# The first connect


async def _fails(options: ConnectOptions) -> str:
    started = time.monotonic()
    with pytest.raises(NotConnectedError) as caught:
        await connect(options)
    assert time.monotonic() - started < options.timeout + 2
    text = str(caught.value)
    assert "\n" not in text
    assert "hunter2" not in text
    return text


async def test_nobody_listening_fails_at_once_with_the_address(free_port: int) -> None:
    text = await _fails(ConnectOptions.from_url(f"nats://u:hunter2@127.0.0.1:{free_port}"))
    assert text == (
        f"cannot connect to nats://127.0.0.1:{free_port}: connection refused; is a NATS server running there?"
    )


async def test_the_context_is_named_in_the_failure(free_port: int) -> None:
    options = ConnectOptions(servers=(f"nats://127.0.0.1:{free_port}",), context="prod")
    assert f"nats://127.0.0.1:{free_port} (context 'prod')" in await _fails(options)


async def test_a_host_that_does_not_exist_fails() -> None:
    assert "cannot connect to nats://nowhere.invalid:4222" in await _fails(
        ConnectOptions.from_url("nats://nowhere.invalid")
    )


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [(b"", "no answer in time"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "cannot connect"), (b"x" * 200_000, "cannot")],
    ids=["silence", "another protocol", "garbage"],
)
async def test_something_else_listening_fails_in_time(greeting: bytes, expected: str) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(greeting)
            await writer.drain()
            await over.wait()
        writer.close()

    over = asyncio.Event()
    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        port = listener.sockets[0].getsockname()[1]
        text = await _fails(replace(ConnectOptions.from_url(f"nats://127.0.0.1:{port}"), timeout=1.0))
        assert expected in text
    finally:
        over.set()
        listener.close()
        await listener.wait_closed()


async def test_a_cancelled_connect_leaves_nothing_behind(free_port: int) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connect(ConnectOptions.from_url(f"nats://127.0.0.1:{free_port}"))
    assert asyncio.all_tasks() == before


async def test_websockets_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidConfigError, match=r"pip install 'asyncjobs-nats\[websocket\]'"):
        await connect(ConnectOptions.from_url("ws://127.0.0.1:1"))


@pytest.mark.server
async def test_a_connection_works_and_is_named(server: EmbeddedServer) -> None:
    client = await connect(ConnectOptions.from_url(server.url, name="the name"))
    try:
        assert client.options["name"] == "the name"
        assert client.options["max_reconnect_attempts"] == -1
        assert (await client.jetstream().account_info()).memory >= 0
    finally:
        await client.close()


@pytest.mark.server
async def test_one_server_of_several_is_enough(server: EmbeddedServer, free_port: int) -> None:
    client = await connect(ConnectOptions.from_url(f"nats://127.0.0.1:{free_port},{server.url}"))
    await client.close()


# Credentials


@pytest.mark.server
async def test_user_and_password_and_token(fresh_server: Fresh) -> None:
    password = fresh_server(config={"authorization": {"user": "alice", "password": "p@ss"}})
    host = password.url.removeprefix("nats://")
    await (await connect(ConnectOptions.from_url(f"nats://alice:p%40ss@{host}"))).close()
    wrong = await _fails(ConnectOptions.from_url(f"nats://alice:hunter2@{host}"))
    assert wrong == f"{password.url} refused the credentials (Authorization Violation); check them"
    none = await _fails(ConnectOptions.from_url(password.url))
    assert none == (
        f"{password.url} refused a connection without credentials (Authorization Violation); "
        "name a context that has some"
    )
    token = fresh_server(config={"authorization": {"token": "t0ken"}})
    await (await connect(replace(ConnectOptions.from_url(token.url), token=Secret("t0ken")))).close()
    assert "refused the credentials" in await _fails(replace(ConnectOptions.from_url(token.url), token=Secret("x")))


def _seed(prefix: int, number: int) -> str:
    return bytes(nkeys.encode_seed(bytes([number]) * 32, prefix)).decode()


def _public(seed: str) -> str:
    return bytes(nkeys.from_seed(bytearray(seed.encode())).public_key).decode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _jwt(signer: str, subject: str, kind: Mapping[str, Any]) -> str:
    """Sign a NATS JWT, as `nsc` does."""
    claims: dict[str, Any] = {"iat": 1, "iss": _public(signer), "sub": subject, "jti": "x", "name": "x"}
    claims |= {"exp": kind["exp"]} if "exp" in kind else {}
    claims["nats"] = {**kind, "version": 2}
    head = _encoded(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{head}.{_encoded(json.dumps(claims).encode())}"
    return f"{signed}.{_encoded(nkeys.from_seed(bytearray(signer.encode())).sign(signed.encode()))}"


USER_SEED = _seed(nkeys.PREFIX_BYTE_USER, 3)


@pytest.fixture
def jwt_server(fresh_server: Fresh) -> tuple[EmbeddedServer, Callable[..., str]]:
    """Give a server that trusts an operator, and a function that makes a JWT for our user seed."""
    operator, account = _seed(nkeys.PREFIX_BYTE_OPERATOR, 1), _seed(nkeys.PREFIX_BYTE_ACCOUNT, 2)
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1}
    system = _seed(nkeys.PREFIX_BYTE_ACCOUNT, 4)
    config = {
        "operator": _jwt(operator, _public(operator), {"type": "operator"}),
        "system_account": _public(system),
        "resolver": "MEMORY",
        "resolver_preload": {
            _public(each): _jwt(operator, _public(each), {"type": "account", "limits": limits})
            for each in (account, system)
        },
    }

    def user_jwt(**more: Any) -> str:
        no_limits = {"subs": -1, "data": -1, "payload": -1}
        return _jwt(account, _public(USER_SEED), {"type": "user", **no_limits, **more})

    return fresh_server(config=config), user_jwt


def _creds(jwt: str, seed: str = USER_SEED) -> str:
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\nIMPORTANT\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


@pytest.mark.server
async def test_credentials_file_and_content_and_jwt(
    jwt_server: tuple[EmbeddedServer, Callable[..., str]], tmp_path: Path
) -> None:
    server, user_jwt = jwt_server
    options = ConnectOptions.from_url(server.url)
    path = tmp_path / "user.creds"
    path.write_text(_creds(user_jwt()))
    for fitting in (
        replace(options, creds=path),
        replace(options, creds=Secret(_creds(user_jwt()))),
        replace(options, user_jwt=Secret(user_jwt()), user_seed=Secret(USER_SEED)),
        replace(options, user_jwt=Secret(user_jwt(bearer_token=True))),
    ):
        await (await connect(fitting)).close()
    other = _seed(nkeys.PREFIX_BYTE_USER, 9)
    assert "refused the credentials" in await _fails(replace(options, creds=Secret(_creds(user_jwt(), other))))


@pytest.mark.server
async def test_a_replaced_credentials_file_is_read_again_and_a_spoilt_one_is_survived(
    jwt_server: tuple[EmbeddedServer, Callable[..., str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    patience: Callable[[float], float],
) -> None:
    server, user_jwt = jwt_server
    path = tmp_path / "user.creds"
    path.write_text(_creds(user_jwt()))
    back = asyncio.Event()
    told = _LogEvent("holds no user JWT")
    logging.getLogger("aj_sdk.connect").addHandler(told)
    client = await connect(replace(ConnectOptions.from_url(server.url), creds=path), on_reconnected=back.set)
    try:
        path.write_text("spoilt")
        server.kill()
        await server.astart()
        async with asyncio.timeout(patience(10)):
            await told.seen.wait()
            path.write_text(_creds(user_jwt()))
            await back.wait()
        assert client.is_connected
    finally:
        logging.getLogger("aj_sdk.connect").removeHandler(told)
        await client.close()


@pytest.mark.server
async def test_nkey_from_a_file_and_from_content(fresh_server: Fresh, tmp_path: Path) -> None:
    server = fresh_server(config={"authorization": {"users": [{"nkey": _public(USER_SEED)}]}})
    path = tmp_path / "user.nk"
    path.write_text(USER_SEED + "\n")
    options = ConnectOptions.from_url(server.url)
    for nkey in (path, Secret(USER_SEED)):
        await (await connect(replace(options, nkey=nkey))).close()
    other = Secret(_seed(nkeys.PREFIX_BYTE_USER, 9))
    assert "refused the credentials" in await _fails(replace(options, nkey=other))


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a certificate authority (ca.pem) and one certificate for server and client."""
    folder = tmp_path_factory.mktemp("tls")
    now = dt.datetime.now(dt.UTC)

    def make(name: str, issuer: str, signer: ec.EllipticCurvePrivateKey | None, *, authority: bool) -> Any:
        key = ec.generate_private_key(ec.SECP256R1())
        common = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, issuer)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(common[0])
            .issuer_name(common[1])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
        )
        # Without these Python 3.13 refuses the certificate.
        parent = (signer or key).public_key()
        signs = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=authority,
            crl_sign=authority,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        for extension in (
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(parent),
            signs,
        ):
            builder = builder.add_extension(extension, critical=extension is signs)
        certificate = builder.sign(signer or key, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return key

    authority = make("ca", "ca", None, authority=True)
    make("both", "ca", authority, authority=False)
    make("stranger", "stranger", None, authority=True)
    return folder


def _tls(folder: Path, **more: Any) -> dict[str, Any]:
    files = {"cert_file": str(folder / "both.pem"), "key_file": str(folder / "both.key")}
    return {"tls": {**files, "ca_file": str(folder / "ca.pem"), **more}}


@pytest.mark.server
async def test_tls_with_an_authority_of_our_own(fresh_server: Fresh, certificates: Path) -> None:
    server = fresh_server(config=_tls(certificates))
    options = replace(ConnectOptions.from_url(server.url), tls_ca=certificates / "ca.pem")
    await (await connect(options)).close()
    await (await connect(replace(options, servers=(server.url.replace("nats://", "tls://"),)))).close()
    text = await _fails(replace(options, tls_ca=certificates / "stranger.pem"))
    assert text.startswith(f"TLS with {server.url} failed: certificate verify failed: ")
    assert text.endswith("; check the context's ca, cert and key")
    assert "certificate verify failed" in await _fails(ConnectOptions.from_url(server.url))


@pytest.mark.server
async def test_tls_with_a_client_certificate(fresh_server: Fresh, certificates: Path) -> None:
    server = fresh_server(config=_tls(certificates, verify=True))
    options = replace(ConnectOptions.from_url(server.url), tls_ca=certificates / "ca.pem")
    with_certificate = replace(options, tls_cert=certificates / "both.pem", tls_key=certificates / "both.key")
    await (await connect(with_certificate)).close()
    # The server's refusal comes after the handshake: sometimes its words arrive, sometimes only the end.
    assert (await _fails(options)).startswith((f"TLS with {server.url} failed: ", f"cannot connect to {server.url}: "))


@pytest.mark.server
async def test_a_server_that_comes_back_with_a_wrong_certificate_can_be_left(
    fresh_server: Fresh, certificates: Path, patience: Callable[[float], float]
) -> None:
    server = fresh_server(config=_tls(certificates))
    told = _LogEvent("certificate verify failed")
    logging.getLogger("aj_sdk.connect").addHandler(told)
    client = await connect(replace(ConnectOptions.from_url(server.url), tls_ca=certificates / "ca.pem"))
    try:
        async with asyncio.timeout(patience(20)):
            server.kill()
            stranger = {"cert_file": str(certificates / "stranger.pem"), "key_file": str(certificates / "stranger.key")}
            server._config["tls"] = stranger
            await server.astart()
            await told.seen.wait()
            await client.close()
    finally:
        logging.getLogger("aj_sdk.connect").removeHandler(told)


@pytest.mark.server
async def test_without_tls_no_credentials_are_sent_to_a_server_that_should_have_it(server: EmbeddedServer) -> None:
    url = server.url.replace("nats://", "tls://u:hunter2@")
    assert (
        await _fails(ConnectOptions.from_url(url))
        == f"{server.url.replace('nats', 'tls')} does not offer TLS, and we were told not to speak without it"
    )


async def test_wrong_files_are_told_before_anything_is_sent(certificates: Path, tmp_path: Path) -> None:
    (tmp_path / "spoilt").write_bytes(b"\xff hunter2")
    (tmp_path / "text").write_text("hunter2")
    options = ConnectOptions()
    for wrong, expected in (
        (replace(options, tls_ca=tmp_path / "text"), "holds no certificates"),
        (replace(options, tls_ca=tmp_path / "absent"), "holds no certificates"),
        (replace(options, tls_cert=certificates / "both.pem", tls_key=certificates / "ca.key"), "no certificate and"),
        (replace(options, tls_cert=tmp_path / "text", tls_key=tmp_path / "text"), "no certificate and"),
        (replace(options, creds=tmp_path / "absent"), "creds: cannot read"),
        (replace(options, creds=tmp_path / "spoilt"), "is no text"),
        (replace(options, creds=tmp_path / "text"), "holds no user JWT with its seed"),
        (replace(options, creds=Secret(_creds("eyJ", "SUhunter2"))), "creds: holds no valid nkey seed"),
        (replace(options, nkey=Secret("hunter2")), "nkey: holds no valid nkey seed"),
        (replace(options, nkey=tmp_path / "absent"), "nkey: cannot read"),
        (replace(options, user_jwt=Secret("eyJ"), user_seed=Secret("hunter2")), "user_seed: holds no valid"),
    ):
        with pytest.raises(InvalidConfigError, match=expected) as caught:
            await connect(wrong)
        assert "hunter2" not in str(caught.value)


async def test_an_encrypted_key_is_refused_instead_of_asked_for(certificates: Path, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key((certificates / "both.key").read_bytes(), None)
    (tmp_path / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    options = replace(ConnectOptions(), tls_cert=certificates / "both.pem", tls_key=tmp_path / "locked.key")
    with pytest.raises(InvalidConfigError, match="no certificate and its unencrypted key"):
        await connect(options)


# What happens to a connection


class _LogEvent(logging.Handler):
    """Sets an event when a record with a text comes by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen = asyncio.Event()
        self._text = text

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.seen.set()


@contextlib.asynccontextmanager
async def _connected(url: str, **callbacks: Callable[[], None]) -> AsyncIterator[Client]:
    client = await connect(ConnectOptions.from_url(url), **callbacks)
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.server
async def test_a_restart_is_survived_and_told(
    clean_server: EmbeddedServer, caplog: pytest.LogCaptureFixture, patience: Callable[[float], float]
) -> None:
    caplog.set_level(logging.DEBUG, "aj_sdk.connect")
    lost, back, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    callbacks = {"on_disconnected": lost.set, "on_reconnected": back.set, "on_closed": closed.set}
    async with _connected(clean_server.url, **callbacks) as client, asyncio.timeout(patience(20)):
        clean_server.kill()
        await lost.wait()
        await clean_server.astart()
        await back.wait()
        assert client.is_connected
    assert closed.is_set()
    messages = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert ("WARNING", "NATS connection lost; reconnecting") in messages
    assert any(level == "INFO" and "restored, to 127.0.0.1" in text for level, text in messages)
    assert messages[-1] == ("DEBUG", "NATS connection closed")
    refused = [text for _, text in messages if "connection refused" in text]
    assert len(refused) <= 1


@pytest.mark.server
async def test_a_connection_that_nats_py_gives_up_is_an_error_in_the_log(
    fresh_server: Fresh, caplog: pytest.LogCaptureFixture, patience: Callable[[float], float]
) -> None:
    server = fresh_server(config={"max_subscriptions": 1})
    closed = asyncio.Event()
    async with _connected(server.url, on_closed=closed.set) as client, asyncio.timeout(patience(20)):
        await client.subscribe("one")
        await client.subscribe("two")
        await closed.wait()
    assert [(record.levelname, record.getMessage()) for record in caplog.records][-1] == (
        "ERROR",
        "NATS connection closed for good: maximum subscriptions exceeded",
    )


@pytest.mark.server
async def test_credentials_taken_away_are_tried_on_until_they_work_again(
    fresh_server: Fresh, patience: Callable[[float], float]
) -> None:
    server = fresh_server(config={"authorization": {"users": [{"user": "u", "password": "p"}]}})
    back = asyncio.Event()
    settings = server._home() / "nats-server.conf"
    good = settings.read_text()
    told = _LogEvent("Authorization Violation; trying on")
    logging.getLogger("aj_sdk.connect").addHandler(told)
    url = server.url.replace("//", "//u:p@")
    try:
        async with _connected(url, on_reconnected=back.set), asyncio.timeout(patience(20)):
            settings.write_text(good.replace('"u"', '"somebody else"'))
            os.kill(server.pid, signal.SIGHUP)
            await told.seen.wait()
            settings.write_text(good)
            os.kill(server.pid, signal.SIGHUP)
            await back.wait()
    finally:
        logging.getLogger("aj_sdk.connect").removeHandler(told)


@pytest.mark.server
async def test_expired_credentials_are_tried_on_until_there_are_newer_ones(
    jwt_server: tuple[EmbeddedServer, Callable[..., str]], tmp_path: Path, patience: Callable[[float], float]
) -> None:
    server, user_jwt = jwt_server
    path = tmp_path / "user.creds"
    path.write_text(_creds(user_jwt(exp=int(time.time()) + 2)))
    back = asyncio.Event()
    told = _LogEvent("authentication expired")
    logging.getLogger("aj_sdk.connect").addHandler(told)
    client = await connect(replace(ConnectOptions.from_url(server.url), creds=path), on_reconnected=back.set)
    try:
        path.write_text(_creds(user_jwt()))
        async with asyncio.timeout(patience(20)):
            await told.seen.wait()
            await back.wait()
        assert client.is_connected
    finally:
        logging.getLogger("aj_sdk.connect").removeHandler(told)
        await client.close()


@pytest.mark.server
async def test_a_refused_permission_is_an_error_in_the_log(
    fresh_server: Fresh, patience: Callable[[float], float]
) -> None:
    permissions = {"publish": "allowed"}
    server = fresh_server(
        config={"authorization": {"users": [{"user": "u", "password": "p", "permissions": permissions}]}}
    )
    told = _LogEvent("permissions violation for publish")
    logging.getLogger("aj_sdk.connect").addHandler(told)
    try:
        async with _connected(server.url.replace("//", "//u:p@")) as client, asyncio.timeout(patience(10)):
            await client.publish("forbidden", b"")
            await told.seen.wait()
    finally:
        logging.getLogger("aj_sdk.connect").removeHandler(told)


def test_an_error_is_said_in_few_words() -> None:
    assert connect_module._words(nats.errors.Error("nats: 'Some\r\nThing'")) == "Some Thing"
    assert connect_module._words(ssl.SSLError(1, "x")) == "TLS error"
    assert connect_module._words(OSError(5, "Nope")) == "Nope"
    assert connect_module._words(ValueError()) == "ValueError"
