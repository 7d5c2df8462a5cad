"""Whether a value keeps to one of our schemas, and where it does not. Not for the hot path: about 0.1 ms a task."""

import json
from functools import lru_cache
from typing import Any, Final

import msgspec

from aj_schemas import load

__all__ = ["Fault", "faults"]

_MAX_SHOWN: Final = 300
_MAX_VALUE: Final = 100


class Fault(msgspec.Struct, frozen=True):
    """Something that a schema refuses.

    Attributes:
        schema: its name.
        path: where, as a JSON path.
        message: what is wrong there.
    """

    schema: str
    path: str
    message: str


def faults(name: str, value: Any) -> list[Fault]:
    """Return what a schema refuses of a value, in the order of the paths.

    Raises:
        SchemaNotFoundError: there is no schema of this name.
    """
    found = sorted(map(_inmost, _validator(name).iter_errors(value)), key=lambda error: error.json_path)
    # A `not` beside a pattern says the same once more, unless it is all there is: a line break at the end.
    plain = {error.json_path for error in found if error.validator != "not"}
    return [
        Fault(name, error.json_path, _cut(_words(error)))
        for error in found
        if error.validator != "not" or error.json_path not in plain
    ]


@lru_cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - slow to import, and few commands need it

    return Draft202012Validator(load(name))


def _inmost(error: Any) -> Any:
    """Return what is wrong inside of the branch that was meant: of a value that may be null, that is the other one."""
    while error.validator == "anyOf":
        branches: dict[Any, list[Any]] = {}
        for inner in error.context:
            branches.setdefault(inner.schema_path[0], []).append(inner)
        meant = [
            inner
            for number, inner in ((number, found[0]) for number, found in branches.items())
            if not _is_null(error.validator_value[number])
        ]
        if not meant:
            break
        # The branch that took the most of it.
        error = max(meant, key=lambda inner: len(inner.absolute_path))
    return error


def _is_null(branch: Any) -> bool:
    return branch.get("type") == "null" or None in branch.get("enum", ())


def _words(error: Any) -> str:
    value = _cut(json.dumps(error.instance, ensure_ascii=False), _MAX_VALUE)
    match error.validator:
        case "enum":
            return f"{value} is none of {', '.join(map(json.dumps, error.validator_value))}"
        case "const":
            return f"{value} is not {json.dumps(error.validator_value)}"
        case "type":
            types = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
            return f"{value} is not of type {' or '.join(types)}"
        case "pattern" | "not" if "title" in error.schema:
            meaning = str(error.schema["description"]).partition(". ")[0].rstrip(".")
            return f"{value} is no {error.schema['title'].lower()}: {meaning}"
        case "pattern":
            return f"{value} does not match {error.validator_value}"
        case "not":
            return f"{value} has something that matches {error.validator_value.get('pattern')}"
        case _:
            return str(error.message)


def _cut(text: str, most: int = _MAX_SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
