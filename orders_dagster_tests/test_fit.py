"""The tables right before a load: as the run has found or left them, or it says who has changed them; and
their columns hold what comes as it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from orders_dagster.errors import (
    ColumnsAltered,
    TablesUnknown,
    WarehouseChanged,
    WarehouseRefused,
)
from orders_dagster.repair import repair
from orders_dagster.settings import read_settings
from orders_dagster_tests.small_api import Answer, Answering, Api, order, page
from orders_dagster_tests.victim import At, zygote
from orders_dagster_tests.world import RUN, Project, expected, loaded

Serve = Callable[[Answering], Api]


def harming(project: Project, orders: list[dict[str, Any]], harms: list[str]) -> Answering:
    """An API during whose next answer each harm is done to the tables, once."""

    def answer(query: dict[str, str]) -> Answer:
        if harms:
            project.execute(harms.pop())
        return page(orders, query)

    return answer


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TABLE ecommerce.orders",
        "DROP TABLE ecommerce.orders__items",
        "ALTER TABLE ecommerce.orders DROP COLUMN note",
        "DROP SCHEMA ecommerce CASCADE",
        "DELETE FROM ecommerce.orders",
        "DELETE FROM ecommerce.orders__items",
    ],
)
@pytest.mark.parametrize("has_new_field", [True, False])
def test_what_somebody_drops_or_empties_while_a_run_reads_comes_back(
    project: Project, serve: Serve, harm: str, has_new_field: bool
) -> None:
    """With a new field, dlt makes anew what is gone, without what was in it; the next run would see tables
    as they should be, and read on from the watermark."""
    orders = [order(n, n, note=f"note {n}", items=[{"line": 1}]) for n in range(20)]
    harms: list[str] = []
    serve(harming(project, orders, harms))
    project.set(lag_seconds=0)
    project.synchronise()
    fields = {"fresh": 1} if has_new_field else {}
    orders.append(order(50, 100, note="new", items=[{"line": 1}], **fields))
    harms.append(harm)

    with pytest.raises(WarehouseChanged, match="While the orders were read, "):
        project.synchronise()
    project.synchronise()

    assert project.orders() == expected(orders)
    notes = project.query("SELECT note FROM ecommerce.orders")
    assert {note for (note,) in notes} == {order["note"] for order in orders}
    assert project.synchronise().was_gone == ()


def test_rejected_orders_that_somebody_drops_while_a_run_reads_come_back(
    project: Project, serve: Serve
) -> None:
    """They wait there until they can be merged, and nothing else tells of them."""
    orders = [order(1, 1), order(2, 2, order_id=None), order(3, 3, order_id="zz")]
    harms: list[str] = []
    serve(harming(project, orders, harms))
    project.set(lag_seconds=0)
    project.synchronise()
    orders.append(order(4, 100, order_id=None, fresh=1))
    harms.append("DROP TABLE ecommerce.orders_rejected")

    with pytest.raises(WarehouseChanged, match="orders_rejected was dropped"):
        project.synchronise()
    project.synchronise()

    assert project.scalar("SELECT count(*) FROM ecommerce.orders_rejected") == 3


def test_a_list_of_few_orders_that_somebody_empties_while_a_run_reads_comes_back(
    project: Project, serve: Serve
) -> None:
    """The next run would take it for empty by changes in the shop. What the shop has deleted stays."""
    orders = [order(n, n, ship_To=7, items=[{"line": 1}]) for n in range(20)]
    orders += [order(n, n, ship_To=7, shipTo="x", items=[{"line": 1}]) for n in range(20, 30)]
    orders[7]["tags"] = ["gift"]
    harms: list[str] = []
    serve(harming(project, orders, harms))
    project.set(lag_seconds=0)
    project.synchronise()
    orders.append(order(50, 100, items=[{"line": 1}]))
    orders[:3] = [order(n, n, shipTo="x", items=[{"line": 1}]) for n in range(3)]
    del orders[3]
    harms.append("DELETE FROM ecommerce.orders__tags")

    with pytest.raises(WarehouseChanged, match="orders__tags was dropped or emptied"):
        project.synchronise()
    project.synchronise()

    assert project.query("SELECT value FROM ecommerce.orders__tags") == [("gift",)]
    assert loaded(project) == {*range(30), 50}
    spelt = (
        "SELECT DISTINCT ship_to, ship_to_2 FROM ecommerce.orders WHERE order_id BETWEEN 20 AND 29"
    )
    assert project.query(spelt) == [(7, "x")], "each field keeps its column"


def test_rejected_orders_may_be_cleared_away_while_a_run_reads(
    project: Project, serve: Serve
) -> None:
    """As at any other time: who clears them does not want them back."""
    orders = [order(1, 1, items=[{"line": 1}]), order(2, 2, order_id=None)]
    harms: list[str] = []
    serve(harming(project, orders, harms))
    project.set(lag_seconds=0)
    project.synchronise()
    orders.append(order(3, 100, items=[{"line": 1}]))
    harms.append("DELETE FROM ecommerce.orders_rejected")

    project.synchronise()

    assert project.orders() == expected([orders[0], orders[2]])


def test_a_column_of_rejected_orders_that_somebody_drops_while_a_run_reads_comes_back(
    project: Project, serve: Serve
) -> None:
    orders = [order(1, 1), order(2, 2, order_id=None), order(9, 50)]
    harms: list[str] = []
    serve(harming(project, orders, harms))
    project.set(lag_seconds=0)
    project.synchronise()
    orders.append(order(4, 100, order_id=None))
    harms.append("ALTER TABLE ecommerce.orders_rejected DROP COLUMN modified_at")

    with pytest.raises(WarehouseChanged, match="orders_rejected.modified_at was dropped"):
        project.synchronise()
    project.synchronise()

    dates = project.query("SELECT modified_at FROM ecommerce.orders_rejected")
    assert len(dates) == 2
    assert (None,) not in dates


def test_what_another_run_has_loaded_while_this_one_read_is_not_overwritten(
    project: Project, serve: Serve
) -> None:
    """The working directory, where the lock is, may be another: of another user, container or machine."""
    orders = [order(n, n, items=[{"line": 1}]) for n in range(20)]
    serve(lambda query: page(orders, query))
    project.set(lag_seconds=60)
    project.synchronise()
    orders.append(order(50, 1000, items=[{"line": 1}]))
    others = [os.environ | {"DLT_DATA_DIR": str(project.directory / "other")}]

    def other_run(said: str) -> None:
        if said.startswith("Normalized") and others:
            orders[-1] = order(50, 1001, items=[{"line": 1}, {"line": 2}])
            orders.append(order(60, 5000, items=[{"line": 1}]))
            subprocess.run([sys.executable, "-c", RUN], env=others.pop(), check=True)

    with pytest.raises(WarehouseChanged, match="another run has loaded orders"):
        project.synchronise(other_run)
    project.synchronise()

    assert project.orders() == expected(orders)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("DROP TABLE ecommerce.orders__tags", "another run has begun to read all orders again"),
        ("DELETE FROM ecommerce.orders__tags", "another run has begun to read all orders again"),
        ("DELETE FROM ecommerce.orders", "another run has begun to read all orders again"),
        ("DROP TABLE ecommerce._dlt_pipeline_state", "_dlt_pipeline_state was dropped or emptied"),
    ],
)
def test_a_run_does_not_hide_that_another_one_was_killed_while_it_read_all_orders_again(
    project: Project, serve: Serve, harm: str, told: str
) -> None:
    """That one has filled the tables in part. With a load of this one, they would be taken for whole."""
    orders = [order(n, n, tags=["a"], items=[{"line": 1}]) for n in range(50)]
    serve(lambda query: page(orders, query))
    project.set(checkpoint_orders=10, page_size=5, workers=1, lag_seconds=0)
    project.synchronise()
    orders.append(order(50, 100, tags=["a"], items=[{"line": 1}]))
    own = project.directory / "other"

    def other_run(said: str) -> None:
        if said.startswith("Normalized") and not own.exists():
            project.execute(harm)
            with pytest.MonkeyPatch.context() as environment, zygote() as victims:
                environment.setenv("DLT_DATA_DIR", str(own))
                killed = victims.synchronise(At(sql=r'INSERT INTO "ecommerce"\."_dlt_loads"'))
                assert killed.signal == signal.SIGKILL

    with pytest.raises(WarehouseChanged, match=told):
        project.synchronise(other_run)
    project.synchronise()

    assert project.orders() == expected(orders)
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__tags") == 51
    assert project.synchronise().was_gone == ()


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TABLE ecommerce_staging.orders",
        "DROP TABLE ecommerce_staging.orders__items",
        "ALTER TABLE ecommerce_staging.orders DROP COLUMN note",
        "ALTER TABLE ecommerce_staging.orders ALTER note TYPE BIGINT",
        "DROP SCHEMA ecommerce_staging CASCADE",
    ],
)
def test_what_dlt_merges_from_is_made_anew_where_it_is_not_as_it_was(
    project: Project, serve: Serve, harm: str
) -> None:
    """dlt trusts its table of versions there; each run would fail, or make 7 of "007"."""
    orders = [order(n, n, note="1", items=[{"line": 1}]) for n in range(3)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    project.execute(harm)
    orders[0] = order(0, 9, note="007", items=[{"line": 1}, {"line": 2}])

    project.synchronise()

    assert project.orders() == expected(orders)
    assert project.scalar("SELECT note FROM ecommerce.orders WHERE order_id = 0") == "007"


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TABLE ecommerce_staging.orders_rejected",
        "ALTER TABLE ecommerce_staging.orders_rejected DROP COLUMN modified_at",
        "ALTER TABLE ecommerce_staging.orders_rejected ALTER order_id TYPE BIGINT",
        "DROP TABLE ecommerce_staging.orders",
    ],
)
def test_what_rejected_orders_are_merged_from_is_made_anew_too(
    project: Project, serve: Serve, harm: str
) -> None:
    """Also in a later load than that of the orders: dlt makes what the one load needs."""
    orders = [order(1, 1, items=[{"line": 1}]), order(2, 2, order_id=None)]
    serve(lambda query: page(orders, query))
    project.set(lag_seconds=0)
    project.synchronise()
    project.execute(harm)
    orders += [order(3, 10, items=[{"line": 1}])]
    project.synchronise()
    orders += [order(4, 20, order_id=None), order(5, 21, order_id="zz")]

    project.synchronise()

    assert project.orders() == expected([orders[0], orders[2]])
    assert project.scalar("SELECT count(*) FROM ecommerce.orders_rejected") == 3


def test_what_others_keep_beside_the_tables_that_dlt_merges_from_stays(
    project: Project, serve: Serve
) -> None:
    """`<dataset>_staging` is a name that others like, too."""
    orders = [order(1, 1, items=[{"line": 1}])]
    serve(lambda query: page(orders, query))
    project.execute("CREATE SCHEMA ecommerce_staging")
    project.execute("CREATE TABLE ecommerce_staging.stg_orders AS SELECT 1 AS x")
    project.synchronise()
    project.execute("ALTER TABLE ecommerce_staging.orders DROP COLUMN last_modified_date")
    orders = [order(1, 2, items=[{"line": 1}])]
    project.synchronise()
    project.execute("DROP TABLE ecommerce.orders")

    project.synchronise()

    assert project.scalar("SELECT count(*) FROM ecommerce_staging.stg_orders") == 1
    assert project.orders() == expected(orders)


@pytest.mark.parametrize("forget", ["DROP TABLE", "DELETE FROM"])
def test_tables_that_dlt_has_forgotten_are_made_anew(
    project: Project, serve: Serve, forget: str
) -> None:
    """It would know only those of what comes next: lists that orders do not have any more would stay."""
    orders = [order(n, n, code=7, tags=["a"], items=[{"line": 1}]) for n in range(20)]
    serve(lambda query: page(orders, query))
    project.set(lag_seconds=0)
    project.synchronise()
    project.execute(f"{forget} ecommerce._dlt_version")
    orders = [order(n, 100 + n, code="007", items=[{"line": 1}]) for n in range(20)]

    result = project.synchronise()

    assert result.was_gone == ("_dlt_version",)
    assert project.orders() == expected(orders)
    assert set(project.query("SELECT code FROM ecommerce.orders")) == {("007",)}
    tables = project.query("SELECT table_name FROM information_schema.tables")
    assert ("orders__tags",) not in tables
    assert project.synchronise().was_gone == ()


def test_tables_are_made_anew_whatever_somebody_has_made_of_the_dates(
    project: Project, serve: Serve
) -> None:
    orders = [order(n, n, items=[{"line": 1}]) for n in range(3)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    project.execute("ALTER TABLE ecommerce.orders ALTER last_modified_date TYPE DATE")
    project.execute("DROP TABLE ecommerce.orders__items")

    project.synchronise()

    assert project.orders() == expected(orders)


def test_a_list_that_had_become_empty_is_made_anew_with_the_others(
    project: Project, serve: Serve
) -> None:
    """It holds nothing, but its columns would have the types of then."""
    orders = [order(n, n, codes=[7]) for n in range(5)]
    serve(lambda query: page(orders, query))
    project.set(lag_seconds=0)
    project.synchronise()
    orders[:] = [order(n, 10 + n) for n in range(5)]
    project.synchronise()
    project.execute("DROP TABLE ecommerce._dlt_version")
    project.synchronise()
    orders[0] = order(0, 30, codes=["007"])

    project.synchronise()

    assert project.query("SELECT value FROM ecommerce.orders__codes") == [("007",)]


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TABLE ecommerce.orders",
        "ALTER TABLE ecommerce.orders DROP COLUMN last_modified_date",
        "ALTER TABLE ecommerce.orders_rejected DROP COLUMN order_id",
    ],
)
def test_a_repair_brings_back_what_was_dropped(project: Project, serve: Serve, harm: str) -> None:
    """There is nothing to compare, and a table of rejected orders whose order nobody can look for."""
    orders = [order(n, n, items=[{"line": 1}]) for n in range(3)]
    listed = [*orders, order(3, 30, order_id=None), order(4, 31, order_id="zz")]
    serve(lambda query: page(listed, query))
    project.synchronise()
    project.execute(harm)

    repaired = repair(read_settings())

    assert "gone" in (repaired.not_compared or "")
    assert project.orders() == expected(orders)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("orders ALTER code TYPE BIGINT", "orders.code holds BIGINT, not text"),
        ("orders ALTER code TYPE FLOAT", "orders.code holds FLOAT, not text"),
        ("orders ALTER code TYPE UINTEGER", "orders.code holds UINTEGER, not text"),
        ("orders ALTER total TYPE DOUBLE", "orders.total holds DOUBLE, not decimal"),
        ("orders ALTER total TYPE BIGINT", "orders.total holds BIGINT, not decimal"),
        ("orders ALTER paid TYPE TIMESTAMP_S", "orders.paid holds TIMESTAMP_S, not timestamp"),
        (
            "orders__items ALTER price TYPE DECIMAL(18, 2)",
            r"orders__items.price holds DECIMAL\(18,2\), not decimal",
        ),
        ("orders ADD coupon BIGINT", "orders.coupon holds BIGINT, not text"),
        ("orders ALTER units TYPE INTEGER", "orders.units holds INTEGER, not bigint"),
        (
            "orders ALTER last_modified_date TYPE DATE",
            "orders.last_modified_date holds date, not timestamp",
        ),
        (
            "orders ALTER last_modified_date TYPE VARCHAR",
            "orders.last_modified_date holds text, not timestamp",
        ),
    ],
)
def test_a_column_that_somebody_has_given_another_type_is_named(
    project: Project, serve: Serve, change: str, named: str
) -> None:
    """Without a word, the destination would make 7 of "007", and cut a fraction."""
    dated = {"total": 0.123, "paid": "2024-01-01T00:00:00.750Z"}
    fields = {**dated, "units": 7, "items": [{"price": 0.123}]}
    orders = [order(n, n, code="1", **fields) for n in range(3)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    project.execute(f"ALTER TABLE ecommerce.{change}")
    table, _, column = named.partition(" ")[0].partition(".")
    orders[0] = order(0, 9, code="007", coupon="007", **fields)

    with pytest.raises(ColumnsAltered, match=named):
        project.synchronise()

    project.execute(f"ALTER TABLE ecommerce.{table} DROP {column}")
    project.synchronise()
    rows = project.query(
        "SELECT code, total, price, epoch_ms(paid) % 1000 FROM ecommerce.orders o "
        "JOIN ecommerce.orders__items i ON i._dlt_parent_id = o._dlt_id ORDER BY order_id"
    )
    fraction = Decimal("0.123")
    assert rows == [(code, fraction, fraction, 750) for code in ("007", "1", "1")]
    assert project.scalar("SELECT coupon FROM ecommerce.orders WHERE order_id = 0") == "007"


@pytest.mark.parametrize("change", ["total TYPE DECIMAL(38, 12)", "units TYPE HUGEINT"])
def test_a_column_that_somebody_has_made_wider_is_loaded(
    project: Project, serve: Serve, change: str
) -> None:
    """Nothing is lost in it."""
    orders = [order(n, n, total=0.5, units=1, items=[{"line": 1}]) for n in range(3)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    project.execute(f"ALTER TABLE ecommerce.orders ALTER {change}")
    orders[0] = order(0, 9, total=0.123456789, units=2**62, items=[{"line": 1}])

    project.synchronise()

    found = project.query("SELECT total, units FROM ecommerce.orders WHERE order_id = 0")
    assert found == [(Decimal("0.123456789"), 2**62)]


def test_a_rejected_order_whose_id_would_be_changed_is_not_loaded(
    project: Project, serve: Serve
) -> None:
    orders = [order(1, 1, order_id="A"), order(2, 2, last_modified_date="x")]
    serve(lambda query: {"orders": orders[int(query["offset"]) :], "total": len(orders)})
    project.set(paging="offset")
    project.synchronise()
    project.execute("ALTER TABLE ecommerce.orders_rejected ALTER order_id TYPE BIGINT")
    orders.append(order(3, 3, order_id="007", last_modified_date="x"))

    with pytest.raises(ColumnsAltered, match="orders_rejected.order_id holds BIGINT, not text"):
        project.synchronise()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE ecommerce.orders RENAME note TO Note",
        "CREATE TABLE ecommerce.t AS FROM ecommerce.orders; DROP TABLE ecommerce.orders;"
        "ALTER TABLE ecommerce.t RENAME TO ORDERS",
    ],
)
def test_a_name_in_capitals_is_the_same_name(project: Project, serve: Serve, change: str) -> None:
    """As it is to DuckDB."""
    orders = [order(n, n, note="old", items=[{"line": 1}]) for n in range(3)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    project.execute(change)
    orders[0] = order(0, 9, note="new", items=[{"line": 1}])

    project.synchronise()

    assert project.orders() == expected(orders)


def test_tables_that_somebody_else_has_made_are_left_alone(project: Project, serve: Serve) -> None:
    serve(lambda query: page([order(1, 1, items=[{"line": 1}])], query))
    project.execute(
        "CREATE SCHEMA ecommerce; CREATE TABLE ecommerce.orders AS SELECT 1 AS id, 'theirs' AS whose;"
        "CREATE TABLE ecommerce.orders__items AS SELECT 'theirs' AS whose"
    )

    with pytest.raises(TablesUnknown, match=r"ecommerce.*orders.* holds rows"):
        project.synchronise()

    assert project.scalar("SELECT whose FROM ecommerce.orders") == "theirs"
    assert project.scalar("SELECT whose FROM ecommerce.orders__items") == "theirs"


def test_a_table_of_somebody_elses_is_left_alone_where_ours_are_made_anew(
    project: Project, serve: Serve
) -> None:
    """It is called as a list that comes for the first time."""
    orders = [order(1, 1, items=[{"line": 1}])]
    serve(lambda query: page(orders, query))
    project.synchronise()
    project.execute("CREATE TABLE ecommerce.orders__notes AS SELECT 'theirs' AS whose")
    project.execute("DROP TABLE ecommerce._dlt_version")
    orders = [order(1, 2, items=[{"line": 1}], notes=[{"x": 1}])]

    with pytest.raises(WarehouseRefused):
        project.synchronise()

    assert project.scalar("SELECT whose FROM ecommerce.orders__notes") == "theirs"


def test_a_table_that_is_none_of_dlts_any_more_is_named(project: Project, serve: Serve) -> None:
    """Somebody has tidied up: what dlt merges by is gone."""
    serve(lambda query: page([order(1, 1, items=[{"line": 1}])], query))
    project.synchronise()
    project.execute("DROP TABLE ecommerce._dlt_version")
    project.execute(
        "CREATE OR REPLACE TABLE ecommerce.orders AS "
        "SELECT order_id, last_modified_date FROM ecommerce.orders"
    )

    with pytest.raises(TablesUnknown):
        project.synchronise()


@pytest.mark.parametrize("code", [8, "007"])
def test_tables_that_nothing_of_dlt_tells_of_are_named(
    project: Project, serve: Serve, code: Any
) -> None:
    """As in a copy of the tables alone: lists that orders do not have any more would stay. Dropped, they
    come back."""
    orders = [order(n, n, code=7, tags=["a"], items=[{"line": 1}]) for n in range(3)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    for table in ("_dlt_version", "_dlt_pipeline_state", "_dlt_loads"):
        project.execute(f"DROP TABLE ecommerce.{table}")
    orders = [order(n, 10 + n, code=code, items=[{"line": 1}]) for n in range(3)]

    with pytest.raises(TablesUnknown, match="Drop it with its child tables"):
        project.synchronise()
    for table in ("orders__tags", "orders__items", "orders"):
        project.execute(f"DROP TABLE ecommerce.{table}")
    project.synchronise()

    assert project.orders() == expected(orders)
    assert set(project.query("SELECT code FROM ecommerce.orders")) == {(code,)}
