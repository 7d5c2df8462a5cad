"""External commands as handlers: real processes."""

import asyncio
import contextlib
import logging
import os
import re
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.bridge.engine.hearing import Hearing

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.commands import Commands, check_command
from aj_bridge.engine.router import Invocation, Outcome, Route, RouteKind
from aj_sdk.errors import UsageError
from aj_sdk.wire.call import Cause, Completed, Failed, Terminated
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S, parse_time

RECORD = TaskRecord(
    id="a", type="email:new", queue="Q", state=TaskState.ACTIVE, created_ns=1, tries=3, payload=b'{"to": "someone"}'
)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Write a shell script."""

    def write(text: str) -> Path:
        path = tmp_path / f"command-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write


async def run(
    command: Path, *, run_time_ns: int = 60 * NS_PER_S, hearing: Hearing | None = None, **environ: str
) -> Outcome:
    teller = (hearing or Hearing()).teller()
    dispatch = Commands(Clock(), teller, max_output=1 << 20, environ={**os.environ, **environ})
    route = Route(type="email:", kind=RouteKind.COMMAND, command=command)
    return await dispatch.call(Invocation("b1.7", RECORD, route, run_time_ns))


async def gone(pid: int) -> None:
    """Wait until a process has ended; one that nobody has waited for yet has ended, too."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            await asyncio.to_thread(select.select, [descriptor], [], [])
        finally:
            os.close(descriptor)


async def test_it_finds_its_task_in_a_file_and_its_output_is_the_result(script: Callable[[str], Path]) -> None:
    outcome = await run(script('cat "$CHORIA_AJ_TASK"'))
    assert isinstance(outcome, Completed)
    assert TaskRecord.from_wire(outcome.result) == RECORD


async def test_its_environment_tells_of_the_task(script: Callable[[str], Path]) -> None:
    outcome = await run(script("env"), OTHER="kept")
    assert isinstance(outcome, Completed)
    told = dict(line.split("=", 1) for line in outcome.result.decode().splitlines() if "=" in line)
    deadline_ns = parse_time(told["CHORIA_AJ_DEADLINE"])
    assert 50 * NS_PER_S < deadline_ns - time.time_ns() < 58 * NS_PER_S
    assert {name: told[name] for name in told if name.startswith("CHORIA_AJ_") and name[-2:] not in ("SK", "NE")} == {
        "CHORIA_AJ_TASK_ID": "a",
        "CHORIA_AJ_TASK_TYPE": "email:new",
        "CHORIA_AJ_TASK_TRY": "3",
        "CHORIA_AJ_QUEUE": "Q",
        "CHORIA_AJ_INVOCATION": "b1.7",
    }
    assert told["OTHER"] == "kept"


async def test_only_its_user_can_read_the_task_and_the_file_goes_with_it(script: Callable[[str], Path]) -> None:
    outcome = await run(script('stat -c %a "$CHORIA_AJ_TASK" "$(dirname "$CHORIA_AJ_TASK")"; echo "$CHORIA_AJ_TASK"'))
    assert isinstance(outcome, Completed)
    of_file, of_folder, path = outcome.result.decode().split()
    assert (of_file, of_folder) == ("600", "700")
    assert not Path(path).parent.exists()


async def test_its_result_is_kept_byte_for_byte(script: Callable[[str], Path]) -> None:
    assert await run(script(r"printf '\0\377 x\n'")) == Completed(b"\x00\xff x\n")


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("echo out; echo busy >&2; exit 75", Failed("busy")),
        ("echo first >&2; echo no such user >&2; exit 78", Terminated("no such user")),
        ("echo broken >&2; exit 3", Failed("exit code 3: broken")),
        ("kill -9 $$", Failed("ended by SIGKILL")),
    ],
)
async def test_its_exit_code_is_the_verdict(script: Callable[[str], Path], text: str, outcome: Outcome) -> None:
    assert await run(script(text)) == outcome


async def test_ten_megabytes_of_output_end_the_task(script: Callable[[str], Path]) -> None:
    outcome = await run(script("head -c 10000000 /dev/zero"))
    assert outcome == Terminated("the command printed more than 1048576 bytes")


