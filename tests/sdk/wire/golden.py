"""The golden vectors: bytes that the Go project's own library wrote, and what they mean."""

import json

import pytest

from aj_schemas import vectors


def golden(kind: str) -> pytest.MarkDecorator:
    """Run a test once with each vector of a kind, as its argument `vector`."""
    found = [pytest.param(vector, id=vector["name"]) for vector in vectors() if vector["kind"] == kind]
    assert found, f"no golden vectors of kind {kind}"
    return pytest.mark.parametrize("vector", found)


def same_json(ours: bytes, theirs: str) -> bool:
    """Say whether both texts hold the same JSON, with the keys in the same order."""
    return _read(ours.decode()) == _read(theirs)


def _read(text: str) -> object:
    return json.loads(text, object_pairs_hook=list)
