"""Routes of a real bridge: a command, a Python module, remote handlers, and types that have none."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from tests.acceptance.test_acts import ajc
from tests.acceptance.world import World

from aj_sdk.queue import Queue
from aj_sdk.wire.attempt import AttemptOutcome
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance


async def test_each_type_goes_where_its_route_says(world: World, tmp_path: Path) -> None:
    command = tmp_path / "command"
    command.write_text(
        '#!/bin/sh\ncase "$CHORIA_AJ_TASK_TRY" in 1) echo busy >&2; exit 75;; esac\n'
        """grep -o '"id":"[^"]*"' "$CHORIA_AJ_TASK"\n"""
    )
    command.chmod(0o755)
    (tmp_path / "handlers_of_a_bridge.py").write_text(
        "from aj_sdk import service, Task\n\n"
        "@service('local')\ndef local(task: Task) -> str:\n    return f'local {task.tries}'\n"
    )
    config = tmp_path / "bridge.toml"
    config.write_text(
        f"""
        [[route]]
        type = "shell:"
        command = "{command}"
        backoff = "100ms"

        [[route]]
        type = "work"
        """
    )
    run = [sys.executable, "-m", "aj_bridge", "run", "--server", world.crew.url, "--queue", "Q", "--create"]
    more = ["--config", str(config), "--app", "handlers_of_a_bridge"]
    bridge = world.crew.start("bridge", *run, *more, PYTHONPATH=str(tmp_path))
    await world.ready(bridge, world.crew.handlers("work"))
    async with world.overhear("CHORIA_AJ.E.task_state.*") as events:
        for task_id, task_type in (("a", "shell:id"), ("b", "local"), ("c", "work"), ("d", "other")):
            await world.client.enqueue(task_type, {"do": "ok"}, queue="Q", id=task_id)
        unrouted = await events.state("retry", task_id="d")
        assert unrouted["last_error"] == "no route for task type 'other'"
    shell = await world.ended("a")
    assert (shell.state, shell.tries) == (TaskState.COMPLETE, 2)
    assert await world.client.result_bytes("a") == b'"id":"a"\n'
    assert await world.client.result_bytes("b") == b"local 1"
    assert (await world.ended("c")).state is TaskState.COMPLETE
    (attempt,) = await world.client.attempts("a")
    assert (attempt.try_, attempt.outcome, attempt.error) == (1, AttemptOutcome.FAILED, "busy")
    assert (attempt.kind, attempt.handler) == ("command", str(command))
    shown = await ajc(world, "task", "view", "a", "--server", world.crew.url)
    assert "Attempts" in shown
    assert "busy" in shown
    viewed = json.loads(await ajc(world, "task", "view", "a", "--json", "--server", world.crew.url))
    assert [each["outcome"] for each in viewed["attempts"]] == ["failed"]
    await world.client.admin.tasks.delete("a")
    assert await world.client.attempts("a") == []


async def test_the_go_projects_task_process_is_a_bridge_of_one_type(world: World, tmp_path: Path) -> None:
    command = tmp_path / "command"
    command.write_text('#!/bin/sh\necho "40% rendering" >&3\necho "$CHORIA_AJ_TASK_ID"\n')
    command.chmod(0o755)
    await world.client.admin.create_queue(Queue("Q"))
    process = [sys.executable, "-m", "aj_bridge.faces.cli.main", "ajc", "--server", world.crew.url, "task", "process"]
    running = world.crew.start("bridge", *process, "image:", "Q", "2", str(command), "--discard-expired")
    await world.ready(running)
    async with world.client.progress() as told:
        task = await world.client.enqueue("image:thumbnail", {}, queue="Q")
        assert await world.client.result_bytes(task.id, timeout=world.patience(30)) == f"{task.id}\n".encode()
        progress = await asyncio.wait_for(anext(told), world.patience(30))
        assert (progress.task_id, progress.fraction, progress.note) == (task.id, 0.4, "rendering")
    running.terminate()
    assert await running.ended() == 0
    remote = world.crew.start("bridge", *process, "work", "Q", "2", "--remote")
    await world.ready(remote, world.crew.handlers("work"))
    assert (await world.ended((await world.client.enqueue("work", {}, queue="Q")).id)).state is TaskState.COMPLETE
