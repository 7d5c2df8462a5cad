"""The streams that stand beside the task store, and the one rule for how each is kept: as the task store is.

Waiting items, dead letters, attempts, dependencies and the key-value buckets are made when they are first needed, on
the task store's storage and with at least as many copies; one that has fewer gets more, and never less.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from aj_sdk import streams
from aj_sdk.errors import OutcomeUnknownError, RefusedError
from aj_sdk.jetstream import STREAM_NAME_IN_USE, JetStream
from aj_sdk.streams import Config
from aj_sdk.wire.names import (
    ATTEMPTS_STREAM,
    DEAD_STREAM,
    DELAYED_STREAM,
    DEPS_STREAM,
    ELECTIONS_BUCKET,
    TASKS_STREAM,
    UNIQUE_BUCKET,
    bucket_stream,
)

__all__ = ["NOT_ALLOWED", "SIDE_STREAMS", "ensure_side_stream", "ensure_stream", "raise_copies"]

_log: Final = logging.getLogger(__name__)

SIDE_STREAMS: Final = (
    DELAYED_STREAM,
    DEAD_STREAM,
    DEPS_STREAM,
    ATTEMPTS_STREAM,
    bucket_stream(ELECTIONS_BUCKET),
    bucket_stream(UNIQUE_BUCKET),
)

NOT_ALLOWED: Final = (RefusedError, OutcomeUnknownError)
"""How it looks when we may not: the server says no, or, for want of a permission, does not answer."""


async def ensure_stream(jetstream: JetStream, config: Mapping[str, Any]) -> Config | None:
    """Make a stream; give the configuration of one that was there before, None for a new one.

    Raises:
        StoreError: the store failed or said no.
    """
    name = config["name"]
    info = await jetstream.stream_info(name)
    if info is None:
        try:
            await jetstream.create_stream(config)
        except RefusedError as err:
            if err.code != STREAM_NAME_IN_USE:
                raise
            info = await jetstream.stream_info(name)  # somebody made it at the same time
    found: Config | None = None if info is None else info["config"]
    return found


async def ensure_side_stream(jetstream: JetStream, make: Callable[..., Config], *, copies: int = 1) -> Config:
    """Make a stream beside the task store, or see that it has copies enough; where that is refused, it is logged.

    Args:
        jetstream: the API of the account.
        make: gives its configuration; takes `memory` and `replicas`.
        copies: the least number of copies, where it must be more than the task store's.

    Returns:
        Its configuration.

    Raises:
        StoreError: the store failed or said no.
    """
    tasks = await jetstream.stream_info(TASKS_STREAM)
    memory, replicas = streams.kept({} if tasks is None else tasks["config"])
    wanted = make(memory=memory, replicas=max(replicas, copies))
    found = await ensure_stream(jetstream, wanted)
    if found is None:
        return wanted
    try:
        return await _with_copies(jetstream, found, wanted["num_replicas"])
    except NOT_ALLOWED as err:
        _log.warning("stream %s keeps fewer copies than the task store: %s", found["name"], err)
        return found


async def raise_copies(jetstream: JetStream, replicas: int) -> None:
    """Give all streams beside the task store that are there at least so many copies.

    Raises:
        StoreError: the store failed or said no.
    """
    for name in SIDE_STREAMS:
        info = await jetstream.stream_info(name)
        if info is not None:
            await _with_copies(jetstream, info["config"], replicas)


async def _with_copies(jetstream: JetStream, found: Config, replicas: int) -> Config:
    if streams.kept(found)[1] >= replicas:
        return found
    changed = {**found, "num_replicas": replicas}
    await jetstream.update_stream(changed)
    return changed
