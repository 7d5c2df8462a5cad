"""A small port is asked for metrics and health; several processes are shown as one page."""

import asyncio
import contextlib

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aj_bridge.faces.metrics import PREFIX, Family, Kind, Metrics
from aj_bridge.faces.monitor import Bound, Own, merged, serve
from aj_sdk.errors import InvalidConfigError


async def _ask(bound: Bound, request: bytes) -> tuple[str, bytes]:
    reader, writer = await asyncio.open_connection(bound.host, bound.port)
    try:
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


async def test_metrics_are_served_as_prometheus_expects_them() -> None:
    metrics = Metrics()
    async with serve(Own(metrics), "127.0.0.1", 0) as bound:
        assert bound.url == f"http://127.0.0.1:{bound.port}/metrics"
        head, body = await _ask(bound, b"GET /metrics?name=x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
        assert f"Content-Length: {len(body)}" in head
        assert PREFIX.encode() in body
        head, body = await _ask(bound, b"HEAD /metrics HTTP/1.0\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert body == b""


async def test_health_is_what_the_caller_says() -> None:
    reason: list[str] = []
    async with serve(Own(Metrics(), lambda: reason[0] if reason else None), "127.0.0.1", 0) as bound:
        assert await _ask(bound, b"GET /healthz HTTP/1.1\r\n\r\n") == (
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\nConnection: close",
            b"ok\n",
        )
        reason.append("not connected to NATS")
        head, body = await _ask(bound, b"GET /healthz HTTP/1.1\r\n\r\n")
        assert head.startswith("HTTP/1.1 503 Service Unavailable\r\n")
        assert body == b"not connected to NATS\n"


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /metrics/../../etc/passwd HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /metrics\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01 \x00 x\r\n\r\n", "400 Bad Request"),
    ],
)
async def test_other_requests_are_refused(request_head: bytes, status: str) -> None:
    async with serve(Own(Metrics()), "127.0.0.1", 0) as bound:
        head, _ = await _ask(bound, request_head)
        assert head.startswith(f"HTTP/1.1 {status}\r\n")


async def test_a_request_that_is_too_long_or_cut_off_gets_no_answer() -> None:
    async with serve(Own(Metrics()), "127.0.0.1", 0) as bound:
        reader, writer = await asyncio.open_connection(bound.host, bound.port)
        writer.write(b"GET /metrics HT")
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        with contextlib.suppress(ConnectionError):  # closed while we were still sending
            assert await _ask(bound, b"GET /" + b"x" * 100_000) == ("", b"")
        head, _ = await _ask(bound, b"GET /healthz HTTP/1.1\r\n\r\n")
        assert "200 OK" in head


async def test_leaving_closes_connections_that_are_still_open() -> None:
    async with serve(Own(Metrics()), "127.0.0.1", 0) as bound:
        reader, writer = await asyncio.open_connection(bound.host, bound.port)
        writer.write(b"GET /hea")
        await _ask(bound, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(bound.host, bound.port)


async def test_a_taken_port_is_told() -> None:
    async with serve(Own(Metrics()), "127.0.0.1", 0) as bound:
        with pytest.raises(InvalidConfigError, match=f"cannot listen on 127.0.0.1:{bound.port}: the port is taken"):
            async with serve(Own(Metrics()), "127.0.0.1", bound.port):
                pass


async def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(InvalidConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        async with serve(Own(Metrics()), "192.0.2.1", 0):
            pass


async def test_all_addresses_are_one_empty_host() -> None:
    async with serve(Own(Metrics()), "", 0) as bound:
        head, _ = await _ask(Bound("127.0.0.1", bound.port), b"GET /healthz HTTP/1.1\r\n\r\n")
        assert "200 OK" in head


def test_an_address_of_version_6_is_bracketed_in_the_url() -> None:
    assert Bound("::1", 9090).url == "http://[::1]:9090/metrics"


def test_pages_of_several_processes_become_one_that_tells_them_apart() -> None:
    rows = (
        Family(Kind.COUNTER, "done_total", "Done."),
        Family(Kind.COUNTER, "odd", "Odd.", ("a",)),
        Family(Kind.SUMMARY, "took", "Took."),
    )
    pages = {}
    for number in (1, 2):
        metrics = Metrics(rows)
        metrics.inc("done_total", number)
        metrics.inc("odd", a="x y{z} 7")
        metrics.observe("took", 0.5 * number)
        pages[str(number)] = metrics.exposition()
    pages["3"] = Metrics((Family(Kind.GAUGE, "alone", "Alone."),)).exposition()
    page = merged(pages, "worker").decode()
    heads = [line for line in page.splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))
    found = {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert found["done_total", (("worker", "1"),)] == 1
    assert found["done_total", (("worker", "2"),)] == 2
    assert found["odd_total", (("a", "x y{z} 7"), ("worker", "2"))] == 1
    assert found["took_sum", (("worker", "2"),)] == 1
    assert found["alone", (("worker", "3"),)] == 0
    starts = {labels for name, labels in found if name == "process_start_time_seconds"}
    assert starts == {(("worker", "1"),), (("worker", "2"),), (("worker", "3"),)}
