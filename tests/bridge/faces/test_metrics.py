"""Metrics appear under the exact names of the Go project, and are served on their own small port."""

import asyncio
import contextlib
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aj_bridge.engine import meter
from aj_bridge.faces.metrics import FAMILIES, PREFIX, Bound, Family, Kind, Metrics, serve
from aj_sdk.errors import InvalidConfigError, UsageError

GO_NAMES: Mapping[str, tuple[str, set[str]]] = {
    "queue_enqueue_count": ("counter", {"queue"}),
    "queue_enqueue_error_count": ("counter", {"queue"}),
    "queue_item_corrupt_error_count": ("counter", {"queue"}),
    "queue_task_not_found_error_count": ("counter", {"queue"}),
    "queue_task_past_deadline_count": ("counter", {"queue"}),
    "queue_task_past_max_tries_count": ("counter", {"queue"}),
    "queue_poll_total": ("counter", {"queue"}),
    "queue_poll_error_total": ("counter", {"queue"}),
    "task_update_total": ("counter", {"state"}),
    "task_update_error_total": ("counter", set()),
    "task_dependencies_failed": ("counter", set()),
    "handler_busy_count": ("gauge", set()),
    "handler_error_total": ("counter", {"queue", "type"}),
    "handler_runtime": ("summary", {"queue", "type"}),
    "election_campaigns": ("counter", {"election", "identity", "state"}),
    "election_leader": ("gauge", {"election", "identity"}),
    "election_interval_seconds": ("gauge", {"election", "identity"}),
    "task_scheduler_paused": ("gauge", set()),
    "task_scheduler_schedules_total": ("gauge", set()),
    "task_scheduler_scheduled_count": ("counter", {"type", "queue"}),
    "task_scheduler_schedule_error_count": ("counter", {"type", "queue"}),
}


def _text(metrics: Metrics) -> str:
    return metrics.exposition().decode()


def _use(metrics: Metrics, family: Family) -> None:
    labels = dict.fromkeys(family.labels, "x")
    match family.kind:
        case Kind.COUNTER:
            metrics.inc(family.name, **labels)
        case Kind.GAUGE:
            metrics.set(family.name, 2.5, **labels)
        case Kind.SUMMARY:
            metrics.observe(family.name, 0.25, **labels)


def test_the_table_has_the_go_projects_names_kinds_and_labels() -> None:
    table = {family.name: (family.kind.value, set(family.labels)) for family in FAMILIES}
    assert {name: table[name] for name in GO_NAMES} == GO_NAMES


def test_the_engine_can_use_it() -> None:
    engine_side: meter.Meter = Metrics()
    engine_side.inc(meter.POLLS, queue="EMAIL")


def test_the_table_has_every_name_that_the_engine_counts() -> None:
    engine = {value for name, value in vars(meter).items() if name.isupper() and isinstance(value, str)} | set(
        meter.OWN
    )
    assert engine <= {family.name for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.name))
def test_an_unused_family_shows_its_help_and_type_and_a_used_one_its_exact_name(family: Family) -> None:
    metrics = Metrics()
    name = PREFIX + family.name
    assert f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n" in _text(metrics)
    _use(metrics, family)
    samples = {line.split(" ")[0].partition("{")[0] for line in _text(metrics).splitlines() if line[0] != "#"}
    ours = {sample for sample in samples if sample.startswith(name)}
    assert ours == ({f"{name}_count", f"{name}_sum"} if family.kind is Kind.SUMMARY else {name})


