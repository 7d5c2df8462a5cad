"""A task as its handler sees it."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from aj_sdk.errors import PayloadError, UsageError
from aj_sdk.handling import TASK_LOGGER, Task
from aj_sdk.wire.call import Call
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult

CREATED_NS = 1_700_000_000_123_456_789


@dataclass
class Letter:
    to: str


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_task(*, logger: logging.Logger | None = None, clock: Clock | None = None, **changes: Any) -> Task:
    record = TaskRecord(
        id="T1",
        type="email:new",
        queue="EMAIL",
        state=TaskState.ACTIVE,
        payload=b'{"to":"a@example.net"}',
        created_ns=CREATED_NS,
        tries=2,
    ).replace(**changes)
    call = Call(
        task=record,
        invocation="inv",
        try_=2,
        protocol="1.1",
        deadline_ns=CREATED_NS + 10**9,
        timeout_ns=10**9,
    )
    return Task(call, expires=101.0, logger=logger, clock=clock or Clock())


def test_what_the_record_says() -> None:
    task = make_task(max_tries=7)

    assert (task.id, task.type, task.queue) == ("T1", "email:new", "EMAIL")
    assert (task.tries, task.max_tries, task.invocation, task.protocol) == (2, 7, "inv", "1.1")
    assert task.record.state is TaskState.ACTIVE
    assert repr(task) == "<Task T1 'email:new' of queue 'EMAIL', try 2>"


def test_the_payload_is_decoded_once() -> None:
    task = make_task()

    assert task.payload == {"to": "a@example.net"}
    assert task.payload is task.payload
    assert task.payload_bytes == b'{"to":"a@example.net"}'


def test_the_payload_as_a_type() -> None:
    assert make_task().payload_as(Letter) == Letter("a@example.net")
    assert make_task().payload_as(bytes) == b'{"to":"a@example.net"}'


def test_no_payload() -> None:
    task = make_task(payload=None)

    assert task.payload is None
    assert task.payload_bytes == b""


def test_a_payload_that_does_not_fit() -> None:
    with pytest.raises(PayloadError, match="not valid JSON"):
        _ = make_task(payload=b"\xff").payload
    with pytest.raises(PayloadError, match=r"\$\.to"):
        make_task(payload=b'{"to":1}').payload_as(Letter)
    with pytest.raises(UsageError, match="can't be read as Clock"):
        make_task().payload_as(Clock)


def test_times_are_aware() -> None:
    task = make_task(deadline_ns=CREATED_NS)

    assert task.created == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert task.deadline == task.created
    assert task.handler_deadline == datetime(2023, 11, 14, 22, 13, 21, 123456, tzinfo=UTC)
    assert make_task().deadline is None


def test_the_time_that_remains_is_read_from_the_monotonic_clock() -> None:
    clock = Clock()
    task = make_task(clock=clock)

    assert task.remaining == 1.0
    clock.now = 100.75
    assert task.remaining == 0.25
    clock.now = 200.0
    assert task.remaining == 0.0


def test_the_results_of_dependencies_are_as_the_record_has_them() -> None:
    task = make_task(
        dependency_results={"A": TaskResult(payload="aGk=", completed_ns=0), "B": None}, dependencies=("A", "B")
    )

    assert task.dependency_results == {"A": "aGk=", "B": None}


def test_log_records_carry_the_task(caplog: pytest.LogCaptureFixture) -> None:
    task = make_task()
    with caplog.at_level(logging.INFO, TASK_LOGGER):
        task.log.info("sent to %s", "a", extra={"size": 3, "task_id": "other"})
        task.log.info("done")

    first, second = caplog.records
    assert first.getMessage() == "sent to a"
    assert first.name == TASK_LOGGER
    fields = first.__dict__
    assert [fields[name] for name in ("task_id", "task_type", "queue", "tries", "size")] == [
        "T1",
        "email:new",
        "EMAIL",
        2,
        3,
    ]
    assert second.__dict__["task_id"] == "T1"
    assert task.log is task.log


def test_the_application_s_logger_is_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mine"):
        make_task(logger=logging.getLogger("mine")).log.info("hello")

    assert [(record.name, record.getMessage()) for record in caplog.records] == [("mine", "hello")]
