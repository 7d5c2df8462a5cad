"""Cases about processes: several at once, a crash, an orderly stop, a server that goes away, other subjects."""

import asyncio
import contextlib
import json
import time
from typing import Any, Final

from aj_bridge.faces.conformance.cases import Broken, Group, Level
from aj_bridge.faces.conformance.claims import failed, says, succeeded
from aj_bridge.faces.conformance.frames import Frame, Request, request
from aj_bridge.faces.conformance.stand import Gone, Stand
from aj_sdk.discovery import discovery_subject
from aj_sdk.wire.names import HANDLER_QUEUE_GROUP

__all__ = ["GROUP"]

GROUP: Final = Group()
case = GROUP.case
_SUBJECTS: Final = "1-where-requests-come"
_REPLY: Final = "3-the-reply"
_AGAIN: Final = "6-more-than-once"
_STOP: Final = "7-stopping-in-order"
_BURST: Final = 20
_QUIET_S: Final = 0.4
_POLL_S: Final = 0.1
_OTHER_TYPE: Final = "other:type"


async def _burst(stand: Stand, subject: str, number: int, order: dict[str, object], *, answers: int = 0) -> list[Frame]:
    """Send requests at once, and return all replies until it has been quiet for a moment.

    Args:
        stand: where.
        subject: to whom.
        number: how many requests.
        order: what they ask for.
        answers: how many replies to wait for with patience; as many as requests when it is not said.
    """
    frames: list[Frame] = []
    async with stand.inbox() as inbox:
        for n in range(number):
            await stand.send(subject, request(stand.type, json.dumps(order | {"n": n}).encode()), inbox)
        while (
            frame := await inbox.next(5 * stand.patience if len(frames) < (answers or number) else _QUIET_S)
        ) is not None:
            frames.append(frame)
    return frames


def _one_each(frames: list[Frame], number: int) -> None:
    seen = sorted(json.loads(frame.body)["n"] for frame in frames if frame.body.startswith(b"{"))
    says(seen == list(range(number)), f"{number} requests answered once each", f"{len(frames)} replies, to {seen}")


@case("one-answer", Level.MUST, _REPLY, "answers every request, and each once")
async def _one_answer(stand: Stand) -> None:
    _one_each(await _burst(stand, await stand.shared(), _BURST, {"do": "echo"}), _BURST)


@case("ten-at-once", Level.MUST, _SUBJECTS, "works on ten requests at a time")
async def _ten(stand: Stand) -> None:
    subject = await stand.shared()
    each_s = 0.5 * stand.patience  # grows with the limit below, or one after another would be quick enough
    how: dict[str, Any] = {"ms": int(1000 * each_s), "timeout_ms": int(20_000 * stand.patience), "subject": subject}
    began = time.monotonic()
    answers = await asyncio.gather(*(stand.order("sleep", **how) for _ in range(10)))
    took = time.monotonic() - began
    for answer in answers:
        succeeded(answer)
    says(took < 5 * each_s, f"ten requests of {each_s:g} s in less than {5 * each_s:g} s", f"{took:.1f} s")


@case("queue-group", Level.MUST, _SUBJECTS, "joins the queue group, so that of two instances one answers")
async def _queue_group(stand: Stand) -> None:
    subject = await stand.shared()
    await stand.start(stand.type, beside=await stand.listeners(subject))
    _one_each(await _burst(stand, subject, _BURST, {"do": "echo"}), _BURST)


@case("queue-group-name", Level.SHOULD, _SUBJECTS, "joins the group that AJ_QUEUE_GROUP names")
async def _queue_group_name(stand: Stand) -> None:
    subject = await stand.shared()
    await stand.start(stand.type, queue_group="audit", beside=await stand.listeners(subject))
    frames = await _burst(stand, subject, 5, {"do": "echo"}, answers=10)
    says(len(frames) == 10, "two answers to each of 5 requests, one from each group", f"{len(frames)} answers")


@case("found", Level.MAY, "being-found", "shows itself as a NATS micro service, with its subject and group")
async def _found(stand: Stand) -> None:
    wanted = (await stand.shared(), HANDLER_QUEUE_GROUP)
    seen: set[tuple[str, str]] = set()
    deadline = time.monotonic() + 3 * stand.patience  # whoever listens may show itself a moment later
    while wanted not in seen and time.monotonic() < deadline:
        async with stand.inbox() as inbox:
            await stand.send(discovery_subject("INFO"), Request(headers={}, body=b"", invocation=""), inbox)
            with contextlib.suppress(Gone):  # nobody shows itself
                while wanted not in seen and (frame := await inbox.next(_QUIET_S * stand.patience)) is not None:
                    seen.update(_endpoints(frame.body))
        await asyncio.sleep(_POLL_S)
    says(wanted in seen, f"an endpoint on {wanted[0]} in the group q", f"the endpoints {sorted(seen)}")


