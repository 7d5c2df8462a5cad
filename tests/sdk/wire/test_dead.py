"""Dead letters as they are stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.errors import DecodeError
from aj_sdk.wire.dead import DeadLetter, DeadReason
from aj_sdk.wire.names import dead_subject
from aj_sdk.wire.times import NS_PER_S

LETTER = DeadLetter(
    reason="expired",
    detail="exceeded maximum tries",
    queue="EMAIL",
    task_id="T1",
    task_type="email:new",
    tries=3,
    body=b"{}",
    at_ns=1_700_000_000 * NS_PER_S,
)
SUBJECT = "CHORIA_AJ.X.expired.EMAIL.T1"


def test_a_letter_is_read_as_it_was_written() -> None:
    assert DeadLetter.read(SUBJECT, LETTER.body, LETTER.headers()) == LETTER


def test_what_is_unknown_of_a_letter_stays_unknown() -> None:
    unknown = DeadLetter(
        reason="quarantined", detail="x", queue="", task_id="", task_type="", tries=0, body=b"", at_ns=NS_PER_S
    )
    subject = dead_subject("quarantined", "", "a.b")
    assert DeadLetter.read(subject, b"", unknown.headers()) == unknown


def test_a_body_that_is_too_large_is_cut_and_its_size_is_kept() -> None:
    cut = LETTER.cut(1)
    assert (cut.body, cut.whole_size) == (b"{", 2)
    assert DeadLetter.read(SUBJECT, cut.body, cut.headers()) == cut
    assert LETTER.cut(2) is LETTER


@pytest.mark.parametrize("subject", ["CHORIA_AJ.X.expired.EMAIL", "CHORIA_AJ.X.asleep.EMAIL.T1", ""])
def test_a_letter_under_another_subject_is_refused(subject: str) -> None:
    with pytest.raises(DecodeError, match="subject"):
        DeadLetter.read(subject, b"", LETTER.headers())


@pytest.mark.parametrize(
    ("name", "value"), [("AJ-Dead-At", "yesterday"), ("AJ-Task-Tries", "-1"), ("AJ-Dead-Truncated", "1e9")]
)
def test_a_header_that_can_not_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(DecodeError, match=name):
        DeadLetter.read(SUBJECT, b"", {**LETTER.headers(), name: value})


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20)), st.text(max_size=60), st.sampled_from(DeadReason))
def test_whatever_is_stored_gives_a_letter_or_one_kind_of_error(
    headers: dict[str, str], subject: str, reason: DeadReason
) -> None:
    for each in (subject, dead_subject(reason, "Q", "T")):
        try:
            DeadLetter.read(each, b"", headers | {"AJ-Dead-At": headers.get("a", "2026-01-01T00:00:00Z")})
        except DecodeError:
            continue
