"""What happened in a simulated world: kept as values while it runs, told as text when somebody asks."""

import asyncio
from typing import Any, Final, cast

import msgspec
from tests.sim.loop import Process
from tests.sim.way import Mishap

from aj_bridge.core.claim import Claim
from aj_bridge.storage.protocols import Parked
from aj_sdk.dependents import StoredEdge
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.edge import Edge
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

__all__ = ["CallMade", "History", "Save"]

_ABOUT_ITEMS: Final = frozenset({"ack", "leave", "give_back", "discard", "park"})
_QUIET: Final = frozenset({"serve", "event", "last_sequence", "scan", "queues", "locate", "items", "attempted"})


class Save(msgspec.Struct, frozen=True):
    """A record that was saved: when, which number among all that happened, and what."""

    at: float
    number: int
    stored: Stored

    @property
    def record(self) -> TaskRecord:
        """The task."""
        return self.stored.readable()


class CallMade(msgspec.Struct):
    """A call of a handler, as its bridge sees it and as the handler does.

    Attributes:
        bridge: who calls.
        stamp: under which claim.
        task: what is handed over.
        sent: when the bridge sent it.
        let_go: when the bridge had the outcome or gave up, None while it waits.
        began: when the handler began, None when it never heard of it.
        ended: when the handler ended.
        result: what it gave as a result, None where it gave none.
        shown_ns: what the bridge's own clock showed as it was sent.
        number: which of all that happened it was.
        missed: whether nobody was there.
    """

    bridge: str
    stamp: Stamp
    task: TaskRecord
    sent: float
    shown_ns: int
    number: int = 0
    let_go: float | None = None
    began: float | None = None
    ended: float | None = None
    result: bytes | None = None
    missed: bool = False


class History:
    """Everything that happened, in order.

    Attributes:
        saves: records that were saved, by task.
        calls: calls of handlers.
        run_out: deliveries whose lease ran out on the server, by owner of the delivery.
        crashed: processes that crashed, and when.
        gone: processes that crashed or were told to stop.
        given_back: deliveries that their bridge gave back itself, perhaps later than it knew.
        lost: claims whose save was refused because somebody else wrote, and when its bridge was told.
        wrong: what broke a promise as it happened.
        told: task and state of each event.
        unsure: saves whose answer was lost, by stamp and state.
        interfered: until when a task may have been taken from its bridge by an administrator.
        acknowledged: tasks whose enqueue returned.
        ended: how each task stands at the end.
        start: when it began, seconds of the loop.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[float, str, str, object, object]] = []
        self.saves: dict[str, list[Save]] = {}
        self.calls: list[CallMade] = []
        self.run_out: set[tuple[str, ItemRef]] = set()
        self.crashed: dict[str, float] = {}
        self.gone: set[str] = set()
        self.given_back: set[ItemRef] = set()
        self.lost: set[Stamp] = set()
        self.wrong: list[str] = []
        self.told: set[tuple[str, TaskState, int]] = set()
        self.unsure: set[tuple[str, str]] = set()
        self.interfered: dict[str, float] = {}
        self.acknowledged: set[str] = set()
        self.ended: dict[str, str] = {}
        self.start = 0.0

    def note(self, actor: str, what: str, about: object = "", result: object = "") -> None:
        """Take something down."""
        self.lines.append((asyncio.get_running_loop().time(), actor, what, about, result))

    def break_(self, text: str) -> None:
        """Take down that a promise was broken."""
        self.wrong.append(text)
        self.note("!!!", text)

    # `Watcher`

    def sends(self, process: Process, act: str, about: object) -> None:
        """See `Watcher`."""
        if isinstance(about, Claim) and act in _ABOUT_ITEMS and Stamp(process.name, about.item) in self.lost:
            saves = self.saves.get(about.task_id, [])
            if saves and not saves[-1].record.state.final and about.task_id not in self.interfered:
                self.break_(f"I-13 {about.task_id}: {process.name} lost it, and sends {act}")

    def act(self, process: Process, act: str, about: object, result: object) -> None:
        """See `Watcher`."""
        if act not in _QUIET:
            self.note(process.name, act, about, result)

    def mishap(self, process: Process, act: str, about: object, mishap: Mishap) -> None:
        """See `Watcher`."""
        self.note(process.name, f"{act}: {mishap}", about)
        if act == "save":
            task_id = about.id if isinstance(about, TaskRecord) else TaskRecord.from_wire(cast("bytes", about)).id
            self.unsure.add((process.name, task_id))

    def text(self, task_id: str = "") -> list[str]:
        """Tell it; only what is about one task where that is said."""
        told = []
        for at, actor, what, about, result in self.lines:
            line = f"{at - self.start:9.3f}  {actor:<10} {what} {_told(about)}{_result(result)}".rstrip()
            if not task_id or task_id in line.replace(",", " ").replace(":", " ").split() or actor in ("!!!", "sim"):
                told.append(line)
        return told


def _result(value: object) -> str:
    if value is None or value == "":
        return ""
    return f" -> {_told(value)}"


def _told(value: Any) -> str:
    match value:
        case Claim():
            return (
                f"{value.task_id} item {value.item}{' fired' if value.fired else ''}{' silent' if value.silent else ''}"
            )
        case TaskRecord():
            return f"{value.id} {value.state.value or 'unknown'} tries {value.tries}"
        case Stored():
            owner = "" if value.stamp is None else f" by {value.stamp.owner[:8]} item {value.stamp.item}"
            what = "unreadable" if value.record is None else f"{value.record.state.value} tries {value.record.tries}"
            return f"{value.task_id} #{value.sequence} {what}{owner}"
        case Parked():
            return f"{value.task_id} parked #{value.sequence}"
        case StoredEdge():
            return f"{_told(value.edge)} #{value.sequence}"
        case Edge():
            return f"{value.parent} -> {value.child} {value.state.value if value.done else 'open'}"
        case DeadLetter() | Attempt():
            return str(value.task_id)
        case bytes():
            return value.decode("utf-8", "replace")[:200]
        case dict():
            return "{" + ", ".join(_told(each) for each in value.values()) + "}"
        case list() | tuple():
            return "[" + ", ".join(_told(each) for each in value) + "]"
        case Exception():
            return f"{type(value).__name__}: {value}"
        case _:
            return str(value)
