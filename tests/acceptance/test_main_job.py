"""The main job with real processes: a server, `aj-bridge run`, handlers; each way that a task can take."""

import asyncio
import json
import socket
import sys
import time
from base64 import b64decode
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.handlers import BAD_TEXT, BINARY
from tests.acceptance.processes import Process
from tests.acceptance.world import Overheard, World, read_metrics

from aj_sdk.transport import Message
from aj_sdk.wire.names import item_subject, schedule_subject, task_subject
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import parse_time

pytestmark = pytest.mark.acceptance

QUEUE = "MAIN"


async def enqueue(world: World, payload: object = None, *, type: str = "work", **options: Any) -> str:  # noqa: A002
    """Enqueue a task into the shared queue, and return its id."""
    return (await world.client.enqueue(type, payload, queue=options.pop("queue", QUEUE), **options)).id


def record(task_id: str, *, queue: str = QUEUE, **fields: Any) -> TaskRecord:
    """Return a task as a producer of another make would store it."""
    fields = {"type": "work", "created_ns": time.time_ns(), "payload": b'{"do": "ok"}', **fields}
    return TaskRecord(id=task_id, queue=queue, **fields)


async def store_task(world: World, task: TaskRecord) -> None:
    """Store a task and its item, as the Go project's producer does: no dependency edges, no checks."""
    await world.client.store.save(task, expected=0)
    await world.client.store.publish_item(task.queue, task.id)


def new_id(request: pytest.FixtureRequest) -> str:
    """Return an id that no other test has."""
    return f"{request.node.originalname}-{time.time_ns()}"


@pytest.fixture
def task_id(request: pytest.FixtureRequest) -> str:
    return new_id(request)


def is_about(task_id: str) -> Any:
    return lambda message: message.subject.endswith(f".{task_id}")


def headers_of(message: Message) -> Mapping[str, str]:
    return message.headers or {}


async def dead_letter(letters: Overheard, task_id: str) -> Message:
    return await letters.message(is_about(task_id))


# Success and failure.


async def test_a_task_is_answered_by_a_handler_in_another_process(main: World, task_id: str) -> None:
    async with main.overhear(f"CHORIA_AJ.E.task_state.{task_id}") as events:
        task = await main.client.enqueue("work", {"do": "ok"}, queue=QUEUE, id=task_id)
        result = await main.client.result(task_id, timeout=main.patience(30))
        await events.state("complete")
        assert events.states() == ["new", "active", "complete"]
    [call] = main.calls(task_id)
    assert result == {"id": task_id, "try": 1, "invocation": call["invocation"], "language": "python"}
    ended = await main.client.load(task_id)
    assert (ended.state, ended.tries, ended.last_err) == (TaskState.COMPLETE, 1, "")
    assert (ended.payload, ended.created_ns) == (task.payload, task.created_ns)
    assert task.created_ns <= (ended.tried_ns or 0) <= call["at_ns"]


async def test_a_failed_try_waits_outside_the_queue_for_the_backoff(main: World, task_id: str) -> None:
    async with (
        main.overhear(schedule_subject(QUEUE, task_id)) as schedules,
        main.overhear(f"CHORIA_AJ.E.task_state.{task_id}") as events,
    ):
        await enqueue(main, {"do": "fail", "error": "no such host"}, id=task_id)
        failed = await events.state("retry")
        waiting = await main.client.load(task_id)
        ended = await main.ended(task_id)
    assert failed["last_error"] == waiting.last_err == "RuntimeError: no such host"
    assert (waiting.state, waiting.tries) == (TaskState.RETRY, 1)
    first, second = main.calls(task_id)
    [schedule] = schedules.messages
    due_ns = parse_time(headers_of(schedule)["Nats-Schedule"].removeprefix("@at "))
    # The policy 1m after the first try: 3.95 s, half of it always and up to all of it on top.
    assert 1.9 < (due_ns - first["at_ns"]) / 1e9 < 5.93 + main.patience(1)
    assert due_ns <= second["at_ns"] <= due_ns + main.patience(1) * 1e9
    assert (ended.state, ended.tries, ended.last_err) == (TaskState.COMPLETE, 2, "")


