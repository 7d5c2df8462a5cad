"""Headers: found without regard to case, written without what would break them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.wire.headers import MAX_HEADER_BYTES, find_header, header_text


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (None, None),
        ({}, None),
        ({"Other": "x"}, None),
        ({"AJ-Error": "x"}, "x"),
        ({"aj-error": "x"}, "x"),
        ({"AJ-ERROR": ""}, ""),
        ({"Aj-Error": "go", "AJ-Error": "exact"}, "exact"),
    ],
)
def test_a_header_is_found_without_regard_to_case(headers: dict[str, str] | None, value: str | None) -> None:
    assert find_header(headers, "AJ-Error") == value


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("grüße 🎉", "grüße 🎉"),
        ("a\r\nAJ-Terminate: b\0", "a  AJ-Terminate: b"),
        ("\n", ""),
        ("a\ud800b", "a?b"),
    ],
)
def test_a_text_is_made_fit_for_a_header(text: str, clean: str) -> None:
    assert header_text(text) == clean


def test_a_long_text_is_cut_and_shows_it() -> None:
    assert header_text("x" * 5000) == "x" * (MAX_HEADER_BYTES - 3) + "..."
    assert header_text("x" * 10, 10) == "x" * 10
    # No half characters.
    assert header_text("ü" * 6, 10) == "üüü..."


@given(st.text(st.characters()), st.integers(3, 50))
def test_any_text_fits_and_breaks_nothing(text: str, limit: int) -> None:
    clean = header_text(text, limit)

    assert len(clean.encode()) <= limit
    assert not set("\r\n\0") & set(clean)
    assert clean == clean.strip()
