"""Server URLs are cleaned and checked, and never shown with their credentials."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.errors import InvalidConfigError
from aj_sdk.servers import mask_url, split_servers


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nats://a:4222", ("nats://a:4222",)),
        ("nats://a", ("nats://a:4222",)),
        ("a", ("nats://a:4222",)),
        ("a:14222", ("nats://a:14222",)),
        ("tls://a.example.net/", ("tls://a.example.net:4222",)),
        ("NATS://A:1", ("nats://a:1",)),
        ("nats://[::1]:4222", ("nats://[::1]:4222",)),
        ("ws://a", ("ws://a:80",)),
        ("wss://a/nats", ("wss://a:443/nats",)),
        (" a:1 , nats://b:2,", ("nats://a:1", "nats://b:2")),
    ],
)
def test_a_url_is_completed(text: str, servers: tuple[str, ...]) -> None:
    assert split_servers(text) == (servers, "", None)


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        ("nats://alice:s3cret@a", "alice", "s3cret"),
        ("nats://alice:p%40ss%3Aw%2C@a", "alice", "p@ss:w,"),
        ("nats://t0ken@a", "t0ken", None),
        ("nats://alice:@a", "alice", ""),
        ("nats://alice:s@a,nats://alice:s@b,nats://c", "alice", "s"),
    ],
)
def test_credentials_are_taken_out(text: str, user: str, password: str | None) -> None:
    servers, *identity = split_servers(text)
    assert identity == [user, password]
    assert not any("@" in server for server in servers)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no server is named"),
        (" , ", "no server is named"),
        ("http://a", "'http://a': must begin with one of nats://, tls://, ws://, wss://"),
        ("nats://", "names no host"),
        ("nats://:4222", "names no host"),
        ("nats://a b", "holds a space"),
        ("nats://a\r\nPUB", "holds a space or a control character"),
        ("nats://a:0", "no valid port"),
        ("nats://a:65536", "no valid port"),
        ("nats://a:many", "no valid port"),
        ("nats://[::1", "is no URL"),
        ("nats://a:1/path", "has something after the port"),
        ("nats://a?x=1", "has something after the port"),
        ("nats://*", "names no host"),
        ("nats://:secret@a", "has a password without a user"),
        ("nats://a:1@h,nats://b:2@h", "different credentials"),
        ("nats://a,ws://b", "can't be mixed"),
    ],
)
def test_a_wrong_url_is_refused_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(InvalidConfigError, match=fault):
        split_servers(text)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        split_servers("http://a,nats://b:0")
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:hunter2@h:many",
        "http://u:hunter2@h",
        "nats://u:hunt@er2/hunter2@h:0",
        "nats://u:hunter2#x@h:0",
        "nats://u:hunter2,x@h",
        "u:hunter2@",
        "nats://u:hunter2@\u2100",
        "nats://u:hunter2 @h",
    ],
)
def test_a_refusal_never_shows_the_password(url: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        split_servers(url)
    assert "hunter2" not in str(caught.value)


def test_masking_keeps_the_host() -> None:
    assert mask_url("nats://u:p@ss@h:4222") == "nats://***@h:4222"
    assert mask_url("nats://h:4222") == "nats://h:4222"
    assert mask_url("u:p@h") == "***@h"


@given(st.text())
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        servers, _, _ = split_servers(text)
    except InvalidConfigError:
        return
    assert split_servers(",".join(servers)) == (servers, "", None)
