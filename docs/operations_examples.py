"""The generated sections of operations.md: settings, metrics, limits with the errors that the code really gives."""
# ruff: noqa: INP001 - scripts, not a package

import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from aj_bridge.core import retry
from aj_bridge.core.retry import POLICIES, RetryPolicy
from aj_bridge.core.settle import too_large
from aj_bridge.engine import breakers, children, meter, told
from aj_bridge.engine.journal import STEPS
from aj_bridge.faces import config, metrics, monitor, options, supervisor
from aj_bridge.faces.cli import params
from aj_schemas import vectors
from aj_sdk import context, graph, keys, listening, runner
from aj_sdk.bounded import read_bounded
from aj_sdk.dead import HEADER_ROOM
from aj_sdk.errors import AsyncJobsError, QueueFullError, TaskTooLargeError
from aj_sdk.family import MAX_FAMILY
from aj_sdk.permissions import Act, Role, grants
from aj_sdk.queue import Queue
from aj_sdk.responder import close_call
from aj_sdk.spec import TaskSpec
from aj_sdk.store import FIRED_TTL, HEADROOM
from aj_sdk.streams import DEAD_LETTERS_KEPT_NS
from aj_sdk.unique import MAX_KEY_BYTES, Unique
from aj_sdk.wire import interim, trace
from aj_sdk.wire.bridge import MAX_CONCURRENCY
from aj_sdk.wire.call import MAX_ERROR_BYTES, Completed
from aj_sdk.wire.headers import MAX_HEADER_BYTES
from aj_sdk.wire.names import H_TERMINATE, MAX_NAME, check_name
from aj_sdk.wire.task import MAX_DEPENDENCIES, TaskRecord
from aj_sdk.wire.times import NS_PER_S, format_duration

KIB: Final = 1024
MAX_PAYLOAD: Final = 1024 * KIB
TRACE_PARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ID: Final = "2d32zs6GJ2Bi7ppjyXs64PDdZ4d"

_VECTORS: Final = {vector["name"]: vector for vector in vectors()}


