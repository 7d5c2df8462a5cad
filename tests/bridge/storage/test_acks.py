"""What acknowledgement subjects and advisories of nats-server say; those here were captured from 2.15.1."""

import pytest

from aj_bridge.storage.jetstream.acks import read_ack_subject, read_deleted, read_pending
from aj_sdk.wire.stamp import ItemRef

V1 = "$JS.ACK.CHORIA_AJ_Q_Q.WORKERS.2.7.9.1795860862109338502.41"
V2 = "$JS.ACK.hub.ACCOUNT.CHORIA_AJ_Q_Q.WORKERS.2.7.9.1795860862109338502.41.token"
DELETED = (
    b'{"type":"io.nats.jetstream.advisory.v1.terminated","id":"9lY85Nj6PdVJkgvhXwDbBq",'
    b'"timestamp":"2026-11-28T10:14:22.111221976Z","stream":"CHORIA_AJ_Q_Q","consumer":"WORKERS","consumer_seq":1,'
    b'"stream_seq":7,"deliveries":1,"reason":"Unacknowledged message was deleted"}'
)


@pytest.mark.parametrize("subject", [V1, V2])
def test_a_delivery_says_which_it_is_and_how_many_nobody_was_handed(subject: str) -> None:
    assert read_ack_subject(subject) == ItemRef(7, 2)
    assert read_pending(subject) == 41


@pytest.mark.parametrize(
    "subject", ["", "_INBOX.x", "$JS.ACK", V1 + "x", "$JS.ACK.a.b.c.d.e.f.g", V1.replace("7", "x")]
)
def test_what_is_no_delivery_says_nothing(subject: str) -> None:
    assert read_ack_subject(subject) is None or read_pending(subject) == 0


def test_an_advisory_says_which_item_went_while_it_was_in_flight() -> None:
    assert read_deleted(DELETED) == 7


@pytest.mark.parametrize(
    "advisory",
    [
        b"",
        b"{}",
        b"[]",
        b'"x"',
        DELETED.replace(b"Unacknowledged message was deleted", b"because"),
        b'{"stream_seq":"7"}',
    ],
)
def test_another_advisory_says_nothing(advisory: bytes) -> None:
    assert read_deleted(advisory) is None
