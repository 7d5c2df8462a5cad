"""The responders of interop/ do what section 4 of the wire contract asks of a handler, each the same.

Asked with plain nats-py and hand-written requests, so that nothing of ours stands between them and the contract.
"""

import asyncio
import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NoAnswerError
from tests.interop.asking import (
    LONG,
    SUBJECT,
    answered_for_ever,
    ask,
    connected,
    from_bridge,
    from_go_worker,
    ordered,
    outcome,
    result,
    task,
)
from tests.interop.responders import BUILD_TIMEOUT, INTEROP, MINIMAL, build, responder, running

from aj_bridge.faces.embedded import EmbeddedServer

pytestmark = [pytest.mark.interop, pytest.mark.timeout(BUILD_TIMEOUT)]


async def test_a_task_is_answered_with_a_result(nc: Client, shared: str, language: str) -> None:
    reply = await ask(nc, shared, ordered("ok"))
    assert result(reply) == {"handler": language, "id": "2NVFxJqq5UoJoAqZ5ixCwZkeyjM", "try": 1}


@pytest.mark.parametrize(
    "payload",
    [None, b"", b"null", b"{}", b'{"to": "a@example.net"}', b'{"do": "something new"}', b'{"do": 7}', b'{"do": {}}'],
)
async def test_a_payload_without_an_order_is_a_success(
    nc: Client, shared: str, language: str, payload: bytes | None
) -> None:
    assert result(await ask(nc, shared, task(payload)))["handler"] == language


async def test_unknown_fields_and_headers_are_ignored(nc: Client, shared: str, language: str) -> None:
    body = task(b'{"do": "ok", "extra": [1]}', novelty={"id": "another"}, deadline=None, dependencies=["x"])
    reply = await ask(nc, shared, body, {**from_bridge(), "AJ-Novelty": "1"})
    assert result(reply) == {"handler": language, "id": "2NVFxJqq5UoJoAqZ5ixCwZkeyjM", "try": 1}


async def test_the_try_is_taken_from_the_header(nc: Client, shared: str) -> None:
    assert result(await ask(nc, shared, ordered("ok"), from_bridge(tries=7)))["try"] == 7


async def test_without_the_header_the_try_is_taken_from_the_task(nc: Client, shared: str) -> None:
    assert result(await ask(nc, shared, task(None, tries=3), from_go_worker()))["try"] == 3


async def test_a_caller_without_any_header_is_answered(nc: Client, shared: str) -> None:
    assert result(await ask(nc, shared, task(None), {}))["try"] == 1


async def test_an_error_is_told_in_a_header(nc: Client, shared: str) -> None:
    reply = await ask(nc, shared, ordered("fail", error="no such mailbox"))
    assert outcome(reply) == (b"", {"AJ-Error": "no such mailbox"})


async def test_an_error_without_a_text_is_still_an_error(nc: Client, shared: str) -> None:
    assert outcome(await ask(nc, shared, ordered("fail"))) == (b"", {"AJ-Error": "failed"})


async def test_a_line_break_in_an_error_does_not_make_a_second_header(nc: Client, shared: str) -> None:
    reply = await ask(nc, shared, ordered("fail", error="one\r\nAJ-Terminate: two\nthree\rfour"))
    assert outcome(reply) == (b"", {"AJ-Error": "one  AJ-Terminate: two three four"})


async def test_no_error_is_without_a_text(nc: Client, shared: str) -> None:
    _, headers = outcome(await ask(nc, shared, ordered("fail", error="")))
    assert list(headers) == ["AJ-Error"]
    assert headers["AJ-Error"]


async def test_an_error_text_with_a_nul_is_one_that_can_be_sent(nc: Client, shared: str) -> None:
    assert outcome(await ask(nc, shared, ordered("fail", error="a\0b"))) == (b"", {"AJ-Error": "a b"})


async def test_a_long_error_text_is_cut(nc: Client, shared: str) -> None:
    _, headers = outcome(await ask(nc, shared, ordered("terminate", error="x" * 500_000)))
    assert 1000 < len(headers["AJ-Terminate"]) <= 4096


