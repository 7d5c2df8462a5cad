"""Routes from a configuration: flags, and the tables of a file."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aj_bridge.core.retry import RetryPolicy
from aj_bridge.engine.router import EACH, Encoding, Route, RouteKind, Router
from aj_bridge.faces.config import BridgeConfig, build_config
from aj_bridge.faces.options import read_config_file
from aj_sdk.errors import InvalidConfigError, UsageError


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the name of a module with two handlers."""
    name = f"app_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from aj_sdk import Services, Task\n"
        "services = Services()\n"
        "@services.service('sms:new', concurrency=2)\n"
        "def sms(task: Task) -> str: return 'sent'\n"
        "@services.service('sms:')\n"
        "async def other(task: Task) -> str: return 'other'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def configured(tmp_path: Path, toml: str = "", **flags: Any) -> BridgeConfig:
    path = tmp_path / "bridge.toml"
    path.write_text(toml)
    return build_config(read_config_file(path), {}, flags)


def test_flags_make_routes(tmp_path: Path, app: str) -> None:
    config = configured(tmp_path, remote=("email:", EACH), command=("tidy=/bin/true", "=/bin/false"), app=(app,))
    with pytest.raises(InvalidConfigError, match="each take the rest"):
        config.router  # noqa: B018
    router = configured(tmp_path, remote=("email:", EACH), command=("tidy=/bin/true",), app=(app,)).router
    assert [(route.type, route.kind) for route in router.routes] == [
        ("email:", RouteKind.REMOTE),
        (EACH, RouteKind.REMOTE),
        ("tidy", RouteKind.COMMAND),
        ("sms:new", RouteKind.FUNCTION),
        ("sms:", RouteKind.FUNCTION),
    ]
    sms = router.route("sms:new")
    assert sms is not None
    assert (sms.limit, sms.concurrency) == (2, None)


def test_without_any_there_is_one_for_all(tmp_path: Path) -> None:
    assert configured(tmp_path).router.routes == Router().routes


def test_a_file_has_routes_with_all_that_belongs_to_them(tmp_path: Path, app: str) -> None:
    config = configured(
        tmp_path,
        f"""
        concurrency = 7
        backoff = {{min = "2s", max = "8s", factor = 2, jitter = 0.25}}

        [[route]]
        type = "email:"
        backoff = "min=1s,max=2s"
        concurrency = 5
        encoding = "msgpack"

        [[route]]
        type = ""
        command = "/bin/true"
        backoff = {{intervals = ["1s", "5s"], jitter = 1}}

        [[route]]
        type = "sms:new"
        kind = "function"
        app = "{app}:services"
        """,
    )
    second = timedelta(seconds=1)
    assert config.concurrency == 7
    assert config.backoff == RetryPolicy([2 * second, 4 * second, 8 * second], 0.25)
    email, rest, sms = config.router.routes
    assert email == Route(
        type="email:", policy=RetryPolicy([second, 2 * second]), concurrency=5, encoding=Encoding.MSGPACK
    )
    assert (rest.kind, rest.command, rest.policy) == (
        RouteKind.COMMAND,
        Path("/bin/true"),
        RetryPolicy([second, 5 * second], 1),
    )
    assert sms.service is not None
    assert sms.service.route == "sms:new"


@pytest.mark.parametrize(
    ("toml", "fault"),
    [
        ('route = "email"', "bridge.toml:1: route: must be tables, each headed [[route]]"),
        ("[[route]]\nconcurrency = 1", "bridge.toml: route 1: has no type"),
        ('[[route]]\ntype = "a b"', "bridge.toml: route 1: type: task type 'a b' is invalid"),
        ('[[route]]\ntype = "a"\nconcurency = 1', "concurency: no such setting; did you mean concurrency?"),
        ('[[route]]\ntype = "a"\nbackoff = "soon"', "bridge.toml: route 1: backoff: 'soon' is no retry policy"),
        ('[[route]]\ntype = "a"\nbackoff = 7', "bridge.toml: route 1: backoff: must be a text"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(tmp_path: Path, toml: str, fault: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        configured(tmp_path, toml)
    assert any(fault in each for each in caught.value.faults), caught.value.faults


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        ('[[route]]\ntype = "a"\ncommand = "/no/such"', "command /no/such: there is no such file"),
        ('[[route]]\ntype = "a"\nkind = "command"', "route a: kind command needs command"),
        ('[[route]]\ntype = ""\nkind = "remote"\ncommand = "/bin/true"', "route catchall: kind, command and app contr"),
        ('[[route]]\ntype = "a"\napp = "no_such_app"', "no module 'no_such_app'"),
        ('remote = ["a"]\n[[route]]\ntype = "a"', "'?a'?"),
    ],
)
def test_routes_that_can_not_be_are_refused_before_anything_begins(tmp_path: Path, toml: str, why: str) -> None:
    config = configured(tmp_path, toml)
    with pytest.raises(UsageError, match=why):
        config.router  # noqa: B018


def test_an_app_without_the_wanted_handler_says_which_it_has(tmp_path: Path, app: str) -> None:
    config = configured(tmp_path, f'[[route]]\ntype = "email"\napp = "{app}"')
    with pytest.raises(UsageError, match="no handler is registered for email; there are sms:new, sms:"):
        config.router  # noqa: B018
