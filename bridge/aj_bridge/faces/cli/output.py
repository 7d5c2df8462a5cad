"""Printing: tables and sheets for people, JSON for programs. Text from tasks never reaches the terminal raw."""

import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from aj_sdk.admin import Overview, QueueInfo, TaskStoreInfo
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.event import Event, TaskStateEvent
from aj_sdk.wire.interim import Progress
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S, format_duration, format_time, to_datetime
from aj_sdk.wire.trace import record_trace

__all__ = [
    "ago",
    "clean",
    "cut",
    "duration_text",
    "event_line",
    "event_map",
    "overview_map",
    "payload_text",
    "print_attempts",
    "print_json",
    "print_json_line",
    "print_overview",
    "print_queue",
    "print_queues",
    "print_store",
    "print_task",
    "print_tasks",
    "print_tree",
    "progress_line",
    "queue_map",
    "sheet",
    "size_text",
    "state_text",
    "store_map",
    "stored_map",
    "table",
    "time_text",
]

_UNSAFE: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, what turns the direction of writing around, and halves of characters."""
_SHOWN_PAYLOAD: Final = 2000
_STYLES: Final = {
    TaskState.COMPLETE: "green",
    TaskState.ACTIVE: "cyan",
    TaskState.RETRY: "yellow",
    TaskState.BLOCKED: "yellow",
    TaskState.EXPIRED: "red",
    TaskState.TERMINATED: "red",
    TaskState.UNREACHABLE: "red",
    TaskState.QUEUE_ERROR: "red",
}


# Text.


def clean(text: str) -> str:
    """Write what a terminal would obey, and what can't be written, as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def size_text(size: int) -> str:
    """Write a number of bytes: `512 B`, `1.5 KiB`."""
    if size < 1024:
        return f"{size} B"
    amount = float(size)
    unit = "B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the last one is used
        amount /= 1024
        if amount < 1024:
            break
    return f"{amount:.1f} {unit}"


