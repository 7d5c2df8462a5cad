"""`--journal`: a real bridge writes down its steps, and keeps secrets to itself."""

import json
from pathlib import Path

import pytest
from tests.acceptance.world import World

from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance


async def test_a_bridge_writes_down_its_steps_and_no_secret(world: World, tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    bridge, handlers = world.crew.bridge("Q", "--journal", str(path)), world.crew.handlers("work")
    await world.ready(bridge, handlers)
    secret = "hunter2"
    order = {"do": "terminate", "error": secret}
    task = await world.client.enqueue("work", order, queue="Q")
    assert (await world.ended(task.id)).state is TaskState.TERMINATED
    bridge.terminate()
    assert await bridge.ended() == 0
    text = path.read_text()
    steps = [json.loads(line) for line in text.splitlines()]
    assert [step["step"] for step in steps] == [
        *("start", "claim", "load", "decision", "save", "event", "call", "reply", "decision", "save", "event"),
        *("dead_letter", "ack", "attempt", "stop"),
    ]
    assert secret not in text
