"""Threads for plain functions."""

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from aj_sdk.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads()
    yield pool
    pool.close()


async def test_a_call_runs_beside_the_loop(threads: Threads) -> None:
    assert await threads.submit(threading.get_ident) != threading.get_ident()


async def test_one_thread_serves_calls_that_follow_each_other(threads: Threads) -> None:
    assert len({await threads.submit(threading.get_ident) for _ in range(50)}) == 1


async def test_calls_at_the_same_time_have_threads_of_their_own(threads: Threads) -> None:
    barrier = threading.Barrier(8, timeout=30)

    def meet() -> int:
        barrier.wait()
        return threading.get_ident()

    for _ in range(3):
        assert len(set(await asyncio.gather(*(threads.submit(meet) for _ in range(8))))) == 8


async def test_a_call_sees_the_context_that_it_was_made_in(threads: Threads) -> None:
    name = contextvars.ContextVar("name", default="none")
    name.set("mine")

    assert await threads.submit(name.get) == "mine"
    await threads.submit(lambda: name.set("theirs"))
    assert name.get() == "mine"


async def test_threads_end_when_they_are_told_to(threads: Threads) -> None:
    thread = await threads.submit(threading.current_thread)
    threads.close()

    await asyncio.to_thread(thread.join, 30)
    assert not thread.is_alive()


async def test_nobody_is_told_of_a_call_that_was_given_up(threads: Threads) -> None:
    let_go = threading.Event()
    future = threads.submit(lambda: let_go.wait(30))
    future.cancel()
    let_go.set()

    assert await threads.submit(lambda: "next") == "next"
    assert future.cancelled()


def test_a_call_may_outlive_its_loop(threads: Threads) -> None:
    let_go = threading.Event()
    done = threading.Event()

    def call() -> None:
        let_go.wait(30)

    async def submit() -> threading.Thread:
        thread = await threads.submit(threading.current_thread)
        left = [threads.submit(call), threads.submit(done.set)]
        assert not any(future.done() for future in left)
        return thread

    thread = asyncio.run(submit())
    let_go.set()
    assert done.wait(30)
    threads.close()
    thread.join(30)
    assert not thread.is_alive()


def test_a_call_that_hangs_does_not_keep_the_program() -> None:
    program = """
import asyncio, threading
from aj_sdk.threads import Threads

async def main():
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    Threads().submit(lambda: (loop.call_soon_threadsafe(begun.set), threading.Event().wait()))
    await begun.wait()

asyncio.run(main())
print("ended")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
