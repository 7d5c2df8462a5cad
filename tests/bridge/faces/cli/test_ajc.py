"""`ajc` as a user runs it: real processes against a real server; pure usage faults in this process."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest

from aj_bridge.faces.cli.frame import Group, run
from aj_bridge.faces.cli.main import ajc_group
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk.wire.signing import Signer

PATIENCE = 60.0
COMMAND = [sys.executable, "-m", "aj_bridge.faces.cli.main", "ajc"]


class Ajc:
    """Runs `ajc` against a server."""

    def __init__(self, url: str) -> None:
        self.environ = {**os.environ, "AJ_SERVER": url}

    def __call__(self, *words: str, code: int = 0, text: bytes = b"", **environ: str) -> str:
        """Run it, expect an exit code, and give its output; with a code other than 0 its one line of complaint."""
        done = subprocess.run(
            [*COMMAND, *words],
            input=text,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            env={**self.environ, **environ},
        )
        complaint = done.stderr.decode()
        assert done.returncode == code, complaint
        if code:
            assert complaint.startswith("ajc: "), complaint
            assert complaint.count("\n") == 1, complaint
            return complaint
        assert complaint == ""
        return done.stdout.decode()

    def json(self, *words: str, **options: Any) -> Any:
        return json.loads(self(*words, "--json", **options))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
        )


@pytest.fixture
def ajc(clean_server: EmbeddedServer) -> Ajc:
    return Ajc(clean_server.url)


# The life of a task.


def test_a_key_is_made_for_its_owner_alone_and_shown(tmp_path: Path) -> None:
    ajc = Ajc("nats://127.0.0.1:1")
    seed = tmp_path / "seed"
    public = ajc("key", "add", str(seed)).strip()
    assert ajc.json("key", "view", str(seed)) == {"public_key": public}
    assert "File exists" in ajc("key", "add", str(seed), code=2)
    assert "empty" in ajc("key", "view", "", code=2)


@pytest.mark.server
def test_a_task_that_was_signed_is_shown_to_who_verifies(ajc: Ajc, tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    public = ajc("key", "add", str(seed)).strip()
    ajc("task", "add", "t", "x", "--id", "signed", "--sign", str(seed))
    ajc("task", "--sign", str(seed), "add", "t", "x", "--id", "signed-too")
    ajc("task", "add", "t", "x", "--id", "plain")
    for task_id in ("signed", "signed-too"):
        assert len(ajc.json("task", "view", task_id, "--verify", public)["signature"]) == 128
    assert "task is not signed" in ajc("task", "view", "plain", "--verify", public, code=1)
    stranger = Signer("02" * 32).public_key_hex
    assert "invalid task signature" in ajc("task", "view", "signed", "--verify", stranger, code=1)
    assert "anybody can sign for" in ajc("task", "view", "signed", "--verify", "00" * 32, code=2)
    assert ajc.json("task", "view", "plain", "--verify", public, "--optional-signatures")["id"] == "plain"
    assert "needs a key" in ajc("task", "view", "plain", "--optional-signatures", code=2)
    assert "signing seed is empty" in ajc("task", "add", "t", "x", "--sign", "", code=2)


@pytest.mark.server
def test_a_task_is_added_shown_listed_and_removed(ajc: Ajc) -> None:
    added = ajc("task", "add", "email:new", "hello", "--id", "t1", "--tries", "3", "--deadline", "1h")
    assert added == "Enqueued task t1\n"
    task = ajc.json("task", "view", "t1")
    assert (task["payload"], task["max_tries"], task["queue"], task["state"]) == ("ImhlbGxvIg==", 3, "DEFAULT", "new")
    assert "deadline" in task
    sheet = ajc("task", "view", "t1")
    assert "Task t1" in sheet
    assert 'Payload: "hello" (7 B)' in sheet
    assert task.pop("attempts") == []
    assert ajc.json("task", "list") == [task]
    assert "t1" in ajc("task", "list")
    assert ajc("task", "delete", "-f", "t1") == "Removed task t1\n"
    assert ajc.json("task", "list") == []
    assert ajc.json("queue", "info", "DEFAULT")["state"]["items"] == 0
    assert "task t1 not found: `ajc task list` shows the tasks that there are" in ajc("task", "view", "t1", code=1)


@pytest.mark.server
def test_a_payload_is_a_json_string_or_raw_bytes_from_anywhere(ajc: Ajc, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\x00\xff")

    def payload(*words: str, **options: Any) -> str:
        text: str = ajc.json("task", "add", "email:new", *words, **options)["payload"]
        return text

    assert payload('{"a":1}') == "IntcImFcIjoxfSI="  # as the Go project's command stores it
    assert payload('{"a":1}', "--raw") == "eyJhIjoxfQ=="
    assert payload("-", "--raw", text=b"stdin") == "c3RkaW4="
    assert payload(f"@{tmp_path / 'body'}", "--raw") == "AP8="
    assert payload("-") == "Ii0i"
    assert payload("@x") == "IkB4Ig=="
    missing = ajc("task", "add", "email:new", "@/no/such/file", "--raw", code=2)
    assert "cannot read /no/such/file: No such file or directory" in missing


@pytest.mark.server
def test_the_same_id_again_is_the_same_task_and_another_one_is_refused(ajc: Ajc) -> None:
    first = ajc.json("task", "add", "email:new", "x", "--id", "t1")
    assert ajc.json("task", "add", "email:new", "x", "--id", "t1") == first
    assert "exists already with another payload: choose another id" in ajc(
        "task", "add", "email:new", "y", "--id", "t1", code=1
    )


@pytest.mark.server
def test_a_unique_key_makes_one_task_and_tells_which(ajc: Ajc) -> None:
    words = ("task", "add", "a", "x", "--unique-key", "report 2026-11", "--unique-for", "1h")
    assert ajc(*words, "--id", "t1") == "Enqueued task t1\n"
    assert ajc(*words) == "Task t1 has this key already, state new\n"
    assert ajc.json(*words)["id"] == "t1"
    ajc("task", "cancel", "t1")
    assert ajc(*words, "--id", "t2", "--unique-until-end") == "Enqueued task t2\n"
    assert "a unique_key needs unique_for" in ajc("task", "add", "a", "x", "--unique-key", "k", code=2)


@pytest.mark.server
def test_tasks_are_listed_by_condition_and_up_to_a_limit(ajc: Ajc) -> None:
    ajc("queue", "add", "EMAIL", "--entries", "1")
    ajc("task", "add", "a", "x", "--id", "t1", "-q", "EMAIL")
    full = ajc("task", "add", "b", "x", "--id", "t2", "-q", "EMAIL", code=1)
    assert "queue EMAIL is full, task t2 was not enqueued: wait, or give the queue room" in full
    ajc("task", "add", "b", "x", "--id", "t3")

    def ids(*words: str) -> list[str]:
        return [task["id"] for task in ajc.json("task", "list", *words)]

    assert ids() == ["t1", "t3", "t2"] or ids() == ["t1", "t2", "t3"]
    assert ids("1") == ["t1"]
    assert ids("--queue", "EMAIL", "--type", "b") == ["t2"]
    assert ids("--state", "queue_error", "--state", "new", "--type", "a") == ["t1"]
    assert "1 of 3 tasks" in ajc("task", "list", "1")


@pytest.mark.server
def test_tasks_that_ended_are_retried_and_others_told(ajc: Ajc) -> None:
    ajc("queue", "add", "EMAIL", "--entries", "1")
    ajc("task", "add", "a", "x", "--id", "t1", "-q", "EMAIL")
    ajc("task", "add", "a", "x", "--id", "t2", "-q", "EMAIL", code=1)
    ajc("queue", "purge", "EMAIL", "-f")
    assert [task["state"] for task in ajc.json("task", "retry", "t2")] == ["new"]
    told = ajc("task", "retry", "t1", code=1)
    assert "cannot retry task t1 in state 'new': `ajc task view` shows how it stands" in told
    ajc("queue", "purge", "EMAIL", "-f")
    assert ajc("task", "retry", "t1", "--force") == "Retried task t1\n"


@pytest.mark.server
def test_tasks_are_cancelled_with_a_reason(ajc: Ajc) -> None:
    ajc("task", "add", "a", "x", "--id", "t1")
    (task,) = ajc.json("task", "cancel", "t1", "--reason", "the customer left")
    assert (task["state"], task["last_err"]) == ("terminated", "cancelled: the customer left")
    assert ajc("task", "cancel", "t1") == "Cancelled task t1\n"
    assert ajc.json("queue", "info", "DEFAULT")["state"]["items"] == 0
    assert [letter["task_id"] for letter in ajc.json("dead", "list", "--each")] == ["t1"]
    assert "task t2 not found" in ajc("task", "cancel", "t2", code=1)


@pytest.mark.server
def test_many_tasks_are_acted_on_by_condition(ajc: Ajc) -> None:
    for number in range(7):
        ajc("task", "add", f"type:{number % 2}", "x", "--id", f"t{number}")

    def states(*words: str) -> dict[str, str]:
        return {task["id"]: task["state"] for task in ajc.json("task", "list", *words)}

    assert ajc("task", "cancel", "--type", "type:1", "--reason", "no more", "-f") == "Cancelled 3 tasks\n"
    assert states("--error", "no MORE") == {"t1": "terminated", "t3": "terminated", "t5": "terminated"}
    assert states("--state", "new") == {f"t{number}": "new" for number in (0, 2, 4, 6)}
    # Without a state those that failed are meant, so that what completed is not done again, and what waits goes on.
    # Several are cancelled at a time, so which of them were changed first is not said.
    retried = {task["id"] for task in ajc.json("task", "retry", "--since", "1h", "--limit", "2", "-f")}
    assert len(retried) == 2
    assert ajc("task", "delete", "--before", "0s", "-f") == "Removed 1 tasks\n"
    assert set(states()) == {"t0", "t2", "t4", "t6"} | retried
    assert ajc("task", "delete", "--queue", "NONE", "-f") == "Removed 0 tasks\n"
    for words in ((), ("t1", "--state", "new")):
        assert "name tasks, or say which with --state" in ajc("task", "cancel", "-f", *words, code=2)
    assert "--limit goes with --state" in ajc("task", "cancel", "t1", "--limit", "1", code=2)
    assert "give -f to do it without asking" in ajc("task", "cancel", "--state", "new", code=2)


@pytest.mark.server
def test_of_several_tasks_each_failure_has_its_line(ajc: Ajc) -> None:
    ajc("task", "add", "a", "x", "--id", "t1")
    done = subprocess.run(
        [*COMMAND, "task", "delete", "-f", "no1", "t1", "a b"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=ajc.environ,
    )
    assert (done.returncode, done.stdout) == (1, "Removed task t1\n")
    assert [line[:14] for line in done.stderr.splitlines()] == ["ajc: task no1 ", "ajc: task id '"]


@pytest.mark.server
def test_watching_shows_what_happens_until_interrupted(ajc: Ajc) -> None:
    for words in (("task", "watch"), ("task", "watch", "--task", "t1", "--json")):
        with ajc.start(*words) as watching:
            assert watching.stderr is not None
            assert watching.stdout is not None
            assert watching.stderr.readline() == "Watching; Ctrl-C ends it\n"
            ajc("task", "add", "email:new", "x", "--id", "t1")
            ajc("task", "delete", "-f", "t1")
            line = watching.stdout.readline()
            watching.send_signal(signal.SIGINT)
            assert watching.wait(PATIENCE) == 130
            assert "Traceback" not in watching.stderr.read()
        if "--json" in words:
            assert json.loads(line)["task_id"] == "t1"
        else:
            assert line.endswith("] t1: queue: DEFAULT type: email:new tries: 0 state: new\n")


@pytest.mark.server
def test_the_task_store_is_made_configured_and_purged(ajc: Ajc) -> None:
    assert "`ajc task initialize` makes it" in ajc("task", "list", code=1)
    made = ajc.json("task", "initialize", "--memory", "--retention", "30d")
    assert (made["retention"], made["memory"], made["replicas"]) == (30 * 86_400 * 10**9, True, 1)
    assert ajc.json("task", "configure", "0", "1")["retention"] == 0
    ajc("task", "add", "a", "x")
    assert ajc("task", "purge", "-f") == "Purged 1 tasks\n"
    assert "Tasks: 0 (0 B)" in ajc("task", "initialize")


# Queues.


@pytest.mark.server
def test_a_queue_is_added_shown_changed_and_removed(ajc: Ajc) -> None:
    options = "--age 1d --entries 9 --tries 5 --run-time 2m --concurrent 7 --discard-old --lease 10s --weight 6"
    queue = ajc.json("queue", "add", "EMAIL", *shlex.split(options))
    state = queue.pop("state")
    assert queue == {
        "name": "EMAIL",
        "max_age": 86_400 * 10**9,
        "max_entries": 9,
        "discard_old": True,
        "max_tries": 5,
        "max_runtime": 120 * 10**9,
        "max_concurrent": 7,
        "replicas": 1,
        "memory": False,
        "lease": 10 * 10**9,
        "go_workers": False,
        "weight": 6,
    }
    assert (state["items"], state["parks"]) == (0, True)
    assert "queue EMAIL exists already" in ajc("queue", "add", "EMAIL", code=1)
    changed = ajc.json("queue", "configure", "EMAIL", "--run-time", "5m", "--discard-new", "--age", "0")
    assert (changed["max_runtime"], changed["discard_old"], changed["max_age"]) == (300 * 10**9, False, 0)
    assert (changed["max_tries"], changed["weight"]) == (5, 6)
    assert ajc.json("queue", "configure", "EMAIL", "--weight", "2")["weight"] == 2
    assert ajc.json("queue", "pause", "EMAIL")["state"]["paused_until"] == "9999-12-31T00:00:00Z"
    assert "until it is resumed" in ajc("queue", "list")
    assert "Paused: until 2" in ajc("queue", "pause", "EMAIL", "--for", "1h")
    assert "Paused: until 2100-01-01 12:00:00" in ajc("queue", "pause", "EMAIL", "--until", "2100-01-01 12:00")
    assert ajc.json("queue", "resume", "EMAIL")["state"]["paused_until"] is None
    assert "--for and --until contradict each other" in ajc(
        "queue", "pause", "EMAIL", "--for", "1h", "--until", "2100-01-01", code=2
    )
    assert [info["name"] for info in ajc.json("queue", "list")] == ["EMAIL"]
    assert "EMAIL" in ajc("queue", "list")
    ajc("task", "add", "a", "x", "-q", "EMAIL")
    assert ajc("queue", "purge", "EMAIL", "-f") == "Purged 1 items from queue EMAIL\n"
    assert ajc("queue", "delete", "EMAIL", "-f") == "Removed queue EMAIL\n"
    assert "No queues" in ajc("queue", "list")
    assert "queue EMAIL not found; `ajc queue add EMAIL` makes it" in ajc("queue", "info", "EMAIL", code=1)


@pytest.mark.server
def test_a_queue_for_go_workers_says_so(ajc: Ajc) -> None:
    assert ajc.json("queue", "add", "SHARED", "--go-workers", "--memory")["go_workers"] is True
    assert "Go workers and our bridges" in ajc("queue", "info", "SHARED")
    assert "is for Go workers, which know no lease" in ajc("queue", "configure", "SHARED", "--lease", "5s", code=2)


@pytest.mark.server
def test_everything_is_shown_at_once_and_nothing_is_made(ajc: Ajc) -> None:
    empty = ajc.json("info")
    assert (empty["task_store"], empty["queues"], empty["parked"]) == (None, [], None)
    ajc("task", "add", "a", "x")
    full = ajc.json("info")
    assert (full["task_store"]["tasks"], [queue["name"] for queue in full["queues"]]) == (1, ["DEFAULT"])
    assert "DEFAULT" in ajc("info")


@pytest.mark.server
@pytest.mark.parametrize(
    "words",
    [
        "task add a x --id t1 --json",
        "tasks new a x --id t1 --json",
        "t a a x --id t1 --json",
        "t enqueue a x --id t1 --json",
    ],
)
def test_the_go_projects_other_spellings_of_adding_a_task_work(ajc: Ajc, words: str) -> None:
    assert json.loads(ajc(*words.split()))["id"] == "t1"
    for view in ("task view", "tasks show", "t v", "t info", "t i"):
        assert json.loads(ajc(*view.split(), "t1", "--json"))["id"] == "t1"


@pytest.mark.server
def test_the_go_projects_other_spellings_work(ajc: Ajc) -> None:
    ajc(*["queues", "new", "EMAIL"])
    ajc(*["q", "a", "OTHER"])
    for listing in ("queue list", "queues ls", "q ls"):
        assert len(json.loads(ajc(*listing.split(), "--json"))) == 2
    for view in ("queue info", "q view", "q show", "queues i", "q v"):
        assert json.loads(ajc(*view.split(), "EMAIL", "--json"))["name"] == "EMAIL"
    for configure in ("queue configure", "q config", "q cfg"):
        ajc(*configure.split(), "EMAIL", "--tries", "2")
    for remove, name in (("q rm", "EMAIL"), ("queue del", "OTHER")):
        ajc(*remove.split(), name, "-f")
    ajc(*["t", "initialize"])
    ajc(*["t", "cfg", "1h", "1"])


# Where to connect to.


@pytest.mark.server
def test_the_server_is_named_anywhere_on_the_line_or_by_a_context(clean_server: EmbeddedServer, tmp_path: Path) -> None:
    ajc, url = Ajc("nats://127.0.0.1:1"), clean_server.url
    for words in (("--server", url, "info"), ("info", "--server", url), ("queue", "--server", url, "list")):
        ajc(*words)
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    (folder / "AJC.json").write_text(json.dumps({"url": url}))
    home = str(tmp_path)
    ajc("info", "--context", "AJC", XDG_CONFIG_HOME=home)
    del ajc.environ["AJ_SERVER"]
    ajc("info", XDG_CONFIG_HOME=home)
    ajc("info", CONTEXT="AJC", XDG_CONFIG_HOME=home)
    (folder / "BAD.json").write_text("{")
    assert "not JSON" in ajc("info", CONTEXT="BAD", XDG_CONFIG_HOME=home, code=2)
    assert "there is no NATS context 'NONE'" in ajc("info", "--context", "NONE", XDG_CONFIG_HOME=home, code=2)


@pytest.mark.server
def test_a_server_that_is_not_there_is_one_line(free_port: int) -> None:
    complaint = Ajc(f"nats://127.0.0.1:{free_port}")("queue", "list", code=1)
    assert "connection refused; is a NATS server running there?" in complaint


@pytest.mark.server
def test_debug_shows_where_an_error_came_from(ajc: Ajc) -> None:
    for words, environ in ((("--debug", "task", "view", "x"), {}), (("task", "view", "x"), {"AJC_DEBUG": "1"})):
        done = subprocess.run(
            [*COMMAND, *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**ajc.environ, **environ},
        )
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("ajc: task store: not found")


# Terminals and pipes.


def interrupt(process: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    """Interrupt a process that asks: one that has written its question, but does not read yet, needs a second one."""
    for _ in range(30):
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
            return


def on_terminal(ajc: Ajc, words: list[str], answer: bytes | signal.Signals) -> tuple[int, str]:
    """Answer the question that a command asks, or interrupt it there; gives the exit code and all that was said."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *words], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ajc.environ
    ) as process:
        os.close(theirs)
        try:
            assert process.stderr is not None
            said = b""
            while not said.endswith(b"[y/N]: "):
                said += process.stderr.read(1)
            if isinstance(answer, bytes):
                os.write(ours, answer)
            else:
                interrupt(process, answer)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            os.close(ours)
    return process.returncode, (said + out + err).decode()


