"""Every decoder that is handed what others wrote: how it is called with bytes, samples that it reads, and its errors.

`test_decoders.py` has each of them read what is broken in every way, and fails when a decoder is missing here.
"""

import json
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from aj_bridge.core.retry import read_policy
from aj_bridge.engine.peers import NatsPeers
from aj_bridge.engine.told import read_progress
from aj_bridge.faces.config import load_config
from aj_bridge.storage.jetstream.acks import read_ack_subject, read_deleted, read_exhausted, read_pending
from aj_schemas import vectors
from aj_sdk import buckets, handlers
from aj_sdk.connect import ConnectOptions
from aj_sdk.context import load_context
from aj_sdk.errors import DecodeError, InvalidConfigError, InvalidNameError, PayloadError, SignatureError, UsageError
from aj_sdk.jetstream import StoredMessage
from aj_sdk.keys import load_key, load_seed
from aj_sdk.payload import decode_payload
from aj_sdk.results import result_bytes, result_value
from aj_sdk.wire.attempt import Attempt
from aj_sdk.wire.bridge import BridgeStatus, read_concurrency, read_pause
from aj_sdk.wire.call import read_call, read_reply
from aj_sdk.wire.codec import decode_json, decode_map, decode_msgpack
from aj_sdk.wire.dead import DeadLetter
from aj_sdk.wire.edge import Edge
from aj_sdk.wire.event import LeaderElectedEvent, TaskStateEvent, parse_event
from aj_sdk.wire.frames import FrameReader, read_header_block
from aj_sdk.wire.headers import find_header
from aj_sdk.wire.interim import Progress, read_interim
from aj_sdk.wire.item import WorkItem, read_due
from aj_sdk.wire.names import check_name, is_name, queue_of_stream, task_id_of_subject
from aj_sdk.wire.queue import QueueSettings, read_settings
from aj_sdk.wire.schedule import Schedule
from aj_sdk.wire.signing import Verifier
from aj_sdk.wire.stamp import read_stamp
from aj_sdk.wire.state import parse_state
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord, TaskResult
from aj_sdk.wire.times import parse_duration, parse_time
from aj_sdk.wire.trace import header_trace

__all__ = ["DECODERS", "ELSEWHERE", "Decoder"]

_ID: Final = "2d32zsmm7n0mMk3LuhXEwGDFwI8"
_KEY: Final = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


class Decoder(msgspec.Struct, frozen=True):
    """A decoder.

    Attributes:
        reads: the functions that it stands for, by module and name.
        read: hands it bytes.
        samples: what it reads.
        errors: what it may raise.
        json: whether its samples are JSON objects, whose fields are broken one by one.
    """

    reads: tuple[str, ...]
    read: Callable[[bytes], object]
    samples: tuple[bytes, ...]
    errors: tuple[type[Exception], ...] = (DecodeError,)
    json: bool = False


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _headers(data: bytes) -> Mapping[str, str]:
    """Take lines for headers, as a message may bring them."""
    lines = data.decode("utf-8", "replace").split("\r\n")
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def _golden(kind: str, *, most: int = 6) -> tuple[bytes, ...]:
    found = [b64decode(vector["bytes_base64"]) for vector in vectors() if vector["kind"] == kind]
    return tuple(sorted(set(found), key=len)[-most:])


def _stored(data: bytes) -> Stored:
    stored = Stored.read(f"CHORIA_AJ.T.{_ID}", 7, data, {})
    # Never somebody else's task.
    assert (stored.record is None) == bool(stored.fault)
    assert stored.record is None or stored.record.id == _ID == stored.task_id
    return stored


def _dead(data: bytes) -> DeadLetter:
    head, _, body = data.partition(b"\r\n\r\n")
    letter = DeadLetter.read(f"CHORIA_AJ.X.expired.EMAIL.{_ID}", body, _headers(head + b"\r\n\r\n"))
    assert letter.task_id == _ID
    return letter


