"""Logging of our own processes: one line a record, as text for people or as JSON for programs.

Only commands of ours call this. A library or an application that embeds us has its own logging, which we leave alone.
"""

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

__all__ = ["FORMATS", "LEVELS", "JsonFormatter", "TextFormatter", "printable", "set_up_logging"]

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS: Final = ("text", "json")

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every record has; the others came in through `extra` and are fields."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@+*>$-]+")
_COLOURS: Final = {logging.DEBUG: "2", logging.INFO: "32", logging.WARNING: "33", logging.ERROR: "31"}


def printable(text: str) -> str:
    r"""Return text that can't steer a terminal or forge a line.

    Control characters, line and paragraph separators, invisible marks that turn the direction of writing and lone
    surrogates become escapes such as `\n`, `\x1b` and `\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def set_up_logging(
    *,
    level: str = "info",
    style: str = "text",
    stream: TextIO,
    environ: Mapping[str, str],
    logger: logging.Logger | None = None,
    replace: bool = True,
) -> logging.Handler | None:
    """Send the log to a stream.

    Args:
        level: a key of `LEVELS`: the least important records to show.
        style: `text` or `json`.
        stream: where to; coloured when it is a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
        environ: the environment.
        logger: the logger to set up; None for the root logger, which is right for a process of our own.
        replace: put our handler in place of those that are there; otherwise leave a logger alone that has some.

    Returns:
        The handler, or None when the logger was left alone.
    """
    target = logger or logging.getLogger()
    if target.handlers and not replace:
        return None
    coloured = stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter(coloured=coloured))
    for old in list(target.handlers):
        target.removeHandler(old)
    target.addHandler(handler)
    target.setLevel(LEVELS[level])
    return handler


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO  message queue=EMAIL task_id=2Dx`; a traceback follows, each line marked.

    Args:
        coloured: colour the level.
    """

    def __init__(self, *, coloured: bool = False) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        level = f"{record.levelname:<7}"
        if self._coloured:
            level = f"\x1b[{_COLOURS.get(record.levelno, '31')}m{level}\x1b[0m"
        fields = "".join(f" {printable(name)}={_field_text(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {level} {printable(record.getMessage())}{fields}"
        # Marked, so that an error whose text holds a line break can't forge a record.
        return "\n".join([line, *(f"  | {printable(part)}" for part in _trace(self, record).splitlines())])


class JsonFormatter(logging.Formatter):
    """`{"time": ..., "level": "info", "logger": ..., "message": ...}`, fields beside, a traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = _trace(self, record)
        if trace:
            entry["exception"] = trace
        for name, value in _fields(record).items():
            entry[f"{name}_" if name in entry else name] = value
        text = json.dumps(entry, ensure_ascii=False, default=str)
        # What is left unprintable stands inside strings, where these escapes mean the same.
        return text if text.isprintable() else "".join(c if c.isprintable() else _json_escaped(c) for c in text)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _field_text(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else '"' + printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode()


def _json_escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{int.from_bytes(units[i : i + 2]):04x}" for i in range(0, len(units), 2))
