"""Whether a value keeps to one of our schemas, and where it does not. Not for the hot path: about 0.1 ms a task."""

from functools import lru_cache
from typing import Any, Final

import msgspec

from aj_schemas import load

__all__ = ["Fault", "faults"]

_MAX_SHOWN: Final = 200


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
    found = sorted(_validator(name).iter_errors(value), key=lambda error: error.json_path)
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


def _words(error: Any) -> str:
    shut_out = error.validator_value.get("pattern") if error.validator == "not" else None
    return error.message if shut_out is None else f"{error.instance!r} has something that matches {shut_out!r}"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]} ..."
