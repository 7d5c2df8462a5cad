"""Printing: nothing from a task reaches the terminal raw, and pipes get whole lines."""

import json

import pytest

from aj_bridge.faces.cli import output
from aj_sdk.admin import Overview, QueueInfo, TaskStoreInfo
from aj_sdk.wire.event import LeaderElectedEvent, TaskStateEvent
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_S

NOW = 1_700_000_000 * NS_PER_S
EVIL = "\x1b[31mred\x07\r\nnext\x9bx\u2028\ud800[bold]"
TASK = TaskRecord(id="t1", type="email:new", queue="EMAIL", payload=b'{"a":1}', created_ns=NOW)
QUEUE = QueueInfo(
    settings=QueueSettings(name="EMAIL", max_entries=9, max_age_ns=NS_PER_S),
    parks=True,
    items=1234,
    waiting=2,
    in_flight=3,
    redelivered=1,
    parked=None,
    pulls=4,
    bytes=2048,
    created_ns=NOW,
    oldest_ns=NOW,
    newest_ns=NOW,
)
STORE = TaskStoreInfo(
    tasks=5,
    bytes=10,
    retention_ns=0,
    replicas=1,
    memory=False,
    direct_get=True,
    created_ns=NOW,
    first_ns=None,
    last_ns=None,
)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> "pytest.CaptureFixture[str]":
    return capsys


def stored(record: TaskRecord) -> Stored:
    return Stored(task_id=record.id, sequence=1, body=b"", record=record)


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert output.clean(EVIL) == "\\x1b[31mred\\x07\\r\\nnext\\x9bx\\u2028\\ud800[bold]"
    assert output.clean("größer 👍") == "größer 👍"
    assert output.clean("\U000e0001") == "\\U000e0001"


def test_json_is_one_document_without_control_characters(printed: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": EVIL, "ü": [1, None]})
    text = printed.readouterr().out
    assert json.loads(text) == {"a": EVIL, "ü": [1, None]}
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "ü" in text
    output.print_json_line({"a": [1, 2]})
    assert printed.readouterr().out == '{"a": [1, 2]}\n'


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 50, "3072.0 TiB")],
)
def test_sizes_are_rounded(size: int, text: str) -> None:
    assert output.size_text(size) == text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (0, "0s"),
        (250_000_000, "250ms"),
        (1_234_567_890, "1.23s"),
        (59_999_999_999, "59.99s"),
        (60 * NS_PER_S, "1m"),
        (3 * 86_400 * NS_PER_S + 4 * 3600 * NS_PER_S, "3d4h"),
        (-90 * NS_PER_S, "-1m30s"),
        (1, "1ns"),
    ],
)
def test_durations_are_written_as_a_person_would(span: int, text: str) -> None:
    assert output.duration_text(span) == text


def test_a_task_is_shown_with_all_that_is_known(printed: pytest.CaptureFixture[str]) -> None:
    output.print_task(
        TASK.replace(
            state=TaskState.COMPLETE,
            tries=2,
            tried_ns=NOW,
            deadline_ns=NOW,
            last_err=EVIL,
            dependencies=("t0",),
            signature="ab",
            extra={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
            result=TaskResult(payload="eA==", completed_ns=NOW + 2 * NS_PER_S),
        )
    )
    text = printed.readouterr().out
    assert text.startswith("Task t1\n\n")
    for part in (
        "Type: email:new",
        "Tries: 2 of 10",
        'Payload: {"a":1} (7 B)',
        "(2s after it was created)",
        'Result: "eA=="',
        "Depends on: t0",
        "Trace: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "\\x1b[31mred",
        "[bold]",
    ):
        assert part in text
    assert all(char.isprintable() or char == "\n" for char in text)
    assert not any(line.endswith(" ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("payload", "text"),
    [(None, "Payload: none"), (b"\xff\xfe", "Payload: 2 B that are not text"), (b"x" * 3000, "x... (2.9 KiB)")],
)
def test_a_payload_that_is_no_text_or_long_is_told_by_its_size(
    printed: pytest.CaptureFixture[str], payload: bytes | None, text: str
) -> None:
    output.print_task(TASK.replace(payload=payload))
    assert text in printed.readouterr().out


def test_tables_are_not_cut_where_no_terminal_is(printed: pytest.CaptureFixture[str]) -> None:
    long = TASK.replace(id="t" * 128, type="y" * 128, queue="q" * 128)
    output.print_tasks([stored(long), Stored(task_id="bad", sequence=2, body=b"", fault="task: id: is missing")], 7)
    text = printed.readouterr().out
    assert text.startswith("2 of 7 tasks\n")
    assert "t" * 128 in text
    assert "y" * 128 in text
    assert "unreadable" in text
    assert "is missing" in text


def test_queues_are_a_table_and_a_sheet(printed: pytest.CaptureFixture[str]) -> None:
    output.print_queues([])
    assert "`ajc queue add NAME` makes one" in printed.readouterr().out
    output.print_queues([QUEUE])
    table = printed.readouterr().out
    output.print_queue(QUEUE)
    sheet = printed.readouterr().out
    assert "1,234" in table
    for part in ("Items: 1,234 (2.0 KiB)", "Parked: unknown", "9, refuses new items when full", "Lease: 30s"):
        assert part in sheet


def test_the_overview_tells_what_is_not_there(printed: pytest.CaptureFixture[str]) -> None:
    nothing = Overview(api_level=0, task_store=None, queues=(), parked=None, dead_letters=None)
    output.print_overview(nothing)
    assert "`ajc task initialize` makes it" in printed.readouterr().out
    output.print_overview(Overview(api_level=5, task_store=STORE, queues=(QUEUE,), parked=1, dead_letters=2))
    text = printed.readouterr().out
    assert "Kept for: ever" in text
    assert "Dead letters: 2" in text
    assert output.overview_map(nothing)["task_store"] is None


def test_maps_for_json_speak_the_wires_words() -> None:
    assert output.stored_map(stored(TASK)) == TASK.to_map()
    assert output.stored_map(Stored(task_id="t1", sequence=1, body=b"", fault="bad")) == {"id": "t1", "fault": "bad"}
    queue = output.queue_map(QUEUE)
    assert (queue["max_runtime"], queue["state"]["parked"], queue["state"]["created"]) == (
        3600 * NS_PER_S,
        None,
        "2023-11-14T22:13:20Z",
    )
    assert output.store_map(STORE)["last"] is None


def test_events_are_a_line_each() -> None:
    event = TaskStateEvent.of(TASK.replace(state=TaskState.RETRY, tries=1, last_err="a\nb"), "e", NOW)
    line = output.event_line(event)
    assert line.endswith("t1: queue: EMAIL type: email:new tries: 1 state: retry error: a\\nb")
    assert output.event_map(event)["task_id"] == "t1"
    leader = LeaderElectedEvent(event_id="e", timestamp_ns=NOW, name="n", component="task_scheduler")
    assert output.event_line(leader).endswith("n: new task_scheduler leader")
