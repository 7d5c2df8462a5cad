"""What a bridge writes down of its steps: one JSON line each, for whoever proves something or looks for a fault.

Knows the form of a line and what must not stand in it: no payload, no result, no error's text, no header of a message.
Knows no file; whoever gives `write` decides where the lines go.
"""

import os
from collections.abc import Callable
from typing import Final

import msgspec

from aj_bridge.core.claim import Claim
from aj_bridge.core.decision import Ack, Aftercare, Decision, Drop, Finish, Park, Quarantine, Start
from aj_bridge.engine.clock import Clock
from aj_sdk.version import __version__
from aj_sdk.wire.stamp import ItemRef

__all__ = ["STEPS", "Journal"]

STEPS: Final = {
    "start": "the bridge's queues are bound, work begins",
    "claim": "an item was delivered; `fired` when a schedule put it there",
    "load": "a record was read: its `sequence`, `state` and `owner`; without them there is none",
    "look": "it was looked whether the task's schedule stands (`standing`)",
    "ask": "another bridge was asked whether it holds the item; its `answer`",
    "decision": "what the rules say to do with the item, or after a call",
    "save": "a record was sent; `outcome` is `accepted` (with its `sequence`), `refused`, `unknown` or `failed`",
    "call": "a handler is about to be called",
    "reply": "the call has ended; its `outcome`",
    "park": "the item's schedule was stored, or stands in its stead",
    "leave": "the item was let go after that",
    "wake": "a waiting item was to be brought back; `won` when it was us",
    "ack": "an acknowledgement was sent; `surely` when its confirmation came",
    "nak": "the item was given back",
    "term": "the item was taken out because it can't be processed",
    "progress": "a lease was renewed; `outcome` is `confirmed` or `failed`, `sent` when it was asked for",
    "put_back": "an item that the queue dropped was published again",
    "discard": "a record that is not wanted any more was removed",
    "event": "an event was published",
    "attempt": "an attempt was stored",
    "dead_letter": "a dead letter was stored",
    "lost": "somebody else has changed the task, a save was refused or a call stopped",
    "drop": "nothing more is sent for the item",
    "stop": "the bridge has ended; `cancelled` tasks were still in hand",
}
"""The steps there are, and what each tells; the documentation is made from it."""


class Journal:
    """Writes down the steps of one bridge.

    Args:
        bridge_id: its id, which stands in each line.
        write: takes a line, its end included; must not fail and not wait for long.
        clock: the time.

    Attributes:
        monotonic: seconds that only run forward, as in the lines.
    """

    def __init__(self, bridge_id: str, write: Callable[[bytes], None], clock: Clock) -> None:
        self._bridge_id = bridge_id
        self._write = write
        self._clock = clock
        self.monotonic = clock.monotonic
        self._encode = msgspec.json.Encoder().encode

    def note(self, step: str, *, queue: str = "", task: str = "", item: ItemRef | None = None, **more: object) -> None:
        """Write down a step.

        Args:
            step: one of `STEPS`.
            queue: the queue, empty where it concerns none.
            task: the task, empty where it concerns none.
            item: the delivery, None where it concerns none.
            more: what else is told; texts, numbers and truth values only.
        """
        line: dict[str, object] = {
            "at": self._clock.now_ns(),
            "monotonic": self._clock.monotonic(),
            "bridge": self._bridge_id,
            "step": step,
        }
        if queue:
            line["queue"] = queue
        if task:
            line["task"] = task
        if item is not None:
            line["item"] = str(item)
        self._write(self._encode({**line, **more}) + b"\n")

    def of(self, claim: Claim, step: str, **more: object) -> None:
        """Write down a step with a claim."""
        self.note(step, queue=claim.queue, task=claim.task_id, item=claim.item, **more)

    def decided(self, claim: Claim, decision: Decision) -> None:
        """Write down what is to be done with a claim."""
        self.of(claim, "decision", what=type(decision).__name__.lower(), **_told(decision))

    def started(self, queues: str) -> None:
        """Write down that work begins."""
        self.note("start", queue=queues, pid=os.getpid(), version=__version__)


def _told(decision: Decision) -> dict[str, object]:
    match decision:
        case Ack(why) | Drop(why):
            return {"why": why}
        case Aftercare(record):
            return {"state": record.state.value}
        case Finish(record, event) | Start(record, event):
            return {"state": record.state.value, "tries": record.tries, "event": event.name.lower()}
        case Park():
            saved = {} if decision.record is None else {"state": decision.record.state.value}
            return {"why": decision.why, "due": decision.due_ns, **saved}
        case Quarantine():
            return {}  # the reason may quote what could not be read
