"""Several tasks that wait for each other, enqueued in one call: `chain`, `group` and `chord`, and what they make.

A graph is a value. `Client.enqueue_graph` stores all its tasks and their ties before the first of them may run.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from aj_sdk.circles import find_circle
from aj_sdk.dependents import at_once
from aj_sdk.enqueue import Due, check_size, place, publish_state, same_task, start_over
from aj_sdk.errors import ConflictError, CycleError, UsageError
from aj_sdk.spec import NewTask, TaskSpec, as_spec, new_task
from aj_sdk.store import Store
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = ["MAX_GRAPH", "Graph", "Part", "chain", "chord", "enqueue_graph", "group", "new_tasks"]

MAX_GRAPH: Final = 100_000
"""How many tasks a graph may have."""

_FIRST_LOOK_NS: Final = 5 * NS_PER_S
_ATTEMPTS: Final = 5


class _Node(msgspec.Struct, frozen=True):
    spec: TaskSpec
    parents: tuple[int, ...] = ()


class Graph(msgspec.Struct, frozen=True):
    """Tasks, and which waits for which; `chain`, `group` and `chord` make one, of specs and of other graphs.

    Attributes:
        nodes: the tasks in the order in which they were written; each waits for the ones at the indexes it names.
        first: indexes of those that wait for no other of the graph.
        last: indexes of those for which no other of the graph waits.
    """

    nodes: tuple[_Node, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def specs(self) -> list[TaskSpec]:
        """The tasks as they were written."""
        return [node.spec for node in self.nodes]

    def __len__(self) -> int:
        return len(self.nodes)


Part: TypeAlias = TaskSpec | tuple[str, Any] | Graph
"""A part of a graph: a spec, a pair of type and payload, or a graph."""


def chain(*parts: Part, load: bool = False) -> Graph:
    """Run parts one after another: each waits until all of the one before has completed.

    Args:
        parts: at least one.
        load: give each task the results of those that it waits for.

    Raises:
        UsageError: there is no part, or something that is none.
    """
    nodes: tuple[_Node, ...] = ()
    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    for part in map(_graph, _some(parts, "chain")):
        begin = len(nodes)
        nodes += _shifted(part, begin, last, load=load)
        last = tuple(index + begin for index in part.last)
        first = first or part.first
    return Graph(nodes, first, last)


def group(*parts: Part) -> Graph:
    """Run parts side by side.

    Args:
        parts: at least one.

    Raises:
        UsageError: there is no part, or something that is none.
    """
    nodes: list[_Node] = []
    first: list[int] = []
    last: list[int] = []
    for part in map(_graph, _some(parts, "group")):
        begin = len(nodes)
        nodes += _shifted(part, begin, (), load=False)
        first += (index + begin for index in part.first)
        last += (index + begin for index in part.last)
    return Graph(tuple(nodes), tuple(first), tuple(last))


def chord(parts: Part | list[Part], callback: Part) -> Graph:
    """Run parts side by side, and then one that gets all their results, as `task.dependency_results`.

    Args:
        parts: a group, or a list of parts.
        callback: what comes after them.

    Raises:
        UsageError: there is no part, or something that is none.
    """
    return chain(group(*parts) if isinstance(parts, list) else parts, callback, load=True)


def _shifted(graph: Graph, by: int, parents: tuple[int, ...], *, load: bool) -> tuple[_Node, ...]:
    """Return a graph's nodes as they are behind others, where its first ones wait for `parents`."""
    if not by:
        return graph.nodes
    first = set(graph.first)
    nodes = []
    for index, node in enumerate(graph.nodes):
        spec, own = node.spec, tuple(parent + by for parent in node.parents)
        if parents and index in first:
            own += parents
            spec = msgspec.structs.replace(spec, load_dependencies=True) if load else spec
        nodes.append(_Node(spec, own))
    return tuple(nodes)


def _some(parts: tuple[Part, ...], what: str) -> tuple[Part, ...]:
    if not parts:
        raise UsageError(f"a {what} needs at least one part")
    return parts


def _graph(part: Part) -> Graph:
    return part if isinstance(part, Graph) else Graph((_Node(as_spec(part)),), (0,), (0,))


