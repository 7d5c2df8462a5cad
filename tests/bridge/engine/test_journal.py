"""What a bridge writes down of its steps: which lines, in which order, and what never stands in them."""

import ast
import asyncio
import json
from pathlib import Path
from typing import Any

from tests.bridge.engine.bridges import DONE, QUEUE, REFUSED, failing, site
from tests.virtual_time import virtual_time

import aj_bridge.engine
from aj_bridge.engine.journal import STEPS
from aj_sdk.wire.call import Completed, Failed

ENGINE = Path(aj_bridge.engine.__file__).parent


def steps_in_the_code() -> set[str]:
    """Find the steps that the engine writes down."""
    return {
        node.value
        for path in ENGINE.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ("note", "of")
        for node in call.args
        if isinstance(node, ast.Constant) and node.value in STEPS
    }


def steps(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["step"] for line in lines]


def test_what_is_documented_is_what_is_written() -> None:
    assert steps_in_the_code() == set(STEPS)


@virtual_time
async def test_a_task_that_fails_and_then_completes_leaves_each_step_in_order() -> None:
    here, lines = site(), list[bytes]()
    here.handlers.answers("t", Failed("the error's text"), Completed(b"the result"))
    async with here.bridge(lines=lines.append):
        here.enqueue("a", payload=b"the payload")
        await here.ended("a")
        await here.quiet()
    first = ["claim", "load", "decision", "save", "event", "call", "reply", "decision"]
    assert steps(lines) == [
        *(*first, "park", "save", "event", "leave", "attempt"),
        *(*first, "save", "event", "ack"),
    ]
    assert all(line.endswith(b"}\n") for line in lines)
    assert b"the " not in b"".join(lines)


@virtual_time
async def test_each_line_says_what_it_is_about() -> None:
    here, lines = site(), list[bytes]()
    async with here.bridge("b", lines=lines.append):
        here.enqueue("a")
        await here.ended("a")
    claim, load, decision, save, *_ = [json.loads(line) for line in lines]
    about = {"bridge": "b", "queue": QUEUE, "task": "a"}
    for line in (claim, load, decision, save):
        assert about.items() <= line.items()
        assert isinstance(line["at"], int)
        assert isinstance(line["monotonic"], float)
    assert claim["item"] == decision["item"] == save["item"] == "1.1"
    assert load["state"] == "new"
    assert (decision["what"], decision["tries"], decision["event"]) == ("start", 1, "started")
    told: dict[str, Any] = {"state": "active", "tries": 1, "expected": load["sequence"], "outcome": "accepted"}
    assert told.items() <= save.items()
    assert save["sequence"] > load["sequence"]


@virtual_time
async def test_a_refused_save_is_told_and_nothing_is_sent_for_the_item_after_it() -> None:
    here, lines = site(), list[bytes]()

    async def overtaken(call: Any) -> Any:
        here.world.put("a", call.task.replace(last_err="somebody else").to_wire())
        return DONE

    here.handlers.on("t", overtaken)
    async with here.bridge(lines=lines.append) as bridge:
        here.enqueue("a")
        await here.until(lambda: bridge.meter.counts["bridge_item_dropped_total"] > 0)
    told = [json.loads(line) for line in lines]
    refused = next(at for at, line in enumerate(told) if line.get("outcome") == "refused")
    after = [line["step"] for line in told[refused + 1 :] if line.get("item") == told[refused]["item"]]
    assert after == ["lost", "drop"]


@virtual_time
async def test_a_save_that_failed_is_told_before_it_is_tried_again() -> None:
    here, lines = site(), list[bytes]()
    async with here.bridge(lines=lines.append) as bridge:
        bridge.link.faults = failing("save", REFUSED)
        here.enqueue("a")
        await here.ended("a")
    saves = [json.loads(line) for line in lines if b'"step":"save"' in line]
    assert [(save["state"], save["outcome"]) for save in saves] == [
        ("active", "failed"),
        ("active", "accepted"),
        ("complete", "accepted"),
    ]


@virtual_time
async def test_i_13_a_claim_that_a_standstill_has_cost_is_not_renewed_any_more() -> None:
    """Found by the row kill-server: refused when it saved `active` again, the bridge renewed the item's lease on."""
    here, lines = site(), list[bytes]()
    here.handlers.takes("slow", 100.0)
    async with here.bridge(lines=lines.append) as bridge:
        here.enqueue("a", "slow")
        await here.handlers.begun(1)
        bridge.link.cut()
        await asyncio.sleep(4)
        here.world.put("a", here.record("a").replace(last_err="somebody else's").to_wire())
        bridge.link.mend()
        await asyncio.sleep(80)
    told = [json.loads(line) for line in lines]
    refused = next(at for at, line in enumerate(told) if line.get("outcome") == "refused")
    renewed = [line for line in told[refused:] if line["step"] == "progress" and line["item"] == told[refused]["item"]]
    assert renewed == []
