"""The modification date of an order: read as an instant in UTC, written as the API wants it.

All comparisons are between instants, never between texts: `+02:00` and `Z`, or `.5Z` and `Z`,
order differently as text.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COMPACT = re.compile(r"(19|20)\d{12}")  # 20240102030405, not milliseconds in the year 2611
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
# 03.5 is half past three, in which Python reads half a second.
_PART_OF_MINUTE = re.compile(r"[T ]\d\d(:?\d\d)?[.,]")
_IN_WORDS = re.compile(
    r"(.*?\d:\d\d(?::\d\d)?) ?"  # up to the clock
    r"(?:(?:GMT|UTC?)?([+-]\d\d):?(\d\d)|(GMT|UTC?|Z|[ECMP][SD]T))?"  # the zone
    r"( \d{4})?( ?\(.*\))?",  # the year, a remark
    re.IGNORECASE,
)

# Beyond these, a number of seconds since 1970 would be in the year 5138, so it counts smaller units.
_MILLISECONDS_FROM = Decimal(10) ** 11
_MICROSECONDS_FROM = Decimal(10) ** 14


class UnreadableTime(ValueError):
    """The value is no point in time."""


def value_at(order: Any, path: str) -> Any:
    """The value at a dotted path (`meta.updated_at`) in an order, or None."""
    if type(order) is dict and path in order and "." not in path:
        return order[path]  # nearly always; this is asked for every order
    value = order
    for part in path.removeprefix("$.").split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def read_time(value: Any, cursor_format: str = "iso") -> datetime:
    """An instant in UTC from what an API writes.

    ISO 8601 (without an offset it is UTC), RFC 2822, seconds, milliseconds or microseconds since
    1970, or the strftime pattern of `cursor_format`. Precision: microseconds; finer digits are cut.

    Raises:
        UnreadableTime: none of these.
    """
    if cursor_format == "iso" and type(value) is str and value[4:17:6] == "-T:":
        try:  # nearly always; this is asked for every order, and `suppress` takes as long as the reading
            return _utc(datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            pass
    if isinstance(value, datetime):
        return _utc(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise UnreadableTime(f"is {_kind(value)}, not a time")
    try:
        if _COMPACT.fullmatch(str(value)) and not cursor_format.startswith("epoch"):
            with suppress(ValueError):
                return _utc(datetime.strptime(str(value), "%Y%m%d%H%M%S"))
        text = str(value).strip()
        if "%" in cursor_format:  # which may be that of a number, 20240101
            # What an API takes in a request, it does not always write in its answers.
            with suppress(ValueError):
                found = datetime.strptime(text, cursor_format)
                # 1767112131415 are milliseconds, and fit %Y%m%d%H%M%S with digits left out.
                if isinstance(value, str) or found.strftime(cursor_format) == text:
                    return _utc(found)
        if not isinstance(value, str):
            return _from_number(Decimal(value), cursor_format)
        if _NUMBER.fullmatch(text) and (len(text) > 8 or cursor_format.startswith("epoch")):
            return _from_number(Decimal(text), cursor_format)
        with suppress(ValueError):
            if not _PART_OF_MINUTE.search(text):
                return _utc(datetime.fromisoformat(text))
        return _utc(_from_words(text))
    except (ValueError, OverflowError, ArithmeticError, TypeError, IndexError):
        raise UnreadableTime("is not a readable time") from None


def _from_words(text: str) -> datetime:
    """RFC 2822, and what is close to it: with the year last, or GMT before an offset. Python's reader
    leaves out what it does not know behind the clock, PM or CEST, and would be wrong by hours."""
    found = _IN_WORDS.fullmatch(text)
    if found is None:
        raise UnreadableTime("is not a readable time")
    clock, hours, minutes, zone, year, _ = found.groups("")
    return parsedate_to_datetime(f"{clock} {hours}{minutes}{zone}{year}")


def write_time(time: datetime, cursor_format: str) -> str:
    """A time as the API wants it in a request; what the format cannot hold is cut, never rounded up,
    so that a window never starts after the instant that was meant."""
    time = time.astimezone(UTC)
    if cursor_format == "iso":
        return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z".rjust(24, "0")
    if cursor_format == "epoch_seconds":
        return str((time - EPOCH) // timedelta(seconds=1))
    if cursor_format == "epoch_milliseconds":
        return str((time - EPOCH) // timedelta(milliseconds=1))
    if cursor_format == "rfc2822":
        return format_datetime(time.replace(microsecond=0), usegmt=True)
    return time.strftime(cursor_format)


def step_of(cursor_format: str) -> timedelta:
    """The smallest difference between two times that the format can write."""
    if cursor_format in ("iso", "epoch_milliseconds"):
        return timedelta(milliseconds=1)
    if "%f" in cursor_format:
        return timedelta(microseconds=1)
    if cursor_format in ("epoch_seconds", "rfc2822") or re.search("%[STsXc]", cursor_format):
        return timedelta(seconds=1)
    if re.search("%[MR]", cursor_format):
        return timedelta(minutes=1)
    return timedelta(hours=1) if re.search("%[HI]", cursor_format) else timedelta(days=1)


def floor(time: datetime, step: timedelta) -> datetime:
    """A time on the whole step before it, so that times can be compared as precisely as a request can
    name them."""
    return EPOCH + (time - EPOCH) // step * step


def _from_number(number: Decimal, cursor_format: str) -> datetime:
    if not number.is_finite() or number.adjusted() > 20:
        raise UnreadableTime("is not a readable time")
    if cursor_format == "epoch_milliseconds":
        number /= 1000
    elif cursor_format != "epoch_seconds":
        if abs(number) >= _MICROSECONDS_FROM:
            number /= 1_000_000
        elif abs(number) >= _MILLISECONDS_FROM:
            number /= 1000
    return EPOCH + timedelta(microseconds=int(number * 1_000_000))


def _utc(time: datetime) -> datetime:
    if time.tzinfo is UTC:
        return time
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _kind(value: Any) -> str:
    kinds = {type(None): "missing", bool: "a boolean", dict: "an object", list: "a list"}
    return kinds.get(type(value), type(value).__name__)
