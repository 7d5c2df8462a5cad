"""The producer for programs without an event loop, against one real server, from real threads and processes."""

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest

from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk import client as clients
from aj_sdk.background import Background
from aj_sdk.blocking import Client
from aj_sdk.enqueue import loaded
from aj_sdk.errors import (
    NotConnectedError,
    OutcomeUnknownError,
    QueueNotFoundError,
    TaskFailedError,
    TaskNotFoundError,
    UsageError,
)
from aj_sdk.graph import chain
from aj_sdk.queue import Queue
from aj_sdk.spec import TaskSpec
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import NS_PER_S

LONG = 30.0


class Managed:
    """Something to keep open; tells what becomes of it."""

    def __init__(self, fails: BaseException | None = None, *, hangs: bool = False) -> None:
        self.fails = fails
        self.hangs = hangs
        self.entering = threading.Event()
        self.left = threading.Event()

    async def __aenter__(self) -> Self:
        self.entering.set()
        if self.fails is not None:
            raise self.fails
        try:
            if self.hangs:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left.set()


class Hanging:
    """A call that never ends by itself."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


async def nothing() -> None: ...


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background(Managed())
    background.open()
    yield background
    background.close()


# The thread.


def test_what_is_managed_is_left_when_it_is_closed_and_closing_again_does_nothing() -> None:
    managed = Managed()
    background = Background(managed)
    background.close()  # not open yet: nothing to close
    background.open()
    assert not managed.left.is_set()
    background.close()
    background.close()
    assert managed.left.is_set()
    assert "aj-blocking" not in {thread.name for thread in threading.enumerate()}


def test_what_opening_raises_comes_to_the_caller_and_it_is_closed_then() -> None:
    background = Background(Managed(OSError("no")))
    with pytest.raises(OSError, match="no"):
        background.open()
    with pytest.raises(UsageError, match="is closed: make a new one"):
        background.call(nothing, "load", LONG)
    with pytest.raises(UsageError, match="opened before: make a new one"):
        background.open()


def test_a_call_before_opening_and_after_closing_says_what_to_do(background: Background) -> None:
    with pytest.raises(UsageError, match="enqueue: the client is not open: use it in `with`, or call open"):
        Background(Managed()).call(nothing, "enqueue", LONG)
    background.close()
    with pytest.raises(UsageError, match=r"load: the client is closed: make a new one with Client\.connect"):
        background.call(nothing, "load", LONG)


def test_a_call_that_takes_too_long_is_stopped_and_its_outcome_unknown(background: Background) -> None:
    hanging = Hanging()
    with pytest.raises(OutcomeUnknownError, match=r"enqueue, stopped after 0\.05 s: no answer in time"):
        background.call(hanging, "enqueue", 0.05)
    assert hanging.cancelled.wait(LONG)


def test_a_timeout_of_the_call_itself_is_left_as_it_is(background: Background) -> None:
    async def own() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        background.call(own, "result", LONG)


def test_closing_ends_the_calls_of_other_threads_with_a_clear_error(background: Background) -> None:
    hanging = Hanging()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(background.call, hanging, "result", None)
        assert hanging.begun.wait(LONG)
        background.close()
        with pytest.raises(UsageError, match="result: the client was closed meanwhile"):
            waiting.result(LONG)


@pytest.mark.parametrize("opening", [True, False], ids=["opening", "calling"])
def test_an_interrupt_stops_what_the_thread_waits_for(background: Background, opening: bool) -> None:
    managed, hanging = Managed(hangs=True), Hanging()
    main = threading.main_thread().ident
    assert main is not None
    wait: Callable[[], Any]
    if opening:
        begun, stopped, wait = managed.entering, managed.left, Background(managed).open
    else:
        begun, stopped, wait = hanging.begun, hanging.cancelled, lambda: background.call(hanging, "result", None)

    def interrupt() -> None:
        begun.wait(LONG)
        signal.pthread_kill(main, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        wait()
    interrupter.join()
    assert stopped.wait(LONG)


def test_in_the_thread_of_an_event_loop_it_says_what_to_use_instead(background: Background) -> None:
    async def wrong() -> None:
        with pytest.raises(UsageError, match=r"use aj_sdk\.Client with await here, or asyncio\.to_thread"):
            Background(Managed()).open()
        with pytest.raises(UsageError, match="would stop the event loop"):
            background.call(nothing, "load", LONG)
        await asyncio.to_thread(background.call, nothing, "load", LONG)

    asyncio.run(wrong())


# The client.


def test_its_methods_have_the_signatures_and_docstrings_of_the_asynchronous_ones() -> None:
    for name in ("enqueue", "enqueue_graph", "load", "cancel", "attempts"):
        ours, theirs = getattr(Client, name), getattr(clients.Client, name)
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert ours.__doc__ == theirs.__doc__
        assert not inspect.iscoroutinefunction(ours)


@pytest.mark.parametrize("name", ["connect", "enqueue_many", "result", "result_bytes"])
def test_methods_with_a_timeout_of_their_own_miss_no_option(name: str) -> None:
    ours = inspect.signature(getattr(Client, name)).parameters
    theirs = inspect.signature(getattr(clients.Client, name)).parameters
    added = {"connect": {"call_timeout"}, "enqueue_many": {"timeout"}}.get(name, set())
    assert ours.keys() - theirs.keys() == added
    assert {each: ours[each].default for each in theirs} == {each: theirs[each].default for each in theirs}


def test_a_call_timeout_that_is_no_length_of_time_is_refused() -> None:
    with pytest.raises(UsageError, match="call_timeout must be more than 0 seconds"):
        Client.connect("nats://localhost", call_timeout=0)


def test_without_a_server_opening_says_so(free_port: int) -> None:
    with pytest.raises(NotConnectedError, match=str(free_port)), Client.connect(f"nats://127.0.0.1:{free_port}"):
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    factor = float(os.environ.get("AJ_TEST_TIMEOUT_FACTOR", "1"))
    with EmbeddedServer(start_timeout=30 * factor) as server:
        yield server.url


@pytest.fixture
def client(url: str, patience: Callable[[float], float]) -> Iterator[Client]:
    with Client.connect(url, timeout=patience(5), call_timeout=patience(60)) as client:
        yield client


def finish(url: str, task_id: str, **changes: Any) -> None:
    """Bring a task to its end as a bridge does."""

    async def save() -> None:
        async with clients.Client.connect(url) as client:
            stored = await loaded(client.store, task_id)
            await client.store.save(stored.readable().replace(**changes), expected=stored.sequence)

    asyncio.run(save())


@pytest.mark.server
def test_a_script_enqueues_waits_and_administers(client: Client, url: str) -> None:
    assert client.admin.create_queue(Queue("SCRIPT", max_tries=7)).name == "SCRIPT"
    assert "SCRIPT" in client.admin.queue_names()

    task = client.enqueue("email:new", {"to": "a"}, queue="SCRIPT")
    assert client.load(task.id) == task
    with pytest.raises(TimeoutError):
        client.result(task.id, timeout=0.05)
    finish(url, task.id, state=TaskState.COMPLETE, result=TaskResult(payload="MTc=", completed_ns=NS_PER_S))
    assert client.result(task.id, timeout=LONG) == 17
    assert client.result(task.id, timeout=LONG, as_type=int) == 17
    assert client.result_bytes(task.id, timeout=LONG) == b"17"
    assert client.attempts(task.id) == []

    assert client.enqueue("email:new", queue="SCRIPT", id="first").id == "first"
    assert client.cancel("first", reason="why").last_err == "cancelled: why"
    with pytest.raises(TaskFailedError):
        client.result("first", timeout=LONG)
    assert client.admin.tasks.retry("first").state is TaskState.NEW
    assert client.admin.tasks.run_now("first").task.id == "first"
    assert client.admin.tasks.cancel("first").state is TaskState.TERMINATED
    client.admin.tasks.delete("first")
    with pytest.raises(TaskNotFoundError):
        client.load("first")

    both = client.enqueue_graph(chain(TaskSpec("a:b"), TaskSpec("a:c")), queue="SCRIPT")
    assert [each.state for each in both] == [TaskState.NEW, TaskState.BLOCKED]

    client.admin.delete_queue("SCRIPT")
    with pytest.raises(QueueNotFoundError):
        client.enqueue("email:new", queue="ELSEWHERE")


@pytest.mark.server
def test_many_are_read_in_the_callers_thread_and_given_back_in_order(client: Client) -> None:
    readers = set()

    def tasks() -> Iterator[tuple[str, int]]:
        for number in range(50):
            readers.add(threading.get_ident())
            yield "many:each", number

    stored = client.enqueue_many(tasks(), timeout=LONG)
    assert [each.payload for each in stored] == [str(number).encode() for number in range(50)]
    assert readers == {threading.get_ident()}
    mixed = client.enqueue_many([("many:each", 1), TaskSpec("many:each", queue="NOWHERE")], return_errors=True)
    assert [type(each) for each in mixed] == [TaskRecord, QueueNotFoundError]


@pytest.mark.server
def test_twenty_threads_enqueue_at_once_through_one_connection(client: Client) -> None:
    together = threading.Barrier(20)

    def work(number: int) -> list[str]:
        together.wait(LONG)
        return [client.enqueue("thread:each", each, id=f"thread-{number}-{each}").id for each in range(10)]

    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(work, range(20)))
    assert done == [[f"thread-{number}-{each}" for each in range(10)] for number in range(20)]
    assert [client.load(each).payload for each in done[19]] == [str(each).encode() for each in range(10)]


FORKING = """
import os, sys
from aj_sdk import UsageError
from aj_sdk.blocking import Client