async def test_a_flood_on_standard_error_is_logged_in_part_and_escaped(
    script: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="aj_bridge.engine.commands")
    outcome = await run(script(r"printf '\033[31mred\n' >&2; yes fault | head -n 500000 >&2; echo last >&2; exit 1"))
    assert outcome == Failed("exit code 1: last")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "command-0: \\x1b[31mred"
    assert len(lines) == 1001
    assert lines[-1] == "command-0: wrote more than 1000 lines, the others are not logged"
    record: Any = caplog.records[0]
    assert (record.task_id, record.task_type, record.tries) == ("a", "email:new", 3)


async def test_at_its_deadline_it_is_told_to_end(script: Callable[[str], Path], tmp_path: Path) -> None:
    mark = tmp_path / "told"
    command = script(f"trap 'touch {mark}; exit 0' TERM\nsleep 60 & wait")
    outcome = await run(command, run_time_ns=3 * NS_PER_S)
    assert outcome == Failed("the command did not end within 2.7s, and was ended", cause=Cause.DEADLINE)
    assert mark.exists()


async def test_one_that_does_not_care_is_killed_with_its_children(
    script: Callable[[str], Path], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    command = script(
        f"trap '' TERM\nsleep 600 &\n(trap '' TERM; sleep 600) &\necho $$ $! > {pids}\nwhile :; do wait; done"
    )
    outcome = await run(command, run_time_ns=1 * NS_PER_S)
    assert outcome == Failed("the command did not end within 900ms, and was ended", cause=Cause.DEADLINE)
    for pid in map(int, pids.read_text().split()):
        await gone(pid)


async def test_it_ends_with_its_call(script: Callable[[str], Path]) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    handler = logging.Handler()
    handler.emit = lambda record: said.put_nowait(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("aj_bridge.engine.commands")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        call = asyncio.create_task(run(script("sleep 600 &\necho $$ $! >&2\nwait")))
        *_, pid, child = (await said.get()).split()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    await gone(int(pid))
    await gone(int(child))


async def test_one_that_can_not_be_started_is_a_failed_try(tmp_path: Path) -> None:
    command = tmp_path / "command"
    command.write_text("#!/no/such/interpreter\n")
    command.chmod(0o755)
    outcome = await run(command)
    assert isinstance(outcome, Failed)
    assert re.match(r"exit code 12[67]: .*/command: (not found|.*No such file)", outcome.error)


def test_a_command_is_an_executable_file(script: Callable[[str], Path], tmp_path: Path) -> None:
    command = script("true")
    assert check_command(os.path.relpath(command)) == command
    with pytest.raises(UsageError, match="there is no such file"):
        check_command(tmp_path / "absent")
    with pytest.raises(UsageError, match="there is no such file"):
        check_command(tmp_path)
    command.chmod(stat.S_IRUSR)
    if os.geteuid() == 0 or not os.access(command, os.X_OK):
        with pytest.raises(UsageError, match="the file can't be executed"):
            check_command(command)


async def test_progress_on_descriptor_3_is_told_and_gives_it_its_whole_time_again(
    script: Callable[[str], Path],
) -> None:
    hearing = Hearing()
    steps = "for share in 20% 40% 60% 80%; do sleep 0.6; echo >&3; echo $share rendering >&3; done; echo done"
    assert await run(script(steps), run_time_ns=NS_PER_S * 2, hearing=hearing) == Completed(b"done\n")
    assert [(subject, told.fraction, told.note) for subject, told in hearing.told[:3]] == [
        ("CHORIA_AJ.P.a", fraction, "rendering") for fraction in (0.2, 0.4, 0.6)
    ]


async def test_a_line_on_descriptor_3_that_is_no_progress_is_complained_of_once_and_gives_no_time(
    script: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    hung = script("echo soon >&3; echo soon >&3; echo >&3; exec sleep 60")
    outcome = await run(hung, run_time_ns=NS_PER_S)
    assert isinstance(outcome, Failed)
    assert outcome.cause is Cause.DEADLINE
    assert [record.message for record in caplog.records if "descriptor 3" in record.message] == [
        f"{hung.name}: 'soon' on descriptor 3 is no progress: 0 to 1 or 0% to 100%, then a note"
    ]
