"""The checker itself: a good history passes, and for each invariant there is one that breaks it and nothing else."""

import ast
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.faults import checker as package
from tests.faults.checker.history import Act, Call, Fault, History, Run, Save, Step, read
from tests.faults.checker.times import NS, parse_time
from tests.faults.checker.verdict import RULES, explain, judge

START = parse_time("2026-11-28T12:00:00Z")
RESULT = b'{"ok": true}'
PASSED = "2026-11-28T12:00:01.5Z"


def at(seconds: float) -> int:
    return START + int(seconds * NS)


def body(task: str, state: str, tries: int, **more: Any) -> dict[str, Any]:
    created = "2026-11-28T12:00:00Z"
    return {"id": task, "type": "work", "queue": "Q", "state": state, "tries": tries, "created": created, **more}


def save(seconds: float, sequence: int, state: str, tries: int, *, task: str = "a", **more: Any) -> Save:
    owner = more.pop("owner", "" if state in ("new", "blocked") else "b1")
    previous = more.pop("previous", None)
    return Save(
        task=task,
        at=at(seconds),
        sequence=sequence,
        previous=previous,
        state=state,
        tries=tries,
        owner=owner,
        item=more.pop("item", "1.1") if owner else "",
        body=body(task, state, tries, **more),
    )


def completed(seconds: float, sequence: int, tries: int = 1, **more: Any) -> Save:
    result = {"payload": base64.b64encode(more.pop("reply", RESULT)).decode(), "completed": PASSED}
    return save(seconds, sequence, "complete", tries, result=result, **more)


def call(began: float, ended: float | None, *, task: str = "a", attempt: int = 1, number: int = 1, **more: Any) -> Call:
    bridge = more.pop("bridge", "b1")
    return Call(
        task=task,
        attempt=attempt,
        invocation=f"{bridge}-Q-{task}{number}",
        pid=more.pop("pid", 7),
        began=at(began),
        ended=None if ended is None else at(ended),
        reply=None if ended is None else more.pop("reply", RESULT),
        **more,
    )


def step(seconds: float, name: str, *, task: str = "a", item: str = "1.1", bridge: str = "b1", **told: Any) -> Step:
    return Step(at=at(seconds), bridge=bridge, step=name, task=task, item=item, told=told)


def good(task: str = "a", **more: Any) -> History:
    """Give the history of one task that went well."""
    done = completed(1.2, 3, task=task, **more)
    return History(
        run=Run(healed_at=at(0), ended_at=at(10)),
        saves=(
            save(1.0, 1, "new", 0, task=task, previous=0, **more),
            save(1.1, 2, "active", 1, task=task, previous=1, **more),
            replace(done, previous=2),
        ),
        calls=(call(1.15, 1.18, task=task),),
        steps=(
            step(0.5, "start", task="", item=""),
            step(1.12, "call", task=task, item="", invocation=f"b1-Q-{task}1"),
        ),
        acts=(Act(at=at(1.0), what="enqueue", task=task),),
        events=((at(1.21), task, "complete"),),
        records={task: done.body},
    )


def joined(one: History, other: History) -> History:
    """Give the history of the tasks of both."""
    shifted = tuple(
        replace(each, sequence=each.sequence + 100, previous=each.previous and each.previous + 100)
        for each in other.saves
    )
    return replace(
        one,
        saves=one.saves + shifted,
        calls=one.calls + other.calls,
        steps=one.steps + other.steps,
        acts=one.acts + other.acts,
        events=one.events + other.events,
        records={**one.records, **other.records},
    )


def child(started: float = 1.5) -> History:
    """Give the history of a task `b` that waits for `a`."""
    waits: dict[str, Any] = {"task": "b", "dependencies": ["a"]}
    done = completed(started + 0.1, 3, previous=2, **waits)
    return replace(
        good("b"),
        saves=(
            save(1.0, 1, "blocked", 0, previous=0, **waits),
            save(started, 2, "active", 1, previous=1, **waits),
            done,
        ),
        calls=(call(started + 0.05, started + 0.08, task="b"),),
        steps=(),
        events=((at(started + 0.1), "b", "complete"),),
        records={"b": done.body},
    )


def failed_parent() -> History:
    ended = save(1.2, 3, "terminated", 1, previous=2)
    history = good()
    return replace(
        history, saves=(*history.saves[:2], ended), events=((at(1.21), "a", "terminated"),), records={"a": ended.body}
    )