def new_tasks(graph: Graph, queue: str, now_ns: int) -> list[NewTask]:
    """Make the tasks of a graph, in its order.

    Args:
        graph: the graph.
        queue: where those go that name no queue of their own.
        now_ns: now.

    Raises:
        UsageError: a part of a spec is wrong, two have the same id, or one has a unique key.
        CycleError: tasks wait for each other.
    """
    if len(graph) > MAX_GRAPH:
        raise UsageError(f"a graph may have {MAX_GRAPH:,} tasks, not {len(graph):,}")
    tasks: list[NewTask] = []
    for node in graph.nodes:
        if node.spec.unique_key is not None:
            raise UsageError("a task of a graph can't have a unique key: it may turn out to be another one")
        parents = [tasks[parent].record.id for parent in node.parents]
        tasks.append(new_task(node.spec, node.spec.queue or queue, now_ns, parents=parents))
    ids = {task.record.id: task.record.dependencies for task in tasks}
    if len(ids) < len(tasks):
        raise UsageError("two tasks of the graph have the same id")
    circle = find_circle(ids)
    if circle:
        raise CycleError(circle)
    return tasks


async def enqueue_graph(store: Store, tasks: Sequence[NewTask], outside: Callable[[str], bool]) -> list[TaskRecord]:
    """Store the tasks of a graph and put them into their queues.

    Nothing runs before all of it is stored: first the records of those that wait for others of the graph, then what
    they wait for, then the records of the first ones, and the first ones' items at the very last. Whoever finds a
    half stored graph finds children without parents, and nothing of it runs.

    Args:
        store: where.
        tasks: the tasks, see `new_tasks`.
        outside: says whether what waits for a queue may wait outside of it.

    Returns:
        The tasks as they are stored, in their order.

    Raises:
        StoreError: the store failed or said no. With ids of the caller's, doing it all again is safe.
    """
    for task in tasks:
        check_size(store, task.record)
    ids = {task.record.id for task in tasks}
    later = [task for task in tasks if ids.intersection(task.record.dependencies)]
    first = [task for task in tasks if not ids.intersection(task.record.dependencies)]
    stored: dict[str, tuple[TaskRecord, int, bool]] = {}

    async def save(task: NewTask) -> None:
        stored[task.record.id] = await _save(store, task.record)

    async def put(task: NewTask) -> None:
        record, sequence, fresh = stored[task.record.id]
        if record.state not in (TaskState.NEW, TaskState.BLOCKED):
            return
        due = None if task.due_ns is None else Due(task.due_ns, outside(record.queue))
        stored[record.id] = (await place(store, record, sequence, replace=not fresh, due=due), sequence, fresh)

    async def hold(task: NewTask) -> None:
        record, _, fresh = stored[task.record.id]
        if not fresh or task.due_ns is not None or not ids.issuperset(record.dependencies) or not outside(record.queue):
            await put(task)
            return
        # None of its parents can have begun, so no bridge needs to look before one of them ends.
        await store.park_item(record.queue, record.id, store.now_ns() + _FIRST_LOOK_NS)

    await at_once(later, save)
    await at_once(later, lambda task: store.dependents.tie(task.record, task.record.dependencies), limit=16)
    await at_once(first, save)
    await at_once(later, hold)
    await at_once(first, put)
    return [stored[task.record.id][0] for task in tasks]


async def _save(store: Store, record: TaskRecord) -> tuple[TaskRecord, int, bool]:
    """Save a task, or take up the one that is there; gives it, its sequence, and whether it was not there before."""
    for _ in range(_ATTEMPTS):
        try:
            sequence = await store.save_surely(record, expected=0)
        except ConflictError:
            there = await store.load(record.id)
            if there is None:
                continue
            found = there.readable()
            same_task(found, record)
            if found.state is not TaskState.QUEUE_ERROR:
                return found, there.sequence, False
            try:
                return *await start_over(store, there, found), False
            except ConflictError:
                continue
        await publish_state(store, record)
        return record, sequence, True
    raise ConflictError(record.id, 0)
