"""NATS contexts become values, faults become one clear message, and secrets show up in neither."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aj_sdk.context import NatsContext, Secret, context_exists, known_contexts, load_context, selected_context
from aj_sdk.errors import InvalidConfigError

Load = Callable[..., NatsContext]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "nats" / "context").mkdir(parents=True)
    return {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path / "home")}


@pytest.fixture
def load(environ: dict[str, str], tmp_path: Path) -> Load:
    """Give a function that writes a context of the given keys and loads it."""

    def load(**keys: object) -> NatsContext:
        (tmp_path / "nats" / "context" / "prod.json").write_text(json.dumps(keys))
        return load_context("prod", environ)

    return load


def _fault(load: Load, **keys: object) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        load(**keys)
    return str(caught.value)


def _data(text: str) -> str:
    return "data:;base64," + base64.b64encode(text.encode()).decode()


def test_every_supported_key_is_read(load: Load, tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text("")
    context = load(
        description="ours",
        url="nats://a:4222,nats://b:4222",
        user="alice",
        password="p4ss",
        token="t0ken",
        cert=str(tmp_path / "cert.pem"),
        key=str(tmp_path / "key.pem"),
        ca=str(tmp_path / "ca.pem"),
        tls_first=True,
        inbox_prefix="_INBOX_alice",
        jetstream_domain="hub",
        jetstream_api_prefix="JS.acc.API.",
        jetstream_event_prefix="JS.acc.EVENT.",
        color_scheme="red",
        something_new={"ignored": True},
    )
    assert context == NatsContext(
        name="prod",
        path=tmp_path / "nats" / "context" / "prod.json",
        url="nats://a:4222,nats://b:4222",
        user="alice",
        password=Secret("p4ss"),
        token=Secret("t0ken"),
        cert=tmp_path / "cert.pem",
        key=tmp_path / "key.pem",
        ca=tmp_path / "ca.pem",
        tls_first=True,
        inbox_prefix="_INBOX_alice",
        jetstream_domain="hub",
        jetstream_api_prefix="JS.acc.API",
        jetstream_event_prefix="JS.acc.EVENT",
    )


def test_an_empty_context_and_empty_values_mean_the_defaults(load: Load) -> None:
    assert load() == load(
        url="", user="", password="", token="", creds="", nkey="", cert="", ca=None, socks_proxy="", nsc=None
    )


def test_keys_are_read_without_regard_to_case(load: Load) -> None:
    assert load(URL="nats://a", TLS_First=True).tls_first


def test_the_folder_is_below_home_when_xdg_names_none(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "nats" / "context"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text('{"url": "nats://a"}')
    assert load_context("x", {"HOME": str(tmp_path)}).url == "nats://a"
    assert known_contexts({"HOME": str(tmp_path)}) == ("x",)


def test_the_selected_context_is_the_one_in_context_txt(environ: dict[str, str], tmp_path: Path) -> None:
    assert selected_context(environ) == ""
    (tmp_path / "nats" / "context.txt").write_text("prod\n")
    assert selected_context(environ) == "prod"


def test_whether_a_context_exists_is_asked_without_reading_it(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "nats" / "context" / "AJC.json").write_text("not json")
    assert context_exists("AJC", environ)
    assert not context_exists("other", environ)
    assert not context_exists("../context/AJC", environ)


@pytest.mark.parametrize("key", ["user", "password", "token"])
def test_a_bare_value_stands_for_itself(load: Load, key: str) -> None:
    extra = {"user": "u"} if key == "password" else {}
    assert _revealed(load(**extra, **{key: "/etc/passwd:x"}), key) == "/etc/passwd:x"


@pytest.mark.parametrize("key", ["user", "password", "token", "user_jwt"])
@pytest.mark.parametrize("scheme", ["file", "env", "data"])
def test_a_reference_is_resolved(load: Load, environ: dict[str, str], tmp_path: Path, key: str, scheme: str) -> None:
    (tmp_path / "value").write_text("the value\n")
    environ["THE_VALUE"] = "the value"
    reference = {"file": f"file://{tmp_path}/value", "env": "env://THE_VALUE", "data": _data("the value")}[scheme]
    assert _revealed(load(**{key: reference}), key) == "the value"


def _revealed(context: NatsContext, key: str) -> str:
    found = getattr(context, key)
    return found.reveal() if isinstance(found, Secret) else str(found)


@pytest.mark.parametrize("key", ["creds", "nkey"])
def test_credentials_in_a_file_stay_a_file(load: Load, environ: dict[str, str], tmp_path: Path, key: str) -> None:
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / "user.creds"
    file.write_text("x")
    environ["WHERE"] = str(tmp_path)
    for value in (str(file), f"file://{file}", "~/user.creds", "file://~/user.creds", "${WHERE}/home/user.creds"):
        assert getattr(load(**{key: value}), key) == file


@pytest.mark.parametrize("key", ["creds", "nkey"])
def test_credentials_in_the_environment_or_inline_are_content(load: Load, environ: dict[str, str], key: str) -> None:
    environ["SEED"] = "SUAseed\n"
    assert getattr(load(**{key: "env://SEED"}), key) == Secret("SUAseed")
    assert getattr(load(**{key: _data("SUAseed")}), key) == Secret("SUAseed")


def test_a_jwt_may_be_the_value_itself_or_in_a_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "user.jwt").write_text("eyJ.file\n")
    (tmp_path / "user.seed").write_text("SUfile\n")
    assert load(user_jwt="eyJ.inline", user_seed="SUinline").user_seed == Secret("SUinline")
    context = load(user_jwt=str(tmp_path / "user.jwt"), user_seed=str(tmp_path / "user.seed"))
    assert (context.user_jwt, context.user_seed) == (Secret("eyJ.file"), Secret("SUfile"))


def test_the_first_of_several_credentials_wins_as_in_go(load: Load) -> None:
    context = load(user="u", creds="/not/there.creds", nkey="/not/there.nk", user_jwt="eyJ", user_seed="SU")
    assert (context.user, context.creds, context.nkey, context.user_jwt, context.user_seed) == ("u", *[None] * 4)


def test_an_unknown_name_lists_what_there_is(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="there are none; make one with: nats context add"):
        load_context("prod", environ)
    for name in ("staging", "dev"):
        (tmp_path / "nats" / "context" / f"{name}.json").write_text("{}")
    with pytest.raises(InvalidConfigError, match=r"no NATS context 'prod' in .*: there are dev, staging"):
        load_context("prod", environ)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\nb", "a\x00b"])
def test_a_name_that_leaves_the_folder_is_refused(environ: dict[str, str], name: str) -> None:
    with pytest.raises(InvalidConfigError, match="is no name of a NATS context"):
        load_context(name, environ)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"password": "hunter2"', b"[]", b'"x"', b"\xff\xfe{}", b"[" * 100_000, b" " * (1 << 20) + b"{} "],
    ids=["empty", "open", "cut", "list", "text", "utf16", "deep", "large"],
)
def test_a_file_that_is_no_json_object_is_one_line_with_name_and_path(
    environ: dict[str, str], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "nats" / "context" / "prod.json"
    path.write_bytes(content)
    with pytest.raises(InvalidConfigError) as caught:
        load_context("prod", environ)
    assert f"NATS context 'prod' ({path})" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_folder_in_place_of_a_file_is_told(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "nats" / "context" / "prod.json").mkdir()
    with pytest.raises(InvalidConfigError, match="cannot read the file: Is a directory"):
        load_context("prod", environ)
    assert known_contexts(environ) == ()


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"socks_proxy": "socks5://x"}, "socks_proxy: not supported"),
        ({"nsc": "nsc://o/a/u"}, "nsc: not supported"),
        ({"windows_cert_store": "machine"}, "windows_cert_store: not supported"),
        ({"windows_ca_certs_match": ["x"]}, "windows_ca_certs_match: not supported"),
        ({"creds": "op://vault/item"}, "creds: op:// values are not supported"),
        ({"nkey": "nsc://o/a/u"}, "nkey: nsc:// values are not supported"),
        ({"token": "op://vault/item"}, "token: op:// values are not supported"),
        ({"url": 4222}, "url: must be a text"),
        ({"user": ["u"]}, "user: must be a text"),
        ({"tls_first": "yes"}, "tls_first: must be true or false"),
        ({"inbox_prefix": "a.>"}, "inbox_prefix: must be a subject"),
        ({"jetstream_domain": "a b"}, "jetstream_domain: must be a subject"),
        ({"creds": "/not/there.creds"}, "creds: there is no file /not/there.creds"),
        ({"user_jwt": "/not/there.jwt"}, "user_jwt: there is no file /not/there.jwt"),
        ({"creds": "$NOT_SET/x.creds"}, "creds: the environment variable NOT_SET is not set"),
        ({"password": "env://NOT_SET"}, "password: the environment variable NOT_SET is not set"),
        ({"nkey": "data:text/plain,abc"}, "nkey: a data: value must look like data:;base64,"),
        ({"nkey": "data:;base64,%%%"}, "nkey: the data: value is not base64"),
        ({"cert": "/not/there.pem"}, "cert: there is no file /not/there.pem"),
    ],
)
def test_a_fault_names_the_file_and_the_key(load: Load, tmp_path: Path, keys: dict[str, object], fault: str) -> None:
    text = _fault(load, **keys)
    assert fault in text
    assert str(tmp_path / "nats" / "context" / "prod.json") in text


def test_a_certificate_needs_its_key(load: Load, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("")
    assert "cert, key: one needs the other" in _fault(load, cert=str(tmp_path / "cert.pem"))


def test_a_referenced_file_that_is_no_text_is_told(load: Load, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff")
    assert "token: cannot read the file that it names as text" in _fault(load, token=f"file://{tmp_path}/token")


def test_all_faults_are_told_at_once(load: Load) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(url=1, tls_first=2, nsc="x")
    assert len(caught.value.faults) == 3


def test_secrets_are_in_neither_repr_nor_str(load: Load) -> None:
    context = load(url="nats://u:hunter2@a", user="u", password="hunter2", token="hunter2")
    shown = f"{context!r} {context} {context.password} {context.password!r} {[context.token]}"
    assert "hunter2" not in shown
    assert context.password is not None
    assert context.password.reveal() == "hunter2"


@pytest.mark.parametrize("key", ["creds", "nkey", "user_jwt"])
def test_a_secret_pasted_where_a_file_belongs_is_not_shown(load: Load, key: str) -> None:
    assert "hunter2" not in _fault(load, **{key: "XUAhunter2"})
