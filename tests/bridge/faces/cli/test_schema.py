"""`aj-bridge schema`: lists, shows, validates."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aj_bridge.faces.cli.main import aj_bridge_group
from aj_bridge.faces.cli.schema import guess
from aj_schemas import load, names, vectors


def schema(*arguments: str, stdin: str | bytes = "") -> tuple[int, str, str]:
    done = CliRunner().invoke(aj_bridge_group(), ["schema", *arguments], standalone_mode=False, input=stdin)
    code = done.return_value if isinstance(done.return_value, int) else done.exit_code
    return code, done.stdout, f"{done.stderr}{done.exception or ''}"


def test_lists_every_schema_with_what_it_is() -> None:
    _, out, _ = schema("list")
    assert [line.split()[0] for line in out.splitlines()] == list(names())
    assert [row["name"] for row in json.loads(schema("list", "--json")[1])] == list(names())


def test_shows_a_schema_as_it_is() -> None:
    assert json.loads(schema("show", "task")[1]) == load("task")
    assert "no schema 'tasks', there are: " in schema("show", "tasks")[2]


@pytest.mark.parametrize("name", names())
def test_guesses_what_an_example_is(name: str) -> None:
    fullest: dict[str, Any] = max(load(name)["examples"], key=len)
    assert guess(fullest) == name


def test_guesses_what_the_golden_vectors_are() -> None:
    for vector in vectors():
        if vector["kind"] in names():
            assert guess(json.loads(vector["text"])) == vector["kind"], vector["name"]


def test_guesses_what_is_meant_where_a_key_is_missing() -> None:
    assert guess({"id": "t1", "type": "email:new"}) == "task"


@pytest.mark.parametrize("value", [None, [], "text", {}, {"x-unknown": 1}])
def test_guesses_nothing_where_nothing_is_known(value: object) -> None:
    assert guess(value) is None


def test_validates_a_file_and_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps(load("task")["examples"][0]))
    assert schema("validate", str(file)) == (0, f"{file} is a valid task\n", "")
    code, out, _ = schema("validate", "-", "--json", stdin=file.read_text())
    assert (code, json.loads(out)) == (0, {"schema": "task", "valid": True, "errors": []})


def test_an_error_names_the_path_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps(load("task")["examples"][0] | {"dependencies": ["a", "b.c"], "tries": "1"}))
    code, out, _ = schema("validate", str(file))
    assert code == 1
    assert f"{file}: $.dependencies[1]: " in out
    assert f'{file}: $.tries: "1" is not of type integer' in out
    assert out.endswith("is no valid task; name another schema with --schema\n")


def test_takes_the_schema_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps(load("task")["examples"][0]))
    code, out, _ = schema("validate", "--schema", "work_item", "--json", str(file))
    assert code == 1
    assert json.loads(out)["errors"] == [{"path": "$", "message": "'job' is a required property"}]


@pytest.mark.parametrize(
    ("stdin", "complaint"), [(b"{", "is no JSON"), (b"\xff", "is no JSON"), (b"[1]", "name one with --schema")]
)
def test_what_nobody_can_judge_is_wrong_use(stdin: bytes, complaint: str) -> None:
    assert complaint in schema("validate", "-", stdin=stdin)[2]
