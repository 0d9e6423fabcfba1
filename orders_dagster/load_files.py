"""The files of a load: rows of tables become Parquet files in dlt's load package, and the columns of
its schema.

dlt makes child tables of nested Python objects only, value by value, and that is most of the time of
a load; tables that are tables already it takes as one table each. So the files are put where its
normalizer looks for them, which then moves them on as they are. What is relied on is pinned in
test_upstream.py. Only `orders` and its child tables are written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dlt.common.schema.typing import TColumnSchema, TPartialTableSchema
from dlt.common.schema.utils import new_table
from dlt.common.storages.load_package import ParsedLoadJobFileName

from orders_dagster.arrays import ARROW_TYPES
from orders_dagster.places import DELETED_AT, Table
from orders_dagster.rows import LIST_INDEX, PARENT_ID, ROOT_ID, ROW_ID, Batch

LOAD_ID = "_dlt_load_id"
ROWS_TOGETHER = 20_000  # a row group; DuckDB reads them side by side, and small ones one by one

_ROW_ID: TColumnSchema = {
    "name": ROW_ID,
    "data_type": "text",
    "nullable": False,
    "unique": True,
    "row_key": True,
}
_OF_ORDERS: dict[str, TColumnSchema] = {
    LOAD_ID: {"name": LOAD_ID, "data_type": "text", "nullable": False},
    ROW_ID: _ROW_ID,
    DELETED_AT: {"name": DELETED_AT, "data_type": "timestamp", "nullable": True},
}
_OF_LISTS: dict[str, TColumnSchema] = {
    ROOT_ID: {"name": ROOT_ID, "data_type": "text", "nullable": False, "root_key": True},
    PARENT_ID: {"name": PARENT_ID, "data_type": "text", "nullable": False, "parent_key": True},
    LIST_INDEX: {"name": LIST_INDEX, "data_type": "bigint", "nullable": False},
    ROW_ID: _ROW_ID,
}


class LoadFiles:
    """The files of one load package.

    Args:
        schema: dlt's schema of the package; gets the columns of what is written.
        directory: where the package keeps the files that are to be normalized.
        load_id: the id of the load, which each row of `orders` carries.
    """

    def __init__(self, schema: dlt.Schema, directory: Path, load_id: str) -> None:
        self._schema = schema
        self._directory = directory
        self._load_id = load_id
        self._open: dict[str, _File] = {}
        self._closed: list[_File] = []
        self._writing = ThreadPoolExecutor(1, "parquet")

    def write(self, batches: Iterable[Batch]) -> None:
        """Append rows; those of a table after those of its parent."""
        for batch in batches:
            self._file(batch.table).append(batch, self._load_id)

    def close(self) -> None:
        """Finish all files. Columns that became decimal on the way are decimal in all of them."""
        for name in list(self._open):
            self._close(name)
        self._writing.shutdown()
        for file in self._closed:
            file.conform(self._schema)

    def filled(self, key: str, cursor: str) -> set[str]:
        """The tables that there are rows for in the last version of an order: the one that is merged.

        To be called after `close`, with the columns of the primary key and the modification date.
        """
        tables = {file.table.name for file in self._closed if file.rows}
        # To group more takes memory that stays taken; a list that ends in them has all read again.
        if sum(file.rows for file in self._closed if file.table.parent is None) > ROWS_TOGETHER:
            return tables
        orders = pa.concat_tables(
            pq.read_table(file.path, columns=[key, cursor, ROW_ID])
            for file in self._closed
            if file.table.parent is None
        ).rename_columns(["key", "time", "root"])
        last = orders.group_by("key").aggregate([("time", "max")])
        if len(last) == len(orders):
            return tables
        versions = orders.join(last, "key")
        roots = versions["root"].filter(pc.equal(versions["time"], versions["time_max"]))
        return {file.table.name for file in self._closed if file.holds(roots)}

    def drop(self, key: str, cursor: str, newer: Mapping[int | str, datetime]) -> Counter[str]:
        """Take out orders of which the warehouse has a newer version, with all that is in them.

        To be called after `close`.

        Args:
            key, cursor: the columns of the primary key and the modification date.
            newer: the dates of those newer versions, UTC, by the key.

        Returns:
            how many lists have gone with them, by their table.
        """
        dropped: set[str] = set()
        for file in self._closed:
            if file.table.parent is None:
                found = pq.read_table(file.path, columns=[key, cursor, ROW_ID])
                dropped |= {
                    row[ROW_ID]
                    for row in found.to_pylist()
                    if row[key] in newer and row[cursor] < newer[row[key]]
                }
        lists: Counter[str] = Counter()
        for file in self._closed:
            gone = file.drop(dropped)
            if file.table.parent is not None:
                lists[file.table.name] += pc.sum(pc.equal(gone[LIST_INDEX], 0)).as_py() or 0
        return lists

    def _file(self, table: Table) -> _File:
        """The file for more rows of a table: another one when it has other columns by now."""
        file = self._open.get(table.name)
        if file is None or file.columns != table.columns:
            self._close(table.name)
            declare(self._schema, table)
            schema = arrow_schema(self._schema, table.name)
            file = _File(self._path(table.name), table, schema, self._writing)
            self._open[table.name] = file
        return file

    def _close(self, table: str) -> None:
        file = self._open.pop(table, None)
        if file is not None:
            file.close()
            self._closed.append(file)

    def _path(self, table: str) -> Path:
        name = ParsedLoadJobFileName(table, ParsedLoadJobFileName.new_file_id(), 0, "parquet")
        return self._directory / name.file_name()


def declare(schema: dlt.Schema, table: Table) -> None:
    """Make a table and its columns known to dlt, those that link its rows included."""
    if table.name not in schema.tables:
        schema.update_table(new_table(table.name, parent_table_name=table.parent or ""))
    known = schema.tables[table.name]["columns"]
    fields: dict[str, TColumnSchema] = {
        name: {"name": name, "data_type": kind, "nullable": True}  # type: ignore[typeddict-item]
        for name, kind in table.columns.items()
    }
    columns: dict[str, TColumnSchema] = {}
    for name, column in (fields | (_OF_ORDERS if table.parent is None else _OF_LISTS)).items():
        old = known.get(name)
        if old is None or old.get("data_type") != column["data_type"]:
            columns[name] = column
            if old is not None:
                columns[name] = column | {"nullable": old.get("nullable", True)}
    if columns:
        # The columns alone: new_table would also make the table one that is appended to.
        partial: TPartialTableSchema = {"name": table.name, "columns": columns}
        if table.parent is not None:
            partial["parent"] = table.parent
        schema.update_table(partial)


def arrow_schema(schema: dlt.Schema, table: str) -> pa.Schema:
    """The columns of a table in dlt's order, so that its normalizer need not write the file again."""
    columns = schema.get_table_columns(table)
    return pa.schema(
        [
            pa.field(name, ARROW_TYPES[column["data_type"]], column.get("nullable", True))
            for name, column in columns.items()
            if column["data_type"] in ARROW_TYPES
        ]
    )


