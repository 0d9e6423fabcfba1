"""The warehouse file is shared with people: waiting for it, and two runs at once."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dlt
import duckdb
import pytest

from orders_dagster import warehouse
from orders_dagster.assets import ORDERS_KEY, orders_assets
from orders_dagster.destination import orders_pipeline
from orders_dagster.doctor.resolved import resolved_of_dlt
from orders_dagster.doctor.storage import Storage, opened, reached
from orders_dagster.errors import SettingsError, WarehouseBusy, WarehouseRefused, without_values
from orders_dagster.pipeline import synchronise
from orders_dagster.settings import read_settings
from orders_dagster_tests.small_api import Answering, Api, order, page
from orders_dagster_tests.world import Project, Shop, Tables, expected, holder, loaded

OpenShop = Callable[..., Shop]


@pytest.mark.parametrize("kind", ["writer", "reader"])
def test_a_file_that_stays_open_elsewhere_is_an_error_that_names_the_holder(
    project: Project, shop: OpenShop, kind: str
) -> None:
    """T10: "file is locked" does not help at three in the morning; a program and a pid do."""
    shop(orders=10)
    project.synchronise()
    before = project.orders()
    project.set(warehouse_wait_seconds=0.3)

    with holder(project, kind) as process, pytest.raises(WarehouseBusy) as busy:
        project.synchronise()

    assert f"(process {process.pid})" in str(busy.value)
    assert "sources.orders.warehouse_wait_seconds" in str(busy.value)
    assert project.orders() == before


@pytest.mark.parametrize("length", [0, 12, 4096, 3 * 4096 - 1])
def test_a_file_that_duckdb_did_not_finish_is_replaced(
    project: Project, shop: OpenShop, length: int
) -> None:
    """A process that is killed while it makes the file leaves what nobody can open."""
    store = shop(orders=3)
    project.execute("CREATE TABLE anything (n INT)")
    whole = project.database.read_bytes()
    project.database.write_bytes(whole[:length])

    project.synchronise()

    assert project.orders() == expected(store.orders())


@pytest.mark.parametrize(
    "content", [b"credentials of somebody else", b"PAR1" * 50, b"\0" * 8 + b"DU"]
)
def test_a_file_that_is_not_duckdbs_is_left_alone(
    project: Project, shop: OpenShop, content: bytes
) -> None:
    """A slip in the name of the warehouse costs nobody a file."""
    shop(orders=3)
    project.database.write_bytes(content)

    with pytest.raises(WarehouseRefused):
        project.synchronise()

    assert project.database.read_bytes() == content


@pytest.mark.parametrize("mebibytes", [1, 2])
def test_too_little_memory_for_a_checkpoint_of_duckdb_costs_nothing(
    project: Project, shop: OpenShop, monkeypatch: pytest.MonkeyPatch, mebibytes: int
) -> None:
    """DuckDB refuses the limit, or gives up the file until it is opened again (see test_upstream.py)."""
    store = shop(orders=500)
    monkeypatch.setattr(warehouse, "CHECKPOINT_LIMIT", f"SELECT {mebibytes} << 20")

    result = project.synchronise()

    assert (result.loaded, result.rows_in_table) == (500, 500)
    assert not project.database.with_name(project.database.name + ".wal").exists()
    assert project.orders() == expected(store.orders())


def test_two_synchronisations_at_once_do_not_damage_each_other(
    project: Project, shop: OpenShop
) -> None:
    """Two runs of one dlt pipeline share a working directory and corrupt each other's files."""
    store = shop(orders=600, latency_ms=30)
    script = "from orders_dagster.pipeline import *; from orders_dagster.settings import *; "
    script += "synchronise(read_settings(), lambda line: print(line, flush=True))"
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert sum("Another synchronisation is running; waiting" in text for text in said) == 1
    assert project.orders() == expected(store.orders())


