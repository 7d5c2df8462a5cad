"""A queue as a program writes it down."""

from datetime import timedelta

import pytest

from aj_sdk.errors import InvalidConfigError
from aj_sdk.queue import Queue, span_ns
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.times import NS_PER_S

HOUR = 3600 * NS_PER_S


def test_a_queue_without_words_is_the_go_projects_with_our_lease() -> None:
    assert Queue("EMAIL").settings == QueueSettings(name="EMAIL")


def test_every_word_reaches_the_settings() -> None:
    queue = Queue(
        "EMAIL",
        max_run_time=timedelta(minutes=5),
        max_tries=7,
        max_concurrent=8,
        replicas=3,
        memory=True,
        max_age=60,
        max_entries=9,
        discard_old=True,
        lease=0.5,
    )
    assert queue.settings == QueueSettings(
        name="EMAIL",
        max_run_time_ns=300 * NS_PER_S,
        max_tries=7,
        max_concurrent=8,
        replicas=3,
        memory=True,
        max_age_ns=60 * NS_PER_S,
        max_entries=9,
        discard_old=True,
        lease_ns=NS_PER_S // 2,
    )


def test_a_queue_for_go_workers_has_no_lease() -> None:
    assert Queue("SHARED", go_workers=True).settings.lease_ns == 0
    with pytest.raises(InvalidConfigError, match="no lease"):
        Queue("SHARED", go_workers=True, lease=30)


def test_faults_are_told_all_at_once_and_when_it_is_written_down() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Queue("a b", max_run_time=0, max_concurrent=0, replicas=6, max_age=-1, lease=0)
    assert len(caught.value.faults) == 6


@pytest.mark.parametrize("span", [float("nan"), float("inf")])
def test_a_length_of_time_that_is_no_number_is_refused(span: float) -> None:
    with pytest.raises(InvalidConfigError, match="a length of time is no number"):
        Queue("EMAIL", max_run_time=span)


def test_it_shows_itself_as_it_was_written() -> None:
    assert repr(Queue("EMAIL", max_tries=5)).startswith("Queue(name='EMAIL', max_run_time=None, max_tries=5,")
    assert Queue("EMAIL") == Queue("EMAIL")


def test_seconds_and_timedeltas_are_exact_to_the_nanosecond() -> None:
    assert span_ns(timedelta(days=36500, microseconds=1)) == 36500 * 24 * HOUR + 1000
    assert span_ns(1) == NS_PER_S
    assert span_ns(0.000_000_001) == 1
