"""Work items."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.wire.golden import golden, same_json

from aj_sdk.errors import DecodeError
from aj_sdk.wire.item import WorkItem


@golden("work_item")
def test_a_golden_item_is_read_and_written(vector: dict[str, Any]) -> None:
    item = WorkItem.from_wire(base64.b64decode(vector["bytes_base64"]))

    assert {"kind": 0, "job": item.task_id} == vector["decoded"]
    assert item.to_wire() == vector["text"].encode()
    assert same_json(item.to_wire(), vector["text"])


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b"", ""),
        (b"[]", ""),
        (b"{}", "job"),
        (b'{"kind":0}', "job"),
        (b'{"kind":1,"job":"a"}', "kind"),
        (b'{"kind":"0","job":"a"}', "kind"),
        (b'{"kind":0,"job":"*"}', "job"),
        (b'{"kind":0,"job":">"}', "job"),
        (b'{"kind":0,"job":""}', "job"),
        (b'{"kind":0,"job":null}', "job"),
        (b'{"kind":0,"job":7}', "job"),
    ],
)
def test_what_is_no_item_is_refused_by_key(data: bytes, key: str) -> None:
    with pytest.raises(DecodeError) as caught:
        WorkItem.from_wire(data)
    assert (caught.value.what, caught.value.key) == ("work item", key)


def test_an_item_without_a_kind_is_a_task_s() -> None:
    assert WorkItem.from_wire(b'{"job":"a"}') == WorkItem("a")


@given(st.from_regex("[A-Za-z0-9_:-]{1,128}", fullmatch=True))
def test_an_item_survives_being_written(task_id: str) -> None:
    assert WorkItem.from_wire(WorkItem(task_id).to_wire()) == WorkItem(task_id)
