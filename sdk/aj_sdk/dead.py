"""The dead letters: store one, look at them, let their tasks run again, remove them.

What could not be processed lies in the stream `CHORIA_AJ_DEAD`, one message a reason, queue and task. How long each
reason is kept stands in the stream's metadata, so that whoever stores a letter gives it its time.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Final

import msgspec

from aj_sdk import streams
from aj_sdk.enqueue import enqueue
from aj_sdk.errors import (
    DeadLetterNotFoundError,
    DecodeError,
    InvalidConfigError,
    NoRespondersError,
    NotReplayableError,
    RefusedError,
    StoreError,
)
from aj_sdk.jetstream import (
    EXPECTED_LAST_SUBJECT_SEQUENCE,
    STREAM_NOT_FOUND,
    TTLS_LEVEL,
    WRONG_LAST_SEQUENCE,
    JetStream,
    StoredMessage,
)
from aj_sdk.queue import Span, span_ns
from aj_sdk.retry import retry
from aj_sdk.store import Store
from aj_sdk.wire.dead import DeadLetter, DeadReason
from aj_sdk.wire.names import DEAD_STREAM, dead_subject, dead_subjects
from aj_sdk.wire.task import TaskRecord
from aj_sdk.wire.times import NS_PER_S

__all__ = ["HEADER_ROOM", "Burial", "DeadFilter", "DeadGroup", "DeadLetters", "FoundLetter", "group_letters"]

_log: Final = logging.getLogger(__name__)

HEADER_ROOM: Final = 16 * 1024
_LOOK_AGAIN_S: Final = 30.0
_MIN_KEPT_NS: Final = NS_PER_S


class FoundLetter(msgspec.Struct, frozen=True):
    """A dead letter as it is stored.

    Attributes:
        sequence: its sequence in the stream of dead letters.
        letter: the letter.
    """

    sequence: int
    letter: DeadLetter

    @property
    def record(self) -> TaskRecord | None:
        """The task's record as it was, None where there was none, or where it can't be read."""
        if self.letter.whole_size is not None:
            return None
        try:
            return TaskRecord.from_wire(self.letter.body)
        except DecodeError:
            return None


class DeadFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are meant; what is left out means any.

    Attributes:
        reasons: one of these.
        queue: of this queue.
        type: of this task type.
        error: with this text in their detail, without regard to case.
        since_ns: dead since then, nanoseconds since the epoch.
        before_ns: dead before then, nanoseconds since the epoch.
    """

    reasons: Collection[DeadReason] = ()
    queue: str = ""
    type: str = ""
    error: str = ""
    since_ns: int | None = None
    before_ns: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Say whether a letter is meant."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.queue or letter.queue == self.queue)
            and (not self.type or letter.task_type == self.type)
            and (not self.error or self.error.lower() in letter.detail.lower())
            and (self.since_ns is None or letter.at_ns >= self.since_ns)
            and (self.before_ns is None or letter.at_ns < self.before_ns)
        )


class DeadGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters of one reason, type and error.

    Attributes:
        reason: their reason.
        task_type: their type, empty when unknown.
        detail: their error.
        count: how many.
        newest_ns: when the newest one died, nanoseconds since the epoch.
        example: id of its task, empty when unknown.
    """

    reason: str
    task_type: str
    detail: str
    count: int
    newest_ns: int
    example: str


class Burial(msgspec.Struct, frozen=True):
    """How long dead letters are kept.

    Attributes:
        kept_ns: by reason, nanoseconds; 0 = for ever.
        max_age_ns: the stream's own limit, 0 = none.
    """

    kept_ns: Mapping[DeadReason, int]
    max_age_ns: int

    def ttl(self, reason: str) -> str | None:
        """Return the `Nats-TTL` of a letter, None where the stream's own limit is right."""
        kept_ns = self.kept_ns.get(DeadReason(reason), self.max_age_ns)
        if kept_ns == self.max_age_ns:
            return None
        return f"{max(1, kept_ns // NS_PER_S)}s" if kept_ns else "never"