def _endpoints(body: bytes) -> list[tuple[str, str]]:
    try:
        return [(str(each["subject"]), str(each["queue_group"])) for each in json.loads(body)["endpoints"]]
    except (ValueError, TypeError, KeyError):
        return []


@case("same-id-again", Level.MUST, _AGAIN, "takes a task that it had before, on the same try and on the next")
async def _same_id(stand: Stand) -> None:
    for try_ in (1, 1, 2):
        succeeded(await stand.order("echo", task_id="conformance-again", try_=try_))


@case("prefix", Level.MUST, _SUBJECTS, "takes the tasks of a prefix")
async def _prefix(stand: Stand) -> None:
    process = await stand.start("conformance-prefix:")
    for task_type in ("conformance-prefix:a", "conformance-prefix:b"):
        succeeded(await stand.order("echo", subject=process.subject, task_type=task_type))


@case("catch-all", Level.MUST, _SUBJECTS, "takes the tasks of all types")
async def _catch_all(stand: Stand) -> None:
    process = await stand.start("")
    for task_type in (stand.type, _OTHER_TYPE):
        succeeded(await stand.order("echo", subject=process.subject, task_type=task_type))


@case("crash", Level.MUST, _AGAIN, "leaves no answer and no subscription behind when it dies")
async def _crash(stand: Stand) -> None:
    process = await stand.start("conformance:crash")
    answer = await stand.order("crash", subject=process.subject, seconds=3)
    code = await process.ended(5 * stand.patience)
    says(code is not None, "the process has ended", "it runs on")
    says(answer.final is None, "no answer", answer.text)
    again = await stand.start("conformance:crash")
    succeeded(await stand.order("echo", subject=again.subject, try_=2))


@case("drain-in-hand", Level.MUST, _STOP, "finishes on SIGTERM what it has in hand, and what had reached it")
async def _drain_in_hand(stand: Stand) -> None:
    process = await stand.start("conformance:drain")
    async with stand.inbox() as inbox:
        for n in range(5):
            payload = json.dumps({"do": "sleep", "ms": 600, "n": n}).encode()
            await stand.send(process.subject, request(stand.type, payload), inbox)
        succeeded(await stand.order("ok", subject=process.subject))  # they come in order: the others are in hand
        process.terminate()
        for n in range(5):
            answer = await inbox.answer(5 * stand.patience)
            succeeded(answer, f"5 answers to what was in hand; this is number {n + 1}")


@case("drain-leaves", Level.MUST, _STOP, "takes nothing new after SIGTERM, while it still works on what it has")
async def _drain_leaves(stand: Stand) -> None:
    process = await stand.start("conformance:leave")
    async with stand.inbox() as inbox:
        order = {"do": "sleep", "ms": int(1500 * stand.patience)}
        await stand.send(process.subject, request(stand.type, json.dumps(order).encode()), inbox)
        succeeded(await stand.order("ok", subject=process.subject))
        process.terminate()
        gone = await stand.until_listeners(process.subject, 0, 1.2)
        says(gone, "its subscription gone soon after SIGTERM", "it still listens")
        succeeded(await inbox.answer(5 * stand.patience), "the answer to what was in hand")


@case("drain-ends", Level.MUST, _STOP, "ends soon after SIGTERM when nothing is in hand")
async def _drain_ends(stand: Stand) -> None:
    process = await stand.start("conformance:end")
    process.terminate()
    code = await process.ended(10 * stand.patience)
    says(code is not None, "the process has ended within 10 s", "it runs on")


@case("drain-exit-code", Level.SHOULD, _STOP, "ends with exit code 0 after SIGTERM")
async def _drain_code(stand: Stand) -> None:
    process = await stand.start("conformance:code")
    process.terminate()
    code = await process.ended(10 * stand.patience)
    says(code == 0, "exit code 0", str(code))


@case("reconnect", Level.SHOULD, _STOP, "comes back to a server that was started again")
async def _reconnect(stand: Stand) -> None:
    subject = await stand.shared()
    succeeded(await stand.order("ok", subject=subject))
    stand.server.kill()
    await stand.server.astart()
    deadline = time.monotonic() + 20 * stand.patience
    while True:
        with contextlib.suppress(Gone):
            succeeded(await stand.order("echo", subject=subject, seconds=2))
            return
        if time.monotonic() > deadline:
            raise Broken("an answer within 20 s of the server's return", "nobody listens")
        await asyncio.sleep(0.1)


@case("still-well", Level.MUST, _REPLY, "still answers after all that")
async def _still_well(stand: Stand) -> None:
    failed(await stand.order("fail", error="mailbox full"), "mailbox full")
    succeeded(await stand.order("echo"))
