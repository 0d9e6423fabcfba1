"""What is in the tables: which there are, and how many orders of which kind."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import dlt
from dlt.common.schema.typing import VERSION_TABLE_NAME, TTableSchema

from orders_dagster.columns import column_name
from orders_dagster.cursor import UnreadableTime, read_time
from orders_dagster.places import DELETED_AT, ORDERS
from orders_dagster.rejections import Rejections
from orders_dagster.rows import Stored
from orders_dagster.settings import OrdersSettings
from orders_dagster.span import Span
from orders_dagster.values import clean, fits_integer
from orders_dagster.warehouse import Warehouse


def orders_tables(schema: dlt.Schema | None) -> list[str]:
    """`orders` and its child tables, at any depth, parents first."""
    tables = [ORDERS]
    for table in schema.data_tables(include_incomplete=True) if schema else []:
        name, parent = str(table["name"]), table.get("parent")
        if parent in tables and name not in tables:
            tables.append(name)
    return tables


def columns_of(table: TTableSchema | None) -> list[str]:
    """The columns of a table that dlt has made; it knows others without a type, for which no value came."""
    return (
        [name for name, hints in table["columns"].items() if "data_type" in hints] if table else []
    )


def knows(schema: dlt.Schema | None) -> bool:
    """Whether dlt knows the tables; without its own of versions it does not."""
    return schema is not None and ORDERS in schema.tables


def is_of_dlt(warehouse: Warehouse, table: str) -> bool:
    """Whether a table is there, and dlt has made it."""
    return "_dlt_id" in {column.lower() for column in warehouse.columns(table)}


def missing(warehouse: Warehouse, schema: dlt.Schema | None) -> list[str]:
    """The tables, and the columns as `table.column`, that dlt's schema has and somebody has dropped.

    dlt would fail to merge into them; and with the watermark kept, what was in them would stay away.
    """
    if schema is None or not knows(schema):
        return []
    found = [name for name in _own_of(schema) if not warehouse.columns(name)]
    for table in schema.data_tables(seen_data_only=True):
        name = str(table["name"])
        there = {column.casefold() for column in warehouse.columns(name)}
        gone = [f"{name}.{col}" for col in columns_of(table) if col.casefold() not in there]
        found += gone if there else [name]
    return found


def rows_of_lists(warehouse: Warehouse, schema: dlt.Schema | None) -> dict[str, int]:
    """How many rows there are in each table but that of the orders."""
    return {
        table: int(warehouse.scalar(f"SELECT COUNT(*) FROM {warehouse.name(table)}"))
        for table in orders_tables(schema)[1:]
        if warehouse.columns(table)
    }


def emptied(rows: Mapping[str, int], in_lists: Mapping[str, int], orders: int) -> list[str]:
    """The tables of lists that somebody has emptied: no order of the shop would be changed by that, so that
    what was in them would stay away.

    Args:
        rows: of each table.
        in_lists: how many lists each has held. One that has held less than one for ten orders may well have
            become empty by changes in the shop.
        orders: how many there are.
    """
    return [
        name
        for name, held in in_lists.items()
        if rows.get(name) == 0 < orders and is_common(held, orders)
    ]


def is_common(lists: int, orders: int) -> bool:
    """Whether there is a list for one in ten orders, or has been."""
    return orders <= lists * 10


def lists_in(
    warehouse: Warehouse, rows: Mapping[str, int], in_lists: Mapping[str, int], orders: int
) -> dict[str, int]:
    """How many lists there are in the tables of which that is not known, though they may hold more than one
    for ten orders: no single run has brought so many."""
    first = f"WHERE {warehouse.column('_dlt_list_idx')} = 0"
    return {
        name: int(warehouse.scalar(f"SELECT COUNT(*) FROM {warehouse.name(name)} {first}"))
        for name, count in rows.items()
        if is_common(count, orders) and not is_common(in_lists.get(name, 0), orders)
    }


def mend(warehouse: Warehouse, schema: dlt.Schema | None, gone: Collection[str]) -> None:
    """Have dlt make its own tables anew in the next load: it does so only for a schema that it does not
    find there in the same version."""
    if schema is not None and set(_own_of(schema)) & set(gone):
        _forget_version(warehouse)


def drop_staging(warehouse: Warehouse, tables: Iterable[str]) -> None:
    """Drop the tables that dlt merges from, where those that it merges into are made anew: dlt does not see
    that they are still there, and would send every value through columns of the types of then, where "007"
    becomes 7. What others keep in that dataset stays."""
    with warehouse.staging():
        if warehouse.client.has_dataset():
            for table in tables:
                warehouse.execute(f"DROP TABLE IF EXISTS {warehouse.name(table)}")
            _forget_version(warehouse)


def _forget_version(warehouse: Warehouse) -> None:
    if warehouse.columns(VERSION_TABLE_NAME):
        column = warehouse.column
        warehouse.execute(
            f"UPDATE {warehouse.name(VERSION_TABLE_NAME)} SET {column('version_hash')} = '' "
            f"WHERE {column('schema_name')} = %s",
            ORDERS,
        )


def remove_orphans(warehouse: Warehouse, schema: dlt.Schema | None) -> int:
    """Remove the rows of child tables whose order somebody has removed: no merge finds them any more, and
    the order comes with rows of its own. Returns how many."""
    if schema is None:
        return 0
    above, own = warehouse.column("_dlt_parent_id"), warehouse.column("_dlt_id")
    removed = 0
    for table in orders_tables(schema)[1:]:
        parent = schema.tables[table].get("parent")
        if parent is None or not warehouse.columns(table):
            continue
        child = warehouse.name(table)
        orphans = f"FROM {child} WHERE {above} NOT IN (SELECT {own} FROM {warehouse.name(parent)})"
        if count := int(warehouse.scalar(f"SELECT COUNT(*) {orphans}")):
            warehouse.execute(f"DELETE {orphans}")
            removed += count
    return removed


def _own_of(schema: dlt.Schema) -> tuple[str, str]:
    """The tables without which dlt knows neither the watermark nor what was loaded completely."""
    return schema.state_table_name, schema.loads_table_name


MOST_ROWS = 100_000
"""A table of lists that holds more is not asked whose they are: no load will empty it."""

KEYS_TOGETHER = 1000
"""In one query; some warehouses take no more than 2,100 arguments."""


class Counts:
    """The tables before or after a load, which may not exist yet."""

    def __init__(self, warehouse: Warehouse, settings: OrdersSettings) -> None:
        self._warehouse = warehouse
        columns = warehouse.columns(ORDERS)
        self._exists = bool(columns)
        lower = [column.lower() for column in columns]
        self._has_mark = DELETED_AT in lower
        self._has_cursor = column_name(settings.cursor_path).lower() in lower
        self._orders = warehouse.name(ORDERS)
        self._key = warehouse.column(column_name(settings.primary_key))
        self._deleted = warehouse.column(DELETED_AT)
        self._cursor = warehouse.column(column_name(settings.cursor_path))
        self.rejections = Rejections(warehouse, settings, self._is_present("o."))

    def rows(self) -> int:
        return self._count() if self._exists else 0

    def loaded_by(self, loads: Sequence[str]) -> int:
        """Orders whose present version came with one of these loads."""
        if not (self._exists and loads):
            return 0
        marks = ", ".join(["%s"] * len(loads))
        load_id = self._warehouse.column("_dlt_load_id")
        return self._count(f"WHERE {load_id} IN ({marks})", *loads)

    def newest(self, until: datetime | None = None) -> datetime | None:
        """The newest modification date, UTC; if a time is given, that is not later."""
        if not self._exists:
            return None
        where = "" if until is None else f"WHERE {self._cursor} <= %s"
        args = [] if until is None else [self._warehouse.moment(until)]
        newest = self._warehouse.scalar(
            f"SELECT MAX({self._cursor}) FROM {self._orders} {where}", *args
        )
        return None if newest is None else read_time(newest)

    def oldest(self) -> datetime | None:
        """The oldest modification date, UTC; None if there is none, or the column holds other things."""
        if not self._has_cursor:
            return None
        oldest = self._warehouse.scalar(f"SELECT MIN({self._cursor}) FROM {self._orders}")
        try:
            return None if oldest is None else read_time(oldest)
        except UnreadableTime:
            return None

    def equal_parts(self, parts: int, until: datetime) -> list[datetime]:
        """Times, from each of which on as many orders were modified, up to a last one; UTC, in order."""
        if not self._exists:
            return []
        part = self._warehouse.column("part")
        rows = self._warehouse.query(
            f"SELECT MIN({self._cursor}) FROM (SELECT {self._cursor}, NTILE({int(parts)}) OVER "
            f"(ORDER BY {self._cursor}) AS {part} FROM {self._orders} WHERE {self._cursor} < %s) parts "
            f"GROUP BY {part}",
            self._warehouse.moment(until),
        )
        return sorted(read_time(time) for (time,) in rows)

    def times_in(self, span: Span) -> list[datetime]:
        """The different modification dates in a span, UTC, of all orders in the table."""
        if not self._exists:
            return []
        rows = self._warehouse.query(
            f"SELECT DISTINCT {self._cursor} FROM {self._orders} "
            f"WHERE {self._cursor} >= %s AND {self._cursor} < %s",
            *map(self._warehouse.moment, (span.start, span.end)),
        )
        return [read_time(time) for (time,) in rows]

    def present_in(self, span: Span, without: Collection[int | str] = ()) -> int:
        """Orders modified in a span that the API is to have: those not marked deleted, and those that
        it marks itself, as of their modification. Also those that wait in `orders_rejected`."""
        if not self._exists:
            return 0
        where, edges = self._present(span)
        found = self._count(where, *edges)
        for among, some in self._among(self._keys(without)):
            found -= self._count(f"{where} AND {among}", *edges, *some)
        return found + self.rejections.balance(span, {str(key) for key in without})

    def any_unseen(self, span: Span, loaded_before: str) -> bool:
        """Whether there are orders of a span that no load since a time has brought again."""
        return bool(
            self._unseen(span, loaded_before) or self.rejections.unseen(span, loaded_before)
        )

    def _unseen(self, span: Span, loaded_before: str) -> list[int | str]:
        """The keys of those that are not marked yet."""
        if not self._exists:
            return []
        where, edges = self._present(span)
        load = self._warehouse.column("_dlt_load_id")
        found = self._warehouse.query(
            f"SELECT {self._key} FROM {self._orders} {where} AND {load} < %s", *edges, loaded_before
        )
        return [key for (key,) in found]

    def mark_deleted(
        self, span: Span, loaded_before: str, without: Collection[int | str], at: datetime
    ) -> int:
        """Mark the orders of a span that no load since a time has brought again, loaded or rejected.

        Args:
            loaded_before: the id that a load at that time would have had.
            without: orders that were seen since, but not loaded.
            at: when, UTC; later than their modification.

        Returns: how many were marked.
        """
        seen = set(self._keys(without))
        keys = [key for key in self._unseen(span, loaded_before) if key not in seen]
        gone = self.rejections.unseen(span, loaded_before)
        there = {str(key) for key in (*without, *self.stored(self._keys([k for k in gone if k])))}
        self.rejections.mark_deleted(span, loaded_before, at)
        for among, some in self._among(keys):
            self._warehouse.execute(
                f"UPDATE {self._orders} SET {self._deleted} = %s WHERE {among}",
                self._warehouse.moment(at),
                *some,
            )
        return len(keys) + sum(key is None or key not in there for key in gone)

    def _present(self, span: Span) -> tuple[str, tuple[datetime, datetime]]:
        """What selects the orders of a span that are not marked deleted, and its arguments."""
        where = f"WHERE {self._cursor} >= %s AND {self._cursor} < %s AND {self._is_present()}"
        return where, (self._warehouse.moment(span.start), self._warehouse.moment(span.end))

    def _is_present(self, table: str = "") -> str:
        if not self._has_mark:
            return "1 = 1"
        deleted, cursor = table + self._deleted, table + self._cursor
        return f"({deleted} IS NULL OR {deleted} <= {cursor})"

    def _among(self, keys: Sequence[int | str]) -> Iterator[tuple[str, Sequence[int | str]]]:
        """Conditions that an order has one of these keys, each with its arguments."""
        for start in range(0, len(keys), KEYS_TOGETHER):
            some = keys[start : start + KEYS_TOGETHER]
            yield f"{self._key} IN ({', '.join(['%s'] * len(some))})", some

    def _keys(self, keys: Collection[int | str]) -> list[int | str]:
        """Keys as an API writes them in the type of the column: 7 and "7" are one order."""
        if not (keys and self._exists):
            return []
        _, stored = self._warehouse.head(f"SELECT {self._key} FROM {self._orders}", 1)
        if stored and isinstance(stored[0][0], int):
            whole = [int(key) for key in keys if re.fullmatch(r"-?[0-9]{1,19}", str(key))]
            return [key for key in whole if fits_integer(key)]
        return [clean(str(key)) for key in keys]

    def stored(
        self, keys: Iterable[int | str], loads: Collection[str] = ()
    ) -> dict[int | str, Stored]:
        """Those of some orders that are in the table with a date.

        Args:
            loads: the ids of the loads of this run.
        """
        found: dict[int | str, Stored] = {}
        load_id, ours = self._warehouse.column("_dlt_load_id"), frozenset(loads)
        for among, some in self._among(list(keys) if self._exists else []):
            rows = self._warehouse.query(
                f"SELECT {self._key}, {self._cursor}, {load_id} FROM {self._orders} WHERE {among}",
                *some,
            )
            found |= {
                key: Stored(read_time(time), load in ours)
                for key, time, load in rows
                if time is not None
            }
        return found

    def holders(self, table: str) -> set[int | str]:
        """The keys of the orders that have elements in a table of lists; none if there are too many."""
        name, column = self._warehouse.name(table), self._warehouse.column
        if not self._exists or not self._warehouse.columns(table):
            return set()
        if int(self._warehouse.scalar(f"SELECT COUNT(*) FROM {name}")) > MOST_ROWS:
            return set()
        found = self._warehouse.query(
            f"SELECT {self._key} FROM {self._orders} WHERE {column('_dlt_id')} IN "
            f"(SELECT {column('_dlt_root_id')} FROM {name})"
        )
        return {key for (key,) in found}

    def _count(self, where: str = "", *args: Any) -> int:
        return int(self._warehouse.scalar(f"SELECT COUNT(*) FROM {self._orders} {where}", *args))