def test_the_values_are_there_with_their_labels() -> None:
    metrics = Metrics()
    metrics.inc("queue_enqueue_count", queue="EMAIL")
    metrics.inc("queue_enqueue_count", 2, queue="EMAIL")
    metrics.inc("handler_error_total", queue="EMAIL", type="email:new")
    metrics.inc("handler_error_total", type="email:new", queue="EMAIL")
    metrics.inc("handler_error_total", queue="email:new", type="EMAIL")
    metrics.set("handler_busy_count", 7)
    metrics.set("handler_busy_count", 3)
    metrics.observe("handler_runtime", 0.5, queue="EMAIL", type="email:new")
    metrics.observe("handler_runtime", 0.25, queue="EMAIL", type="email:new")
    lines = _text(metrics).splitlines()
    for line in (
        'queue_enqueue_count{queue="EMAIL"} 3.0',
        'handler_error_total{queue="EMAIL",type="email:new"} 2.0',
        'handler_error_total{queue="email:new",type="EMAIL"} 1.0',
        "handler_busy_count 3.0",
        'handler_runtime_count{queue="EMAIL",type="email:new"} 2.0',
        'handler_runtime_sum{queue="EMAIL",type="email:new"} 0.75',
    ):
        assert PREFIX + line in lines
    assert not any("_created" in line for line in lines)


def test_the_whole_text_is_readable_for_prometheus() -> None:
    metrics = Metrics(extra=(Family(Kind.COUNTER, "odd", 'help with \\ and\na "break"', ("a", "b")),))
    for family in FAMILIES:
        _use(metrics, family)
    metrics.inc("odd", a='quote " backslash \\ break \n', b="漢字")
    families = {family.name: family for family in text_string_to_metric_families(_text(metrics))}
    assert families[f"{PREFIX}odd"].documentation == 'help with \\ and\na "break"'
    assert families[f"{PREFIX}odd"].samples[0].labels == {"a": 'quote " backslash \\ break \n', "b": "漢字"}
    assert families[f"{PREFIX}queue_enqueue_count"].type == "counter"


def test_two_instances_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.inc("task_update_error_total")
    assert f"{PREFIX}task_update_error_total 1.0" in _text(one)
    assert f"{PREFIX}task_update_error_total 0.0" in _text(other)


def test_a_name_that_is_not_in_the_table_is_refused() -> None:
    metrics = Metrics()
    with pytest.raises(UsageError, match="no counter choria_asyncjobs_nope"):
        metrics.inc("nope")
    with pytest.raises(UsageError, match="no gauge choria_asyncjobs_handler_runtime"):
        metrics.set("handler_runtime", 1, queue="x", type="y")
    with pytest.raises(ValueError, match="label"):
        metrics.inc("queue_enqueue_count", que="x")
    with pytest.raises(UsageError, match="in the table twice"):
        Metrics(extra=(Family(Kind.GAUGE, "handler_busy_count", "again"),))


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
    async with serve(metrics, "127.0.0.1", 0) as bound:
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
    async with serve(Metrics(), "127.0.0.1", 0, unhealthy=lambda: reason[0] if reason else None) as bound:
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
    async with serve(Metrics(), "127.0.0.1", 0) as bound:
        head, _ = await _ask(bound, request_head)
        assert head.startswith(f"HTTP/1.1 {status}\r\n")


async def test_a_request_that_is_too_long_or_cut_off_gets_no_answer() -> None:
    async with serve(Metrics(), "127.0.0.1", 0) as bound:
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
    async with serve(Metrics(), "127.0.0.1", 0) as bound:
        reader, writer = await asyncio.open_connection(bound.host, bound.port)
        writer.write(b"GET /hea")
        await _ask(bound, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(bound.host, bound.port)


async def test_a_taken_port_is_told() -> None:
    async with serve(Metrics(), "127.0.0.1", 0) as bound:
        with pytest.raises(InvalidConfigError, match=f"cannot listen on 127.0.0.1:{bound.port}: the port is taken"):
            async with serve(Metrics(), "127.0.0.1", bound.port):
                pass


async def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(InvalidConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        async with serve(Metrics(), "192.0.2.1", 0):
            pass


async def test_all_addresses_are_one_empty_host() -> None:
    async with serve(Metrics(), "", 0) as bound:
        head, _ = await _ask(Bound("127.0.0.1", bound.port), b"GET /healthz HTTP/1.1\r\n\r\n")
        assert "200 OK" in head


def test_an_address_of_version_6_is_bracketed_in_the_url() -> None:
    assert Bound("::1", 9090).url == "http://[::1]:9090/metrics"
