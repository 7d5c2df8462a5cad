"""What an administrator does with queues and the task store: make, inspect, change, purge, remove.

Used by `Client.admin`, by the command line and by the bridge when it binds its queues. Knows which server can do what
(`aj_sdk.streams` knows what the streams look like).
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec

from aj_sdk import streams
from aj_sdk.bridges import Bridges
from aj_sdk.buckets import ELECTION_TERM_NS, Bucket
from aj_sdk.dead import DeadLetters
from aj_sdk.errors import (
    InvalidConfigError,
    QueueExistsError,
    QueueNotFoundError,
    RefusedError,
)
from aj_sdk.handlers import Handlers
from aj_sdk.inventory import (
    BoundQueue,
    Overview,
    QueueInfo,
    TaskStoreInfo,
    paused_until,
    read_queue_info,
    read_task_store_info,
)
from aj_sdk.jetstream import (
    CONSUMER_NOT_FOUND,
    STREAM_NOT_FOUND,
    TTLS_LEVEL,
    JetStream,
)
from aj_sdk.queue import Queue, Span, span_ns
from aj_sdk.side_streams import NOT_ALLOWED, ensure_side_stream, ensure_stream, raise_copies
from aj_sdk.store import Store, no_task_store
from aj_sdk.tasks import Tasks
from aj_sdk.unique import UniqueKeys
from aj_sdk.wire.names import (
    ATTEMPTS_STREAM,
    CONSUMER,
    DEAD_STREAM,
    DELAYED_STREAM,
    ELECTIONS_BUCKET,
    ITEM_SUBJECTS,
    QUEUE_STREAM_PREFIX,
    SCHEDULE_SUBJECTS,
    TASKS_STREAM,
    fired_subjects,
    is_name,
    queue_of_stream,
    queue_stream,
    schedule_subjects,
)
from aj_sdk.wire.queue import QueueSettings, read_settings
from aj_sdk.wire.signing import Signer
from aj_sdk.wire.times import from_datetime, parse_time, to_timedelta_ns

__all__ = ["Admin", "BoundQueue", "Overview", "QueueInfo", "TaskStoreInfo"]

_log: Final = logging.getLogger(__name__)

_SCHEDULES_LEVEL: Final = 2
"""The JetStream API level (ADR-44) from which on a server has message schedules: 2.12."""

_PAUSE_LEVEL: Final = 1
"""The level from which on a consumer can be paused: 2.11."""

_FOREVER_NS: Final = parse_time("9999-12-31T00:00:00Z")

_NO_WAY_OUT: Final = frozenset({"2.12.8"})
"""Servers that refuse what a schedule fired (10188) when a stream without schedules sources it, for ever.

