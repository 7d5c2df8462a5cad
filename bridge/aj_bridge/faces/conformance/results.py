"""Cases about requests and the results of those that succeed."""

import json
from typing import Final

from aj_bridge.faces.conformance.cases import Group, Level
from aj_bridge.faces.conformance.claims import failed, result, says, succeeded, terminated
from aj_bridge.faces.conformance.frames import request
from aj_bridge.faces.conformance.stand import Stand
from aj_sdk.wire.names import H_CONTENT_TYPE, TASK_MSGPACK
from aj_sdk.wire.task import TaskRecord

__all__ = ["GROUP"]

GROUP: Final = Group()
case = GROUP.case
_REQUEST: Final = "2-the-request"
_REPLY: Final = "3-the-reply"
_LARGE: Final = 700_000
_TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_KSUID: Final = "2d32zsmm7n0mMk3LuhXEwGDFwI8"


@case("echo", Level.MUST, _REPLY, "sends the result byte for byte, blanks and line breaks with it")
async def _echo(stand: Stand) -> None:
    payload = b' {"do" :"echo",\r\n\t"n": 1.50, "n": 1e3}\n'
    body = succeeded(await stand.ask(request(stand.type, payload)))
    says(body == payload, f"the payload as it was sent: {payload!r}", repr(body))


@case("echo-unicode", Level.MUST, _REPLY, "sends text that is not ASCII as the bytes that it is")
async def _echo_unicode(stand: Stand) -> None:
    payload = '{"do": "echo", "text": "dépassé \\u2603 😀"}'.encode()
    body = succeeded(await stand.ask(request(stand.type, payload)))
    says(body == payload, f"the payload as it was sent: {payload!r}", repr(body))


@case("payload-empty", Level.MUST, _REQUEST, "takes a payload of no bytes")
async def _payload_empty(stand: Stand) -> None:
    succeeded(await stand.ask(request(stand.type, b"")))


@case("payload-null", Level.MUST, _REQUEST, "takes a task without a payload")
async def _payload_null(stand: Stand) -> None:
    succeeded(await stand.ask(request(stand.type, None)))


@case("unknown-order", Level.SHOULD, _REPLY, "succeeds where the payload has no order that it knows")
async def _unknown_order(stand: Stand) -> None:
    succeeded(await stand.ask(request(stand.type, b'{"do": "something that comes later"}')))


@case("result-empty", Level.MUST, _REPLY, "sends a result of no bytes")
async def _result_empty(stand: Stand) -> None:
    body = succeeded(await stand.order("empty"))
    says(body == b"", "a result of no bytes", repr(body[:80]))


@case("result-not-utf8", Level.MUST, _REPLY, "sends a result of any bytes")
async def _result_not_utf8(stand: Stand) -> None:
    body = succeeded(await stand.order("binary"))
    says(body == bytes(range(256)), "the bytes 0 to 255", repr(body[:300]))


@case("result-700-kb", Level.MUST, _REPLY, "sends a result of 700,000 bytes")
async def _result_large(stand: Stand) -> None:
    body = succeeded(await stand.order("big", bytes=_LARGE))
    says(body == b"x" * _LARGE, f"{_LARGE} letters x", f"{len(body)} bytes, {body[:40]!r} ...")


@case("result-too-large", Level.SHOULD, _REPLY, "says with AJ-Terminate that a result is larger than the server takes")
async def _result_too_large(stand: Stand) -> None:
    terminated(await stand.order("big", bytes=stand.nc.max_payload + 1))


@case("task-seen", Level.MUST, _REQUEST, "reads id, type and tries of the task")
async def _task_seen(stand: Stand) -> None:
    seen = result(await stand.order("headers", task_id=_KSUID, try_=3))
    found = {key: seen.get(key) for key in ("id", "type", "tries")}
    wanted = {"id": _KSUID, "type": stand.type, "tries": 3}
    says(found == wanted, json.dumps(wanted), json.dumps(found))


@case("unknown-fields", Level.MUST, _REQUEST, "ignores keys of the task that it does not know")
async def _unknown_fields(stand: Stand) -> None:
    fields = {"x_new": {"deep": [1, None, "😀"]}, "zone": None, "large": 2**63 - 1, "Ratio": 1e300}
    says(succeeded(await stand.order("echo", fields=fields)), "the payload", "no bytes")


@case("unknown-headers", Level.MUST, _REQUEST, "ignores headers that it does not know")
async def _unknown_headers(stand: Stand) -> None:
    extra = {"AJ-Something-New": "1", "X-Text": "dépassé", "X-Empty": ""}
    says(succeeded(await stand.order("echo", extra=extra)), "the payload", "no bytes")