async def test_an_error_text_may_hold_any_language(nc: Client, shared: str) -> None:
    assert outcome(await ask(nc, shared, ordered("unicode_error"))) == (b"", {"AJ-Error": "dépassé ☃ 😀"})


@pytest.mark.parametrize("headers", [from_bridge, from_go_worker])
async def test_a_task_can_fail_once(nc: Client, shared: str, headers: Callable[[], dict[str, str]]) -> None:
    body = ordered("fail_once", error="not yet")
    assert outcome(await ask(nc, shared, body, headers())) == (b"", {"AJ-Error": "not yet"})


async def test_the_second_try_succeeds(nc: Client, shared: str) -> None:
    assert result(await ask(nc, shared, ordered("fail_once"), from_bridge(tries=2)))["try"] == 2


async def test_a_task_can_be_terminated(nc: Client, shared: str) -> None:
    reply = await ask(nc, shared, ordered("terminate", error="address blocked"))
    assert outcome(reply) == (b"", {"AJ-Terminate": "address blocked"})


async def test_the_bridge_is_told_when_to_try_again(nc: Client, shared: str) -> None:
    reply = await ask(nc, shared, ordered("retry_after", ms=1500, error="busy"))
    assert outcome(reply) == (b"", {"AJ-Error": "busy", "AJ-Retry-After-Ms": "1500"})
    assert result(await ask(nc, shared, ordered("retry_after", ms=1500), from_bridge(tries=2)))["try"] == 2


async def test_additions_are_not_used_where_they_were_not_offered(nc: Client, shared: str) -> None:
    reply = await ask(nc, shared, ordered("retry_after", ms=1500, error="busy"), from_go_worker())
    assert outcome(reply) == (b"", {"AJ-Error": "busy"})


async def test_the_headers_of_the_bridge_are_seen(nc: Client, shared: str) -> None:
    headers = from_bridge()
    assert result(await ask(nc, shared, ordered("deadline"), headers)) == {
        "deadline": headers["AJ-Handler-Deadline"],
        "timeout_ms": 60_000,
        "content_type": "application/x-asyncjobs-task+json",
        "protocol": "1.1",
        "invocation": "2NVFxXyYzYl9Fzq2DqXDrFBDtkY",
    }


async def test_the_headers_of_a_go_worker_are_enough(nc: Client, shared: str) -> None:
    headers = from_go_worker()
    assert result(await ask(nc, shared, ordered("deadline"), headers)) == {
        "deadline": headers["AJ-Handler-Deadline"],
        "timeout_ms": None,
        "content_type": "application/x-asyncjobs-task+json",
        "protocol": None,
        "invocation": None,
    }


async def test_a_result_may_be_any_bytes(nc: Client, shared: str) -> None:
    assert outcome(await ask(nc, shared, ordered("binary"))) == (bytes(range(256)), {})


async def test_a_result_is_sent_byte_for_byte(nc: Client, shared: str) -> None:
    payload = ' {"do" :"echo",\r\n\t"text": "dépassé \\u2603 😀"}\n'.encode()
    assert outcome(await ask(nc, shared, task(payload))) == (payload, {})


@pytest.mark.parametrize("headers", [from_bridge, from_go_worker])
async def test_work_is_cut_off_at_the_deadline(nc: Client, shared: str, headers: Callable[..., dict[str, str]]) -> None:
    reply = await ask(nc, shared, ordered("sleep", ms=LONG), headers(timeout=timedelta(milliseconds=300)))
    assert outcome(reply) == (b"", {"AJ-Error": "deadline"})


async def test_work_that_ends_before_the_deadline_succeeds(nc: Client, shared: str, language: str) -> None:
    assert result(await ask(nc, shared, ordered("sleep", ms=20)))["handler"] == language


async def test_the_relative_deadline_counts_where_clocks_disagree(nc: Client, shared: str, language: str) -> None:
    ahead = {**from_bridge(), "AJ-Handler-Deadline": "2001-01-01T00:00:00Z"}
    assert result(await ask(nc, shared, ordered("sleep", ms=20), ahead))["handler"] == language
    behind = {**from_bridge(timeout=timedelta(milliseconds=300)), "AJ-Handler-Deadline": "2999-01-01T00:00:00Z"}
    assert outcome(await ask(nc, shared, ordered("sleep", ms=LONG), behind)) == (b"", {"AJ-Error": "deadline"})


