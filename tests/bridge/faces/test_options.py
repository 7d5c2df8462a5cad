"""Options declared once: weights of the places, all faults at once, click options and documentation from one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from aj_bridge.faces.kinds import SERVERS, TRUTH, duration, name, number, text
from aj_bridge.faces.options import ConfigFile, add_options, describe, merge, option, options_of, read_config_file
from aj_sdk.errors import InvalidConfigError


@dataclass(frozen=True, kw_only=True)
class Table:
    queue: str = option(name("queue name"), "The queue", default="DEFAULT", aliases={"AJC_QUEUE": str})
    concurrency: int = option(number(1, 100), "How many", default=10, unit="tasks")
    wait_ns: int | None = option(duration(), "How long", name="wait", default=None)
    remote: tuple[str, ...] = option(name("task type", empty=True), "Which", default=(), many=True)
    adopt: bool = option(TRUTH, "Whether", default=False, off="--leave")
    server: str = option(SERVERS, "Where", default="", global_flag=True, secret=True)
    level: str = option(text("LEVEL"), "Words", default="info", aliases={"DEBUG": lambda t: "debug" * (t == "1")})


ROWS = options_of(Table)

WriteFile = Callable[[str], ConfigFile]


@pytest.fixture
def file(tmp_path: Path) -> WriteFile:
    """Give a function that writes a configuration file and reads it."""

    def write(content: str) -> ConfigFile:
        path = tmp_path / "aj.toml"
        path.write_text(content)
        return read_config_file(path)

    return write


def _value(
    field: str,
    *,
    file: ConfigFile | None = None,
    environ: Mapping[str, str] = {},
    flags: Mapping[str, Any] = {},
) -> Any:
    found = merge(ROWS, file, environ, flags)
    assert found.faults == []
    return found.values[field]


def test_each_place_wins_over_the_ones_before_it(file: WriteFile) -> None:
    from_file = file('queue = "FILE"')
    assert _value("queue") == "DEFAULT"
    assert _value("queue", file=from_file) == "FILE"
    assert _value("queue", file=from_file, environ={"AJC_QUEUE": "GO"}) == "GO"
    environ = {"AJC_QUEUE": "GO", "AJ_QUEUE": "OURS"}
    assert _value("queue", file=from_file, environ=environ) == "OURS"
    assert _value("queue", file=from_file, environ=environ, flags={"queue": "FLAG"}) == "FLAG"


def test_absent_means_none_or_empty(file: WriteFile) -> None:
    assert _value("queue", environ={"AJ_QUEUE": ""}, flags={"queue": None}) == "DEFAULT"
    assert _value("remote", environ={"AJ_REMOTE": "a"}, flags={"remote": ()}) == ("a",)
    assert _value("level", environ={"DEBUG": "0"}) == "info"
    assert _value("level", environ={"DEBUG": "1"}) == "debug"


def test_every_type_is_read_from_every_place(file: WriteFile) -> None:
    from_file = file('concurrency = 7\nwait = "1m"\nremote = ["a", "b:"]\nadopt = true\n')
    environ = {"AJ_CONCURRENCY": "7", "AJ_WAIT": "1m", "AJ_REMOTE": "a, b:", "AJ_ADOPT": "yes"}
    flags = {"concurrency": "7", "wait": "1m", "remote": ("a", "b:"), "adopt": True}
    found = [
        merge(ROWS, from_file, {}, {}).values,
        merge(ROWS, None, environ, {}).values,
        merge(ROWS, None, {}, flags).values,
    ]
    assert found[0] == found[1] == found[2]
    assert found[0]["concurrency"] == 7
    assert found[0]["wait_ns"] == 60_000_000_000
    assert found[0]["remote"] == ("a", "b:")
    assert found[0]["adopt"] is True


def test_a_flag_can_take_back_what_the_file_says(file: WriteFile) -> None:
    assert _value("adopt", file=file("adopt = true"), flags={"adopt": False}) is False


def test_all_faults_are_told_at_once_with_their_places(file: WriteFile) -> None:
    broken = file('\nqeue = "x"\nconcurrency = "many"\nwait = 30\nadopt = 1\n\n[remote]\nx = 1\n')
    found = merge(ROWS, broken, {"AJ_QUEUE": "a b"}, {"level": "x", "wait": "soon", "server": "http://u:hunter2@a"})
    assert found.faults == [
        f"{broken.path}:2: qeue: no such setting; did you mean queue?",
        "AJ_QUEUE: queue name 'a b' is invalid: use 1 to 128 of the characters A-Z a-z 0-9 _ : -",
        f"{broken.path}:3: concurrency: must be a whole number",
        f'{broken.path}:4: wait: must be a text, like wait = "..."',
        "--wait: 'soon' is not a duration; write it like 30s, 1m30s or 250ms",
        f'{broken.path}:7: remote: must be a list of texts, like ["a", "b"]',
        f"{broken.path}:5: adopt: must be true or false",
        "--server: 'http://***@a': must begin with one of nats://, tls://, ws://, wss://",
    ]


def test_a_broken_variable_does_not_matter_when_a_flag_says_otherwise() -> None:
    assert _value("concurrency", environ={"AJ_CONCURRENCY": "many"}, flags={"concurrency": "3"}) == 3


def test_a_truth_value_is_no_number(file: WriteFile) -> None:
    assert merge(ROWS, file("concurrency = true"), {}, {}).faults[0].endswith("must be a whole number")


def test_a_setting_that_is_like_none_lists_them_all(file: WriteFile) -> None:
    assert "there are queue, concurrency" in merge(ROWS, file("zzz = 1"), {}, {}).faults[0]
    assert "did you mean concurrency" in merge(ROWS, file("Concurency = 1"), {}, {}).faults[0]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"queue = ", ":1: Invalid value"),
        (b'a = 1\nb = "x\n', ":2: "),
        (b"a = 1\na = 2\n", ":2: Cannot overwrite a value"),
        (b"\n\nx = '''\n\n", ":3: "),
        (b"\xff", ": not a text in UTF-8"),
        (b"a=" + b"[" * 100_000, "nested too deep"),
        (b"#" * (1 << 20) + b"#", "larger than 1048576 bytes"),
    ],
    ids=["no value", "open text", "twice", "open at the end", "bytes", "deep", "large"],
)
def test_a_file_that_is_not_toml_is_one_line_with_the_place(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "aj.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidConfigError) as caught:
        read_config_file(path)
    text = str(caught.value)
    assert fault in text
    assert str(path) in text
    assert "\n" not in text


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"cannot read the configuration file .*/none\.toml: No such file"):
        read_config_file(tmp_path / "none.toml")


def test_click_gets_its_options_from_the_table() -> None:
    seen: dict[str, Any] = {}

    @click.command
    @add_options(ROWS)
    def command(**flags: Any) -> None:
        seen.update(flags)

    run = CliRunner().invoke
    arguments = ["--queue", "Q", "--wait", "soon", "--remote", "a", "--remote", "", "--adopt"]
    assert run(command, arguments, catch_exceptions=False).exit_code == 0
    assert seen == {
        "queue": "Q",
        "concurrency": None,
        "wait": "soon",
        "remote": ("a", ""),
        "adopt": True,
        "level": None,
    }
    run(command, ["--leave"])
    assert seen["adopt"] is False
    page = " ".join(run(command, ["--help"]).output.split())
    for part in ("--wait DURATION", "[AJ_QUEUE; default DEFAULT]", "--adopt / --leave", "default 10 tasks]"):
        assert part in page
    assert "--server" not in page


def test_the_documentation_has_a_row_for_each_option() -> None:
    page = describe(ROWS)
    assert page.count("\n") == len(ROWS) + 2
    assert "| `--queue NAME` | `AJ_QUEUE`, `AJC_QUEUE` | `queue` | `DEFAULT` | The queue |" in page
    assert "| `--concurrency N` | `AJ_CONCURRENCY` | `concurrency` | `10` tasks | How many |" in page
    assert "| `--remote NAME` | `AJ_REMOTE` | `remote` |  | Which; may be repeated |" in page


def test_a_secret_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(Table(server="nats://u:hunter2@a"))