@case("optional-fields", Level.MUST, _REQUEST, "takes a task with dependencies, their results, a deadline and an error")
async def _optional_fields(stand: Stand) -> None:
    fields = {
        "dependencies": [_KSUID],
        "load_dependencies": True,
        "dependency_results": {_KSUID: {"payload": "c2VudA==", "completed": "2024-02-29T16:05:06.1+02:00"}},
        "deadline": "2999-01-01T00:00:00.123456789Z",
        "last_err": "line\u2028 <mailbox> & \u0001 full",
        "signature": "ab" * 64,
        "max_tries": 2**63 - 1,
    }
    says(succeeded(await stand.order("echo", fields=fields)), "the payload", "no bytes")


@case("bare-task", Level.MUST, _REQUEST, "takes a task that has none of the keys which may be left out")
async def _bare_task(stand: Stand) -> None:
    sent = request(stand.type, b'{"do": "echo"}')
    record = json.loads(sent.body)
    body = json.dumps({key: record[key] for key in ("id", "type", "payload", "created")}).encode()
    says(succeeded(await stand.ask(type(sent)(headers=sent.headers, body=body, invocation=""))), "the payload", "")


@case("go-worker", Level.MUST, _REQUEST, "answers a request that has only the two headers of a Go worker")
async def _go_worker(stand: Stand) -> None:
    seen = result(await stand.order("deadline", go_worker=True))
    found = {key: seen.get(key) for key in ("protocol", "timeout_ms")}
    says(found == {"protocol": None, "timeout_ms": None}, "null for the headers that were not there", json.dumps(found))


@case("headers-seen", Level.SHOULD, _REQUEST, "reads the headers of a bridge")
async def _headers_seen(stand: Stand) -> None:
    seen = result(await stand.order("deadline", timeout_ms=15_000))
    found = {key: seen.get(key) for key in ("protocol", "timeout_ms", "content_type")}
    wanted = {"protocol": "1.1", "timeout_ms": 15_000, "content_type": "application/x-asyncjobs-task+json"}
    says(found == wanted, json.dumps(wanted), json.dumps(found))


@case("headers-any-case", Level.SHOULD, _REQUEST, "finds a header whatever the case of its name")
async def _headers_any_case(stand: Stand) -> None:
    sent = request(stand.type, b'{"do": "echo"}', timeout_ms=0)
    small = type(sent)(
        headers={name.lower(): text for name, text in sent.headers.items()}, body=sent.body, invocation=""
    )
    # The deadline has passed: whoever finds the header does not begin.
    failed(await stand.ask(small))


@case("trace-context", Level.SHOULD, _REQUEST, "sees the trace context that the task carries")
async def _trace_context(stand: Stand) -> None:
    seen = result(await stand.order("headers", extra={"traceparent": _TRACE, "tracestate": "vendor=value"}))
    headers = {str(name).lower(): text for name, text in dict(seen.get("headers") or {}).items()}
    found = headers.get("traceparent")
    says(found in (_TRACE, [_TRACE]), f"traceparent {_TRACE}", f"{found!r} among {sorted(headers)}")


@case("not-a-task", Level.SHOULD, _REQUEST, "refuses for good a body that is no task")
async def _not_a_task(stand: Stand) -> None:
    sent = request(stand.type, None)
    for body in (b"", b"hello", b"[]"):
        terminated(await stand.ask(type(sent)(headers=sent.headers, body=body, invocation="")))


@case("other-encoding", Level.SHOULD, _REQUEST, "refuses for good an encoding that it does not know")
async def _other_encoding(stand: Stand) -> None:
    sent = request(stand.type, b'{"do": "echo"}')
    headers = {**sent.headers, "AJ-Content-Type": "application/x-something-else"}
    terminated(await stand.ask(type(sent)(headers=headers, body=b"\x00\x01something else", invocation="")))


@case("messagepack", Level.MAY, _REQUEST, "takes a task in MessagePack, whose payload is raw")
async def _messagepack(stand: Stand) -> None:
    payload = b'{"do": "echo", "text": "\xf0\x9f\x98\x80"}'
    sent = request(stand.type, payload, extra={H_CONTENT_TYPE: TASK_MSGPACK})
    body = TaskRecord.from_wire(sent.body).to_msgpack()
    came = succeeded(await stand.ask(type(sent)(headers=sent.headers, body=body, invocation=sent.invocation)))
    says(came == payload, f"the payload as it was sent: {payload!r}", repr(came))


@case("goes-on", Level.MUST, _REQUEST, "answers the next request after one that it could not read")
async def _goes_on(stand: Stand) -> None:
    sent = request(stand.type, None)
    answer = await stand.ask(type(sent)(headers=sent.headers, body=b"\xff\xfe{", invocation=""), seconds=3)
    says(answer.final is not None, "an answer to a request that can't be read", answer.text)
    says(succeeded(await stand.order("echo")), "the payload", "no bytes")
