"""A model of the server, with the bridge's and the SDK's own code on it: every interleaving of small configurations.

A state is what the server holds and what everybody has in hand. A step is one operation of the server; anything may
come between two. What a bridge does next is asked of its own processor, what an administrator does of the SDK
(`stepping`), so that this model and the code cannot part. Sequences are renamed in order, which keeps states few.

Not modelled: deadlines, signatures, no responders, limits of routes, queues that the Go project made, waiting inside
the queue; a standing bridge saves its records again in one step; of a crashed bridge's last operation is known whether
it was carried out, but not that it is carried out much later.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tests.model.configs import Config
from tests.model.stepping import Answer, Job, Op, Rec, next_op

from aj_bridge.core.lifecycle import EDGES, Event
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

__all__ = ["FAIR", "Model", "State"]

_CHANGES: Final = {(edge.before, edge.after) for edge in EDGES}
_NEW_RUN: Final = {
    (edge.before, edge.after) for edge in EDGES if edge.event in (Event.RETRIED, Event.FORCED, Event.ENQUEUED)
}
_GROUP: Final = 1000
_RECORD, _ITEM, _SCHEDULE, _EDGE = 1, 2, 3, 4
FAIR: Final = 0
_ENVIRONMENT: Final = 1
_SPEAKS: Final = ("save", "park", "publish", "fire", "wake", "write")


class Item(NamedTuple):
    sequence: int
    delivery: int
    leased: bool
    fired: bool
    silent: tuple[str, int] | None


class Seen(NamedTuple):
    """What a monitor remembers of a task: calls of this run, whether it ever completed, whether anybody interfered."""

    calls: int = 0
    done: bool = False
    disturbed: bool = False


class Task(NamedTuple):
    rec: Rec | None
    item: Item | None
    schedule: tuple[int, tuple[str, int] | None] | None
    seen: Seen


class Hand(NamedTuple):
    """What somebody has in hand: the job, its answers so far, what it is told with the next one."""

    job: Job
    answers: tuple[Answer, ...] = ()
    lost: bool = False
    touched: int = 0
    unread: tuple[Any, ...] = ()  # an answer that came while its bridge stood still


class State(NamedTuple):
    tasks: tuple[Task, ...]
    edges: tuple[tuple[str, str, bytes, int], ...]
    hands: tuple[Hand, ...]
    acks: tuple[tuple[str, int], ...]
    up: tuple[bool, ...]
    faults: int
    acts: int


class Step(NamedTuple):
    kind: int
    text: str
    state: State
    broken: str


@lru_cache(maxsize=100_000)
def _record(body: bytes) -> TaskRecord:
    return TaskRecord.from_wire(body)


class _World:
    """A state on which one step is carried out."""

    def __init__(self, model: "Model", state: State) -> None:
        self.model = model
        self.names = model.names
        self.tasks = dict(zip(self.names, state.tasks, strict=True))
        self.edges = list(state.edges)
        self.hands = list(state.hands)
        self.acks = list(state.acks)
        self.up = list(state.up)
        self.faults, self.acts = state.faults, state.acts
        self.broken = ""
        self._highest = model.highest(state)

    def fresh(self, group: int) -> int:
        self._highest[group] += 1
        return group * _GROUP + self._highest[group]

    def set(self, task_id: str, **fields: Any) -> None:
        self.tasks[task_id] = self.tasks[task_id]._replace(**fields)

    def see(self, task_id: str, **fields: Any) -> None:
        self.set(task_id, seen=self.tasks[task_id].seen._replace(**fields))

    def state(self) -> State:
        return State(
            tuple(self.tasks[name] for name in self.names),
            tuple(self.edges),
            tuple(sorted(self.hands, key=repr)),
            tuple(sorted({ack for ack in self.acks if self._hits(*ack)})),
            tuple(self.up),
            self.faults,
            self.acts,
        )

    def _hits(self, task_id: str, sequence: int) -> bool:
        # An ack of an item that was replaced hits nothing.
        item = self.tasks[task_id].item
        return item is not None and item.sequence == sequence

    # The server's operations.

    def save(self, task_id: str, body: bytes, expected: int, owner: str, item: tuple[int, int]) -> int | None:
        rec = self.tasks[task_id].rec
        if expected != (0 if rec is None else rec[3]):
            return None
        after, before = _record(body), None if rec is None else _record(rec[0])
        new_run = not owner and after.tries == 0 and (before and before.state, after.state) in _NEW_RUN
        if new_run:
            self.see(task_id, calls=0)
        elif before is not None and before.state.final:
            self.broken = f"I-2: {after.state} is saved after the final {before.state}"
        elif before is not None and (before.state, after.state) not in _CHANGES and before != after:
            self.broken = f"I-1: {before.state} -> {after.state}"
        if after.max_tries and after.tries > after.max_tries:
            self.broken = "I-7: more tries than allowed"
        if after.state is TaskState.COMPLETE:
            self.see(task_id, done=True)
        sequence = self.fresh(_RECORD)
        self.set(task_id, rec=(body, owner, item, sequence))
        return sequence

    def put(self, task_id: str, *, fired: bool, silent: tuple[str, int] | None = None) -> None:
        self.set(task_id, item=Item(self.fresh(_ITEM), 0, False, fired, silent))

    def fire(self, task_id: str, *, silence: bool) -> bool:
        schedule = self.tasks[task_id].schedule
        if schedule is None:
            return False
        self.set(task_id, schedule=None)
        self.put(task_id, fired=True, silent=schedule[1] if silence else None)
        return True

    def carry_out(self, hand: Hand, op: Op) -> Any:
        name, args = op
        task = self.tasks.get(args[0]) if args and isinstance(args[0], str) else None
        match name:
            case "load":
                return None if task is None else task.rec
            case "load_many":
                return tuple(self.tasks[task_id].rec for task_id in args[0])
            case "save":
                return self.save(*args)
            case "ack":
                self._check_ack(hand)
                self.acks.append(args)
            case "park":
                sequence = self.fresh(_SCHEDULE)
                self.set(args[0], schedule=(sequence, args[1]))
                return sequence
            case "standing":
                assert task is not None
                return None if task.schedule is None else task.schedule[0]
            case "find":
                assert task is not None
                return task.schedule and task.schedule[0], task.item and task.item.sequence
            case "fire":
                assert task is not None
                stands = task.schedule is not None and task.schedule[0] == args[1]
                return stands and self.fire(args[0], silence=False)
            case "wake":
                return self.fire(args[0], silence=False)
            case "publish":
                assert task is not None
                if task.item is not None and not args[1]:
                    return False
                self.put(args[0], fired=False)
                return True
            case "purge":
                assert task is not None
                if args[1] and task.schedule is not None and task.schedule[0] == args[2]:
                    self.set(args[0], schedule=None)
                elif not args[1] and task.item is not None and task.item.sequence == args[2]:
                    self.set(args[0], item=None)
            case "leaving":
                return tuple(edge for edge in self.edges if edge[0] == args[0])
            case "entering":
                return tuple(edge for edge in self.edges if edge[1] == args[0])
            case "between":
                return tuple(edge for edge in self.edges if edge[:2] == args)
            case "write":
                standing = next((edge for edge in self.edges if edge[:2] == args[:2]), None)
                if args[3] != (0 if standing is None else standing[3]):
                    return False
                self.edges = [edge for edge in self.edges if edge != standing]
                self.edges.append((*args[:3], self.fresh(_EDGE)))
                return True
            case "drop":
                self.edges = [edge for edge in self.edges if not (edge[1] == args[0] and edge[0] in args[1])]
            case "holds":
                return self._holds(*args)
            case _:
                raise AssertionError(name)
        return None

    def _holds(self, owner: str, task_id: str, item: tuple[int, int]) -> str:
        if not (owner in self.model.bridges and self.up[self.model.bridges.index(owner)]):
            return "silent"
        mine = (hand.job for hand in self.hands if hand.job.bridge == owner)
        return "yes" if any(job.task == task_id and job.item == item for job in mine) else "no"

    def _check_ack(self, hand: Hand) -> None:
        rec = self.tasks[hand.job.task].rec
        last = next(reversed(list(self._saves(hand))), None)
        refused = last is not None and last.value is None and not last.raises
        if refused and rec is not None and not _record(rec[0]).state.final and not self._disturbed(hand.job.task):
            self.broken = "I-13: it was refused, and acknowledges the item of a task that goes on"

    def _saves(self, hand: Hand) -> Iterator[Answer]:
        for at, answer in enumerate(hand.answers):
            op, _ = self.model.next(hand.job, hand.answers[:at])
            if op is not None and op.name == "save":
                yield answer

    def _disturbed(self, task_id: str) -> bool:
        return self.tasks[task_id].seen.disturbed

    # Those who have something in hand.

    def answer(self, hand: Hand, value: Any, raises: str = "") -> None:
        """Give somebody an answer, and see him off where he is done; a call is sent in the same breath."""
        answers = (*hand.answers, Answer(value, raises, hand.lost, hand.touched))
        hand = hand._replace(answers=answers, touched=0)
        op, _ = self.model.next(hand.job, hand.answers)
        if op is None:
            return
        if op.name == "call":
            self._check_call(hand)
            answers = (*hand.answers, Answer(lost=hand.lost))
            hand = hand._replace(answers=answers)
        self.hands.append(hand)

    def _check_call(self, hand: Hand) -> None:
        job = hand.job
        task = self.tasks[job.task]
        assert task.rec is not None
        record = _record(task.rec[0])
        self.see(job.task, calls=task.seen.calls + 1)
        if self._disturbed(job.task):
            return
        if (task.rec[1], task.rec[2]) != (job.bridge, job.item) or record.state is not TaskState.ACTIVE:
            self.broken = f"I-3: {job.bridge} calls, and the record is {record.state} of {task.rec[1] or 'nobody'}"
        elif task.seen.calls + 1 > record.tries:
            self.broken = "I-7: more calls than tries"
        for other in self.hands:
            if other.job.task == job.task and not other.lost and self.model.calls(other):
                self.broken = f"I-8: {job.bridge} calls while {other.job.bridge} does, which lost nothing"
        if not all(self.tasks[parent].seen.done for parent in self.model.config.parents[job.task]):
            self.broken = "I-9: a child is called before its parents were complete"


class Model:
    """One configuration's states and steps."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.names = tuple(config.parents)
        self.bridges = tuple(f"b{number}" for number in range(config.bridges))
        self._records = config.records
        self._ops: dict[tuple[Job, tuple[Answer, ...]], tuple[Op | None, int]] = {}

    def next(self, job: Job, answers: tuple[Answer, ...]) -> tuple[Op | None, int]:
        """Ask the code what it does next."""
        key = (job, answers)
        found = self._ops.get(key)
        if found is None:
            found = self._ops[key] = next_op(job, answers, self.config.settings, self._records)
        return found

    def calls(self, hand: Hand) -> bool:
        """Say whether somebody waits for his handler."""
        op, _ = self.next(hand.job, hand.answers)
        return op is not None and op.name == "reply"

    def highest(self, state: State) -> list[int]:
        """Return the highest number in use of each group; numbers were renamed from 1 on."""
        highest = [0] * 5
        for number in _numbers(state):
            highest[number // _GROUP] = max(highest[number // _GROUP], number % _GROUP)
        return highest

    def initial(self) -> State:
        """Return the state in which tasks without parents are enqueued, and the others about to be."""
        tasks, hands = [], []
        for number, (task_id, record) in enumerate(self._records.items(), 1):
            if record.dependencies:
                tasks.append(Task(None, None, None, Seen()))
                hands.append(Hand(Job("enqueue", task_id)))
            else:
                rec = (record.to_wire(), "", (0, 0), _RECORD * _GROUP + number)
                item = Item(_ITEM * _GROUP + number, 0, False, False, None)
                tasks.append(Task(rec, item, None, Seen()))
        config = self.config
        return _renamed(State(tuple(tasks), (), tuple(hands), (), (True,) * config.bridges, config.faults, config.acts))

    def over(self, state: State) -> bool:
        """Say whether nothing is left to do."""
        return (
            not state.hands
            and not state.acks
            and all(
                task.rec is not None
                and _record(task.rec[0]).state.final
                and task.item is None
                and task.schedule is None
                for task in state.tasks
            )
        )

    def at_end(self, state: State) -> str:
        """Say what is wrong with a state in which nothing is left to do."""
        for name, task in zip(self.names, state.tasks, strict=True):
            assert task.rec is not None
            ends = _record(task.rec[0]).state
            parents = [state.tasks[self.names.index(parent)].seen.done for parent in self.config.parents[name]]
            if not all(parents) and ends not in (TaskState.UNREACHABLE, TaskState.TERMINATED, TaskState.QUEUE_ERROR):
                return f"I-10: a parent never completed, and its child is {ends}"
        return ""

    # Steps.

    def steps(self, state: State) -> Iterator[Step]:
        """Give every step from a state."""
        made: list[Step] = []

        def step(kind: int, text: str, world: _World) -> None:
            made.append(Step(kind, text, _renamed(world.state()), world.broken))

        for at, hand in enumerate(state.hands):
            if hand.job.kind != "item" or state.up[self.bridges.index(hand.job.bridge)]:
                self._go_on(state, at, hand, step)
        self._server(state, step)
        self._bridges(state, step)
        self._outside(state, step)
        return iter(made)

    def _without(self, state: State, at: int) -> _World:
        world = _World(self, state)
        del world.hands[at]
        return world

    def _go_on(self, state: State, at: int, hand: Hand, step: Callable[[int, str, _World], None]) -> None:
        op, _ = self.next(hand.job, hand.answers)
        assert op is not None
        who = hand.job.bridge or hand.job.kind
        if hand.unread:
            world = self._without(state, at)
            world.answer(hand._replace(unread=()), hand.unread[0])
            step(FAIR, f"{who}: reads what came of {op.name} {_told(op.args)}", world)
            return
        if op.name == "reply":
            rec = state.tasks[self.names.index(hand.job.task)].rec
            if rec is None or (rec[1], rec[2]) != (hand.job.bridge, hand.job.item):
                world = self._without(state, at)
                world.answer(hand, rec, "stopped")
                step(FAIR, f"{who}: is told that {hand.job.task} is not its own any more", world)
            for well in (True, False) if self.config.fails else (True,):
                world = self._without(state, at)
                world.answer(hand, well)
                step(FAIR, f"{who}: the handler of {hand.job.task} {'succeeds' if well else 'fails'}", world)
            return
        world = self._without(state, at)
        world.hands.append(hand)  # it still holds what it asks about
        said = world.carry_out(hand, op)
        world.hands.remove(hand)
        world.answer(hand, said)
        text = f"{who}: {op.name} {_told(op.args)} -> {_told(said)}"
        step(FAIR, text, world)
        if not state.faults:
            return
        kinds = self.config.kinds
        if op.name == "save" and "unheard" in kinds:
            for applied in (True, False):
                world = self._without(state, at)
                world.faults -= 1
                if applied:
                    world.carry_out(hand, op)
                world.answer(hand, None, "unknown")
                step(_ENVIRONMENT, f"FAULT: no answer to {text}{'' if applied else ', and it is not done'}", world)
        if op.name == "save" and "stall" in kinds and hand.job.kind == "item":
            world = self._without(state, at)
            world.faults -= 1
            world.hands.append(hand._replace(unread=(world.carry_out(hand, op),)))
            world.up[self.bridges.index(hand.job.bridge)] = False
            step(_ENVIRONMENT, f"FAULT: {who} stands still before it reads what came of {text}", world)
        if op.name == "publish" and "refused" in kinds and hand.job.kind != "sweep":
            world = self._without(state, at)
            world.faults -= 1
            world.answer(hand, "full")
            step(_ENVIRONMENT, f"FAULT: the queue is full for {text}", world)
        if hand.job.kind not in ("item", "sweep") and "dies" in kinds and hand.answers:
            world = self._without(state, at)
            world.faults -= 1
            step(_ENVIRONMENT, f"FAULT: who is at {hand.job.kind} dies before {op.name}", world)

    def _server(self, state: State, step: Callable[[int, str, _World], None]) -> None:
        for name, task in zip(self.names, state.tasks, strict=True):
            if task.item is not None and not task.item.leased:
                self._deliver(state, name, task.item, step)
            elif task.item is not None and self._can_run_out(state, name, task.item):
                world = _World(self, state)
                world.set(name, item=task.item._replace(leased=False))
                world.hands = [_lost(hand) if _has(hand, name, task.item) else hand for hand in world.hands]
                step(FAIR, f"server: the lease of {name}'s item is over", world)
            if task.schedule is not None:
                world = _World(self, state)
                world.fire(name, silence=True)
                owner = task.schedule[1][0] if task.schedule[1] else ""
                if owner in self.bridges and not state.up[self.bridges.index(owner)]:
                    # It was silent a lease ago, and still stands (no world here has two stalls): its leases are over.
                    world.hands = [_lost(hand) if hand.job.bridge == owner else hand for hand in world.hands]
                step(FAIR, f"server: {name}'s schedule fires", world)
            if task.item is not None and task.item.leased and state.faults and "dropped" in self.config.kinds:
                world = _World(self, state)
                world.faults -= 1
                world.set(name, item=None)
                step(_ENVIRONMENT, f"FAULT: the full queue drops {name}'s item", world)
        for at, (name, sequence) in enumerate(state.acks):
            world = _World(self, state)
            del world.acks[at]
            task = world.tasks[name]
            if task.item is not None and task.item.sequence == sequence:
                world.set(name, item=None)
                goes_on = task.rec is not None and not _record(task.rec[0]).state.final
                if goes_on and task.schedule is None and not task.seen.disturbed:
                    world.broken = "C-7: an item is acknowledged while nothing else stands for its task"
            step(FAIR, f"server: the ack of {name}'s item {sequence} arrives", world)
            if state.faults and "ack lost" in self.config.kinds:
                world = _World(self, state)
                del world.acks[at]
                world.faults -= 1
                step(_ENVIRONMENT, f"FAULT: the ack of {name}'s item {sequence} is lost", world)

    def _deliver(self, state: State, name: str, item: Item, step: Callable[[int, str, _World], None]) -> None:
        unused = [bridge for bridge in self.bridges if not _names(state, bridge)]
        for bridge, up in zip(self.bridges, state.up, strict=True):
            if bridge in unused[1:]:
                continue  # the one is as good as the other
            if up and sum(hand.job.bridge == bridge for hand in state.hands) < self.config.slots:
                world = _World(self, state)
                delivery = item.delivery + 1
                world.set(name, item=item._replace(leased=True, delivery=delivery))
                job = Job("item", name, bridge, (item.sequence, delivery), item.fired, item.silent)
                world.hands.append(Hand(job))
                step(FAIR, f"server: delivers {name}'s item {item.sequence}.{delivery} to {bridge}", world)

    def _can_run_out(self, state: State, name: str, item: Item) -> bool:
        if (name, item.sequence) in state.acks:
            return False
        return not any(
            _has(hand, name, item) and not hand.lost and state.up[self.bridges.index(hand.job.bridge)]
            for hand in state.hands
        )

    def _bridges(self, state: State, step: Callable[[int, str, _World], None]) -> None:
        for number, bridge in enumerate(self.bridges):
            mine = [hand for hand in state.hands if hand.job.bridge == bridge]
            if not state.up[number]:
                for late in (False, True) if mine else (False,):
                    world = _World(self, state)
                    world.up[number] = True
                    self._go_on_again(world, bridge, late=late)
                    step(FAIR, f"{bridge} goes on{', later than a lease' if late else ''}", world)
            if state.faults and mine and state.up[number] and "stall" in self.config.kinds:
                world = _World(self, state)
                world.up[number] = False
                world.faults -= 1
                step(_ENVIRONMENT, f"FAULT: {bridge} stands still, or is cut off", world)
            if state.faults and mine and "crash" in self.config.kinds:
                self._crash(state, number, mine, step)
            for hand in mine:
                task = state.tasks[self.names.index(hand.job.task)]
                if self.config.discards and state.up[number] and self.calls(hand) and not hand.lost:
                    gone = task.item is None and task.schedule is None and task.rec is not None
                    if gone and task.rec is not None and task.rec[1:3] == (bridge, hand.job.item):
                        world = _World(self, state)
                        world.set(hand.job.task, schedule=(world.fresh(_SCHEDULE), None))
                        step(FAIR, f"{bridge}: parks {hand.job.task}, whose item was dropped", world)

    def _go_on_again(self, world: _World, bridge: str, *, late: bool) -> None:
        for at, held in enumerate(world.hands):
            if held.job.bridge != bridge:
                continue
            hand = _lost(held) if late else held
            task = world.tasks[hand.job.task]
            if late and task.item is not None and task.item.leased and _has(hand, hand.job.task, task.item):
                world.set(hand.job.task, item=task.item._replace(leased=False))
            op, known = self.next(hand.job, hand.answers)
            known = hand.unread[0] if hand.unread else known
            ours = task.rec is not None and task.rec[1:3] == (bridge, hand.job.item) and task.rec[3] == known
            if ours and op is not None and task.rec is not None and _record(task.rec[0]).state is TaskState.ACTIVE:
                # Those that wait for the silent are told by a new sequence; the bridge knows it.
                body, owner, item, sequence = task.rec
                again = world.save(hand.job.task, body, sequence, owner, item) or 0
                world.hands[at] = hand._replace(unread=(again,)) if hand.unread else hand._replace(touched=again)
            else:
                world.hands[at] = hand

    def _crash(self, state: State, number: int, mine: list[Hand], step: Callable[[int, str, _World], None]) -> None:
        bridge = self.bridges[number]
        speaks = [(hand, op) for hand in mine if (op := self.next(hand.job, hand.answers)[0]) and op.name in _SPEAKS]
        for said in (False, True) if speaks else (False,):
            world = _World(self, state)
            world.faults -= 1
            world.up[number] = True
            if said:
                for hand, op in speaks:
                    world.carry_out(hand, op)
            world.hands = [hand for hand in world.hands if hand.job.bridge != bridge]
            # It is replaced by another one; nobody answers to its name.
            dead = _map(world.state(), lambda value: "dead" if value == bridge else value)
            broken = world.broken
            world = _World(self, dead)
            world.broken = broken
            step(_ENVIRONMENT, f"FAULT: {bridge} crashes{' after its last word' if said else ''}", world)

    def _outside(self, state: State, step: Callable[[int, str, _World], None]) -> None:
        for name, task in zip(self.names, state.tasks, strict=True):
            if task.rec is None:
                continue
            record = _record(task.rec[0])
            swept = any(hand.job.kind == "sweep" for hand in state.hands)
            if not record.state.final and task.item is None and task.schedule is None and not swept:
                world = _World(self, state)
                world.hands.append(Hand(Job("sweep", name)))
                step(FAIR, f"the sweeper looks at {name}", world)
            if state.acts:
                for kind in self.config.users:
                    world = _World(self, state)
                    world.acts -= 1
                    world.hands.append(Hand(Job(kind, name)))
                    if kind in ("cancel", "retry", "force"):
                        world.see(name, disturbed=True)
                    step(_ENVIRONMENT, f"USER: {kind} {name}", world)


def _names(value: Any, text: str) -> bool:
    return any(_names(each, text) for each in value) if isinstance(value, tuple) else value == text


def _has(hand: Hand, name: str, item: Item) -> bool:
    return hand.job.task == name and hand.job.item == (item.sequence, item.delivery)


def _lost(hand: Hand) -> Hand:
    return hand._replace(lost=True)


def _told(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            record = TaskRecord.from_wire(value)
        except Exception:  # noqa: BLE001 - an edge
            return value.decode()
        return f"{record.state} try {record.tries}"
    if isinstance(value, tuple):
        return "(" + ", ".join(_told(each) for each in value) + ")"
    return str(value)


def _numbers(value: Any) -> Iterator[int]:
    kind = type(value)
    if kind is int:
        if value >= _GROUP:
            yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _numbers(each)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple):
        changed = [_map(each, change) for each in value]
        return type(value)(*changed) if hasattr(value, "_fields") else tuple(changed)
    return change(value)


def _renamed(state: State) -> State:
    """Rename the numbers of each group to 1, 2, ... in their order: only their order and their sameness matter."""
    used = sorted(set(_numbers(state)))
    names: dict[int, int] = {}
    counts = [0] * 5
    for number in used:
        group = number // _GROUP
        counts[group] += 1
        names[number] = group * _GROUP + counts[group]
    if all(old == new for old, new in names.items()):
        return state
    state = _map(state, lambda value: names.get(value, value) if type(value) is int else value)
    return state._replace(hands=tuple(sorted(state.hands, key=repr)), acks=tuple(sorted(state.acks)))