def unreachable_child() -> History:
    ended = save(1.3, 2, "unreachable", 0, task="b", previous=1, dependencies=["a"])
    return joined(
        failed_parent(),
        History(
            saves=(save(1.0, 1, "blocked", 0, task="b", previous=0, dependencies=["a"]), ended),
            acts=(Act(at=at(1.0), what="enqueue", task="b"),),
            events=((at(1.31), "b", "unreachable"),),
            records={"b": ended.body},
        ),
    )


# Bad ones; each breaks one invariant.


def a_retry_that_completes_without_a_start() -> History:
    history = good()
    waiting = save(1.19, 3, "retry", 1, previous=2)
    return replace(history, saves=(*history.saves[:2], waiting, replace(history.saves[2], sequence=4, previous=3)))


def two_ends() -> History:
    history = good()
    second = replace(history.saves[2], at=at(1.3), sequence=4, previous=3)
    return replace(history, saves=(*history.saves, second), events=history.events * 2)


def a_start_without_its_save() -> History:
    history = good()
    return replace(history, calls=(*history.calls, call(1.185, 1.19, bridge="b2")))


def nothing_stands_for_it() -> History:
    history = good()
    run = replace(history.run, healed_at=at(9), settle_s=60)
    waiting = save(1.2, 3, "retry", 1, previous=2)
    saves = (*history.saves[:2], waiting)
    return replace(history, run=run, saves=saves, events=(), records={"a": waiting.body})


def an_item_of_a_final_task() -> History:
    return replace(good(), items=("a",))


def an_error_taken_as_success() -> History:
    return replace(good(), calls=(call(1.15, 1.18, headers={"aj-error": ""}),))


def an_invocation_that_was_not_counted() -> History:
    history = good()
    again = call(1.16, 1.17, number=2, attempt=1)
    return replace(history, calls=(call(1.15, 1.155), again))


def overlapping_calls() -> History:
    history = good()
    saves = (
        *history.saves[:2],
        save(1.3, 3, "active", 2, previous=2, item="1.2"),
        replace(completed(1.5, 4, 2, item="1.2"), previous=3),
    )
    calls = (call(1.15, 1.6), call(1.35, 1.4, attempt=2, number=2))
    return replace(
        history, saves=saves, calls=calls, events=((at(1.5), "a", "complete"),), records={"a": saves[-1].body}
    )


def a_child_before_its_parent() -> History:
    return joined(good(), child(started=1.1))


def a_failed_parents_child_that_was_retried() -> History:
    history = unreachable_child()
    saves = tuple(
        replace(each, state="expired", body={**(each.body or {}), "state": "expired"})
        if each.state == "unreachable"
        else each
        for each in history.saves
    )
    events = (history.events[0], (at(1.31), "b", "expired"))
    return replace(history, saves=saves, events=events)


def a_start_after_the_deadline() -> History:
    return good(deadline="2026-11-28T12:00:00.5Z")


def an_acknowledged_task_that_is_nowhere() -> History:
    history = good()
    return replace(history, acts=(*history.acts, Act(at=at(1), what="enqueue", task="lost")))


def a_refused_writer_that_acknowledges() -> History:
    history = good()
    return replace(
        history,
        steps=(
            *history.steps,
            step(1.3, "save", bridge="b2", item="1.2", outcome="refused", state="complete", tries=1, expected=2),
            step(1.31, "load", bridge="b2", item="", state="active", owner="b1", owned_item="1.1"),
            step(1.32, "ack", bridge="b2", item="1.2"),
        ),
    )


def a_refused_writer_that_does_not_look() -> History:
    history = good()
    return replace(
        history,
        steps=(
            *history.steps,
            step(1.3, "save", bridge="b2", item="1.2", outcome="refused", state="complete", tries=1, expected=2),
            step(1.32, "ack", bridge="b2", item="1.2"),
        ),
    )


def a_refused_writer_that_tells_of_its_save() -> History:
    history = good()
    told: dict[str, Any] = {"state": "complete", "tries": 2}
    return replace(
        history,
        steps=(
            *history.steps,
            step(1.3, "save", bridge="b2", item="1.2", outcome="refused", expected=2, **told),
            step(1.32, "event", bridge="b2", item="", **told),
        ),
    )


def a_start_without_a_signature() -> History:
    history = good()
    return replace(history, run=replace(history.run, verify_keys=(public_key(),)))


def an_end_that_nobody_was_told() -> History:
    return replace(good(), events=())