def duration_text(span_ns: int, *, zero: str = "0s") -> str:
    """Write a length of time as a person would: `250ms`, `1.5s`, `3m20s`, `2d4h`.

    Args:
        span_ns: nanoseconds.
        zero: what no length at all means.
    """
    if span_ns == 0:
        return zero
    if abs(span_ns) < 60 * NS_PER_S:
        digits = 10**6 if abs(span_ns) < NS_PER_S else 10**7
        return format_duration(span_ns if abs(span_ns) < digits else span_ns // digits * digits)
    seconds = abs(span_ns) // NS_PER_S
    parts = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return ("-" if span_ns < 0 else "") + "".join(parts)


def time_text(instant_ns: int) -> str:
    """Write an instant in the local time zone."""
    return to_datetime(instant_ns).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def ago(instant_ns: int | None) -> str:
    """Write an instant in the local time zone, and how long ago it was; empty for None."""
    if instant_ns is None:
        return ""
    age_ns = int((datetime.now(UTC) - to_datetime(instant_ns)).total_seconds()) * NS_PER_S
    return f"{time_text(instant_ns)} ({duration_text(age_ns)} ago)"


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _limit(value: int) -> str:
    return f"{value:,}" if value > 0 else "unlimited"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


# JSON.


def print_json(value: Any) -> None:
    """Print one JSON document."""
    _write(_json(value, 2))


def print_json_line(value: Any) -> None:
    """Print one of several JSON documents, on a line of its own, at once."""
    _write(_json(value, None))
    sys.stdout.flush()


def _json(value: Any, indent: int | None) -> str:
    # JSON escapes the control characters below space; the others, which a terminal may obey too, are escaped here.
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")


def queue_map(info: QueueInfo) -> dict[str, Any]:
    """Return a queue for JSON: its settings as on the wire, and how it stands."""
    return {
        **info.settings.to_map(),
        "state": {
            "items": info.items,
            "waiting": info.waiting,
            "in_flight": info.in_flight,
            "redelivered": info.redelivered,
            "parked": info.parked,
            "parks": info.parks,
            "pulls": info.pulls,
            "bytes": info.bytes,
            "created": format_time(info.created_ns),
            "oldest": _time(info.oldest_ns),
            "newest": _time(info.newest_ns),
            "paused_until": _time(info.paused_until_ns),
        },
    }


def store_map(info: TaskStoreInfo) -> dict[str, Any]:
    """Return the task store for JSON."""
    return {
        "tasks": info.tasks,
        "bytes": info.bytes,
        "retention": info.retention_ns,
        "replicas": info.replicas,
        "memory": info.memory,
        "direct_get": info.direct_get,
        "created": format_time(info.created_ns),
        "first": _time(info.first_ns),
        "last": _time(info.last_ns),
    }


def overview_map(overview: Overview) -> dict[str, Any]:
    """Return everything for JSON."""
    return {
        "api_level": overview.api_level,
        "task_store": None if overview.task_store is None else store_map(overview.task_store),
        "parked": overview.parked,
        "dead_letters": overview.dead_letters,
        "queues": [queue_map(info) for info in overview.queues],
    }


def stored_map(stored: Stored) -> dict[str, Any]:
    """Return a task for JSON, as on the wire; one that can't be read with the reason."""
    if stored.record is None:
        return {"id": stored.task_id, "fault": stored.fault}
    return stored.record.to_map()


def event_map(event: Event) -> dict[str, Any]:
    """Return an event for JSON, as on the wire."""
    fields: dict[str, Any] = json.loads(event.to_wire())
    return fields


def _time(instant_ns: int | None) -> str | None:
    return None if instant_ns is None else format_time(instant_ns)


# Tables and sheets.


def print_task(task: TaskRecord) -> None:
    """Print a task."""
    rows: list[tuple[str, str | Text]] = [
        ("Type", task.type),
        ("Queue", task.queue or "none"),
        ("State", state_text(task.state)),
        ("Created", ago(task.created_ns)),
        ("Tries", f"{task.tries:,} of {_limit(task.max_tries)}"),
    ]
    if task.deadline_ns is not None:
        rows.append(("Deadline", time_text(task.deadline_ns)))
    if task.tried_ns is not None:
        rows.append(("Last tried", ago(task.tried_ns)))
    if task.last_err:
        rows.append(("Last error", task.last_err))
    if task.dependencies:
        rows.append(("Depends on", ", ".join(task.dependencies)))
    if task.signature:
        rows.append(("Signed", "yes"))
    trace, _ = record_trace(task.extra)
    if trace:
        rows.append(("Trace", trace.parent))
    rows.append(("Payload", payload_text(task.payload)))
    if task.result is not None:
        took = duration_text(task.result.completed_ns - task.created_ns)
        rows.append(("Completed", f"{time_text(task.result.completed_ns)} ({took} after it was created)"))
        rows.append(("Result", cut(json.dumps(task.result.to_map()["payload"], ensure_ascii=False))))
    sheet(f"Task {task.id}", rows)


def print_attempts(attempts: Sequence[Attempt]) -> None:
    """Print the attempts at a task, where any are known."""
    if not attempts:
        return
    table(
        "Attempts",
        ("Try", "Began", "Took", "Outcome", "By", "Error"),
        (
            (
                str(attempt.try_),
                time_text(attempt.started_ns),
                duration_text(attempt.duration_ns),
                attempt.outcome.value.replace("_", " "),
                attempt.handler or (f"bridge {attempt.bridge}" if attempt.bridge else "a Go worker"),
                cut(attempt.error),
            )
            for attempt in attempts
        ),
        right=("Try", "Took"),
    )


def print_tasks(tasks: Sequence[Stored], total: int) -> None:
    """Print tasks as a table."""
    rows: list[Sequence[str | Text]] = []
    for stored in tasks:
        record = stored.record
        if record is None:
            rows.append((stored.task_id, "", "", Text("unreadable", "red"), "", stored.fault))
        else:
            created, tries = time_text(record.created_ns), f"{record.tries}"
            rows.append((record.id, record.type, created, state_text(record.state), record.queue, tries))
    title = f"{len(tasks):,} of {total:,} tasks" if len(tasks) != total else f"{total:,} tasks"
    table(title, ("ID", "Type", "Created", "State", "Queue", "Tries"), rows, right=("Tries",))


def print_queue(info: QueueInfo) -> None:
    """Print a queue."""
    settings = info.settings
    rows: list[tuple[str, str | Text]] = [
        ("Items", f"{info.items:,} ({size_text(info.bytes)})"),
        *([] if info.paused_until_ns is None else [("Paused", Text(_pause_text(info.paused_until_ns), "yellow"))]),
        ("Waiting", _count(info.waiting)),
        ("In flight", f"{info.in_flight:,} ({info.redelivered:,} of them again)"),
        ("Parked", _count(info.parked)),
        *_settings_rows(settings),
        ("Created", ago(info.created_ns)),
    ]
    if info.oldest_ns is not None:
        rows.append(("Oldest item", ago(info.oldest_ns)))
        rows.append(("Newest item", ago(info.newest_ns)))
    sheet(f"Queue {settings.name}", rows)


def _settings_rows(settings: QueueSettings) -> list[tuple[str, str | Text]]:
    full = "drops the oldest item" if settings.discard_old else "refuses new items"
    return [
        ("Made for", "our bridges" if settings.ours else "Go workers and our bridges"),
        ("Max run time", duration_text(settings.max_run_time_ns)),
        ("Max tries", _limit(settings.max_tries)),
        ("Max concurrent", f"{settings.max_concurrent:,}"),
        ("Weight", f"{settings.weight:,}"),
        ("Lease", duration_text(settings.lease_ns, zero="none")),
        ("Max entries", _limit(settings.max_entries) + (f", {full} when full" if settings.max_entries > 0 else "")),
        ("Max age", duration_text(settings.max_age_ns, zero="unlimited")),
        ("Replicas", f"{settings.replicas}"),
        ("Kept in", "memory" if settings.memory else "files"),
    ]


def print_queues(queues: Sequence[QueueInfo]) -> None:
    """Print queues as a table."""
    if not queues:
        _write("No queues; `ajc queue add NAME` makes one")
        return
    rows: list[tuple[str | Text, ...]] = [
        (
            info.settings.name,
            _count(info.items),
            _count(info.in_flight),
            _count(info.parked),
            size_text(info.bytes),
            duration_text(info.settings.max_run_time_ns),
            _limit(info.settings.max_tries),
            _limit(info.settings.max_entries),
            f"{info.settings.max_concurrent:,}",
            f"{info.settings.replicas}",
            f"{info.settings.weight}",
            "bridges" if info.settings.ours else "Go workers",
            "" if info.paused_until_ns is None else Text(_pause_text(info.paused_until_ns), "yellow"),
        )
        for info in queues
    ]
    numbers = (
        "Items",
        "In flight",
        "Parked",
        "Size",
        "Max run time",
        "Max tries",
        "Max items",
        "Concurrent",
        "Replicas",
        "Weight",
    )
    names: tuple[str, ...] = ("Name", *numbers, "Made for", "Paused")
    if all(info.paused_until_ns is None for info in queues):
        names, rows = names[:-1], [row[:-1] for row in rows]
    table(f"{len(queues):,} queues", names, rows, right=numbers)


def _pause_text(until_ns: int) -> str:
    # Beyond any clock: until somebody says so.
    endless = until_ns - time.time_ns() > 1000 * 366 * 86_400 * NS_PER_S
    return "until it is resumed" if endless else f"until {time_text(until_ns)}"


def print_store(info: TaskStoreInfo) -> None:
    """Print the task store."""
    rows: list[tuple[str, str | Text]] = [
        ("Tasks", f"{info.tasks:,} ({size_text(info.bytes)})"),
        ("Kept for", duration_text(info.retention_ns, zero="ever")),
        ("Replicas", f"{info.replicas}"),
        ("Kept in", "memory" if info.memory else "files"),
        ("Direct gets", _yes(info.direct_get)),
        ("Created", ago(info.created_ns)),
    ]
    if info.last_ns is not None:
        rows.append(("Last change", ago(info.last_ns)))
    sheet("Task store", rows)


def print_overview(overview: Overview) -> None:
    """Print everything."""
    if overview.task_store is None:
        _write("No task store; `ajc task initialize` makes it\n")
    else:
        print_store(overview.task_store)
    sheet(
        "Our streams",
        [
            ("Parked items", "no stream" if overview.parked is None else f"{overview.parked:,}"),
            ("Dead letters", "no stream" if overview.dead_letters is None else f"{overview.dead_letters:,}"),
        ],
    )
    print_queues(overview.queues)


def progress_line(progress: Progress) -> str:
    """Write a task's progress on one line."""
    clock = to_datetime(progress.timestamp_ns).astimezone().strftime("%H:%M:%S")
    note = f" {progress.note}" if progress.note else ""
    return clean(f"[{clock}] {progress.task_id}: {progress.fraction:.0%}{note}")


def event_line(event: Event) -> str:
    """Write an event on one line."""
    clock = to_datetime(event.timestamp_ns).astimezone().strftime("%H:%M:%S")
    if not isinstance(event, TaskStateEvent):
        return clean(f"[{clock}] {event.name}: new {event.component} leader")
    error = f" error: {event.last_error}" if event.last_error else ""
    return clean(
        f"[{clock}] {event.task_id}: queue: {event.queue} type: {event.task_type} tries: {event.tries} "
        f"state: {event.state.value}{error}"
    )


def state_text(state: TaskState) -> Text:
    """Show a state in its colour."""
    return Text(state.value or "unknown", _STYLES.get(state, ""))


def payload_text(payload: bytes | None) -> str:
    """Write a payload as a person would read it, cut where it is long."""
    if payload is None:
        return "none"
    try:
        return f"{cut(payload.decode())} ({size_text(len(payload))})"
    except UnicodeDecodeError:
        return f"{size_text(len(payload))} that are not text"


def cut(text: str, most: int = _SHOWN_PAYLOAD) -> str:
    """Cut a text that is longer than so many characters."""
    return text if len(text) <= most else text[:most] + "..."


def sheet(title: str, rows: Iterable[tuple[str, str | Text]]) -> None:
    """Print what is known of one thing, a line each; text in it is escaped."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(Text(f"  {label}:"), _safe(value))
    _write(f"{title}\n\n{_rendered(grid)}\n")


def table(title: str, names: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> None:
    """Print a table; text in it is escaped.

    Args:
        title: stands above it.
        names: of its columns.
        rows: a value for each column.
        right: columns that are numbers.
    """
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        drawn.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(_safe, row))
    _write(f"{title}\n{_rendered(drawn)}")


def _safe(value: str | Text) -> Text:
    if not isinstance(value, Text):
        return Text(clean(value))
    return value if value.plain.isprintable() else Text(clean(value.plain), value.style)


def print_tree(tree: Tree) -> None:
    """Print a tree."""
    _write(_rendered(tree))


def _rendered(table: Table | Tree) -> str:
    # Output that goes into a file or a pipe is not cut to the width of a terminal that is not there.
    width = None if sys.stdout.isatty() else 10_000
    console = Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines())
