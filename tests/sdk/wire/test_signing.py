"""Signatures."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.wire.golden import golden
from tests.sdk.wire.test_task import RECORDS, decoded

from aj_sdk.errors import SignatureError, UsageError
from aj_sdk.wire.signing import Signer, Verifier, signature_message
from aj_sdk.wire.task import TaskRecord

SEED = "01" * 32
OTHER = "02" * 32
TASK = TaskRecord(id="T1", type="email:new", queue="EMAIL", payload=b"{}", created_ns=1_000_000_001)


@golden("signature")
def test_a_golden_signature_is_verified_and_made_again(vector: dict[str, Any]) -> None:
    task = TaskRecord.from_wire(base64.b64decode(vector["bytes_base64"]))
    expected = dict(vector["decoded"])
    seed, key, message = (expected.pop(name) for name in ("seed_hex", "public_key_hex", "signed_message"))

    assert decoded(task) == expected
    assert signature_message(task) == message.encode()
    Verifier(key).verify(task)
    signer = Signer(seed)
    assert signer.public_key_hex == key
    assert signer.sign(task.replace(signature="")) == task


def test_the_message_names_what_is_signed() -> None:
    assert signature_message(TASK) == b"T1:EMAIL:email:new:10:1000000001:0:e30="
    assert signature_message(TASK.replace(payload=None, deadline_ns=5)) == b"T1:EMAIL:email:new:10:1000000001:5:"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "T2"},
        {"queue": "OTHER"},
        {"type": "email:old"},
        {"max_tries": 11},
        {"created_ns": 1_000_000_002},
        {"deadline_ns": 1},
        {"payload": b"[]"},
        {"payload": None},
    ],
)
def test_a_signed_task_that_was_changed_is_refused(changes: dict[str, Any]) -> None:
    signed = Signer(SEED).sign(TASK)

    with pytest.raises(SignatureError, match="invalid task signature"):
        Verifier(Signer(SEED).public_key_hex).verify(signed.replace(**changes))


def test_what_is_not_covered_may_change() -> None:
    signed = Signer(SEED).sign(TASK)

    Verifier(Signer(SEED).public_key_hex).verify(signed.replace(tries=3, last_err="x", dependencies=("a",)))


def test_any_one_of_several_keys_may_have_signed() -> None:
    signed = Signer(OTHER).sign(TASK)

    Verifier(Signer(SEED).public_key_hex, Signer(OTHER).public_key_hex).verify(signed)
    with pytest.raises(SignatureError, match="invalid"):
        Verifier(Signer(SEED).public_key_hex).verify(signed)


@pytest.mark.parametrize("signature", ["", "00", "zz" * 64, "00" * 64, "é" * 128, " " * 128, "00 " * 42 + "00"])
def test_a_signature_that_is_none_is_refused(signature: str) -> None:
    with pytest.raises(SignatureError, match=r"task T1: (task is not signed|invalid task signature)"):
        Verifier(Signer(SEED).public_key_hex).verify(TASK.replace(signature=signature))


def test_a_task_is_signed_once() -> None:
    signer = Signer(SEED)

    with pytest.raises(SignatureError, match="already signed"):
        signer.sign(signer.sign(TASK))


def test_a_task_whose_message_would_be_ambiguous_is_not_signed() -> None:
    with pytest.raises(SignatureError, match="requires the queue"):
        Signer(SEED).sign(TASK.replace(queue=""))
    with pytest.raises(SignatureError, match="has a colon"):
        Signer(SEED).sign(TASK.replace(queue="a:b"))


@pytest.mark.parametrize("key", ["", "zz" * 32, "01" * 31, "01" * 33, "é"])
def test_a_wrong_key_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="the signing seed must be"):
        Signer(key)
    with pytest.raises(UsageError, match="the public key must be"):
        Verifier(key)


def test_a_verifier_needs_a_key() -> None:
    with pytest.raises(UsageError, match="at least one public key"):
        Verifier()


def test_a_key_may_have_a_line_end_as_in_a_file() -> None:
    assert Signer(SEED + "\n").public_key_hex == Signer(SEED.upper()).public_key_hex


@given(RECORDS.filter(lambda task: task.queue and ":" not in task.queue), st.binary(min_size=32, max_size=32))
def test_what_is_signed_is_verified(task: TaskRecord, seed: bytes) -> None:
    signer = Signer(seed.hex())
    signed = signer.sign(task.replace(signature=""))

    Verifier(signer.public_key_hex).verify(signed)
    Verifier(signer.public_key_hex).verify(TaskRecord.from_wire(signed.to_wire()))
