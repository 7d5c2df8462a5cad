"""Finding tasks that would wait for themselves. Only ids that the caller chose can make such a circle."""

from collections.abc import Iterable, Mapping, Sequence

from aj_sdk.errors import CycleError
from aj_sdk.store import Store
from aj_sdk.wire.task import TaskRecord

__all__ = ["find_circle", "refuse_circle"]


def find_circle(parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Find a circle among tasks, each of which waits for its parents; empty when there is none."""
    done: set[str] = set()
    for start in parents:
        if start in done:
            continue
        # Without recursion: a chain may be longer than Python's stack.
        path: dict[str, None] = {start: None}
        left = [iter(parents[start])]
        while left:
            parent = next(left[-1], None)
            if parent is None:
                left.pop()
                done.add(path.popitem()[0])
            elif parent in path:
                names = list(path)
                return tuple(names[names.index(parent) :])
            elif parent in parents and parent not in done:
                path[parent] = None
                left.append(iter(parents[parent]))
    return ()


async def refuse_circle(store: Store, records: Iterable[TaskRecord]) -> None:
    """Make sure that tasks whose ids were chosen do not wait for themselves by way of others that are stored.

    Only what still waits is followed: a task that has ended, or has begun, waits for nobody.

    Raises:
        CycleError: they would.
        StoreError: the store failed.
    """
    known: dict[str, Sequence[str]] = {record.id: record.dependencies for record in records}
    wanted = {parent for parents in known.values() for parent in parents} - known.keys()
    while wanted:
        found = await store.load_many(wanted)
        for task_id in wanted:
            task = found[task_id].record if task_id in found else None
            known[task_id] = task.dependencies if task is not None and task.tries == 0 and not task.state.final else ()
        wanted = {parent for task_id in wanted for parent in known[task_id]} - known.keys()
    circle = find_circle(known)
    if circle:
        raise CycleError(circle)
