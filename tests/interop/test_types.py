"""The types made from the schemas compile, and hold the golden vectors without loss.

That they are what the schemas say today is looked at in tests/test_docs.py.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interop.responders import BUILD_TIMEOUT, build

from aj_schemas import names, vectors

pytestmark = [pytest.mark.interop, pytest.mark.timeout(BUILD_TIMEOUT)]

TYPESCRIPT = """\
import {{ parse, stringify }} from "lossless-json";
import type * as wire from "{types}";

const digits = (text: string): number | bigint => (/^-?[0-9]+$/.test(text) ? BigInt(text) : Number(text));
const told: (string | undefined)[][] = [];
const tell = (name: string, value: unknown, text: string) =>
  told.push([name, stringify(value), stringify(parse(text, undefined, digits))]);

{vectors}
console.log(JSON.stringify(told));
"""


def typed_vectors() -> Iterator[tuple[str, str, str]]:
    """Give the name, the type and the JSON of each vector of a kind that has a type."""
    for vector in vectors():
        kind = "task" if vector["kind"] == "signature" else vector["kind"]
        if kind in names() and "text" in vector:
            yield vector["name"], "".join(part.capitalize() for part in kind.split("_")), vector["text"]


def literal(value: Any) -> str:
    """Write a value in TypeScript, as it stands: integers with all their digits."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, int) and abs(value) >= 2**53:
        return f"{value}n"
    return json.dumps(value)


def test_go_keeps_the_vectors() -> None:
    done = subprocess.run(
        ["go", "test", "-count=1", "./ajtypes"], cwd=build("go"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_typescript_takes_and_keeps_the_vectors(tmp_path: Path) -> None:
    folder = build("node")
    expected = {name: text for name, _, text in typed_vectors()}
    assert len(expected) > 90
    lines = [
        f"const v{number}: wire.{kind} = {literal(json.loads(text))};\n"
        f"tell({json.dumps(name)}, v{number}, {json.dumps(text)});"
        for number, (name, kind, text) in enumerate(typed_vectors())
    ]
    program = tmp_path / "vectors.ts"
    program.write_text(TYPESCRIPT.format(types=folder / "types.js", vectors="\n".join(lines)))
    modules = str(folder / "node_modules")
    tsc = [
        *("node", f"{modules}/typescript/bin/tsc", "--strict", "--target", "es2022", "--module", "commonjs"),
        *("--moduleResolution", "node10", "--ignoreDeprecations", "5.0", "--typeRoots", f"{modules}/@types"),
        *("--baseUrl", modules, "--outDir", str(tmp_path), str(program)),
    ]
    compiled = subprocess.run(tsc, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stdout
    ran = subprocess.run(
        ["node", str(tmp_path / "vectors.js")],
        env={**os.environ, "NODE_PATH": modules},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert {name for name, *_ in told} == set(expected)
    for name, typed, parsed in told:
        assert json.loads(typed) == json.loads(expected[name]), name
        assert json.loads(parsed) == json.loads(expected[name]), name


def test_typescript_refuses_what_is_no_task(tmp_path: Path) -> None:
    folder = build("node")
    program = tmp_path / "wrong.ts"
    program.write_text(
        f'import type * as wire from "{folder / "types.js"}";\n'
        'export const state: wire.Task = { id: "1", type: "a", created: "", state: "done" };\n'
        'export const missing: wire.Task = { id: "1", type: "a" };\n'
    )
    tsc = ["node", str(folder / "node_modules/typescript/bin/tsc"), "--strict", "--noEmit", str(program)]
    compiled = subprocess.run(tsc, capture_output=True, text=True, check=False)
    assert [line.split("error ")[1][:6] for line in compiled.stdout.splitlines() if "error TS" in line] == [
        "TS2322",
        "TS2741",
    ]
