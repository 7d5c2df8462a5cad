"""What becomes of the records of tasks that have ended."""

from aj_bridge.core.retention import DISCARDABLE, KEEP_ALL, KEEPABLE, Retention
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_S


def test_without_a_word_all_is_kept() -> None:
    assert not any(KEEP_ALL.discards(state) for state in TaskState)
    assert not any(KEEP_ALL.ttl_s(state) for state in TaskState)


def test_a_time_is_whole_seconds_and_never_shorter_than_said() -> None:
    for kept_ns, seconds in ((1, 1), (NS_PER_S, 1), (NS_PER_S + 1, 2), (3600 * NS_PER_S, 3600)):
        assert Retention(kept_ns={TaskState.COMPLETE: kept_ns}).ttl_s(TaskState.COMPLETE) == seconds


def test_only_what_has_ended_is_removed() -> None:
    assert all(state.final for state in (*DISCARDABLE, *KEEPABLE))
