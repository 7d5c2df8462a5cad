"""What each schema must refuse, key by key."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.schemas.refused import MISSING, REFUSED

from aj_schemas import load, names
from aj_sdk.wire.codec import JSON

every_schema = pytest.mark.parametrize("name", names())


def fullest_example(name: str) -> dict[str, Any]:
    example: dict[str, Any] = max(load(name)["examples"], key=len)
    return example


@every_schema
def test_no_key_is_left_out_here(name: str) -> None:
    assert set(REFUSED[name]) == set(load(name)["properties"])


@every_schema
def test_the_required_keys_are_the_ones_listed_here(name: str) -> None:
    assert load(name).get("required", []) == list(MISSING[name])


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in names() for key in MISSING[name]])
def test_a_required_key_may_not_be_missing(name: str, key: str) -> None:
    example = fullest_example(name)
    del example[key]
    assert not Draft202012Validator(load(name)).is_valid(example)


@pytest.mark.parametrize("name", [name for name in names() if load(name).get("required")])
def test_an_empty_object_is_none(name: str) -> None:
    assert not Draft202012Validator(load(name)).is_valid({})


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        pytest.param(name, key, value, id=f"{name}-{key}-{str(value)[:30]!a}")
        for name, keys in REFUSED.items()
        for key, values in keys.items()
        for value in values
    ],
)
def test_a_wrong_value_is_refused_under_its_key(name: str, key: str, value: JSON) -> None:
    errors = list(Draft202012Validator(load(name)).iter_errors(fullest_example(name) | {key: value}))
    assert errors
    assert {error.absolute_path[0] for error in errors} == {key}


def test_a_task_may_not_have_more_than_10000_dependencies() -> None:
    schema = load("task")
    validator = Draft202012Validator(schema)
    validator.validate(schema["examples"][0] | {"dependencies": ["a"] * 10_000})
    assert not validator.is_valid(schema["examples"][0] | {"dependencies": ["a"] * 10_001})


@pytest.mark.parametrize("name", ["request_headers", "reply_headers"])
def test_a_header_that_we_do_not_know_is_text_too(name: str) -> None:
    assert not Draft202012Validator(load(name)).is_valid(fullest_example(name) | {"x-unknown": 7})