def a_task_that_does_not_end() -> History:
    history = good()
    run = replace(history.run, healed_at=at(-80), settle_s=60)
    waiting = save(1.2, 3, "retry", 1, previous=2)
    saves = (*history.saves[:2], waiting)
    return replace(history, run=run, saves=saves, events=(), records={"a": waiting.body}, schedules=("a",))


def a_slow_canary() -> History:
    history = good()
    acts = (Act(at=at(-1), what="enqueue", task="a", canary=True),)
    return replace(history, run=replace(history.run, canaries=True), acts=acts)


def a_slow_recovery() -> History:
    history = good()
    saves = (
        *history.saves[:2],
        save(8.0, 3, "active", 2, previous=2, owner="b2", item="1.2"),
        replace(completed(8.2, 4, 2, owner="b2", item="1.2"), previous=3),
    )
    calls = (call(1.15, None), call(8.1, 8.15, attempt=2, number=2, bridge="b2"))
    kill = Fault(what="kill -9", target="bridge", begins=at(1.2), ends=at(1.2), bridge="b1")
    return replace(
        history,
        saves=saves,
        calls=calls,
        faults=(kill,),
        steps=(*history.steps, step(0.5, "start", task="", item="", bridge="b2")),
        events=((at(8.2), "a", "complete"),),
        records={"a": saves[-1].body},
    )


def a_bridge_that_does_not_notice() -> History:
    history = good()
    gone = Fault(what="kill -9", target="server", begins=at(2), ends=at(22))
    run = replace(history.run, ended_at=at(40))
    readiness = tuple((at(2 + number), "b1", True) for number in range(30))
    return replace(history, run=run, faults=(gone,), readiness=readiness)


def samples(**last: int) -> tuple[dict[str, Any], ...]:
    sizes = {"process": "b1", "rss_kib": 50_000, "descriptors": 20, "subscriptions": 9, "tasks": 12}
    return (*[sizes] * 8, *[{**sizes, **last}] * 4)


def a_process_that_grows() -> History:
    return replace(good(), samples=samples(rss_kib=90_000))


def a_process_with_more_and_more_subscriptions() -> History:
    return replace(good(), samples=samples(subscriptions=40))


BAD: dict[str, list[Callable[[], History]]] = {
    "I-1": [a_retry_that_completes_without_a_start],
    "I-2": [two_ends],
    "I-3": [a_start_without_its_save],
    "I-4": [nothing_stands_for_it],
    "I-5": [an_item_of_a_final_task],
    "I-6": [an_error_taken_as_success],
    "I-7": [an_invocation_that_was_not_counted],
    "I-8": [overlapping_calls],
    "I-9": [a_child_before_its_parent],
    "I-10": [a_failed_parents_child_that_was_retried],
    "I-11": [a_start_after_the_deadline],
    "I-12": [an_acknowledged_task_that_is_nowhere],
    "I-13": [
        a_refused_writer_that_acknowledges,
        a_refused_writer_that_does_not_look,
        a_refused_writer_that_tells_of_its_save,
    ],
    "I-15": [a_start_without_a_signature],
    "I-16": [an_end_that_nobody_was_told],
    "L-1": [a_task_that_does_not_end],
    "L-2": [a_slow_canary],
    "L-3": [a_slow_recovery],
    "L-4": [a_bridge_that_does_not_notice],
    "M-1": [a_process_that_grows],
    "M-2": [a_process_with_more_and_more_subscriptions],
}

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def public_key() -> str:
    return KEY.public_key().public_bytes_raw().hex()


def signed_history() -> History:
    signature = KEY.sign(f"a:Q:work:10:{START}:0:".encode()).hex()
    history = good(signature=signature, max_tries=10)
    return replace(history, run=replace(history.run, verify_keys=(public_key(),)))


def frozen(history: History) -> History:
    """Freeze the first bridge while its call ran."""
    freeze = Fault(what="freeze", target="bridge", begins=at(1.16), ends=at(1.3), bridge="b1")
    return replace(history, faults=(freeze,))


def a_refused_writer_that_finds_the_end() -> History:
    history = a_refused_writer_that_acknowledges()
    steps = tuple(replace(each, told={"state": "complete"}) if each.step == "load" else each for each in history.steps)
    return replace(history, steps=steps)


