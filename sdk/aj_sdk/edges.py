"""The edges between tasks, in JetStream: the stream `CHORIA_AJ_DEPS`.

The stream is made with the first edge. Where there is none, nobody waits for anybody, and the end of a task costs no
look.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Final

from aj_sdk import streams
from aj_sdk.dependents import StoredEdge, at_once
from aj_sdk.errors import (
    DecodeError,
    MessageTooLargeError,
    NoRespondersError,
    OutcomeUnknownError,
    RefusedError,
    StoreError,
)
from aj_sdk.jetstream import (
    ALL_SUBJECTS,
    EXPECTED_LAST_SUBJECT_SEQUENCE,
    STREAM_NOT_FOUND,
    WRONG_LAST_SEQUENCE,
    JetStream,
    StoredMessage,
)
from aj_sdk.side_streams import ensure_side_stream
from aj_sdk.wire.edge import Edge
from aj_sdk.wire.names import DEPS_STREAM, edge_subject, edges_from, edges_to

__all__ = ["Edges"]

_log: Final = logging.getLogger(__name__)

_PARENTS_AT_ONCE: Final = 256
_LOOK_AGAIN_S: Final = 1.0
"""How long a stream that was not there is taken for absent; a child that is missed meanwhile looks for itself."""

_PURGES: Final = 64
"""A task with more parents than this has its edges removed by one purge, which has to look at all subjects."""


class Edges:
    """`EdgeIndex` in JetStream.

    Args:
        jetstream: the API of the account.
    """

    def __init__(self, jetstream: JetStream) -> None:
        self._js = jetstream
        self._absent_until = 0.0
        self._asked: dict[str, asyncio.Future[list[StoredEdge] | StoreError]] = {}
        self._asking = asyncio.Lock()

    async def leaving(self, parent_id: str) -> list[StoredEdge]:
        """See `EdgeIndex`; looks that are wanted while another is under way go together."""
        if time.monotonic() < self._absent_until:
            return []
        answer = self._asked.get(parent_id)
        if answer is None:
            answer = self._asked[parent_id] = asyncio.get_running_loop().create_future()
        async with self._asking:
            if not answer.done():
                asked, self._asked = self._asked, {}
                await self._look(asked)
        found = await answer
        if isinstance(found, StoreError):
            raise found
        return found

    async def _look(self, asked: dict[str, "asyncio.Future[list[StoredEdge] | StoreError]"]) -> None:
        names = list(asked)
        try:
            for start in range(0, len(names), _PARENTS_AT_ONCE):
                part = names[start : start + _PARENTS_AT_ONCE]
                found: dict[str, list[StoredEdge]] = {name: [] for name in part}
                for stored in await self._leaving(part):
                    found[stored.edge.parent].append(stored)
                for name, edges in found.items():
                    asked[name].set_result(edges)
        except StoreError as err:
            failure = err
        except BaseException:
            failure = OutcomeUnknownError("looking for dependent tasks")
            raise
        else:
            return
        finally:
            for answer in asked.values():
                if not answer.done():
                    answer.set_result(failure)

    async def _leaving(self, parents: list[str]) -> list[StoredEdge]:
        try:
            return _read_all(await self._js.latest_of(DEPS_STREAM, [edges_from(parent) for parent in parents]))
        except NoRespondersError:
            if await self._js.stream_info(DEPS_STREAM) is None:
                self._absent_until = time.monotonic() + _LOOK_AGAIN_S
                return []
        except RefusedError:
            pass  # too many for one answer, or a server that gives one at a time
        return [stored for parent in parents for stored in await self._scan(edges_from(parent))]

    async def entering(self, child_id: str) -> list[StoredEdge]:
        """See `EdgeIndex`."""
        return await self._scan(edges_to(child_id))

    async def some(self, start: int, limit: int) -> list[StoredEdge]:
        """Read some of all edges, those written at this sequence or later, in that order.

        Raises:
            StoreError: the store failed.
        """
        return await self._scan(ALL_SUBJECTS, start, limit)

    async def drop_standing(self, stored: StoredEdge) -> None:
        """Remove an edge, if it still stands at its sequence.

        Raises:
            StoreError: the store failed.
        """
        subject = edge_subject(stored.edge.parent, stored.edge.child)
        await self._js.delete_standing(DEPS_STREAM, subject, stored.sequence)

    async def _scan(self, subjects: str, start: int = 1, limit: int = 0) -> list[StoredEdge]:
        found: list[StoredEdge] = []
        try:
            async for message in self._js.scan(DEPS_STREAM, subjects, start):
                stored = _read(message)
                if stored is not None:
                    found.append(stored)
                if len(found) == limit:
                    break
        except RefusedError as err:
            if err.code != STREAM_NOT_FOUND:
                raise
            self._js.batches_again(DEPS_STREAM)  # when there is one
        return found

    async def between(self, parent_id: str, child_id: str) -> StoredEdge | None:
        """See `EdgeIndex`."""
        try:
            return _one(await self._js.last(DEPS_STREAM, edge_subject(parent_id, child_id)))
        except RefusedError as err:
            if err.code != STREAM_NOT_FOUND:
                raise
            return None

    async def first(self, child_id: str) -> StoredEdge | None:
        """See `EdgeIndex`."""
        try:
            return _one(await self._js.first(DEPS_STREAM, edges_to(child_id)))
        except RefusedError as err:
            if err.code != STREAM_NOT_FOUND:
                raise
            return None

    async def write(self, edge: Edge, expected: int) -> bool:
        """See `EdgeIndex`; makes the stream where there is none. A result that does not fit is left out."""
        subject = edge_subject(edge.parent, edge.child)
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}
        for made in (False, True):
            try:
                await self._js.publish(subject, edge.to_wire(), headers)
            except NoRespondersError:
                if made:
                    raise
                await self._make()
            except MessageTooLargeError:
                await self._js.publish(subject, _without_result(edge).to_wire(), headers)
                return True
            except RefusedError as err:
                if err.code in WRONG_LAST_SEQUENCE:
                    return False
                raise
            else:
                return True
        raise AssertionError("the second attempt returns or raises")

    async def drop(self, child_id: str, parents: Iterable[str]) -> None:
        """See `EdgeIndex`."""
        subjects = [edge_subject(parent, child_id) for parent in parents]
        if len(subjects) > _PURGES:
            subjects = [edges_to(child_id)]
        try:
            await at_once(subjects, lambda subject: self._js.purge(DEPS_STREAM, subject), limit=16)
        except RefusedError as err:
            if err.code != STREAM_NOT_FOUND:
                raise

    async def _make(self) -> None:
        await ensure_side_stream(self._js, streams.deps_config)
        self._absent_until = 0.0
        self._js.batches_again(DEPS_STREAM)


def _one(message: StoredMessage | None) -> StoredEdge | None:
    return None if message is None else _read(message)


def _read_all(messages: Iterable[StoredMessage]) -> list[StoredEdge]:
    return [stored for stored in map(_read, messages) if stored is not None]


def _read(message: StoredMessage) -> StoredEdge | None:
    try:
        return StoredEdge(Edge.read(message.subject, message.data), message.sequence)
    except DecodeError as err:
        # It wakes nobody; the child looks for itself.
        _log.warning("message %d of %s: %s", message.sequence, DEPS_STREAM, err)
        return None


def _without_result(edge: Edge) -> Edge:
    return Edge(parent=edge.parent, child=edge.child, queue=edge.queue, load=edge.load, state=edge.state)