async def test_a_handler_that_asks_for_a_delay_gets_that_delay(main: World, task_id: str) -> None:
    await enqueue(main, {"do": "later", "ms": 700, "error": "mailbox is busy"}, id=task_id)
    ended = await main.ended(task_id)
    first, second = main.calls(task_id)
    assert 0.7 <= second["at"] - first["at"] < 0.7 + main.patience(1)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 2)


async def test_a_terminated_task_is_not_tried_again_and_leaves_a_dead_letter(main: World, task_id: str) -> None:
    async with main.overhear("CHORIA_AJ.X.>") as letters:
        await enqueue(main, {"do": "terminate", "error": "no such mailbox"}, id=task_id)
        ended = await main.ended(task_id)
        letter = await dead_letter(letters, task_id)
    assert (ended.state, ended.tries, ended.last_err) == (TaskState.TERMINATED, 1, "no such mailbox")
    assert letter.subject == f"CHORIA_AJ.X.terminated.{QUEUE}.{task_id}"
    assert TaskRecord.from_wire(letter.data) == ended
    headers = headers_of(letter)
    assert headers["AJ-Dead-Reason"] == "terminated"
    assert headers["AJ-Dead-Detail"] == "no such mailbox"
    assert (headers["AJ-Task-Type"], headers["AJ-Task-Tries"]) == ("work", "1")
    stored = await main.client.store.jetstream.last("CHORIA_AJ_DEAD", letter.subject)
    assert stored is not None
    assert stored.data == letter.data


async def test_the_last_try_that_fails_ends_the_task_at_once(main: World, task_id: str) -> None:
    order = {"do": "later", "times": 9, "ms": 100, "error": "still busy"}
    async with (
        main.overhear("CHORIA_AJ.X.>") as letters,
        main.overhear(schedule_subject(QUEUE, task_id)) as schedules,
    ):
        await enqueue(main, order, id=task_id, max_tries=2)
        ended = await main.ended(task_id)
        letter = await dead_letter(letters, task_id)
    assert (ended.state, ended.tries, ended.last_err) == (TaskState.EXPIRED, 2, "still busy")
    assert [call["try"] for call in main.calls(task_id)] == [1, 2]
    assert letter.subject.startswith("CHORIA_AJ.X.expired.")
    assert len(schedules.messages) == 1  # none after the second try: nothing is left to wait for


# Deadlines.


async def test_a_task_that_waits_past_its_deadline_expires_then(main: World, task_id: str) -> None:
    order = {"do": "later", "times": 9, "ms": 3_600_000, "error": "come back tomorrow"}
    task = await main.client.enqueue(
        "work", order, queue=QUEUE, id=task_id, deadline=timedelta(seconds=main.patience(2))
    )
    ended = await main.ended(task_id)
    ended_ns = time.time_ns()
    assert task.deadline_ns is not None
    assert (ended.state, ended.tries, ended.last_err) == (TaskState.EXPIRED, 1, "come back tomorrow")
    assert task.deadline_ns < ended_ns < task.deadline_ns + main.patience(3) * 1e9
    assert len(main.calls(task_id)) == 1


async def test_a_task_that_comes_after_its_deadline_never_starts(main: World, task_id: str) -> None:
    async with main.overhear("CHORIA_AJ.X.>") as letters:
        await store_task(main, record(task_id, deadline_ns=time.time_ns() - 1))
        ended = await main.ended(task_id)
        letter = await dead_letter(letters, task_id)
    assert (ended.state, ended.tries, ended.last_err) == (TaskState.EXPIRED, 0, "past deadline")
    assert headers_of(letter)["AJ-Dead-Detail"] == "past deadline"
    assert main.calls(task_id) == []


