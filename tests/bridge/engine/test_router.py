"""Which route a task type takes, and what a route and a chain of middleware are."""

from pathlib import Path
from typing import Any

import pytest

from aj_bridge.engine.router import EACH, Encoding, Handle, Invocation, Outcome, Route, RouteKind, Router, chain
from aj_sdk import Services
from aj_sdk.errors import DuplicateHandlerError, InvalidConfigError, InvalidNameError, UsageError
from aj_sdk.wire.call import Completed
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord


def taken(router: Router, task_type: str) -> str | None:
    """Return the type of the route that a task type takes, asked twice: the second answer is a remembered one."""
    first, second = router.route(task_type), router.route(task_type)
    assert first is second
    return None if first is None else first.type


def remote(*types: str) -> Router:
    return Router(Route(type=each) for each in types)


def test_without_routes_each_type_goes_to_remote_handlers_by_its_own_name() -> None:
    route = Router().route("email:new")
    assert route == Route(type=EACH)
    assert route.subject("email:new") == "CHORIA_AJ.H.T.email:new"


def test_with_routes_other_types_have_none() -> None:
    router = remote("email:new")
    assert taken(router, "sms:new") is None
    assert taken(router, "email") is None


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
    assert taken(remote("", "email:", "email:new"), task_type) == route
    assert taken(remote("email:new", "email:", ""), task_type) == route


def test_the_catch_all_alone_takes_everything() -> None:
    route = remote("").route("anything")
    assert route is not None
    assert route.subject("anything") == "CHORIA_AJ.H.T.catchall"


def test_beside_other_routes_each_type_can_take_its_own_name() -> None:
    router = remote("email:", EACH)
    assert taken(router, "email:new") == "email:"
    assert taken(router, "sms") == EACH


def test_the_catch_all_and_each_by_its_own_name_exclude_each_other() -> None:
    with pytest.raises(InvalidConfigError, match=r"the catch-all and \* each take the rest"):
        remote("", EACH)


def test_a_flood_of_types_is_not_remembered_for_ever() -> None:
    router = remote("t:")
    for number in range(25_000):
        router.route(f"t:{number}")
    assert len(router._known) <= 10_000
    assert taken(router, "t:") == "t:"


@pytest.mark.parametrize("route", ["email.new", "email:*", ">", "a b", "\xe9", "a\n", "x" * 129])
def test_a_route_that_is_no_type_is_refused(route: str) -> None:
    with pytest.raises(InvalidNameError):
        Route(type=route)


@pytest.mark.parametrize("route", ["email:new", ""])
def test_a_route_that_is_there_twice_is_refused(route: str) -> None:
    with pytest.raises(DuplicateHandlerError):
        remote(route, "sms:new", route)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"concurrency": 0}, "route t: concurrency must be at least 1"),
        ({"kind": RouteKind.FUNCTION}, "route t: a function goes with the kind function"),
        ({"kind": RouteKind.COMMAND}, "route t: a command goes with the kind command"),
        ({"command": Path("/bin/true")}, "route t: a command goes with the kind command"),
        (
            {"kind": RouteKind.COMMAND, "command": Path("/bin/true"), "encoding": Encoding.MSGPACK},
            "route t: an encoding is for remote handlers",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Route(type="t", **settings)


def test_each_by_its_own_name_is_for_remote_handlers() -> None:
    with pytest.raises(InvalidNameError):
        Route(type=EACH, kind=RouteKind.COMMAND, command=Path("/bin/true"))


def test_a_functions_own_limit_holds_where_the_route_has_none() -> None:
    services = Services()
    services.service("t", concurrency=3)(lambda task: None)
    (service,) = services
    assert Route(type="t", kind=RouteKind.FUNCTION, service=service).limit == 3
    assert Route(type="t", kind=RouteKind.FUNCTION, service=service, concurrency=2).limit == 2


async def test_a_chain_is_one_middleware_the_first_outermost() -> None:
    seen: list[str] = []

    def noting(name: str) -> Any:
        async def note(invocation: Invocation, following: Handle) -> Outcome:
            seen.append(name)
            return await following(invocation)

        return note

    async def handle(invocation: Invocation) -> Outcome:
        seen.append(invocation.id)
        return Completed(b"")

    record = TaskRecord(id="a", type="t", queue="Q", state=TaskState.ACTIVE, created_ns=1)
    invocation = Invocation("i", record, Route(type="t"), 1)
    both = chain(noting("a"), chain(noting("b"), noting("c")))
    assert await both(invocation, handle) == Completed(b"")
    assert seen == ["a", "b", "c", "i"]
