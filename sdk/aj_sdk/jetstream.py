"""JetStream's API in the few calls that we need, as raw JSON over a `Transport`.

Raw, because a client library's configuration types drop the fields that they do not know, and an update would then
take them away (seen with nats-py 2.16). Knows streams, consumers and messages; knows nothing of tasks and queues.
"""

import asyncio
import contextlib
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from aj_sdk.errors import MessageTooLargeError, NoRespondersError, OutcomeUnknownError, RefusedError, StoreError
from aj_sdk.transport import Headers, Inbox, Message, Transport
from aj_sdk.wire.codec import encode_json
from aj_sdk.wire.names import API_PREFIX, EVENT_PREFIX
from aj_sdk.wire.times import format_time

__all__ = [
    "ALL_SUBJECTS",
    "CONSUMER_NOT_FOUND",
    "MESSAGE_NOT_FOUND",
    "NO_MESSAGE_SPACE",
    "STREAM_NAME_IN_USE",
    "STREAM_NOT_FOUND",
    "WRONG_LAST_SEQUENCE",
    "JetStream",
    "StoredMessage",
]

# err_code values of nats-server's errors.json.
CONSUMER_NOT_FOUND: Final = 10014
MESSAGE_NOT_FOUND: Final = 10037
STREAM_NAME_IN_USE: Final = 10058
STREAM_NOT_FOUND: Final = 10059
WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})
NO_MESSAGE_SPACE: Final = 10077

_MAX_SUBJECTS: Final = 1024
"""A batched direct get takes 1024 subjects, 1025 are refused with 413 (seen)."""
_BATCH_BYTES: Final = 900_000
_FALLBACK_AT_ONCE: Final = 64
_SCAN_BATCH: Final = 256

ALL_SUBJECTS: Final = ">"
"""What to scan a whole stream by. With a filter the server goes through all subjects for each batch, to count what is
left: 24 ms at a million. Without one it does so only where messages were overwritten or deleted (seen with 2.15.1)."""

