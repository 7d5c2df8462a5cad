"""`ajc dead` as a user runs it."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.bridge.faces.cli.test_ajc import Ajc

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.client import Client
from aj_sdk.queue import Queue
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

pytestmark = pytest.mark.server

NOW = 1_700_000_000 * NS_PER_S


@pytest.fixture
def ajc(clean_server: EmbeddedServer) -> Ajc:
    asyncio.run(_bury(clean_server.url))
    return Ajc(clean_server.url)


async def _bury(url: str) -> None:
    async with Client.connect(url) as client:
        await client.admin.ensure_task_store()
        await client.admin.ensure_dead()
        await client.admin.create_queue(Queue("EMAIL"))
        for task_id, reason, error in (
            ("a", "expired", "mailbox full"),
            ("b", "expired", "mailbox full"),
            ("c", "terminated", "no such \x1b[31mmailbox"),
        ):
            record = TaskRecord(
                id=task_id, type="email:new", queue="EMAIL", payload=b"{}", state=TaskState(reason), created_ns=NOW
            )
            await client.admin.dead.bury(_letter(task_id, reason, error, record.to_wire()))
        await client.admin.dead.bury(_letter("poison", "quarantined", "task not found", b'{"job":"poison"}'))


def _letter(task_id: str, reason: str, error: str, body: bytes) -> DeadLetter:
    known = "" if reason == "quarantined" else "email:new"
    return DeadLetter(
        reason=reason, detail=error, queue="EMAIL", task_id=task_id, task_type=known, tries=2, body=body, at_ns=NOW
    )


def test_dead_letters_are_grouped_listed_and_shown(ajc: Ajc) -> None:
    groups = ajc.json("dead", "list")
    assert (groups[0]["count"], groups[0]["reason"], groups[0]["error"]) == (2, "expired", "mailbox full")
    assert "4 dead letters" in ajc("dead", "ls")
    assert len(ajc.json("dead", "list", "1")) == 1
    each = ajc.json("dead", "list", "--each", "--reason", "terminated", "--error", "MAILBOX")
    assert [letter["task_id"] for letter in each] == ["c"]
    assert ajc.json("dead", "list", "--each", "--since", "1h") == []
    assert len(ajc.json("dead", "list", "--each", "--before", "1h", "--type", "email:new", "-q", "EMAIL")) == 3
    assert "No dead letters" in ajc("dead", "list", "--queue", "NONE")
    shown = ajc("dead", "view", "c")
    assert "\\x1b[31mmailbox" in shown
    assert "\x1b" not in shown
    [whole] = ajc.json("dead", "view", "a")
    assert whole["record"]["payload"] == "e30="
    assert ajc.json("dead", "view", "poison")[0]["body"] == '{"job":"poison"}'
    assert "task nobody has no dead letter" in ajc("dead", "view", "nobody", code=1)


def test_dead_tasks_are_replayed_by_name_or_by_what_they_have_in_common(ajc: Ajc) -> None:
    assert ajc("dead", "replay", "c") == "Replayed 1 tasks\n"
    assert ajc("dead", "replay", "--error", "full", "-f") == "Replayed 2 tasks\n"
    assert {task["id"] for task in ajc.json("task", "list", "--state", "new")} == {"a", "b", "c"}
    assert ajc.json("queue", "info", "EMAIL")["state"]["items"] == 3
    assert "neither the store nor its letter" in ajc("dead", "replay", "poison", code=2)
    assert [group["reason"] for group in ajc.json("dead", "list")] == ["quarantined"]


def test_what_is_to_be_replayed_or_removed_must_be_said(ajc: Ajc) -> None:
    for act in ("replay", "purge"):
        assert "name tasks" in ajc("dead", act, code=2)
        assert "name tasks" in ajc("dead", act, "a", "--all", code=2)
        assert "give -f" in ajc("dead", act, "--all", code=2)


def test_dead_letters_are_removed(ajc: Ajc) -> None:
    assert ajc("dead", "purge", "a") == "Removed 1 dead letters\n"
    assert ajc("dead", "purge", "--reason", "expired", "--reason", "terminated", "-f") == "Removed 2 dead letters\n"
    assert ajc("dead", "purge", "--all", "-f") == "Removed 1 dead letters\n"
    assert ajc("dead", "purge", "--all") == "Removed 0 dead letters\n"


def test_how_long_they_are_kept_is_shown_and_changed(ajc: Ajc, tmp_path: Path) -> None:
    days = 86_400 * NS_PER_S
    assert set(ajc.json("dead", "configure").values()) == {30 * days}
    kept = json.loads(ajc("dead", "configure", "--expired", "7d", "--quarantined", "0", "--json"))
    assert kept == {"expired": 7 * days, "terminated": 30 * days, "unreachable": 30 * days, "quarantined": 0}
    assert "expired: 7d" in ajc("dead", "cfg")
    assert "at least 1s" in ajc("dead", "configure", "--expired", "10ms", code=2)
