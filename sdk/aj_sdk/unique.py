"""Unique keys: of the tasks that are enqueued with a key within a window, there is one; the others find it.

A key lies in the bucket `CHORIA_AJ_UNIQUE` and holds the id of its task. It is claimed before the task is saved, so it
may stand for a task that is not there yet: whose producer died in between. Such a key is watched for 5 seconds, by our
own clock, and then taken over under compare-and-set. A producer that needed longer than that between claim and save
looks once more whether the key is still its own before anybody can see its task.

Keys are any text. They are written as base64 for URLs, without padding, of their UTF-8 bytes.
"""

import asyncio
import logging
import time
from base64 import urlsafe_b64encode
from typing import Final

import msgspec

from aj_sdk.buckets import Bucket, Entry
from aj_sdk.enqueue import Due, check_size, enqueue, place
from aj_sdk.errors import (
    ConflictError,
    OutcomeUnknownError,
    StoreError,
    TaskExistsError,
    TaskNotFoundError,
    TaskStateError,
    UsageError,
)
from aj_sdk.queue import Span, span_ns
from aj_sdk.retry import retry
from aj_sdk.store import Store
from aj_sdk.wire.names import UNIQUE_BUCKET, is_name
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = ["MAX_KEY_BYTES", "Unique", "UniqueKeys", "bucket_key"]

_log: Final = logging.getLogger(__name__)

MAX_KEY_BYTES: Final = 512
"""Cap on a unique key, in bytes of UTF-8."""

_ABSENT_S: Final = 5.0

_LONG_ABSENT_NS: Final = 60 * NS_PER_S
"""A claim as old as this, by clocks that may differ a little, is not watched first."""

_PAUSES_S: Final = (0.02, 0.05, 0.1, 0.25)
_ATTEMPTS: Final = 200
_MIN_WINDOW_S: Final = 1
_MAX_WINDOW_S: Final = 366 * 86_400
_OLD_SERVERS_WINDOW_S: Final = 31 * 86_400
"""Before 2.11 the server takes no key away by its own time; all go after this one."""