@pytest.mark.server
def test_what_loses_something_asks_first(ajc: Ajc) -> None:
    ajc("queue", "add", "EMAIL")
    ajc("task", "add", "a", "x", "--id", "t1", "-q", "EMAIL")
    for words, question in (
        (["task", "delete", "t1"], "Really remove task t1"),
        (["task", "cancel", "--queue", "EMAIL"], "Cancel 1 tasks (1 new)"),
        (["task", "delete", "--state", "new"], "Remove 1 tasks (1 new)"),
        (["task", "purge"], "Really purge the task store of 1 tasks"),
        (["queue", "purge", "EMAIL"], "Really purge queue EMAIL with 1 items and 0 parked ones"),
        (["queue", "delete", "EMAIL"], "Really remove queue EMAIL with 1 items and 0 parked ones"),
    ):
        assert "there is no terminal to ask on: give -f to do it without asking" in ajc(*words, code=2)
        code, text = on_terminal(ajc, words, b"n\n")
        assert (code, question in text) == (0, True), text
    assert ajc.json("queue", "info", "EMAIL")["state"]["items"] == 1
    assert on_terminal(ajc, ["task", "purge"], signal.SIGINT)[0] == 130
    assert on_terminal(ajc, ["task", "delete", "t1"], signal.SIGINT)[0] == 130
    code, text = on_terminal(ajc, ["task", "delete", "t1"], b"y\n")
    assert (code, "Removed task t1" in text) == (0, True)


