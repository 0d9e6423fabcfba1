"""The modification date: whatever it looks like, it is one instant, and a request never starts late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orders_dagster.cursor import (
    UnreadableTime,
    floor,
    read_time,
    step_of,
    value_at,
    write_time,
)

T = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
SECONDS = 1_704_164_645  # the same instant
INDIA, CALIFORNIA = timezone(timedelta(hours=5.5)), timezone(timedelta(hours=-8))

FORMATS = [
    "iso",
    "epoch_seconds",
    "epoch_milliseconds",
    "rfc2822",
    "%Y-%m-%dT%H:%M:%S.%fZ",
    "%Y-%m-%dT%H:%M:%S%z",
    "%d.%m.%Y %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
]

# From where seconds and milliseconds since 1970 can be told apart, to where offsets still fit in.
instants = st.datetimes(datetime(1974, 1, 1), datetime(5000, 1, 1)).flatmap(
    lambda t: st.sampled_from([UTC, INDIA, CALIFORNIA]).map(lambda zone: t.replace(tzinfo=zone))
)
always_the_same = settings(derandomize=True, deadline=None)


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2024-01-02T03:04:05Z", T),
        ("2024-01-02T03:04:05+00:00", T),
        ("2024-01-02T05:04:05+02:00", T),
        ("2024-01-01T19:04:05-0800", T),
        ("2024-01-02T03:04:05", T),
        ("2024-01-02 03:04:05", T),
        ("  2024-01-02T03:04:05Z\n", T),
        ("20240102T030405Z", T),
        ("2024-01-02T03:04Z", T.replace(second=0)),
        ("2024-01-02", T.replace(hour=0, minute=0, second=0)),
        ("Tue, 02 Jan 2024 03:04:05 GMT", T),
        ("Tue, 02 Jan 2024 05:04:05 +0200", T),
        ("Tue, 02 Jan 2024 03:04:05 -0000", T),
        ("Tue, 02 Jan 2024 03:04:05", T),
        ("Tue, 02 Jan 2024 05:04:05 +02:00", T),
        ("Tue, 02 Jan 2024 05:04:05 UTC+0200", T),
        ("Mon, 01 Jan 2024 22:04:05 EST", T),
        ("Tue Jan 02 2024 05:04:05 GMT+0200 (Central European Summer Time)", T),
        ("Tue Jan 02 05:04:05 +0200 2024", T),
        ("Tue Jan  2 03:04:05 UTC 2024", T),
        ("Tue Jan  2 03:04:05 2024", T),
        ("2 Jan 2024 03:04 GMT", T.replace(second=0)),
        (SECONDS, T),
        (SECONDS * 1_000, T),
        (SECONDS * 1_000_000, T),
        (str(SECONDS), T),
        (str(SECONDS * 1_000), T),
        (str(SECONDS * 1_000_000), T),
        (Decimal(SECONDS), T),
        (Decimal("1704164645.25"), T.replace(microsecond=250_000)),
        (Decimal("1704164645123.25"), T.replace(microsecond=123_250)),
        ("1704164645.25", T.replace(microsecond=250_000)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (datetime(2024, 1, 2, 3, 4, 5), T),
        (T.astimezone(INDIA), T),
    ],
)
def test_a_time_is_read_as_an_instant_in_utc(written: Any, instant: datetime) -> None:
    """APIs write times in all these ways, some in several of them at once."""
    read = read_time(written)

    assert read == instant
    assert read.utcoffset() == timedelta(0)


@pytest.mark.parametrize("digits", ["9", "98", "987", "9876", "98765", "987654"])
def test_up_to_six_digits_of_a_second_are_kept(digits: str) -> None:
    """T7: `.9Z`, `.90Z` and `.900Z` are the same instant, and `.9876Z` is another."""
    microseconds = int(digits.ljust(6, "0"))

    assert read_time(f"2024-01-02T03:04:05.{digits}Z") == T.replace(microsecond=microseconds)


@pytest.mark.parametrize("digits", ["9876549", "98765499", "987654999"])
def test_finer_digits_than_microseconds_are_cut(digits: str) -> None:
    """Rounded up, the watermark would be later than the order it came from."""
    assert read_time(f"2024-01-02T03:04:05.{digits}Z") == T.replace(microsecond=987_654)
    assert read_time(Decimal(f"{SECONDS}.{digits}")) == T.replace(microsecond=987_654)
    assert read_time(f"{SECONDS}.{digits}") == T.replace(microsecond=987_654)


@pytest.mark.parametrize(
    ("written", "cursor_format", "instant"),
    [
        (1_704_164_645, "epoch_seconds", T),
        (200_000_000_000, "epoch_seconds", datetime(8307, 10, 1, 19, 33, 20, tzinfo=UTC)),
        (1_704_164_645_000, "epoch_milliseconds", T),
        ("1704164645000", "epoch_milliseconds", T),
        (1_704_164_645, "epoch_milliseconds", datetime(1970, 1, 20, 17, 22, 44, 645000, UTC)),
        (0, "epoch_milliseconds", datetime(1970, 1, 1, tzinfo=UTC)),
        ("02/01/2024 03:04:05", "%d/%m/%Y %H:%M:%S", T),
        ("01/02/2024 03:04:05", "%m/%d/%Y %H:%M:%S", T),
        ("20240102030405", "%Y%m%d%H%M%S", T),
        (20240102, "%Y%m%d", T.replace(hour=0, minute=0, second=0)),
        (1_704_164_645, "%Y%m%d", T),
        (1_767_112_131_415, "%Y%m%d%H%M%S", datetime(2025, 12, 30, 16, 28, 51, 415000, UTC)),
        ("2024-01-02T05:04:05+0200", "%Y-%m-%dT%H:%M:%S%z", T),
        (" 2024-01-02 ", "%Y-%m-%d", T.replace(hour=0, minute=0, second=0)),
    ],
)
def test_the_cursor_format_decides_what_else_would_be_guessed(
    written: Any, cursor_format: str, instant: datetime
) -> None:
    """Units are guessed from the size of a number only if the setting does not name them."""
    assert read_time(written, cursor_format) == instant


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        {"at": "2024-01-02"},
        ["2024-01-02"],
        b"2024-01-02",
        "",
        "  ",
        "soon",
        "2024-13-02T03:04:05Z",
        "2024-02-30",
        "2024-01-02T03:04:05Zulu",
        "Tue, 02 Jan 2024 03:04:05 CEST",
        "Tue, 02 Jan 2024 03:04:05 Europe/Berlin",
        "Jan 2, 2024 3:04:05 PM",
        "Tue Jan  2 03:04:05 CET 2024",
        "0001-01-01T00:00:00+02:00",
        "99991231T235959-0200",
        "0000-00-00 00:00:00",
        "2024-01-02T03.5Z",  # half past three, not half a second
        "2024-01-02T03:04.5Z",
        "2024-01-02 0304,5",
        "²",
        10**30,
        -(10**30),
        Decimal("NaN"),
        Decimal("Infinity"),
        float("nan"),
        float("inf"),
        "9" * 5000,
    ],
)
def test_what_is_no_time_is_said_to_be_none(value: Any) -> None:
    """One such order is rejected with its reason; any other exception would end the run."""
    with pytest.raises(UnreadableTime):
        read_time(value)


def test_a_text_that_does_not_fit_the_pattern_is_read_like_any_other() -> None:
    """What an API takes in a request, it does not always write in its answers."""
    for text in ("2024-01-02T03:04:05Z", "Tue, 02 Jan 2024 03:04:05 GMT", str(SECONDS)):
        assert read_time(text, "%d/%m/%Y") == T
    with pytest.raises(UnreadableTime):
        read_time("13/13/2024", "%d/%m/%Y")


def test_why_a_time_is_unreadable_is_said_without_its_value() -> None:
    """The reason goes into a table and into logs, and the value is the shop's."""
    reasons = []
    for value in (None, True, {"s3cret": 1}, ["s3cret"], "s3cret"):
        with pytest.raises(UnreadableTime) as error:
            read_time(value)
        reasons.append(str(error.value))

    assert reasons == [
        "is missing, not a time",
        "is a boolean, not a time",
        "is an object, not a time",
        "is a list, not a time",
        "is not a readable time",
    ]


