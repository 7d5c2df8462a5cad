"""What a schema refuses is said with the place and in words."""

from typing import Any

import pytest

from aj_bridge.faces.checks import Fault, faults
from aj_schemas import SchemaNotFoundError, load, names

TASK = {"id": "t1", "type": "email:new", "created": "2024-02-29T16:05:06Z"}


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"id": "a b"}, "$.id", '"a b" is no name: A task id, task type, queue or schedule name'),
        ({"id": "a\n"}, "$.id", '"a\\n" is no name: A task id'),
        ({"created": "soon"}, "$.created", '"soon" is no time: An RFC 3339 time'),
        ({"tries": "1"}, "$.tries", '"1" is not of type integer or null'),
        ({"state": "asleep"}, "$.state", '"asleep" is none of "", "new"'),
        ({"payload": "x"}, "$.payload", '"x" is no base64'),
        ({"dependencies": ["a", "b.c"]}, "$.dependencies[1]", '"b.c" is no name'),
        ({"result": {"completed": "now"}}, "$.result.completed", '"now" is no time'),
        (
            {"dependency_results": {"a": {"completed": 7}}},
            "$.dependency_results.a.completed",
            "7 is not of type string",
        ),
        ({"deadline": 5}, "$.deadline", "5 is not of type string"),
    ],
)
def test_a_fault_names_the_innermost_place_and_says_what_should_stand_there(
    changes: dict[str, Any], path: str, words: str
) -> None:
    [fault] = faults("task", TASK | changes)
    assert (fault.schema, fault.path) == ("task", path)
    assert fault.message.startswith(words)


def test_a_missing_key_is_named() -> None:
    assert faults("work_item", {"kind": 0}) == [Fault("work_item", "$", "'job' is a required property")]


def test_a_header_is_told_by_its_pattern_once() -> None:
    [fault] = faults("reply_headers", {"AJ-Retry-After-Ms": "soon"})
    assert fault.message == '"soon" does not match ^[0-9]{1,15}$'
    [fault] = faults("reply_headers", {"AJ-Retry-After-Ms": "5\n"})
    assert fault.message == '"5\\n" has something that matches [^0-9]'


def test_a_long_value_is_cut() -> None:
    [fault] = faults("task", TASK | {"payload": "x" * 10_001})
    assert len(fault.message) < 300


@pytest.mark.parametrize("name", names())
def test_examples_have_no_fault(name: str) -> None:
    assert [faults(name, example) for example in load(name)["examples"]] == [[]] * len(load(name)["examples"])


def test_a_schema_that_there_is_not_is_told() -> None:
    with pytest.raises(SchemaNotFoundError):
        faults("tasks", {})
