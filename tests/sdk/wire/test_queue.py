"""Queue settings, and what they are read from."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.errors import DecodeError, InvalidConfigError
from aj_sdk.wire.queue import (
    DEFAULT_LEASE_NS,
    META_LEASE,
    META_MAX_RUN_TIME,
    META_MAX_TRIES,
    QueueSettings,
    ack_wait_ns,
    default_queue,
    read_settings,
)

SECOND = 10**9
SETTINGS = st.builds(
    QueueSettings,
    name=st.from_regex("[A-Za-z0-9_:-]{1,128}", fullmatch=True),
    max_age_ns=st.integers(0, 2**62),
    max_entries=st.integers(-(2**31), 2**31).filter(bool),
    discard_old=st.booleans(),
    max_tries=st.integers(-(2**31), 2**31).filter(bool),
    max_run_time_ns=st.integers(10**6, 2**62),
    max_concurrent=st.integers(1, 2**31),
    replicas=st.integers(1, 5),
    memory=st.booleans(),
    lease_ns=st.just(0) | st.integers(200 * 10**6, 2**62),
    weight=st.integers(1, 1000),
)


def stream_of(settings: QueueSettings) -> dict[str, Any]:
    return {
        "max_age": settings.max_age_ns,
        "max_msgs": settings.max_entries,
        "discard": "old" if settings.discard_old else "new",
        "num_replicas": settings.replicas,
        "storage": "memory" if settings.memory else "file",
    }


def consumer_of(settings: QueueSettings) -> dict[str, Any]:
    return {
        "ack_wait": ack_wait_ns(settings.lease_ns) if settings.ours else settings.max_run_time_ns,
        "max_deliver": -1 if settings.ours else settings.max_tries,
        "max_ack_pending": settings.max_concurrent,
        "metadata": settings.metadata(),
    }


def test_the_defaults() -> None:
    settings = QueueSettings(name="EMAIL")

    assert (settings.max_run_time_ns, settings.max_tries, settings.max_concurrent) == (3600 * SECOND, -1, 100)
    assert settings.lease_ns == DEFAULT_LEASE_NS
    assert settings.ours
    assert settings.check() is settings


def test_the_queue_that_is_made_on_demand() -> None:
    settings = default_queue()

    assert (settings.name, settings.max_run_time_ns, settings.max_tries, settings.max_concurrent) == (
        "DEFAULT",
        60 * SECOND,
        100,
        100,
    )


@given(SETTINGS)
def test_settings_survive_being_written(settings: QueueSettings) -> None:
    assert QueueSettings.from_wire(settings.to_wire()) == settings


@given(SETTINGS)
def test_settings_are_read_back_from_the_stream_and_the_consumer(settings: QueueSettings) -> None:
    assert read_settings(settings.name, stream_of(settings), consumer_of(settings)) == (settings, False)


def test_a_queue_for_go_workers_says_so() -> None:
    assert json.loads(QueueSettings(name="Q", lease_ns=0).to_wire())["go_workers"] is True
    assert QueueSettings.from_wire(b'{"name":"Q","go_workers":true,"lease":5}').lease_ns == 0
    assert QueueSettings(name="Q", lease_ns=0).metadata() == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "a b"), ("name", None), ("max_age", "1h"), ("discard_old", 1), ("replicas", 1.0), ("go_workers", "x")],
)
def test_a_wrong_value_is_refused_by_key(key: str, value: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        QueueSettings.from_wire(json.dumps({"name": "Q", key: value}).encode())
    assert (caught.value.what, caught.value.key) == ("queue settings", key)


def test_every_fault_is_told_at_once() -> None:
    settings = QueueSettings(name="a b", max_age_ns=-1, max_run_time_ns=0, max_concurrent=0, replicas=6, lease_ns=1000)

    with pytest.raises(InvalidConfigError) as caught:
        settings.check()
    assert len(caught.value.faults) == 6


def test_metadata_tells_what_a_short_lease_hides() -> None:
    settings = QueueSettings(name="Q", max_run_time_ns=90 * SECOND, max_tries=7, lease_ns=SECOND)

    assert settings.metadata() == {META_LEASE: "1s", META_MAX_RUN_TIME: "1m30s", META_MAX_TRIES: "7"}


def test_a_run_time_set_by_the_go_project_is_taken_over() -> None:
    ours = QueueSettings(name="Q", max_run_time_ns=90 * SECOND, max_tries=7, lease_ns=30 * SECOND)

    # Also one that is just as long as the lease: ours is a millisecond longer, so that this shows.
    for run_time_ns in (300 * SECOND, 30 * SECOND):
        consumer = consumer_of(ours) | {"ack_wait": run_time_ns}
        expected = ours_with(ours, max_run_time_ns=run_time_ns)
        assert read_settings("Q", stream_of(ours), consumer) == (expected, True)


def test_tries_set_by_the_go_project_are_taken_over() -> None:
    ours = QueueSettings(name="Q", max_tries=7)

    expected = ours_with(ours, max_tries=20)
    assert read_settings("Q", stream_of(ours), consumer_of(ours) | {"max_deliver": 20}) == (expected, True)


def ours_with(settings: QueueSettings, **changes: Any) -> QueueSettings:
    return QueueSettings(**{name: getattr(settings, name) for name in QueueSettings.__struct_fields__} | changes)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {META_LEASE: "30s"},
        {META_LEASE: "1ms", META_MAX_RUN_TIME: "1h"},
        {META_LEASE: "x", META_MAX_RUN_TIME: "1h"},
        {META_LEASE: "30s", META_MAX_RUN_TIME: "1h", META_MAX_TRIES: "many"},
        {"_nats.ver": "2.15.1"},
    ],
)
def test_a_queue_without_metadata_of_ours_is_the_go_project_s(metadata: dict[str, str] | None) -> None:
    consumer = {"ack_wait": 60 * SECOND, "max_deliver": 5, "max_ack_pending": 3, "metadata": metadata}

    settings, configured = read_settings("Q", {}, consumer)

    assert not configured
    assert not settings.ours
    assert (settings.max_run_time_ns, settings.max_tries, settings.max_concurrent) == (60 * SECOND, 5, 3)
    assert (settings.max_entries, settings.replicas, settings.memory, settings.discard_old) == (-1, 1, False, False)


def test_a_consumer_that_says_nothing_has_the_server_s_defaults() -> None:
    settings, _ = read_settings("Q", {}, {})

    assert (settings.max_run_time_ns, settings.max_tries, settings.max_concurrent) == (30 * SECOND, -1, 100)
