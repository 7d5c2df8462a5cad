"""A bridge's status on the wire: read as it was written, or refused with the key that failed."""

import json
from typing import Any

import pytest

from aj_sdk.errors import DecodeError
from aj_sdk.wire.bridge import BridgeStatus, ServedStatus, read_concurrency, read_pause

STATUS = BridgeStatus(
    id="abc",
    host="here",
    pid=7,
    version="0.1.0",
    started_ns=1_700_000_000_000_000_001,
    state="paused",
    concurrency=100,
    in_hand=5,
    queues=(
        ServedStatus(name="A", weight=6, in_hand=3, running=2, calls=7, failed=1, calls_per_s=1.5, failed_per_s=0.0),
    ),
)


def test_a_status_is_read_as_it_was_written() -> None:
    assert BridgeStatus.from_wire(STATUS.to_wire()) == STATUS


def test_keys_of_a_newer_bridge_are_no_fault() -> None:
    newer = {**STATUS.to_map(), "mood": "good"}
    newer["queues"][0]["mood"] = "good"
    assert BridgeStatus.from_wire(json.dumps(newer).encode()) == STATUS


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("id", "a.b", "id: must be 1 to 128"),
        ("state", "asleep", "state: must be one of working, paused, draining"),
        ("queues", {}, "queues: must be a list"),
        ("queues", [1], r"queues\.0: must be an object"),
        ("queues", [{}], r"queues\.0\.name: is missing"),
        ("started", "yesterday", "started: "),
        ("pid", "7", "pid: must be an integer"),
        ("host", None, "host: is missing"),
    ],
)
def test_what_cannot_be_a_status_is_refused(key: str, value: Any, fault: str) -> None:
    with pytest.raises(DecodeError, match=f"bridge status: {fault}"):
        BridgeStatus.from_wire(json.dumps({**STATUS.to_map(), key: value}).encode())


def test_a_rate_is_a_number() -> None:
    wrong = STATUS.to_map()
    wrong["queues"][0]["calls_per_s"] = True
    with pytest.raises(DecodeError, match=r"queues\.0\.calls_per_s: must be a number"):
        BridgeStatus.from_wire(json.dumps(wrong).encode())


def test_what_a_bridge_is_told_is_read() -> None:
    assert read_concurrency(b'{"concurrency": 20}') == 20
    assert read_pause(b'{"paused": true}') is True
    assert read_pause(b'{"paused": false}') is False


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"concurrency": 0}', b'{"concurrency": 100001}', b'{"concurrency": "5"}']
)
def test_a_number_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError, match="request: "):
        read_concurrency(body)
