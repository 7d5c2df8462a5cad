"""What is made of the messages that a tap hears."""

from collections.abc import Mapping

import pytest

from aj_bridge.faces.tap import Kind, Listener, Passed
from aj_sdk.wire.call import call_headers
from aj_sdk.wire.event import TaskStateEvent
from aj_sdk.wire.names import TASK_MSGPACK
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

NOW = 1_700_000_000 * NS_PER_S
TASK = TaskRecord(
    id="t1", type="email:new", queue="EMAIL", state=TaskState.ACTIVE, payload=b"\xff{}", created_ns=NOW, tries=1
)
HEADERS = call_headers(TASK, invocation="b-EMAIL-1", now_ns=NOW, give_up_ns=NOW + 20 * NS_PER_S)
SUBJECT = "CHORIA_AJ.H.T.email:new"


@pytest.fixture
def listener() -> Listener:
    return Listener()


def ask(
    listener: Listener,
    reply: str = "_INBOX.b.1",
    body: bytes | None = None,
    headers: Mapping[str, str] = HEADERS,
) -> Passed:
    return listener.on_request(SUBJECT, reply, headers, TASK.to_wire() if body is None else body, NOW)


def answer(
    listener: Listener, headers: Mapping[str, str] | None = None, body: bytes = b"", *, after_s: float = 1
) -> Passed:
    passed = listener.on_inbox("_INBOX.b.1", headers, body, NOW + int(after_s * NS_PER_S))
    assert passed is not None
    return passed


def wrong(passed: Passed) -> list[tuple[str, str]]:
    return [(fault.schema, fault.path) for fault in passed.faults]


def test_a_request_and_its_reply_belong_together_whatever_else_comes_to_inboxes(listener: Listener) -> None:
    asked = ask(listener)
    assert (asked.kind, asked.task_type, asked.task_id, asked.content) == (
        Kind.REQUEST,
        "email:new",
        "t1",
        TASK.payload,
    )
    assert asked.text == "try 1, 18.0 s left"
    assert asked.faults == ()
    assert listener.on_inbox("_INBOX.b.2", None, b"an acknowledgement", NOW) is None
    came = answer(listener, None, b"done")
    assert (came.kind, came.task_id, came.after_ns, came.text, came.content) == (
        Kind.REPLY,
        "t1",
        NS_PER_S,
        "complete",
        b"done",
    )
    assert came.faults == ()


def test_a_request_in_messagepack_is_read_too(listener: Listener) -> None:
    headers = HEADERS | {"AJ-Content-Type": TASK_MSGPACK}
    assert wrong(ask(listener, body=TASK.to_msgpack(), headers=headers)) == []


@pytest.mark.parametrize(
    ("headers", "kind", "text", "faults"),
    [
        ({"AJ-Error": "mailbox full"}, Kind.FAILURE, "failed: mailbox full", []),
        ({"aj-error": "x", "AJ-Retry-After-Ms": "500"}, Kind.FAILURE, "failed: x (again after 500 ms)", []),
        ({"AJ-Terminate": "no"}, Kind.FAILURE, "terminated: no", []),
        ({"AJ-Progress": "0.4"}, Kind.INTERIM, "40%", []),
        ({"AJ-Progress": ""}, Kind.INTERIM, "alive", []),
        ({"AJ-Progress": "1.5"}, Kind.INTERIM, "alive", [("reply_headers", "$['AJ-Progress']")]),
        (
            {"AJ-Error": "x", "aj-retry-after-ms": "soon"},
            Kind.FAILURE,
            "failed: x",
            [("reply_headers", "$['AJ-Retry-After-Ms']")],
        ),
        ({"Status": "503"}, Kind.NOBODY, "nobody listens", []),
    ],
)
def test_a_reply_is_read_as_a_bridge_reads_it_and_checked(
    listener: Listener, headers: dict[str, str], kind: Kind, text: str, faults: list[tuple[str, str]]
) -> None:
    ask(listener)
    came = answer(listener, headers)
    assert (came.kind, came.text, wrong(came)) == (kind, text, faults)


def test_a_request_that_breaks_the_schemas_is_flagged_with_the_field(listener: Listener) -> None:
    headers = HEADERS | {"AJ-Task-Try": "first"}
    assert ("request_headers", "$['AJ-Task-Try']") in wrong(ask(listener, headers=headers))
    asked = ask(listener, body=TASK.to_wire().replace(b'"tries":1', b'"tries":"1"'))
    assert asked.text == "can't be read"
    assert wrong(asked) == [("task", "$.tries")]
    assert wrong(ask(listener, reply="")) == [("protocol", "$")]


def test_second_late_and_unasked_answers_are_flagged(listener: Listener) -> None:
    ask(listener)
    assert wrong(answer(listener)) == []
    assert "one queue group" in answer(listener).faults[0].message
    ask(listener)
    [silence] = listener.overdue(NOW + 19 * NS_PER_S)
    assert (silence.kind, silence.task_id) == (Kind.SILENCE, "t1")
    assert listener.overdue(NOW + 20 * NS_PER_S) == []
    assert "after the deadline" in answer(listener).faults[0].message
    ask(listener, headers={name: text for name, text in HEADERS.items() if name != "AJ-Heartbeat-Ms"})
    assert "that no AJ-Heartbeat-Ms asked for" in answer(listener, {"AJ-Progress": ""}).faults[0].message


def test_progress_with_a_number_gives_the_whole_time_again(listener: Listener) -> None:
    ask(listener)
    for seconds in (10, 20, 30):
        answer(listener, {"AJ-Progress": "0.5"}, after_s=seconds)
        assert listener.overdue(NOW + (seconds + 17) * NS_PER_S) == []
    assert listener.overdue(NOW + 49 * NS_PER_S)


def test_who_is_told_to_stop_is_known_by_the_invocation(listener: Listener) -> None:
    ask(listener)
    told = listener.on_cancel("CHORIA_AJ.CI.b-EMAIL-1", NOW + NS_PER_S)
    assert (told.kind, told.task_id, told.after_ns) == (Kind.CANCEL, "t1", NS_PER_S)
    assert listener.on_cancel("CHORIA_AJ.CI.other", NOW).task_id == ""


def test_events_are_told_and_checked(listener: Listener) -> None:
    event = TaskStateEvent.of(TASK.replace(last_err="full"), "3MjpeqoaPuOUAQj3SdjHHQfNGbx", NOW)
    told = listener.on_event("CHORIA_AJ.E.task_state.t1", event.to_wire(), NOW)
    assert (told.kind, told.task_id, told.task_type) == (Kind.EVENT, "t1", "email:new")
    assert (told.text, told.faults) == ("state active, tries 1, full", ())
    strange = event.to_wire().replace(b'"state":"active"', b'"state":"asleep"')
    told = listener.on_event("CHORIA_AJ.E.task_state.t1", strange, NOW)
    assert (told.text, wrong(told)) == ("can't be read", [("task_state_event", "$.state")])
    assert ("leader_elected_event", "$") in wrong(listener.on_event("CHORIA_AJ.E.leader_election.x", b"{}", NOW))


def test_no_more_requests_are_remembered_than_there_is_room_for() -> None:
    listener = Listener(room=2)
    for number in range(4):
        ask(listener, reply=f"_INBOX.b.{number}")
    assert listener.forgotten == 2
    assert listener.on_inbox("_INBOX.b.1", None, b"", NOW) is None
    assert listener.on_inbox("_INBOX.b.3", None, b"", NOW) is not None