class Unique(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be there once.

    Attributes:
        key: any text.
        window_s: for how many seconds, from when its first task is enqueued.
        until_end: make room also when that task has ended before the window is over.
    """

    key: str
    window_s: int
    until_end: bool = False

    @classmethod
    def of(cls, key: str | None, window: Span | None, *, until_end: bool = False) -> "Unique | None":
        """Make one of what a caller gave; None where it gave none.

        Raises:
            UsageError: a part is missing, or wrong.
        """
        if key is None:
            if window is not None or until_end:
                raise UsageError("a time for which a task is unique needs a unique_key")
            return None
        if not isinstance(key, str):
            raise UsageError(f"a unique_key is text, not {type(key).__name__}")
        if not key or len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
            raise UsageError(f"a unique_key has 1 to {MAX_KEY_BYTES} bytes")
        if window is None:
            raise UsageError("a unique_key needs unique_for: how long it stands for the task")
        try:
            window_s = -(-span_ns(window) // NS_PER_S)
        except ValueError as err:
            raise UsageError(f"unique_for is no length of time: {err}") from None
        if not _MIN_WINDOW_S <= window_s <= _MAX_WINDOW_S:
            raise UsageError("unique_for must be between 1 second and 366 days")
        return cls(key=key, window_s=window_s, until_end=until_end)


def bucket_key(key: str) -> str:
    """Return what a unique key is called in its bucket."""
    return urlsafe_b64encode(key.encode("utf-8", "surrogatepass")).rstrip(b"=").decode("ascii")


class _Overtaken(Exception):  # noqa: N818 - flow: the key has another task by now
    pass


class UniqueKeys:
    """The bucket of unique keys.

    Args:
        store: tasks and items.
        absent_s: seconds after which a key without a task is taken over; the same for all producers.
    """

    def __init__(self, store: Store, *, absent_s: float = _ABSENT_S) -> None:
        self._store = store
        self._absent_s = absent_s
        self._bucket = Bucket(store.jetstream, UNIQUE_BUCKET)
        self._key_ttls: bool | None = None
        self._making = asyncio.Lock()

    async def enqueue(self, record: TaskRecord, unique: Unique, due: Due | None = None) -> TaskRecord:
        """Enqueue a task, unless one with its key is there.

        Args:
            record: the task.
            unique: its key.
            due: when it is to be in its queue; None for now.

        Returns:
            The task as it is stored: this one, or the one that is there.

        Raises:
            UsageError: the window is longer than this server can keep a key.
            TaskExistsError: the key has a task of another type or queue, or another task has this id.
            OutcomeUnknownError: no answer in time; calling again finds what became of it.
            StoreError: as for any task.
        """
        check_size(self._store, record)
        await self._make(unique)
        key = bucket_key(unique.key)
        watch = _Watch(self._absent_s)
        for _ in range(_ATTEMPTS):
            claimed_s = time.monotonic()
            entry = await self._claim(key, record.id, unique)
            if entry is None:
                continue  # it went just now
            if _owner(entry) == record.id:
                try:
                    return await self._place(key, record, claimed_s, due)
                except _Overtaken:
                    continue
            stored = await self._store.load(_owner(entry)) if is_name(_owner(entry)) else None
            if stored is not None and not (unique.until_end and stored.readable().state.final):
                return await self._found(stored, record)
            if stored is None and not await watch.absent_for_long(entry, self._store.now_ns()):
                continue
            await self._bucket.update(key, record.id.encode(), entry.revision, ttl_s=unique.window_s)
        raise OutcomeUnknownError(f"enqueueing a task under the unique key {unique.key[:60]!r}")

    async def ensure(self) -> bool:
        """Make the bucket, unless it is there.

        Returns:
            Whether keys have a time of their own; not before server 2.11.

        Raises:
            StoreError: the store failed or said no.
        """
        async with self._making:
            if self._key_ttls is None:
                level = await self._store.jetstream.api_level()
                self._key_ttls = await self._bucket.ensure(
                    max_age_ns=0 if level else _OLD_SERVERS_WINDOW_S * NS_PER_S,
                    key_ttls=True,
                )
        return self._key_ttls

    async def _make(self, unique: Unique) -> None:
        if not await self.ensure() and unique.window_s > _OLD_SERVERS_WINDOW_S:
            raise UsageError("nats-server before 2.11 keeps a unique key for 31 days at most: shorten unique_for")

    async def _claim(self, key: str, task_id: str, unique: Unique) -> Entry | None:
        """Give the key's entry: ours where it had none."""
        value = task_id.encode()
        try:
            revision = await self._bucket.create(key, value, ttl_s=unique.window_s)
        except OutcomeUnknownError:
            revision = None  # the look says what became of it
        if revision is not None:
            return Entry(value, revision, 0)
        entry = await self._bucket.get(key)
        if entry is None or self._key_ttls or entry.ttl_ns is None:
            return entry
        if entry.at_ns + entry.ttl_ns > self._store.now_ns():
            return entry
        # A server before 2.11 leaves a key that is over where it is.
        revision = await self._bucket.update(key, value, entry.revision, ttl_s=unique.window_s)
        return None if revision is None else Entry(value, revision, 0)

    async def _place(self, key: str, record: TaskRecord, claimed_s: float, due: Due | None) -> TaskRecord:
        async def still_ours(sequence: int) -> None:
            if time.monotonic() - claimed_s < self._absent_s / 2:
                return  # nobody can have taken the key over
            entry = await self._bucket.get(key)
            if entry is not None and _owner(entry) != record.id:
                await self._store.discard(record.id, sequence)
                raise _Overtaken

        try:
            return await enqueue(self._store, record, saved=still_ours, due=due)
        except TaskExistsError:
            await self._free(key, record.id)
            raise

    async def _free(self, key: str, task_id: str) -> None:
        try:
            entry = await self._bucket.get(key)
            if entry is not None and _owner(entry) == task_id:
                await self._bucket.delete(key, entry.revision)
        except StoreError as err:
            _log.info("a unique key stands for a task that was not enqueued, until it is taken over: %s", err)

    async def _found(self, stored: Stored, wanted: TaskRecord) -> TaskRecord:
        """Take up the task that has the key where it stands."""
        store, found = self._store, stored.readable()
        for what in ("type", "queue"):
            if getattr(found, what) != getattr(wanted, what):
                raise TaskExistsError(found.id, what)
        if found.state is TaskState.QUEUE_ERROR:
            try:
                return await retry(store, found.id)
            except (ConflictError, TaskStateError, TaskNotFoundError):
                current = await store.load(found.id)  # somebody else was faster
                return found if current is None else current.readable()
        if found.state in (TaskState.NEW, TaskState.BLOCKED) and not await store.find_items(found.queue, found.id):
            # Its producer may have died before it placed the item.
            return await place(store, found, stored.sequence, replace=False)
        return found


class _Watch:
    """How long a key has stood for a task that is not there."""

    def __init__(self, absent_s: float) -> None:
        self._absent_s = absent_s
        self._revision = 0
        self._since = 0.0
        self._pauses = iter(_PAUSES_S)

    async def absent_for_long(self, entry: Entry, now_ns: int) -> bool:
        """Say whether it may be taken over; where not yet, after a pause."""
        if now_ns - entry.at_ns > _LONG_ABSENT_NS:
            return True
        now = time.monotonic()
        if entry.revision != self._revision:
            self._revision, self._since, self._pauses = entry.revision, now, iter(_PAUSES_S)
        if now - self._since >= self._absent_s:
            return True
        await asyncio.sleep(next(self._pauses, _PAUSES_S[-1]))
        return False


def _owner(entry: Entry) -> str:
    return entry.value.decode("ascii", "replace")
