"""What the sweeper does with a task, for each state, queue, age, place and owner."""

from itertools import product
from typing import Any

import pytest

from aj_bridge.core.deliver import Holder
from aj_bridge.core.lifecycle import EDGES, Event, Hand
from aj_bridge.core.sweep import (
    Aftercare,
    Ask,
    Bury,
    Close,
    Forget,
    Gone,
    Leave,
    Publish,
    Replace,
    Sighting,
    Tell,
    Verdict,
    Whereabouts,
    judge_edge,
    judge_item,
    judge_task,
)
from aj_sdk.wire.edge import Edge
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

LEASE_NS = 20 * NS_PER_S
OURS = QueueSettings(name="Q", lease_ns=LEASE_NS)
GO = QueueSettings(name="Q", lease_ns=0)
DROPS = QueueSettings(name="Q", lease_ns=LEASE_NS, max_entries=3, discard_old=True)
CAPPED = QueueSettings(name="Q", lease_ns=LEASE_NS, max_tries=3)
STAMP = Stamp("owner", ItemRef(7, 1))
NO_PLACE = Whereabouts()
STANDS = Whereabouts(item=7)
STRANDED = Whereabouts(item=7, stranded=True)
WAITS = Whereabouts(waits=True)
OLD_NS = 100 * LEASE_NS

UNFINISHED = [state for state in TaskState if not state.final]
FINAL = [state for state in TaskState if state.final]
WAITING = [state for state in UNFINISHED if state is not TaskState.ACTIVE]


def task(state: TaskState = TaskState.NEW, **fields: Any) -> TaskRecord:
    return TaskRecord(id="a", type="t", state=state, created_ns=1, **{"queue": "Q", "max_tries": 0, **fields})


def judged(
    record: TaskRecord | None,
    queue: QueueSettings | None = OURS,
    *,
    age_ns: int = OLD_NS,
    place: Whereabouts = NO_PLACE,
    stamp: Stamp | None = None,
    holder: Holder | None = None,
) -> Verdict:
    stored = Stored(task_id="a", sequence=5, body=b"", record=record, stamp=stamp)
    return judge_task(Sighting(stored=stored, queue=queue, age_ns=age_ns, place=place, holder=holder))


@pytest.mark.parametrize("state", FINAL)
@pytest.mark.parametrize("queue", [OURS, None])
@pytest.mark.parametrize("place", [NO_PLACE, STRANDED])
def test_a_task_that_has_ended_is_looked_at_no_more(
    state: TaskState, queue: QueueSettings | None, place: Whereabouts
) -> None:
    assert judged(task(state), queue, place=place) == Gone()


@pytest.mark.parametrize(
    ("body", "queue"),
    [
        (b"{", ""),
        (b"", ""),
        (b"\xff\xfe", ""),
        (b"[1]", ""),
        (b'{"id":"a","queue":"Q","max_tries":"many"}', "Q"),
        (b'{"queue":"Q.*"}', ""),
        (b'{"queue":7}', ""),
    ],
)
def test_a_record_that_can_not_be_read_becomes_a_dead_letter_when_it_is_old_enough(body: bytes, queue: str) -> None:
    stored = Stored.read("CHORIA_AJ.T.a", 5, body, None)
    assert stored.record is None
    assert judge_task(Sighting(stored=stored, queue=None, age_ns=30 * NS_PER_S - 1)) == Leave()
    assert judge_task(Sighting(stored=stored, queue=None, age_ns=30 * NS_PER_S)) == Bury(queue, stored.fault)


def _stored(record: TaskRecord | None) -> Stored:
    return Stored(task_id="a", sequence=5, body=b"", record=record)


def _in_state(state: TaskState | None) -> Stored | None:
    return None if state is None else _stored(task(state))


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("stranded", [True, False])
def test_a_stranded_item_of_a_task_that_has_ended_is_finished_as_a_bridge_would(
    state: TaskState, stranded: bool
) -> None:
    ended = stranded and state.final
    assert judge_item(stranded, _stored(task(state))) == (Aftercare(task(state)) if ended else Leave())


@pytest.mark.parametrize("stranded", [True, False])
def test_an_item_without_a_record_becomes_a_dead_letter_and_one_with_an_unreadable_record_waits(stranded: bool) -> None:
    assert judge_item(stranded, None) == Bury("", "task not found")
    assert judge_item(stranded, _stored(None)) == Leave()


@pytest.mark.parametrize("child", [None, *TaskState])
@pytest.mark.parametrize("parent", [None, *TaskState])
@pytest.mark.parametrize("told", [TaskState.UNKNOWN, TaskState.COMPLETE])
def test_an_edge_goes_with_who_waited_by_it_and_an_untold_end_is_told(
    child: TaskState | None, parent: TaskState | None, told: TaskState
) -> None:
    edge = Edge(parent="p", child="a", queue="Q", state=told)
    verdict = judge_edge(edge, _in_state(child), _in_state(parent))
    if child is None or child.final:
        assert isinstance(verdict, Forget)
    elif told.final or (parent is not None and not parent.final):
        assert verdict == Leave()
    else:
        assert verdict == Tell(None if parent is None else task(parent), "the end of a parent was not told")