def test_the_watermark_stays_before_a_run_that_waits_for_the_warehouse(
    project: Project, shop: OpenShop
) -> None:
    """What becomes visible late, beside an order that changed during the wait, must not be passed."""
    store = shop(orders=10)
    project.synchronise()
    project.set(lag_seconds=0)
    started_at = datetime.now(UTC)
    with ExitStack() as held:
        held.enter_context(holder(project))

        def change_and_let_go(line: str) -> None:
            if "waiting" in line:
                store.put({"order_id": "A", "items": []})
                held.close()

        result = project.synchronise(change_and_let_go)

    changed_at = project.orders()["A"][0]
    assert result.watermark_after is not None
    assert started_at <= result.watermark_after < changed_at


@pytest.mark.parametrize(
    "named",
    [
        {"DESTINATION_TYPE": "books"},
        {"DESTINATION_TYPE": "duckdb", "DESTINATION_NAME": "books"},
    ],
    ids=["type named elsewhere", "type and name"],
)
def test_a_destination_with_a_name_of_its_own_is_what_its_type_is(
    project: Project, shop: OpenShop, monkeypatch: pytest.MonkeyPatch, named: dict[str, str]
) -> None:
    """T18: by its name it would be an unknown warehouse, whose whole numbers cannot become decimals."""
    file = project.directory / "books.duckdb"
    for name, value in named.items():
        monkeypatch.setenv(f"PIPELINES__ORDERS__{name}", value)
    monkeypatch.setenv("DESTINATION__BOOKS__DESTINATION_TYPE", "duckdb")
    monkeypatch.setenv("DESTINATION__BOOKS__CREDENTIALS", str(file))
    monkeypatch.delenv("DESTINATION__DUCKDB__CREDENTIALS")
    store = shop(orders=0)
    for order_id, total in (("A", 10), ("B", 10.5)):
        store.put({"order_id": order_id, "total": total, "items": []})
        result = project.synchronise()

    assert result.warehouse == str(file)
    assert Tables(file).query("SELECT sum(total) FROM ecommerce.orders") == [(Decimal("20.5"),)]
    assert not [name for name in Tables(file).columns("orders") if name.startswith("total__")]
    assert "duckdb" in orders_assets().get_asset_spec(ORDERS_KEY).kinds
    lines = resolved_of_dlt(Storage("books", "duckdb", place=str(file)))
    assert [(line.value, line.source) for line in lines if line.key.endswith("credentials")] == [
        (str(file), "the environment variable DESTINATION__BOOKS__CREDENTIALS")
    ]


@pytest.mark.parametrize("name", ["call Jane Roe", "Jane O'Hara-Roe", "O'Jane \"Janey\"\nR'oe"])
def test_what_the_warehouse_quotes_is_not_shown(
    project: Project, shop: OpenShop, name: str
) -> None:
    """A load that is refused quotes the row; customers' data must not get into the event log."""
    store = shop(orders=5)
    project.synchronise()
    project.execute("UPDATE ecommerce.orders SET note = order_id")
    project.execute("CREATE UNIQUE INDEX one_note ON ecommerce.orders (note)")
    store.put(*({"order_id": key, "note": name, "items": []} for key in "AB"))

    with pytest.raises(WarehouseRefused, match="dlt failed to load the orders") as refused:
        project.synchronise()

    assert not re.search("Jane|Roe|Hara|oe'", str(refused.value))
    assert "onstraint" in str(refused.value)
    assert refused.value.__cause__ is None


def test_nor_are_numbers_that_it_shows_without_quotation_marks(project: Project) -> None:
    project.execute("CREATE TABLE small (a INTEGER)")
    with pytest.raises(duckdb.ConversionException, match="1099511627776") as refused:
        project.execute("INSERT INTO small SELECT 1099511627776::BIGINT")

    shown = without_values(str(refused.value))

    assert "1099511627776" not in shown
    assert shown.endswith("out of range for the destination type INT32")


