"""Whether a warehouse equals the shop: numbers and sums of both.

    python -m orders_dagster_tests.bench.sums shop URL
    python -m orders_dagster_tests.bench.sums warehouse FILE
    python -m orders_dagster_tests.bench.sums counts FILE SCHEMA ITEMS_TABLE

A process of its own, see the package. DuckDB is imported late, so that the functions which start
that process cost no memory.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from orders_dagster_tests.bench.places import CHECKOUT

_TIMEOUT_SECONDS = 900

_SHOP_COLUMNS = """{
    order_id: 'VARCHAR', last_modified_date: 'TIMESTAMPTZ', status: 'VARCHAR',
    total: 'DECIMAL(18,4)', items: 'STRUCT(quantity BIGINT, unit_price DECIMAL(18,4))[]'
}"""
_ORDERS = """
    count(*) AS orders, count(DISTINCT order_id) AS order_ids, sum(total) AS total,
    sum(hash(order_id, epoch_ms(last_modified_date), status)) AS versions
"""
_ITEMS = "count(*) AS items, sum(quantity) AS units, sum(quantity * unit_price) AS amount"


class NotSummedUp(Exception):
    """There are no such tables, or they cannot be read."""


@dataclass(frozen=True)
class Sums:
    """What two tables hold, as text, so that amounts stay exact.

    Attributes:
        versions: of all orders, a sum of hashes of id, modification date and status.
    """

    orders: str
    order_ids: str
    items: str
    total: str = ""
    versions: str = ""
    units: str = ""
    amount: str = ""

    def counts(self) -> Sums:
        """The numbers alone: what a table has that splits amounts over two columns."""
        return Sums(self.orders, self.order_ids, self.items)

    def differences(self, shop: Sums) -> list[str]:
        """What is not as in the shop, in words."""
        return [
            f"{field.name} {getattr(self, field.name)}, in the shop {getattr(shop, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(shop, field.name)
        ]


def of_shop_in_a_process(url: str) -> Sums:
    """The truth, without the endpoint that is measured."""
    return _in_a_process("shop", url)


def of_warehouse_in_a_process(warehouse: Path) -> Sums:
    """What this project has loaded."""
    return _in_a_process("warehouse", str(warehouse))


def counts_in_a_process(warehouse: Path, schema: str, items: str) -> Sums:
    """How many orders and items another contender has loaded."""
    return _in_a_process("counts", str(warehouse), schema, items)


def _in_a_process(*arguments: str) -> Sums:
    command = [sys.executable, "-m", f"{__package__}.sums", *arguments]
    done = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
    )
    if done.returncode:
        raise NotSummedUp(f"the {arguments[0]} cannot be summed up: {done.stderr[-1000:]}")
    return Sums(**json.loads(done.stdout))


def _of_shop(url: str) -> Sums:
    with TemporaryDirectory() as directory:
        file = Path(directory) / "orders.ndjson"
        everything = urllib.request.urlopen(f"{url}/_sandbox/orders", timeout=60)
        with everything as answer, file.open("wb") as copy:
            shutil.copyfileobj(answer, copy, 2**20)
        orders = (
            f"read_json('{file}', format = 'newline_delimited', columns = {_SHOP_COLUMNS},"
            " maximum_object_size = 67108864)"
        )
        return _sums(
            f"SELECT {_ORDERS} FROM {orders}",
            f"SELECT {_ITEMS} FROM (SELECT unnest(items, recursive := true) FROM {orders})",
        )


def _of_warehouse(file: str) -> Sums:
    return _sums(
        f"SELECT {_ORDERS.replace('sum(total)', 'sum(total::DECIMAL(18,4))')} FROM ecommerce.orders",
        # An item without its order is not counted, but summed up: it shows.
        f"SELECT {_ITEMS.replace('count(*)', 'count(orders._dlt_id)')} FROM ecommerce.orders__items"
        " LEFT JOIN ecommerce.orders ON orders__items._dlt_parent_id = orders._dlt_id",
        file=file,
    )


def _counts(file: str, schema: str, items: str) -> Sums:
    return _sums(
        f"SELECT count(*) AS orders, count(DISTINCT order_id) AS order_ids FROM {schema}.orders",
        f"SELECT count(*) AS items FROM {schema}.{items}",
        file=file,
    )


def _sums(*queries: str, file: str = ":memory:") -> Sums:
    import duckdb

    found: dict[str, str] = {}
    with duckdb.connect(file, read_only=file != ":memory:") as connection:
        for query in queries:
            answer = connection.execute(query)
            names = [column[0] for column in answer.description or ()]
            row = answer.fetchone() or ()
            found |= {
                name: f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)
                for name, value in zip(names, row, strict=True)
            }
    return Sums(**found)


if __name__ == "__main__":
    _what, *_arguments = sys.argv[1:]
    _functions: dict[str, Callable[..., Sums]] = {
        "shop": _of_shop,
        "warehouse": _of_warehouse,
        "counts": _counts,
    }
    print(json.dumps(asdict(_functions[_what](*_arguments))))