# Nobody there.


async def test_a_task_without_a_handler_costs_no_try_and_runs_soon_after_one_starts(main: World, task_id: str) -> None:
    task_type = f"absent-{time.time_ns()}"
    async with main.overhear(f"CHORIA_AJ.E.task_state.{task_id}") as events:
        await enqueue(main, {}, type=task_type, id=task_id, max_tries=1)
        told = await events.state("retry", count=3)  # found nobody, three times
        waiting = await main.client.load(task_id)
        handlers = main.crew.handlers(task_type)
        await main.ready(handlers)
        began = time.monotonic()
        ended = await main.ended(task_id)
    assert told["last_error"] == f"no handler listens on CHORIA_AJ.H.T.{task_type}"
    assert (waiting.state, waiting.tries) == (TaskState.RETRY, 0)
    assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    [call] = main.calls(task_id)
    assert call["at"] - began < main.patience(2)


# Dependencies, as a producer of the Go project stores them.


async def test_a_blocked_task_waits_for_its_parent_and_gets_its_result(main: World, task_id: str) -> None:
    parent = f"{task_id}-parent"
    await enqueue(main, {"do": "hold"}, id=parent)
    async with main.overhear(schedule_subject(QUEUE, task_id)) as schedules:
        child = record(
            task_id,
            state=TaskState.BLOCKED,
            dependencies=(parent,),
            load_dependencies=True,
            payload=b'{"do": "parents"}',
        )
        await store_task(main, child)
        await schedules.message()
        waiting = await main.client.load(task_id)
    assert (waiting.state, waiting.tries) == (TaskState.BLOCKED, 0)
    handlers = main.crew.running("handlers")
    for each in handlers:
        each.tell(f"release {parent} 1")
    before = await main.ended(parent)
    ended = await main.ended(task_id)
    assert (before.state, ended.state, ended.tries) == (TaskState.COMPLETE, TaskState.COMPLETE, 1)
    [parent_end] = [line for line in main.journal() if line["task"] == parent and line["what"] == "ended"]
    [call] = main.calls(task_id)
    assert parent_end["at"] < call["at"]
    seen = await main.client.result(task_id)
    assert json.loads(b64decode(seen[parent]))["id"] == parent


async def test_the_child_of_a_parent_that_failed_is_unreachable(main: World, task_id: str) -> None:
    parent = f"{task_id}-parent"
    await enqueue(main, {"do": "terminate"}, id=parent)
    await main.ended(parent)
    async with main.overhear("CHORIA_AJ.X.>") as letters:
        await store_task(main, record(task_id, state=TaskState.BLOCKED, dependencies=(parent,)))
        ended = await main.ended(task_id)
        letter = await dead_letter(letters, task_id)
    assert (ended.state, ended.tries) == (TaskState.UNREACHABLE, 0)
    assert parent in ended.last_err
    assert "terminated" in ended.last_err
    assert letter.subject == f"CHORIA_AJ.X.unreachable.{QUEUE}.{task_id}"
    assert main.calls(task_id) == []


async def test_the_child_of_a_parent_that_was_never_stored_is_unreachable(main: World, task_id: str) -> None:
    await store_task(main, record(task_id, state=TaskState.BLOCKED, dependencies=(f"{task_id}-nobody",)))
    ended = await main.ended(task_id)
    assert (ended.state, ended.tries) == (TaskState.UNREACHABLE, 0)
    assert f"{task_id}-nobody was not found" in ended.last_err
    assert main.calls(task_id) == []


# Results and names.


async def test_a_result_of_any_bytes_is_stored_as_it_is(main: World, task_id: str) -> None:
    await enqueue(main, {"do": "binary"}, id=task_id)
    assert await main.client.result_bytes(task_id, timeout=main.patience(30)) == BINARY
    raw = await main.client.store.jetstream.last("CHORIA_AJ_TASKS", task_subject(task_id))
    assert raw is not None
    assert b64decode(json.loads(raw.data)["result"]["payload"]) == BINARY


