"""Which column holds a value without loss: the one of its field, or a variant beside it.

A column has one type, that of the first value of its field. Left alone, dlt converts what comes later
wherever Python can: "007" becomes 7 in a column of numbers, 5 becomes true in a column of booleans.
Here, a value of another type goes into the column that dlt names for it (`code__v_text`), unchanged.
Two types give way: whole numbers become decimals, and a column of text takes everything as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

Column = tuple[str, str]
"""A table and a column of it."""

VARIANTS = ("text", "bigint", "decimal", "bool", "timestamp")
"""The types of the columns that can be beside that of a field, as in `code__v_text`."""

_TEXTUAL = ("text", "json")

# dlt's decimal column is DECIMAL(38, 9).
SCALE = 9
_DIGITS_BEFORE_POINT = 29
_LARGEST_INTEGER = 2**63 - 1
_FINEST = Decimal(1).scaleb(-SCALE)
_EXACTLY = Context(prec=_DIGITS_BEFORE_POINT + SCALE, traps=[Inexact, InvalidOperation])

# A date with a time of day; more than six digits of a second would be cut, so such a text stays text.
_TIMESTAMP = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6}0*)?)?(Z|[+-]\d\d(:?\d\d)?)?", re.ASCII
)


@dataclass
class Values:
    """The types of the columns of one run, as dlt names them.

    Attributes:
        column_type: the type of a column in the tables, None for a new one.
        widens: whether a column of whole numbers that exists can become decimal.
    """

    column_type: Callable[[Column], str | None] = lambda column: None
    widens: bool = True
    _types: dict[Column, str | None] = field(default_factory=dict, repr=False)

    def type_of(self, column: Column) -> str | None:
        """The type of the column of a field as it is by now, None before its first value."""
        return self._types.get(column)

    def place(self, value: Any, column: Column) -> tuple[str, Any]:
        """Where a value goes: the type of the variant beside its field's column ("" for that itself),
        and the value in the form that column holds. Not for None, objects and lists."""
        if column not in self._types:
            self._types[column] = self.column_type(column)
        of_column = self._types[column]
        if isinstance(value, str):
            value = clean(value)
            if of_column in _TEXTUAL:
                return "", value
        kind, exact = kind_of(value)
        if kind is None:  # too long for its type: text beside, and the column keeps its type
            return ("", str(value)) if of_column in _TEXTUAL else ("text", str(value))
        is_fraction = kind == "decimal" and of_column == "bigint"
        if is_fraction and (self.widens or self.column_type(column) is None):
            of_column = self._types[column] = "decimal"
        if of_column is None:
            of_column = self._types[column] = kind
        if kind == of_column or (kind == "bigint" and of_column == "decimal"):
            return "", exact
        if of_column in _TEXTUAL:
            return "", str(value).lower() if isinstance(value, bool) else str(value)
        return kind, exact


def kind_of(value: Any) -> tuple[str | None, Any]:
    """dlt's type of a value and the value in that type; None for a number that fits no column."""
    if isinstance(value, str):
        time = as_timestamp(value)
        return ("text", value) if time is None else ("timestamp", time)
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int):
        return ("bigint" if fits_integer(value) else None), value
    if isinstance(value, Decimal):
        return ("decimal", _without_zeros(value)) if fits_decimal(value) else (None, value)
    raise TypeError(type(value).__name__)


def as_timestamp(text: str) -> datetime | None:
    """The instant in UTC that a text means, without an offset in UTC; None if it is no timestamp."""
    if len(text) >= 16 and text[4] == "-" and _TIMESTAMP.fullmatch(text):
        with suppress(ValueError, OverflowError):
            time = datetime.fromisoformat(text)
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return None


def fits_decimal(value: Decimal) -> bool:
    """Whether DECIMAL(38, 9) holds the value exactly."""
    if not value.is_finite() or value.adjusted() >= _DIGITS_BEFORE_POINT:
        return False
    _, digits, exponent = value.as_tuple()
    finer = -SCALE - int(exponent)
    return finer <= 0 or not any(digits[-finer:])  # 1.50 with more zeros is still 1.5


def _without_zeros(value: Decimal) -> Decimal:
    """A number that the column holds, without the zeros behind its last digit: Arrow takes 38 digits."""
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -SCALE:
        return value.quantize(_FINEST, context=_EXACTLY)
    return value


def fits_integer(value: int) -> bool:
    """Whether a column of whole numbers holds the value."""
    return -_LARGEST_INTEGER - 1 <= value <= _LARGEST_INTEGER


def clean(text: str) -> str:
    """The text without half characters (lone surrogates), which JSON can write and no table holds."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
