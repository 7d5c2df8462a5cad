"""Key-value buckets as NATS clients keep them: a stream `KV_<bucket>`, a subject a key, its last message the value.

Raw, as all of our JetStream: every write says which revision it has seen. Where the server can (2.11), a key may have a
time of its own. What is in a bucket is somebody else's business.
"""

from functools import partial
from typing import Final

import msgspec

from aj_sdk import streams
from aj_sdk.errors import NoRespondersError, OutcomeUnknownError, RefusedError
from aj_sdk.jetstream import (
    EXPECTED_LAST_SUBJECT_SEQUENCE,
    STREAM_NOT_FOUND,
    WRONG_LAST_SEQUENCE,
    JetStream,
    StoredMessage,
)
from aj_sdk.side_streams import ensure_side_stream
from aj_sdk.wire.headers import find_header
from aj_sdk.wire.names import API_PREFIX, bucket_stream, bucket_subject
from aj_sdk.wire.times import NS_PER_S, parse_time

__all__ = ["ELECTION_TERM_NS", "KEY_TTLS_LEVEL", "Bucket", "Entry"]

KEY_TTLS_LEVEL: Final = 1
"""The JetStream API level (ADR-44) from which on a key may have a time of its own: 2.11."""

ELECTION_TERM_NS: Final = 10 * NS_PER_S
"""How long a leader leads without a word, in a bucket of elections that we make; the Go project's has the same."""

_OPERATION: Final = "KV-Operation"
_MARKER: Final = "Nats-Marker-Reason"
_MAX_DIGITS: Final = 12
_TTL: Final = "Nats-TTL"


class Entry(msgspec.Struct, frozen=True):
    """A key's value.

    Attributes:
        value: its bytes.
        revision: sequence of its last write.
        at_ns: when that was, by the server's clock, nanoseconds since the epoch.
        ttl_ns: how long it was to stay, as its writer said; None where nothing was said.
    """

    value: bytes
    revision: int
    at_ns: int
    ttl_ns: int | None = None


class Bucket:
    """A bucket.

    Args:
        jetstream: the API of the account.
        name: the bucket.
    """

    def __init__(self, jetstream: JetStream, name: str) -> None:
        self._js = jetstream
        self._name = name
        self._stream = bucket_stream(name)
        # The server maps no plain $KV to a domain's buckets; what is below the API's prefix it does. So nats.go writes.
        self._writes_below = "" if jetstream.prefix == API_PREFIX else f"{jetstream.prefix}."

    async def ensure(self, *, max_age_ns: int = 0, key_ttls: bool = False) -> bool:
        """Make the bucket, kept as the task store is; one that is there learns to let keys have their own time.

        Args:
            max_age_ns: after which time without a write a key goes, 0 for never.
            key_ttls: whether keys may have a time of their own, where the server can.

        Returns:
            Whether keys may have a time of their own.

        Raises:
            StoreError: the store failed or said no.
        """
        key_ttls = key_ttls and await self._js.api_level() >= KEY_TTLS_LEVEL
        make = partial(streams.bucket_config, self._name, max_age_ns=max_age_ns, key_ttls=key_ttls)
        found = await ensure_side_stream(self._js, make)
        if key_ttls and not found.get("allow_msg_ttl"):
            await self._js.update_stream({**found, "allow_msg_ttl": True})
        return key_ttls

    async def max_age_ns(self) -> int:
        """Return after which time without a write a key goes, 0 for never.

        Raises:
            RefusedError: there is no such bucket.
            StoreError: the store failed.
        """
        info = await self._js.stream_info(self._stream)
        if info is None:
            raise RefusedError(f"bucket {self._name}", STREAM_NOT_FOUND, "not found")
        return streams.max_age_ns(info["config"])

    async def get(self, key: str) -> Entry | None:
        """Read a key from the leader; None when it has no value, or there is no such bucket.

        Raises:
            StoreError: the store failed.
        """
        message = await self._last(key)
        if message is None or _is_marker(message):
            return None
        return Entry(message.data, message.sequence, parse_time(message.time), _ttl_ns(message))

    async def create(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int | None:
        """Give a value to a key that has none.

        Args:
            key: the key.
            value: the value.
            ttl_s: seconds after which it goes; None for no time of its own.

        Returns:
            Its revision, None when the key has a value.

        Raises:
            RefusedError: the bucket said no, or there is none.
            OutcomeUnknownError: no answer in time; it may be stored.
        """
        revision = await self.update(key, value, 0, ttl_s=ttl_s)
        if revision is not None:
            return revision
        # What was removed in the way of the NATS clients leaves a marker, which counts as the last write.
        message = await self._last(key)
        if message is None or not _is_marker(message):
            return None
        return await self.update(key, value, message.sequence, ttl_s=ttl_s)

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int | None:
        """Give another value to a key that stands at a revision.

        Returns:
            The new revision, None when somebody else wrote.

        Raises:
            RefusedError: the bucket said no, or there is none.
            OutcomeUnknownError: no answer in time; it may be stored.
        """
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(revision)}
        if ttl_s is not None:
            headers[_TTL] = f"{ttl_s}s"
        return await self._write(key, value, headers)

    async def delete(self, key: str, revision: int) -> bool:
        """Take a key's value away, if it stands at a revision; False when somebody else wrote.

        Raises:
            RefusedError: the bucket said no, or there is none.
            OutcomeUnknownError: no answer in time; it may be gone.
        """
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(revision), _OPERATION: "DEL"}
        return await self._write(key, b"", headers) is not None

    async def _write(self, key: str, value: bytes, headers: dict[str, str]) -> int | None:
        try:
            return await self._js.publish(self._writes_below + bucket_subject(self._name, key), value, headers)
        except RefusedError as err:
            if err.code in WRONG_LAST_SEQUENCE:
                return None
            raise
        except NoRespondersError as err:
            raise RefusedError(f"bucket {self._name}", STREAM_NOT_FOUND, "not found") from err
        except OutcomeUnknownError as err:
            # Over a leaf node nobody says that there is no such bucket.
            if await self._js.stream_info(self._stream) is None:
                raise RefusedError(f"bucket {self._name}", STREAM_NOT_FOUND, "not found") from err
            raise

    async def _last(self, key: str) -> StoredMessage | None:
        try:
            return await self._js.last(self._stream, bucket_subject(self._name, key))
        except RefusedError as err:
            if err.code == STREAM_NOT_FOUND:
                return None
            raise


def _is_marker(message: StoredMessage) -> bool:
    return find_header(message.headers, _OPERATION) in ("DEL", "PURGE") or _MARKER in message.headers


def _ttl_ns(message: StoredMessage) -> int | None:
    text = (find_header(message.headers, _TTL) or "").removesuffix("s")
    return int(text) * NS_PER_S if text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS else None
