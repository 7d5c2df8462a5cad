"""Random histories of two bridges, a parent and its child, driven through `decide` and `settle`.

A world as small as it can be: records under compare-and-set, one item and one schedule a task, leases, bridges that
crash and stall. Each step of a worker is one act on that world, so that anything may come in between. After each
history the world is left in peace, and everything has to end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from random import Random
from typing import TypeVar

from hypothesis import given, note, settings
from hypothesis import strategies as st

from aj_bridge.core.claim import Claim
from aj_bridge.core.decision import Ack, Aftercare, Drop, Finish, Look, Park, Quarantine, Start
from aj_bridge.core.deliver import Holder, Known, decide, max_tries
from aj_bridge.core.lifecycle import Event, is_edge
from aj_bridge.core.retry import RetryPolicy
from aj_bridge.core.settle import NoResponders, Outcome, settle, too_late
from aj_sdk.wire.call import Completed, Failed, Terminated
from aj_sdk.wire.item import WorkItem
from aj_sdk.wire.queue import QueueSettings
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

START = 1_767_225_600 * NS_PER_S
LEASE = 30 * NS_PER_S
QUEUE = QueueSettings(name="Q", max_run_time_ns=600 * NS_PER_S)
POLICY = RetryPolicy([timedelta(seconds=10)], 1.0)
NOBODY = NoResponders("CHORIA_AJ.H.T.t", NS_PER_S)
OUTCOMES: tuple[Outcome, ...] = (Completed(b""), Failed("why"), Failed("later", 90 * NS_PER_S), Terminated("no"))
ENOUGH = 2_000

_T = TypeVar("_T")


@dataclass
class Item:
    sequence: int
    fired: bool = False
    silent: str = ""
    due_ns: int = 0
    delivery: int = 0
    leased: bool = False
    not_before_ns: int = 0


@dataclass
class Schedule:
    due_ns: int
    silent: str


@dataclass
class Task:
    name: str
    record: TaskRecord
    sequence: int = 1
    stamp: Stamp | None = None
    item: Item | None = None
    schedule: Schedule | None = None
    run: int = 1
    called: int = 0
    owed: int = 0  # tries counted for calls that were not made, yet or ever
    completed: bool = False


@dataclass(eq=False)
class Worker:
    bridge: str
    task: Task
    claim: Claim
    record: TaskRecord  # as it was loaded or saved
    expected: int
    run: int
    todo: list[tuple[str, object]] = field(default_factory=list)
    lost: bool = False  # its lease may have passed, and it knows
    active: bool = False
    running: bool = False
    uncalled: bool = False  # it was saved active, and the call was not made: its try is to be given back

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.bridge, self.claim.item)


class History:
    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.now_ns = START
        self.numbers = count(1)
        self.bridges = ["b1", "b2"]
        self.stalled: dict[str, int] = {}
        self.tasks: dict[str, Task] = {}
        self.workers: list[Worker] = []
        self.schedules = self.chance.random() < 0.7
        self.acts: list[tuple[int, Callable[[], None]]] = [
            (60, self.work),
            (20, self.deliver),
            (10, self.end_a_call),
            (10, self.time_comes),
            (6, self.enqueue_again),
            (4, self.find_nobody),
            (4, self.lease_runs_out),
            (3, self.time_passes),
            (3, self.thaw),
            (2, self.stall),
            (2, self.retry),
            (1, self.crash),
        ]
        self.enqueue()

    def go(self, steps: int) -> None:
        """Do something, so many times."""
        weights = [weight for weight, _ in self.acts]
        for _, act in self.chance.choices(self.acts, weights, k=steps):
            act()
            self.check()

    def one_of(self, choices: Sequence[_T]) -> _T:
        return self.chance.choice(choices)

    # The world.

    def enqueue(self) -> None:
        tries = self.chance.randint(1, 3)
        deadline_ns = START + self.chance.randint(20, 200) * NS_PER_S if self.chance.random() < 0.4 else None
        parent = TaskRecord(id="p", type="t", queue="Q", created_ns=START, max_tries=tries, deadline_ns=deadline_ns)
        self.tasks["p"] = Task("p", parent)
        if self.chance.random() < 0.5:
            child = parent.replace(id="c", state=TaskState.BLOCKED, dependencies=("p",), deadline_ns=None)
            self.tasks["c"] = Task("c", child)
        for task in self.tasks.values():
            self.put_item(task)

    def put_item(self, task: Task, *, fired: bool = False, silent: str = "", due_ns: int = 0) -> None:
        # It takes the place of one that is there; whoever holds that one is not told.
        task.item = Item(next(self.numbers), fired, silent, due_ns)

    def write(self, task: Task, record: TaskRecord, event: Event, stamp: Stamp | None) -> None:
        note(f"{task.name}: {task.record.state} -> {record.state} ({event})")
        assert is_edge(task.record.state, event, record.state), "I-1"
        assert not task.record.state.final or event is Event.RETRIED, "I-2"
        task.record, task.stamp, task.sequence = record, stamp, task.sequence + 1
        if record.state is TaskState.COMPLETE:
            task.completed = True

    def at_hand(self, task: Task) -> bool:
        item = task.item
        return item is not None and not item.leased and item.not_before_ns <= self.now_ns

    def holds(self, bridge: str, task: Task, item: ItemRef, asker: Worker) -> bool:
        return any(
            each.bridge == bridge and each.task is task and each.claim.item == item
            for each in self.workers
            if each is not asker
        )

    # What happens.

    def deliver(self) -> None:
        ready = [task for task in self.tasks.values() if self.at_hand(task)]
        awake = [bridge for bridge in self.bridges if bridge not in self.stalled]
        if ready and awake:
            self.deliver_to(self.one_of(awake), self.one_of(ready))

    def deliver_to(self, bridge: str, task: Task) -> None:
        item = task.item
        assert item is not None
        item.leased = True
        item.delivery += 1
        claim = Claim(
            queue="Q",
            task_id=task.name,
            body=WorkItem(task.name).to_wire(),
            item=ItemRef(item.sequence, item.delivery),
            received=0.0,
            token="",
            fired=item.fired,
            silent=item.silent,
            due_ns=item.due_ns,
        )
        note(f"{bridge} gets {task.name} {claim.item}{' fired' if item.fired else ''} {item.silent}")
        worker = Worker(bridge, task, claim, task.record, task.sequence, task.run)
        worker.todo = [("decide", self.stored(task))]
        self.workers.append(worker)

    def stored(self, task: Task) -> Stored:
        return Stored(
            task_id=task.name,
            sequence=task.sequence,
            body=task.record.to_wire(),
            stamp=task.stamp,
            record=task.record,
        )

    def work(self) -> None:
        ready = [worker for worker in self.workers if self.can_step(worker)]
        if ready:
            self.step(self.one_of(ready), ack_lost=self.chance.random() < 0.2)

    def can_step(self, worker: Worker) -> bool:
        return not worker.running and worker.bridge not in self.stalled

    def end_a_call(self) -> None:
        running = [worker for worker in self.workers if self.can_end(worker)]
        if running:
            self.end(self.one_of(running), self.one_of(OUTCOMES))

    def can_end(self, worker: Worker) -> bool:
        return worker.running and worker.bridge not in self.stalled

    def time_comes(self) -> None:
        waiting = [task for task in self.tasks.values() if task.schedule]
        if waiting:
            self.fire(self.one_of(waiting))

    def fire(self, task: Task) -> None:
        schedule = task.schedule
        assert schedule is not None
        self.go_on_until(schedule.due_ns)
        if task.schedule is schedule:
            task.schedule = None
            self.put_item(task, fired=True, silent=schedule.silent)

    def time_passes(self) -> None:
        self.go_on_until(self.now_ns + self.chance.randint(1, 60) * NS_PER_S)

    def go_on_until(self, now_ns: int) -> None:
        self.now_ns = max(self.now_ns, now_ns)
        # Who stood still for a lease has none any more.
        for bridge, since_ns in self.stalled.items():
            if self.now_ns - since_ns >= LEASE:
                self.lose_leases(bridge=bridge)

    def lease_runs_out(self) -> None:
        leased = [task for task in self.tasks.values() if task.item and task.item.leased]
        if leased:
            task = self.one_of(leased)
            assert task.item is not None
            self.lose_leases(task=task, sequence=task.item.sequence)

    def lose_leases(self, *, bridge: str = "", task: Task | None = None, sequence: int = 0) -> None:
        for worker in self.workers:
            if worker.bridge == bridge or (worker.task is task and worker.claim.item.sequence == sequence):
                worker.lost = True
                item = worker.task.item
                if item is not None and ItemRef(item.sequence, item.delivery) == worker.claim.item:
                    item.leased = False

    def crash(self) -> None:
        bridge = self.one_of(self.bridges)
        self.lose_leases(bridge=bridge)
        self.workers = [worker for worker in self.workers if worker.bridge != bridge]
        self.stalled.pop(bridge, None)
        self.bridges[self.bridges.index(bridge)] = f"b{next(self.numbers)}"
        note(f"{bridge} crashed")

    def stall(self) -> None:
        self.stalled.setdefault(self.one_of(self.bridges), self.now_ns)

    def thaw(self) -> None:
        for bridge in list(self.stalled):
            del self.stalled[bridge]
            for worker in self.workers:
                # What it holds is saved again before anything else.
                if worker.bridge == bridge and worker.active and worker.expected == worker.task.sequence:
                    worker.task.sequence += 1
                    worker.expected = worker.task.sequence

    def enqueue_again(self) -> None:
        """A producer that saw the task `new` publishes its item once more, perhaps late."""
        task = self.one_of(list(self.tasks.values()))
        if not task.record.state.final:
            self.put_item(task)

    def retry(self) -> None:
        ended = [task for task in self.tasks.values() if task.record.state.final]
        if not ended:
            return
        task = self.one_of(ended)
        state = TaskState.BLOCKED if task.record.dependencies else TaskState.NEW
        fresh = task.record.replace(state=state, tries=0, tried_ns=None, last_err="", result=None, deadline_ns=None)
        self.write(task, fresh, Event.RETRIED, None)
        task.run += 1
        task.called = task.owed = 0
        task.schedule = None
        self.put_item(task)

    # A worker's steps.

    def step(self, worker: Worker, *, ack_lost: bool = False) -> None:
        act, what = worker.todo.pop(0)
        if worker.lost and not (worker.active and act in ("save", "ack") and self.is_outcome(worker, act, what)):
            self.drop(worker)
            return
        match act, what:
            case "decide", Stored():
                self.decide(worker, what)
            case "start", Start():
                self.start(worker, what)
            case "call", TaskRecord():
                self.call(worker, what)
            case "schedule", Park():
                if self.schedules:
                    worker.task.schedule = Schedule(what.due_ns, what.silent)
            case "save", (TaskRecord() as record, Event() as event):
                self.save(worker, record, event)
            case "leave", Park():
                self.leave(worker, what)
            case "ack", _:
                if not ack_lost:
                    self.ack(worker)
            case _:
                raise AssertionError(act)
        if not worker.todo and not worker.running:
            self.drop(worker)

    @staticmethod
    def is_outcome(worker: Worker, act: str, what: object) -> bool:
        # The outcome of a handler that ran is saved in any case, a try that will be repeated is not.
        return act == "ack" or (isinstance(what, tuple) and what[0].state.final)

    def drop(self, worker: Worker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)

    def ack(self, worker: Worker) -> None:
        item = worker.task.item
        if item is not None and item.sequence == worker.claim.item.sequence:
            worker.task.item = None

    def leave(self, worker: Worker, park: Park) -> None:
        item = worker.task.item
        if self.schedules:
            self.ack(worker)
        elif park.silent != worker.claim.silent:
            self.put_item(worker.task, silent=park.silent, due_ns=park.due_ns)
        elif item is not None and item.sequence == worker.claim.item.sequence:
            item.leased = False
            item.not_before_ns = park.due_ns

    def decide(self, worker: Worker, stored: Stored) -> None:
        task = worker.task
        known = Known(
            claim=worker.claim,
            stored=stored,
            queue=QUEUE,
            ack_wait_ns=LEASE,
            now_ns=self.now_ns,
            schedules=self.schedules,
            parents=None,
        )
        while isinstance(decision := decide(known), Look):
            match decision:
                case Look.SCHEDULE:
                    known = self.found(known, standing=task.schedule is not None)
                case Look.OWNER:
                    assert stored.stamp is not None
                    known = self.found(known, holder=self.ask(worker, stored.stamp))
                case Look.EDGES:
                    ended = [self.tasks[name].record.state.final for name in task.record.dependencies]
                    known = self.found(known, free=all(ended))
                case Look.PARENTS:
                    parents = {name: self.tasks[name].record for name in task.record.dependencies}
                    known = self.found(known, parents=parents)
        note(f"{worker.bridge} {task.name} {worker.claim.item}: {type(decision).__name__}")
        match decision:
            case Start():
                worker.todo = [("start", decision)]
            case Finish(record, event):
                worker.todo = [("save", (record, event)), ("ack", None)]
            case Park(record=None):
                worker.todo = [("schedule", decision), ("leave", decision)]
            case Ack() | Aftercare():
                worker.todo = [("ack", None)]
            case Drop():
                pass
            case Park() | Quarantine():
                raise AssertionError("nothing is unreadable here, and handlers are there")

    @staticmethod
    def found(known: Known, **answer: object) -> Known:
        fields = {name: getattr(known, name) for name in known.__struct_fields__}
        return Known(**(fields | answer))

    def ask(self, worker: Worker, stamp: Stamp) -> Holder:
        if stamp.owner not in self.bridges or stamp.owner in self.stalled:
            return Holder.SILENT
        return Holder.YES if self.holds(stamp.owner, worker.task, stamp.item, worker) else Holder.NO

    def refused(self, worker: Worker) -> bool:
        if worker.expected == worker.task.sequence:
            return False
        note(f"{worker.bridge} {worker.task.name}: refused")
        worker.todo = [("ack", None)] if worker.task.record.state.final else []
        worker.active = worker.active and worker.task.record.state.final
        return True

    def start(self, worker: Worker, decision: Start) -> None:
        if self.refused(worker):
            return
        task = worker.task
        self.write(task, decision.record, decision.event, worker.stamp)
        task.owed += 1
        worker.expected, worker.record, worker.active, worker.run = task.sequence, decision.record, True, task.run
        worker.todo = [("call", decision.record)]

    def call(self, worker: Worker, record: TaskRecord) -> None:
        late = too_late(record, self.now_ns)
        if late is not None:
            worker.uncalled = True
            worker.todo = [("save", (late.record, late.event)), ("ack", None)]
            return
        task = worker.task
        assert worker.active, "I-3"
        assert record.deadline_ns is None or self.now_ns <= record.deadline_ns, "I-11"
        assert all(self.tasks[name].completed for name in record.dependencies), "I-9, I-10"
        for other in self.workers:
            if other.task is task and other.running and other.run == worker.run:
                assert other.lost, "I-8"
        if worker.run == task.run:
            task.called += 1
            task.owed -= 1
            limit = max_tries(record, QUEUE)
            assert not limit or task.called <= limit, "C-6"
        worker.running = True
        note(f"{worker.bridge} calls {task.name}, try {record.tries}")

    def end(self, worker: Worker, outcome: Outcome) -> None:
        worker.running = False
        decision = settle(
            worker.record,
            outcome,
            queue=QUEUE,
            policy=POLICY,
            attempt=worker.record.tries if self.schedules else worker.claim.item.delivery,
            now_ns=self.now_ns,
            random=lambda: 0.0,
        )
        if isinstance(decision, Finish):
            worker.todo = [("save", (decision.record, decision.event)), ("ack", None)]
        else:
            save = ("save", (decision.record, decision.event))
            worker.todo = [("schedule", decision), save, ("leave", decision)]

    def find_nobody(self) -> None:
        about = [worker for worker in self.workers if self.about_to_call(worker)]
        if about:
            worker = self.one_of(about)
            worker.uncalled = True
            self.end(worker, NOBODY)

    def about_to_call(self, worker: Worker) -> bool:
        # A lease that is over is seen before the call, and so is a deadline.
        return (
            self.can_step(worker)
            and not worker.lost
            and worker.todo[:1] == [("call", worker.record)]
            and too_late(worker.record, self.now_ns) is None
        )

    def save(self, worker: Worker, record: TaskRecord, event: Event) -> None:
        if self.refused(worker):
            return
        task = worker.task
        task.owed -= worker.uncalled
        self.write(task, record, event, worker.stamp)
        worker.expected, worker.record = task.sequence, record

    # What always holds.

    def check(self) -> None:
        for task in self.tasks.values():
            limit = max_tries(task.record, QUEUE)
            assert task.record.tries == task.called + task.owed, "I-7"
            assert task.owed >= 0, "I-7"
            assert not limit or task.record.tries <= limit, "C-6"
            assert task.record.state.final or task.item or task.schedule, "I-4"

    def end_in_peace(self) -> None:
        """Nobody crashes any more, everything is answered, and all must end."""
        self.thaw()
        for _ in range(ENOUGH):
            if all(task.record.state.final for task in self.tasks.values()):
                break
            self.go_on()
        assert all(task.record.state.final for task in self.tasks.values()), "L-1"
        for task in self.tasks.values():
            if task.record.state is TaskState.UNREACHABLE:
                assert not task.called, "I-10"

    def go_on(self) -> None:
        for worker in list(self.workers):
            if worker.running:
                self.end(worker, Completed(b""))
            elif worker in self.workers:
                self.step(worker)
        for task in self.tasks.values():
            if self.at_hand(task):
                self.deliver_to(self.bridges[0], task)
        if not self.workers:
            self.wait()

    def wait(self) -> None:
        due = [task.schedule.due_ns for task in self.tasks.values() if task.schedule]
        due += [task.item.not_before_ns for task in self.tasks.values() if task.item and not task.item.leased]
        for task in self.tasks.values():
            if task.item is not None and task.item.leased:
                task.item.leased = False  # whoever had it is gone
        self.go_on_until(min(due, default=self.now_ns + LEASE))
        for task in self.tasks.values():
            if task.schedule is not None and task.schedule.due_ns <= self.now_ns:
                self.fire(task)


@settings(max_examples=2_000, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_happens_the_promises_hold(seed: int) -> None:
    history = History(seed)
    history.go(150)
    history.end_in_peace()
