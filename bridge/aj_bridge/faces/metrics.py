"""Metrics for Prometheus, under the names that dashboards for the Go project already use.

Knows the table of names and how to show them; what is counted when is the engine's business, which sees this only
through its own small protocol. Source of names and labels: stats.go and election/stats.go of the Go project.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Summary
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.utils import floatToGoString

from aj_sdk.errors import UsageError

__all__ = ["FAMILIES", "MAX_TYPES", "OTHER_TYPES", "PREFIX", "Family", "Kind", "Metrics"]

PREFIX: Final = "choria_asyncjobs_"

MAX_TYPES: Final = 1000
"""Task types that have series of their own; those that come later share one."""

OTHER_TYPES: Final = "(other)"
"""Their label: no task type, for want of the right characters."""


class Kind(StrEnum):
    """Kinds of metrics; the values are Prometheus's words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table.

    Attributes:
        kind: what it is.
        name: its name without the prefix.
        help: what it tells.
        labels: names of its labels.
    """

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()


_QUEUE: Final = ("queue",)
_HANDLER: Final = ("queue", "type")
_ELECTION: Final = ("election", "identity")
_SCHEDULED: Final = ("type", "queue")

FAMILIES: Final[tuple[Family, ...]] = (
    Family(Kind.COUNTER, "queue_enqueue_count", "Work items that were put on a queue.", _QUEUE),
    Family(Kind.COUNTER, "queue_enqueue_error_count", "Work items that could not be put on a queue.", _QUEUE),
    Family(Kind.COUNTER, "queue_item_corrupt_error_count", "Unreadable items, or items of unreadable tasks.", _QUEUE),
    Family(Kind.COUNTER, "queue_task_not_found_error_count", "Work items whose task is not in the store.", _QUEUE),
    Family(Kind.COUNTER, "queue_task_past_deadline_count", "Tasks found past their deadline.", _QUEUE),
    Family(Kind.COUNTER, "queue_task_past_max_tries_count", "Tasks found with no tries left.", _QUEUE),
    Family(Kind.COUNTER, "queue_poll_total", "Pull requests for work items.", _QUEUE),
    Family(Kind.COUNTER, "queue_poll_error_total", "Pull requests that failed.", _QUEUE),
    Family(Kind.COUNTER, "task_update_total", "Saves of a task, by the state that was saved.", ("state",)),
    Family(Kind.COUNTER, "task_update_error_total", "Saves of a task that failed."),
    Family(Kind.COUNTER, "task_dependencies_failed", "Tasks that never run because a dependency failed."),
    Family(Kind.GAUGE, "handler_busy_count", "Handlers at work now."),
    Family(Kind.COUNTER, "handler_error_total", "Calls of a handler that ended in an error.", _HANDLER),
    Family(Kind.SUMMARY, "handler_runtime", "Seconds that calls of a handler took.", _HANDLER),
    Family(Kind.COUNTER, "election_campaigns", "Attempts to become or to stay the leader.", (*_ELECTION, "state")),
    Family(Kind.GAUGE, "election_leader", "1 while this process is the leader.", _ELECTION),
    Family(Kind.GAUGE, "election_interval_seconds", "Seconds between two attempts to become the leader.", _ELECTION),
    Family(Kind.GAUGE, "task_scheduler_paused", "1 while the scheduler waits to become the leader."),
    Family(Kind.GAUGE, "task_scheduler_schedules_total", "Schedules that are known."),
    Family(Kind.COUNTER, "task_scheduler_scheduled_count", "Tasks made by a schedule.", _SCHEDULED),
    Family(Kind.COUNTER, "task_scheduler_schedule_error_count", "Tasks a schedule could not make.", _SCHEDULED),
    # Ours.
    Family(Kind.COUNTER, "bridge_save_refused_total", "Saves refused because somebody else had written.", _QUEUE),
    Family(Kind.COUNTER, "bridge_item_dropped_total", "Items let go without a word, by reason.", ("queue", "why")),
    Family(Kind.COUNTER, "bridge_item_parked_total", "Items set aside to come back later.", ("queue", "why")),
    Family(Kind.COUNTER, "bridge_no_responders_total", "Calls that found no handler.", _HANDLER),
    Family(Kind.COUNTER, "bridge_unrouted_total", "Deliveries of tasks whose type has no route here.", _HANDLER),
    Family(Kind.COUNTER, "bridge_task_taken_over_total", "Active tasks taken over from an owner that is gone.", _QUEUE),
    Family(Kind.COUNTER, "bridge_call_stopped_total", "Calls stopped because their task was taken from them.", _QUEUE),
    Family(Kind.GAUGE, "bridge_concurrency", "Tasks that the bridge works on at once, over all queues."),
    Family(Kind.GAUGE, "bridge_paused", "1 while the bridge was told to take no new work."),
    Family(
        Kind.COUNTER,
        "bridge_trace_dropped_total",
        "Calls of tasks whose trace context was malformed, and was left out.",
        _HANDLER,
    ),
    Family(
        Kind.COUNTER,
        "bridge_task_too_large_total",
        "Tasks ended because a result (or the record by itself) is too large to be saved.",
        _QUEUE,
    ),
    Family(Kind.COUNTER, "bridge_stray_replies_total", "Replies that nobody waited for: late ones, second ones."),
    Family(Kind.GAUGE, "bridge_in_hand", "Items that the bridge has in hand.", _QUEUE),
    Family(Kind.GAUGE, "bridge_running", "Those of them that have a slot; the others wait for one.", _QUEUE),
    Family(Kind.GAUGE, "bridge_queue_weight", "The queue's part of the bridge's slots, beside the others.", _QUEUE),
    Family(Kind.COUNTER, "bridge_item_put_back_total", "Items put back that a full queue dropped at work.", _QUEUE),
    Family(Kind.COUNTER, "bridge_swept_total", "Tasks and items that the sweeper set right.", ("queue", "why")),
    Family(Kind.COUNTER, "bridge_sweep_scanned_total", "Records that the sweeper read."),
    Family(Kind.GAUGE, "bridge_sweep_seconds", "Seconds that the last sweep took."),
    Family(Kind.GAUGE, "bridge_sweep_watched", "Unfinished tasks that the sweeper keeps in mind."),
    Family(Kind.COUNTER, "bridge_quarantined_total", "Items moved to the dead letters unread.", _QUEUE),
)


class Metrics:
    """The metrics of one process or part of it, in a registry of their own.

    The verbs are for the hot path: a label child is looked up once and kept.

    Args:
        families: the table's rows.
    """

    def __init__(self, families: Sequence[Family] = FAMILIES) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self._families: dict[str, Counter | Gauge | Summary] = {}
        # The library ends a counter's name in `_total` come what may; here is what it should have been.
        self._exact: dict[str, str] = {}
        self._children: dict[tuple[Any, ...], Any] = {}
        self._types: set[str] = set()
        for family in families:
            self._register(family)

    def inc(self, name: str, by: float = 1, /, **labels: str) -> None:
        """Count: add to a counter."""
        key = (name, *labels.items())
        child = self._children.get(key)
        if child is None:
            child = self._child(key, name, labels, Counter)
        child.inc(by)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""
        key = (name, *labels.items())
        child = self._children.get(key)
        if child is None:
            child = self._child(key, name, labels, Gauge)
        child.set(value)

    def add(self, name: str, by: float, /, **labels: str) -> None:
        """Move a gauge up or down."""
        key = (name, *labels.items())
        child = self._children.get(key)
        if child is None:
            child = self._child(key, name, labels, Gauge)
        child.inc(by)

    def observe(self, name: str, seconds: float, /, **labels: str) -> None:
        """Add a figure to a summary."""
        key = (name, *labels.items())
        child = self._children.get(key)
        if child is None:
            child = self._child(key, name, labels, Summary)
        child.observe(seconds)

    def exposition(self) -> bytes:
        """Write everything in Prometheus's text format, version 0.0.4.

        The library's own writer would rename our counters, so the names come from the table.
        """
        lines: list[str] = []
        for metric in self.registry.collect():
            total = f"{metric.name}_total" if metric.type == "counter" else metric.name
            name = self._exact.get(metric.name, total)
            text = metric.documentation.replace("\\", "\\\\").replace("\n", "\\n")
            lines += (f"# HELP {name} {text}", f"# TYPE {name} {metric.type}")
            for sample in metric.samples:
                if sample.name.endswith("_created"):
                    continue  # the text format has no place for it, and the Go project does not have it
                shown = name if sample.name == total else sample.name
                labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
                braces = f"{{{labels}}}" if labels else ""
                lines.append(f"{shown}{braces} {floatToGoString(sample.value)}")  # type: ignore[no-untyped-call]
        return ("\n".join(lines) + "\n").encode()

    def _register(self, family: Family) -> None:
        name = PREFIX + family.name
        if family.name in self._families:
            raise UsageError(f"the metric {name} is in the table twice")
        make = {Kind.COUNTER: Counter, Kind.GAUGE: Gauge, Kind.SUMMARY: Summary}[family.kind]
        self._families[family.name] = make(name, family.help, family.labels, registry=self.registry)
        if family.kind is Kind.COUNTER:
            self._exact[name.removesuffix("_total")] = name

    def _child(self, key: tuple[Any, ...], name: str, labels: dict[str, str], kind: type[Any]) -> Any:
        family = self._families.get(name)
        if not isinstance(family, kind):
            raise UsageError(f"there is no {kind.__name__.lower()} {PREFIX}{name}")
        if "type" in labels and len(self._types) >= MAX_TYPES and labels["type"] not in self._types:
            # Whoever may enqueue may invent types, and each would be a series for as long as we live. Not kept under
            # its own name, so that the next one costs this look and no memory.
            return family.labels(**{**labels, "type": OTHER_TYPES})
        if "type" in labels:
            self._types.add(labels["type"])
        child = family.labels(**labels) if labels else family
        self._children[key] = child
        return child


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