def a_retried_task() -> History:
    history = good()
    saves = (
        *history.saves,
        save(2.0, 4, "new", 0, previous=3),
        save(2.1, 5, "active", 1, previous=4, item="2.1"),
        replace(completed(2.2, 6, item="2.1"), previous=5),
    )
    calls = (*history.calls, call(2.15, 2.18, number=2))
    acts = (*history.acts, Act(at=at(2.0), what="retry", task="a"))
    return replace(history, saves=saves, calls=calls, acts=acts, events=history.events * 2)


def a_refused_writer_whose_renewal_was_under_way() -> History:
    history = a_refused_writer_that_acknowledges()
    renewal = replace(step(3.3, "progress", bridge="b2", item="1.2", outcome="failed"), sent=at(1.29))
    return replace(history, steps=(*(each for each in history.steps if each.step != "ack"), renewal))


GOOD: dict[str, Callable[[], History]] = {
    "a task that went well": good,
    "a parent and its child": lambda: joined(good(), child()),
    "a failed parent and its child": unreachable_child,
    "a signed task": signed_history,
    "calls that overlap after a freeze": lambda: frozen(overlapping_calls()),
    "a refused writer that finds a final record": a_refused_writer_that_finds_the_end,
    "a refused writer whose renewal was under way": a_refused_writer_whose_renewal_was_under_way,
    "a task that was retried on request": a_retried_task,
    "a process that stays as it is": lambda: replace(good(), samples=samples()),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_has_no_violation(name: str) -> None:
    assert judge(GOOD[name]()) == []


@pytest.mark.parametrize(
    ("invariant", "history"),
    [pytest.param(key, each, id=f"{key} {each.__name__}") for key, all_ in BAD.items() for each in all_],
)
def test_a_history_breaks_one_invariant_and_no_other(invariant: str, history: Callable[[], History]) -> None:
    found = judge(history())
    assert {violation.invariant for violation in found} == {invariant}, found


def test_each_invariant_has_a_rule_and_a_history_that_breaks_it() -> None:
    promised = {*(f"I-{number}" for number in range(1, 17)), "L-1", "L-2", "L-3", "L-4", "M-1", "M-2"}
    assert set(RULES) == set(BAD) == promised - {"I-14"}


def test_a_violation_is_told_with_what_happened_to_the_task_in_order() -> None:
    lines = explain(a_slow_recovery(), "a")
    told = [line.split(" s  ", 1)[1] for line in lines]
    kill = told.index("fault      kill -9 bridge b1")
    assert told[0].startswith(("store      new", "producer   enqueue"))
    assert any(line.startswith("handler    7 began b1-Q-a1") for line in told[:kill])
    assert told[kill + 1].startswith("store      active (try 2) at 3 by b2")


def test_the_checker_shares_no_code_with_what_it_checks() -> None:
    folder = Path(next(iter(package.__path__)))
    imported = {
        name.split(".")[0]
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported & {"aj_bridge", "aj_sdk", "aj_schemas"} == set()
    within = {
        node.module
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests")
    }
    assert all((module or "").startswith("tests.faults.checker") for module in within)


def test_what_a_killed_process_had_not_written_to_its_end_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"row": "x", "ended_at": at(9)}))
    (tmp_path / "end.json").write_text(json.dumps({"records": {}, "items": [], "schedules": [], "dead": []}))
    line = {"at": 1, "monotonic": 1.5, "bridge": "b1", "step": "start"}
    (tmp_path / "bridge-1.jsonl").write_text(json.dumps(line) + '\n{"at": 2, "mono')
    assert [each.step for each in read(tmp_path).steps] == ["start"]


def test_a_save_that_only_its_bridge_tells_of_is_taken_from_the_journal(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"row": "x", "ended_at": at(9)}))
    (tmp_path / "end.json").write_text(json.dumps({"records": {}, "items": [], "schedules": [], "dead": []}))
    told = {"outcome": "accepted", "sequence": 5, "state": "active", "tries": 1, "task": "a", "item": "1.1"}
    line = {"at": 1, "monotonic": 1.5, "bridge": "b1", "step": "save", **told}
    (tmp_path / "bridge-1.jsonl").write_text(json.dumps(line) + "\n")
    (only,) = read(tmp_path).saves
    assert (only.sequence, only.state, only.owner, only.body) == (5, "active", "b1", None)


@pytest.mark.parametrize("text", ["", "2026-11-28", "2026-11-28T12:00:00", "2026-11-28T12:00:00.1234567891Z", "x"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_time(text)


def test_a_time_keeps_its_nanoseconds_in_any_zone() -> None:
    assert parse_time("2026-11-28T13:00:00.000000001+01:00") == START + 1
