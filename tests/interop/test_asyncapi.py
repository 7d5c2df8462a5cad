"""`asyncapi.yaml` is AsyncAPI 3.0, as the makers of AsyncAPI define it, read by a YAML parser that is not ours."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from aj_schemas import load

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

FOLDER = Path(__file__).with_name("asyncapi")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the definition and the parser in a folder of this run."""
    if shutil.which("npm") is None:
        reason = "no npm on the PATH, so asyncapi.yaml is not validated"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("asyncapi")
    for name in ("package.json", "package-lock.json", ".npmrc", "read.mjs"):
        shutil.copy(FOLDER / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def document(tools: Path) -> dict[str, Any]:
    source = Path(str(files("aj_schemas"))) / "asyncapi.yaml"
    command = ["node", "read.mjs", str(source)]
    done = subprocess.run(command, cwd=tools, capture_output=True, text=True, check=True, timeout=60)
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def errors(tools: Path, document: object) -> list[str]:
    schema = json.loads((tools / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json").read_bytes())
    return [error.json_path for error in Draft7Validator(schema).iter_errors(document)]


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_it_is_valid(tools: Path, document: dict[str, Any]) -> None:
    assert errors(tools, document) == []


def test_a_wrong_document_would_be_refused(tools: Path, document: dict[str, Any]) -> None:
    assert errors(tools, document | {"asyncapi": "2.6.0"})
    assert errors(tools, document | {"channels": {"handler": {"address": 7}}})
    assert errors(tools, document | {"operations": {"handleTask": {"action": "subscribe"}}})


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 20
    for reference in found:
        value: Any = document
        for part in reference.removeprefix("#/").split("/"):
            value = value[part]
        assert value


def test_the_messages_are_those_of_the_schemas(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("task", "work_item", "task_state_event", "schedule"):
        assert set(schemas[name]["properties"]) == set(load(name)["properties"])
        assert schemas[name]["description"] == load(name)["description"]
        assert schemas[name]["examples"] == load(name)["examples"]
