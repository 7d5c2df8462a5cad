"""What our streams look like to JetStream, as values."""

from aj_sdk import streams
from aj_sdk.wire.queue import QueueSettings, read_settings
from aj_sdk.wire.times import NS_PER_S

OURS = QueueSettings(name="EMAIL", max_run_time_ns=60 * NS_PER_S, max_tries=5)
SHARED = QueueSettings(name="EMAIL", max_run_time_ns=60 * NS_PER_S, max_tries=5, lease_ns=0)


def test_what_is_written_for_a_queue_is_read_back_the_same() -> None:
    for settings in (
        OURS,
        SHARED,
        QueueSettings(name="Q", max_age_ns=NS_PER_S, max_entries=3, discard_old=True, replicas=3, memory=True),
        QueueSettings(name="Q", max_tries=-1, lease_ns=0),
    ):
        written = streams.queue_config(settings, parks=True), streams.consumer_config(settings)
        assert read_settings(settings.name, *written) == (settings, False)


def test_a_queue_of_ours_has_a_lease_and_one_for_go_workers_the_run_time() -> None:
    ours, shared = streams.consumer_config(OURS), streams.consumer_config(SHARED)
    assert (ours["ack_wait"], ours["max_deliver"]) == (30_001_000_000, -1)
    assert ours["metadata"] == {"aj.lease": "30s", "aj.max_run_time": "1m0s", "aj.max_tries": "5"}
    assert (shared["ack_wait"], shared["max_deliver"], shared["metadata"]) == (60 * NS_PER_S, 5, {})


def test_waiting_items_come_in_under_the_subject_of_their_task() -> None:
    config = streams.queue_config(OURS, parks=True)
    assert config["sources"] == [
        {
            "name": "CHORIA_AJ_DELAYED",
            "subject_transforms": [{"src": "CHORIA_AJ.D.F.EMAIL.*", "dest": "CHORIA_AJ.Q.EMAIL.{{wildcard(1)}}"}],
        }
    ]
    assert streams.has_source(config)
    assert not streams.has_source(streams.queue_config(OURS, parks=False))
    assert not streams.has_source({"sources": None})


def test_a_source_is_added_to_those_that_are_there() -> None:
    config = {"name": "Q", "sources": [{"name": "OTHER"}], "unknown": 1}
    added = streams.with_source(config, "EMAIL")
    assert [source["name"] for source in added["sources"]] == ["OTHER", "CHORIA_AJ_DELAYED"]
    assert added["unknown"] == 1


def test_the_duplicate_window_is_never_longer_than_the_age() -> None:
    """The server refuses it otherwise."""
    short = QueueSettings(name="Q", max_age_ns=NS_PER_S)
    assert streams.queue_config(short, parks=False)["duplicate_window"] == NS_PER_S
    assert streams.queue_config(OURS, parks=False)["duplicate_window"] == 120 * NS_PER_S
    assert streams.with_age({"duplicate_window": 120 * NS_PER_S}, NS_PER_S)["duplicate_window"] == NS_PER_S
    assert streams.with_age({"duplicate_window": 120 * NS_PER_S}, 0)["duplicate_window"] == 120 * NS_PER_S
    assert streams.with_age({}, NS_PER_S)["duplicate_window"] == 0


def test_a_change_keeps_what_it_does_not_know_but_not_the_servers_own_metadata() -> None:
    theirs = {"_nats.ver": "2.15.1", "team": "mail", "aj.lease": "1s"}
    stream = streams.changed_stream({"name": "S", "unknown": {"a": 1}, "metadata": theirs}, OURS)
    consumer = streams.restored_consumer({"durable_name": "WORKERS", "max_batch": 7, "metadata": theirs}, OURS)
    assert (stream["unknown"], consumer["max_batch"]) == ({"a": 1}, 7)
    assert stream["metadata"] == consumer["metadata"] == {"team": "mail", **OURS.metadata()}


def test_the_servers_version_stands_in_what_it_tells() -> None:
    assert streams.server_version({"metadata": {"_nats.ver": "2.12.8"}}) == "2.12.8"
    assert streams.server_version({"metadata": None}) == ""