@pytest.mark.parametrize(
    "table",
    ["orders", "orders__items", "orders_rejected", "_dlt_loads", "_dlt_pipeline_state"],
)
def test_a_table_that_was_dropped_is_rebuilt(project: Project, shop: OpenShop, table: str) -> None:
    """Merging into it would fail for ever, and the watermark would hide the older orders."""
    store = shop(orders=300)
    store.put({"order_id": "A", "last_modified_date": "never"})
    project.synchronise()
    project.execute(f"DROP TABLE ecommerce.{table}")
    said: list[str] = []

    synchronise(read_settings(), said.append)

    shop_orders = [order for order in store.orders() if order["order_id"] != "A"]
    assert project.orders() == expected(shop_orders)
    assert project.scalar("SELECT count(*) FROM ecommerce.orders_rejected") == 1
    assert f"{table} is not in the warehouse any more, empty, or rebuilt in part" in said[0]


@pytest.mark.parametrize(
    ("table", "column"),
    [("orders", "currency"), ("orders__items", "sku"), ("orders", "deleted_at")],
)
def test_a_column_that_was_dropped_is_filled_again(
    project: Project, shop: OpenShop, table: str, column: str
) -> None:
    """Merging into the table would fail for ever, and a new column would be empty but for new orders."""
    store = shop(orders=50)
    project.synchronise()
    before = project.scalar(f"SELECT count({column}) FROM ecommerce.{table}")
    project.execute(f"ALTER TABLE ecommerce.{table} DROP COLUMN {column}")

    project.synchronise()

    assert project.orders() == expected(store.orders())
    assert project.scalar(f"SELECT count({column}) FROM ecommerce.{table}") == before


