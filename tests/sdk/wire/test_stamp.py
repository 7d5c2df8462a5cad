"""Stamps: who owns a task."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.wire.stamp import ItemRef, Stamp, read_stamp


def test_a_stamp_is_two_headers() -> None:
    stamp = Stamp("B1", ItemRef(42, 3))

    assert stamp.headers() == {"AJ-Owner": "B1", "AJ-Item": "42.3"}
    assert read_stamp({"aj-owner": "B1", "aj-item": "42.3"}) == stamp


def test_deliveries_of_an_item_are_in_order() -> None:
    assert ItemRef(1, 2) < ItemRef(1, 10) < ItemRef(2, 1)


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {"AJ-Owner": "B1"},
        {"AJ-Item": "1.1"},
        {"AJ-Owner": "", "AJ-Item": "1.1"},
        {"AJ-Owner": "a b", "AJ-Item": "1.1"},
        {"AJ-Owner": "B1", "AJ-Item": ""},
        {"AJ-Owner": "B1", "AJ-Item": "1"},
        {"AJ-Owner": "B1", "AJ-Item": "1."},
        {"AJ-Owner": "B1", "AJ-Item": ".1"},
        {"AJ-Owner": "B1", "AJ-Item": "1.1.1"},
        {"AJ-Owner": "B1", "AJ-Item": "-1.1"},
        {"AJ-Owner": "B1", "AJ-Item": "9" * 21 + ".1"},
        {"AJ-Owner": "B1", "AJ-Item": "\u00b2.1"},
    ],
)
def test_what_is_no_stamp_is_none(headers: dict[str, str] | None) -> None:
    assert read_stamp(headers) is None


@given(st.from_regex("[A-Za-z0-9_:-]{1,128}", fullmatch=True), st.integers(0, 2**64), st.integers(0, 2**64))
def test_a_stamp_survives_being_written(owner: str, sequence: int, delivery: int) -> None:
    stamp = Stamp(owner, ItemRef(sequence, delivery))
    assert read_stamp(stamp.headers()) == stamp


@given(st.dictionaries(st.sampled_from(["AJ-Owner", "AJ-Item", "aj-item"]), st.text()))
def test_any_headers_are_a_stamp_or_none(headers: dict[str, str]) -> None:
    assert read_stamp(headers) is None or isinstance(read_stamp(headers), Stamp)
