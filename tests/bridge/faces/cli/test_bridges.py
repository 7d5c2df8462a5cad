"""`aj-bridge ps` and `aj-bridge ctl`: what they print and refuse; what they do is shown by the acceptance tests."""

import shlex

import click
import pytest
from click.testing import CliRunner

from aj_bridge.faces.cli import bridges
from aj_bridge.faces.cli.main import aj_bridge_group
from aj_sdk.bridges import SilentBridge
from aj_sdk.wire.bridge import BridgeStatus, ServedStatus

COMMANDS = {
    name: command for name, command in aj_bridge_group().commands.items() if name in ("ps", "ctl", "handlers", "call")
}


def status(**changes: object) -> BridgeStatus:
    queues = (
        ServedStatus(
            name="A", weight=6, in_hand=3, running=2, calls=7000, failed=1, calls_per_s=1234.5, failed_per_s=0.017
        ),
        ServedStatus(name="B", weight=1, in_hand=0, running=0, calls=0, failed=0, calls_per_s=0.0, failed_per_s=0.0),
    )
    fields = {
        "id": "abc",
        "host": "here",
        "pid": 7,
        "version": "0.1.0",
        "started_ns": 1_700_000_000_000_000_000,
        "state": "working",
        "concurrency": 1000,
        "in_hand": 3,
        "queues": queues,
    }
    return BridgeStatus(**{**fields, **changes})  # type: ignore[arg-type]


def test_bridges_are_listed_with_queues_rates_and_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    one = status(queues=status().queues[:1], id="one", state="paused", host="ev\x1bil")
    bridges._print_all([status(), one, SilentBridge(id="x", reason="gave no answer within 2 s")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 bridges"
    first, second, third = lines[-4:-1]
    assert first.split()[:4] == ["abc", "working", "here,", "pid"]
    assert all(part in first for part in ("A=6, B=1", "3 of 1,000", " 1,234 ", " 0.017 ", "2023-11-14"))
    assert "ev\\x1bil" in second
    assert " A " in second
    assert third.split() == ["x", "silent", "gave", "no", "answer", "within", "2", "s"]


def test_a_bridge_is_shown_with_a_line_for_each_queue(capsys: pytest.CaptureFixture[str]) -> None:
    bridges._print_one(status(state="draining"))
    shown = capsys.readouterr().out
    assert "State: draining" in shown
    (line,) = (line.split() for line in shown.splitlines() if line.strip().startswith("A "))
    assert line == ["A", "6", "3", "2", "7,000", "1", "1,234", "0.017"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("ctl", "Missing argument 'ID'"),
        ("ctl abc", "Missing argument 'status|drain|concurrency|pause|resume'"),
        ("ctl abc dance", "'dance' is not one of"),
        ("ctl abc concurrency", "concurrency needs a number: how many tasks at once"),
        ("ctl abc concurrency 0", "0 is not in the range"),
        ("ctl abc drain 4", "drain takes no number"),
        ("ps --timeout soon", "'soon' is not a duration"),
    ],
)
def test_a_command_line_that_means_nothing_is_refused(words: str, fault: str) -> None:
    result = CliRunner().invoke(aj_bridge_group(), shlex.split(words))
    assert result.exit_code
    assert fault in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_parse(name: str) -> None:
    command = COMMANDS[name]
    text = command.get_help(click.Context(command, info_name=name))
    examples = [line.strip() for line in text.partition("Examples:")[2].splitlines() if line.strip()]
    assert len(examples) >= 2
    for example in examples:
        program, _, *words = shlex.split(example)
        assert program == "aj-bridge"
        with command.make_context(name, words) as parsed:
            assert parsed.params
