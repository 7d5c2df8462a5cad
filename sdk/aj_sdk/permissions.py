"""Which subjects each role publishes on and listens to: the one table of permissions.

The command line prints it as a server's configuration, the tests run each role under it, and the documentation shows
it. Pure: a role and a scope in, subjects out. Source of what a permission may look like: nats-server's configuration
(`authorization`), and the JetStream API's subjects.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from aj_sdk.bridges import SERVICE
from aj_sdk.discovery import discovery_subject
from aj_sdk.wire.names import (
    API_PREFIX,
    ATTEMPTS_STREAM,
    ATTEMPTS_SUBJECTS,
    CANCEL_SUBJECTS,
    CONSUMER,
    DEAD_STREAM,
    DEAD_SUBJECTS,
    DELAYED_STREAM,
    DEPS_STREAM,
    DEPS_SUBJECTS,
    ELECTIONS_BUCKET,
    EVENT_PREFIX,
    EVENTS,
    HANDLER_QUEUE_GROUP,
    HANDLER_SUBJECTS,
    PROGRESS_SUBJECTS,
    TASK_STATE_EVENTS,
    TASK_SUBJECTS,
    TASKS_STREAM,
    UNIQUE_BUCKET,
    bridge_subject,
    bucket_stream,
    bucket_subject,
    fired_subjects,
    handler_subject,
    invocation_cancel_subject,
    item_subjects,
    leader_event_subject,
    queue_stream,
    schedule_subjects,
)
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Act", "Grant", "Replies", "Role", "Scope", "grants", "replies"]

_SIDE_STREAMS: Final = (DELAYED_STREAM, DEAD_STREAM, DEPS_STREAM, ATTEMPTS_STREAM)
_ELECTIONS: Final = bucket_stream(ELECTIONS_BUCKET)
_UNIQUE: Final = bucket_stream(UNIQUE_BUCKET)
_VERBS: Final = ("PING", "INFO", "STATS")


class Role(StrEnum):
    """What a process is for; a program that is two things has the permissions of both."""

    PRODUCER = "producer"
    BRIDGE = "bridge"
    HANDLER = "handler"
    VIEWER = "viewer"
    ADMIN = "admin"


class Act(StrEnum):
    """What is done on a subject."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


class Grant(msgspec.Struct, frozen=True, order=True):
    """One permission.

    Attributes:
        act: what may be done.
        subject: where, wildcards included; a subscription may be bound to a queue group: `subject group`.
        why: what it is needed for.
    """

    act: Act
    subject: str
    why: str


