"""What happened, from witnesses outside the bridge, and whether it was allowed.

The witnesses: a stream into which the server republishes each save of a task, the journal of the handlers, the records
at the end. Nothing here uses the bridge's or the SDK's idea of a task: it reads JSON and judges by the contract.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aj_sdk.jetstream import JetStream

__all__ = ["Call", "Disturbance", "Save", "all_saves", "judge", "read_calls", "start_recording"]

_STREAM: Final = "RECORD"
_FINAL: Final = frozenset({"complete", "expired", "terminated", "unreachable", "queue_error"})
_FOLLOWS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"new", "blocked"}),
    "new": frozenset({"active", "retry", "expired", "terminated", "unreachable", "queue_error"}),
    "blocked": frozenset({"active", "retry", "expired", "terminated", "unreachable", "queue_error"}),
    "retry": frozenset({"active", "retry", "expired", "terminated", "unreachable"}),
    "active": frozenset({"active", "retry", "complete", "expired", "terminated"}),
}
"""Which state may follow which within a run; nothing follows a final one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """A save of a task's record that the server accepted."""

    task: str
    state: str
    tries: int
    owner: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a handler; `ended` is None when nobody noted its end."""

    task: str
    tries: int
    invocation: str
    pid: int
    began: float
    ended: float | None

    @property
    def bridge(self) -> str:
        """The bridge that made it."""
        return self.invocation.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A time in which something was done to the processes, by the monotonic clock; leases may be lost in it.

    With a bridge it is that one alone that may have lost some.
    """

    begins: float
    ends: float
    bridge: str = ""


async def start_recording(jetstream: JetStream, task_store: Mapping[str, Any]) -> None:
    """Make the task store such that each save of a task is written down; before anything else uses it."""
    await jetstream.create_stream({"name": _STREAM, "subjects": ["RECORD.*"], "storage": "file", "allow_direct": True})
    republish = {"src": "CHORIA_AJ.T.*", "dest": "RECORD.{{wildcard(1)}}"}
    await jetstream.create_stream({**task_store, "republish": republish})


async def all_saves(jetstream: JetStream) -> list[Save]:
    """Read all saves, in their order."""
    saves = []
    async for message in jetstream.scan(_STREAM, "RECORD.*"):
        body = json.loads(message.data)
        owner = next((value for name, value in message.headers.items() if name.lower() == "aj-owner"), "")
        task = message.subject.removeprefix("RECORD.")
        saves.append(Save(task=task, state=body["state"], tries=body.get("tries", 0), owner=owner, body=body))
    return saves


def read_calls(journal: Iterable[Mapping[str, Any]], deaths: Mapping[int, float]) -> list[Call]:
    """Read the calls from the handlers' journal.

    Args:
        journal: its lines.
        deaths: when processes ended that did not note the ends of their calls, by process id.
    """
    lines = list(journal)
    ends = {line["invocation"]: line["at"] for line in lines if line["what"] == "ended"}
    return [
        Call(
            task=line["task"],
            tries=line["try"],
            invocation=line["invocation"],
            pid=line["pid"],
            began=line["at"],
            ended=ends.get(line["invocation"], deaths.get(line["pid"])),
        )
        for line in lines
        if line["what"] == "began"
    ]


def judge(
    records: Mapping[str, Mapping[str, Any]],
    saves: Sequence[Save],
    calls: Sequence[Call],
    *,
    disturbances: Sequence[Disturbance] = (),
    runs: int = 1,
    complete_record: bool = True,
) -> list[str]:
    """Return what happened that must not happen, empty when all is well.

    Args:
        records: the record of each task at the end, by task id.
        saves: all accepted saves.
        calls: all calls of handlers.
        disturbances: when calls of one task may have come to overlap.
        runs: how often each task was begun: once, and once more for each retry on request.
        complete_record: whether all saves were written down; a server that is killed may lose the last copies.
    """
    wrong: list[str] = []
    saves_of: dict[str, list[Save]] = defaultdict(list)
    calls_of: dict[str, list[Call]] = defaultdict(list)
    for save in saves:
        saves_of[save.task].append(save)
    for call in calls:
        calls_of[call.task].append(call)
    for task, record in records.items():
        ours = saves_of[task]
        if complete_record:
            wrong += [f"{task}: {fault}" for fault in _states(ours, runs)]
            wrong += [f"{task}: {fault}" for fault in _starts(ours, calls_of[task])]
        elif Counter(save.state in _FINAL for save in ours)[True] > runs:
            wrong.append(f"{task}: ended more than once: {[save.state for save in ours]}")
        wrong += [f"{task}: {fault}" for fault in _tries(record, calls_of[task], runs)]
        wrong += [f"{task}: {fault}" for fault in _overlaps(calls_of[task], disturbances)]
    wrong += [f"{task}: nobody enqueued it" for task in saves_of.keys() - records.keys()]
    return wrong


def _states(saves: Sequence[Save], runs: int) -> Iterable[str]:
    before, ends = "", 0
    for save in saves:
        if before in _FINAL and save.state in ("new", "retry", "blocked"):
            before = ""  # a retry on request begins a new run
            if save.state == "retry":
                before = "new"  # as the Go project has it
        if save.state not in _FOLLOWS.get(before, ()):
            yield f"{save.state} follows {before or 'nothing'} in {[each.state for each in saves]}"
        ends += save.state in _FINAL
        before = save.state
    if ends != runs:
        yield f"ended {ends} times in {runs} runs: {[each.state for each in saves]}"


def _starts(saves: Sequence[Save], calls: Sequence[Call]) -> Iterable[str]:
    active = {(save.owner, save.tries) for save in saves if save.state == "active"}
    for call in calls:
        if (call.bridge, call.tries) not in active:
            yield f"try {call.tries} of {call.bridge} started without an accepted save"
    if saves and saves[-1].state == "complete" and calls:
        # The recorded result is the reply of a call of the try that was saved last.
        winners = {call.invocation for call in calls if call.tries == saves[-1].tries}
        if saves[-1].owner not in {invocation.partition("-")[0] for invocation in winners}:
            yield "completed by a bridge that made no call of the last try"


def _tries(record: Mapping[str, Any], calls: Sequence[Call], runs: int) -> Iterable[str]:
    if record["state"] not in _FINAL:
        yield f"is {record['state']} at the end"
    tries, limit = record.get("tries", 0), record.get("max_tries", 10)
    if runs == 1 and len(calls) > tries:
        yield f"{len(calls)} calls, but {tries} tries"
    if 0 < limit < tries:
        yield f"{tries} tries of {limit}"
    again = [number for number, times in Counter(call.tries for call in calls).items() if times > runs]
    if again:
        yield f"tries {again} started more than once"
    if len({call.invocation for call in calls}) != len(calls):
        yield "two calls with one invocation id"


def _overlaps(calls: Sequence[Call], disturbances: Sequence[Disturbance]) -> Iterable[str]:
    ordered = sorted(calls, key=lambda call: call.began)
    for index, later in enumerate(ordered):
        for earlier in ordered[:index]:
            if earlier.ended is not None and earlier.ended <= later.began:
                continue
            if any(_excuses(each, earlier, later) for each in disturbances):
                continue
            yield f"try {later.tries} started while try {earlier.tries} ran, and no lease was lost"


def _excuses(disturbance: Disturbance, earlier: Call, later: Call) -> bool:
    between = disturbance.begins <= later.began and earlier.began <= disturbance.ends
    return between and disturbance.bridge in ("", earlier.bridge)
