"""Tasks of the queue EMAIL, which the fixture `prepared` makes: how they look, and what is stored of them."""

from aj_sdk.enqueue import loaded
from aj_sdk.store import Store
from aj_sdk.wire.names import item_subject, queue_stream
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = ["NOW", "fill", "item", "record", "task"]

NOW = 1_700_000_000 * NS_PER_S


def task(task_id: str = "t1", **changes: object) -> TaskRecord:
    return TaskRecord(id=task_id, type="email:new", queue="EMAIL", payload=b"{}", created_ns=NOW).replace(**changes)


async def record(store: Store, task_id: str = "t1") -> TaskRecord:
    return (await loaded(store, task_id)).readable()


async def item(store: Store, task_id: str = "t1") -> int | None:
    """Sequence of a task's item."""
    message = await store.jetstream.last(queue_stream("EMAIL"), item_subject("EMAIL", task_id))
    return None if message is None else message.sequence


async def fill(store: Store) -> None:
    for name in ("a", "b"):
        await store.publish_item("EMAIL", name)