@pytest.mark.parametrize(
    ("cursor_format", "written"),
    [
        ("iso", "2024-01-02T03:04:05.678Z"),
        ("epoch_seconds", "1704164645"),
        ("epoch_milliseconds", "1704164645678"),
        ("rfc2822", "Tue, 02 Jan 2024 03:04:05 GMT"),
        ("%Y-%m-%dT%H:%M:%S.%fZ", "2024-01-02T03:04:05.678999Z"),
        ("%d/%m/%Y %H:%M", "02/01/2024 03:04"),
    ],
)
@pytest.mark.parametrize("zone", [UTC, INDIA, CALIFORNIA])
def test_a_time_is_written_in_utc_and_cut(cursor_format: str, written: str, zone: timezone) -> None:
    """What the API is asked for is the same text, whatever zone the time is kept in."""
    time = T.replace(microsecond=678_999).astimezone(zone)

    assert write_time(time, cursor_format) == written


def test_times_before_1970_are_cut_downwards_too() -> None:
    """Cut towards zero, a window would start after the instant that was meant."""
    time = datetime(1969, 12, 31, 23, 59, 58, 999_500, tzinfo=UTC)

    assert write_time(time, "epoch_seconds") == "-2"
    assert write_time(time, "epoch_milliseconds") == "-1001"