async def test_a_result_that_fits_a_reply_but_no_record_ends_the_task_with_that_reason(
    main: World, task_id: str
) -> None:
    async with main.overhear("CHORIA_AJ.X.>") as letters:
        await enqueue(main, {"do": "big", "bytes": 900_000}, id=task_id)
        ended = await main.ended(task_id)
        letter = await dead_letter(letters, task_id)
    assert (ended.state, ended.tries, ended.result) == (TaskState.TERMINATED, 1, None)
    assert "a message takes 1048576" in ended.last_err
    assert letter.subject.startswith("CHORIA_AJ.X.terminated.")
    assert len(main.calls(task_id)) == 1


async def test_a_result_that_fits_no_reply_ends_the_task_with_that_reason(main: World, task_id: str) -> None:
    await enqueue(main, {"do": "big", "bytes": 1_048_577}, id=task_id)
    ended = await main.ended(task_id)
    assert (ended.state, ended.tries) == (TaskState.TERMINATED, 1)
    assert "1048577 bytes is too large" in ended.last_err


async def test_an_error_text_crosses_with_its_accents_and_without_its_control_characters(
    main: World, task_id: str
) -> None:
    await enqueue(main, {"do": "bad_text"}, id=task_id)
    ended = await main.ended(task_id)
    assert ended.state is TaskState.TERMINATED
    assert ended.last_err.startswith("dépassé ☃ 😀")
    assert "second line" in ended.last_err
    assert not set(ended.last_err) & set("\r\n\x00")
    assert "\n" in BAD_TEXT  # so the line above says something


@pytest.mark.parametrize("length", [64, 128])
async def test_an_id_may_be_long(main: World, length: int) -> None:
    task_id = f"{time.time_ns()}-".ljust(length, "x")
    await enqueue(main, {"do": "later", "ms": 10}, id=task_id)
    ended = await main.ended(task_id)
    assert (ended.state, ended.tries, len(ended.id)) == (TaskState.COMPLETE, 2, length)


# What can't be processed. The queue NARROW hands out one item at a time, so that one which is not let go of would hold
# up the task behind it for its lease of ten minutes.


async def is_quarantined(world: World, task_id: str, publish: Any, *, subject: str = "") -> Message:
    """Do something bad to the queue NARROW, and return the dead letter that it leaves."""
    async with world.overhear("CHORIA_AJ.X.>") as letters:
        await publish
        letter = await letters.message(
            lambda message: message.subject == (subject or f"CHORIA_AJ.X.quarantined.NARROW.{task_id}")
        )
    follower = await world.client.enqueue("work", {"do": "ok"}, queue="NARROW")
    assert (await world.ended(follower.id)).state is TaskState.COMPLETE
    assert world.calls(task_id) == []
    stored = await world.client.store.jetstream.last("CHORIA_AJ_DEAD", letter.subject)
    assert stored is not None
    assert stored.data == letter.data
    return letter


def publish_item(world: World, task_id: str, body: bytes) -> Any:
    return world.client.store.jetstream.publish(item_subject("NARROW", task_id), body)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"\xff\x00 no JSON", "work item"),
        (b"", "work item"),
        (b'{"kind":7,"job":"%s"}', "work item: kind"),
        (b'{"kind":0,"job":"*"}', "work item: job"),
        (b'{"kind":0,"job":">"}', "work item: job"),
        (b'{"kind":0,"job":"somebody-else"}', "stands under the subject of"),
    ],
    ids=["garbage", "empty", "kind", "star", "greater", "other"],
)
async def test_an_item_that_names_no_task_is_a_dead_letter(
    narrow: World, task_id: str, body: bytes, fault: str
) -> None:
    # The task is there, so that a careless look-up would find one; it must not run.
    await narrow.client.store.save(record(task_id, queue="NARROW"), expected=0)
    body = body.replace(b"%s", task_id.encode())
    letter = await is_quarantined(narrow, task_id, publish_item(narrow, task_id, body))
    assert letter.data == body
    assert fault in headers_of(letter)["AJ-Dead-Detail"]
    assert (await narrow.client.load(task_id)).state is TaskState.NEW