class DeadLetters:
    """The stream of dead letters.

    Args:
        jetstream: the API of the account.
        store: tasks and items, for running a dead task again.
    """

    def __init__(self, jetstream: JetStream, store: Store) -> None:
        self._js = jetstream
        self._store = store
        self._burial: Burial | None = None
        self._looked = 0.0
        self._looking = asyncio.Lock()

    async def bury(self, letter: DeadLetter) -> bool:
        """Store a dead letter; it takes the place of one of the same reason, queue and task.

        One of a record that can't be read is stored once, whoever finds the record, and under whichever queue.

        Returns:
            Whether it was stored; False where the same record has a letter.

        Raises:
            RefusedError: the stream said no, or there is none.
            StoreError: the store failed.
        """
        letter = letter.cut(self._js.transport.max_payload - HEADER_ROOM)
        headers = letter.headers()
        if letter.sequence is not None:
            standing = await self._of_record(letter)
            if any(found.letter.sequence == letter.sequence for found in standing):
                return False
            last = max((found.sequence for found in standing if found.letter.queue == letter.queue), default=0)
            headers[EXPECTED_LAST_SUBJECT_SEQUENCE] = str(last)
        ttl = (await self._kept()).ttl(letter.reason)
        if ttl is not None:
            headers["Nats-TTL"] = ttl
        try:
            await self._js.publish(dead_subject(letter.reason, letter.queue, letter.task_id), letter.body, headers)
        except NoRespondersError as err:
            raise RefusedError("storing a dead letter", 0, f"there is no stream {DEAD_STREAM}") from err
        except RefusedError as err:
            if letter.sequence is None or err.code not in WRONG_LAST_SEQUENCE:
                raise
            return False  # somebody else has just stored it
        return True

    async def buried(self, letter: DeadLetter) -> bool:
        """Say whether a record that can't be read has a letter.

        Raises:
            StoreError: the store failed.
        """
        return any(found.letter.sequence == letter.sequence for found in await self._of_record(letter))

    async def _of_record(self, letter: DeadLetter) -> list[FoundLetter]:
        subject = dead_subjects(DeadReason.QUARANTINED, task_id=letter.task_id)
        found = [_read(message) async for message in self._scan(subject)]
        return [each for each in found if each is not None]

    async def _kept(self) -> Burial:
        # Read now and then: an operator may change it while we run, and each look is a request.
        async with self._looking:
            if self._burial is None or time.monotonic() - self._looked > _LOOK_AGAIN_S:
                self._looked = time.monotonic()
                try:
                    self._burial = await self.burial()
                except StoreError as err:
                    _log.info("how long dead letters are kept can't be read: %s", err)
                    self._burial = self._burial or Burial({}, 0)
            return self._burial

    async def burial(self) -> Burial:
        """Read how long dead letters are kept.

        Raises:
            StoreError: the store failed, or there is no such stream.
        """
        return _read_burial(await self._config())

    async def configure(self, kept: Mapping[DeadReason, Span | None]) -> Burial:
        """Change how long the dead letters that are stored from now on are kept.

        Args:
            kept: by reason; 0 or None for ever. What is left out stays.

        Returns:
            How long each reason is kept now.

        Raises:
            InvalidConfigError: a length of time is none, or below a second; or the server is older than 2.11 and
                keeps all of them equally long.
            StoreError: the store failed or said no.
        """
        config = await self._config()
        before = _read_burial(config)
        wanted = {reason: before.kept_ns.get(reason, before.max_age_ns) for reason in DeadReason}
        wanted |= {reason: _kept_ns(reason, span) for reason, span in kept.items()}
        if len(set(wanted.values())) > 1 and await self._js.api_level() < TTLS_LEVEL:
            fault = "nats-server 2.11 or newer keeps each reason for a time of its own; this one needs one time for all"
            raise InvalidConfigError((fault,))
        changed = streams.with_dead_retention(config, {str(reason): kept_ns for reason, kept_ns in wanted.items()})
        self._burial = _read_burial((await self._js.update_stream(changed))["config"])
        self._looked = time.monotonic()
        return self._burial

    async def letters(self, wanted: DeadFilter | None = None, *, limit: int = 0) -> AsyncIterator[FoundLetter]:
        """Read dead letters, the one stored longest ago first; what can't be read is skipped, and logged.

        Args:
            wanted: which ones; None for all.
            limit: at most so many, <= 0 for all.

        Raises:
            StoreError: the store failed.
        """
        left = limit
        async for message in self._scan(_subjects(wanted)):
            found = _read(message)
            if found is None or (wanted is not None and not wanted.takes(found.letter)):
                continue
            yield found
            left -= 1
            if left == 0:
                return

    async def find(self, task_id: str) -> list[FoundLetter]:
        """Read a task's dead letters: one for each reason and queue under which it died.

        Raises:
            InvalidNameError: not a task id.
            DeadLetterNotFoundError: it has none.
            StoreError: the store failed.
        """
        found = [_read(message) async for message in self._scan(dead_subjects(task_id=task_id))]
        letters = [each for each in found if each is not None]
        if not letters:
            raise DeadLetterNotFoundError(task_id)
        return letters

    async def _scan(self, subject: str) -> AsyncIterator[StoredMessage]:
        try:
            async for message in self._js.scan(DEAD_STREAM, subject):
                yield message
        except RefusedError as err:
            if err.code != STREAM_NOT_FOUND:
                raise

    async def replay(self, found: FoundLetter) -> TaskRecord:
        """Let a dead task run again, then remove its letter.

        A task that is still stored starts over, as by a retry. One that is gone is stored again as it was, with its
        tries at 0; its signature stays valid.

        Returns:
            The task as it is stored now.

        Raises:
            NotReplayableError: there is neither a record in the store nor a whole one in the letter.
            TaskStateError: the task is stored and has not ended.
            QueueNotFoundError: its queue is gone.
            StoreError: the store failed or said no.
        """
        letter = found.letter
        stored = await self._store.load(letter.task_id) if letter.task_id else None
        if stored is not None:
            task = await retry(self._store, letter.task_id)
        else:
            record = found.record
            if record is None or not record.queue:
                raise NotReplayableError(letter.task_id, _why_not(found))
            if record.deadline_ns is not None and record.deadline_ns <= time.time_ns():
                raise NotReplayableError(letter.task_id, "its deadline has passed, so it could only expire again")
            task = await enqueue(self._store, record.fresh())
        await self.remove([found])
        return task

    async def remove(self, letters: Iterable[FoundLetter]) -> int:
        """Remove dead letters; one that another took the place of stays.

        Returns:
            How many.

        Raises:
            StoreError: the store failed.
        """
        removed = 0
        for found in letters:
            letter = found.letter
            subject = dead_subject(letter.reason, letter.queue, letter.task_id)
            removed += await self._js.delete_standing(DEAD_STREAM, subject, found.sequence)
        return removed

    async def purge(self) -> int:
        """Remove all dead letters.

        Returns:
            How many.

        Raises:
            StoreError: the store failed.
        """
        try:
            return await self._js.purge(DEAD_STREAM)
        except RefusedError as err:
            if err.code == STREAM_NOT_FOUND:
                return 0
            raise

    async def _config(self) -> streams.Config:
        info = await self._js.stream_info(DEAD_STREAM)
        if info is None:
            raise RefusedError(f"stream {DEAD_STREAM}", STREAM_NOT_FOUND, "not found; a bridge makes it when it starts")
        config: streams.Config = info["config"]
        return config


