"""Instants and durations as Go writes them."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.wire.times import (
    NS_PER_S,
    format_duration,
    format_time,
    from_datetime,
    parse_duration,
    parse_time,
    to_datetime,
    to_timedelta_ns,
)

FIRST_NS = -62_135_596_800 * NS_PER_S
LAST_NS = 253_402_300_799 * NS_PER_S + 999_999_999
HOUR_NS = 3600 * NS_PER_S

instants = st.integers(FIRST_NS, LAST_NS)


@pytest.mark.parametrize(
    ("text", "instant_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2024-02-29T16:05:06.1Z", 1_709_222_706_100_000_000),
        ("2024-02-29T16:05:06.123456789Z", 1_709_222_706_123_456_789),
        ("0001-01-01T00:00:00Z", FIRST_NS),
        ("9999-12-31T23:59:59.999999999Z", LAST_NS),
    ],
)
def test_an_instant_is_read_and_written_to_the_nanosecond(text: str, instant_ns: int) -> None:
    assert parse_time(text) == instant_ns
    assert format_time(instant_ns) == text


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-02-29T18:05:06+02:00", "2024-02-29T16:05:06Z"),
        ("2024-02-29T10:35:06.5-05:30", "2024-02-29T16:05:06.5Z"),
        ("2024-03-01T00:00:00+23:59", "2024-02-29T00:01:00Z"),
        ("2024-02-29T16:05:06.120000000Z", "2024-02-29T16:05:06.12Z"),
        ("2024-02-29T16:05:06.000Z", "2024-02-29T16:05:06Z"),
        ("2024-02-29T16:05:06-00:00", "2024-02-29T16:05:06Z"),
    ],
)
def test_any_offset_is_read_and_utc_is_written(text: str, utc: str) -> None:
    assert format_time(parse_time(text)) == utc


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2024-02-29",
        "2024-02-29 16:05:06Z",
        "2024-02-29T16:05:06",
        "2024-02-29T16:05:06z",
        "2024-02-29t16:05:06Z",
        "2024-02-29T16:05:06.Z",
        "2024-02-29T16:05:06,5Z",
        "2024-02-29T16:05:06.1234567890Z",
        "2024-02-29T16:05:06Z\n",
        "2024-02-29T16:05Z",
        "2024-02-29T16:05:06+0200",
        "2024-02-29T16:05:06+24:00",
        "2024-02-29T16:05:06+02:60",
        "2023-02-29T16:05:06Z",
        "2024-13-01T00:00:00Z",
        "2024-02-29T24:00:00Z",
        "2024-02-29T16:05:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "٢٠٢٤-02-29T16:05:06Z",
    ],
)
def test_what_is_no_rfc_3339_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)


@given(instants)
def test_an_instant_survives_being_written(instant_ns: int) -> None:
    text = format_time(instant_ns)

    assert parse_time(text) == instant_ns
    assert "." not in text or not text.rstrip("Z").endswith("0")


@given(instants, st.integers(-24 * 60 + 1, 24 * 60 - 1))
def test_an_offset_names_the_same_instant(instant_ns: int, offset_min: int) -> None:
    local_ns = instant_ns + offset_min * 60 * NS_PER_S
    if FIRST_NS <= local_ns <= LAST_NS:
        hours, minutes = divmod(abs(offset_min), 60)
        text = format_time(local_ns).removesuffix("Z") + f"{'-' if offset_min < 0 else '+'}{hours:02}:{minutes:02}"
        assert parse_time(text) == instant_ns


@given(st.text(max_size=40))
def test_any_text_is_an_instant_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert FIRST_NS <= parse_time(text) <= LAST_NS


def test_datetimes_are_aware_and_lose_what_is_below_a_microsecond() -> None:
    when = datetime(2024, 2, 29, 16, 5, 6, 123456, tzinfo=UTC)

    assert to_datetime(1_709_222_706_123_456_789) == when
    assert from_datetime(when) == 1_709_222_706_123_456_000
    assert from_datetime(when.astimezone(timezone(timedelta(hours=-7)))) == 1_709_222_706_123_456_000


def test_a_datetime_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        from_datetime(datetime(2024, 2, 29))  # noqa: DTZ001 - that is what is tested


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_datetime_survives_the_way_through_an_instant(when: datetime) -> None:
    assert to_datetime(from_datetime(when)) == when


def test_timedeltas_are_taken_exactly() -> None:
    assert to_timedelta_ns(timedelta(days=10_000, microseconds=1)) == 864_000_000_000_001_000
    assert to_timedelta_ns(-timedelta(microseconds=1)) == -1000


@pytest.mark.parametrize(
    ("text", "span_ns"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("1.5µs", 1500),
        ("1ms", 1_000_000),
        ("250ms", 250_000_000),
        ("1.5s", 1_500_000_000),
        ("1s", NS_PER_S),
        ("30s", 30 * NS_PER_S),
        ("1m0s", 60 * NS_PER_S),
        ("1m0.000000001s", 60 * NS_PER_S + 1),
        ("1h0m0s", HOUR_NS),
        ("1h30m0.5s", HOUR_NS * 3 // 2 + NS_PER_S // 2),
        ("-1h0m0s", -HOUR_NS),
        ("-1.5ms", -1_500_000),
        ("2562047h47m16.854775807s", 2**63 - 1),
    ],
)
def test_a_duration_is_read_and_written_as_go_does(text: str, span_ns: int) -> None:
    assert parse_duration(text) == span_ns
    assert format_duration(span_ns) == text


@pytest.mark.parametrize(
    ("text", "span_ns"),
    [
        ("0", 0),
        ("-0", 0),
        ("+0", 0),
        ("1h", HOUR_NS),
        ("+5s", 5 * NS_PER_S),
        (".5s", NS_PER_S // 2),
        ("5.s", 5 * NS_PER_S),
        ("-1.5h", -HOUR_NS * 3 // 2),
        ("1us1μs1µs", 3000),
        ("3m1h", HOUR_NS + 180 * NS_PER_S),
        ("0.1234567891234s", 123_456_789),
    ],
)
def test_go_s_other_spellings_of_a_duration_are_read(text: str, span_ns: int) -> None:
    assert parse_duration(text) == span_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "+",
        "5",
        "5 s",
        "s",
        ".",
        ".s",
        "1d",
        "1h ",
        "--1s",
        "1e3s",
        "1S",
        "3000000h",
        "9" * 5000 + "s",
        "\u0661s",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_duration(text)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_duration_survives_being_written(span_ns: int) -> None:
    assert parse_duration(format_duration(span_ns)) == span_ns
