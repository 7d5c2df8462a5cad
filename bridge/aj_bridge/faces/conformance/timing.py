"""Cases about deadlines, interim replies and cancelling."""

import json
import time
from typing import Final

from aj_bridge.faces.conformance.cases import Group, Level
from aj_bridge.faces.conformance.claims import failed, says, succeeded
from aj_bridge.faces.conformance.frames import request
from aj_bridge.faces.conformance.stand import Stand
from aj_sdk.wire.names import H_CANCEL_SUBJECT, H_DEADLINE

__all__ = ["GROUP"]

GROUP: Final = Group()
case = GROUP.case
_DEADLINE: Final = "4-the-deadline"
_INTERIM: Final = "8-interim-replies-and-cancelling"
_SOON_MS: Final = 500
_QUIET_S: Final = 0.7
_PAST: Final = "2001-01-01T00:00:00Z"
_FAR: Final = "2999-01-01T00:00:00Z"


@case("deadline-past", Level.MUST, _DEADLINE, "does not begin work whose deadline has passed")
async def _past(stand: Stand) -> None:
    failed(await stand.order("echo", timeout_ms=0))


@case(
    "deadline-past-go", Level.MUST, _DEADLINE, "does not begin it either where a Go worker tells only the time of day"
)
async def _past_go(stand: Stand) -> None:
    failed(await stand.order("echo", timeout_ms=-60_000, go_worker=True))


@case("deadline-in-time", Level.MUST, _DEADLINE, "succeeds when the work ends before the deadline")
async def _in_time(stand: Stand) -> None:
    succeeded(await stand.order("sleep", ms=100, timeout_ms=10_000))


@case("deadline-honoured", Level.MUST, _DEADLINE, "stops at the deadline: what it did after it is no success")
async def _honoured(stand: Stand) -> None:
    answer = await stand.order("sleep", ms=1500, timeout_ms=_SOON_MS, seconds=3)
    says(not answer.succeeded, "AJ-Error at the deadline, or nothing", answer.text)


@case("deadline-told", Level.SHOULD, _DEADLINE, "says AJ-Error at the deadline, while it is still heard")
async def _told(stand: Stand) -> None:
    answer = await stand.order("sleep", ms=60_000, timeout_ms=_SOON_MS, seconds=3)
    failed(answer)
    says(answer.took < 2 * stand.patience, "an answer within 2 s", answer.text)


@case("deadline-relative", Level.SHOULD, _DEADLINE, "goes by AJ-Handler-Timeout-Ms where the clocks disagree")
async def _relative(stand: Stand) -> None:
    succeeded(await stand.order("sleep", ms=20, extra={H_DEADLINE: _PAST}))
    failed(await stand.order("sleep", ms=2500, timeout_ms=_SOON_MS, extra={H_DEADLINE: _FAR}, seconds=5))


@case("interim-unoffered", Level.MUST, _INTERIM, "sends one reply where the request offers no interim ones")
async def _unoffered(stand: Stand) -> None:
    for order in ({"do": "heartbeat", "every_ms": 20, "ms": 100}, {"do": "progress", "steps": 3, "ms": 10}):
        for go_worker in (False, True):
            sent = request(stand.type, json.dumps(order).encode(), go_worker=go_worker)
            answer = await stand.ask(sent)
            succeeded(answer)
            says(not answer.interim, "no AJ-Progress", answer.text)


@case("heartbeat", Level.SHOULD, _INTERIM, "proves by empty AJ-Progress replies that it lives")
async def _heartbeat(stand: Stand) -> None:
    answer = await stand.order("heartbeat", every_ms=100, ms=600, interim_ms=5000)
    succeeded(answer)
    empty = answer.shares.count("")
    says(empty >= 2, "at least 2 interim replies whose AJ-Progress is empty", answer.text)


@case("heartbeat-automatic", Level.MAY, _INTERIM, "proves that it lives by itself while it works")
async def _automatic(stand: Stand) -> None:
    answer = await stand.order("sleep", ms=1200, interim_ms=400)
    succeeded(answer)
    says("" in answer.shares, "an interim reply whose AJ-Progress is empty", answer.text)


@case("outcome-last", Level.SHOULD, _INTERIM, "sends nothing more after the outcome, no heartbeat either")
async def _outcome_last(stand: Stand) -> None:
    subject = await stand.shared()
    sent = request(stand.type, b'{"do": "heartbeat", "every_ms": 50, "ms": 200}', interim_ms=300)
    async with stand.inbox() as inbox:
        await stand.send(subject, sent, inbox)
        succeeded(await inbox.answer(10 * stand.patience))
        more = await inbox.next(_QUIET_S)
    says(more is None, "nothing after the outcome", "" if more is None else more.text)


@case("progress", Level.SHOULD, _INTERIM, "tells how much is done, from 0 to 1")
async def _progress(stand: Stand) -> None:
    answer = await stand.order("progress", steps=4, ms=30, interim_ms=5000)
    succeeded(answer)
    told = [share for share in answer.shares if share]
    wanted = [0.25, 0.5, 0.75, 1.0]
    says([_number(share) for share in told] == wanted, f"AJ-Progress {wanted}", answer.text)


@case("progress-moves-deadline", Level.MAY, _INTERIM, "has its whole time again after it told progress")
async def _moves(stand: Stand) -> None:
    succeeded(await stand.order("progress", steps=5, ms=300, timeout_ms=900, interim_ms=5000))


@case("cancel", Level.SHOULD, _INTERIM, "stops when it is told on the cancel subject")
async def _cancel(stand: Stand) -> None:
    sent = request(stand.type, b'{"do": "cancel"}', interim_ms=5000)
    subject = await stand.shared()
    cancel = sent.headers[H_CANCEL_SUBJECT]
    async with stand.inbox() as inbox:
        await stand.send(subject, sent, inbox)
        await stand.nc.flush()
        deadline = time.monotonic() + 3 * stand.patience
        while not await stand.listeners(cancel):
            says(time.monotonic() < deadline, f"a subscription that takes {cancel} within 3 s", "there is none")
        succeeded(await stand.order("ok"))  # requests come in order: the one before it is in hand now
        stand.note(sent=True, subject=cancel, headers=None, body=b"")
        await stand.nc.publish(cancel)
        answer = await inbox.answer(2 * stand.patience)
    says(not answer.succeeded, "AJ-Error, or nothing", answer.text)


def _number(share: str) -> float:
    try:
        return float(share)
    except ValueError:
        return -1.0
