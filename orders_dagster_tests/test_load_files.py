"""The files of a load: each row in a file of its table, each column of one type, whatever comes when."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.common.configuration.container import Container
from dlt.common.destination import DestinationCapabilitiesContext

from orders_dagster.columns import column_type, default_naming, naming_for, parents
from orders_dagster.load_files import LoadFiles, arrow_schema
from orders_dagster.places import LIST, Naming
from orders_dagster.rows import Rows
from orders_dagster.values import Values

AT = "2024-01-02T03:04:05Z"


class Load:
    """One load into a folder."""

    def __init__(
        self, directory: Path, schema: dlt.Schema | None = None, naming: Naming | None = None
    ) -> None:
        self.directory = directory
        self.schema = schema or dlt.Schema("orders")
        self.files = LoadFiles(self.schema, directory, "load-1")
        self.rows = Rows(
            "order_id",
            "last_modified_date",
            naming=naming or default_naming(),
            values=Values(lambda column: column_type(schema, column)),
            parents=parents(schema),
        )

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


def test_lists_of_one_name_in_an_object_and_in_a_list_have_tables_of_their_own(
    tmp_path: Path,
) -> None:
    """dlt calls both `orders__lines__taxes`, and a column has one type: "007" would be 7."""
    object_here: dict[str, Any] = {"lines": {"taxes": [{"code": 7, "parts": [{"n": 1}]}]}}
    list_there: dict[str, Any] = {"lines": [{"taxes": [{"code": "007", "parts": [{"n": "1"}]}]}]}
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()

    first = Load(tmp_path / "first")
    first.write({"order_id": "A"} | object_here, {"order_id": "B"} | list_there)
    first.files.close()
    # Another run, in which they come the other way round.
    second = Load(tmp_path / "second", first.schema)
    second.write({"order_id": "B"} | list_there, {"order_id": "A"} | object_here)
    second.files.close()

    for load in (first, second):
        assert load.column("orders__lines__taxes", "code") == ["7"]
        assert load.column("orders__lines__taxes__v_2", "code") == ["007"]
        assert load.column("orders__lines__taxes__parts", "n") == ["1"]
        assert load.column("orders__lines__taxes__parts__v_2", "n") == ["1"]
    assert parents(first.schema)["orders__lines__taxes"] == "orders"
    assert parents(first.schema)["orders__lines__taxes__v_2"] == "orders__lines"


def test_a_list_keeps_its_table_though_the_other_one_was_empty_before(tmp_path: Path) -> None:
    """An empty list makes no table, and the next run does not know that there was one."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first = Load(tmp_path / "first")
    first.write(
        {"order_id": "A", "lines": {"taxes": []}},
        {"order_id": "B", "lines": [{"taxes": [{"code": "a"}]}]},
    )
    first.files.close()
    (table,) = (name for name in first.schema.tables if "taxes" in name)

    second = Load(tmp_path / "second", first.schema)
    second.write({"order_id": "C", "lines": [{"taxes": [{"code": "c"}]}]})
    second.files.close()

    assert second.column(table, "code") == ["c"]


LIMITED = DestinationCapabilitiesContext.generic_capabilities()
LIMITED.max_identifier_length = LIMITED.max_column_identifier_length = 63  # those of Postgres


def test_names_longer_than_the_destination_takes_are_those_that_dlt_gives() -> None:
    """dlt shortens a shortened name again now and then, and would not find the values of ours."""
    words = (
        "customer",
        "billing",
        "shipping",
        "address",
        "contact",
        "location",
        "details",
        "payment",
    )
    chosen = random.Random(7)
    naming = naming_for(LIMITED)
    with Container().injectable_context(LIMITED):
        of_dlt = dlt.Schema("orders").naming

    for _ in range(5000):
        levels = range(chosen.randint(3, 6))
        names = ["_".join(chosen.sample(words, chosen.randint(1, 2))) for _ in levels]
        for path in ((*names,), (names[0], LIST, *names[1:]), (*names, LIST)):
            table, column = naming.place(path)
            variant = naming.join(column, "v_text")
            assert [*map(of_dlt.normalize_path, (column, variant))] == [column, variant]
            assert of_dlt.normalize_tables_path(table) == table


def test_a_variant_of_a_long_name_is_kept(tmp_path: Path) -> None:
    """With what dlt appends to it, it is longer than the destination takes."""
    name = "long_name_" * 6
    with Container().injectable_context(LIMITED):
        load = Load(tmp_path, naming=naming_for(LIMITED))
        load.write({"order_id": "A", name: 1}, {"order_id": "B", name: "beside"})
        load.files.close()

    (rows,) = (table.to_pylist() for table in load.tables("orders"))
    assert [set(map(str, row.values())) & {"1", "beside"} for row in rows] == [{"1"}, {"beside"}]


def test_rows_that_do_not_fit_their_column_are_not_made_to(tmp_path: Path) -> None:
    """Arrow would make 7 of "007" without a word; that is for values.py to decide."""
    load = Load(tmp_path)
    (batch,) = load.rows.of([{"order_id": "A", "last_modified_date": AT, "code": 7}]).batches
    batch.columns["code"] = pa.array(["007"])

    with pytest.raises(AssertionError, match="two types"):
        load.files.write([batch])