class Replies(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a role may answer requests on whatever reply subject they carry (`allow_responses`).

    Attributes:
        most: how many messages for each request, -1 for any number.
        expires_ns: for how long after the request, in nanoseconds. The server remembers each request for so long,
            whether it was answered or not.
    """

    most: int
    expires_ns: int


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a role is narrowed to, and where its JetStream is.

    Attributes:
        queues: the queues, none for all. Without them all streams of the account are meant where a queue's stream is,
            because a part of a stream's name can't be a wildcard.
        types: the routes that handlers listen on and bridges call, none for all; the empty one is the catch-all.
        api_prefix: subject prefix of the JetStream API.
        event_prefix: subject prefix of JetStream's events.
        inbox_prefix: subject prefix of the role's inboxes; one of its own keeps others from listening to its replies.
        makes: whether it may make and change streams, consumers and buckets; None for bridges and administrators only.
            Whoever may make a stream can have it copy any other one of the account.
        longest_ns: how long a handler may take to answer, in nanoseconds.
    """

    queues: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    api_prefix: str = API_PREFIX
    event_prefix: str = EVENT_PREFIX
    inbox_prefix: str = "_INBOX"
    makes: bool | None = None
    longest_ns: int = 3600 * NS_PER_S

    def queue_streams(self) -> tuple[str, ...]:
        """Return the streams of the queues."""
        return tuple(queue_stream(queue) for queue in self.queues) or ("*",)

    def of_queues(self, subjects: Callable[[str], str]) -> tuple[str, ...]:
        """Return the subjects of the queues; `subjects` gives those of one."""
        # The functions of `names` check names, which a wildcard is none of.
        return tuple(subjects(queue) for queue in self.queues) or (subjects("ANY").replace(".ANY.", ".*."),)

    def handlers(self) -> tuple[str, ...]:
        """Return the subjects of the handlers."""
        return tuple(handler_subject(route) for route in self.types) or (HANDLER_SUBJECTS,)

    def acknowledgements(self) -> tuple[str, ...]:
        """Return the subjects on which items are acknowledged, with and without a domain and an account in them."""
        return tuple(
            f"$JS.ACK.{place}{stream}.{CONSUMER}.>" for stream in self.queue_streams() for place in ("", "*.*.")
        )

    def exhausted(self) -> str:
        """Return the subjects that tell of items whose deliveries are used up; who sweeps listens for all queues."""
        return f"{self.event_prefix}.ADVISORY.CONSUMER.MAX_DELIVERIES.*.{CONSUMER}"

    def bucket(self, bucket: str) -> str:
        """Return the subjects on which a bucket is written; see `aj_sdk.buckets`."""
        below = "" if self.api_prefix == API_PREFIX else f"{self.api_prefix}."
        return below + bucket_subject(bucket, "*")


class _Table:
    """Collects the grants of one role, in an order for readers."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.grants: dict[tuple[Act, str], Grant] = {}

    def publish(self, why: str, *subjects: str) -> None:
        self._add(Act.PUBLISH, why, subjects)

    def listen(self, why: str, *subjects: str) -> None:
        self._add(Act.SUBSCRIBE, why, subjects)

    def ask(self, why: str, verb: str, *names: str) -> None:
        """Allow a request to the JetStream API, for each of some streams or consumers."""
        told = ("*",) if "*" in names else names
        self._add(Act.PUBLISH, why, (f"{self._scope.api_prefix}.{verb}.{name}" for name in told))

    def _add(self, act: Act, why: str, subjects: Iterable[str]) -> None:
        for subject in subjects:
            self.grants.setdefault((act, subject), Grant(act, subject, why))


def grants(role: Role, scope: Scope | None = None) -> tuple[Grant, ...]:
    """Return what a role may do; everything else is forbidden to it.

    Args:
        role: the role.
        scope: what it is narrowed to; None for all queues and types of an account's own JetStream.
    """
    scope = scope or Scope()
    table = _Table(scope)
    _ROLES[role](table, scope)
    return tuple(table.grants.values())


def replies(role: Role, scope: Scope | None = None) -> Replies | None:
    """Return how a role may answer requests, None where it has nothing to answer.

    Bounded in time: what may be answered without an end is remembered without an end. nats-server 2.15.1 kept 220
    bytes for each request to a handler with `{max: -1, expires: "-1s"}` until the connection ended (seen).
    """
    scope = scope or Scope()
    match role:
        case Role.HANDLER:
            # Any number: heartbeats come before the result.
            return Replies(most=-1, expires_ns=scope.longest_ns)
        case Role.BRIDGE:
            return Replies(most=1, expires_ns=10 * NS_PER_S)
        case _:
            return None


def _producer(table: _Table, scope: Scope) -> None:
    streams = scope.queue_streams()
    table.publish("save a task", TASK_SUBJECTS)
    table.publish("put its item into its queue", *scope.of_queues(item_subjects))
    table.publish("let it wait for a time", *scope.of_queues(schedule_subjects))
    table.publish("bring it back when what it waits for is done", *scope.of_queues(fired_subjects))
    table.publish("tie it to the tasks that it waits for", DEPS_SUBJECTS)
    table.publish("tell its state", TASK_STATE_EVENTS)
    table.publish("claim a unique key", scope.bucket(UNIQUE_BUCKET))
    table.publish("learn what the server can", f"{scope.api_prefix}.INFO")
    table.ask("find the streams", "STREAM.INFO", TASKS_STREAM, DELAYED_STREAM, DEPS_STREAM, _UNIQUE, *streams)
    table.ask("read a queue's settings", "CONSUMER.INFO", *(f"{stream}.{CONSUMER}" for stream in streams))
    _read(table, TASKS_STREAM, DELAYED_STREAM, DEPS_STREAM, _UNIQUE, *streams)
    table.ask("take back a task whose unique key went to another", "STREAM.MSG.DELETE", TASKS_STREAM)
    table.ask("forget what a task that failed waited for", "STREAM.PURGE", DEPS_STREAM)
    if scope.makes:
        _make(table, TASKS_STREAM, DELAYED_STREAM, DEPS_STREAM, _UNIQUE, *streams)
        table.ask("make the queue DEFAULT", "CONSUMER.CREATE", *(f"{stream}.{CONSUMER}" for stream in streams))
    table.listen("hear the answers", f"{scope.inbox_prefix}.>")
    table.listen("hear that a task has ended", TASK_STATE_EVENTS)
    table.listen("hear its progress", PROGRESS_SUBJECTS)


def _bridge(table: _Table, scope: Scope) -> None:
    streams = scope.queue_streams()
    consumers = tuple(f"{stream}.{CONSUMER}" for stream in streams)
    table.ask("ask for work", "CONSUMER.MSG.NEXT", *consumers)
    table.publish("acknowledge it, keep it, give it back", *scope.acknowledgements())
    table.publish("call handlers", *scope.handlers())
    table.publish("tell handlers to stop", invocation_cancel_subject("*"))
    table.publish("save a task", TASK_SUBJECTS)
    table.publish("put an item into its queue", *scope.of_queues(item_subjects))
    table.publish("let it wait", *scope.of_queues(schedule_subjects))
    table.publish("bring it back", *scope.of_queues(fired_subjects))
    table.publish("tell those that wait for a task", DEPS_SUBJECTS)
    table.publish("bury what can't be processed", DEAD_SUBJECTS)
    table.publish("note attempts", ATTEMPTS_SUBJECTS)
    table.publish("tell a task's state", TASK_STATE_EVENTS)
    table.publish("tell its progress", PROGRESS_SUBJECTS)
    table.publish("tell who was elected", leader_event_subject("ANY").replace(".ANY", ".*"))
    table.publish("take part in elections", scope.bucket(ELECTIONS_BUCKET))
    table.publish("ask another bridge whether it holds a task", bridge_subject("*", "holds"))
    table.publish("learn what the server can", f"{scope.api_prefix}.INFO")
    table.publish("find the queues to sweep", f"{scope.api_prefix}.STREAM.NAMES")
    table.ask("find the streams", "STREAM.INFO", TASKS_STREAM, *_SIDE_STREAMS, _ELECTIONS, *streams)
    table.ask("read a queue's settings", "CONSUMER.INFO", *consumers)
    _read(table, TASKS_STREAM, DELAYED_STREAM, DEPS_STREAM, _ELECTIONS, *streams)
    _read_whole_store(table)
    table.ask("remove a record that is not to be kept", "STREAM.MSG.DELETE", TASKS_STREAM)
    table.ask("remove a tie to a task that is gone", "STREAM.MSG.DELETE", DEPS_STREAM)
    table.ask("take out an item that stands for nothing", "STREAM.MSG.DELETE", *streams)
    table.ask("forget what a task that has ended waited for", "STREAM.PURGE", DEPS_STREAM)
    if scope.makes is not False:
        _make(table, TASKS_STREAM, *_SIDE_STREAMS, _ELECTIONS, *streams)
        table.ask("make a queue, and restore its lease", "CONSUMER.CREATE", *consumers)
    table.listen("hear the answers", f"{scope.inbox_prefix}.>")
    table.listen("hear that a task was cancelled", CANCEL_SUBJECTS)
    table.listen("be told what to do, and be asked", bridge_subject("*", "*"))
    table.listen("be found", *_discovery(), *_discovery(SERVICE), *(f"{each}.*" for each in _discovery(SERVICE)))
    dropped = f"{scope.event_prefix}.ADVISORY.CONSUMER.MSG_TERMINATED"
    table.listen("hear what a full queue dropped", *(f"{dropped}.{each}" for each in consumers))
    table.listen("hear of items that are delivered no more", scope.exhausted())


def _handler(table: _Table, scope: Scope) -> None:
    # In the queue group only: outside of it each request could be overheard.
    table.listen("be called", *(f"{subject} {HANDLER_QUEUE_GROUP}" for subject in scope.handlers()))
    table.listen("be told to stop", invocation_cancel_subject("*"))
    table.listen("be found, by whatever name its service has", discovery_subject("PING").replace(".PING", ".>"))


def _viewer(table: _Table, scope: Scope) -> None:
    streams = scope.queue_streams()
    kept = (TASKS_STREAM, *_SIDE_STREAMS, _ELECTIONS, _UNIQUE, *streams)
    table.publish("learn what the server can", f"{scope.api_prefix}.INFO")
    table.publish("find the queues", f"{scope.api_prefix}.STREAM.NAMES")
    table.ask("describe the streams", "STREAM.INFO", *kept)
    table.ask("describe the queues", "CONSUMER.INFO", *(f"{stream}.{CONSUMER}" for stream in streams))
    _read(table, TASKS_STREAM, *_SIDE_STREAMS, *streams)
    table.publish("find bridges and handlers", *_discovery(), *_discovery(SERVICE))
    table.publish("ask bridges how they stand", bridge_subject("*", "status"))
    table.publish("ask whether a bridge holds a task", bridge_subject("*", "holds"))
    table.listen("hear the answers", f"{scope.inbox_prefix}.>")
    table.listen("watch what happens", EVENTS)
    table.listen("hear of items that are delivered no more", scope.exhausted())
    table.listen("watch progress", PROGRESS_SUBJECTS)


def _admin(table: _Table, scope: Scope) -> None:
    streams = scope.queue_streams()
    consumers = tuple(f"{stream}.{CONSUMER}" for stream in streams)
    everything = (TASKS_STREAM, *_SIDE_STREAMS, _ELECTIONS, _UNIQUE, *streams)
    _viewer(table, scope)
    _read_whole_store(table)
    _make(table, *everything)
    table.ask("remove queues", "STREAM.DELETE", *streams)
    table.ask("empty them, and the task store", "STREAM.PURGE", TASKS_STREAM, *_SIDE_STREAMS, *streams)
    table.ask("remove tasks, items and letters", "STREAM.MSG.DELETE", TASKS_STREAM, *_SIDE_STREAMS, *streams)
    table.ask("make and change queues", "CONSUMER.CREATE", *consumers)
    table.ask("pause queues", "CONSUMER.PAUSE", *consumers)
    table.ask("look at unique keys", "STREAM.MSG.GET", _UNIQUE)
    table.publish("save a task", TASK_SUBJECTS)
    table.publish("put its item into its queue", *scope.of_queues(item_subjects))
    table.publish("let it wait for a time", *scope.of_queues(schedule_subjects))
    table.publish("bring it back", *scope.of_queues(fired_subjects))
    table.publish("tie it to the tasks that it waits for", DEPS_SUBJECTS)
    table.publish("bury a cancelled task", DEAD_SUBJECTS)
    table.publish("claim a unique key", scope.bucket(UNIQUE_BUCKET))
    table.publish("tell a task's state", TASK_STATE_EVENTS)
    table.publish("tell bridges that a task was cancelled", CANCEL_SUBJECTS)
    table.publish("tell bridges what to do", bridge_subject("*", "*"))


def _read(table: _Table, *streams: str) -> None:
    table.ask("read from the leader", "STREAM.MSG.GET", *streams)
    table.ask("read many at once", "DIRECT.GET", *streams)


def _read_whole_store(table: _Table) -> None:
    # Not for a viewer: a consumer may have its messages delivered anywhere, to handlers too.
    for verb in ("CREATE", "MSG.NEXT", "DELETE"):
        table.ask("read the whole task store by a consumer of one's own", f"CONSUMER.{verb}", f"{TASKS_STREAM}.*")


def _make(table: _Table, *streams: str) -> None:
    table.ask("make what is not there", "STREAM.CREATE", *streams)
    table.ask("change what is there", "STREAM.UPDATE", *streams)


def _discovery(name: str = "") -> tuple[str, ...]:
    return tuple(discovery_subject(verb, name) for verb in _VERBS)


_ROLES: Final[Mapping[Role, Callable[[_Table, Scope], None]]] = {
    Role.PRODUCER: _producer,
    Role.BRIDGE: _bridge,
    Role.HANDLER: _handler,
    Role.VIEWER: _viewer,
    Role.ADMIN: _admin,
}
