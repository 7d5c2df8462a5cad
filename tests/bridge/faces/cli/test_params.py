"""How values are written on a command line."""

from datetime import timedelta

import click
import pytest

from aj_bridge.faces.cli.params import DURATION


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0", timedelta(0)),
        ("30s", timedelta(seconds=30)),
        ("250ms", timedelta(milliseconds=250)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(days=7)),
        ("1W2D3h", timedelta(days=9, hours=3)),
        ("1M", timedelta(days=30)),
        ("1m", timedelta(minutes=1)),
        ("1y1M1m", timedelta(days=395, minutes=1)),
        ("0.5d", timedelta(hours=12)),
        ("0d", timedelta(0)),
        ("-1d12h", -timedelta(hours=36)),
        ("+5s", timedelta(seconds=5)),
        ("1µs", timedelta(microseconds=1)),
    ],
)
def test_durations_are_gos_and_those_of_the_go_projects_command(text: str, span: timedelta) -> None:
    assert DURATION.convert(text, None, None) == span


@pytest.mark.parametrize(
    "text", ["", "-", "5", "five", "1d5", "1d-5s", "1d-", "--1s", "1 s", "1s ", "9" * 400 + "y", "9" * 30 + "d", "1e3s"]
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration; write it like 30s, 250ms, 1h30m or 7d"):
        DURATION.convert(text, None, None)


def test_a_default_that_is_a_duration_already_is_taken_as_it_is() -> None:
    assert DURATION.convert(timedelta(1), None, None) == timedelta(1)