Seen on 2.12.8 alone; 2.12.0, .2, .5, .6 and .7, 2.14.0, 2.14.6 and 2.15.1 let it through.
"""

_AT_ONCE: Final = 16


class Admin:
    """What an administrator does.

    Args:
        jetstream: the API of the account.
        store: tasks and items in it.
        signer: signs a signed task anew where what its signature covers is changed.

    Attributes:
        dead: the dead letters.
        bridges: the bridges that run.
        handlers: the handlers that show themselves.
        tasks: the tasks.
    """

    def __init__(self, jetstream: JetStream, store: Store, signer: Signer | None = None) -> None:
        self._js = jetstream
        self._store = store
        self.dead = DeadLetters(jetstream, store)
        self.bridges = Bridges(jetstream.transport)
        self.handlers = Handlers(jetstream)
        self.tasks = Tasks(store, self.dead, signer)

    # The task store and our own streams.

    async def ensure_task_store(self, *, memory: bool = False, replicas: int = 1, retention: Span = 0) -> None:
        """Make the task store; one that is there stays as it is.

        Args:
            memory: keep the tasks in memory instead of on disk.
            replicas: copies that a cluster keeps.
            retention: how long a task is kept after its last change, 0 = for ever.

        Raises:
            InvalidConfigError: the retention is no length of time.
            StoreError: the store failed or said no.
        """
        retention_ns = _checked_span(retention, "retention")
        config = streams.task_store_config(memory=memory, replicas=replicas, retention_ns=retention_ns)
        if await ensure_stream(self._js, config) is None:
            self._js.batches_again(TASKS_STREAM)

    async def enable_direct_get(self) -> bool:
        """Allow direct gets on a task store that the Go project made, so that many tasks are read in one request.

        Returns:
            Whether they are allowed now; False when the server refused.

        Raises:
            StoreError: the store failed, or there is none.
        """
        config = await self._stream_config(TASKS_STREAM)
        try:
            if not config.get("allow_direct"):
                await self._js.update_stream({**config, "allow_direct": True})
        except NOT_ALLOWED as err:
            _log.info("the task store stays without direct gets, reading many tasks is slower: %s", err)
            return False
        self._js.batches_again(TASKS_STREAM)
        return True

    async def enable_task_ttls(self) -> None:
        """Allow records with a time of their own in the task store; it can't be forbidden again.

        The store gets no markers for what has gone: Go clients could not read them.

        Raises:
            InvalidConfigError: the server is older than 2.11.
            StoreError: the store failed or said no, or there is none.
        """
        config = await self._stream_config(TASKS_STREAM)
        if config.get("allow_msg_ttl"):
            return
        if await self._js.api_level() < TTLS_LEVEL:
            fault = "keeping tasks for a time of their own needs nats-server 2.11 or newer; set the store's retention"
            raise InvalidConfigError((fault,))
        await self._js.update_stream({**config, "allow_msg_ttl": True})

    async def configure_task_store(self, *, retention: Span, replicas: int) -> TaskStoreInfo:
        """Change how long tasks are kept and in how many copies; what stands beside them gets at least as many.

        Args:
            retention: how long a task is kept after its last change, 0 = for ever.
            replicas: copies that a cluster keeps, 1 to 5.

        Raises:
            InvalidConfigError: with every fault.
            StoreError: the store failed or said no.
        """
        retention_ns = _checked_span(retention, "retention")
        config = await self._stream_config(TASKS_STREAM)
        await self._js.update_stream({**streams.with_age(config, retention_ns), "num_replicas": replicas})
        await raise_copies(self._js, replicas)
        if await self._js.stream_info(ATTEMPTS_STREAM) is not None:
            await self.ensure_attempts()
        return await self.task_store_info()

    async def task_store_info(self) -> TaskStoreInfo:
        """Describe the task store.

        Raises:
            StoreError: the store failed, or there is none.
        """
        # Never with subjects: at a million tasks that took 17 s of the server's CPU (seen).
        return read_task_store_info(await self._stream_info(TASKS_STREAM))

    async def ensure_delayed(self, *, copies: int = 1) -> bool:
        """Make the stream of waiting items, where the server has message schedules (2.12, but not 2.12.8).

        Args:
            copies: the least number of copies, where it must be more than the task store's.

        Returns:
            Whether items can wait there.

        Raises:
            StoreError: the store failed or said no.
        """
        if await self._js.api_level() < _SCHEDULES_LEVEL:
            return False
        await ensure_side_stream(self._js, streams.delayed_config, copies=copies)
        config = await self._stream_config(DELAYED_STREAM)  # with the server's version, also where it is new
        if not config.get("allow_msg_schedules"):
            _log.warning("stream %s does not allow message schedules, so nothing can wait there", DELAYED_STREAM)
            return False
        version = streams.server_version(config)
        if version in _NO_WAY_OUT:
            _log.warning("nats-server %s does not let fired items into a queue; 2.14 or newer does", version)
            return False
        return True

    async def ensure_dead(self) -> None:
        """Make the stream of dead letters; one that is there is not changed, but for its copies.

        Raises:
            StoreError: the store failed or said no.
        """
        await ensure_side_stream(self._js, streams.dead_config)

    async def ensure_attempts(self) -> None:
        """Make the stream of attempts, kept as long as tasks are.

        Raises:
            StoreError: the store failed or said no, or there is no task store.
        """
        retention_ns = streams.max_age_ns(await self._stream_config(TASKS_STREAM))
        found = await ensure_side_stream(self._js, partial(streams.attempts_config, retention_ns=retention_ns))
        if streams.max_age_ns(found) != retention_ns:
            await self._js.update_stream(streams.with_age(found, retention_ns))

    async def ensure_everything(self) -> None:
        """Make the streams and buckets that are otherwise made on demand, for producers and bridges that may not.

        Raises:
            StoreError: the store failed or said no, or there is no task store.
        """
        await self.ensure_delayed()
        await self.ensure_dead()
        await self.ensure_attempts()
        await ensure_side_stream(self._js, streams.deps_config)
        await Bucket(self._js, ELECTIONS_BUCKET).ensure(max_age_ns=ELECTION_TERM_NS)
        await UniqueKeys(self._store).ensure()

    async def overview(self) -> Overview:
        """Describe everything; makes nothing.

        Raises:
            StoreError: the store failed.
        """
        api_level, tasks, dead, parked, queues = await asyncio.gather(
            self._js.api_level(),
            self._js.stream_info(TASKS_STREAM),
            self._js.stream_info(DEAD_STREAM),
            self._js.count(DELAYED_STREAM, SCHEDULE_SUBJECTS),
            self.queues(),
        )
        return Overview(
            api_level=api_level,
            task_store=None if tasks is None else read_task_store_info(tasks),
            queues=tuple(queues),
            parked=parked,
            dead_letters=None if dead is None else int(dead["state"]["messages"]),
        )

    # Queues.

    async def create_queue(self, queue: Queue | QueueSettings, *, exist_ok: bool = True) -> QueueSettings:
        """Make a queue; one that is there stays as it is.

        Args:
            queue: what it should be like.
            exist_ok: whether one that is there is fine, however it is set.

        Returns:
            The queue's settings as they are.

        Raises:
            InvalidConfigError: with every fault of the settings.
            QueueExistsError: it is there, and that is not fine.
            StoreError: the store failed or said no.
        """
        settings = (queue.settings if isinstance(queue, Queue) else queue).check()
        stream = queue_stream(settings.name)
        missing = await self._js.consumer_info(stream, CONSUMER) is None
        if not missing and not exist_ok:
            raise QueueExistsError(settings.name)
        if missing and await self._js.stream_info(stream) is None:
            parks = await self._try_delayed(settings)
            await ensure_stream(self._js, streams.queue_config(settings, parks=parks))
        if missing:
            try:
                await self._js.save_consumer(stream, streams.consumer_config(settings), "create")
            except RefusedError:
                # Somebody made it at the same time, with settings of their own: then theirs hold.
                if await self._js.consumer_info(stream, CONSUMER) is None:
                    raise
        return (await self.bind_queue(settings.name, adopt=False)).settings

    async def bind_queue(self, name: str, *, adopt: bool) -> BoundQueue:
        """Read a queue's settings, and set right what stands in the way of serving it.

        Somebody who used the Go project's `queue configure` on a queue of ours set AckWait and MaxDeliver: these
        become the max run time and the max tries, and the lease is restored.

        Args:
            name: the queue.
            adopt: let waiting items fire into a queue that the Go project made, or that was made on a server before
                2.12. AckWait and MaxDeliver stay as they are, so Go workers are not disturbed.

        Raises:
            QueueNotFoundError: there is no such queue.
            StoreError: the store failed or said no.
        """
        stream, consumer = await self._queue(name)
        settings, configured = read_settings(name, stream["config"], consumer["config"])
        if configured:
            await self._take_over(settings, stream, consumer)
        parks = sourced = streams.has_source(stream["config"])
        if parks or adopt:
            parks = await self._try_delayed(settings) and (parks or await self._add_source(stream["config"], name))
        return BoundQueue(
            settings=settings,
            parks=parks,
            sourced=parks or sourced,
            created=stream["created"],
            paused_until_ns=paused_until(consumer),
        )

    async def look_at_queue(self, bound: BoundQueue, *, adopt: bool) -> BoundQueue:
        """Read a bound queue's settings again, for a worker that goes on: two requests where nothing has changed.

        A queue that was made anew is bound anew. A consumer that is gone is made again as it was, where the queue may
        be changed at all.

        Args:
            bound: the queue as it was when it was last looked at.
            adopt: see `bind_queue`.

        Raises:
            QueueNotFoundError: there is no such queue.
            StoreError: the store failed or said no.
        """
        name = bound.settings.name
        try:
            stream, consumer = await self._queue(name)
        except RefusedError as err:
            if err.code != CONSUMER_NOT_FOUND or not adopt:
                raise
            info = await self._stream_info(queue_stream(name))
            if info["created"] != bound.created:
                raise  # somebody is just making it
            _log.warning("queue %s has lost its consumer, making it again", name)
            await self._js.save_consumer(queue_stream(name), streams.consumer_config(bound.settings), "create")
            stream, consumer = await self._queue(name)
        if stream["created"] != bound.created or streams.has_source(stream["config"]) != bound.sourced:
            return await self.bind_queue(name, adopt=adopt)
        settings, configured = read_settings(name, stream["config"], consumer["config"])
        if configured:
            await self._take_over(settings, stream, consumer)
        return msgspec.structs.replace(
            bound,
            settings=settings,
            pulls=int(consumer.get("num_waiting") or 0),
            paused_until_ns=paused_until(consumer),
        )

    async def configure_queue(
        self,
        name: str,
        *,
        max_run_time: Span | None = None,
        max_tries: int | None = None,
        max_concurrent: int | None = None,
        max_age: Span | None = None,
        max_entries: int | None = None,
        discard_old: bool | None = None,
        replicas: int | None = None,
        lease: Span | None = None,
        weight: int | None = None,
    ) -> QueueSettings:
        """Change a queue; what is left out stays. See `Queue` for the meanings.

        Returns:
            The queue's settings after the change.

        Raises:
            QueueNotFoundError: there is no such queue.
            InvalidConfigError: with every fault of the settings.
            StoreError: the store failed or said no.
        """
        stream, consumer = await self._queue(name)
        current, configured = read_settings(name, stream["config"], consumer["config"])
        if lease is not None and not current.ours:
            raise InvalidConfigError((f"queue {name} is for Go workers, which know no lease",))
        changes = {
            "max_run_time_ns": None if max_run_time is None else _checked_span(max_run_time, "max run time"),
            "max_tries": max_tries,
            "max_concurrent": max_concurrent,
            "max_age_ns": None if max_age is None else _checked_span(max_age, "max age"),
            "max_entries": max_entries,
            "discard_old": discard_old,
            "replicas": replicas,
            "lease_ns": None if lease is None else max(_checked_span(lease, "lease"), 1),
            "weight": weight,
        }
        wanted = msgspec.structs.replace(current, **{key: value for key, value in changes.items() if value is not None})
        wanted.check()
        if wanted != current or configured:
            await self._js.update_stream(streams.changed_stream(stream["config"], wanted))
            await self._save_consumer(stream["config"], consumer["config"], wanted)
        return (await self.bind_queue(name, adopt=False)).settings

    async def pause_queue(self, name: str, *, until: datetime | timedelta | None = None) -> int:
        """Have a queue hand out nothing more, to no worker, ours or the Go project's; what they have goes on.

        Enqueueing goes on too. A queue that is paused already is paused anew.

        Args:
            name: the queue.
            until: when it goes on by itself, or after how long; None for not before `resume_queue`.

        Returns:
            Until when, in nanoseconds since the epoch.

        Raises:
            InvalidConfigError: the time is over already, or has no time zone.
            QueueNotFoundError: there is no such queue.
            RefusedError: the server is older than 2.11, or said no.
            StoreError: the store failed.
        """
        now_ns = time.time_ns()
        until_ns = _FOREVER_NS if until is None else _instant(until, now_ns)
        if until_ns <= now_ns:
            raise InvalidConfigError(("a pause must end in the future",))
        if await self._js.api_level() < _PAUSE_LEVEL:
            raise RefusedError(f"pausing queue {name}", 0, "needs nats-server 2.11 or newer")
        await self._queue(name)
        await self._js.pause_consumer(queue_stream(name), CONSUMER, until_ns)
        return until_ns

    async def resume_queue(self, name: str) -> bool:
        """Let a paused queue go on.

        Returns:
            Whether it was paused.

        Raises:
            QueueNotFoundError: there is no such queue.
            StoreError: the store failed.
        """
        _, consumer = await self._queue(name)
        if not consumer.get("paused"):
            return False
        await self._js.pause_consumer(queue_stream(name), CONSUMER, None)
        return True

    async def queue_names(self) -> list[str]:
        """List the names of the queues, sorted.

        Raises:
            StoreError: the store failed.
        """
        found = await self._js.stream_names(ITEM_SUBJECTS)
        names = (queue_of_stream(stream) for stream in found if stream.startswith(QUEUE_STREAM_PREFIX))
        return sorted(name for name in names if is_name(name))

    async def queue_info(self, name: str) -> QueueInfo:
        """Describe a queue and how it stands.

        Raises:
            QueueNotFoundError: there is no such queue.
            StoreError: the store failed.
        """
        schedules = schedule_subjects(name)
        (stream, consumer), parked = await asyncio.gather(self._queue(name), self._js.count(DELAYED_STREAM, schedules))
        return read_queue_info(name, stream, consumer, parked)

    async def queues(self) -> list[QueueInfo]:
        """Describe all queues, sorted by name; one that is half made or just being removed is left out.

        Raises:
            StoreError: the store failed.
        """
        limit = asyncio.Semaphore(_AT_ONCE)

        async def describe(name: str) -> QueueInfo | None:
            async with limit:
                try:
                    return await self.queue_info(name)
                except QueueNotFoundError:
                    return None
                except RefusedError as err:
                    if err.code != CONSUMER_NOT_FOUND:
                        raise
                    _log.warning("%s", err)
                    return None

        found = await asyncio.gather(*(describe(name) for name in await self.queue_names()))
        return [info for info in found if info is not None]

    async def purge_queue(self, name: str) -> int:
        """Remove all items of a queue, parked ones too; the tasks' records stay.

        Returns:
            How many.

        Raises:
            QueueNotFoundError: there is no such queue.
            StoreError: the store failed.
        """
        stream = queue_stream(name)
        if await self._js.stream_info(stream) is None:
            raise QueueNotFoundError(name)
        parked = await self._purge_parked(name)  # first: what fires meanwhile is then purged with the items
        return parked + await self._js.purge(stream)

    async def delete_queue(self, name: str) -> None:
        """Remove a queue with all its items, parked ones too; the tasks' records stay.

        Raises:
            QueueNotFoundError: there is no such queue.
            StoreError: the store failed.
        """
        try:
            await self._js.delete_stream(queue_stream(name))
        except RefusedError as err:
            if err.code == STREAM_NOT_FOUND:
                raise QueueNotFoundError(name) from err
            raise
        await self._purge_parked(name)

    # Inside.

    async def _stream_info(self, stream: str) -> dict[str, Any]:
        info = await self._js.stream_info(stream)
        if info is None:
            if stream == TASKS_STREAM:
                raise no_task_store()
            raise RefusedError(f"stream {stream}", STREAM_NOT_FOUND, "not found")
        return info

    async def _stream_config(self, stream: str) -> dict[str, Any]:
        config: dict[str, Any] = (await self._stream_info(stream))["config"]
        return config

    async def _queue(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        stream_name = queue_stream(name)
        stream, consumer = await asyncio.gather(
            self._js.stream_info(stream_name), self._js.consumer_info(stream_name, CONSUMER)
        )
        if stream is None:
            raise QueueNotFoundError(name)
        if consumer is None:
            raise RefusedError(
                f"queue {name}", CONSUMER_NOT_FOUND, f"has no consumer; `ajc queue add {name}` completes it"
            )
        return stream, consumer

    async def _take_over(self, settings: QueueSettings, stream: Mapping[str, Any], consumer: Mapping[str, Any]) -> None:
        _log.info(
            "queue %s was configured from outside: max run time and max tries are taken over, the lease restored",
            settings.name,
        )
        await self._save_consumer(stream["config"], consumer["config"], settings)

    async def _save_consumer(
        self, stream: Mapping[str, Any], consumer: Mapping[str, Any], settings: QueueSettings
    ) -> None:
        await self._js.save_consumer(stream["name"], streams.restored_consumer(consumer, settings), "update")

    async def _try_delayed(self, settings: QueueSettings) -> bool:
        try:
            return await self.ensure_delayed(copies=settings.replicas)
        except NOT_ALLOWED as err:
            # A queue works without: what waits is then handed back with a delay.
            _log.warning("items of queue %s can't wait outside of it: %s", settings.name, err)
            return False

    async def _add_source(self, config: Mapping[str, Any], name: str) -> bool:
        try:
            await self._js.update_stream(streams.with_source(config, name))
        except NOT_ALLOWED as err:
            _log.warning("queue %s is not adopted, what waits is handed back with a delay: %s", name, err)
            return False
        return True

    async def _purge_parked(self, name: str) -> int:
        parked = 0
        try:
            parked = await self._js.purge(DELAYED_STREAM, schedule_subjects(name))
            await self._js.purge(DELAYED_STREAM, fired_subjects(name))
        except RefusedError as err:
            if err.code != STREAM_NOT_FOUND:
                raise
        return parked


def _instant(until: datetime | timedelta, now_ns: int) -> int:
    try:
        return now_ns + to_timedelta_ns(until) if isinstance(until, timedelta) else from_datetime(until)
    except (ValueError, OverflowError) as err:
        raise InvalidConfigError((f"{until} is no time: {err}",)) from err


def _checked_span(span: Span, what: str) -> int:
    try:
        length = span_ns(span)
    except ValueError as err:
        raise InvalidConfigError((f"{what} is no length of time: {err}",)) from err
    if length < 0:
        raise InvalidConfigError((f"{what} must not be negative",))
    return length
