"""What was recorded of a run, read into values: saves, calls, journals, acts, events, faults, and how it ended.

Reads files only; knows nothing of what is allowed. All times are nanoseconds of the machine's wall clock: what bridges
tell is placed by their monotonic clock, since their wall clocks may be wrong on purpose.
"""

import base64
import binascii
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tests.faults.checker.times import NS, parse_time

__all__ = ["FINAL", "Act", "Call", "Fault", "History", "Run", "Save", "Step", "read"]

FINAL: Final = frozenset({"complete", "expired", "terminated", "unreachable", "queue_error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was set up, and when it was over."""

    row: str = ""
    seed: int = 0
    lease_s: float = 1.0
    max_run_time_s: float = 3.0
    max_tries: int = 0
    heartbeat_s: float = 0.3
    settle_s: float = 60.0
    """Within which time all tasks must have ended, once nothing disturbs any more."""
    canaries: bool = False
    skew_s: float = 0.0
    slack: float = 1.0
    """How much slower than promised this machine may be."""
    verify_keys: tuple[str, ...] = ()
    monotonic_offset_ns: int = 0
    healed_at: int = 0
    ended_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """A save of a record that the store accepted; `body` is None where only its bridge tells of it."""

    task: str
    at: int
    sequence: int
    previous: int | None = None
    state: str
    tries: int
    owner: str = ""
    item: str = ""
    body: Mapping[str, Any] | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def deadline(self) -> int | None:
        text = (self.body or {}).get("deadline")
        return parse_time(text) if text else None

    @property
    def parents(self) -> tuple[str, ...]:
        return tuple((self.body or {}).get("dependencies") or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call as its handler noted it; `ended` and `reply` are None where it did not come to that."""

    task: str
    attempt: int
    invocation: str
    pid: int
    began: int
    ended: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: bytes | None = None
    beats: tuple[int, ...] = ()

    @property
    def bridge(self) -> str:
        return self.invocation.partition("-")[0]

    @property
    def succeeded(self) -> bool:
        """Whether what it answered means success: no header that says otherwise, an empty one included."""
        wrong = {"aj-error", "aj-terminate", "aj-progress", "nats-service-error", "nats-service-error-code"}
        return self.reply is not None and not any(name.lower() in wrong for name in self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A line of a bridge's journal."""

    at: int
    bridge: str
    step: str
    task: str
    item: str
    told: Mapping[str, Any]
    sent: int = 0
    """When it was begun, where that is told; else when it was done."""

    def __post_init__(self) -> None:
        if not self.sent:
            object.__setattr__(self, "sent", self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a producer or an administrator did; `outcome` is `stored`, `refused` or `unknown`."""

    at: int
    what: str
    task: str
    outcome: str = "stored"
    canary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that was done to the system; `bridge` and `pid` say to whom, empty and 0 for more than one."""

    what: str
    target: str
    begins: int
    ends: int
    bridge: str = ""
    pid: int = 0

    def meets(self, begins: int, ends: int) -> bool:
        return self.begins <= ends and begins <= self.ends

    def harms(self, bridge: str) -> bool:
        """Whether a bridge may have lost its leases or its messages by it."""
        return self.target not in ("handler", "task") and self.bridge in ("", bridge)


@dataclass(frozen=True, kw_only=True)
class History:
    """All that was recorded of a run."""

    run: Run = field(default_factory=Run)
    saves: tuple[Save, ...] = ()
    calls: tuple[Call, ...] = ()
    steps: tuple[Step, ...] = ()
    acts: tuple[Act, ...] = ()
    events: tuple[tuple[int, str, str], ...] = ()
    """When, of which task, which state."""
    acks: tuple[tuple[int, str, str], ...] = ()
    """When, for which item, which word; as the server was sent it."""
    faults: tuple[Fault, ...] = ()
    readiness: tuple[tuple[int, str, bool], ...] = ()
    """When, which bridge, whether it said that it was ready."""
    samples: tuple[Mapping[str, Any], ...] = ()
    """Sizes of a process at quiet moments."""
    records: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """The records at the end; None for one that can't be read."""
    items: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    dead: tuple[tuple[str, str], ...] = ()
    """Reason and task of each dead letter."""

    @cached_property
    def saves_of(self) -> Mapping[str, list[Save]]:
        return _by_task(sorted(self.saves, key=lambda save: save.sequence))

    @cached_property
    def calls_of(self) -> Mapping[str, list[Call]]:
        return _by_task(sorted(self.calls, key=lambda call: call.began))

    @cached_property
    def steps_of(self) -> Mapping[str, list[Step]]:
        return _by_task(sorted(self.steps, key=lambda step: step.at))

    @cached_property
    def acts_of(self) -> Mapping[str, list[Act]]:
        return _by_task(sorted(self.acts, key=lambda act: act.at))

    @cached_property
    def tasks(self) -> list[str]:
        return sorted({*self.saves_of, *self.calls_of, *self.records, *(act.task for act in self.acts)} - {""})

    def excused(self, begins: int, ends: int, bridge: str = "") -> bool:
        """Whether anything was done in a time that a bridge, or anybody where none is given, may have suffered by."""
        return any(fault.meets(begins, ends) and (not bridge or fault.harms(bridge)) for fault in self.faults)

    def acted(self, task: str, begins: int, ends: int) -> bool:
        """Whether a user retried, cancelled or deleted a task in a time."""
        acts = self.acts_of.get(task, ())
        return any(act.what != "enqueue" and begins <= act.at <= ends for act in acts)

    def runs(self, task: str) -> Iterator[list[Save]]:
        """Give the saves of a task, run by run: a retry on request begins a new one."""
        run: list[Save] = []
        for save in self.saves_of.get(task, ()):
            if run and not save.owner and save.state in ("new", "blocked", "retry"):
                yield run
                run = []
            run.append(save)
        if run:
            yield run


def _by_task(rows: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.task].append(row)
    return dict(found)


def read(folder: Path) -> History:
    """Read the recordings of a run.

    A file that is missing counts as empty, but for `run.json` and `end.json`; the last line of a process that was
    killed may be cut off, and is left out.
    """
    run = _run(json.loads((folder / "run.json").read_text()))
    end = json.loads((folder / "end.json").read_text())
    steps = tuple(_steps(folder, run))
    saves = {row["sequence"]: _save(row) for row in _lines(folder / "saves.jsonl")}
    for step in steps:
        told = step.told
        if step.step == "save" and told.get("outcome") == "accepted" and told["sequence"] not in saves:
            saves[told["sequence"]] = Save(
                task=step.task,
                at=step.at,
                sequence=told["sequence"],
                state=told["state"],
                tries=told["tries"],
                owner=step.bridge,
                item=step.item,
            )
    for task, sequence in end.get("sequences", {}).items():
        if sequence in saves and saves[sequence].body is None:
            saves[sequence] = replace(saves[sequence], body=end["records"][task])
    return History(
        run=run,
        saves=tuple(saves.values()),
        calls=tuple(_calls(_lines(folder / "handlers.jsonl"))),
        steps=steps,
        acts=tuple(Act(**row) for row in _lines(folder / "producer.jsonl")),
        events=tuple((row["at"], row["task"], row["state"]) for row in _lines(folder / "events.jsonl")),
        acks=tuple((row["at"], row["item"], row["word"]) for row in _lines(folder / "acks.jsonl")),
        faults=tuple(Fault(**row) for row in _lines(folder / "faults.jsonl")),
        readiness=tuple((row["at"], row["bridge"], row["ready"]) for row in _lines(folder / "ready.jsonl")),
        samples=tuple(_lines(folder / "samples.jsonl")),
        records=end["records"],
        items=tuple(end["items"]),
        schedules=tuple(end["schedules"]),
        dead=tuple((reason, task) for reason, task in end["dead"]),
    )


def _run(row: Mapping[str, Any]) -> Run:
    return Run(**{**row, "verify_keys": tuple(row.get("verify_keys", ()))})


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    for at, line in enumerate(lines):
        try:
            yield json.loads(line)
        except ValueError:
            if at + 1 < len(lines):
                raise


def _steps(folder: Path, run: Run) -> Iterator[Step]:
    for path in sorted(folder.glob("bridge-*.jsonl")):
        for row in _lines(path):
            yield Step(
                at=run.monotonic_offset_ns + int(row["monotonic"] * NS),
                bridge=row["bridge"],
                step=row["step"],
                task=row.get("task", ""),
                item=row.get("item", ""),
                told=row,
                sent=run.monotonic_offset_ns + int(row["sent"] * NS) if "sent" in row else 0,
            )


def _save(row: Mapping[str, Any]) -> Save:
    body = row["body"] if isinstance(row["body"], dict) else None
    return Save(
        task=row["task"],
        at=row["at"],
        sequence=row["sequence"],
        previous=row.get("previous"),
        state="unreadable" if body is None else _state(body),
        tries=0 if body is None else body.get("tries", 0),
        owner=row.get("owner", ""),
        item=row.get("item", ""),
        body=body,
    )


def _state(body: Mapping[str, Any]) -> str:
    state = str(body.get("state", ""))
    return "complete" if state == "completed" else state


def _calls(rows: Iterable[Mapping[str, Any]]) -> Iterator[Call]:
    begun: dict[str, Mapping[str, Any]] = {}
    ended: dict[str, Mapping[str, Any]] = {}
    beats: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if row["what"] == "began":
            begun[row["invocation"]] = row
        elif row["what"] == "ended":
            ended[row["invocation"]] = row
        else:
            beats[row["invocation"]].append(row["at"])
    for invocation, row in begun.items():
        end = ended.get(invocation, {})
        yield Call(
            task=row["task"],
            attempt=row["try"],
            invocation=invocation,
            pid=row["pid"],
            began=row["at"],
            ended=end.get("at"),
            headers=end.get("headers", {}),
            reply=_unpacked(end.get("reply")),
            beats=tuple(beats[invocation]),
        )


def _unpacked(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