async def test_work_does_not_begin_after_its_deadline(nc: Client, shared: str) -> None:
    reply = await ask(nc, shared, ordered("ok"), from_bridge(timeout=timedelta()))
    assert outcome(reply) == (b"", {"AJ-Error": "deadline"})


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"{", b"hello", b'"hello"', b"[1]", b"7", b"true"])
async def test_a_payload_that_is_not_an_object_is_refused_for_good(nc: Client, shared: str, payload: bytes) -> None:
    body, headers = outcome(await ask(nc, shared, task(payload)))
    assert body == b""
    assert list(headers) == ["AJ-Terminate"]
    assert headers["AJ-Terminate"].startswith("payload is not a JSON object")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"null",
        b"[]",
        b"\x82\xa2id\xa11\xa7payload\xc0",  # MessagePack, which these two do not ask for
        b'{"payload": null}',
        b'{"id": "1", "payload": "not base64"}',
        b'{"id": "1", "payload": {"do": "ok"}}',
    ],
)
async def test_a_body_that_is_not_a_task_is_refused_for_good(nc: Client, shared: str, body: bytes) -> None:
    data, headers = outcome(await ask(nc, shared, body))
    assert data == b""
    assert list(headers) == ["AJ-Terminate"]
    assert headers["AJ-Terminate"].startswith("request is not a task in JSON")


@pytest.mark.parametrize(("requests", "rounds"), [(64, 1), (65, 2)])
async def test_64_requests_are_handled_at_once(nc: Client, shared: str, requests: int, rounds: int) -> None:
    seconds = 1.5
    inbox = nc.new_inbox()
    replies = await nc.subscribe(inbox)
    started = time.monotonic()
    for _ in range(requests):
        await nc.publish(shared, ordered("sleep", ms=1000 * seconds), inbox, from_bridge())
    for _ in range(requests):
        assert not (await replies.next_msg(timeout=30)).headers
    assert (time.monotonic() - started) // seconds == rounds


def test_defaults_are_those_of_an_email_task(language: str, clean_server: EmbeddedServer) -> None:
    with responder(language, clean_server.url) as running:
        assert running.ready() == SUBJECT


def test_an_empty_type_means_all_types(language: str, server: EmbeddedServer) -> None:
    with responder(language, server.url, AJ_TYPE="") as running:
        assert running.ready() == "CHORIA_AJ.H.T.catchall"


def test_a_subject_of_ones_own_wins_over_the_type(language: str, server: EmbeddedServer) -> None:
    with responder(language, server.url, AJ_TYPE="report:", AJ_SUBJECT=f"EXAMPLE.{language}") as running:
        assert running.ready() == f"EXAMPLE.{language}"


async def test_two_of_one_queue_group_share_the_requests(nc: Client, server: EmbeddedServer, language: str) -> None:
    inbox = nc.new_inbox()
    replies = await nc.subscribe(inbox)
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(responder(language, server.url, AJ_TYPE="pair")) for _ in range(2)]
        subject = {running.ready() for running in both}.pop()
        for number in range(100):
            await nc.publish(subject, ordered("echo", number=number), inbox, from_bridge())
        numbers = [json.loads((await replies.next_msg(timeout=30)).data)["number"] for _ in range(100)]
        assert sorted(numbers) == list(range(100))
        # Both drain before they leave, so an answer too many would have been sent by the time they are gone.
        for running in both:
            running.terminate()
        assert [await asyncio.to_thread(running.ended) for running in both] == [(0, ""), (0, "")]
        await nc.flush()
        assert replies.pending_msgs == 0


async def test_another_queue_group_gets_every_request_too(nc: Client, server: EmbeddedServer, language: str) -> None:
    inbox = nc.new_inbox()
    replies = await nc.subscribe(inbox)
    with (
        responder(language, server.url, AJ_TYPE="groups") as usual,
        responder(language, server.url, AJ_TYPE="groups", AJ_QUEUE_GROUP="audit") as other,
    ):
        subject = {usual.ready(), other.ready()}.pop()
        await nc.publish(subject, ordered("echo"), inbox, from_bridge())
        assert [(await replies.next_msg(timeout=30)).data for _ in range(2)] == [b'{"do": "echo"}'] * 2


