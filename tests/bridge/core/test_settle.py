"""What becomes of a task after a call, as decisions compared with `==`."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_bridge.core.decision import Finish, Park, dead_reason
from aj_bridge.core.lifecycle import Event, is_edge
from aj_bridge.core.retry import RetryPolicy
from aj_bridge.core.settle import NoResponders, Outcome, settle, too_large, too_late
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_MS, NS_PER_S

NOW = 1_767_225_600 * NS_PER_S
QUEUE = QueueSettings(name="Q")
POLICY = RetryPolicy([timedelta(seconds=10), timedelta(seconds=20), timedelta(seconds=40)], 0.5)
ACTIVE = TaskRecord(
    id="a",
    type="t",
    queue="Q",
    state=TaskState.ACTIVE,
    created_ns=NOW - NS_PER_S,
    tries=1,
    max_tries=3,
    tried_ns=NOW,
    last_err="before",
)


def after(record: TaskRecord, outcome: Outcome, queue: QueueSettings = QUEUE, attempt: int = 1) -> Finish | Park:
    return settle(record, outcome, queue=queue, policy=POLICY, attempt=attempt, now_ns=NOW, random=lambda: 0.25)


def test_a_success_completes_the_task_with_its_result_and_no_error() -> None:
    result = TaskResult(payload=b"\xff", completed_ns=NOW)
    done = ACTIVE.replace(state=TaskState.COMPLETE, result=result, last_err="")
    assert after(ACTIVE, Completed(b"\xff")) == Finish(done, Event.SUCCEEDED)


def test_a_termination_ends_the_task() -> None:
    ended = ACTIVE.replace(state=TaskState.TERMINATED, last_err="no")
    assert after(ACTIVE, Terminated("no")) == Finish(ended, Event.TERMINATED)


def test_a_failure_waits_for_the_backoff_of_its_attempt() -> None:
    waits = ACTIVE.replace(state=TaskState.RETRY, last_err="why")
    for attempt, seconds in ((0, 7.5), (1, 15), (2, 30), (9, 30)):
        decision = after(ACTIVE, Failed("why"), attempt=attempt)
        due_ns = NOW + int(seconds * NS_PER_S)
        assert decision == Park(due_ns, waits, Event.FAILED, why="failed, will be tried again")


def test_a_failure_that_says_when_waits_as_long_as_it_says() -> None:
    decision = after(ACTIVE, Failed("why", retry_after_ns=0))
    assert isinstance(decision, Park)
    assert decision.due_ns == NOW


def test_nobody_waits_past_the_deadline() -> None:
    record = ACTIVE.replace(deadline_ns=NOW + NS_PER_S)
    for outcome in (Failed("why"), NoResponders("s", 30 * NS_PER_S)):
        decision = after(record, outcome)
        assert isinstance(decision, Park)
        assert decision.due_ns == NOW + NS_PER_S + NS_PER_MS


@pytest.mark.parametrize(
    ("tries", "max_tries", "queue_tries", "last"),
    [
        (3, 3, -1, True),
        (4, 3, -1, True),
        (2, 3, -1, False),
        (2, 3, 2, True),
        (2, 0, 2, True),
        (10**6, 0, -1, False),
        (10**6, -1, 0, False),
    ],
)
def test_a_failure_of_the_last_try_expires_the_task_at_once(
    tries: int, max_tries: int, queue_tries: int, last: bool
) -> None:
    record = ACTIVE.replace(tries=tries, max_tries=max_tries)
    decision = after(record, Failed("why", retry_after_ns=1), QueueSettings(name="Q", max_tries=queue_tries))
    expired = Finish(record.replace(state=TaskState.EXPIRED, last_err="why"), Event.LAST_TRY_FAILED)
    assert (decision == expired) is last
    assert isinstance(decision, Finish) is last


def test_finding_nobody_gives_the_try_back_also_the_last_one() -> None:
    record = ACTIVE.replace(tries=3)
    waits = record.replace(state=TaskState.RETRY, tries=2, last_err="no handler listens on CHORIA_AJ.H.T.t")
    decision = after(record, NoResponders("CHORIA_AJ.H.T.t", 2 * NS_PER_S))
    assert decision == Park(NOW + 2 * NS_PER_S, waits, Event.NO_HANDLER, why="no handler")


def test_a_call_is_not_made_after_the_deadline() -> None:
    assert too_late(ACTIVE, NOW) is None
    record = ACTIVE.replace(deadline_ns=NOW)
    assert too_late(record, NOW) is None
    expired = record.replace(state=TaskState.EXPIRED, tries=0)
    assert too_late(record, NOW + 1) == Finish(expired, Event.PAST_DEADLINE)
    unexplained = record.replace(last_err="")
    assert too_late(unexplained, NOW + 1) == Finish(expired.replace(last_err="past deadline"), Event.PAST_DEADLINE)


def test_a_record_too_large_ends_without_its_results() -> None:
    record = ACTIVE.replace(
        payload=b"x",
        result=TaskResult(payload=b"y" * 100, completed_ns=NOW),
        dependency_results={"p": None},
    )
    reason = "the task's record needs 900 bytes, a message takes 800"
    small = record.replace(state=TaskState.TERMINATED, result=None, dependency_results={}, last_err=reason)
    assert too_large(record, 900, 800) == Finish(small, Event.TOO_LARGE)


@pytest.mark.parametrize(
    "change",
    [{}, {"result": TaskResult(payload=b"y", completed_ns=NOW)}, {"dependency_results": {"p": None}}],
)
def test_one_that_is_too_large_still_ends_with_nothing_but_what_it_was(change: dict[str, object]) -> None:
    record = ACTIVE.replace(payload=b"x" * 100, signature="ab", extra={"k": 1}, **change)
    first = too_large(record, 900, 800).record
    second = too_large(first, 850, 800)
    reason = "the task's record needs 850 bytes, a message takes 800"
    bare = TaskRecord(
        id="a",
        type="t",
        queue="Q",
        state=TaskState.TERMINATED,
        created_ns=ACTIVE.created_ns,
        max_tries=3,
        tries=1,
        tried_ns=NOW,
        last_err=reason,
    )
    assert second == Finish(bare, Event.TOO_LARGE)
    assert too_large(record.replace(state=TaskState.TERMINATED), 1, 1).event is Event.TOO_LARGE


@pytest.mark.parametrize("state", TaskState)
def test_failed_ends_leave_a_dead_letter(state: TaskState) -> None:
    failed = (TaskState.EXPIRED, TaskState.TERMINATED, TaskState.UNREACHABLE)
    assert dead_reason(state) == (state.value if state in failed else None)


outcomes = st.one_of(
    st.builds(Completed, st.binary(max_size=8)),
    st.builds(Terminated, st.text(max_size=8)),
    st.builds(Failed, st.text(max_size=8), st.none() | st.integers(0, 10**18)),
    st.builds(NoResponders, st.just("s"), st.integers(0, 30 * NS_PER_S)),
)


@given(
    outcome=outcomes,
    tries=st.integers(1, 6),
    max_tries=st.integers(-1, 5),
    queue_tries=st.integers(-1, 5),
    deadline_ns=st.none() | st.integers(NOW - 100 * NS_PER_S, NOW + 100 * NS_PER_S),
    attempt=st.integers(0, 100),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_every_outcome_leads_along_a_line_of_the_table(
    *,
    outcome: Outcome,
    tries: int,
    max_tries: int,
    queue_tries: int,
    deadline_ns: int | None,
    attempt: int,
    chance: float,
) -> None:
    record = ACTIVE.replace(tries=tries, max_tries=max_tries, deadline_ns=deadline_ns)
    queue = QueueSettings(name="Q", max_tries=queue_tries)
    decision = settle(record, outcome, queue=queue, policy=POLICY, attempt=attempt, now_ns=NOW, random=lambda: chance)
    assert decision.record is not None
    assert decision.event is not None
    assert is_edge(TaskState.ACTIVE, decision.event, decision.record.state)
    assert decision.record.tries == (tries - 1 if isinstance(outcome, NoResponders) else tries)
    assert isinstance(decision, Finish) == decision.record.state.final
    if isinstance(decision, Park) and deadline_ns is not None:
        assert decision.due_ns <= deadline_ns + NS_PER_MS
