"""The configuration of a bridge: defaults, the Go project's names, and settings that contradict each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from aj_bridge.core.retention import Retention
from aj_bridge.core.retry import POLICIES
from aj_bridge.faces.config import OPTIONS, BridgeConfig, bridge_options, build_config, load_config
from aj_bridge.faces.kinds import Address
from aj_bridge.faces.options import describe
from aj_sdk.connect import ConnectionFlags
from aj_sdk.errors import InvalidConfigError, SignatureError
from aj_sdk.wire.signing import Signer
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import TaskRecord

S = 1_000_000_000


def _build(environ: Mapping[str, str] | None = None, /, **flags: Any) -> BridgeConfig:
    return build_config(None, environ or {}, flags)


def _faults(environ: Mapping[str, str] | None = None, /, **flags: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidConfigError) as caught:
        _build(environ, **flags)
    return caught.value.faults


def test_without_anything_the_defaults_hold() -> None:
    assert _build() == BridgeConfig(
        queue=(("DEFAULT", None),),
        server="",
        context="",
        embedded=False,
        store=None,
        concurrency=100,
        remote=(),
        backoff=POLICIES["default"],
        no_adopt=False,
        verify=(),
        verify_seed=None,
        verify_optional=False,
        discard=(),
        keep=(),
        attempts="failed",
        drain_timeout_ns=30 * S,
        create=False,
        max_run_time_ns=None,
        max_tries=None,
        max_concurrent=None,
        replicas=1,
        memory=False,
        lease_ns=30 * S,
        go_workers=False,
        monitor=None,
        log_level="info",
        log_format="text",
    )


def test_every_default_is_a_value_that_its_own_kind_reads() -> None:
    for row in OPTIONS:
        for value in row.default if row.many else [row.default]:
            if value not in (None, ""):
                assert row.kind.parse(row.kind.show(value)) == value


def test_flags_become_values() -> None:
    config = _build(
        queue=("EMAIL", "SMS=3"),
        create=True,
        max_run_time="1m30s",
        max_tries="-1",
        max_concurrent="5",
        replicas="3",
        lease="2s",
        monitor="0.0.0.0:9090",
        remote=("email:new", "sms:", ""),
        no_adopt=True,
        log_format="JSON",
    )
    assert config == BridgeConfig(
        queue=(("EMAIL", None), ("SMS", 3)),
        create=True,
        max_run_time_ns=90 * S,
        max_tries=-1,
        max_concurrent=5,
        replicas=3,
        lease_ns=2 * S,
        monitor=Address("0.0.0.0", 9090),
        remote=("email:new", "sms:", ""),
        no_adopt=True,
        log_format="json",
    )


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("AJC_QUEUE", "GO", "queue", (("GO", None),)),
        ("AJ_WORK_QUEUE", "GO", "queue", (("GO", None),)),
        ("AJC_CONCURRENCY", "7", "concurrency", 7),
        ("AJ_CONCURRENCY", "7", "concurrency", 7),
        ("AJ_RETRY_POLICY", "1h", "backoff", POLICIES["1h"]),
        ("AJ_NATS_CONTEXT", "prod", "context", "prod"),
        ("CONTEXT", "prod", "context", "prod"),
        ("AJC_MONITOR", "8080", "monitor", Address("", 8080)),
        ("AJC_MONITOR", "0", "monitor", None),
        ("AJ_MONITOR", "8080", "monitor", Address("127.0.0.1", 8080)),
        ("AJ_DEBUG", "1", "log_level", "debug"),
        ("AJC_DEBUG", "true", "log_level", "debug"),
        ("AJ_DEBUG", "0", "log_level", "info"),
        ("AJ_LOG_LEVEL", "error", "log_level", "error"),
        ("AJ_DRAIN_TIMEOUT", "5s", "drain_timeout_ns", 5 * S),
        ("AJ_SWEEP_EVERY", "1h", "sweep_every_ns", 3600 * S),
        ("AJ_VERIFICATION_KEY", "ab" * 32, "verify", ("ab" * 32,)),
    ],
)
def test_the_environment_has_our_names_and_the_go_projects(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(_build({variable: text}), field) == value


def test_our_own_name_wins_over_the_go_projects() -> None:
    assert _build({"AJ_QUEUE": "OURS", "AJC_QUEUE": "GO", "AJ_WORK_QUEUE": "GO2"}).queue == (("OURS", None),)
    assert _build({"AJC_QUEUE": "GO", "AJ_WORK_QUEUE": "GO2"}).queue == (("GO", None),)


def test_no_variable_of_the_go_project_means_something_else_with_us() -> None:
    ours = {row.env for row in OPTIONS} | {name for row in OPTIONS for name in row.aliases}
    assert not ours & {"AJC_TYPE", "AJC_COMMAND", "AJC_SCHEDULER_NAME"}
    assert len(ours) == sum(1 + len(row.aliases) for row in OPTIONS)


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({}, {"server": "nats://a"}, ConnectionFlags(server="nats://a")),
        ({"AJ_SERVER": "nats://a"}, {"context": "prod"}, ConnectionFlags(context="prod")),
        ({"AJ_SERVER": "nats://a", "CONTEXT": "x"}, {}, ConnectionFlags(server="nats://a")),
        ({}, {"server": "nats://a", "context": "prod"}, ConnectionFlags(server="nats://a")),
        ({"AJ_SERVER": "nats://a", "AJ_CONTEXT": "x"}, {"embedded": True}, ConnectionFlags()),
        ({"AJ_EMBEDDED": "1"}, {"server": "nats://a"}, ConnectionFlags(server="nats://a")),
        ({"AJ_SERVER": "nats://a"}, {"embedded": False}, ConnectionFlags(server="nats://a")),
    ],
)
def test_there_is_one_connection(environ: dict[str, str], flags: dict[str, Any], expected: ConnectionFlags) -> None:
    config = _build(environ, **flags)
    assert config.connection == expected
    assert config.embedded == (expected == ConnectionFlags())


def test_a_server_of_its_own_and_another_contradict_each_other_in_one_place() -> None:
    assert _faults(embedded=True, server="nats://a", context="x") == (
        "--embedded: contradicts --server and --context; choose one",
    )


def test_settings_without_effect_are_faults() -> None:
    assert _faults(store="/data") == ("--store: is for the embedded server; add --embedded",)
    assert _faults(embedded=True, create=True, replicas="3") == (
        "--replicas: the embedded server is alone and keeps 1 copy",
    )
    assert _faults({"AJ_LEASE": "1s"}, queue="EMAIL", max_tries="3", memory=False) == (
        "--max-tries: is for a new queue; add --create",
        "AJ_LEASE: is for a new queue; add --create",
    )
    assert _build(max_tries="3").max_tries == 3
    assert _faults(queue=("A=2", "B", "A")) == ("--queue: queue A is named twice",)


@pytest.mark.parametrize("shown", ['queue = "A=2,B"', 'queue = ["A=2", "B"]'])
def test_queues_stand_in_a_file_as_a_text_or_a_list(tmp_path: Path, shown: str) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text(shown)
    assert load_config({}, {"AJ_CONFIG": str(file)}).queue == (("A", 2), ("B", None))
    assert _build({"AJ_QUEUE": "A=2,B"}).queue == (("A", 2), ("B", None))


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ({"queue": "a.b"}, "--queue: queue name 'a.b' is invalid"),
        ({"concurrency": "0"}, "--concurrency: must be a whole number from 1 to 100000, not 0"),
        ({"lease": "100ms", "create": True}, "--lease: must be at least 500ms, not 100ms"),
        ({"max_tries": "0", "create": True}, "--max-tries: must be a whole number from 1 to 1000000, or -1"),
        ({"replicas": "6", "create": True}, "--replicas: must be a whole number from 1 to 5, not 6"),
        ({"command": ("email:new",)}, "--command: 'email:new' is not of the form TYPE=PATH"),
        ({"remote": ("ok", "a b")}, "--remote: task type 'a b' is invalid"),
        ({"server": "http://a"}, "--server: 'http://a': must begin with"),
        ({"log_level": "loud"}, "--log-level: 'loud' is not one of debug, info, warning, error"),
    ],
)
def test_a_wrong_value_names_its_flag(flags: dict[str, Any], fault: str) -> None:
    (told,) = _faults(**flags)
    assert told.startswith(fault)


def test_a_file_is_named_by_flag_or_variable(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text('queue = "ONE"\nconcurrency = 5\n')
    other.write_text('queue = "OTHER"\n')
    assert load_config({}, {"AJ_CONFIG": str(one)}).queue == (("ONE", None),)
    config = load_config({"config": str(other)}, {"AJ_CONFIG": str(one), "AJ_CONCURRENCY": "3"})
    assert (config.queue, config.concurrency) == ((("OTHER", None),), 3)


def test_a_command_gets_all_flags_but_the_global_ones() -> None:
    seen: list[BridgeConfig] = []

    @click.command
    @bridge_options
    def command(**flags: Any) -> None:
        seen.append(load_config(flags, {}))

    result = CliRunner().invoke(command, ["--queue", "EMAIL", "--embedded", "--store", "d"], catch_exceptions=False)
    assert result.exit_code == 0
    assert seen == [BridgeConfig(queue=(("EMAIL", None),), embedded=True, store=Path("d"))]
    page = CliRunner().invoke(command, ["--help"]).output
    assert "--config FILE" in page
    assert "--no-adopt / --adopt" in page
    assert "--server" not in page


def test_passwords_are_not_in_the_repr() -> None:
    assert "hunter2" not in repr(_build(server="nats://u:hunter2@a"))


def test_the_documentation_covers_all_of_it() -> None:
    page = describe(OPTIONS)
    assert all(row.flag in page and row.env in page for row in OPTIONS)


# Signatures.

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_without_a_key_signatures_are_not_looked_at() -> None:
    assert _build().verifier is None


def test_a_seed_alone_verifies_too() -> None:
    task = Signer(SEED).sign(TaskRecord(id="a", type="t", queue="Q", created_ns=S))
    for config in (
        _build(verify_seed=SEED),
        _build(verify=(PUBLIC,)),
        _build(verify=(Signer("02" * 32).public_key_hex, PUBLIC)),
        _build({"AJ_VERIFICATION_KEY": PUBLIC}),
    ):
        assert config.verifier is not None
        config.verifier.verify(task)
        with pytest.raises(SignatureError):
            config.verifier.verify(task.replace(signature=""))
    optional = _build(verify=(PUBLIC,), verify_optional=True).verifier
    assert optional is not None
    optional.verify(task.replace(signature=""))
    with pytest.raises(SignatureError):
        optional.verify(task.replace(signature="00" * 64))


def test_an_empty_or_malformed_key_never_means_that_nothing_is_verified() -> None:
    for name in ("AJ_VERIFICATION_KEY", "AJ_VERIFY", "AJ_VERIFY_SEED"):
        for given in ("", "00ff"):
            [fault] = _faults({name: given})
            assert fault.startswith(f"{name}: the ")
    assert _faults(verify=("",))[0].startswith("--verify: ")
    assert "needs a key" in _faults(verify_optional=True)[0]


def test_a_seed_is_shown_nowhere() -> None:
    assert SEED not in repr(_build(verify_seed=SEED))
    assert SEED[:10] not in "".join(_faults(verify_seed=SEED[:-2]))


# Retention.


def test_records_are_discarded_or_kept_by_state() -> None:
    config = _build({"AJ_DISCARD": "complete"}, keep=("expired=720h", "terminated=90s"))
    assert config.retention == Retention(
        discard=frozenset({TaskState.COMPLETE}),
        kept_ns={TaskState.EXPIRED: 720 * 3600 * S, TaskState.TERMINATED: 90 * S},
    )


def test_a_retention_that_can_not_be_is_refused() -> None:
    assert "'active' is not one of" in _faults(discard=("active",))[0]
    assert "not of the form" in _faults(keep=("expired",))[0]
    assert "at least 1s" in _faults(keep=("expired=1ms",))[0]
    assert "given twice" in _faults(keep=("expired=1s", "expired=2s"))[0]
    assert "is discarded" in _faults(keep=("expired=1s",), discard=("expired",))[0]
