"""The registry of handlers: what can be one, and what it is called with."""

import functools
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from aj_sdk.errors import DuplicateHandlerError, InvalidNameError, PayloadError, UsageError
from aj_sdk.handling import Task
from aj_sdk.services import DEFAULT_SERVICES, Service, Services, load_services
from aj_sdk.wire.call import Call
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord


@dataclass
class Order:
    number: int


def make_task(payload: bytes | None) -> Task:
    record = TaskRecord(id="T1", type="t:new", queue="Q", state=TaskState.ACTIVE, payload=payload, created_ns=0)
    return Task(Call(task=record, invocation="i", try_=1, protocol="1.1", deadline_ns=0, timeout_ns=None), expires=1.0)


def register(function: Callable[..., Any]) -> Service:
    services = Services()
    assert services.service("t:new")(function) is function
    (found,) = services
    return found


def call(function: Callable[..., Any], payload: bytes | None = b'{"number":7}') -> Any:
    return register(function).bind(make_task(payload))()


def test_the_task_alone() -> None:
    def handler(task: Task) -> Any:
        return task

    assert call(handler).id == "T1"


def test_a_first_argument_without_annotation_is_the_task() -> None:
    def handler(anything):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - that is what is tested
        return anything

    assert call(handler).id == "T1"


def test_the_payload_alone() -> None:
    def handler(order: Order) -> Any:
        return order

    assert call(handler) == Order(7)


def test_both_in_either_order() -> None:
    def one(task: Task, order: Order) -> Any:
        return task.id, order

    def two(order: Order, task: Task) -> Any:
        return task.id, order

    assert call(one) == call(two) == ("T1", Order(7))


def test_a_second_argument_without_annotation_is_the_decoded_payload() -> None:
    def one(task, payload):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - that is what is tested
        return task.id, payload

    def two(payload, task: Task):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - that is what is tested
        return task.id, payload

    assert call(one) == call(two) == ("T1", {"number": 7})


def test_arguments_by_position_only_and_by_name_only() -> None:
    def one(order: Order, task: Task, /) -> Any:
        return task.id, order

    def two(*, order: Order, task: Task) -> Any:
        return task.id, order

    def three(*rest: int, task: Task, **more: int) -> Any:
        return task.id, rest, more

    assert call(one) == call(two) == ("T1", Order(7))
    assert call(three) == ("T1", (), {})


def test_annotations_as_text_are_read() -> None:
    def handler(task: "Task", order: "Order") -> "NotImportedAtRunTime":  # type: ignore[name-defined]  # noqa: F821
        return task.id, order

    assert call(handler) == ("T1", Order(7))


def test_annotated_types_are_read() -> None:
    def handler(task: Annotated[Task, "x"], number: Annotated[dict[str, int], "x"]) -> Any:
        return task.id, number

    assert call(handler) == ("T1", {"number": 7})


def test_a_default_counts_when_there_is_no_payload() -> None:
    def handler(task: Task, order: Order = Order(1), more: int = 2) -> Any:  # noqa: B008 - that is what is tested
        return order, more

    assert call(handler, None) == (Order(1), 2)
    assert call(handler) == (Order(7), 2)


def test_an_argument_with_a_default_and_no_annotation_is_left_alone() -> None:
    def handler(task, retries=3):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - that is what is tested
        return retries

    assert call(handler) == 3


class Mailer:
    def __init__(self, sender: str) -> None:
        self.sender = sender

    async def send(self, task: Task) -> str:
        return self.sender

    async def __call__(self, task: "Task", order: "Order") -> Any:
        return order


async def test_methods_partials_and_callable_objects() -> None:
    mailer = Mailer("me")

    def handler(prefix: str, task: Task, order: "Order") -> Any:
        return prefix, order

    bound = register(mailer.send)
    assert bound.is_async
    assert await bound.bind(make_task(None))() == "me"
    called = register(mailer)
    assert called.is_async
    assert await called.bind(make_task(b'{"number":1}'))() == Order(1)
    partial = register(functools.partial(handler, "p"))
    assert not partial.is_async
    assert partial.bind(make_task(b'{"number":1}'))() == ("p", Order(1))