async def test_an_item_without_a_task_is_a_dead_letter(narrow: World, task_id: str) -> None:
    letter = await is_quarantined(narrow, task_id, narrow.client.store.publish_item("NARROW", task_id))
    assert headers_of(letter)["AJ-Dead-Detail"] == "task not found"
    assert json.loads(letter.data) == {"kind": 0, "job": task_id}


async def test_an_item_on_a_subject_of_its_own_making_is_a_dead_letter(narrow: World, task_id: str) -> None:
    # It names a task that is there, and its subject ends in it, but it is not where that task's item stands.
    await narrow.client.store.save(record(task_id, queue="NARROW"), expected=0)
    subject = f"{item_subject('NARROW', 'aside')}.{task_id}"
    publish = narrow.client.store.jetstream.publish(subject, b'{"kind":0,"job":"%s"}' % task_id.encode())
    letter = await is_quarantined(narrow, task_id, publish, subject="CHORIA_AJ.X.quarantined.NARROW._")
    assert f"stands under the subject of 'aside.{task_id}'" in headers_of(letter)["AJ-Dead-Detail"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "task"),
        (b'{"id":"%s","type":"work","queue":"NARROW","created":"yesterday","state":"new"}', "created"),
        (b'{"id":"%s","type":"work","queue":"NARROW","created":"2026-01-01T00:00:00Z","state":"bored"}', "state"),
        (b'{"id":"another","type":"work","queue":"NARROW","created":"2026-01-01T00:00:00Z","state":"new"}', "another"),
    ],
    ids=["garbage", "time", "state", "id"],
)
async def test_a_record_that_can_not_be_read_is_a_dead_letter_as_it_was(
    narrow: World, task_id: str, body: bytes, fault: str
) -> None:
    body = body.replace(b"%s", task_id.encode())
    await narrow.client.store.jetstream.publish(task_subject(task_id), body)
    letter = await is_quarantined(narrow, task_id, narrow.client.store.publish_item("NARROW", task_id))
    assert letter.data == body
    assert fault in headers_of(letter)["AJ-Dead-Detail"]


async def test_a_stale_item_of_a_task_that_moved_to_another_queue_is_let_go(narrow: World, task_id: str) -> None:
    await narrow.client.store.save(record(task_id, queue="ELSEWHERE"), expected=0)
    await narrow.client.store.publish_item("NARROW", task_id)
    follower = await narrow.client.enqueue("work", {"do": "ok"}, queue="NARROW")
    assert (await narrow.ended(follower.id)).state is TaskState.COMPLETE
    assert (await narrow.client.load(task_id)).state is TaskState.NEW
    assert narrow.calls(task_id) == []


async def test_a_task_that_was_done_is_not_done_again_when_its_item_comes_once_more(
    narrow: World, task_id: str
) -> None:
    result = TaskResult(payload="", completed_ns=1)
    done = record(task_id, queue="NARROW", state=TaskState.COMPLETE, tries=1, result=result)
    await narrow.client.store.save(done, expected=0)
    await narrow.client.store.publish_item("NARROW", task_id)
    follower = await narrow.client.enqueue("work", {"do": "ok"}, queue="NARROW")
    await narrow.ended(follower.id)
    assert await narrow.client.load(task_id) == done
    assert narrow.calls(task_id) == []


# One type without a handler, and the others.


