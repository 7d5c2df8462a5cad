"""Records as a store keeps them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.errors import DecodeError
from aj_sdk.wire.stamp import ItemRef, Stamp
from aj_sdk.wire.stored import Stored
from aj_sdk.wire.task import TaskRecord

TASK = TaskRecord(id="T1", type="t", queue="Q", created_ns=0)


def test_a_record_is_read_with_its_place_and_its_owner() -> None:
    stored = Stored.read("CHORIA_AJ.T.T1", 7, TASK.to_wire(), {"AJ-Owner": "B1", "AJ-Item": "3.1"})

    assert stored == Stored(
        task_id="T1", sequence=7, body=TASK.to_wire(), stamp=Stamp("B1", ItemRef(3, 1)), record=TASK
    )
    assert stored.readable() is stored.record


def test_a_record_of_a_go_worker_has_no_owner() -> None:
    assert Stored.read("CHORIA_AJ.T.T1", 7, TASK.to_wire(), None).stamp is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "not valid JSON"),
        (b"{}", "id: is missing"),
        (TASK.replace(id="T2").to_wire(), "'T2' stands under the subject of 'T1'"),
    ],
)
def test_a_record_that_can_not_be_read_keeps_its_bytes_and_the_reason(body: bytes, fault: str) -> None:
    stored = Stored.read("CHORIA_AJ.T.T1", 7, body, None)

    assert (stored.task_id, stored.body, stored.record) == ("T1", body, None)
    assert fault in stored.fault
    with pytest.raises(DecodeError, match=r"^task T1: (?!task: )") as caught:
        stored.readable()
    assert fault in str(caught.value)


@given(st.binary())
def test_any_bytes_are_a_record_or_a_fault(body: bytes) -> None:
    stored = Stored.read("CHORIA_AJ.T.T1", 7, body, None)

    assert (stored.record is None) == bool(stored.fault)
