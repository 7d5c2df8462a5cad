"""Which tasks a task waits for, and which wait for it, as a value: for `ajc task graph`."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from aj_sdk.enqueue import loaded
from aj_sdk.store import Store
from aj_sdk.wire.task import TaskRecord

__all__ = ["MAX_FAMILY", "Family", "find_family"]

MAX_FAMILY: Final = 10_000
"""How many tasks a family is followed to."""


class Family(msgspec.Struct, frozen=True):
    """A task with its ancestors and descendants.

    Attributes:
        task_id: the task.
        tasks: their records; None for one that is gone or can't be read.
        parents: whom each of them waits for, in the order of its record.
        children: who waits for each of them.
        complete: whether all were followed; else there are more than `MAX_FAMILY`.
    """

    task_id: str
    tasks: Mapping[str, TaskRecord | None]
    parents: Mapping[str, tuple[str, ...]]
    children: Mapping[str, tuple[str, ...]]
    complete: bool = True


async def find_family(store: Store, task_id: str, *, ended: bool = True) -> Family:
    """Find a task's ancestors and descendants.

    Args:
        store: where.
        task_id: the task.
        ended: also descendants that have ended, for which the whole task store is read; else only those that wait.

    Raises:
        TaskNotFoundError: there is no such task.
        StoreError: the store failed.
    """
    start = (await loaded(store, task_id)).readable()
    tasks: dict[str, TaskRecord | None] = {task_id: start}
    parents = {task_id: start.dependencies}
    children: dict[str, list[str]] = {}
    await _ancestors(store, tasks, parents)
    every: dict[str, list[TaskRecord]] = {}
    if ended:
        async for stored in store.scan():
            if stored.record is not None:
                for parent in stored.record.dependencies:
                    every.setdefault(parent, []).append(stored.record)
    level = [task_id]
    while level and len(tasks) < MAX_FAMILY:
        found: dict[str, TaskRecord] = {}
        for parent in level:
            near = every.get(parent, []) if ended else await _waiting(store, parent)
            children[parent] = [child.id for child in near]
            found |= {child.id: child for child in near}
        level = [child for child in found if child not in children]
        for name in level:
            tasks[name], parents[name] = found[name], found[name].dependencies
    for name, above in parents.items():
        for parent in above:
            known = children.setdefault(parent, [])
            if name not in known:
                known.append(name)
    return Family(
        task_id, tasks, parents, {name: tuple(below) for name, below in children.items()}, len(tasks) < MAX_FAMILY
    )


async def _ancestors(store: Store, tasks: dict[str, TaskRecord | None], parents: dict[str, tuple[str, ...]]) -> None:
    wanted = _missing(parents.values(), tasks)
    while wanted and len(tasks) < MAX_FAMILY:
        found = await store.load_many(wanted)
        for name in wanted:
            tasks[name] = record = found[name].record if name in found else None
            parents[name] = () if record is None else record.dependencies
        wanted = _missing((parents[name] for name in wanted), tasks)


def _missing(names: Iterable[tuple[str, ...]], tasks: Mapping[str, object]) -> list[str]:
    return [name for name in dict.fromkeys(name for several in names for name in several) if name not in tasks]


async def _waiting(store: Store, parent: str) -> list[TaskRecord]:
    ids = [stored.edge.child for stored in await store.edges.leaving(parent)]
    found = await store.load_many(ids) if ids else {}
    records = (found[name].record for name in ids if name in found)
    return [record for record in records if record is not None]
