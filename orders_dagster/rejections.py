"""What waits in `orders_rejected`, for a comparison with the API, which counts these orders, too.

An order waits if its newest version that was rejected is newer than the one in `orders`, if there is one:
the API has it where it was modified last, and not where `orders` still has it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from orders_dagster.columns import column_name
from orders_dagster.cursor import read_time
from orders_dagster.places import DELETED_AT, ORDERS
from orders_dagster.rejected import MODIFIED_AT, ORDER_ID, REJECTED_TABLE
from orders_dagster.settings import OrdersSettings
from orders_dagster.span import Span
from orders_dagster.warehouse import Warehouse

MOST = 100_000
"""Orders that wait, at which no number is compared any more: these are to be corrected first."""


@dataclass(frozen=True)
class Waiting:
    """An order that waits.

    Attributes:
        key: None if it has none; as text, whatever the column of the others holds.
        modified: its modification date, UTC.
        before: that of the older version that `orders` has, None if it has none.
    """

    key: str | None
    modified: datetime
    before: datetime | None


class Rejections:
    """The table of rejected orders, which may not exist.

    Args:
        present: the condition that an order in `orders`, by the name `o`, is not marked deleted.
    """

    def __init__(self, warehouse: Warehouse, settings: OrdersSettings, present: str) -> None:
        self._warehouse = warehouse
        columns = {column.lower() for column in warehouse.columns(REJECTED_TABLE)}
        self._exists = {MODIFIED_AT, DELETED_AT} <= columns
        self._present = present
        self._key = warehouse.column(column_name(settings.primary_key))
        self._cursor = warehouse.column(column_name(settings.cursor_path))

    @cached_property
    def waiting(self) -> list[Waiting]:
        """All that wait and have a date that can be read; no more than `MOST`, and one."""
        if not self._exists:
            return []
        name, column = self._warehouse.name, self._warehouse.column
        key, modified, deleted = column(ORDER_ID), column(MODIFIED_AT), column(DELETED_AT)
        there = f"{deleted} IS NULL AND {modified} IS NOT NULL"
        with_key = (
            f"SELECT {key}, MAX({modified}) AS {modified} FROM {name(REJECTED_TABLE)} "
            f"WHERE {there} AND {key} IS NOT NULL GROUP BY {key}"
        )
        _, found = self._warehouse.head(
            f"SELECT w.{key}, w.{modified}, "
            f"CASE WHEN {self._present} THEN o.{self._cursor} ELSE NULL END "
            f"FROM ({with_key}) w LEFT JOIN {name(ORDERS)} o "
            f"ON CAST(o.{self._key} AS VARCHAR) = w.{key} "
            f"WHERE o.{self._cursor} IS NULL OR o.{self._cursor} < w.{modified}",
            MOST + 1,
        )
        _, without_key = self._warehouse.head(
            f"SELECT NULL, {modified}, NULL FROM {name(REJECTED_TABLE)} "
            f"WHERE {there} AND {key} IS NULL",
            MOST + 1,
        )
        return [
            Waiting(key, read_time(modified), before and read_time(before))
            for key, modified, before in [*found, *without_key]
        ]

    @property
    def are_too_many(self) -> bool:
        return len(self.waiting) > MOST

    def undated(self) -> int:
        """Orders whose date cannot be read, waiting or not."""
        if not self._exists:
            return 0
        modified, deleted = map(self._warehouse.column, (MODIFIED_AT, DELETED_AT))
        return int(
            self._warehouse.scalar(
                f"SELECT COUNT(*) FROM {self._warehouse.name(REJECTED_TABLE)} "
                f"WHERE {modified} IS NULL AND {deleted} IS NULL"
            )
        )

    def balance(self, span: Span, without: Collection[str] = ()) -> int:
        """How many more orders of a span the API has for them than `orders`, or fewer."""
        return sum(
            (one.modified in span) - (one.before is not None and one.before in span)
            for one in self.waiting
            if one.key is None or one.key not in without
        )

    def unseen(self, span: Span, loaded_before: str) -> list[str | None]:
        """The keys of those of a span, not marked yet, that no load since a time has brought again."""
        if not self._exists:
            return []
        where, args = self._unseen(span, loaded_before)
        column, table = self._warehouse.column(ORDER_ID), self._warehouse.name(REJECTED_TABLE)
        return [
            key for (key,) in self._warehouse.query(f"SELECT {column} FROM {table} {where}", *args)
        ]

    def mark_deleted(self, span: Span, loaded_before: str, at: datetime) -> None:
        """Mark the same."""
        if self._exists:
            where, args = self._unseen(span, loaded_before)
            self._warehouse.execute(
                f"UPDATE {self._warehouse.name(REJECTED_TABLE)} "
                f"SET {self._warehouse.column(DELETED_AT)} = %s {where}",
                self._warehouse.moment(at),
                *args,
            )

    def _unseen(self, span: Span, loaded_before: str) -> tuple[str, tuple[Any, ...]]:
        column, moment = self._warehouse.column, self._warehouse.moment
        where = (
            f"WHERE {column(MODIFIED_AT)} >= %s AND {column(MODIFIED_AT)} < %s "
            f"AND {column(DELETED_AT)} IS NULL AND {column('_dlt_load_id')} < %s"
        )
        return where, (moment(span.start), moment(span.end), loaded_before)