def sections() -> dict[str, str]:
    """Return all sections."""
    return {
        "settings": _settings(),
        "policies": _policies(),
        "limits": _limits(),
        "metrics": _metrics(),
        "permissions": _permissions(),
        "journal": _table(("step", "what it tells"), [(f"`{step}`", told) for step, told in STEPS.items()]),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _settings() -> str:
    return options.describe(config.OPTIONS)


def _policies() -> str:
    rows = []
    for name, policy in POLICIES.items():
        first, last = policy.intervals_ns[0], policy.intervals_ns[-1]
        delays = [policy.duration_ns(0, lambda: 0.0), policy.duration_ns(0, lambda: 0.999999)]
        shown = " to ".join(format_duration(delay // (NS_PER_S // 10) * (NS_PER_S // 10)) for delay in delays)
        rows.append((f"`{name}`", str(len(policy.intervals_ns)), format_duration(first), format_duration(last), shown))
    return _table(("name", "steps", "first interval", "last interval", "the first wait is"), rows)


def _error(act: Callable[[], Any]) -> str:
    """Return the text of the error that something raises."""
    try:
        act()
    except AsyncJobsError as err:
        return f"`{err}`"
    raise AssertionError("it was accepted")


def _size(number: int) -> str:
    return f"{number // KIB // KIB} MiB" if number % (KIB * KIB) == 0 else f"{number // KIB} KiB"


def _of_file(limit: int, read: Callable[[Path], Any]) -> str:
    """Return the error that a file which is a byte too large raises."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "FILE"
        path.write_bytes(b"#" * (limit + 1))
        try:
            read(path)
        except (AsyncJobsError, OSError) as err:
            text = (err.strerror or "") if isinstance(err, OSError) else str(err)
            return f"`{text.replace(str(path), 'FILE')}`"
    raise AssertionError("it was accepted")


def _limits() -> str:
    task = TaskRecord.from_wire(_VECTORS["task-state-new"]["text"].encode())
    many = {**task.to_map(), "dependencies": [ID] * (MAX_DEPENDENCIES + 1)}
    reply = close_call(Completed(bytes(MAX_PAYLOAD + 1)), max_payload=MAX_PAYLOAD, offered=True).headers or {}
    cut = too_large(task, MAX_PAYLOAD + 1, MAX_PAYLOAD)
    rows = [
        (
            "task id, task type, queue, route",
            f"1 to {MAX_NAME} characters `A-Z a-z 0-9 _ : -`",
            _error(lambda: check_name("email new", "task type")),
        ),
        (
            "a task when it is enqueued",
            f"its record: `max_payload` less {HEADROOM // KIB} KiB: {MAX_PAYLOAD - HEADROOM:,} bytes with 1 MiB",
            f"`{TaskTooLargeError(ID, MAX_PAYLOAD, MAX_PAYLOAD - HEADROOM)}`",
        ),
        (
            "a task when it is saved, with its result (a third longer in base64) and the results of its dependencies",
            "record and headers: `max_payload`",
            f"state `terminated`, `{cut.record.last_err}`; a dead letter keeps the record",
        ),
        (
            "a handler's reply",
            "`max_payload`",
            f"from the Python SDK: state `terminated`, `{reply[H_TERMINATE]}`",
        ),
        ("dependencies of a task", f"{MAX_DEPENDENCIES:,}", _error(lambda: TaskRecord.from_map(many))),
        (
            "error text in a header",
            f"{MAX_HEADER_BYTES // KIB} KiB",
            "cut, and ends in `...`; CR, LF and NUL become spaces",
        ),
        ("`last_err`", f"{MAX_ERROR_BYTES // KIB} KiB", "cut"),
        ("`AJ-Retry-After-Ms`, `RetryLater`", "366 days", "longer ones count as 366 days; no number: the backoff"),
        ("integers in records", "64 bits", _error(lambda: TaskRecord.from_map({**task.to_map(), "max_tries": 2**63}))),
        (
            "a unique key and its window",
            f"{MAX_KEY_BYTES} bytes of UTF-8; 1 second to 366 days, 31 days before nats-server 2.11",
            _error(lambda: Unique.of("", 60)),
        ),
        ("items in a queue", "`--entries` of the queue", f"`{QueueFullError('EMAIL', ID)}`; the task is `queue_error`"),
        ("a queue's replicas", "1 to 5", _error(lambda: Queue("EMAIL", replicas=6))),
        ("a queue's max run time", "at least 1 ms", _error(lambda: Queue("EMAIL", max_run_time=0))),
        (
            "a queue's lease",
            "at least 200 ms; 500 ms on the command line of the bridge",
            _error(lambda: Queue("EMAIL", lease=0.1)),
        ),
        ("the journal of a bridge", "256 MiB", "renamed to `FILE.old`, a new one is begun"),
        ("a configuration file", _size(options.MAX_FILE), _of_file(options.MAX_FILE, options.read_config_file)),
        (
            "a NATS context, and each file that it names",
            _size(context.MAX_FILE),
            _of_file(context.MAX_FILE, lambda path: read_bounded(path, context.MAX_FILE)),
        ),
        (
            "a file with a signing key",
            _size(keys._MAX_FILE),  # noqa: SLF001
            _of_file(keys._MAX_FILE, lambda path: keys.load_key(str(path))),  # noqa: SLF001
        ),
        (
            "a payload from a file or from standard input",
            _size(params.MAX_PAYLOAD_FILE),
            "`it has more than 64 MiB`; less where the record does not fit",
        ),
        (
            "tasks of a graph",
            f"{graph.MAX_GRAPH:,}",
            _error(lambda: graph.new_tasks(graph.group(*[TaskSpec("t")] * (graph.MAX_GRAPH + 1)), "EMAIL", 0)),
        ),
        (
            "relatives that `ajc task view` and `client.admin` follow",
            f"{MAX_FAMILY:,}",
            "the answer says that there are more",
        ),
        (
            "a backoff's intervals, and each of them",
            f"{retry._MAX_INTERVALS:,}; 366 days",  # noqa: SLF001
            _error(lambda: RetryPolicy([timedelta(1)] * (retry._MAX_INTERVALS + 1))),  # noqa: SLF001
        ),
        ("a note of progress", f"{interim.MAX_NOTE // KIB} KiB", "cut, and ends in `...`"),
        (
            "a trace context in a record",
            f"{trace.MAX_TRACE_STATE:,} characters of `tracestate`",
            f"`{trace.trace_fault(TRACE_PARENT, 'a=' + trace.MAX_TRACE_STATE * 'b')}`: it is left out, and counted",
        ),
        (
            "standard output of a command",
            "`max_payload`",
            "it is ended, its task `terminated`",
        ),
        (
            "standard error of a command, for each call",
            f"{told._MAX_LINES:,} lines of {_size(children._MAX_LINE)}",  # noqa: SLF001
            "the rest is not logged; longer lines are cut",
        ),
        (
            "task types with series of their own in the metrics",
            f"{metrics.MAX_TYPES:,}",
            f'later ones share `type="{metrics.OTHER_TYPES}"`',
        ),
        (
            "tasks at once of a bridge, its processes",
            f"{MAX_CONCURRENCY:,}; {config.MAX_WORKERS}",
            "a fault of the configuration, with the range",
        ),
        (
            "requests that wait in a Python handler process for a slot",
            f"{runner.DEFAULT_BACKLOG:,}",
            f"`AJ-Error: handler is busy: {runner.DEFAULT_BACKLOG} requests are waiting`",
        ),
        (
            "events that wait for a slow `client.watch()`",
            f"{listening._WATCHED:,}",  # noqa: SLF001
            "the oldest are dropped",
        ),
        (
            "types with an open breaker, and tasks that a bridge parked for each",
            f"{breakers._MAX_TYPES:,} and {breakers._MAX_PARKED:,}",  # noqa: SLF001
            "those beyond come back when their own wait is over",
        ),
        (
            "a dead letter",
            f"`max_payload` less {HEADER_ROOM // KIB} KiB",
            "cut; the header `AJ-Dead-Truncated` gives the whole size",
        ),
        ("dead letters", f"{DEAD_LETTERS_KEPT_NS // NS_PER_S // 86_400} days", "older ones go"),
        (
            "an item that is due and finds its queue full",
            FIRED_TTL,
            "it waits; after that it is gone, and its record stays",
        ),
        (
            "a request for metrics",
            f"{_size(monitor._MAX_HEAD)}, {monitor._REQUEST_TIMEOUT_S:g} s",  # noqa: SLF001
            "the connection is closed",
        ),
    ]
    return _table(("input", "limit", "beyond it"), rows)


def _permissions() -> str:
    letters: dict[str, dict[Role, str]] = {}
    for role in Role:
        for grant in grants(role):
            cells = letters.setdefault(grant.subject, {})
            cells[role] = cells.get(role, "") + ("P" if grant.act is Act.PUBLISH else "L")
    rows = [(f"`{subject}`", *(cells.get(role, "") for role in Role)) for subject, cells in sorted(letters.items())]
    return _table(("subject", *Role), rows)


def _metrics() -> str:
    own = {family.name for family in supervisor.FAMILIES}
    counted = own | {value for value in vars(meter).values() if isinstance(value, str)}
    rows = []
    for family in (*metrics.FAMILIES, *supervisor.FAMILIES):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        now = "" if family.name in counted else "not counted yet"
        rows.append((f"`{metrics.PREFIX}{family.name}`", family.kind.value, labels, family.help, now))
    return _table(("name", "kind", "labels", "what", ""), rows)