def test_the_first_years_have_four_digits() -> None:
    """`initial_value` may be as early as one likes; `1-01-01` is no date to an API."""
    assert write_time(datetime(1, 1, 1, tzinfo=UTC), "iso") == "0001-01-01T00:00:00.000Z"
    assert write_time(datetime(999, 1, 1, tzinfo=UTC), "iso") == "0999-01-01T00:00:00.000Z"


@pytest.mark.parametrize("cursor_format", FORMATS)
@always_the_same
@given(time=instants)
def test_what_is_written_is_read_back_less_than_a_step_earlier(
    cursor_format: str, time: datetime
) -> None:
    """Never later: a window that starts after the watermark skips the orders in between."""
    read = read_time(write_time(time, cursor_format), cursor_format)

    assert read <= time
    assert time - read < step_of(cursor_format)


@pytest.mark.parametrize("cursor_format", FORMATS)
@always_the_same
@given(time=instants)
def test_a_step_later_is_written_differently(cursor_format: str, time: datetime) -> None:
    """The sensor asks from a step after the watermark, or it would find the same order again."""
    later = time + step_of(cursor_format)

    assert write_time(later, cursor_format) != write_time(time, cursor_format)


@pytest.mark.parametrize("cursor_format", FORMATS)
@always_the_same
@given(time=instants, microseconds=st.integers(-(10**12), 10**12))
def test_times_are_compared_as_precisely_as_they_are_written(
    cursor_format: str, time: datetime, microseconds: int
) -> None:
    """An API that is asked in seconds may sort in seconds; finer, its pages would seem unsorted."""
    other = time + timedelta(microseconds=microseconds)
    step = step_of(cursor_format)
    steps = floor(time, step), floor(other, step)
    texts = write_time(time, cursor_format), write_time(other, cursor_format)

    assert (steps[0] == steps[1]) == (texts[0] == texts[1])
    assert time < other or steps[0] >= steps[1]


@always_the_same
@given(one=instants, other=instants)
def test_times_of_any_offset_compare_as_instants(one: datetime, other: datetime) -> None:
    """T7: as text, `+02:00` sorts after `Z`, and the watermark would be the wrong order's."""
    read_one, read_other = read_time(one.isoformat()), read_time(other.isoformat())

    assert (read_one < read_other) == (one < other)
    assert (read_one == read_other) == (one == other)


@always_the_same
@given(time=instants)
def test_a_number_says_its_unit_by_its_size(time: datetime) -> None:
    """Seconds, milliseconds and microseconds since 1970, as numbers or as text, with one setting."""
    microseconds = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    assume(time.year < 2500)  # later, a number of milliseconds looks like 20240102030405

    for unit in (1_000_000, 1_000, 1):
        number = microseconds // unit
        cut = time - timedelta(microseconds=microseconds % unit)
        assert read_time(number) == read_time(str(number)) == read_time(Decimal(number)) == cut


@pytest.mark.parametrize(
    ("cursor_format", "step"),
    [
        ("iso", timedelta(milliseconds=1)),
        ("epoch_milliseconds", timedelta(milliseconds=1)),
        ("epoch_seconds", timedelta(seconds=1)),
        ("rfc2822", timedelta(seconds=1)),
        ("%Y-%m-%dT%H:%M:%S.%f", timedelta(microseconds=1)),
        ("%Y-%m-%dT%H:%M:%SZ", timedelta(seconds=1)),
        ("%Y-%m-%d %T", timedelta(seconds=1)),
        ("%Y-%m-%d %H:%M", timedelta(minutes=1)),
        ("%Y-%m-%d %R", timedelta(minutes=1)),
        ("%d.%m.%Y", timedelta(days=1)),
    ],
)
def test_the_step_of_a_format_is_its_finest_digit(cursor_format: str, step: timedelta) -> None:
    """Too large a step, and the sensor would not see the orders within it."""
    assert step_of(cursor_format) == step


def test_a_value_is_found_at_a_dotted_path() -> None:
    """`meta.updated_at`, also in JSONPath's way of writing it; a path into nothing is None."""
    order = {"meta": {"updated_at": "2024-01-02", "none": None}, "items": [{"sku": 1}], "a.b": 2}

    assert value_at(order, "meta.updated_at") == "2024-01-02"
    assert value_at(order, "$.meta.updated_at") == "2024-01-02"
    assert value_at(order, "meta") == {"updated_at": "2024-01-02", "none": None}
    for path in ("meta.none", "meta.updated_at.x", "meta.none.x", "items.sku", "missing", "a"):
        assert value_at(order, path) is None
    assert value_at(None, "meta") is None
    assert value_at([order], "meta") is None


@pytest.mark.parametrize("value", ["20240102030405", 20240102030405])
def test_a_compact_date_is_no_number_of_milliseconds(value: str | int) -> None:
    """As milliseconds it is in the year 2611, and the order would be one of the future for ever."""
    assert read_time(value) == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
