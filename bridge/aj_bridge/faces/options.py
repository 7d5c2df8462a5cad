"""Options declared once: a frozen dataclass is the table, and everything else is made from it.

From a table come the values (defaults < file < environment < flags, every fault at once), the click options and a page
of documentation. Knows nothing of what the options mean; tables are made elsewhere.
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from aj_bridge.faces.kinds import Kind
from aj_sdk.bounded import read_bounded
from aj_sdk.errors import InvalidConfigError

__all__ = [
    "ConfigFile",
    "Option",
    "Source",
    "Values",
    "add_options",
    "describe",
    "merge",
    "option",
    "options_of",
    "read_config_file",
]

MAX_FILE: Final = 1 << 20
"""Bytes of a configuration file."""
_REPEATED: Final = "; may be repeated"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Option:
    """One row of a table.

    Attributes:
        name: key in a TOML file; the environment name is `AJ_` and this in upper case, the flag has dashes.
        field: name of the dataclass's field.
        kind: what its values may be.
        default: value when nobody gives one; None for none.
        help: what it does, for people.
        unit: unit of its values, for people.
        many: may be given more than once; the value is a tuple.
        aliases: environment names of the Go project with the same meaning, and how each writes it.
        off: the flag that sets a truth value to false.
        global_flag: the flag belongs to the whole command line, not to one command.
        secret: values may hold a password, and are not shown.
        never_empty: an empty variable is a fault, where to count it as absent would turn a safeguard off.
    """

    name: str
    field: str
    kind: Kind
    default: Any
    help: str
    unit: str
    many: bool
    aliases: Mapping[str, Callable[[str], str]]
    off: str
    global_flag: bool
    secret: bool
    never_empty: bool

    @property
    def env(self) -> str:
        """Its name in the environment."""
        return f"AJ_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """Where a value comes from.

    Attributes:
        level: 0 default, 1 file, 2 environment, 3 flag; higher wins.
        text: how to call the place in a message.
    """

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file as it was read.

    Attributes:
        path: where it is.
        values: its keys.
        lines: the line of each key, where that is known.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]

    def where(self, key: str) -> str:
        """Name the place of a key."""
        return f"{self.path}:{self.lines[key]}: {key}" if key in self.lines else f"{self.path}: {key}"


@dataclass(frozen=True, slots=True)
class Values:
    """What `merge` found.

    Attributes:
        values: a value for each field.
        sources: where each of those that are not defaults comes from.
        faults: everything that is wrong.
    """

    values: dict[str, Any]
    sources: dict[str, Source]
    faults: list[str]


def option(
    kind: Kind,
    help: str,  # noqa: A002 - as click calls it
    *,
    default: Any = None,
    name: str = "",
    unit: str = "",
    many: bool = False,
    aliases: Mapping[str, Callable[[str], str]] | None = None,
    off: str = "",
    global_flag: bool = False,
    secret: bool = False,
    never_empty: bool = False,
) -> Any:
    """Declare an option as a field of a dataclass; the arguments are those of `Option`.

    `name` is needed only where the field's name carries a unit and the option's does not.
    """
    row = {
        "kind": kind,
        "help": help,
        "name": name,
        "unit": unit,
        "many": many,
        "aliases": aliases or {},
        "off": off,
        "global_flag": global_flag,
        "secret": secret,
        "never_empty": never_empty,
    }
    return dataclasses.field(default=default, repr=not secret, metadata={"option": row})


def options_of(table: type[Any]) -> tuple[Option, ...]:
    """Rows of a table, in the order of its fields; a field that is no option is none of them."""
    rows = []
    for field in dataclasses.fields(table):
        if "option" not in field.metadata:
            continue
        row = dict(field.metadata["option"])
        row["name"] = row["name"] or field.name
        rows.append(Option(field=field.name, default=field.default, **row))
    return tuple(rows)


def merge(
    options: Sequence[Option], file: ConfigFile | None, environ: Mapping[str, str], flags: Mapping[str, Any]
) -> Values:
    """Take each option's value from where it is given with the most weight.

    Args:
        options: the table.
        file: the configuration file, when there is one.
        environ: the environment; an empty variable counts as absent, but for options that are
            never empty.
        flags: what click gave: a text, a truth value or a tuple of texts by option name; None and () for absent.
    """
    found = Values({row.field: row.default for row in options}, {}, [])
    if file is not None:
        found.faults.extend(_unknown_keys(options, file))
    for row in options:
        given_values = list(_given(row, file, environ, flags))
        for source, given in given_values:
            # A file is a whole and read as one; from the rest, only what counts in the end.
            if source.level > 1 and source is not given_values[-1][0]:
                continue
            try:
                found.values[row.field] = _read(row, source, given)
                found.sources[row.field] = source
            except InvalidConfigError as err:
                found.faults.extend(f"{source.text}: {fault}" for fault in err.faults)
            except ValueError as err:
                found.faults.append(f"{source.text}: {err}")
    return found


def read_config_file(path: Path) -> ConfigFile:
    """Read a TOML file.

    Raises:
        InvalidConfigError: it is not there, can't be read or is not TOML; one line with the place.
    """
    try:
        text = read_bounded(path, MAX_FILE).decode()
    except OSError as err:
        raise InvalidConfigError((f"cannot read the configuration file {path}: {err.strerror}",)) from None
    except UnicodeDecodeError:
        raise InvalidConfigError((f"{path}: not a text in UTF-8",)) from None
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as err:
        raise InvalidConfigError((_toml_fault(path, text, err),)) from None
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key = re.match(r"""\s*\[?\s*["']?([A-Za-z0-9_-]+)["']?\s*[]=.]""", line)
        if key and key[1] in values:
            lines.setdefault(key[1], number)
    return ConfigFile(path, values, lines)


def add_options(options: Sequence[Option]) -> Callable[[F], F]:
    """Make a decorator that gives a click command the options of a table.

    The command gets texts, not values: `merge` reads them, so that a user learns of all faults at once.
    """

    def decorate(command: F) -> F:
        for row in reversed(options):
            if not row.global_flag:
                command = _click_option(row)(command)
        return command

    return decorate


def describe(options: Sequence[Option]) -> str:
    """Write a table of the options in Markdown, for the documentation."""
    lines = ["| flag | environment | file | default | what it does |", "|---|---|---|---|---|"]
    for row in options:
        metavar = row.kind.metavar.replace("|", "\\|")  # else it would end the cell
        flag = f"`{row.flag}`" if row.kind.toml is bool else f"`{row.flag} {metavar}`"
        names = ", ".join(f"`{name}`" for name in (row.env, *row.aliases))
        more = _REPEATED if row.many else ""
        lines.append(f"| {flag} | {names} | `{row.name}` | {_default_text(row)} | {row.help}{more} |")
    return "\n".join(lines) + "\n"


def _given(
    row: Option, file: ConfigFile | None, environ: Mapping[str, str], flags: Mapping[str, Any]
) -> Iterator[tuple[Source, Any]]:
    """Yield what was given for an option, the weakest place first."""
    if file is not None and row.name in file.values:
        yield Source(1, file.where(row.name)), file.values[row.name]
    for name in (*reversed(list(row.aliases)), row.env):
        if environ.get(name) or (row.never_empty and name in environ):
            given = row.aliases.get(name, str)(environ[name])
            if given or row.never_empty:
                yield Source(2, name), given
    flag = flags.get(row.name)
    if flag is not None and flag != ():
        yield Source(3, row.flag), flag


def _read(row: Option, source: Source, given: Any) -> Any:
    if source.level == 1:
        given = _from_toml(row, given)
    if row.many:
        parts = given.split(",") if isinstance(given, str) else given
        return tuple(row.kind.parse(part.strip()) for part in parts)
    return given if isinstance(given, bool) else row.kind.parse(given)


def _from_toml(row: Option, given: Any) -> Any:
    """Check the type, and turn a TOML value into the text that a flag would have."""
    if row.many:
        if isinstance(given, str):
            return given
        if not isinstance(given, list) or not all(isinstance(part, str) for part in given):
            raise ValueError('must be a list of texts, like ["a", "b"]')
        return given
    if row.kind.from_table is not None and isinstance(given, dict):
        return row.kind.from_table(given)
    # A truth value is an int for Python, not for people.
    if type(given) is not row.kind.toml:
        words = {str: f'a text, like {row.name} = "..."', int: "a whole number", bool: "true or false"}
        raise ValueError(f"must be {words[row.kind.toml]}")
    return given if isinstance(given, bool) else str(given)


def _unknown_keys(options: Sequence[Option], file: ConfigFile) -> list[str]:
    names = [row.name for row in options]
    faults = []
    for key in file.values:
        if key not in names:
            near = difflib.get_close_matches(key.replace("-", "_").lower(), names, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
            faults.append(f"{file.where(key)}: no such setting{hint}")
    return faults


def _toml_fault(path: Path, text: str, err: Exception) -> str:
    """Say what the library says, with the place in front, where editors look for it."""
    at = re.search(r"\s*\(at (?:line (\d+), column \d+|end of document)\)", str(err))
    if at is None:
        return f"{path}: nested too deep"
    return f"{path}:{at[1] or len(text.rstrip().splitlines())}: {str(err)[: at.start()]}"


def _click_option(row: Option) -> Callable[[F], F]:
    shown = f"{row.help}{_REPEATED if row.many else ''}.  [{row.env}"
    default = _default_text(row)
    shown += f"; default {default.replace('`', '')}]" if default else "]"
    if row.kind.toml is bool:
        names = f"{row.flag}/{row.off or f'--no-{row.flag[2:]}'}"
        return click.option(names, row.name, default=None, help=shown)
    return click.option(row.flag, row.name, default=None, multiple=row.many, metavar=row.kind.metavar, help=shown)


def _default_text(row: Option) -> str:
    if row.default is None or row.default == () or row.default is False or row.default == "":
        return ""
    shown = ",".join(map(row.kind.show, row.default)) if row.many else row.kind.show(row.default)
    text = "on" if row.default is True else shown
    return f"`{text}`{f' {row.unit}' if row.unit else ''}"
