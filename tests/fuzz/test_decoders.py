"""Whatever a decoder is handed, it gives a value or one of its errors, soon and in little memory."""

import ast
import time
import tracemalloc
from pathlib import Path
from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.breaking import broken, broken_objects, huge
from tests.fuzz.decoders import DECODERS, ELSEWHERE, Decoder

_ROOT: Final = Path(__file__).parents[2]
_CORPUS: Final = Path(__file__).parent / "corpus"
_NAMES: Final = (
    "from_wire",
    "from_map",
    "from_msgpack",
    "from_url",
    "from_context",
    "read",
    "feed",
    "verify",
    "is_name",
    "check_name",
    "find_header",
    "header_trace",
)
_STARTS: Final = ("parse", "decode_", "read_", "load_")
_ENDS: Final = ("_of_subject", "_of_stream")
_MOST_SECONDS: Final = 5.0
_MOST_BYTES: Final = 64 << 20


def hand(decoder: Decoder, data: bytes) -> None:
    """Hand bytes to a decoder; what it raises and may not raise comes out."""
    told = ""
    try:
        decoder.read(data)
    except decoder.errors as err:
        told = str(err)
    assert len(told) < 20_000, "an error must not repeat all of what it was given"


@pytest.mark.parametrize("name", DECODERS)
def test_its_samples_are_read(name: str) -> None:
    for sample in DECODERS[name].samples:
        if name not in ("stored", "signature"):
            DECODERS[name].read(sample)


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_broken_is_refused_or_read(name: str) -> None:
    decoder, chance = DECODERS[name], Random(name)
    for sample in decoder.samples:
        for data in broken(sample, chance):
            hand(decoder, data)
        if decoder.json:
            for data in broken_objects(sample):
                hand(decoder, data)


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_huge_is_refused_or_read_in_bounded_time_and_memory(name: str) -> None:
    decoder = DECODERS[name]
    tracemalloc.start()
    try:
        for data in huge(decoder.samples[0]):
            tracemalloc.reset_peak()
            before, began = tracemalloc.get_traced_memory()[0], time.process_time()
            hand(decoder, data)
            assert time.process_time() - began < _MOST_SECONDS, data[:40]
            assert tracemalloc.get_traced_memory()[1] - before < _MOST_BYTES, data[:40]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", DECODERS)
def test_whatever_comes_is_refused_or_read(name: str) -> None:
    decoder = DECODERS[name]

    @settings(max_examples=60, deadline=None)
    @given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))))
    def handed(data: bytes) -> None:
        hand(decoder, data)

    handed()


@pytest.mark.parametrize("path", sorted(_CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_refused_or_read(path: Path) -> None:
    hand(DECODERS[path.parent.name], path.read_bytes())


def _found(path: Path, module: str) -> set[str]:
    """Find the functions of a module that are named like decoders; those of its own that others use count for them."""
    found = set()

    def look(node: ast.AST, above: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                look(child, f"{above}.{child.name}")
            elif isinstance(child, ast.FunctionDef):
                name = child.name
                if name in _NAMES or name.startswith(_STARTS) or name.endswith(_ENDS):
                    found.add(f"{above}.{name}")

    look(ast.parse(path.read_text()), module)
    return found


def test_every_decoder_is_among_them() -> None:
    known = {name for decoder in DECODERS.values() for name in decoder.reads} | ELSEWHERE.keys()
    found = set()
    for root in ("sdk", "bridge"):
        for path in (_ROOT / root).rglob("*.py"):
            module = ".".join(path.relative_to(_ROOT / root).with_suffix("").parts)
            if not module.startswith("aj_bridge.faces.conformance"):
                found |= _found(path, module)
    assert found - known == set(), "say in tests/fuzz/decoders.py how it is handed bytes, or why it is not"
    assert known - found == set(), "it is gone: take it out of tests/fuzz/decoders.py"


def test_every_module_of_the_wire_has_a_decoder_among_them_or_none_at_all() -> None:
    modules = {
        name.rpartition(".wire.")[2].split(".")[0]
        for each in DECODERS.values()
        for name in each.reads
        if ".wire." in name
    }
    there = {path.stem for path in (_ROOT / "sdk/aj_sdk/wire").glob("*.py")} - {"__init__"}
    assert there - modules == set(), "a module of the wire that nothing is handed to"