url = sys.argv[1]
with Client.connect(url) as client:
    before = client.enqueue("fork:each")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        for call in (lambda: client.load(before.id), client.open):
            try:
                call()
            except UsageError as err:
                print(str(err).replace(str(os.getpid()), "CHILD").replace(str(os.getppid()), "PARENT"))
        client.close()  # the parent's: stays open
        with Client.connect(url) as own:
            print(own.load(before.id).type)
        sys.exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    print(os.fdopen(reading).read(), end="")
    print(status, client.load(before.id).type)
kept = Client.connect(url)
kept.open()
print(kept.load(before.id).type)  # and the program ends without closing it
"""


@pytest.mark.server
def test_a_forked_process_is_told_to_make_its_own_client_and_leaves_the_parents_alone(
    url: str, patience: Callable[[float], float]
) -> None:
    command = [sys.executable, "-X", "dev", "-W", "ignore::ResourceWarning", "-c", FORKING, url]
    began = time.monotonic()
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(60))
    told = (
        "the client was opened in process PARENT, from which this one, CHILD, was forked:"
        " a connection can't be shared, so make a client in each process, after the fork"
    )
    assert (found.stdout.splitlines(), found.stderr, found.returncode) == (
        [f"load: {told}", f"open: {told}", "fork:each", "0 fork:each", "fork:each"],
        "",
        0,
    )
    assert time.monotonic() - began < patience(20)
