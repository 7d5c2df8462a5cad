"""Children are run with bounds, and nothing of them is left behind: with asyncio's own loop and with uvloop."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.pids import gone

from aj_bridge.engine.children import ChildEnded, ChildLimits, run_child


class World:
    """Runs shell scripts as children, and keeps the lines that they write."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.runner = asyncio.Runner(loop_factory=loop_factory)
        self.errors: list[str] = []
        self.progress: list[str] = []
        self.spoke = asyncio.Event()

    def say(self, line: str) -> None:
        self.errors.append(line)
        self.spoke.set()

    async def child(
        self, script: str, *, stdin: bytes = b"", kill_after: float = 60, max_output: int = 1000
    ) -> ChildEnded:
        return await run_child(
            ["/bin/sh", "-c", script],
            limits=ChildLimits(max_output=max_output, kill_after=kill_after),
            stdin=stdin,
            environ=os.environ,
            on_error_line=self.say,
            on_progress_line=self.progress.append,
        )

    def run(self, script: str, **options: Any) -> ChildEnded:
        return self.runner.run(self.child(script, **options))

    def cancelled(self, script: str, **options: Any) -> None:
        """Run a child, and cancel it once it spoke."""

        async def scenario() -> None:
            child = asyncio.create_task(self.child(script, **options))
            await self.spoke.wait()
            child.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await child
            assert child.cancelled()

        self.runner.run(scenario())


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    with world.runner:
        yield world


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_reads_and_prints(world: World) -> None:
    assert world.run("cat", stdin=b"\x00task\n") == ChildEnded(0, b"\x00task\n", False, "")


def test_it_may_end_without_reading(world: World) -> None:
    assert world.run("echo done", stdin=b"x" * 5_000_000).output == b"done\n"


def test_its_exit_code_and_its_last_complaint_are_told(world: World) -> None:
    ended = world.run("echo first >&2; echo ' no such host ' >&2; echo >&2; exit 75")
    assert (ended.code, ended.complaint) == (75, "no such host")
    assert world.errors == ["first", " no such host ", ""]


def test_a_signal_that_ended_it_is_told(world: World) -> None:
    assert world.run("kill -9 $$").code == -9


def test_its_lines_on_descriptor_3_are_taken(world: World) -> None:
    world.run("echo 0.5 half >&3; echo >&3; printf 'no end' >&3")
    assert world.progress == ["0.5 half", "", "no end"]


def test_a_line_without_an_end_is_cut(world: World) -> None:
    world.run("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo next >&2")
    assert world.errors == ["x" * 8192 + " ...", "next"]


def test_a_child_that_prints_too_much_is_ended(world: World) -> None:
    ended = world.run("yes")
    assert (len(ended.output), ended.overflow, ended.code < 0) == (1000, True, True)


def test_what_fits_exactly_is_not_too_much(world: World) -> None:
    assert not world.run("head -c 1000 /dev/zero").overflow


def test_cancelled_it_is_told_and_may_clean_up(world: World) -> None:
    world.cancelled("trap 'echo cleaned up >&2; exit' TERM; echo began >&2; sleep 1000 & wait")
    assert world.errors == ["began", "cleaned up"]


def test_cancelled_it_is_killed_with_its_children_when_it_does_not_care(world: World) -> None:
    world.cancelled("trap '' TERM; sleep 1000 & echo $! >&2; while :; do wait; done", kill_after=0.1)
    assert gone(int(world.errors[0]))


def test_what_it_left_in_the_background_is_ended(world: World) -> None:
    assert world.run("sleep 1000 & echo $! >&2; echo done").output == b"done\n"
    assert gone(int(world.errors[0]))


def test_no_descriptor_is_left_open(world: World) -> None:
    world.run("true")
    before = open_descriptors()
    for _ in range(3):
        world.run("true")
    assert open_descriptors() == before


def test_a_program_that_is_not_there_is_an_error(world: World) -> None:
    limits = ChildLimits(max_output=10)
    with pytest.raises(FileNotFoundError):
        world.runner.run(run_child(["/no/such"], limits=limits, environ={}, on_error_line=world.say))