@dataclass
class _File:
    """One Parquet file, open until the columns of its table change.

    Attributes:
        threads: where it is written: Arrow does that beside Python, which meanwhile makes more rows.
        rows: how many it holds.
    """

    path: Path
    table: Table
    schema: pa.Schema
    threads: Executor
    columns: dict[str, str] = field(init=False)
    rows: int = 0
    _batches: list[pa.RecordBatch] = field(default_factory=list)
    _waiting: int = 0
    _written: Future[None] | None = None

    def __post_init__(self) -> None:
        self.columns = dict(self.table.columns)
        self._writer = pq.ParquetWriter(self.path, self.schema)

    def append(self, batch: Batch, load_id: str) -> None:
        rows = len(batch)
        columns = {LOAD_ID: pa.repeat(load_id, rows)} | batch.columns
        assert batch.columns.keys() <= set(self.schema.names), (
            "a column has another name in the schema"
        )
        self._batches.append(
            pa.record_batch(
                [
                    _fitted(columns[column.name], column.type)
                    if column.name in columns
                    else pa.nulls(rows, column.type)
                    for column in self.schema
                ],
                schema=self.schema,
            )
        )
        self.rows += rows
        self._waiting += rows
        if self._waiting >= ROWS_TOGETHER:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._finish_writing()
        self._writer.close()

    def conform(self, schema: dlt.Schema) -> None:
        """Write the file again if a column of whole numbers has become decimal since."""
        now = arrow_schema(schema, self.table.name)
        wrong = [column for column in self.schema if now.field(column.name).type != column.type]
        if wrong:
            read = pq.read_table(self.path)
            for column in wrong:
                at = read.schema.get_field_index(column.name)
                decimals = _fitted(read[at], now.field(column.name).type)
                read = read.set_column(at, now.field(column.name), decimals)
            pq.write_table(read, self.path)

    @property
    def _root(self) -> str:
        return ROW_ID if self.table.parent is None else ROOT_ID

    def holds(self, roots: pa.ChunkedArray) -> bool:
        """Whether there is a row of one of some orders."""
        read = pq.read_table(self.path, columns=[self._root])
        return bool(pc.any(pc.is_in(read[self._root], roots)).as_py())

    def drop(self, roots: set[str]) -> pa.Table:
        """Write the file again without the rows of some orders. Returns those."""
        read = pq.read_table(self.path)
        is_dropped = pc.is_in(read[self._root], pa.array(roots, pa.string()))
        kept = read.filter(pc.invert(is_dropped))
        pq.write_table(kept, self.path)
        self.rows = kept.num_rows
        return read.filter(is_dropped)

    def _flush(self) -> None:
        if self._batches:
            self._finish_writing()  # one at a time: memory is bounded
            rows = pa.Table.from_batches(self._batches)
            self._written = self.threads.submit(self._writer.write_table, rows)
            self._batches, self._waiting = [], 0

    def _finish_writing(self) -> None:
        if self._written is not None:
            self._written.result()


def _fitted(values: Any, kind: pa.DataType) -> Any:
    """Values in the type of their column. Whole numbers become decimals; any other change could lose
    something without a word, as Arrow makes 7 of "007"."""
    if values.type == kind:
        return values
    assert (values.type, kind) == (ARROW_TYPES["bigint"], ARROW_TYPES["decimal"]), "two types"
    return values.cast(kind)
