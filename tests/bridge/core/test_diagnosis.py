"""What the doctor makes of what it has learned."""

from typing import Any

import pytest

from aj_bridge.core.diagnosis import Facts, Level, diagnose
from aj_sdk.wire.names import DELAYED_STREAM, TASKS_STREAM
from aj_sdk.wire.times import NS_PER_S

SOUND: dict[str, Any] = {
    "api_level": 4,
    "version": "2.15.1",
    "max_payload": 1024 * 1024,
    "headroom": 32 * 1024,
    "limits": {"max_streams": -1, "max_storage": -1},
    "streams": {
        TASKS_STREAM: {"num_replicas": 3, "storage": "file", "allow_direct": True},
        DELAYED_STREAM: {"num_replicas": 3, "storage": "file", "allow_msg_schedules": True},
    },
    "skew_ns": 1_000_000,
}


def found(**changes: Any) -> list[tuple[Level, str, str]]:
    findings = diagnose(Facts(**{**SOUND, **changes}))
    assert all(finding.advice for finding in findings)
    return [(finding.level, finding.where, finding.what) for finding in findings if finding.level is not Level.INFO]


def test_nothing_is_wrong_with_a_sound_server() -> None:
    assert found() == []


TASKS = SOUND["streams"][TASKS_STREAM]


@pytest.mark.parametrize(
    ("changes", "level", "where", "what"),
    [
        (
            {"api_prefix": "$JS.hub.API", "domain": "hub", "stored_twice": ["CHORIA_AJ_TASKS"]},
            Level.ERROR,
            "JetStream domain hub",
            "CHORIA_AJ_TASKS; what is published is stored in both",
        ),
        ({"api_level": 1, "version": "2.11.0"}, Level.WARNING, "2.11.0", "older than 2.12"),
        ({"api_level": 0, "version": ""}, Level.WARNING, "nats-server", "older than 2.11"),
        ({"version": "2.12.8"}, Level.WARNING, "2.12.8", "waiting items"),
        ({"streams": {TASKS_STREAM: {**TASKS, "num_replicas": 1}}}, Level.WARNING, TASKS_STREAM, "one copy"),
        ({"streams": {TASKS_STREAM: {**TASKS, "storage": "memory"}}}, Level.WARNING, TASKS_STREAM, "memory"),
        ({"streams": {TASKS_STREAM: {**TASKS, "allow_direct": False}}}, Level.WARNING, TASKS_STREAM, "direct"),
        ({"streams": {TASKS_STREAM: {**TASKS, "max_msg_size": 9}}}, Level.WARNING, TASKS_STREAM, "9 bytes"),
        (
            {"streams": {TASKS_STREAM: TASKS, DELAYED_STREAM: {"num_replicas": 2, "allow_msg_schedules": True}}},
            Level.WARNING,
            DELAYED_STREAM,
            "fewer copies",
        ),
        ({"streams": {DELAYED_STREAM: {"num_replicas": 3}}}, Level.ERROR, DELAYED_STREAM, "no message schedules"),
        ({"skew_ns": 2 * NS_PER_S}, Level.WARNING, "clock", "2s ahead"),
        ({"skew_ns": -60 * NS_PER_S}, Level.ERROR, "clock", "behind"),
        ({"max_payload": 64 * 1024}, Level.WARNING, "server", "32768"),
        ({"max_payload": 16 * 1024}, Level.ERROR, "server", "no task fits"),
        (
            {"limits": {"max_bytes_required": True}, "streams": {TASKS_STREAM: None}},
            Level.ERROR,
            "account",
            TASKS_STREAM,
        ),
        (
            {"limits": {"max_streams": 3}, "streams_used": 3, "streams": {TASKS_STREAM: TASKS, DELAYED_STREAM: None}},
            Level.ERROR,
            "account",
            DELAYED_STREAM,
        ),
        ({"limits": {"max_storage": 100}, "storage": 90}, Level.WARNING, "account", "90 of 100"),
        ({"limits": {"max_storage": 100}, "storage": 100}, Level.ERROR, "account", "100 of 100"),
        ({"unanswered": {"$JS.API.STREAM.INFO.X": "no answer"}}, Level.ERROR, "permissions", "no answer"),
    ],
)
def test_each_fault_is_found(changes: dict[str, Any], level: Level, where: str, what: str) -> None:
    assert [one for one in found(**changes) if one[0] is level and where in one[1] and what in one[2]]


def test_the_worst_comes_first() -> None:
    levels = [finding.level for finding in diagnose(Facts(**{**SOUND, "max_payload": 1, "version": "2.12.8"}))]
    assert levels == sorted(levels, key=list(Level).index)
    assert levels[0] is Level.ERROR
