"""What has changed in the columns of the tables, from one look at them to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

Columns = Mapping[str, Mapping[str, str]]
"""Tables, with the type of each of their columns."""

VARIANT = "__v_"
"""How dlt names the column of values that the column of their field cannot hold."""


class Change(NamedTuple):
    """One difference; `before` and `now` are types."""

    table: str
    column: str
    change: str
    before: str | None
    now: str | None


def changes(before: Columns, now: Columns) -> list[Change]:
    """Every table and column that is new, gone, or of another type."""
    return [
        change
        for table in sorted({*before, *now})
        for change in _in_table(table, before.get(table, {}), now.get(table, {}))
    ]


def _in_table(table: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    if not before or not now:
        yield Change(table, "", "table added" if now else "table dropped", None, None)
        return
    for column in sorted({*before, *now}):
        was, is_now = before.get(column), now.get(column)
        if was is None:
            field, variant, _ = column.rpartition(VARIANT)
            added = f"split off from {field}" if variant and field in now else "added"
            yield Change(table, column, added, None, is_now)
        elif is_now is None:
            yield Change(table, column, "dropped", was, None)
        elif was != is_now:
            yield Change(table, column, "type changed", was, is_now)
