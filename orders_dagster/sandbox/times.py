"""Times as an orders API reads and writes them.

Here: reading a time in any of the styles that real APIs use, and writing one in the style that was
chosen with `--cursor-style`. Not here: what a time filters (`index.py`).

Inside the sandbox a time is an integer, microseconds since 1970 in UTC: integers compare exactly,
fit an `array('q')`, and a file's microseconds survive. Generated orders stay on whole milliseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache

STYLES = ("iso", "epoch_seconds", "epoch_milliseconds", "rfc2822", "offset")

SECOND = 1_000_000
DAY = 86_400 * SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
# Two hours east, as a European shop would answer: text order then differs from time order.
_EAST = timezone(timedelta(hours=2))
# A number this large counts milliseconds: as seconds it would lie beyond the year 5138.
_FIRST_MILLISECONDS = 100_000_000_000
_FIRST_TOO_LARGE = 100_000_000_000_000


def read_time(value: object) -> int | None:
    """Microseconds since 1970, or None where no style fits; a naive time is in UTC."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float | Decimal):
        return _from_number(Decimal(str(value)))
    if not isinstance(value, str):
        return None
    text = value.strip()
    for read in (_from_digits, _from_iso, _from_rfc2822):
        found = read(text)
        if found is not None:
            return found
    return None


def _if_writable(us: int) -> int | None:
    """A time that an offset moved out of the years 1 to 9999 could be read but never shown."""
    return us if _FIRST <= us <= _LAST else None


def _from_number(number: Decimal) -> int | None:
    if not number.is_finite() or abs(number) >= _FIRST_TOO_LARGE:
        return None
    unit = 1_000 if abs(number) >= _FIRST_MILLISECONDS else SECOND
    return _if_writable(int(number * unit))


def _from_digits(text: str) -> int | None:
    # Eight digits are an ISO date (20240131), not a second of the year 1970.
    if len(text) == 8 or not text.lstrip("-").replace(".", "", 1).isdigit():
        return None
    try:
        return _from_number(Decimal(text))
    except InvalidOperation:
        return None


def _from_iso(text: str) -> int | None:
    try:
        return _if_writable(from_datetime(datetime.fromisoformat(text)))
    except (ValueError, OverflowError):
        return None


def _from_rfc2822(text: str) -> int | None:
    try:
        return _if_writable(from_datetime(parsedate_to_datetime(text)))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def from_datetime(moment: datetime) -> int:
    """Microseconds since 1970 of a datetime; a naive one is in UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def to_datetime(us: int) -> datetime:
    """The datetime in UTC of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=us)


def iso(us: int) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`: what orders carry unless told otherwise."""
    days, rest = divmod(us // 1000, 86_400_000)
    seconds, ms = divmod(rest, 1000)
    minutes, second = divmod(seconds, 60)
    return f"{_date(days)}T{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{ms:03d}Z"


@lru_cache(maxsize=4096)
def _date(days: int) -> str:
    return to_datetime(days * DAY).date().isoformat()


def write_time(us: int, style: str) -> str | int:
    """A time as a JSON value in one of the STYLES.

    `epoch_seconds` and `rfc2822` know no fraction and are cut, not rounded: a filter by the value
    that was shown then still finds the row.
    """
    if style == "iso":
        return iso(us)
    if style == "epoch_seconds":
        return us // SECOND
    if style == "epoch_milliseconds":
        return us // 1000
    if style == "rfc2822":
        return format_datetime(to_datetime(us), usegmt=True)
    return to_datetime(us).astimezone(_EAST).isoformat(timespec="milliseconds")
