"""What is stored in JetStream and what crosses NATS, as JSON Schemas (draft 2020-12) and as bytes of the Go project.

Standard library only: the validator is the caller's choice. Every schema stands alone, its `$ref`s point into itself.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

__all__ = ["SchemaNotFoundError", "load", "names", "vectors"]

_SCHEMAS: Final = files(__name__) / "v1"
_VECTORS: Final = files(__name__) / "vectors"
_SUFFIX: Final = ".json"


class SchemaNotFoundError(LookupError):
    """There is no schema of this name.

    Attributes:
        name: the name that was asked for.
        names: the names that exist.
    """

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name, names)
        self.name = name
        self.names = names

    def __str__(self) -> str:
        return f"no schema {self.name!r}, there are: {', '.join(self.names)}"


def names() -> tuple[str, ...]:
    """Names of all schemas, sorted."""
    return tuple(file.name.removesuffix(_SUFFIX) for file in _json_files(_SCHEMAS))


def load(name: str) -> dict[str, Any]:
    """Read a schema, as a dict of the caller's own.

    Args:
        name: one of `names()`: `task`, `work_item`.

    Raises:
        SchemaNotFoundError: there is no such schema.
    """
    # Asked of the list, not of the file system, so that no name leads out of the folder.
    known = names()
    if name not in known:
        raise SchemaNotFoundError(name, known)
    schema: dict[str, Any] = json.loads((_SCHEMAS / f"{name}{_SUFFIX}").read_bytes())
    return schema


def vectors() -> Iterator[dict[str, Any]]:
    """Yield the golden vectors, in the order of their paths.

    A vector has a `name`, says in `kind` what it is, often the name of a schema, and holds the captured JSON in `text`.
    """
    for file in _json_files(_VECTORS):
        yield json.loads(file.read_bytes())


def _json_files(folder: Traversable) -> Iterator[Traversable]:
    # A Traversable may stand for an archive, which has no glob.
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _json_files(entry)
        elif entry.name.endswith(_SUFFIX):
            yield entry