def test_an_edge_of_a_record_that_can_not_be_read_is_left() -> None:
    edge = Edge(parent="p", child="a", queue="Q")
    assert judge_edge(edge, _stored(None), None) == Leave()
    assert judge_edge(edge, _stored(task()), _stored(None)) == Leave()


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize(("queue", "span_ns"), [(OURS, LEASE_NS), (GO, 30 * NS_PER_S), (None, 30 * NS_PER_S)])
def test_a_young_record_is_left_for_a_span_and_an_active_one_for_two(
    state: TaskState, queue: QueueSettings | None, span_ns: int
) -> None:
    patience_ns = 2 * span_ns if state is TaskState.ACTIVE else span_ns
    assert judged(task(state), queue, age_ns=patience_ns - 1) == Leave()
    assert judged(task(state), queue, age_ns=patience_ns) != Leave()


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize("queue", [OURS, GO, DROPS])
@pytest.mark.parametrize("place", [STANDS, WAITS])
def test_a_task_whose_item_or_schedule_stands_is_left(
    state: TaskState, queue: QueueSettings, place: Whereabouts
) -> None:
    assert judged(task(state), queue, place=place) == Leave()


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize("queue", [OURS, GO])
def test_a_task_without_item_and_schedule_gets_an_item(state: TaskState, queue: QueueSettings) -> None:
    assert judged(task(state), queue, stamp=STAMP) == Publish("no item and no schedule")


@pytest.mark.parametrize("state", [TaskState.NEW, TaskState.RETRY, TaskState.UNKNOWN])
def test_a_waiting_task_of_a_queue_that_drops_items_ends(state: TaskState) -> None:
    record = task(state, last_err="boom")
    last_err = "its item is gone: queue Q discards old items; before: boom"
    closed = record.replace(state=TaskState.QUEUE_ERROR, last_err=last_err)
    assert judged(record, DROPS) == Close(closed, Event.ITEM_DROPPED)


@pytest.mark.parametrize("state", [TaskState.BLOCKED, TaskState.ACTIVE])
def test_a_task_that_waits_for_others_or_runs_comes_back_also_where_items_are_dropped(state: TaskState) -> None:
    assert judged(task(state), DROPS) == Publish("no item and no schedule")


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize(("tries", "queue"), [(0, OURS), (50, OURS), (2, CAPPED)])
def test_a_stranded_item_is_replaced_while_there_are_tries_left(
    state: TaskState, tries: int, queue: QueueSettings
) -> None:
    assert judged(task(state, tries=tries), queue, place=STRANDED) == Replace(
        7, "its item is handed to nobody any more"
    )


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize(("fields", "queue"), [({"tries": 3}, CAPPED), ({"tries": 2, "max_tries": 2}, OURS)])
@pytest.mark.parametrize(("before", "after"), [("boom", "boom"), ("", "tries used up")])
def test_a_task_whose_tries_are_used_up_expires_and_its_stranded_item_goes(
    state: TaskState, fields: dict[str, int], queue: QueueSettings, before: str, after: str
) -> None:
    record = task(state, last_err=before, **fields)
    expired = record.replace(state=TaskState.EXPIRED, last_err=after)
    assert judged(record, queue, place=STRANDED) == Close(expired, Event.DELIVERIES_USED_UP, 7)


@pytest.mark.parametrize("state", WAITING)
@pytest.mark.parametrize(("queue", "named"), [("GONE", "GONE"), ("", "(none named)")])
def test_a_waiting_task_without_a_queue_ends(state: TaskState, queue: str, named: str) -> None:
    record = task(state, queue=queue)
    closed = record.replace(state=TaskState.QUEUE_ERROR, last_err=f"there is no queue {named}")
    assert judged(record, None, stamp=STAMP) == Close(closed, Event.QUEUE_GONE)


def test_the_owner_of_an_active_task_without_a_queue_is_asked_before_it_ends() -> None:
    record = task(TaskState.ACTIVE)
    closed = Close(
        record.replace(state=TaskState.QUEUE_ERROR, last_err="there is no queue Q"),
        Event.QUEUE_GONE,
    )
    assert judged(record, None, stamp=STAMP) == Ask()
    assert judged(record, None, stamp=STAMP, holder=Holder.YES) == Leave()
    assert judged(record, None, stamp=STAMP, holder=Holder.NO) == closed
    assert judged(record, None, stamp=STAMP, holder=Holder.SILENT) == closed
    assert judged(record, None, stamp=None) == closed  # a Go worker's: there is nobody to ask


def test_every_case_has_an_answer_and_every_end_is_an_edge_of_the_sweeper() -> None:
    edges = {(edge.before, edge.event, edge.after) for edge in EDGES if edge.hand is Hand.SWEEPER}
    ends = set()
    for state, queue, age_ns, place, stamp, holder, tries in product(
        TaskState,
        [OURS, GO, DROPS, CAPPED, None],
        [0, OLD_NS],
        [NO_PLACE, STANDS, STRANDED, WAITS],
        [None, STAMP],
        [None, *Holder],
        [0, 3],
    ):
        record = task(state, tries=tries)
        verdict = judged(record, queue, age_ns=age_ns, place=place, stamp=stamp, holder=holder)
        assert isinstance(verdict, Verdict)
        if isinstance(verdict, Close):
            ends.add((state, verdict.event, verdict.record.state))
        assert not (isinstance(verdict, Ask) and holder is not None)  # asked once, it decides
    assert ends <= edges
    assert {event for _, event, _ in ends} == {event for _, event, _ in edges}