def _edge(data: bytes) -> Edge:
    edge = Edge.read(f"CHORIA_AJ.W.parent.{_ID}", data)
    assert (edge.parent, edge.child) == ("parent", _ID)
    return edge


def _call(data: bytes) -> object:
    head, _, body = data.partition(b"\r\n\r\n")
    return read_call(_headers(head + b"\r\n\r\n"), body)


def _reply(data: bytes) -> object:
    head, _, body = data.partition(b"\r\n\r\n")
    headers = _headers(head + b"\r\n\r\n")
    return read_interim(headers, body), read_reply(headers, body)


def _frames(data: bytes) -> object:
    reader, seen = FrameReader(), list[Any]()
    reader.callbacks[b"7"] = seen.append
    rest = [reader.feed(part) for part in (data[: len(data) // 2], data[len(data) // 2 :])]
    return [(frame.subject, frame.headers, frame.data) for frame in seen], rest


def _settings(data: bytes) -> object:
    # What stands in metadata is anybody's; the rest is the server's own.
    texts = {key: str(value) for key, value in decode_map(decode_json(data, "x"), "x", {})._value.items()}
    return read_settings("Q", {}, {"metadata": texts, "ack_wait": 30_001_000_000})


def _verify(data: bytes) -> None:
    Verifier(_KEY).verify(TaskRecord.from_wire(data))


def _result(data: bytes) -> object:
    result = TaskResult.from_wire(data)
    return result_value(result), result_bytes(result)


def _payload(data: bytes) -> object:
    return [decode_payload(data, annotation) for annotation in (bytes, dict[str, int])]


def _with_file(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    def with_file(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            return read(path)

    return with_file


def _context(path: Path) -> object:
    environ = {"XDG_CONFIG_HOME": str(path.parents[2]), "HOME": str(path.parents[2])}
    return ConnectOptions.from_context(load_context("some", environ))


def _config(path: Path) -> object:
    return load_config({"config": str(path)}, {"HOME": str(path.parent)})


def _question(data: bytes) -> object:
    # It awaits nothing.
    answering = NatsPeers(NotImplemented, "b1", lambda _task_id, _item: True).answer(data)
    try:
        answering.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError


def _message(data: bytes) -> StoredMessage:
    return StoredMessage("$KV.CHORIA_AJ_UNIQUE.a", 7, b"", _headers(data), "")


def _url(data: bytes) -> object:
    return ConnectOptions.from_url(_text(data))


def _all() -> Iterator[tuple[str, Decoder]]:
    wire = "aj_sdk.wire"
    tasks = _golden("task")
    yield (
        "task",
        Decoder(
            (f"{wire}.task.TaskRecord.from_wire", f"{wire}.task.TaskRecord.from_map"),
            TaskRecord.from_wire,
            tasks,
            json=True,
        ),
    )
    yield (
        "task-msgpack",
        Decoder(
            (f"{wire}.task.TaskRecord.from_msgpack",),
            TaskRecord.from_msgpack,
            (TaskRecord.from_wire(tasks[0]).to_msgpack(),),
        ),
    )
    yield "stored", Decoder((f"{wire}.stored.Stored.read",), _stored, tasks, (), json=True)
    result = b'{"payload":"c2VudA==","completed":"2022-01-26T14:46:12.5Z"}'
    yield (
        "result",
        Decoder(
            (f"{wire}.task.TaskResult.from_wire", f"{wire}.task.TaskResult.from_map"), _result, (result,), json=True
        ),
    )
    yield "item", Decoder((f"{wire}.item.WorkItem.from_wire",), WorkItem.from_wire, _golden("work_item"), json=True)
    yield (
        "state-event",
        Decoder(
            (f"{wire}.event.TaskStateEvent.from_wire",),
            TaskStateEvent.from_wire,
            _golden("task_state_event"),
            json=True,
        ),
    )
    yield (
        "leader-event",
        Decoder(
            (f"{wire}.event.LeaderElectedEvent.from_wire",),
            LeaderElectedEvent.from_wire,
            _golden("leader_elected_event"),
            json=True,
        ),
    )
    yield "event", Decoder((f"{wire}.event.parse_event",), parse_event, _golden("task_state_event"), json=True)
    yield (
        "schedule",
        Decoder((f"{wire}.schedule.Schedule.from_wire",), Schedule.from_wire, _golden("schedule"), json=True),
    )
    yield "attempt", Decoder((f"{wire}.attempt.Attempt.from_wire",), Attempt.from_wire, _golden("attempt"), json=True)
    yield "edge", Decoder((f"{wire}.edge.Edge.read",), _edge, _golden("edge"), json=True)
    progress = Progress(
        task_id="a", task_type="t", queue="Q", try_=1, invocation="i", fraction=0.5, note="n", timestamp_ns=1
    )
    yield (
        "progress",
        Decoder((f"{wire}.interim.Progress.from_wire",), Progress.from_wire, (progress.to_wire(),), json=True),
    )
    status = json.dumps(
        {
            "id": "b",
            "host": "h",
            "pid": 1,
            "version": "1",
            "started": "2022-01-26T14:46:12Z",
            "state": "working",
            "concurrency": 1,
            "in_hand": 0,
            "queues": [],
        }
    )
    yield (
        "bridge-status",
        Decoder((f"{wire}.bridge.BridgeStatus.from_wire",), BridgeStatus.from_wire, (status.encode(),), json=True),
    )
    yield (
        "concurrency",
        Decoder((f"{wire}.bridge.read_concurrency",), read_concurrency, (b'{"concurrency":7}',), json=True),
    )
    yield "pause", Decoder((f"{wire}.bridge.read_pause",), read_pause, (b'{"paused":true}',), json=True)
    yield (
        "queue",
        Decoder(
            (f"{wire}.queue.QueueSettings.from_wire",),
            QueueSettings.from_wire,
            (QueueSettings(name="Q").to_wire(),),
            (DecodeError, InvalidConfigError),
            json=True,
        ),
    )
    yield (
        "queue-metadata",
        Decoder(
            (f"{wire}.queue.read_settings",),
            _settings,
            (json.dumps(QueueSettings(name="Q").metadata()).encode(),),
            json=True,
        ),
    )
    yield (
        "dead-letter",
        Decoder(
            (f"{wire}.dead.DeadLetter.read",),
            _dead,
            (b"AJ-Dead-Reason: expired\r\nAJ-Task-Tries: 3\r\nAJ-Dead-At: 2022-01-26T14:46:12Z\r\n\r\n" + tasks[0],),
        ),
    )
    request = b"AJ-Content-Type: application/x-asyncjobs-task+json\r\nAJ-Handler-Deadline: 2024-02-29T16:06:05Z\r\nAJ-Handler-Timeout-Ms: 50\r\nAJ-Task-Try: 2\r\n\r\n"  # noqa: E501 - as it comes
    yield "request", Decoder((f"{wire}.call.read_call",), _call, (request + tasks[0],))
    yield (
        "reply",
        Decoder(
            (f"{wire}.call.read_reply", f"{wire}.interim.read_interim"),
            _reply,
            (
                b"AJ-Error: why\r\nAJ-Retry-After-Ms: 50\r\n\r\n",
                b'AJ-Progress: 0.5\r\n\r\n{"note":"n"}',
                b"Nats-Service-Error: x\r\nNats-Service-Error-Code: 500\r\n\r\n",
            ),
            (),
        ),
    )
    yield (
        "stamp",
        Decoder(
            (f"{wire}.stamp.read_stamp",),
            lambda data: read_stamp(_headers(data)),
            (b"AJ-Owner: b1\r\nAJ-Item: 17.2\r\n\r\n",),
            (),
        ),
    )
    yield (
        "due",
        Decoder(
            (f"{wire}.item.read_due",),
            lambda data: read_due(_headers(data)),
            (b"AJ-Due: 1767225600000000000\r\n\r\n",),
            (),
        ),
    )
    yield (
        "trace",
        Decoder(
            (f"{wire}.trace.header_trace",),
            lambda data: header_trace(_headers(data)),
            (b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n\r\n",),
            (),
        ),
    )
    yield (
        "headers",
        Decoder(
            (f"{wire}.frames.read_header_block", f"{wire}.headers.find_header"),
            lambda data: find_header(read_header_block(data), "a"),
            (b"NATS/1.0 404 None\r\na: b\r\nA: c\r\n\r\n",),
        ),
    )
    yield (
        "frames",
        Decoder(
            (f"{wire}.frames.FrameReader.feed",),
            _frames,
            (b"HMSG a 7 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPONG\r\nMSG b 8 2\r\nhi\r\n-ERR 'x'\r\n",),
        ),
    )
    yield (
        "json",
        Decoder(
            (f"{wire}.codec.decode_json", f"{wire}.codec.decode_map"),
            lambda data: decode_map(decode_json(data, "x"), "x", {"a": True}),
            (b'{"a":[1,null]}',),
            json=True,
        ),
    )
    yield (
        "msgpack",
        Decoder((f"{wire}.codec.decode_msgpack",), lambda data: decode_msgpack(data, "x"), (b"\x81\xa1a\xc4\x01\xff",)),
    )
    yield (
        "name",
        Decoder(
            (f"{wire}.names.is_name", f"{wire}.names.check_name"),
            lambda data: is_name(_text(data)) and check_name(_text(data), "x"),
            (b"email:new",),
            (InvalidNameError,),
        ),
    )
    yield (
        "subject",
        Decoder(
            (f"{wire}.names.task_id_of_subject", f"{wire}.names.queue_of_stream"),
            lambda data: (task_id_of_subject(_text(data)), queue_of_stream(_text(data))),
            (b"CHORIA_AJ.T.a",),
            (),
        ),
    )
    yield (
        "state",
        Decoder((f"{wire}.state.parse_state",), lambda data: parse_state(_text(data)), (b"completed",), (ValueError,)),
    )
    yield (
        "time",
        Decoder(
            (f"{wire}.times.parse_time",),
            lambda data: parse_time(_text(data)),
            (b"2022-01-26T14:46:12.5+01:00",),
            (ValueError,),
        ),
    )
    yield (
        "duration",
        Decoder(
            (f"{wire}.times.parse_duration",),
            lambda data: parse_duration(_text(data)),
            (b"1h2m3.5s", b"-1ms"),
            (ValueError,),
        ),
    )
    yield (
        "signature",
        Decoder(
            ("aj_sdk.wire.signing.Verifier.verify",),
            _verify,
            _golden("signature", most=2),
            (DecodeError, SignatureError),
            json=True,
        ),
    )
    yield (
        "ack-subject",
        Decoder(
            ("aj_bridge.storage.jetstream.acks.read_ack_subject", "aj_bridge.storage.jetstream.acks.read_pending"),
            lambda data: (read_ack_subject(_text(data)), read_pending(_text(data))),
            (
                b"$JS.ACK.S.WORKERS.1.2.3.1767225600000000000.5",
                b"$JS.ACK.hub.ABC.S.WORKERS.1.2.3.1767225600000000000.5.x",
            ),
            (),
        ),
    )
    advisory = b'{"type":"x","stream":"CHORIA_AJ_Q_A","consumer":"WORKERS","stream_seq":7,"deliveries":1,"reason":"Unacknowledged message was deleted"}'  # noqa: E501 - as it comes
    yield (
        "advisory",
        Decoder(
            ("aj_bridge.storage.jetstream.acks.read_deleted", "aj_bridge.storage.jetstream.acks.read_exhausted"),
            lambda data: (read_deleted(data), read_exhausted(data)),
            (advisory,),
            (),
            json=True,
        ),
    )
    yield (
        "policy",
        Decoder(
            ("aj_bridge.core.retry.read_policy",),
            lambda data: read_policy(_text(data)),
            (b"min=1s,max=10m,factor=2,jitter=0.5", b"1s,5s,1m"),
            (ValueError, InvalidConfigError, UsageError),
        ),
    )
    yield (
        "progress-line",
        Decoder(
            ("aj_bridge.engine.told.read_progress",),
            lambda data: read_progress(_text(data)),
            (b"40% half way", b"0.5"),
            (),
        ),
    )
    yield "payload", Decoder(("aj_sdk.payload.decode_payload",), _payload, (b'{"a":1}',), (PayloadError,))
    yield (
        "key",
        Decoder(
            ("aj_sdk.keys.load_key", "aj_sdk.keys.load_seed"),
            lambda data: (load_key(_text(data)), load_seed(_text(data))),
            (_KEY.encode(),),
            (UsageError,),
        ),
    )
    yield (
        "url",
        Decoder(
            ("aj_sdk.connect.ConnectOptions.from_url",),
            _url,
            (b"nats://u:p@localhost:4222,tls://b",),
            (InvalidConfigError, UsageError),
        ),
    )
    context = b'{"url":"nats://a:4222","user":"u","password":"p","inbox_prefix":"_X","jetstream_domain":"hub","tls_first":false,"color_scheme":""}'
    yield (
        "context",
        Decoder(
            ("aj_sdk.context.load_context", "aj_sdk.connect.ConnectOptions.from_context"),
            _with_file(_context, "x/nats/context/some.json"),
            (context,),
            (InvalidConfigError, UsageError),
            json=True,
        ),
    )
    config = b'queue = ["A=2", "B"]\nconcurrency = 7\n\nbackoff = "1m"\nserver = "nats://localhost:4222"\n\n[[route]]\ntype = "email:new"\nbackoff = "1s,5s"\nconcurrency = 2\n'  # noqa: E501 - as it comes
    yield (
        "config",
        Decoder(
            (
                "aj_bridge.faces.config.load_config",
                "aj_bridge.faces.options.read_config_file",
                "aj_bridge.faces.routes.read_routes",
            ),
            _with_file(_config, "aj.toml"),
            (config,),
            (InvalidConfigError,),
        ),
    )

    service = b'{"name":"aj-handler","id":"x","endpoints":[{"name":"run","subject":"CHORIA_AJ.H.T.a","metadata":{"aj.type":"a"}}]}'  # noqa: E501 - as it comes
    unreadable = (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
    )  # what it is guarded against where it is used
    yield "service", Decoder((), handlers._READ.decode, (service,), unreadable, json=True)
    question = b'{"task":"a","sequence":7,"delivery":1}'
    yield "holds-question", Decoder((), _question, (question,), json=True)
    yield "bucket-ttl", Decoder((), lambda data: buckets._ttl_ns(_message(data)), (b"Nats-TTL: 30s\r\n\r\n",), ())


DECODERS: Final[dict[str, Decoder]] = dict(_all())

ELSEWHERE: Final = {
    "aj_sdk.bounded.read_bounded": "reads a file up to a limit, and looks at nothing in it",
    "aj_sdk.services.load_services": "imports a module of the user's own",
    "aj_sdk.inventory.read_queue_info": "what the server itself says of a stream",
    "aj_sdk.inventory.read_task_store_info": "what the server itself says of a stream",
    "aj_bridge.storage.jetstream.survey._Progress.read": "what the server itself says of a consumer",
    "aj_bridge.engine.children._ProgressPipe.read_up": "reads a pipe up: tests/bridge/engine/test_commands.py",
    "aj_bridge.engine.children._Splitter.feed": "cuts lines off at a limit: tests/bridge/engine/test_children.py",
}
"""Functions named like decoders that are not handed what others wrote, or have such tests of their own."""