EXPECTED_LAST_SUBJECT_SEQUENCE: Final = "Nats-Expected-Last-Subject-Sequence"


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as a stream holds it.

    Attributes:
        subject: its subject.
        sequence: its sequence.
        data: its body.
        headers: its headers.
        time: when it was stored, RFC 3339.
    """

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str]
    time: str


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


_NO_LEADER: Final = 10008
"""`JetStream system temporarily unavailable`: a cluster that has no leader now, of a stream or at all."""

_NO_LEADER_PAUSE_S: Final = 0.05
_LEADERS_ANSWER_S: Final = 0.5

TTLS_LEVEL: Final = 1
"""The API level (ADR-44) from which on a server has a time to live for each message: 2.11."""


class _PubAck(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_read_ack = msgspec.json.Decoder(_PubAck).decode


class JetStream:
    """Calls to JetStream.

    Args:
        transport: the connection.
        prefix: `$JS.API`, or a domain's or an account's own.
        event_prefix: `$JS.EVENT`, or what another account's events are imported as.
        timeout: seconds to wait for each answer.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        prefix: str = API_PREFIX,
        event_prefix: str = EVENT_PREFIX,
        timeout: float = 5.0,
    ) -> None:
        self.transport = transport
        self.prefix = prefix
        self.event_prefix = event_prefix
        self.timeout = timeout
        self._no_batch: set[str] = set()
        # Over a leaf node what is sent to a stream that gives no direct gets is lost, where else the answer is that
        # nobody listens (seen with 2.15.1): then whether it gives them has to be known before.
        self._lossy = prefix != API_PREFIX
        self._gives_direct: set[str] = set()

    async def call(
        self,
        verb: str,
        request: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - handed to the transport
    ) -> dict[str, Any]:
        """Ask the API.

        Args:
            verb: what comes after the prefix, for example `STREAM.INFO.ORDERS`.
            request: its JSON body.
            timeout: seconds to wait for the answer; None for the usual ones.

        Raises:
            RefusedError: the server said no; `code` is its `err_code`.
            NoRespondersError: JetStream is not there.
            OutcomeUnknownError: no answer in time.
        """
        body = b"" if request is None else encode_json(request)
        patience_s = self.timeout if timeout is None else timeout
        ends = time.monotonic() + patience_s
        while True:
            message = await self.transport.request(f"{self.prefix}.{verb}", body, timeout=patience_s)
            try:
                answer = msgspec.json.decode(message.data, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
                raise RefusedError(verb, 0, f"an answer that is not JSON: {err}") from err
            error = answer.get("error")
            if not error:
                return answer
            code = int(error.get("err_code", 0))
            if code != _NO_LEADER or time.monotonic() > ends:
                raise RefusedError(verb, code, str(error.get("description", "unknown error")))
            await asyncio.sleep(_NO_LEADER_PAUSE_S)

    async def publish(self, subject: str, data: bytes, headers: Headers | None = None) -> int:
        """Store a message.

        Returns:
            Its stream sequence.

        Raises:
            RefusedError: the stream said no.
            NoRespondersError: no stream takes that subject, or one that has had no leader for the time of a request.
            OutcomeUnknownError: no answer in time; it may be stored.
            MessageTooLargeError: it is bigger than a message may be.
        """
        try:
            message = await self.transport.request(subject, data, headers=headers, timeout=self.timeout)
        except NoRespondersError:
            message = await self._publish_once_led(subject, data, headers)
        try:
            ack = _read_ack(message.data)
        except msgspec.DecodeError as err:
            raise RefusedError(f"publish to {subject}", 0, f"not an acknowledgement: {err}") from err
        if ack.error is not None:
            raise RefusedError(f"publish to {subject}", ack.error.err_code, ack.error.description)
        return ack.seq

    async def _publish_once_led(self, subject: str, data: bytes, headers: Headers | None) -> Message:
        """Publish what nobody took, where there is a stream for it.

        In a cluster only a stream's leader listens: for a moment after it was made not all servers know it, and for
        some seconds after its leader died there is none (seen with three servers of 2.15.1).
        """
        ends = time.monotonic() + self.timeout
        while time.monotonic() < ends:
            try:
                led = await self.stream_names(subject)
            except StoreError:
                break  # we may not ask
            if not led:
                break
            await asyncio.sleep(_NO_LEADER_PAUSE_S)
            with contextlib.suppress(NoRespondersError):
                return await self.transport.request(subject, data, headers=headers, timeout=self.timeout)
        raise NoRespondersError(subject)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """Read the last message of a subject from the stream's leader, None when there is none."""
        return await self._read(stream, {"last_by_subj": subject})

    async def first(self, stream: str, subject: str) -> StoredMessage | None:
        """Read the oldest message of a subject (wildcards allowed) from the stream's leader, None for none."""
        return await self._read(stream, {"next_by_subj": subject, "seq": 1})

    async def latest_of(self, stream: str, subjects: Sequence[str]) -> list[StoredMessage]:
        """Read the last message of each subject that matches one of several (wildcards allowed), in one direct get.

        Raises:
            NoRespondersError: there is no such stream, or it does not allow direct gets.
            RefusedError: more than 1,024 match (413), or the server gives single messages only (before 2.11).
            OutcomeUnknownError: no answer in time.
        """
        return (await self._direct(stream, {"multi_last": subjects, "batch": _MAX_SUBJECTS})).messages

    async def at(self, stream: str, sequence: int) -> StoredMessage | None:
        """Read the message at a sequence from the stream's leader, None when there is none."""
        return await self._read(stream, {"seq": sequence})

    async def _read(self, stream: str, request: Mapping[str, Any]) -> StoredMessage | None:
        try:
            answer = await self.call(f"STREAM.MSG.GET.{stream}", request)
        except RefusedError as err:
            if err.code == MESSAGE_NOT_FOUND:
                return None
            raise
        found = answer["message"]
        return StoredMessage(
            subject=found["subject"],
            sequence=int(found["seq"]),
            data=b64decode(found.get("data", "")),
            headers=_read_headers(b64decode(found.get("hdrs", ""))),
            time=found.get("time", ""),
        )

    async def last_many(self, stream: str, subjects: Sequence[str]) -> dict[str, StoredMessage]:
        """Read the last message of each of many subjects; one that is absent was confirmed absent by the leader.

        One batched direct get where the stream and the server can (2.11, `allow_direct`), else one request each.
        A direct get may be answered by a replica that lags, so what it misses is asked of the leader.
        """
        found: dict[str, StoredMessage] = {}
        if len(subjects) > 1 and stream not in self._no_batch:
            for start in range(0, len(subjects), _MAX_SUBJECTS):
                part = subjects[start : start + _MAX_SUBJECTS]
                try:
                    found.update(await self._batch(stream, part))
                except (NoRespondersError, RefusedError):
                    self._no_batch.add(stream)
                    break
                except OutcomeUnknownError:
                    break
        missing = [subject for subject in subjects if subject not in found]
        for start in range(0, len(missing), _FALLBACK_AT_ONCE):
            part = missing[start : start + _FALLBACK_AT_ONCE]
            for message in await asyncio.gather(*(self.last(stream, subject) for subject in part)):
                if message is not None:
                    found[message.subject] = message
        return found

    async def _batch(self, stream: str, subjects: Sequence[str]) -> dict[str, StoredMessage]:
        request = {"multi_last": subjects, "batch": len(subjects)}
        return {message.subject: message for message in (await self._direct(stream, request)).messages}

    async def _direct(self, stream: str, request: Mapping[str, Any]) -> "_Batch":
        """Ask for several messages by direct get.

        Raises:
            NoRespondersError: the stream does not allow direct gets, or there is no such stream.
            RefusedError: the server said no; one before 2.11 gives single messages only.
            OutcomeUnknownError: no answer in time.
        """
        body = encode_json(request)
        if len(body) > _BATCH_BYTES:
            raise MessageTooLargeError(len(body), _BATCH_BYTES)
        if self._lossy and not await self._is_direct(stream):
            raise NoRespondersError(stream)
        batch = _Batch()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_message(message: Message) -> None:
            headers = message.headers or {}
            status = headers.get("Status")
            if done.done():
                return
            if status == "503":  # newer servers tell in it the subject that nobody listens on, in Nats-Subject too
                done.set_exception(NoRespondersError(stream))
            elif "Nats-Subject" in headers:
                if _NUM_PENDING in headers:
                    batch.messages.append(_stored(headers, message.data))
                else:
                    # A server before 2.11 does not know batches: it gives one message and no end.
                    done.set_exception(RefusedError("direct get", 0, "the server gives single messages only"))
            elif status == "404":
                done.set_result(None)
            elif status == "204":
                batch.left = int(headers.get(_NUM_PENDING, "0"))
                done.set_result(None)
            else:
                done.set_exception(RefusedError("direct get", int(status or "0"), headers.get("Description", "")))

        inbox: Inbox = self.transport.open_inbox(on_message)
        try:
            await self.transport.publish(f"{self.prefix}.DIRECT.GET.{stream}", body, reply=inbox.subject)
            async with asyncio.timeout(self.timeout):
                await done
        except TimeoutError:
            self._gives_direct.discard(stream)  # it may be gone
            raise OutcomeUnknownError(f"direct get from {stream}") from None
        finally:
            inbox.close()
        return batch

    async def _is_direct(self, stream: str) -> bool:
        """Say whether a stream gives direct gets; asked until it does, and again after one that got no answer."""
        if stream not in self._gives_direct:
            info = await self.stream_info(stream)
            if info is None or not info["config"].get("allow_direct"):
                return False
            self._gives_direct.add(stream)
        return True

    async def scan(self, stream: str, subject: str, start: int = 1) -> AsyncIterator[StoredMessage]:
        """Read the messages of a subject (wildcards allowed) from a sequence on, in the stream's order.

        Batched direct gets where the stream and the server can, so that a message written just now may be missing
        when a replica that lags answers; else single reads from the leader.
        """
        next_sequence = max(start, 1)
        while stream not in self._no_batch:
            request = {"next_by_subj": subject, "seq": next_sequence, "batch": _SCAN_BATCH}
            try:
                batch = await self._direct(stream, request)
            except (NoRespondersError, RefusedError):
                self._no_batch.add(stream)
                break
            for message in batch.messages:
                next_sequence = message.sequence + 1
                yield message
            if not batch.messages or not batch.left:
                return
        ahead = 1
        while True:
            # Sequences have gaps, so each read asks for the next message at or after its place: the union holds
            # all up to the last one found. How far ahead to ask follows from how many of the answers were new.
            answers = await asyncio.gather(
                *(self._read(stream, {"next_by_subj": subject, "seq": next_sequence + step}) for step in range(ahead))
            )
            found = {message.sequence: message for message in answers if message is not None}
            for sequence in sorted(found):
                next_sequence = sequence + 1
                yield found[sequence]
            if None in answers:
                return
            ahead = min(ahead * 2, _FALLBACK_AT_ONCE) if len(found) * 4 > ahead else max(ahead // 2, 1)

    async def count(self, stream: str, subject: str) -> int | None:
        """Count the messages of a subject (wildcards allowed), None where the stream or the server can't tell.

        One direct get of the first of them, which says how many follow: STREAM.INFO would list every subject.
        """
        try:
            batch = await self._direct(stream, {"next_by_subj": subject, "batch": 1})
        except (NoRespondersError, RefusedError):
            return None
        return len(batch.messages) + batch.left

    def batches_again(self, stream: str) -> None:
        """Forget that a stream gave no batches: its configuration was changed."""
        self._no_batch.discard(stream)

    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        """Describe a stream (`config`, `state`), None when there is none."""
        return await self._info(f"STREAM.INFO.{stream}", STREAM_NOT_FOUND)

    async def consumer_info(self, stream: str, consumer: str) -> dict[str, Any] | None:
        """Describe a consumer (`config`, `num_pending`, ...), None when there is none."""
        return await self._info(f"CONSUMER.INFO.{stream}.{consumer}", CONSUMER_NOT_FOUND)

    async def _info(self, verb: str, not_found: int) -> dict[str, Any] | None:
        ends = time.monotonic() + self.timeout
        patience_s = min(_LEADERS_ANSWER_S, self.timeout)
        while True:
            try:
                return await self.call(verb, timeout=patience_s)
            except RefusedError as err:
                if err.code in (not_found, STREAM_NOT_FOUND):
                    return None
                raise
            except OutcomeUnknownError:
                # The leader answers; what is asked while there is none stays without an answer for ever (seen).
                patience_s = min(2 * patience_s, ends - time.monotonic())
                if patience_s <= 0:
                    raise

    async def create_stream(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Create a stream; one that is there with the same configuration is success."""
        return await self.call(f"STREAM.CREATE.{config['name']}", config)

    async def update_stream(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Change a stream's configuration; give the whole of it."""
        return await self.call(f"STREAM.UPDATE.{config['name']}", config)

    async def delete_stream(self, stream: str) -> None:
        """Remove a stream with all that it holds."""
        await self.call(f"STREAM.DELETE.{stream}")

    async def delete_message(self, stream: str, sequence: int) -> None:
        """Remove one message; its bytes are not overwritten, which takes the server seven times as long (seen)."""
        await self.call(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})

    async def delete_standing(self, stream: str, subject: str, sequence: int) -> bool:
        """Remove the last message of a subject, if it is still the one of this sequence.

        Never by a purge of the subject: on a work queue stream it makes the consumer of nats-server 2.15.1 forget items
        of other subjects that are in flight. They stay in the stream, and are never delivered again (seen).

        Returns:
            Whether it stood, and is gone; False when it was gone, or another had taken its place.

        Raises:
            StoreError: the store failed or said no.
        """
        try:
            await self.delete_message(stream, sequence)
        except RefusedError as err:
            if err.code == STREAM_NOT_FOUND:
                return False
            # What servers say of a message that is gone differs; where it stands, the refusal is one.
            standing = await self.last(stream, subject)
            if standing is not None and standing.sequence == sequence:
                raise
            return False
        return True

    async def save_consumer(self, stream: str, config: Mapping[str, Any], action: str) -> dict[str, Any]:
        """Create or update a durable consumer.

        Args:
            stream: its stream.
            config: the whole configuration, with `durable_name`.
            action: `create` or `update`.
        """
        name = config["durable_name"]
        return await self.call(
            f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config, "action": action}
        )

    async def pause_consumer(self, stream: str, consumer: str, until_ns: int | None) -> dict[str, Any]:
        """Have a consumer hand out nothing until then (nats-server 2.11); None lets it go on.

        Args:
            stream: its stream.
            consumer: its name.
            until_ns: nanoseconds since the epoch.

        Raises:
            StoreError: the server said no, or gave no answer.
        """
        request = {} if until_ns is None else {"pause_until": format_time(until_ns)}
        return await self.call(f"CONSUMER.PAUSE.{stream}.{consumer}", request)

    async def purge(self, stream: str, subject: str = "") -> int:
        """Remove all messages, or those of a subject.

        Not on a work queue stream by a subject: see `delete_standing`.

        Returns:
            How many.
        """
        request = {"filter": subject} if subject else {}
        return int((await self.call(f"STREAM.PURGE.{stream}", request)).get("purged", 0))

    async def stream_names(self, subject: str = "") -> list[str]:
        """List the names of the streams, or of those that hold a subject."""
        names: list[str] = []
        while True:
            request: dict[str, Any] = {"offset": len(names)}
            if subject:
                request["subject"] = subject
            answer = await self.call("STREAM.NAMES", request)
            page = answer.get("streams") or []
            names.extend(page)
            if not page or len(names) >= int(answer.get("total", 0)):
                return names

    async def api_level(self) -> int:
        """Return the server's JetStream API level: 0 before 2.11, 2 from 2.12 on (ADR-44)."""
        return int(((await self.call("INFO")).get("api") or {}).get("level", 0))


class _Batch:
    """What a batched direct get gave: messages, and how many are left after them."""

    __slots__ = ("left", "messages")

    def __init__(self) -> None:
        self.messages: list[StoredMessage] = []
        self.left = 0


def _stored(headers: Mapping[str, str], data: bytes) -> StoredMessage:
    own = {name: value for name, value in headers.items() if name not in _DIRECT_HEADERS}
    sequence, time = int(headers.get("Nats-Sequence", "0")), headers.get("Nats-Time-Stamp", "")
    return StoredMessage(headers.get("Nats-Subject", ""), sequence, data, own, time)


_NUM_PENDING: Final = "Nats-Num-Pending"
_DIRECT_HEADERS: Final[frozenset[str]] = frozenset(
    {
        "Nats-Stream",
        "Nats-Subject",
        "Nats-Sequence",
        "Nats-Time-Stamp",
        "Nats-Num-Pending",
        "Nats-Last-Sequence",
        "Nats-UpTo-Sequence",
    }
)


def _read_headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    lines: Iterable[str] = block.decode("utf-8", "replace").split("\r\n")[1:]
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers
