"""What is stored in JetStream and what crosses NATS, as JSON Schemas (draft 2020-12) and as bytes of the Go project.

Standard library only: the validator is the caller's choice. Every schema stands alone, its `$ref`s point into itself.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
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
    return tuple(
        sorted(entry.name.removesuffix(_SUFFIX) for entry in _SCHEMAS.iterdir() if entry.name.endswith(_SUFFIX))
    )


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
    """Yield the golden vectors, sorted by file name.

    A vector says in `kind` which schema its `text` follows, where there is one.
    """
    for entry in sorted(_VECTORS.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(_SUFFIX):
            yield json.loads(entry.read_bytes())
