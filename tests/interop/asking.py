"""Requests to responders, written by hand and sent with plain nats-py: nothing of ours stands between."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

LONG = 3_600_000  # milliseconds that no test waits for
SUBJECT = "CHORIA_AJ.H.T.email:new"


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    client = await nats.connect(url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=nothing)
    try:
        yield client
    finally:
        await client.close()


async def nothing(_: Exception) -> None:
    """Keep nats-py from logging that a server which the test stopped is gone."""


def task(payload: bytes | None, **fields: object) -> bytes:
    """Return a request's body: the record as the bridge saves it before the call."""
    encoded = None if payload is None else base64.b64encode(payload).decode()
    record = {
        "id": "2NVFxJqq5UoJoAqZ5ixCwZkeyjM",
        "type": "email:new",
        "queue": "EMAIL",
        "payload": encoded,
        "state": "active",
        "created": "2026-11-22T10:00:00.123456789Z",
        "tried": "2026-11-22T10:00:01Z",
        "tries": 1,
        "max_tries": 10,
    }
    return json.dumps({**record, **fields}).encode()


def from_go_worker(timeout: timedelta = timedelta(minutes=1)) -> dict[str, str]:
    """Return the two headers that every caller sends."""
    deadline = datetime.now(UTC) + timeout
    return {
        "AJ-Content-Type": "application/x-asyncjobs-task+json",
        "AJ-Handler-Deadline": deadline.isoformat().replace("+00:00", "Z"),
    }


def from_bridge(tries: int = 1, timeout: timedelta = timedelta(minutes=1)) -> dict[str, str]:
    """Return all headers that the bridge sends."""
    return {
        **from_go_worker(timeout),
        "AJ-Protocol": "1.1",
        "AJ-Handler-Timeout-Ms": str(timeout // timedelta(milliseconds=1)),
        "AJ-Invocation": "2NVFxXyYzYl9Fzq2DqXDrFBDtkY",
        "AJ-Task-Id": "2NVFxJqq5UoJoAqZ5ixCwZkeyjM",
        "AJ-Task-Try": str(tries),
        "AJ-Heartbeat-Ms": "5000",
        "AJ-Cancel-Subject": "CHORIA_AJ.CI.2NVFxXyYzYl9Fzq2DqXDrFBDtkY",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }


def ordered(do: str, **arguments: object) -> bytes:
    return task(json.dumps({"do": do, **arguments}).encode())


async def ask(
    nc: Client, subject: str, body: bytes, headers: dict[str, str] | None = None, patience: float = 30
) -> Msg:
    return await nc.request(subject, body, timeout=patience, headers=from_bridge() if headers is None else headers)


async def answered_for_ever(nc: Client, subject: str) -> None:
    while True:
        await ask(nc, subject, ordered("ok"))


def outcome(reply: Msg) -> tuple[bytes, dict[str, str]]:
    return reply.data, reply.headers or {}


def result(reply: Msg) -> Any:
    assert not reply.headers
    return json.loads(reply.data)