async def test_a_type_whose_handler_stopped_does_not_delay_another(world: World) -> None:
    handlers = {task_type: world.crew.handlers(task_type) for task_type in ("gone", "there")}
    bridge = world.crew.bridge("Q", "--max-concurrent", "5", "--concurrency", "5")
    await world.ready(*handlers.values(), bridge)
    handlers["gone"].terminate()
    assert await handlers["gone"].ended() == 0
    waiting = await world.client.enqueue_many([("gone", {})] * 30, queue="Q")
    async with world.overhear("CHORIA_AJ.E.task_state.*") as events:
        others = await world.client.enqueue_many([("there", {})] * 30, queue="Q")
        for count in range(1, len(others) + 1):
            await events.state("complete", count=count)
        # Each of the 30 found the five slots of the queue free in turn, while 30 tasks without a handler were ahead.
        done = [json.loads(message.data) for message in events.messages]
        latest = max(event["task_age"] for event in done if event["state"] == "complete")
        assert latest < world.patience(2) * 1e9
        back = world.crew.handlers("gone")
        await world.ready(back)
        began = time.monotonic()
        for task in waiting:
            ended = await world.ended(task.id)
            assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    assert time.monotonic() - began < world.patience(3)


async def test_tasks_that_wait_hold_no_slots(world: World) -> None:
    bridge = world.crew.bridge("Q", "--max-concurrent", "2", "--concurrency", "2")
    await world.ready(bridge, world.crew.handlers("work"))
    delayed = await world.client.enqueue_many([("work", {"do": "later", "ms": 3_600_000})] * 20, queue="Q")
    async with world.overhear("CHORIA_AJ.D.S.>") as parked:
        for number in range(20):
            child = record(f"child-{number}", queue="Q", state=TaskState.BLOCKED, dependencies=(delayed[number].id,))
            await store_task(world, child)
        canary = await world.client.enqueue("work", {}, queue="Q")
        assert (await world.ended(canary.id)).state is TaskState.COMPLETE
        for number in range(20):
            await parked.message(is_about(f"child-{number}"))
    # The canary came behind all of them, and there are two slots.
    assert len(world.calls(*(task.id for task in delayed))) == 20
    info = await world.client.admin.queue_info("Q")
    assert info.parked == 40


# Stopping.


async def hold_two_of_five(world: World, bridge: Process) -> tuple[list[str], list[str]]:
    """Have a bridge with two slots take two of five tasks; returns those that began and those that did not."""
    await world.ready(bridge)
    tasks = await world.client.enqueue_many([("work", {"do": "hold"})] * 5, queue="Q")
    handlers = world.crew.running("handlers")[0]
    await handlers.says("^began ", count=2)
    began = [line["task"] for line in world.journal()]
    return began, [task.id for task in tasks if task.id not in began]


async def test_sigterm_lets_tasks_in_hand_finish_and_gives_the_others_back(world: World) -> None:
    handlers = world.crew.handlers("work")
    await world.ready(handlers)
    # The lease is so long that nothing comes back because it ran out.
    bridge = world.crew.bridge("Q", "--concurrency", "2", lease="10m")
    began, others = await hold_two_of_five(world, bridge)
    bridge.terminate()
    await bridge.logs("waiting for 2 tasks in hand")
    for task_id in began:
        handlers.tell(f"release {task_id} 1")
    assert await bridge.ended() == 0
    for task_id in began:
        ended = await world.client.load(task_id)
        assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)
    for task_id in others:
        left = await world.client.load(task_id)
        assert (left.state, left.tries) == (TaskState.NEW, 0)
        handlers.tell(f"release {task_id} 1")
    await world.ready(world.crew.bridge("Q", create=False))
    for task_id in others:
        ended = await world.ended(task_id)
        assert (ended.state, ended.tries) == (TaskState.COMPLETE, 1)