def group_letters(letters: Iterable[DeadLetter]) -> list[DeadGroup]:
    """Count dead letters by reason, type and error, the largest group first."""
    groups: dict[tuple[str, str, str], DeadGroup] = {}
    for letter in letters:
        key = (letter.reason, letter.task_type, letter.detail)
        group = groups.get(key)
        newer = group is None or letter.at_ns >= group.newest_ns
        groups[key] = DeadGroup(
            reason=letter.reason,
            task_type=letter.task_type,
            detail=letter.detail,
            count=1 if group is None else group.count + 1,
            newest_ns=letter.at_ns if group is None or newer else group.newest_ns,
            example=letter.task_id if group is None or newer else group.example,
        )
    return sorted(groups.values(), key=lambda group: (-group.count, -group.newest_ns, group.reason))


def _read(message: StoredMessage) -> FoundLetter | None:
    try:
        return FoundLetter(message.sequence, DeadLetter.read(message.subject, message.data, message.headers))
    except DecodeError as err:
        _log.warning("message %d of %s: %s", message.sequence, DEAD_STREAM, err)
        return None


def _subjects(wanted: DeadFilter | None) -> str:
    # The server does the part of the choice that a subject can say.
    if wanted is None:
        return dead_subjects()
    return dead_subjects(next(iter(wanted.reasons)) if len(wanted.reasons) == 1 else "*", wanted.queue)


def _why_not(found: FoundLetter) -> str:
    if found.letter.whole_size is not None:
        return f"its letter holds only the first part of a record of {found.letter.whole_size} bytes"
    if found.record is None:
        return "neither the store nor its letter has a record that can be read"
    return "its record names no queue"


def _kept_ns(reason: DeadReason, span: Span | None) -> int:
    try:
        kept_ns = 0 if span is None else span_ns(span)
    except ValueError as err:
        raise InvalidConfigError((f"{reason}: no length of time: {err}",)) from err
    if kept_ns and kept_ns < _MIN_KEPT_NS:
        raise InvalidConfigError((f"{reason}: must be 0 (for ever) or at least 1s",))
    return kept_ns


def _read_burial(config: Mapping[str, object]) -> Burial:
    kept = streams.dead_retention(config)
    return Burial(
        {reason: kept[reason] for reason in DeadReason if reason in kept},
        streams.max_age_ns(config),
    )