async def test_sigterm_finishes_what_is_in_hand(nc: Client, server: EmbeddedServer, language: str) -> None:
    inbox = nc.new_inbox()
    replies = await nc.subscribe(inbox)
    with responder(language, server.url, AJ_TYPE="drain") as running:
        subject = running.ready()
        await nc.publish(subject, ordered("sleep", ms=1000), inbox, from_bridge())
        # Requests arrive in order: once this one is answered, the one before it is in hand.
        assert result(await ask(nc, subject, ordered("ok")))["try"] == 1
        running.terminate()
        assert result(await replies.next_msg(timeout=30))["handler"] == language
        assert await asyncio.to_thread(running.ended) == (0, "")
    with pytest.raises(NoRespondersError):
        await ask(nc, subject, ordered("ok"))


async def test_a_draining_responder_takes_nothing_new(nc: Client, server: EmbeddedServer, language: str) -> None:
    """The server hears of it at once, so that the bridge's next request goes elsewhere."""
    with responder(language, server.url, AJ_TYPE="leaving") as running:
        subject = running.ready()
        inbox = nc.new_inbox()
        await nc.publish(subject, ordered("sleep", ms=LONG), inbox, from_bridge())
        assert result(await ask(nc, subject, ordered("ok")))["try"] == 1
        running.terminate()
        with pytest.raises(NoRespondersError):
            await answered_for_ever(nc, subject)
        assert running.process.poll() is None


@pytest.mark.parametrize("order", ["binary", "ok"])
async def test_a_result_that_is_too_large_to_send_is_refused_for_good(
    language: str, fresh_server: Callable[..., EmbeddedServer], order: str
) -> None:
    server = fresh_server(config={"max_payload": 200})
    with responder(language, server.url) as running:
        subject = running.ready()
        async with connected(server.url) as nc:
            payload = base64.b64encode(json.dumps({"do": order}).encode()).decode()
            reply = await ask(nc, subject, f'{{"id":"1","payload":"{payload}"}}'.encode(), {"AJ-Protocol": "1.1"})
            if order == "binary":
                text = "result of 256 bytes, but max_payload is 200"
                assert outcome(reply) == (b"", {"AJ-Terminate": text})
            else:
                assert result(reply)["id"] == "1"


async def test_it_comes_back_to_a_server_that_went_away(language: str, clean_server: EmbeddedServer) -> None:
    with responder(language, clean_server.url) as running:
        subject = running.ready()
        clean_server.kill()
        clean_server.start()
        async with connected(clean_server.url) as nc, asyncio.timeout(60):
            answered = False
            while not answered:
                # Not every client keeps what is sent while it is on its way back; such a task is tried again.
                with contextlib.suppress(NoRespondersError, NoAnswerError):
                    answered = result(await ask(nc, subject, ordered("ok"), patience=5))["handler"] == language
        running.terminate()
        assert (await asyncio.to_thread(running.ended))[0] == 0


def test_it_waits_for_a_server_that_is_not_there_yet(language: str, clean_server: EmbeddedServer) -> None:
    clean_server.stop()
    with responder(language, clean_server.url) as running:
        clean_server.start()
        assert running.ready() == SUBJECT


def test_it_stops_before_there_is_a_server(language: str, clean_server: EmbeddedServer) -> None:
    clean_server.stop()
    with responder(language, clean_server.url) as running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(timeout=1)  # it has nothing to say yet that a test could wait for
        assert running.process.poll() is None
        running.terminate()
        assert running.ended()[0] in (0, 143, -15)


def test_it_stops_without_a_server(language: str, clean_server: EmbeddedServer) -> None:
    with responder(language, clean_server.url) as running:
        running.ready()
        clean_server.kill()
        running.terminate()
        assert running.ended()[0] == 0


