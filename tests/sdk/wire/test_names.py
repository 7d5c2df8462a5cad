"""Names, and the subjects made of them."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.errors import InvalidNameError
from aj_sdk.wire import names

ODD = ["", " ", "a b", "a.b", "*", ">", "a*", "a\n", "\r\n", "a\0", "ü", "a/b", "x" * 129, "٣", "$JS", "a\u2028"]


@pytest.mark.parametrize("name", ["a", "email:new", "A-Z_0:9", "-", ":", "2mKyJiVzzGC4dtXz0xLJyvNK6rV", "x" * 128])
def test_a_name_may_cross_the_wire(name: str) -> None:
    assert names.is_name(name)
    assert names.check_name(name, "task id") == name


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_would_break_a_subject_is_refused(name: str) -> None:
    assert not names.is_name(name)
    with pytest.raises(InvalidNameError, match=r"^task id ") as caught:
        names.check_name(name, "task id")
    assert caught.value.value == name
    assert len(str(caught.value)) < 400


@given(st.text())
def test_only_the_pattern_passes(name: str) -> None:
    assert names.is_name(name) == (re.fullmatch("[A-Za-z0-9_:-]{1,128}", name, re.ASCII) is not None)


def test_the_subjects() -> None:
    assert names.task_subject("T1") == "CHORIA_AJ.T.T1"
    assert names.task_id_of_subject("CHORIA_AJ.Q.EMAIL.T1") == "T1"
    assert names.queue_stream("EMAIL") == "CHORIA_AJ_Q_EMAIL"
    assert names.queue_of_stream("CHORIA_AJ_Q_EMAIL") == "EMAIL"
    assert names.item_subject("EMAIL", "T1") == "CHORIA_AJ.Q.EMAIL.T1"
    assert names.item_subjects("EMAIL") == "CHORIA_AJ.Q.EMAIL.>"
    assert names.schedule_subject("EMAIL", "T1") == "CHORIA_AJ.D.S.EMAIL.T1"
    assert names.schedule_subjects("EMAIL") == "CHORIA_AJ.D.S.EMAIL.*"
    assert names.fired_subject("EMAIL", "T1") == "CHORIA_AJ.D.F.EMAIL.T1"
    assert names.fired_subjects("EMAIL") == "CHORIA_AJ.D.F.EMAIL.*"
    assert names.task_event_subject("T1") == "CHORIA_AJ.E.task_state.T1"
    assert names.bridge_subject("B1", "holds") == "AJ.BRIDGE.B1.holds"


def test_the_subject_of_a_handler_is_its_route_s() -> None:
    assert names.handler_subject("email:new") == "CHORIA_AJ.H.T.email:new"
    assert names.handler_subject("email:") == "CHORIA_AJ.H.T.email:"
    assert names.handler_subject("") == "CHORIA_AJ.H.T.catchall"


def test_a_dead_letter_has_a_subject_whatever_is_wrong_with_it() -> None:
    assert names.dead_subject("expired", "EMAIL", "T1") == "CHORIA_AJ.X.expired.EMAIL.T1"
    assert names.dead_subject("quarantined", "a.b", "*") == "CHORIA_AJ.X.quarantined._._"
    assert names.dead_subject("quarantined", "", "T1") == "CHORIA_AJ.X.quarantined._.T1"


@pytest.mark.parametrize(
    "subject",
    [
        names.task_subject,
        names.queue_stream,
        names.item_subjects,
        names.schedule_subjects,
        names.fired_subjects,
        names.task_event_subject,
        lambda name: names.item_subject("Q", name),
        lambda name: names.item_subject(name, "T"),
        lambda name: names.schedule_subject("Q", name),
        lambda name: names.schedule_subject(name, "T"),
        lambda name: names.fired_subject("Q", name),
        lambda name: names.fired_subject(name, "T"),
        lambda name: names.handler_subject(name or " "),
    ],
)
@pytest.mark.parametrize("name", ODD)
def test_no_subject_is_made_of_an_odd_name(subject: Callable[[str], str], name: str) -> None:
    with pytest.raises(InvalidNameError):
        subject(name)
