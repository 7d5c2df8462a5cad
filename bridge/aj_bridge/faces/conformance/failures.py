"""Cases about failures and how they are told."""

from typing import Final

from aj_bridge.faces.conformance.cases import Group, Level
from aj_bridge.faces.conformance.claims import failed, says, succeeded, terminated
from aj_bridge.faces.conformance.stand import Stand
from aj_sdk.wire.headers import find_header
from aj_sdk.wire.names import H_RETRY_AFTER_MS

__all__ = ["GROUP"]

GROUP: Final = Group()
case = GROUP.case
_REPLY: Final = "3-the-reply"
_LONG: Final = 4096


@case("error", Level.MUST, _REPLY, "tells a failure by the header AJ-Error, not by the body")
async def _error(stand: Stand) -> None:
    failed(await stand.order("fail", error="mailbox full"), "mailbox full")


@case("error-line-breaks", Level.MUST, _REPLY, "sends an error text of several lines as one")
async def _error_lines(stand: Stand) -> None:
    failed(await stand.order("fail", error="first line\nsecond line\r\nthird"), "first line", "second line", "third")


@case("error-emoji", Level.MUST, _REPLY, "sends an error text in UTF-8")
async def _error_emoji(stand: Stand) -> None:
    failed(await stand.order("fail", error="Käfer ☃ 😀"), "Käfer ☃ 😀")


@case("error-unicode", Level.MUST, _REPLY, "sends an error text of its own in UTF-8")
async def _error_unicode(stand: Stand) -> None:
    failed(await stand.order("unicode_error"), "dépassé ☃ 😀")


@case("error-long", Level.SHOULD, _REPLY, "sends an error text of 4,096 characters, cut or whole")
async def _error_long(stand: Stand) -> None:
    failed(await stand.order("fail", error="e" * _LONG), "e" * 100)


@case("error-empty", Level.SHOULD, _REPLY, "sends the header also where there is no text to tell")
async def _error_empty(stand: Stand) -> None:
    failed(await stand.order("fail", error=""))


@case("error-header-case", Level.MAY, _REPLY, "may write the header's name in another case")
async def _error_case(stand: Stand) -> None:
    failed(await stand.order("case", error="mailbox full"), "mailbox full")


@case("terminate", Level.MUST, _REPLY, "tells by AJ-Terminate that no try can help")
async def _terminate(stand: Stand) -> None:
    terminated(await stand.order("terminate", error="no such address"), "no such address")


@case("terminate-line-breaks", Level.MUST, _REPLY, "sends a final text of several lines as one")
async def _terminate_lines(stand: Stand) -> None:
    terminated(await stand.order("terminate", error="first line\nsecond line"), "first line", "second line")


@case("terminate-emoji", Level.MUST, _REPLY, "sends a final text in UTF-8")
async def _terminate_emoji(stand: Stand) -> None:
    terminated(await stand.order("terminate", error="Käfer ☃ 😀"), "Käfer ☃ 😀")


@case("terminate-wins", Level.MUST, _REPLY, "may send AJ-Error beside AJ-Terminate, which wins")
async def _terminate_wins(stand: Stand) -> None:
    terminated(await stand.order("both", error="no such address"), "no such address")


@case("fail-once", Level.MUST, "6-more-than-once", "counts the tries: fails the first, succeeds at the second")
async def _fail_once(stand: Stand) -> None:
    failed(await stand.order("fail_once", error="busy", try_=1), "busy")
    succeeded(await stand.order("fail_once", error="busy", try_=2))


@case("retry-after", Level.SHOULD, _REPLY, "asks for a delay of its own with AJ-Retry-After-Ms")
async def _retry_after(stand: Stand) -> None:
    answer = await stand.order("retry_after", error="rate limited", ms=1500)
    failed(answer, "rate limited")
    assert answer.final is not None
    says(find_header(answer.final.headers, H_RETRY_AFTER_MS) == "1500", "AJ-Retry-After-Ms: 1500", answer.text)


@case("retry-after-unoffered", Level.MUST, _REPLY, "sends no AJ-Retry-After-Ms where the request has no AJ-Protocol")
async def _retry_after_unoffered(stand: Stand) -> None:
    answer = await stand.order("retry_after", error="rate limited", ms=1500, go_worker=True)
    failed(answer, "rate limited")
    assert answer.final is not None
    says(find_header(answer.final.headers, H_RETRY_AFTER_MS) is None, "no AJ-Retry-After-Ms", answer.text)