async def test_tasks_in_hand_at_the_end_of_the_drain_timeout_are_left_to_their_lease(world: World) -> None:
    handlers = world.crew.handlers("work")
    await world.ready(handlers)
    bridge = world.crew.bridge("Q", "--concurrency", "2", "--drain-timeout", "100ms")
    began, _ = await hold_two_of_five(world, bridge)
    bridge.terminate()
    assert await bridge.ended() == 1
    for task_id in began:
        assert (await world.client.load(task_id)).state is TaskState.ACTIVE
    await world.ready(world.crew.bridge("Q", create=False))
    for task_id in began:
        await handlers.says(f"^began {task_id} 2$")


async def test_a_second_sigterm_does_not_wait_for_tasks_in_hand(world: World) -> None:
    handlers = world.crew.handlers("work")
    await world.ready(handlers)
    bridge = world.crew.bridge("Q", "--concurrency", "2", "--drain-timeout", "1h")
    began, _ = await hold_two_of_five(world, bridge)
    bridge.terminate()
    await bridge.logs("waiting for 2 tasks in hand")
    bridge.terminate()
    assert await bridge.ended() == 1
    for task_id in began:
        assert (await world.client.load(task_id)).state is TaskState.ACTIVE


# What an operator sees.


async def test_the_metrics_tell_what_happened(world: World, free_port: int) -> None:
    bridge = world.crew.bridge("Q", "--monitor", f"127.0.0.1:{free_port}")
    handlers = world.crew.handlers("work")
    await world.ready(bridge, handlers)
    store = world.client.store

    def read() -> Mapping[str, float]:
        return read_metrics(f"http://127.0.0.1:{free_port}/metrics")

    held = await enqueue(world, {"do": "hold"}, queue="Q")
    await handlers.says(f"^began {held} 1$")
    assert (await asyncio.to_thread(read))["handler_busy_count"] == 1
    handlers.tell(f"release {held} 1")
    async with world.overhear("CHORIA_AJ.X.>") as letters:
        ids = [held, await enqueue(world, {}, queue="Q"), await enqueue(world, {"do": "terminate"}, queue="Q")]
        ids.append(await enqueue(world, {"do": "later", "ms": 10}, queue="Q"))
        ids.append(await enqueue(world, {}, type="absent", queue="Q", deadline=timedelta(seconds=world.patience(1))))
        past = record("past", queue="Q", deadline_ns=time.time_ns() - 1)
        used_up = record("used-up", queue="Q", state=TaskState.RETRY, tries=3, max_tries=3)
        orphan = record("orphan", queue="Q", state=TaskState.BLOCKED, dependencies=("nobody",))
        for task in (past, used_up, orphan):
            await store_task(world, task)
            ids.append(task.id)
        await store.publish_item("Q", "unknown")
        await store.jetstream.publish(item_subject("Q", "corrupt"), b"{")
        for task_id in ids:
            await world.ended(task_id)
        for task_id in ("unknown", "corrupt"):
            await dead_letter(letters, task_id)
    metrics = await asyncio.to_thread(read)
    nobody = metrics['bridge_no_responders_total{queue="Q",type="absent"}']
    assert nobody >= 1
    expected = {
        'task_update_total{state="active"}': 5 + nobody,
        'task_update_total{state="complete"}': 3,
        'task_update_total{state="terminated"}': 1,
        'task_update_total{state="unreachable"}': 1,
        'task_update_total{state="expired"}': 3,
        'queue_item_corrupt_error_count{queue="Q"}': 1,
        'queue_task_not_found_error_count{queue="Q"}': 1,
        'queue_task_past_deadline_count{queue="Q"}': 2,
        'queue_task_past_max_tries_count{queue="Q"}': 1,
        "task_dependencies_failed": 1,
        'handler_error_total{queue="Q",type="work"}': 2,
        'handler_runtime_count{queue="Q",type="work"}': 5,
        "handler_busy_count": 0,
        'bridge_quarantined_total{queue="Q"}': 2,
    }
    assert {name: metrics.get(name) for name in expected} == expected, metrics
    assert metrics['queue_poll_total{queue="Q"}'] > 0
    assert metrics['handler_runtime_sum{queue="Q",type="work"}'] > 0


