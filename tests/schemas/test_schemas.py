"""The schema files: that they are well formed, stand alone, and say what they show."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

import aj_schemas
from aj_schemas import SchemaNotFoundError, load, names, vectors

every_schema = pytest.mark.parametrize("name", names())


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object in a schema that is not an example."""
    if isinstance(schema, dict):
        yield schema
        for key, value in schema.items():
            if key != "examples":
                yield from subschemas(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from subschemas(value)


def test_names_are_the_files() -> None:
    folder = Path(str(files("aj_schemas"))) / "v1"
    assert list(names()) == sorted(path.stem for path in folder.iterdir())


def test_everything_on_the_wire_has_a_schema() -> None:
    assert set(names()) == {
        "attempt",
        "bridge_status",
        "conformance_order",
        "edge",
        "leader_elected_event",
        "progress",
        "queue_settings",
        "reply_headers",
        "request_headers",
        "schedule",
        "task",
        "task_result",
        "task_state_event",
        "vector",
        "work_item",
    }


def test_the_public_names_are_the_promise() -> None:
    assert set(aj_schemas.__all__) == {"SchemaNotFoundError", "load", "names", "vectors"}


@pytest.mark.parametrize("name", ["", "tasks", "Task", "task.json", "../v1/task", "../__init__"])
def test_an_unknown_name_is_refused_with_the_names_that_exist(name: str) -> None:
    with pytest.raises(SchemaNotFoundError) as caught:
        load(name)
    assert caught.value.name == name
    assert caught.value.names == names()
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in names())


def test_what_load_returns_is_the_callers_own() -> None:
    load("task").clear()
    assert load("task")


@every_schema
def test_is_valid_under_the_meta_schema(name: str) -> None:
    schema = load(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@every_schema
def test_has_its_own_id(name: str) -> None:
    assert load(name)["$id"] == f"urn:asyncjobs-nats:v1:{name}"


@every_schema
def test_has_a_title_and_every_property_a_description(name: str) -> None:
    schema = load(name)
    assert schema["title"]
    assert schema["description"].endswith(".")
    for definition in schema.get("$defs", {}).values():
        assert definition["title"]
        assert definition["description"].endswith(".")
    for subschema in subschemas(schema):
        for key, value in subschema.get("properties", {}).items():
            assert value["description"].endswith("."), key


@every_schema
def test_its_examples_are_valid_and_show_every_property(name: str) -> None:
    schema = load(name)
    assert schema["examples"]
    validator = Draft202012Validator(schema)
    for example in schema["examples"]:
        validator.validate(example)
    assert {key for example in schema["examples"] for key in example} == set(schema["properties"])


@every_schema
def test_every_ref_resolves_in_the_schema_itself(name: str) -> None:
    schema = load(name)
    # A registry with nothing else in it: a team can copy one file.
    registry: Registry[Any] = Registry().with_resource(schema["$id"], Resource.from_contents(schema))
    resolver = registry.resolver(base_uri=schema["$id"])
    refs = [subschema["$ref"] for subschema in subschemas(schema) if "$ref" in subschema]
    assert {ref.removeprefix("#/$defs/") for ref in refs} == set(schema.get("$defs", {}))
    for ref in refs:
        assert resolver.lookup(ref).contents


def test_a_definition_is_the_same_in_every_schema() -> None:
    seen: dict[str, Any] = {}
    for name in names():
        for key, definition in load(name).get("$defs", {}).items():
            assert seen.setdefault(key, definition) == definition, f"{key} in {name}"


def test_the_result_in_a_task_is_a_task_result() -> None:
    apart = load("task_result")
    inside = load("task")["$defs"]["task_result"]
    assert inside == {key: apart[key] for key in inside}
    assert set(apart) - set(inside) == {"$schema", "$id", "examples", "$defs"}


@every_schema
def test_unknown_properties_are_let_through(name: str) -> None:
    schema = load(name)
    Draft202012Validator(schema).validate(schema["examples"][0] | {"x-unknown": "1"})


@every_schema
@pytest.mark.parametrize("value", [None, True, 7, "text", []])
def test_only_an_object_is_one(name: str, value: object) -> None:
    assert not Draft202012Validator(load(name)).is_valid(value)


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00Z",
        "2022-01-26T14:46:09Z",
        "2022-01-26T14:46:09.2Z",
        "2022-01-26T14:46:09.232015001Z",
        "2022-01-26T23:59:59.000000000-23:59",
    ],
)
def test_times_keep_nanoseconds_and_any_offset(time: str) -> None:
    Draft202012Validator(load("task_result")).validate({"payload": None, "completed": time})


@pytest.mark.parametrize("name", ["a", "email:new", "email:", "A_b-9", "x" * 128])
def test_names_may_be_up_to_128_characters(name: str) -> None:
    Draft202012Validator(load("work_item")).validate({"kind": 0, "job": name})


@pytest.mark.parametrize("state", ["", "new", "completed", "complete", "queue_error"])
def test_old_and_empty_states_are_read(state: str) -> None:
    schema = load("task")
    Draft202012Validator(schema).validate(schema["examples"][0] | {"state": state})


def test_vectors_are_all_there_and_each_has_its_own_name() -> None:
    folder = Path(str(files("aj_schemas"))) / "vectors"
    found = [vector["name"] for vector in vectors()]
    assert sorted(found) == sorted(path.stem for path in folder.rglob("*.json"))
    assert len(set(found)) == len(found)


def test_every_vector_is_one_and_lies_where_its_level_says() -> None:
    folder = Path(str(files("aj_schemas"))) / "vectors"
    assert {path.parent.name for path in folder.rglob("*.json")} == {"required", "should", "may"}
    for vector in vectors():
        Draft202012Validator(load("vector")).validate(vector)
        body = base64.b64decode(vector["bytes_base64"], validate=True)
        assert vector.get("text", body).encode() == body if "text" in vector else b"\x00" in body


def test_the_headers_of_our_vectors_are_valid() -> None:
    found = [vector for vector in vectors() if vector["kind"] in ("request", "reply")]
    assert len(found) > 15
    for vector in found:
        Draft202012Validator(load(f"{vector['kind']}_headers")).validate(vector.get("headers", {}))


def test_everything_is_read_from_an_archive_too(tmp_path: Path) -> None:
    folder = Path(str(files("aj_schemas")))
    archive = tmp_path / "aj_schemas.zip"
    with ZipFile(archive, "w") as out:
        for path in folder.rglob("*"):
            out.write(path, path.relative_to(folder.parent))
    code = "from aj_schemas import *; print(len([load(name) for name in names()]), len([*vectors()]))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(archive)}, capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == [str(len(names())), str(len([*vectors()]))]
