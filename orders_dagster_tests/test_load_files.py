"""The files of a load: each row in a file of its table, each column of one type, whatever comes when."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.parquet as pq

from orders_dagster.columns import default_naming
from orders_dagster.load_files import LoadFiles, arrow_schema
from orders_dagster.rows import Rows

AT = "2024-01-02T03:04:05Z"


class Load:
    """One load into a folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.schema = dlt.Schema("orders")
        self.files = LoadFiles(self.schema, directory, "load-1")
        self.rows = Rows("order_id", "last_modified_date", naming=default_naming())

    def write(self, *orders: dict[str, Any]) -> None:
        made = self.rows.of([{"last_modified_date": AT} | order for order in orders])
        self.files.write(made.batches)

    def tables(self, name: str) -> list[pa.Table]:
        return [pq.read_table(path) for path in sorted(self.directory.glob(f"{name}.*.parquet"))]

    def column(self, table: str, name: str) -> list[Any]:
        """Its values over all files, as text where they are decimals."""
        found = [row.get(name) for one in self.tables(table) for row in one.to_pylist()]
        return sorted(str(value) for value in found)


def test_rows_go_to_one_file_for_each_table(tmp_path: Path) -> None:
    """A file is a job of the load: hundreds of small ones would take longer than their rows."""
    load = Load(tmp_path)

    load.write({"order_id": "A", "items": [{"line": 1}, {"line": 2}]}, {"order_id": "B"})
    load.write({"order_id": "C", "items": [{"line": 3}]})
    load.files.close()

    assert [len(table) for table in load.tables("orders")] == [3]
    assert [len(table) for table in load.tables("orders__items")] == [3]
    assert load.column("orders", "_dlt_load_id") == ["load-1"] * 3
    (orders,) = load.tables("orders")
    assert (
        orders["last_modified_date"].to_pylist() == [datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)] * 3
    )


def test_a_new_column_starts_another_file(tmp_path: Path) -> None:
    """A field that appears late is in the schema and in the rows that have it."""
    load = Load(tmp_path)

    load.write({"order_id": "A"})
    load.write({"order_id": "B", "gift": True})
    load.write({"order_id": "C"})
    load.files.close()

    assert sorted(len(table) for table in load.tables("orders")) == [1, 2]
    assert load.column("orders", "gift") == ["None", "None", "True"]
    assert load.schema.tables["orders"]["columns"]["gift"]["data_type"] == "bool"


def test_a_fraction_that_comes_late_makes_the_column_decimal_in_every_file(tmp_path: Path) -> None:
    """T18: one type for a column in all files, or a destination would refuse or guess."""
    load = Load(tmp_path)

    load.write({"order_id": "A", "total": 10, "items": [{"price": 1}]})
    load.write({"order_id": "B", "total": Decimal("10.5"), "items": [{"price": Decimal("0.1")}]})
    load.write({"order_id": "C", "total": 3})
    load.files.close()

    assert load.column("orders", "total") == ["10.000000000", "10.500000000", "3.000000000"]
    assert load.column("orders__items", "price") == ["0.100000000", "1.000000000"]
    for table in ("orders", "orders__items"):
        for one in load.tables(table):
            types = {field.name: field.type for field in one.schema}
            assert types == {f.name: f.type for f in arrow_schema(load.schema, table)}


def test_many_rows_are_written_as_they_come(tmp_path: Path) -> None:
    """Memory does not grow with the load: a row group is on disk before the next one is made."""
    load = Load(tmp_path)

    for n in range(5):
        load.write(*({"order_id": f"{n}-{m}"} for m in range(9000)))
    load.files.close()

    (path,) = tmp_path.glob("orders.*.parquet")
    assert pq.ParquetFile(path).num_row_groups == 2
    assert sum(len(table) for table in load.tables("orders")) == 45_000


def test_an_object_here_and_a_list_there_may_hold_the_same_table(tmp_path: Path) -> None:
    """`lines.taxes` is one table whether `lines` is an object or a list: every run would fail otherwise."""
    load = Load(tmp_path)

    load.write({"order_id": "A", "lines": {"taxes": [{"rate": 1}]}})
    load.write({"order_id": "B", "lines": [{"taxes": [{"rate": 2, "code": "VAT"}]}]})
    load.files.close()

    assert load.column("orders__lines__taxes", "rate") == ["1", "2"]
    assert load.column("orders__lines__taxes", "code") == ["None", "VAT"]
