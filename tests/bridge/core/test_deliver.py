"""What to do with a delivered item: each rule, each look, and their order, as decisions compared with `==`."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_bridge.core.claim import Claim
from aj_bridge.core.decision import Ack, Aftercare, Decision, Drop, Finish, Look, Park, Quarantine, Start
from aj_bridge.core.deliver import RULES, Holder, Known, decide, max_tries
from aj_bridge.core.lifecycle import Event, is_edge
from aj_sdk.wire.item import WorkItem
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import FINAL_STATES, TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

NOW = 1_767_225_600 * NS_PER_S
MINUTE = 60 * NS_PER_S
LEASE = 30 * NS_PER_S
QUEUE = QueueSettings(name="Q", max_run_time_ns=10 * MINUTE)
RECORD = TaskRecord(id="a", type="t", queue="Q", created_ns=NOW - MINUTE)
OWNER = Stamp("b1", ItemRef(5, 2))
UNFINISHED = [state for state in TaskState if state not in FINAL_STATES]


def claim(sequence: int = 5, delivery: int = 1, **changes: Any) -> Claim:
    fields: dict[str, Any] = {"queue": "Q", "task_id": "a", "body": WorkItem("a").to_wire(), "token": "x"} | changes
    return Claim(item=ItemRef(sequence, delivery), received=0.0, **fields)


def stored(record: TaskRecord | None, stamp: Stamp | None = None, sequence: int = 77) -> Stored:
    body = b"?" if record is None else record.to_wire()
    fault = "task: broken" if record is None else ""
    return Stored(task_id="a", sequence=sequence, body=body, stamp=stamp, record=record, fault=fault)


def known(record: TaskRecord, stamp: Stamp | None = None, the_claim: Claim | None = None, **changes: Any) -> Known:
    fields: dict[str, Any] = {"queue": QUEUE, "ack_wait_ns": LEASE, "now_ns": NOW, "schedules": True} | changes
    return Known(claim=the_claim or claim(), stored=stored(record, stamp), **fields)


def in_state(state: TaskState, **changes: Any) -> TaskRecord:
    return RECORD.replace(state=state, **changes)


def started(record: TaskRecord, event: Event = Event.STARTED) -> Start:
    return Start(record.replace(state=TaskState.ACTIVE, tries=record.tries + 1, tried_ns=NOW), event)


ACTIVE = in_state(TaskState.ACTIVE, tries=1, tried_ns=NOW - MINUTE)
RETRY = in_state(TaskState.RETRY, tries=1, last_err="why")
CHILD = in_state(TaskState.BLOCKED, dependencies=("p",))


# Signatures.


@pytest.mark.parametrize("record", [RECORD, RETRY, CHILD, ACTIVE])
def test_where_signatures_are_wanted_each_delivery_is_looked_at(record: TaskRecord) -> None:
    taken_over = {"holder": Holder.NO} if record is ACTIVE else {}
    wanted = known(record, OWNER, claim(9, fired=True), verifies=True, **taken_over)
    assert decide(wanted) is Look.SIGNATURE
    refused = decide(msgspec.structs.replace(wanted, signature="task is not signed"))
    assert refused == Finish(
        record.replace(state=TaskState.TERMINATED, last_err="task is not signed"), Event.SIGNATURE_REFUSED
    )
    assert decide(msgspec.structs.replace(wanted, signature="")) == decide(
        msgspec.structs.replace(wanted, verifies=False)
    )


def test_a_signature_is_no_reason_to_run_what_is_over() -> None:
    over = known(in_state(TaskState.COMPLETE), verifies=True)
    assert decide(over) == Aftercare(in_state(TaskState.COMPLETE))
    late = known(in_state(TaskState.NEW, deadline_ns=NOW - 1), verifies=True)
    assert decide(late) == Finish(
        in_state(TaskState.EXPIRED, deadline_ns=NOW - 1, last_err="past deadline"), Event.PAST_DEADLINE
    )


# No record.


def test_an_item_without_a_record_is_quarantined() -> None:
    nothing = Known(claim=claim(), stored=None, queue=QUEUE, ack_wait_ns=LEASE, now_ns=NOW, schedules=True)
    assert decide(nothing) == Quarantine("task not found")


def test_an_item_whose_record_cannot_be_read_is_quarantined() -> None:
    broken = msgspec.structs.replace(known(RECORD), stored=stored(None))
    assert decide(broken) == Quarantine("task: broken")


@pytest.mark.parametrize("record", [None, RECORD])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "work item: not valid JSON"),
        (b"[]", "work item: must be an object"),
        (b'{"kind":0}', "work item: job: is missing"),
        (b'{"kind":0,"job":"*"}', "work item: job: must be"),
        (b'{"kind":1,"job":"a"}', "work item: kind: is not the kind of a task"),
        (b'{"kind":0,"job":"b"}', "work item: job: 'b' stands under the subject of 'a'"),
    ],
)
def test_an_item_that_cannot_be_read_is_quarantined(record: TaskRecord | None, body: bytes, reason: str) -> None:
    decision = decide(
        msgspec.structs.replace(
            known(RECORD), claim=claim(body=body), stored=None if record is None else stored(record)
        )
    )
    assert isinstance(decision, Quarantine)
    assert decision.reason.startswith(reason)


# Another queue, a final record, not due.


@pytest.mark.parametrize("state", TaskState)
def test_an_item_of_a_task_that_moved_to_another_queue_is_acknowledged(state: TaskState) -> None:
    assert decide(known(in_state(state, queue="OTHER"))) == Ack("the task is in queue 'OTHER' now")


def test_a_task_that_names_no_queue_is_in_this_one() -> None:
    record = RECORD.replace(queue="")
    assert decide(known(record)) == started(record)


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_a_final_record_has_its_after_work_repeated(state: TaskState) -> None:
    record = in_state(state, deadline_ns=1)
    assert decide(known(record, OWNER, claim(due_ns=NOW + 1))) == Aftercare(record)


@pytest.mark.parametrize("state", UNFINISHED)
def test_an_item_that_is_not_due_is_parked_again_with_what_it_brings(state: TaskState) -> None:
    due = known(in_state(state), OWNER, claim(due_ns=NOW + MINUTE, silent="b1 77"))
    assert decide(due) == Park(NOW + MINUTE, silent="b1 77", why="not due")


def test_an_item_that_is_due_now_runs() -> None:
    assert decide(known(RECORD, the_claim=claim(due_ns=NOW))) == started(RECORD)


def test_a_due_time_of_another_age_is_cut_to_a_year() -> None:
    decision = decide(known(RECORD, the_claim=claim(due_ns=10**30)))
    assert isinstance(decision, Park)
    assert decision.due_ns == NOW + 366 * 86_400 * NS_PER_S


# Strays.


@pytest.mark.parametrize("record", [RETRY, CHILD])
def test_an_item_of_a_waiting_task_is_looked_at_for_its_schedule(record: TaskRecord) -> None:
    assert decide(known(record)) is Look.SCHEDULE
    assert decide(known(record, standing=True, free=False)) == Ack("the task's schedule still stands")


def test_a_stray_item_of_a_child_is_looked_at_for_its_edges_and_runs_when_all_are_done() -> None:
    assert decide(known(CHILD, standing=True)) is Look.EDGES
    assert decide(known(CHILD, standing=True, free=True)) is Look.PARENTS
    ready = {"p": parent(TaskState.COMPLETE)}
    assert isinstance(decide(known(CHILD, standing=True, free=True, parents=ready)), Start)


def test_a_child_that_comes_back_before_its_time_waits_on_unless_a_parent_failed() -> None:
    early = claim(9, fired=True, due_ns=NOW + 60 * NS_PER_S)
    assert decide(known(CHILD, None, early)) is Look.PARENTS
    for state in (TaskState.ACTIVE, TaskState.COMPLETE):
        waits = decide(known(CHILD, None, early, parents={"p": parent(state)}))
        assert waits == Park(NOW + 60 * NS_PER_S, why="not due")
    failed = decide(known(CHILD, None, early, parents={"p": parent(TaskState.EXPIRED)}))
    assert isinstance(failed, Finish)
    assert failed.record.state is TaskState.UNREACHABLE


@pytest.mark.parametrize("the_claim", [claim(delivery=2, fired=True), claim(delivery=1), claim(delivery=3)])
def test_only_the_first_delivery_of_a_fired_item_needs_no_look(the_claim: Claim) -> None:
    assert decide(known(RETRY, the_claim=the_claim)) is Look.SCHEDULE
    assert decide(known(RETRY, the_claim=claim(fired=True))) == started(RETRY)


def test_a_waiting_task_without_a_schedule_runs() -> None:
    assert decide(known(RETRY, standing=False)) == started(RETRY)


def test_without_schedules_nothing_is_a_stray() -> None:
    assert decide(known(RETRY, schedules=False)) == started(RETRY)


@pytest.mark.parametrize("state", [TaskState.NEW, TaskState.UNKNOWN])
def test_a_task_that_does_not_wait_is_no_stray(state: TaskState) -> None:
    assert decide(known(in_state(state))) == started(in_state(state))


# Active: whose item.


def test_a_later_delivery_of_the_owners_item_takes_over_at_once() -> None:
    assert decide(known(ACTIVE, OWNER, claim(5, 3))) == started(ACTIVE, Event.TAKEN_OVER)


@pytest.mark.parametrize("delivery", [1, 2])
def test_an_earlier_or_equal_delivery_of_the_owners_item_is_late(delivery: int) -> None:
    late = Drop("a later delivery of the item owns the task")
    assert decide(known(ACTIVE, OWNER, claim(5, delivery))) == late


def test_another_item_asks_the_owner() -> None:
    for sequence in (4, 6):
        assert decide(known(ACTIVE, OWNER, claim(sequence))) is Look.OWNER


def test_an_owner_that_holds_the_task_keeps_it_for_a_lease() -> None:
    decision = decide(known(ACTIVE, OWNER, claim(6, silent="b1 77"), holder=Holder.YES))
    assert decision == Park(NOW + LEASE, why="its owner holds the task")


def test_an_owner_that_holds_nothing_is_taken_over() -> None:
    assert decide(known(ACTIVE, OWNER, claim(6), holder=Holder.NO)) == started(ACTIVE, Event.TAKEN_OVER)


@pytest.mark.parametrize("silent", ["", "b1 76", "b2 77", "b1 77 "])
def test_an_owner_that_is_silent_is_asked_again_after_a_lease(silent: str) -> None:
    decision = decide(known(ACTIVE, OWNER, claim(6, silent=silent), holder=Holder.SILENT))
    assert decision == Park(NOW + LEASE, silent="b1 77", why="its owner is silent")


def test_an_owner_that_is_silent_twice_with_its_record_unchanged_is_taken_over() -> None:
    decision = decide(known(ACTIVE, OWNER, claim(6, silent="b1 77"), holder=Holder.SILENT))
    assert decision == started(ACTIVE, Event.TAKEN_OVER)


def test_a_go_workers_task_is_its_own_for_its_run_time() -> None:
    until = ACTIVE.tried_ns
    assert until is not None
    until += QUEUE.max_run_time_ns
    assert decide(known(ACTIVE)) == Park(until, why="a Go worker may hold the task")
    assert decide(known(ACTIVE, now_ns=until - 1)) == Park(until, why="a Go worker may hold the task")
    late = decide(known(ACTIVE, now_ns=until))
    assert isinstance(late, Start)
    assert late.event is Event.TAKEN_OVER


def test_a_go_workers_task_that_says_not_when_is_taken_over() -> None:
    assert decide(known(ACTIVE.replace(tried_ns=None))) == started(ACTIVE, Event.TAKEN_OVER)


def test_a_try_in_the_future_counts_from_now() -> None:
    decision = decide(known(ACTIVE.replace(tried_ns=NOW + 7000 * 366 * 86_400 * NS_PER_S)))
    assert decision == Park(NOW + QUEUE.max_run_time_ns, why="a Go worker may hold the task")


# The end without a call.


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_task_past_its_deadline_expires(state: TaskState) -> None:
    ready: dict[str, Any] = {"standing": False, "holder": Holder.NO}
    record = in_state(state, deadline_ns=NOW - 1, last_err="why")
    expired = record.replace(state=TaskState.EXPIRED)
    assert decide(known(record, OWNER, claim(6), **ready)) == Finish(expired, Event.PAST_DEADLINE)
    silent = record.replace(last_err="")
    expired = silent.replace(state=TaskState.EXPIRED, last_err="past deadline")
    assert decide(known(silent, OWNER, claim(6), **ready)) == Finish(expired, Event.PAST_DEADLINE)


def test_a_deadline_that_is_now_is_not_past() -> None:
    record = RECORD.replace(deadline_ns=NOW)
    assert decide(known(record)) == started(record)


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_task_whose_tries_are_used_up_expires(state: TaskState) -> None:
    ready: dict[str, Any] = {"standing": False, "holder": Holder.NO}
    record = in_state(state, tries=10, last_err="why")
    expired = record.replace(state=TaskState.EXPIRED)
    assert decide(known(record, OWNER, claim(6), **ready)) == Finish(expired, Event.TRIES_USED_UP)
    silent = record.replace(last_err="")
    expired = silent.replace(state=TaskState.EXPIRED, last_err="exceeded maximum tries")
    assert decide(known(silent, OWNER, claim(6), **ready)) == Finish(expired, Event.TRIES_USED_UP)


@pytest.mark.parametrize(
    ("of_task", "of_queue", "limit"), [(10, -1, 10), (10, 3, 3), (3, 10, 3), (0, 3, 3), (-1, 0, 0), (0, -1, 0)]
)
def test_the_queue_caps_a_tasks_tries(of_task: int, of_queue: int, limit: int) -> None:
    assert max_tries(RECORD.replace(max_tries=of_task), QueueSettings(name="Q", max_tries=of_queue)) == limit


def test_without_a_limit_tries_are_never_used_up() -> None:
    record = in_state(TaskState.RETRY, tries=10**6, max_tries=0)
    assert decide(known(record, standing=False)) == started(record)


# Parents.


def parent(state: TaskState) -> TaskRecord:
    result = TaskResult(payload="eA==", completed_ns=NOW) if state is TaskState.COMPLETE else None
    return TaskRecord(id="p", type="t", queue="Q", created_ns=NOW, state=state, result=result)


@pytest.mark.parametrize("state", [TaskState.NEW, TaskState.BLOCKED, TaskState.UNKNOWN])
def test_a_child_that_never_ran_has_its_parents_looked_at(state: TaskState) -> None:
    assert decide(known(CHILD.replace(state=state), standing=False)) is Look.PARENTS


def test_a_child_whose_call_found_nobody_has_its_parents_looked_at_again() -> None:
    assert decide(known(in_state(TaskState.RETRY, dependencies=("p",)), standing=False)) is Look.PARENTS


@pytest.mark.parametrize("record", [RETRY.replace(dependencies=("p",)), ACTIVE.replace(dependencies=("p",))])
def test_a_child_that_ran_needs_its_parents_no_more(record: TaskRecord) -> None:
    assert isinstance(decide(known(record, OWNER, claim(5, 3), standing=False)), Start)


def test_a_child_runs_when_its_parents_completed() -> None:
    decision = decide(known(CHILD, standing=False, parents={"p": parent(TaskState.COMPLETE)}))
    assert decision == started(CHILD)


def test_a_child_that_loads_results_starts_with_them() -> None:
    record = CHILD.replace(load_dependencies=True)
    the_parent = parent(TaskState.COMPLETE)
    decision = decide(known(record, standing=False, parents={"p": the_parent}))
    assert decision == started(record.replace(dependency_results={"p": the_parent.result}))


def test_a_child_of_a_failed_parent_is_unreachable() -> None:
    decision = decide(known(CHILD, standing=False, parents={"p": parent(TaskState.EXPIRED)}))
    reason = "task dependencies failed: p is expired"
    assert decision == Finish(CHILD.replace(state=TaskState.UNREACHABLE, last_err=reason), Event.PARENT_FAILED)


def test_a_child_waits_for_parents_without_a_save() -> None:
    decision = decide(known(CHILD, standing=False, parents={"p": parent(TaskState.ACTIVE)}))
    assert decision == Park(NOW + 30 * NS_PER_S, why="waits for p", for_parents=True)


def test_a_child_waits_until_its_deadline_at_the_longest() -> None:
    record = CHILD.replace(deadline_ns=NOW + NS_PER_S)
    decision = decide(known(record, standing=False, parents={"p": parent(TaskState.ACTIVE)}))
    assert decision == Park(NOW + NS_PER_S + NS_PER_MS, why="waits for p", for_parents=True)


# Nobody answers.


@pytest.mark.parametrize("record", [RECORD, RETRY, ACTIVE, in_state(TaskState.UNKNOWN)])
def test_a_task_of_a_type_that_nobody_answers_waits_and_no_try_counts(record: TaskRecord) -> None:
    closed: dict[str, Any] = {"closed_for_ns": MINUTE, "nobody": "no handler"}
    decision = decide(known(record, OWNER, claim(5, 3), standing=False, **closed))
    waits = record.replace(state=TaskState.RETRY, last_err="no handler")
    assert decision == Park(NOW + MINUTE, waits, Event.NO_HANDLER, why="no handler")
    record = record.replace(deadline_ns=NOW + NS_PER_S)
    decision = decide(known(record, OWNER, claim(5, 3), standing=False, **closed))
    assert isinstance(decision, Park)
    assert decision.due_ns == NOW + NS_PER_S + NS_PER_MS


# The order.

EVERYTHING_ELSE: dict[str, Any] = {"closed_for_ns": MINUTE, "nobody": "nobody"}


def test_the_rules_stand_in_the_order_in_which_they_are_written_down() -> None:
    assert [rule.__name__.removeprefix("_") for rule in RULES] == [
        "item_is_unreadable",
        "other_queue",
        "final",
        "not_due",
        "stray",
        "own_item",
        "other_item",
        "past_deadline",
        "tries_used_up",
        "signature",
        "parents",
        "nobody_answers",
        "route_is_full",
        "run",
    ]


def test_where_its_route_is_full_a_task_waits_as_it_is() -> None:
    record = in_state(TaskState.NEW)
    full = decide(known(record, full_for_ns=MINUTE))
    assert full == Park(NOW + MINUTE, why="its route is full", for_room=True)
    late = decide(known(record.replace(deadline_ns=NOW + 5), full_for_ns=MINUTE))
    assert isinstance(late, Park)
    assert late.due_ns < NOW + MINUTE


def test_each_rule_comes_before_those_below_it() -> None:
    """One delivery that all rules could answer; what the first one answers for is taken away, step by step."""
    late, not_due = NOW - 1, claim(9, due_ns=NOW + MINUTE, body=b"?")
    record = in_state(TaskState.COMPLETE, queue="OTHER", deadline_ns=late, tries=99, dependencies=("p",))

    def now(record: TaskRecord, the_claim: Claim, stamp: Stamp | None = None, **found: Any) -> Decision | Look:
        return decide(known(record, stamp, the_claim, closed_for_ns=MINUTE, nobody="nobody", **found))

    assert isinstance(now(record, not_due), Quarantine)
    not_due = claim(9, due_ns=NOW + MINUTE)
    assert isinstance(now(record, not_due), Ack)
    record = record.replace(queue="Q")
    assert isinstance(now(record, not_due), Aftercare)
    record = record.replace(state=TaskState.BLOCKED, tries=0)
    assert now(record, not_due) is Look.PARENTS
    assert isinstance(now(record, not_due, parents={"p": parent(TaskState.ACTIVE)}), Park)
    assert now(record, claim(9)) is Look.SCHEDULE
    # An active task is no stray: the questions about its owner take the stray's place.
    active = record.replace(state=TaskState.ACTIVE, tries=99)
    assert isinstance(now(active, claim(5, 2), OWNER), Drop)
    assert now(active, claim(9), OWNER) is Look.OWNER
    assert now(active, claim(9), OWNER, holder=Holder.NO) == Finish(
        active.replace(state=TaskState.EXPIRED, last_err="past deadline"), Event.PAST_DEADLINE
    )
    active = active.replace(deadline_ns=None)
    assert now(active, claim(9), OWNER, holder=Holder.NO) == Finish(
        active.replace(state=TaskState.EXPIRED, last_err="exceeded maximum tries"), Event.TRIES_USED_UP
    )
    record = record.replace(deadline_ns=None)
    assert now(record, claim(9), standing=False) is Look.PARENTS
    ready = {"p": parent(TaskState.COMPLETE)}
    assert isinstance(now(record, claim(9), standing=False, parents=ready), Park)
    assert decide(known(record, None, claim(9), standing=False, parents=ready)) == started(record)


# Whatever is delivered.

stamps = st.none() | st.builds(
    Stamp, st.sampled_from(["b1", "b2"]), st.builds(ItemRef, st.integers(4, 6), st.integers(1, 3))
)
times = st.integers(NOW - 2 * MINUTE, NOW + 2 * MINUTE)
records = st.builds(
    RECORD.replace,
    state=st.sampled_from(TaskState),
    queue=st.sampled_from(["Q", "Q", "Q", "OTHER", ""]),
    tries=st.integers(0, 4),
    max_tries=st.integers(-1, 4),
    deadline_ns=st.none() | times,
    tried_ns=st.none() | times,
    created_ns=times,
    dependencies=st.sampled_from([(), ("p",), ("p", "q")]),
    load_dependencies=st.booleans(),
    last_err=st.sampled_from(["", "why"]),
)
claims = st.builds(
    claim,
    st.integers(4, 6),
    st.integers(1, 3),
    fired=st.booleans(),
    silent=st.sampled_from(["", "b1 77", "b2 76"]),
    due_ns=st.just(0) | times,
)
parents = st.fixed_dictionaries(
    {name: st.none() | st.builds(parent, st.sampled_from(TaskState)) for name in ("p", "q")}
)


@given(
    record=records,
    stamp=stamps,
    the_claim=claims,
    queue=st.builds(QueueSettings, name=st.just("Q"), max_tries=st.integers(-1, 3)),
    schedules=st.booleans(),
    standing=st.booleans(),
    free=st.booleans(),
    holder=st.sampled_from(Holder),
    found=parents,
    closed_for_ns=st.none() | st.integers(0, MINUTE),
)
def test_every_delivery_is_decided_after_few_looks_and_along_the_table(
    *,
    record: TaskRecord,
    stamp: Stamp | None,
    the_claim: Claim,
    queue: QueueSettings,
    schedules: bool,
    standing: bool,
    free: bool,
    holder: Holder,
    found: Mapping[str, TaskRecord | None],
    closed_for_ns: int | None,
) -> None:
    facts = known(record, stamp, the_claim, queue=queue, schedules=schedules, closed_for_ns=closed_for_ns)
    looks: list[Look] = []
    answers: dict[Look, dict[str, Any]] = {
        Look.SCHEDULE: {"standing": standing},
        Look.OWNER: {"holder": holder},
        Look.PARENTS: {"parents": found},
        Look.EDGES: {"free": free},
    }
    while isinstance(decision := decide(facts), Look):
        assert decision not in looks
        looks.append(decision)
        facts = msgspec.structs.replace(facts, **answers[decision])
    if record.state.final:
        assert isinstance(decision, Aftercare | Ack)
    if isinstance(decision, Start):
        limit = max_tries(record, queue)
        assert is_edge(record.state, decision.event, TaskState.ACTIVE)
        assert decision.record.state is TaskState.ACTIVE
        assert decision.record.tries == record.tries + 1
        assert not limit or decision.record.tries <= limit
        assert record.deadline_ns is None or record.deadline_ns >= NOW
        assert closed_for_ns is None
        assert the_claim.due_ns <= NOW
        if record.dependencies and record.tries == 0 and record.state is not TaskState.ACTIVE:
            assert all(
                (each := found[name]) is not None and each.state is TaskState.COMPLETE for name in record.dependencies
            )
        if record.state is TaskState.ACTIVE and stamp is not None:
            own = stamp.item.sequence == the_claim.item.sequence
            assert (own and the_claim.item.delivery > stamp.item.delivery) or (not own and holder is not Holder.YES)
    if isinstance(decision, Finish):
        assert decision.record.state.final
        assert is_edge(record.state, decision.event, decision.record.state)
        assert decision.record.last_err
    if isinstance(decision, Park):
        assert decision.due_ns > NOW - 1
        assert (decision.record is None) == (decision.event is None)
        if decision.record is not None:
            assert decision.event is not None
            assert is_edge(record.state, decision.event, decision.record.state)
            assert decision.record.tries == record.tries
