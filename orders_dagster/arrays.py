"""The values of a field as a column: an Arrow array of the column's type.

Arrow refuses what a type does not hold exactly (too many digits, half a character, a time with more
than microseconds), so most columns are made at once, without looking at each value in Python. What it
refuses, values.py decides value by value.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from orders_dagster.values import fits_integer

ARROW_TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "json": pa.string(),
    "bigint": pa.int64(),
    "decimal": pa.decimal128(38, 9),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
}
"""By dlt's name of the type."""

_PYTHON_TYPES: dict[str, set[type]] = {
    "text": {str},
    "json": {str},
    "bigint": {int},
    "decimal": {Decimal},
    "bool": {bool},
    "timestamp": {str},
}
"""The types whose values go into such a column as they are, if they fit."""

_REFUSED = (pa.ArrowException, OverflowError, UnicodeError)


def array_of(values: Sequence[Any], kind: str) -> pa.Array:
    """Values that are known to fit into a column of the type, None for null."""
    return pa.array(values, ARROW_TYPES[kind])


def array_at_once(values: Sequence[Any], kinds: set[type], kind: str) -> pa.Array | None:
    """All values of a field, if each goes into the field's own column as it is.

    Args:
        kinds: the types of the values that are not None.
        kind: dlt's type of the column.

    Returns: None if one of them has to be looked at.
    """
    try:
        if kinds == _PYTHON_TYPES.get(kind):
            return _times(values) if kind == "timestamp" else array_of(values, kind)
        if kind == "decimal" and kinds == {int} | _PYTHON_TYPES["decimal"]:
            whole = [value for value in values if type(value) is int]
            if fits_integer(min(whole)) and fits_integer(max(whole)):
                return array_of(values, kind)
    except _REFUSED:
        pass
    return None


def _times(texts: Sequence[str | None]) -> pa.Array | None:
    """Timestamps from their texts, where Arrow reads the same in them as values.py does."""
    given = [text for text in texts if text is not None]
    # Without minutes it is no timestamp here; and some years are none of Python's.
    if min(given) < "0002" or max(given) >= "9999" or any(text[13:14] != ":" for text in given):
        return None
    return pa.array(texts, pa.string()).cast(ARROW_TYPES["timestamp"])