@pytest.mark.server
def test_a_reader_that_goes_away_is_no_error(ajc: Ajc) -> None:
    for number in range(3):
        ajc("task", "add", "a", "x" * 100_000, "--id", f"t{number}")
    with ajc.start("task", "list", "--json") as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.read(1)
        listing.stdout.close()
        assert listing.stderr.read() == ""


@pytest.mark.server
def test_text_that_a_terminal_would_obey_is_escaped(ajc: Ajc) -> None:
    ajc("task", "add", "a", "\x1b[31m", "--id", "t1", "--raw")
    assert "\\x1b[31m (5 B)" in ajc("task", "view", "t1")
    assert "\x1b" not in ajc("nope\x1b[31m", code=2)


# Pure usage, in this process.


@pytest.fixture
def complain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `ajc` with words that are wrong, where no server is, and give its one line."""
    monkeypatch.setenv("AJ_SERVER", "nats://127.0.0.1:1")

    def call(*words: str, code: int = 2) -> str:
        monkeypatch.setattr(sys, "argv", ["ajc", *words])
        with pytest.raises(SystemExit) as ended:
            run(ajc_group())
        text = capsys.readouterr().err
        assert ended.value.code == code, text
        assert text.startswith("ajc: ")
        assert text.count("\n") == 1
        return text

    return call


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nope", "no such command 'nope': see `ajc --help`"),
        ("task nope", "no such command 'nope': see `ajc task --help`"),
        ("task add a", "missing argument 'PAYLOAD': see `ajc task add --help`"),
        ("task add a x --zzzz", "no such option '--zzzz': see `ajc task add --help`"),
        ("task add a x --deadline 5", "'5' is not a duration; write it like 30s"),
        ("task add a x --tries many", "'many' is not a valid integer"),
        ("task list many", "'many' is not a valid integer"),
        ("task list --state bogus", "'bogus' is not one of 'new', 'active'"),
        ("task configure 1h 9", "9 is not in the range 1<=x<=5"),
        ("task retry", "name tasks, or say which with --state"),
        ("queue add EMAIL --run-time fast", "'fast' is not a duration"),
        ("queue add EMAIL --replicas 0", "0 is not in the range 1<=x<=5"),
        ("completion powershell", "'powershell' is not one of 'bash', 'zsh', 'fish'"),
        ("--server http://x info", "must begin with one of nats://"),
        ("--context a/b info", "'a/b' is no name of a NATS context"),
    ],
)
def test_a_fault_of_the_command_line_is_one_line_that_says_what_to_do(
    complain: Callable[..., str], words: str, says: str
) -> None:
    assert says in complain(*words.split())


def test_a_group_without_a_subcommand_shows_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ajc", "task"])
    with pytest.raises(SystemExit):
        run(ajc_group())
    output = capsys.readouterr()
    assert "initialize" in output.out + output.err


def test_what_nobody_expected_is_one_line_with_a_hint(
    complain: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("x\ny")

    monkeypatch.setattr("aj_bridge.faces.cli.frame.resolve_connection", broken)
    told = complain("info", code=1)
    assert told == "ajc: unexpected KeyError: 'x\\ny': run it again with --debug to see where, and tell us\n"


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(leaves(ajc_group()))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_with_examples_that_parse(path: tuple[str, ...]) -> None:
    command = ALL[path]
    text = command.get_help(click.Context(command, info_name=" ".join(path)))
    assert "Examples:" in text
    examples = [line.strip() for line in text.partition("Examples:")[2].splitlines() if line.strip()]
    assert len(examples) >= 2
    for example in examples:
        words = [word for word in shlex.split(example.removeprefix('eval "$(').removesuffix(')"')) if word != ">"]
        assert words[: len(path) + 1] == ["ajc", *path]
        if "fish" not in example:
            command.make_context("ajc", words[len(path) + 1 :], obj=None).close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_taught_to_complete(shell: str) -> None:
    script = Ajc("nats://127.0.0.1:1")("completion", shell)
    assert "_AJC_COMPLETE" in script


def test_a_word_is_completed() -> None:
    done = Ajc("nats://127.0.0.1:1")(_AJC_COMPLETE="bash_complete", COMP_WORDS="ajc task re", COMP_CWORD="2")
    assert done == "plain,retry\n"
