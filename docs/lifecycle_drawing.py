"""The generated sections of lifecycle.md: the table of states drawn and written out, and the rules of a delivery."""
# ruff: noqa: INP001 - scripts, not a package

import inspect
from collections.abc import Iterable, Sequence
from typing import Final

from aj_bridge.core.deliver import RULES
from aj_bridge.core.lifecycle import EDGES, Edge, Event
from aj_sdk.wire.state import FINAL_STATES, TaskState

__all__ = ["sections"]

_UNFINISHED: Final = frozenset(TaskState) - FINAL_STATES
_NO_STATE: Final = "(no state)"
_NOT_STORED: Final = "(not stored)"


def sections() -> dict[str, str]:
    """Return all sections."""
    return {
        "diagram": _diagram(),
        "edges": _edges(),
        "rules": _rules(),
    }


def _common(edge: Edge) -> bool:
    """Say whether every unfinished state, or every final one, has this line: the picture leaves those out."""
    alike = {each.before for each in EDGES if (each.event, each.after) == (edge.event, edge.after)}
    return alike >= _UNFINISHED or alike >= FINAL_STATES


def _diagram() -> str:
    # A record without a state goes where a new one goes: one more box would only repeat its arrows.
    drawn = [edge for edge in EDGES if edge.before is not TaskState.UNKNOWN and not _common(edge)]
    events: dict[tuple[str, str], list[str]] = {}
    for edge in drawn:
        before = "[*]" if edge.before is None else edge.before.value
        events.setdefault((before, edge.after.value), []).append(edge.event.value)
    arrows = [f"    {before} --> {after}: {', '.join(what)}" for (before, after), what in events.items()]
    ends = [f"    {state.value} --> [*]" for state in TaskState if state in FINAL_STATES]
    return "\n".join(["```mermaid", "stateDiagram-v2", *arrows, *ends, "```"])


def _edges() -> str:
    lines: dict[tuple[Event, TaskState, str], list[TaskState | None]] = {}
    for edge in EDGES:
        lines.setdefault((edge.event, edge.after, edge.hand.value), []).append(edge.before)
    order = list(Event)
    rows = [
        (event.value, _befores(befores), f"`{after}`", hand)
        for (event, after, hand), befores in sorted(lines.items(), key=lambda line: order.index(line[0][0]))
    ]
    return _table(("what happens", "from", "to", "saved by"), rows)


def _befores(befores: Iterable[TaskState | None]) -> str:
    found = set(befores)
    if found == _UNFINISHED:
        return "every unfinished state"
    if found == FINAL_STATES:
        return "every final state"
    names = {None: _NOT_STORED, TaskState.UNKNOWN: _NO_STATE}
    return ", ".join(names.get(state) or f"`{state}`" for state in (None, *TaskState) if state in found)


def _rules() -> str:
    return "\n".join(f"{number}. {_first_line(rule)}" for number, rule in enumerate(RULES, 1))


def _first_line(rule: object) -> str:
    text = inspect.getdoc(rule)
    assert text is not None
    return text.partition("\n")[0]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
