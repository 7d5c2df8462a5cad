"""`aj-bridge tap`: what passes between bridges and handlers, as it passes."""

import asyncio
import contextlib
import logging
import re
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

import click
import nats.errors
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import connection_options, leaf
from aj_bridge.faces.tap import Kind, Listener, Passed
from aj_sdk.client import Client
from aj_sdk.connect import connect
from aj_sdk.transport import settle
from aj_sdk.wire.names import EVENTS, check_name, handler_subject
from aj_sdk.wire.times import NS_PER_S, format_time

__all__ = ["command"]

_LOOK_S: Final = 2.0
_PENDING: Final = 10_000
_PENDING_BYTES: Final = 64 * 1024 * 1024
_SHOWN: Final = 300
_MOST_BODY: Final = 64 * 1024
_CANCELS: Final = "CHORIA_AJ.CI.*"
_MARKS: Final = {
    Kind.REQUEST: ("->", "cyan"),
    Kind.INTERIM: ("..", "yellow"),
    Kind.REPLY: ("<-", "green"),
    Kind.FAILURE: ("<-", "magenta"),
    Kind.NOBODY: ("<-", "red"),
    Kind.SILENCE: ("??", "red"),
    Kind.CANCEL: ("xx", "yellow"),
    Kind.EVENT: ("**", "blue"),
}


@leaf(
    "tap",
    "aj-bridge tap",
    "aj-bridge tap email:new 'image:*' --no-events",
    "aj-bridge tap --faults --json",
    "aj-bridge tap email:new --count 20",
)
@click.argument("types", metavar="[TYPE...]", nargs=-1)
@click.option("--events/--no-events", default=True, show_default=True, help="Also show lifecycle events.")
@click.option("--faults", "only_faults", is_flag=True, help="Show only what breaks the protocol.")
@click.option("--count", type=click.IntRange(1), help="End after so many lines.")
@click.option(
    "--inbox",
    metavar="PREFIX",
    default="_INBOX",
    show_default=True,
    help="Prefix of the bridges' reply subjects, where their NATS context has another.",
)
@click.option("--unseen", is_flag=True, help="Tap the types named here also while no handler of them shows itself.")
@click.option("--json", "-j", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    types: tuple[str, ...],
    events: bool,
    only_faults: bool,
    count: int | None,
    inbox: str,
    unseen: bool,
    as_json: bool,
) -> None:
    """Show requests to handlers, their replies, and lifecycle events, as they pass; until interrupted.

    What the schemas and the protocol refuse is flagged below it, with the field. TYPE may be a pattern.

    A tap is a listener too: where nobody else listens, the server would no longer tell a bridge that nobody is there,
    and a task would fail at its deadline instead of waiting. So a type is tapped only while a handler of it shows
    itself (`aj-bridge handlers`); --unseen taps those named here all the same.

    Needs to subscribe to CHORIA_AJ.H.T.*, CHORIA_AJ.CI.*, CHORIA_AJ.E.> and _INBOX.>, where replies go, and to publish
    on $SRV.>. Whoever may do that can read all answers to all requests of the account.
    """
    names = [name for name in types if not any(char in name for char in "*?[")]
    for name in names:
        check_name(name, "task type")
    if not re.fullmatch(r"[^\s*>.]+(\.[^\s*>.]+)*", inbox):
        raise click.UsageError(f"--inbox {inbox!r} is no prefix of a subject")
    if unseen and not names:
        raise click.UsageError("--unseen needs the names of types")
    tap = _Tap(types, names if unseen else [], events=events, only_faults=only_faults, count=count, as_json=as_json)
    options = connection_options(ctx)

    async def listen() -> None:
        async with AsyncExitStack() as stack:
            connection = await connect(options)
            stack.push_async_callback(connection.close)
            client = await stack.enter_async_context(Client(connection))
            await tap.run(connection, client, inbox)

    asyncio.run(listen())