@pytest.mark.parametrize("killed", [False, True])
def test_columns_are_of_the_types_of_today_where_the_tables_are_made_anew(
    project: Project, serve: Callable[[Answering], Api], killed: bool
) -> None:
    """The dataset that dlt merges from outlives the one that was dropped, and a rebuild that was killed; it
    made 7 of "007"."""
    orders = [order(n, n, code=7, items=[{"code": 7}]) for n in range(3)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    orders = [order(n, n, code="007", items=[{"code": "007"}]) for n in range(3)]
    project.execute(
        "DROP TABLE ecommerce.orders__items" if killed else "DROP SCHEMA ecommerce CASCADE"
    )
    if killed:
        # As dlt leaves it between dropping the tables and telling the dataset that it merges from.
        project.execute("DROP TABLE ecommerce.orders; DELETE FROM ecommerce._dlt_version")

    project.synchronise()

    assert set(project.query("SELECT code FROM ecommerce.orders")) == {("007",)}
    assert set(project.query("SELECT code FROM ecommerce.orders__items")) == {("007",)}
    orders.append(order(3, 3, code="A7"))
    project.synchronise()
    assert project.scalar("SELECT code FROM ecommerce.orders WHERE order_id = 3") == "A7"


@pytest.mark.parametrize("table", ["orders", "orders__items"])
def test_a_table_that_was_emptied_is_filled_again(
    project: Project, shop: OpenShop, table: str
) -> None:
    """The watermark would hide every order that is not changed any more."""
    store = shop(orders=100)
    project.synchronise()
    project.synchronise()
    project.execute(f"DELETE FROM ecommerce.{table}")

    project.synchronise()

    assert project.orders() == expected(store.orders())
    assert project.synchronise().was_gone == ()


def test_what_the_shop_has_deleted_stays_when_a_list_is_filled_again(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Nobody else has a copy of it. So it is when the list has come to its end in the shop, and the
    warehouse has lost orders since: it is looked for once."""
    orders = [order(n, n, tags=["new"] if n < 5 else []) for n in range(60)]
    serve(lambda query: page(orders, query))
    project.set(lag_seconds=0)
    project.synchronise()
    project.execute("UPDATE ecommerce.orders SET deleted_at = now() WHERE order_id = 58")
    orders[:5] = [order(n, 100 + n) for n in range(5)]
    project.synchronise()
    del orders[57:59]
    project.execute("DELETE FROM ecommerce.orders WHERE order_id BETWEEN 10 AND 49")

    after = [project.synchronise(), project.synchronise()]

    assert [one.was_gone for one in after] == [("orders__tags",), ()]
    assert after[1].loaded < 10, "everything is read once"
    assert loaded(project) == set(range(60))
    assert project.query("SELECT order_id FROM ecommerce.orders WHERE deleted_at IS NOT NULL") == [
        (58,)
    ]


def test_lists_in_a_list_that_was_emptied_go_with_it(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Those of an order that the shop has deleted come with no other element."""
    orders = [order(n, n, items=[{"line": 1, "taxes": [{"rate": 7}]}]) for n in range(20)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    project.execute("DELETE FROM ecommerce.orders__items")
    del orders[2]

    project.synchronise()

    assert loaded(project) == set(range(20))
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__items__taxes") == 19


def test_a_list_that_was_emptied_is_filled_again_in_a_shop_that_has_grown(
    project: Project, shop: OpenShop
) -> None:
    """No single run has brought a tenth of what there is."""
    store = shop(orders=0)
    project.set(lag_seconds=0)
    for hour in range(13):
        dates = [f"2026-01-01T{hour:02}:{minute:02}:00Z" for minute in range(10)]
        store.put(
            *({"order_id": at, "last_modified_date": at, "items": [{"line": 1}]} for at in dates)
        )
        project.synchronise()
    project.execute("DELETE FROM ecommerce.orders__items")

    result = project.synchronise()

    assert result.was_gone == ("orders__items",)
    assert project.orders() == expected(store.orders())


def test_a_list_that_one_order_had_several_rows_of_may_become_empty(
    project: Project, shop: OpenShop
) -> None:
    """It is orders that are counted, or the rows of one would be those of a tenth of them."""
    store = shop(orders=30)
    refunded = {"order_id": "A", "items": [], "refunds": [{"amount": n} for n in range(4)]}
    store.put(refunded)
    project.synchronise()
    store.put(refunded | {"refunds": []})
    project.synchronise()

    assert project.scalar("SELECT count(*) FROM ecommerce.orders__refunds") == 0
    assert project.synchronise().was_gone == ()


def test_a_list_that_few_orders_had_may_become_empty(project: Project, shop: OpenShop) -> None:
    """The shop has taken it away: that is no reason to read everything again, not even once."""
    store = shop(orders=0)
    now = datetime.now(UTC)
    orders = [{"order_id": n, "last_modified_date": now.isoformat()} for n in range(30)]
    store.put(*orders, {**orders[0], "tags": ["new", "vip"]})
    project.synchronise()
    store.put({**orders[0], "last_modified_date": (now + timedelta(seconds=1)).isoformat()})
    project.synchronise()

    assert project.scalar("SELECT count(*) FROM ecommerce.orders__tags") == 0
    assert project.synchronise().was_gone == ()


@pytest.mark.parametrize("checkpoint", [50_000, 2])
def test_a_list_that_many_orders_had_may_become_empty_by_their_changes(
    project: Project, shop: OpenShop, checkpoint: int
) -> None:
    """Returns that are closed, one after the other: orders that the shop has deleted stay. A list that
    somebody empties afterwards is filled again."""
    store = shop(orders=0)
    start = datetime.now(UTC) - timedelta(hours=1)

    def put(key: int, second: int, **lists: Any) -> None:
        at = (start + timedelta(seconds=second)).isoformat()
        store.put({"order_id": key, "last_modified_date": at} | lists)

    for n in range(5):
        put(n, n, returns=[{"n": 1}, {"n": 2}], tags=["new"])
    project.set(checkpoint_orders=checkpoint, page_size=2)
    project.synchronise()
    for step, keys in enumerate([[3], [0, 2], [1]]):
        for key in keys:
            put(key, 10 + step, returns=[], tags=["new"])
        assert project.synchronise().was_gone == ()
    put(4, 20, returns=[], tags=["new"])
    store.delete("3")

    after = [project.synchronise().was_gone, project.synchronise().was_gone]
    rows = project.scalar("SELECT count(*) FROM ecommerce.orders__returns")
    project.execute("DELETE FROM ecommerce.orders__tags")

    assert (after, rows) == ([(), ()], 0)
    assert project.scalar("SELECT count(*) FROM ecommerce.orders") == 5
    assert project.synchronise().was_gone == ("orders__tags",)


def test_a_list_that_a_quiet_run_has_counted_is_noticed_when_it_is_emptied(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """It reads no order, since the newest is gone, and what it has found is known from then on."""
    orders = [order(n, n, items=[{"line": 1}]) for n in range(100)]
    serve(lambda query: page(orders, query))
    project.set(lag_seconds=0)
    project.synchronise()
    for first in (200, 210):
        few = range(first, first + 6)
        orders += [order(n, n, items=[{"line": 1}], returns=[{"n": 1}]) for n in few]
        project.synchronise()
    orders.pop()
    project.synchronise()
    project.execute("DELETE FROM ecommerce.orders__returns")

    project.synchronise()

    assert project.scalar("SELECT count(*) FROM ecommerce.orders__returns") == 11


def test_a_list_that_only_older_versions_have_is_not_taken_for_emptied(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Another copy of the API's data still shows it; nothing of that is loaded."""
    newer = [order(n, 20 + n, tags=["new"]) for n in range(5)]
    older = [order(n, 10 + n, tags=["new"], returns=[{"n": 1}]) for n in range(5)]
    shown = newer
    serve(lambda query: page(shown, query))
    project.synchronise()
    shown = older
    project.synchronise()
    shown = newer

    assert project.synchronise().was_gone == ()


def test_a_list_may_become_empty_beside_an_older_version_that_has_it(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """The load brings rows for its table, and none of them is loaded: nobody else has emptied it."""
    orders = [order(n, n, tags=["new"], returns=[{"n": 1}]) for n in range(5)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    orders[0] = order(0, 20, tags=["new"])
    project.synchronise()
    orders = [
        order(0, 10, tags=["new"], returns=[{"n": 1}]),
        *(order(n, 20 + n, tags=["new"]) for n in range(1, 5)),
    ]
    project.synchronise()
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__returns") == 0
    orders[0] = order(0, 20, tags=["new"])

    assert project.synchronise().was_gone == ()


@pytest.mark.parametrize("is_first", [True, False])
def test_a_list_that_only_earlier_versions_in_one_load_have_is_not_taken_for_emptied(
    project: Project, serve: Callable[[Answering], Api], is_first: bool
) -> None:
    """As an API lists them that shows each change of an order. What the shop has deleted since stays."""
    orders = [order(n, n, tags=["new"], returns=[{"n": 1}]) for n in range(50)]
    serve(lambda query: page(orders, query))
    project.set(page_size=2, lag_seconds=0)
    if not is_first:
        project.synchronise()
        orders += [order(n, 1000 + n, tags=["new"], returns=[{"n": 2}]) for n in range(50)]
    orders += [order(n, 2000 + n, tags=["new"]) for n in range(50)]
    project.synchronise()
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__returns") == 0
    orders = orders[-9:]

    assert project.synchronise().was_gone == ()
    assert project.scalar("SELECT count(*) FROM ecommerce.orders") == 50


def test_a_long_list_that_the_last_order_had_may_become_empty(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """However many elements it has: it is the load of that order which empties it."""
    orders = [order(n, n, events=[{"n": i} for i in range(300)]) for n in range(5)]
    serve(lambda query: page(orders, query))
    project.set(lag_seconds=0)
    project.synchronise()
    for n in range(4):
        orders[n] = order(n, 100 + n, events=[])
    project.synchronise()
    orders[4] = order(4, 200, events=[])
    project.synchronise()

    assert project.scalar("SELECT count(*) FROM ecommerce.orders__events") == 0
    assert project.synchronise().was_gone == ()


def test_tables_that_a_killed_first_load_has_left_cut_no_value(
    project: Project, shop: OpenShop
) -> None:
    """T18: they are there and no load tells of them; a fraction, or a text, does not fit their columns."""
    store = shop(orders=0)
    store.put({"order_id": 1, "total": 10, "code": 7, "items": [{"price": 3}]})
    project.synchronise()
    for table in ("_dlt_loads", "_dlt_pipeline_state", "orders", "orders__items"):
        project.execute(f"DELETE FROM ecommerce.{table}")
    store.put({"order_id": 1, "total": 10.25, "code": "007", "items": [{"price": 3.5}]})

    project.synchronise()

    assert project.query("SELECT total, code, code__v_text FROM ecommerce.orders") == [
        (Decimal("10.25"), None, "007")
    ]
    assert project.scalar("SELECT price FROM ecommerce.orders__items") == Decimal("3.5")

    store.put({"order_id": 1, "total": 10.5, "code": "A-7", "items": []})
    project.synchronise()

    assert project.query("SELECT total, code__v_text FROM ecommerce.orders") == [
        (Decimal("10.5"), "A-7")
    ]


@pytest.mark.usefixtures("project")
def test_what_dlt_changes_of_what_a_destination_can_do_stays_with_it() -> None:
    """The destination is asked once, and a load changes the file formats for itself."""
    with orders_pipeline(5) as pipeline:
        naming = dlt.Schema("orders").naming
        for by in (None, naming):
            told = pipeline.destination.capabilities(naming=by)
            before = list(told.supported_loader_file_formats or [])
            told.preferred_loader_file_format = "jsonl"
            assert told.supported_loader_file_formats is not None
            told.supported_loader_file_formats.clear()  # type: ignore[attr-defined]

            again = pipeline.destination.capabilities(naming=by)

            assert again.preferred_loader_file_format == "insert_values"
            assert again.supported_loader_file_formats == before != []


@pytest.mark.parametrize(
    "name",
    [
        "ecommerce.duckdb",
        "Ecommerce.v2.db",
        "ecommerce_staging.duckdb",
        "information_schema.duckdb",
    ],
)
def test_a_file_that_is_called_as_the_dataset_is_named(
    project: Project, shop: OpenShop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """DuckDB calls the database by its file, and finds each table's name ambiguous."""
    shop(orders=5)
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(project.directory / name))

    with pytest.raises(SettingsError, match=f"{name} is called as a schema.*dataset_name"):
        project.synchronise()
    with opened() as storage:
        finding = reached(storage)

    assert "is called as a schema" in finding.message
    assert finding.settings == ("destination.duckdb.credentials",)
    assert not (project.directory / name).exists()


def test_a_file_among_dlts_working_files_is_named_and_not_removed(
    project: Project, shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are removed at the start of each run, and `:pipeline:` is dlt's own place for a database."""
    shop(orders=5)
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", ":pipeline:")

    with pytest.raises(SettingsError, match="among dlt's working files"):
        project.synchronise()
    file = project.directory / "dlt" / "pipelines" / "orders" / "orders.duckdb"
    file.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE of_a_pipeline_that_ran_before (n INTEGER)")
    with pytest.raises(SettingsError, match="among dlt's working files"):
        project.synchronise()

    assert file.exists()


def test_an_index_that_keeps_a_column_from_becoming_decimal_is_an_error_in_words(
    project: Project, shop: OpenShop
) -> None:
    """DuckDB refuses to alter a table that an index depends on, outside of dlt's steps."""
    store = shop(orders=0)
    store.put({"order_id": "A", "total": 10, "items": []})
    project.synchronise()
    project.execute("CREATE INDEX mine ON ecommerce.orders (order_id)")
    store.put({"order_id": "A", "total": 10.5, "items": []})

    with pytest.raises(WarehouseRefused, match="failed to load the orders: DependencyException"):
        project.synchronise()
    project.execute("DROP INDEX ecommerce.mine")
    project.synchronise()

    assert project.query("SELECT total FROM ecommerce.orders") == [(Decimal("10.5"),)]
