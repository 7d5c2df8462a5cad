"""What a program is told about its task, and what becomes of its complaints."""

import logging

import pytest

from aj_bridge.engine.told import log_complaints, read_progress, told_of
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.trace import Trace

RECORD = TaskRecord(
    id="t1", type="email:new", queue="EMAIL", created_ns=0, tries=2, state=TaskState.ACTIVE, payload=b"secret"
)


def test_a_program_is_told_of_its_task() -> None:
    trace = Trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=b")
    assert told_of(RECORD, invocation="i1", deadline_ns=1_500_000_000, trace=trace) == {
        "CHORIA_AJ_TASK_ID": "t1",
        "CHORIA_AJ_TASK_TYPE": "email:new",
        "CHORIA_AJ_TASK_TRY": "2",
        "CHORIA_AJ_QUEUE": "EMAIL",
        "CHORIA_AJ_INVOCATION": "i1",
        "CHORIA_AJ_DEADLINE": "1970-01-01T00:00:01.5Z",
        "TRACEPARENT": trace.parent,
        "TRACESTATE": "a=b",
    }


def test_complaints_are_logged_up_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    take = log_complaints("send", logging.getLogger("told"), {"task_id": "t1"})
    for number in range(1500):
        take(f"line {number}\x1b[2J")
    assert len(caplog.records) == 1001
    assert caplog.records[0].getMessage() == "send: line 0\\x1b[2J"
    assert caplog.records[0].__dict__["task_id"] == "t1"
    assert caplog.records[-1].getMessage() == "send: wrote more than 1000 lines, the others are not logged"


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("", (None, "")),
        ("  ", (None, "")),
        ("0", (0, "")),
        ("1", (1, "")),
        ("0.25", (0.25, "")),
        (" 0.5  page 4 of 8 ", (0.5, "page 4 of 8")),
        ("40% rendering", (0.4, "rendering")),
        ("100%", (1, "")),
        ("1.5", None),
        ("101%", None),
        ("-1", None),
        ("nan", None),
        ("1_0%", None),
        ("rendering", None),
        ("\u0661", None),
    ],
)
def test_a_line_of_progress_is_read(line: str, progress: tuple[float | None, str] | None) -> None:
    assert read_progress(line) == progress
