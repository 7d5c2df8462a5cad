"""Signatures."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.wire.golden import golden
from tests.sdk.wire.test_task import RECORDS, decoded
from tests.signatures import attacks

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


@pytest.mark.parametrize("name", attacks(Signer(SEED), TASK, other_type="x"))
def test_an_attack_is_refused_with_its_reason(name: str) -> None:
    attack, why = attacks(Signer(SEED), TASK, other_type="x")[name]

    with pytest.raises(SignatureError, match=why):
        Verifier(Signer(SEED).public_key_hex).verify(attack)


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


SMALL_ORDER = {
    "neutral": "01" + "00" * 31,
    "order two": "ec" + "ff" * 30 + "7f",
    "order four": "00" * 32,
    "order four, negative": "00" * 31 + "80",
    "order eight": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "order eight, negative": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "order eight, other": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "order eight, other, negative": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "neutral, with a sign": "01" + "00" * 30 + "80",
}
"""Encodings of the points of small order. Source: table 6a of "Taming the many EdDSAs" (Chalkias and others, 2020)."""


@pytest.mark.parametrize("key", SMALL_ORDER.values(), ids=SMALL_ORDER)
def test_a_key_that_anybody_can_sign_for_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="anybody can sign for"):
        Verifier(key)


def test_the_forgery_that_such_a_key_would_accept_is_one() -> None:
    # What the refusal is for: 64 fixed bytes, made without any secret, fit every message.
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(SMALL_ORDER["neutral"]))
    key.verify(bytes.fromhex(SMALL_ORDER["neutral"]) + bytes(32), signature_message(TASK))


@pytest.mark.parametrize("key", ["02" + "00" * 31, "ee" + "ff" * 30 + "7f", "ff" * 32])
def test_a_key_that_is_no_point_of_the_curve_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="no point of the curve"):
        Verifier(key)


@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_is_made_is_taken(seed: bytes) -> None:
    Verifier(Signer(seed.hex()).public_key_hex)


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