@pytest.mark.parametrize(
    ("authorization", "login"),
    [({"user": "jobs", "password": "p:1@ss"}, "jobs:p%3A1%40ss"), ({"token": "s3cret"}, "s3cret")],
)
def test_a_login_may_stand_in_the_url(
    language: str, fresh_server: Callable[..., EmbeddedServer], authorization: dict[str, str], login: str
) -> None:
    url = fresh_server(config={"authorization": authorization}).url
    with responder(language, url.replace("nats://", f"nats://{login}@")) as running:
        assert running.ready() == SUBJECT
        running.terminate()
        assert running.ended() == (0, "")


def test_a_refused_login_ends_it(language: str, fresh_server: Callable[..., EmbeddedServer]) -> None:
    url = fresh_server(config={"authorization": {"user": "jobs", "password": "secret"}}).url
    with responder(language, url) as running:
        code, complaints = running.ended()
        assert code == 1
        assert "authorization violation" in complaints.lower()
        assert len(complaints.splitlines()) == 1


def test_a_refused_subscription_ends_it(language: str, fresh_server: Callable[..., EmbeddedServer]) -> None:
    user = {"user": "jobs", "password": "secret", "permissions": {"subscribe": "elsewhere.>"}}
    url = fresh_server(config={"authorization": {"users": [user]}}).url
    with responder(language, url.replace("nats://", "nats://jobs:secret@")) as running:
        code, complaints = running.ended()
        assert code == 1
        assert SUBJECT in complaints


SOURCES = {
    "go": ("main.go", "call.go", "work.go"),
    "node": ("responder.js", "call.js", "work.js"),
    "rust": ("src/main.rs", "src/call.rs", "src/discovery.rs", "src/work.rs"),
    "java": tuple(
        f"src/main/java/{name}.java" for name in ("Responder", "Call", "PlainHeadersPort", "Utf8Headers", "Work")
    ),
}


def lines_of_code(language: str, source: str) -> int:
    lines = (INTEROP / language / source).read_text().splitlines()
    return sum(re.fullmatch(r"\s*((//|/\*|\*|import |use ).*)?", line) is None for line in lines)


@pytest.mark.parametrize(("language", "source"), [(name, source) for name in SOURCES for source in SOURCES[name]])
def test_there_is_little_to_copy(language: str, source: str) -> None:
    assert lines_of_code(language, source) < 200


@pytest.mark.parametrize(("language", "source"), [(name, minimal.source) for name, minimal in MINIMAL.items()])
def test_the_least_is_very_little(language: str, source: str) -> None:
    assert lines_of_code(language, source) < 40


async def test_the_least_gives_the_three_outcomes(clean_server: EmbeddedServer, language: str) -> None:
    with running(language, MINIMAL[language].command, clean_server.url) as least:
        least.ready()
        async with connected(clean_server.url) as nc:
            for headers in (from_bridge(), from_go_worker()):
                assert result(await ask(nc, SUBJECT, task(b'{"to": "a@example.net"}'), headers)) == {
                    "sent": "a@example.net"
                }
                failed = await ask(nc, SUBJECT, task(b'{"to": "nobody@example.net"}'), headers)
                assert outcome(failed) == (b"", {"AJ-Error": "no such mailbox"})
                for payload in (None, b"", b"{}", b"\xff", b"[1]"):
                    refused = await ask(nc, SUBJECT, task(payload), headers)
                    assert outcome(refused) == (b"", {"AJ-Terminate": "no address"})


def test_the_lock_file_names_no_place() -> None:
    """It must install through any mirror, and through none."""
    assert "://" not in (INTEROP / "node" / "package-lock.json").read_text()


def test_the_types_of_node_hold() -> None:
    checked = subprocess.run(["npm", "run", "types"], cwd=build("node"), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("formatted", "command"),
    [("go", ("gofmt", "-l", ".")), ("rust", ("cargo", "fmt", "--check"))],
    ids=["go", "rust"],
)
def test_the_sources_are_in_the_one_format(formatted: str, command: tuple[str, ...]) -> None:
    if command[0] == "cargo" and shutil.which("rustfmt") is None:
        pytest.skip("no rustfmt on the PATH, so Rust's format is not looked at")
    done = subprocess.run(command, cwd=build(formatted), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
