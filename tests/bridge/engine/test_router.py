"""Which route a task type takes."""

import pytest

from aj_bridge.engine.router import Router
from aj_sdk.errors import DuplicateHandlerError, InvalidNameError


def test_without_routes_each_type_takes_its_own() -> None:
    router = Router()
    assert not router.explicit
    assert router.route("email:new") == "email:new"


def test_with_routes_other_types_have_none() -> None:
    router = Router(["email:new"])
    assert router.explicit
    assert router.route("sms:new") is None
    assert router.route("email") is None


@pytest.mark.parametrize(
    ("task_type", "route"),
    [
        ("email:new", "email:new"),
        ("email:newsletter", "email:new"),
        ("email:old", "email:"),
        ("email:", "email:"),
        ("email", ""),
        ("sms:new", ""),
    ],
)
def test_the_exact_route_wins_then_the_longest_prefix_then_the_catch_all(task_type: str, route: str) -> None:
    assert Router(["", "email:", "email:new"]).route(task_type) == route
    assert Router(["email:new", "email:", ""]).route(task_type) == route


def test_the_catch_all_alone_takes_everything() -> None:
    router = Router([""])
    assert router.explicit
    assert router.route("anything") == ""


@pytest.mark.parametrize("route", ["email.new", "email:*", ">", "a b", "é", "a\n", "x" * 129])
def test_a_route_that_is_no_type_is_refused(route: str) -> None:
    with pytest.raises(InvalidNameError):
        Router([route])


@pytest.mark.parametrize("route", ["email:new", ""])
def test_a_route_that_is_there_twice_is_refused(route: str) -> None:
    with pytest.raises(DuplicateHandlerError):
        Router([route, "sms:new", route])