class _Missed(logging.Filter):
    """Counts what nats-py drops for want of room, which would else be logged one by one."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        dropped = "slow consumer" in record.getMessage()
        self._count += dropped
        return not dropped

    def take(self) -> int:
        """Return how many since the last time."""
        count, self._count = self._count, 0
        return count


class _Tap:
    """What is tapped, and how it is shown."""

    def __init__(
        self,
        patterns: Sequence[str],
        always: Sequence[str],
        *,
        events: bool,
        only_faults: bool,
        count: int | None,
        as_json: bool,
    ) -> None:
        self._patterns = patterns
        self._always = {handler_subject(name) for name in always}
        self._events = events
        self._only_faults = only_faults
        self._left = count
        self._as_json = as_json
        self._listener = Listener()
        self._done = asyncio.Event()
        self._tapped: dict[str, Subscription] = {}
        self._missed = _Missed()

    async def run(self, connection: Connection, client: Client, inbox: str) -> None:
        logging.getLogger("aj_sdk.connect").addFilter(self._missed)
        await self._subscribe(connection, f"{inbox}.>", self._on_inbox)
        if await _refused(connection, f"{inbox}.>"):
            _say(f"replies can't be shown: this login may not subscribe to {inbox}.>")
        await self._subscribe(connection, _CANCELS, self._on_cancel)
        if self._events:
            await self._subscribe(connection, EVENTS, self._on_event)
        while not self._done.is_set():
            await self._follow(connection, client)
            for late in self._listener.overdue(time.time_ns()):
                self._show(late)
            if missed := self._missed.take():
                _say(f"{missed:,} messages came faster than they could be shown, and are missing")
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._done.wait()
            except TimeoutError:
                continue

    async def _follow(self, connection: Connection, client: Client) -> None:
        """Tap what has handlers now, and leave what has none any more."""
        handlers = await client.admin.handlers.within(_LOOK_S).showing()
        wanted = {each.subject for each in handlers if self._wants(each.type)} | self._always
        first = not self._tapped
        new = sorted(wanted - self._tapped.keys())
        for subject in new:
            self._tapped[subject] = await self._subscribe(connection, subject, self._on_request)
        gone = sorted(self._tapped.keys() - wanted)
        for subject in gone:
            await self._tapped.pop(subject).unsubscribe()
        if new or gone:
            await _settled(connection)  # what is told next is so
        for subject in new:
            _say(f"tapping {subject}")
        for subject in gone:
            _say(f"no handler of {subject} shows itself any more: left alone")
        if first and not wanted:
            _say("no handlers show themselves; their types are tapped as soon as they do")

    def _wants(self, task_type: str) -> bool:
        return not self._patterns or any(fnmatchcase(task_type, pattern) for pattern in self._patterns)

    async def _subscribe(
        self, connection: Connection, subject: str, take: Callable[[Msg], Passed | None]
    ) -> Subscription:
        async def on_message(message: Msg) -> None:
            passed = take(message)
            if passed is not None:
                self._show(passed)

        # What is not shown fast enough is dropped and told, rather than kept without a bound.
        return await connection.subscribe(
            subject, cb=on_message, pending_msgs_limit=_PENDING, pending_bytes_limit=_PENDING_BYTES
        )

    def _on_request(self, message: Msg) -> Passed:
        return self._listener.on_request(message.subject, message.reply, message.headers, message.data, time.time_ns())

    def _on_inbox(self, message: Msg) -> Passed | None:
        return self._listener.on_inbox(message.subject, message.headers, message.data, time.time_ns())

    def _on_cancel(self, message: Msg) -> Passed | None:
        passed = self._listener.on_cancel(message.subject, time.time_ns())
        return passed if passed.task_id or not self._patterns else None

    def _on_event(self, message: Msg) -> Passed | None:
        passed = self._listener.on_event(message.subject, message.data, time.time_ns())
        return passed if self._wants(passed.task_type) else None

    def _show(self, passed: Passed) -> None:
        if self._done.is_set() or (self._only_faults and not passed.faults):
            return
        if self._as_json:
            output.print_json_line(_map(passed))
        else:
            _print(passed)
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self._done.set()


async def _settled(connection: Connection) -> None:
    with contextlib.suppress(nats.errors.Error, TimeoutError):  # without a server there is nothing to wait for
        await settle(connection)


async def _refused(connection: Connection, subject: str) -> bool:
    before = connection.last_error
    await _settled(connection)
    after = connection.last_error
    return after is not before and subject.lower() in str(after).lower()


def _say(text: str) -> None:
    click.echo(output.clean(text), err=True)


def _print(passed: Passed) -> None:
    mark, colour = _MARKS[passed.kind]
    clock = datetime.fromtimestamp(passed.at_ns / NS_PER_S).astimezone().strftime("%H:%M:%S.%f")[:-3]
    after = "" if passed.after_ns is None else f" after {output.duration_text(passed.after_ns // 1000 * 1000)}"
    who = " ".join(part for part in (passed.task_type or passed.subject, passed.task_id) if part)
    line = f"{clock} {mark} {who}{after}: {passed.text}"
    if passed.content is not None:
        line += f"  {_short(passed.content)}"
    click.secho(output.clean(line), fg=colour)
    for fault in passed.faults:
        click.secho(output.clean(f"             ! {fault.schema} {fault.path}: {fault.message}"), fg="red")


def _short(content: bytes) -> str:
    text = output.payload_text(content[: 4 * _SHOWN])
    return text if len(content) <= 4 * _SHOWN and len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _map(passed: Passed) -> dict[str, Any]:
    body: dict[str, Any]
    part = passed.body[:_MOST_BODY]
    try:
        body = {"body": part.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": b64encode(part).decode()}
    if len(passed.body) > len(part):
        body["body_bytes"] = len(passed.body)
    return {
        "kind": passed.kind,
        "at": format_time(passed.at_ns),
        "subject": passed.subject,
        "task_type": passed.task_type,
        "task_id": passed.task_id,
        "text": passed.text,
        "after_ns": passed.after_ns,
        "headers": dict(passed.headers),
        **body,
        "faults": [{"schema": each.schema, "path": each.path, "message": each.message} for each in passed.faults],
    }
