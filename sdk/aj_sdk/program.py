"""A handler module as a program of its own: `aj_sdk.run()` as its last line.

Reads the environment, sets up logging, chooses the event loop, and says on standard error why it can't work; the work
is `Runner`'s.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from aj_sdk.connect import ConnectionFlags, resolve_connection
from aj_sdk.errors import LifespanError, StoreError, UsageError
from aj_sdk.handling import TASK_LOGGER
from aj_sdk.runner import DEFAULT_CONCURRENCY, DEFAULT_GRACE_S, Runner
from aj_sdk.services import Services

__all__ = ["loop_factory", "run"]

_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def run(
    services: Services | None = None,
    *,
    server: str = "",
    context: str = "",
    concurrency: int = DEFAULT_CONCURRENCY,
    grace: float = DEFAULT_GRACE_S,
    on_ready: Callable[[], None] | None = None,
    verify: str | Sequence[str] | None = None,
) -> None:
    """Run handlers as a program of their own, until SIGTERM or SIGINT; the last line of a handler module.

    Connects where `server`, `context`, or else the environment says (`AJ_SERVER`, `AJ_CONTEXT`), uses uvloop when it
    is installed, and sets up logging to standard error when the program has not set up any. A program with an event
    loop of its own uses `Runner`.

    Args:
        services: the handlers; None for those registered with `aj_sdk.service`.
        server: URL of the NATS server, or several separated by commas.
        context: name of a NATS context.
        concurrency: how many requests are handled at a time, over all handlers.
        grace: seconds that requests in hand have to finish after the first signal.
        on_ready: called when the subscriptions stand.
        verify: public key, or several, of who signs the tasks; see `Runner`.

    Raises:
        SystemExit: the program can't do its work; the reason stands on standard error. Code 2 for a wrong option or
            configuration, 1 for a connection that can't be made or was lost for good, and for a lifespan that failed.
    """
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise UsageError("run() starts an event loop of its own; in this one use: await Runner(...).run()")
    if not logging.getLogger(TASK_LOGGER).hasHandlers():
        _set_up_logging()

    async def main() -> None:
        flags = ConnectionFlags(server=server, context=context)
        options = resolve_connection(flags, os.environ, name="asyncjobs-handlers")
        runner = Runner(options, services, concurrency=concurrency, grace=grace, on_ready=on_ready, verify=verify)
        await runner.run()

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as loop:
            loop.run(main())
    except (UsageError, StoreError, LifespanError) as err:
        sys.stderr.write(f"error: {err}\n")
        raise SystemExit(2 if isinstance(err, UsageError) else 1) from None


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's event loop where it is installed, else None, for `asyncio.Runner`."""
    try:
        import uvloop  # noqa: PLC0415 - optional, and of use only here
    except ImportError:
        return None
    return uvloop.new_event_loop


class _TaskFormatter(logging.Formatter):
    """Adds the task's fields to its lines, and escapes what an error's text may bring to spoil them."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        text = super().formatMessage(record).translate(_ESCAPES)
        fields: dict[str, Any] = record.__dict__
        if "task_id" not in fields:
            return text
        return f"{text} task_id={fields['task_id']} task_type={fields['task_type']} tries={fields['tries']}"


def _set_up_logging() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_TaskFormatter(_LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