async def test_a_decorated_handler() -> None:
    def loud(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return "loud", await function(*args, **kwargs)

        return wrapper

    @loud
    async def handler(task: "Task", order: "Order") -> Any:
        return order

    assert await call(handler) == ("loud", Order(7))


def test_a_payload_that_does_not_fit_names_the_field() -> None:
    def handler(order: Order) -> None: ...

    with pytest.raises(PayloadError, match=r"\$\.number"):
        call(handler, b'{"number":"x"}')


def generator(task: Task) -> Iterator[int]:
    yield 1


async def async_generator(task: Task) -> AsyncIterator[int]:
    yield 1


class Generators:
    def __call__(self, task: Task) -> Iterator[int]:
        yield 1


def no_arguments() -> None: ...


def unwrapped(*args: Any, **kwargs: Any) -> None: ...


def too_many(task: Task, order: Order, more: int) -> None: ...


def two_tasks(task: Task, order: Order, other: Task) -> None: ...


def position_only(task: Task, order: Order, more: int = 1, /) -> None: ...


def unreadable(task: Task, order: "NotDefined") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def not_json(task: Task, mailer: Mailer) -> None: ...


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (generator, "it is a generator"),
        (async_generator, "it is a generator"),
        (Generators(), "it is a generator"),
        (no_arguments, "it takes"),
        (unwrapped, "functools.wraps"),
        (too_many, "'more'"),
        (two_tasks, "'other'"),
        (position_only, "'more'"),
        (unreadable, "NotDefined"),
        (not_json, "parameter 'mailer'"),
        (Mailer, "not a function"),
        ("text", "not a function"),
        (Mailer.send, "method of an object"),
        (dict.get, "it takes|parameters can't be read|method of an object"),
        (type, "not a function"),
    ],
)
def test_what_can_not_be_a_handler_is_refused(function: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        register(function)


def test_a_function_whose_parameters_are_hidden_is_refused() -> None:
    with pytest.raises(UsageError, match="parameters can't be read"):
        register(iter)


@pytest.mark.parametrize(
    ("route", "subject", "shown"),
    [
        ("email:new", "CHORIA_AJ.H.T.email:new", "email:new"),
        ("email:", "CHORIA_AJ.H.T.email:", "email:"),
        ("", "CHORIA_AJ.H.T.catchall", "catchall"),
    ],
)
def test_types_prefixes_and_all_types(route: str, subject: str, shown: str) -> None:
    services = Services()
    services.service(route)(no_task := lambda task: task)
    (found,) = services

    assert len(services) == 1
    assert found.function is no_task
    assert (found.subject, found.shown, found.queue_group) == (subject, shown, "q")


@pytest.mark.parametrize("route", ["a.b", "a*", ">", "a b", "a\n", "ü", "x" * 129])
def test_a_type_that_may_not_cross_the_wire_is_refused(route: str) -> None:
    with pytest.raises(InvalidNameError):
        Services().service(route)


def test_a_second_handler_of_a_type_is_refused() -> None:
    services = Services()
    services.service("t")(lambda task: task)
    with pytest.raises(DuplicateHandlerError, match="'t'"):
        services.service("t")(lambda task: task)


def test_all_types_and_a_type_called_catchall_have_one_subject() -> None:
    services = Services()
    services.service("")(lambda task: task)
    with pytest.raises(DuplicateHandlerError):
        services.service("catchall")(lambda task: task)


def test_a_decorator_without_a_type_says_how_to_write_it() -> None:
    with pytest.raises(UsageError, match="@service"):
        Services().service(no_arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, "2"])
def test_a_wrong_concurrency_is_refused(concurrency: Any) -> None:
    with pytest.raises(UsageError, match="concurrency"):
        Services().service("t", concurrency=concurrency)


@pytest.mark.parametrize("group", ["", "a b", "a\r\nPUB x 0", "x" * 129])
def test_a_wrong_queue_group_is_refused(group: str) -> None:
    with pytest.raises(UsageError, match="queue group"):
        Services().service("t", queue_group=group)


def test_options_are_kept() -> None:
    logger = logging.getLogger("mine")
    services = Services(logger=logger)
    services.service("t", concurrency=3, queue_group="other")(lambda task: task)
    (found,) = services

    assert (found.concurrency, found.queue_group, found.logger) == (3, "other", logger)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give an empty current folder; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_registry_is_loaded_from_the_current_folder(folder: Path) -> None:
    (folder / "handlers_one.py").write_text("import aj_sdk\nclass app:\n    services = aj_sdk.Services()\n")

    assert isinstance(load_services("handlers_one:app.services"), Services)


def test_services_is_the_attribute_when_none_is_named(folder: Path) -> None:
    (folder / "handlers_two.py").write_text("import aj_sdk\nservices = aj_sdk.Services()\n")

    assert load_services("handlers_two") is load_services("handlers_two:services")


def test_a_module_that_uses_the_default_registry_need_not_hold_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DEFAULT_SERVICES, "_by_subject", {})
    (folder / "handlers_three.py").write_text(
        "from aj_sdk import Task, service\n@service('t')\ndef handler(task: Task): ...\n"
    )

    assert load_services("handlers_three:services") is DEFAULT_SERVICES
    assert [service.route for service in DEFAULT_SERVICES] == ["t"]


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("no_such_module_at_all:services", "no module 'no_such_module_at_all'; looked in "),
        ("aj_sdk.no_such:services", "no module 'aj_sdk.no_such'"),
        ("broken_import:services", "importing 'broken_import' failed: ModuleNotFoundError"),
        ("broken_syntax:services", "importing 'broken_syntax' failed: SyntaxError"),
        ("empty:services", "module 'empty' has no attribute 'services'"),
        ("empty:a.b", "module 'empty' has no attribute 'a.b'"),
        ("empty:number", "'empty:number' is a int, not an aj_sdk.Services"),
        (":services", "not of the form"),
        ("", "not of the form"),
        ("a b:c", "not of the form"),
        ("empty:a:b", "not of the form"),
        ("../empty:services", "not of the form"),
    ],
)
def test_what_is_wrong_with_an_app_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, app: str, reason: str
) -> None:
    monkeypatch.setattr(DEFAULT_SERVICES, "_by_subject", {})
    (folder / "empty.py").write_text("number = 1\n")
    (folder / "broken_import.py").write_text("import no_such_module_either\n")
    (folder / "broken_syntax.py").write_text("def\n")

    with pytest.raises(UsageError, match=reason):
        load_services(app)