async def test_it_says_on_one_line_that_it_is_ready(world: World) -> None:
    bridge = world.crew.bridge("Q")
    line = await bridge.says("ready")
    assert "Q" in line
    bridge.interrupt()
    assert await bridge.ended() == 0
    assert bridge.out == [line]


async def test_each_line_of_the_log_is_json_when_asked_for(world: World) -> None:
    bridge = world.crew.bridge("Q", "--log-format", "json", "--log-level", "debug")
    await world.ready(bridge, world.crew.handlers("work"))
    task_id = await enqueue(world, {"do": "bad_text"}, queue="Q")
    await world.ended(task_id)
    bridge.terminate()
    assert await bridge.ended() == 0
    lines = [json.loads(line) for line in bridge.err]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    about = [line for line in lines if line.get("task_id") == task_id]
    [terminated] = [line for line in about if "terminated a task" in line["message"]]
    assert (terminated["level"], terminated["task_type"], terminated["queue"]) == ("info", "work", "Q")
    assert "dépassé ☃ 😀" in terminated["message"]


async def complaint(world: World, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run `aj-bridge run` with something wrong; return its exit code and the one line that it said."""
    process = world.crew.start("run", sys.executable, "-m", "aj_bridge", "run", *arguments, **settings)
    code = await process.ended()
    assert process.out == []
    if len(process.err) != 1:
        process.fail("should have said one line")
    return code, process.err[0]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--queue", "no.such"], 2, ["--queue", "no.such", "A-Z a-z 0-9 _ : -"]),
        (["--queue", "MISSING"], 1, ["MISSING", "ajc queue add"]),
        (["--server", "nats://127.0.0.1:1", "--queue", "Q"], 1, ["cannot connect to", "127.0.0.1:1"]),
        (["--server", "http://127.0.0.1", "--queue", "Q"], 2, ["http"]),
        (["--context", "nowhere", "--queue", "Q"], 2, ["nowhere"]),
        (["--context", "broken", "--queue", "Q"], 2, ["broken"]),
        (["--config", "{folder}/broken.toml"], 2, ["broken.toml:2"]),
        (["--config", "{folder}/absent.toml"], 2, ["absent.toml"]),
        (["--config", "{folder}/unknown.toml"], 2, ["unknown.toml:1", "concurency", "concurrency"]),
        (["--colour"], 2, ["--colour"]),
        (["--concurrency", "0", "--log-level", "loud"], 2, ["--concurrency", "--log-level"]),
        (["--create", "--lease", "soon"], 2, ["--lease", "soon"]),
        (["--queue", "Q", "--lease", "3s"], 2, ["--lease", "--create"]),
        (["--queue", "Q", "--create", "--monitor", "{taken}"], 2, ["monitor", "{taken}"]),
        (["--remote", "a b", "--queue", "Q"], 2, ["--remote", "a b"]),
        (["work"], 2, ["work"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
async def test_what_is_wrong_is_said_on_one_line(
    main: World, tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    (tmp_path / "broken.toml").write_text('queue = "Q"\nconcurrency = = 3\n')
    (tmp_path / "unknown.toml").write_text("concurency = 3\n")
    contexts = tmp_path / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "broken.json").write_text('{"url": ')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        places = {"folder": str(tmp_path), "taken": f"127.0.0.1:{listener.getsockname()[1]}"}
        given = [argument.format(**places) for argument in arguments]
        if "--server" not in given and "--context" not in given:
            given += ["--server", main.crew.url]
        got, line = await complaint(main, *given, XDG_CONFIG_HOME=str(tmp_path))
    assert got == code, line
    assert line.startswith("aj-bridge: ")
    assert [word for word in words if word.format(**places) not in line] == [], line
