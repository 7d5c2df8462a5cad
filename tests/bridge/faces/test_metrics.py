"""Metrics appear under the exact names of the Go project."""

from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aj_bridge.engine import meter
from aj_bridge.faces.metrics import FAMILIES, MAX_TYPES, OTHER_TYPES, PREFIX, Family, Kind, Metrics
from aj_sdk.errors import UsageError

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
    metrics = Metrics(
        (
            *FAMILIES,
            Family(Kind.COUNTER, "odd", 'help with \\ and\na "break"', ("a", "b")),
        )
    )
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
        Metrics((*FAMILIES, Family(Kind.GAUGE, "handler_busy_count", "again")))


def test_a_flood_of_invented_types_makes_no_flood_of_series() -> None:
    metrics = Metrics()
    for number in range(MAX_TYPES + 500):
        metrics.inc(meter.UNROUTED, queue="EMAIL", type=f"t{number}")
        metrics.observe(meter.HANDLER_RUNTIME, 0.5, queue="EMAIL", type=f"t{number}")
    text = _text(metrics)
    assert text.count(f"{PREFIX}{meter.UNROUTED}{{") == MAX_TYPES + 1
    assert f'{PREFIX}{meter.UNROUTED}{{queue="EMAIL",type="{OTHER_TYPES}"}} 500.0' in text
    assert f'{PREFIX}{meter.HANDLER_RUNTIME}_count{{queue="EMAIL",type="{OTHER_TYPES}"}} 500.0' in text
    metrics.inc(meter.UNROUTED, queue="EMAIL", type="t0")
    assert f'{PREFIX}{meter.UNROUTED}{{queue="EMAIL",type="t0"}} 2.0' in _text(metrics)
