"""The log of our processes: one line a record, fields at its end, and nothing in it that steers a terminal."""

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_bridge.faces.logs import FORMATS, LEVELS, JsonFormatter, TextFormatter, printable, set_up_logging

Logged = Callable[..., tuple[logging.Logger, io.StringIO]]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Give a function that makes a logger with a log of its own; the root logger is left alone."""
    logger = logging.getLogger("tests.logs")
    logger.propagate = False

    def start(
        stream: io.StringIO | None = None,
        environ: dict[str, str] | None = None,
        *,
        level: str = "info",
        style: str = "text",
    ) -> tuple[logging.Logger, io.StringIO]:
        stream = stream or io.StringIO()
        set_up_logging(stream=stream, environ=environ or {}, logger=logger, level=level, style=style)
        return logger, stream

    yield start
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def _record(message: str, **fields: object) -> logging.LogRecord:
    record = logging.makeLogRecord(
        {"name": "root", "levelno": logging.INFO, "levelname": "INFO", "msg": message, "created": 0.0}
    )
    vars(record).update(fields)
    return record


def test_a_text_line_has_time_level_message_and_fields() -> None:
    line = TextFormatter().format(_record("task done", queue="EMAIL", tries=3, last_err='a "b" c', empty=""))
    assert line == ('1970-01-01T00:00:00.000Z INFO    task done queue=EMAIL tries=3 last_err="a \\"b\\" c" empty=""')


def test_a_json_line_has_the_same() -> None:
    line = JsonFormatter().format(_record("täsk", queue="EMAIL", tries=3, level="mine", odd={1}))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "info",
        "logger": "root",
        "message": "täsk",
        "queue": "EMAIL",
        "tries": 3,
        "level_": "mine",
        "odd": "{1}",
    }
    assert "täsk" in line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain täxt 漢字 🎉", "plain täxt 漢字 🎉"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x7f\x85\x9b", "\\x7f\\x85\\x9b"),
        ("\u202e\u2066\u200f", "\\u202e\\u2066\\u200f"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_steers_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_any_text_stays_on_one_printable_line(message: str, field: str) -> None:
    record = _record("%s", field=field)
    record.args = (message,)
    text, as_json = TextFormatter().format(record), JsonFormatter().format(record)
    assert text.isprintable()
    assert as_json.isprintable()
    assert json.loads(as_json)["message"] == message
    assert json.loads(as_json)["field"] == field


def test_a_field_name_is_escaped_too() -> None:
    assert "\n" not in TextFormatter().format(_record("x", **{"a\nb": 1}))


@pytest.mark.parametrize("style", FORMATS)
def test_a_traceback_cannot_forge_a_record(logged: Logged, style: str) -> None:
    logger, stream = logged(style=style)
    forged = ValueError("bad\n2026-01-01T00:00:00.000Z INFO    all is well\x1b[2J")
    logger.error("it failed", stack_info=True, exc_info=forged)
    lines = stream.getvalue().splitlines()
    if style == "json":
        assert len(lines) == 1
        assert "ValueError: bad\n" in json.loads(lines[0])["exception"]
    else:
        assert lines[0].endswith("ERROR   it failed")
        assert all(line.startswith("  | ") for line in lines[1:])
    assert "\x1b" not in stream.getvalue()


def test_the_level_is_obeyed(logged: Logged) -> None:
    logger, stream = logged(level="warning")
    logger.info("quiet")
    logger.warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "WARNING loud" in stream.getvalue()
    assert set(LEVELS) == {"debug", "info", "warning", "error"}


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (io.StringIO, {}, False),
        (_Terminal, {"TERM": "xterm"}, True),
        (_Terminal, {"NO_COLOR": "1"}, False),
        (_Terminal, {"TERM": "dumb"}, False),
    ],
)
def test_colour_is_for_terminals(
    logged: Logged, stream: type[io.StringIO], environ: dict[str, str], coloured: bool
) -> None:
    logger, out = logged(stream(), environ)
    logger.error("x")
    assert ("\x1b[31mERROR  \x1b[0m" in out.getvalue()) is coloured


def test_json_is_never_coloured(logged: Logged) -> None:
    logger, out = logged(_Terminal(), style="json")
    logger.error("x")
    assert "\x1b" not in out.getvalue()


def test_a_second_set_up_replaces_the_first_and_can_be_told_to_respect_it(logged: Logged) -> None:
    logger, first = logged()
    _, second = logged()
    logger.info("x")
    assert first.getvalue() == ""
    assert second.getvalue()
    assert set_up_logging(stream=first, environ={}, logger=logger, replace=False) is None
    assert len(logger.handlers) == 1


def test_the_root_logger_is_the_default() -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    try:
        ours = set_up_logging(stream=stream, environ={})
        assert root.handlers == [ours]
        logging.getLogger("anybody").info("heard")
        assert "heard" in stream.getvalue()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
