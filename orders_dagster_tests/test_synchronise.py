"""The tables follow the shop: over real HTTP, into a real DuckDB file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from orders_dagster.errors import LoadedByAnother
from orders_dagster_tests.small_api import Answering, Api, page
from orders_dagster_tests.world import Project, Shop, expected

OpenShop = Callable[..., Shop]


def order(order_id: Any = "A-1", **fields: Any) -> dict[str, Any]:
    """A small order that is modified now, unless it says otherwise."""
    return {"order_id": order_id, "status": "paid", "total": 10, "items": [item(1)]} | fields


def item(line: int, **fields: Any) -> dict[str, Any]:
    return {"line": line, "sku": f"S{line}", "quantity": 1, "unit_price": 2.5} | fields


def test_a_first_load_brings_every_order_with_its_items(project: Project, shop: OpenShop) -> None:
    """The basic promise: every order once, in its latest version, with exactly its items."""
    store = shop(orders=700)

    result = project.synchronise()

    assert project.orders() == expected(store.orders())
    assert (result.loaded, result.new, result.updated, result.unchanged) == (700, 700, 0, 0)
    assert result.rows_in_table == 700
    assert result.watermark_before is None
    assert result.watermark_after == max(time for time, _ in project.orders().values())


def test_an_increment_merges_new_and_changed_orders_only(project: Project, shop: OpenShop) -> None:
    """Changes arrive, and reading them does not cost what the first load costs."""
    store = shop(orders=1500)
    first = project.synchronise()
    store.change(new=20, modify=30, modify_twice=5, remove_items=7)

    second = project.synchronise()

    assert project.orders() == expected(store.orders())
    assert (second.new, second.updated) == (20, 42)
    assert second.loaded == second.new + second.updated + second.unchanged
    assert second.pages < first.pages
    assert second.watermark_before == first.watermark_after
    assert second.rows_in_table == 1520


def test_an_idle_increment_changes_nothing(project: Project, shop: OpenShop) -> None:
    """A quiet shop: nothing new or updated is reported, and the tables stay as they are."""
    shop(orders=300)
    first = project.synchronise()
    before = project.orders()

    idle = project.synchronise()

    assert project.orders() == before
    assert (idle.new, idle.updated, idle.rejected) == (0, 0, 0)
    assert idle.watermark_after == first.watermark_after


def test_an_increment_without_any_order_keeps_the_watermark(
    project: Project, shop: OpenShop
) -> None:
    """With no lag there may be nothing at all to read: no load, no error, the same watermark."""
    store = shop(orders=0)
    store.put(order("A-1"))
    first = project.synchronise()
    store.delete("A-1")

    idle = project.synchronise()

    assert idle.loaded == 0
    assert idle.rows_in_table == 1
    assert idle.watermark_after == first.watermark_after


def test_an_item_removed_from_an_order_disappears(project: Project, shop: OpenShop) -> None:
    """Revenue by item is wrong for good if a removed item stays, and worse if all were removed."""
    store = shop(orders=0)
    store.put(order("A-1", items=[item(1), item(2), item(3)]), order("A-2", items=[item(1)]))
    project.synchronise()

    store.put(order("A-1", items=[item(2)]), order("A-2", items=[]))
    project.synchronise()

    items = project.query("SELECT sku FROM ecommerce.orders__items")
    assert items == [("S2",)]


def test_all_items_removed_in_a_load_without_any_item(project: Project, shop: OpenShop) -> None:
    """A load in which no order has items still has to delete the items of before."""
    store = shop(orders=0)
    store.put(order("A-1", items=[item(1), item(2)]))
    project.synchronise()

    store.put(order("A-1", items=[]))
    project.synchronise()

    assert project.scalar("SELECT count(*) FROM ecommerce.orders__items") == 0


def test_amounts_are_exact_decimals(project: Project, shop: OpenShop) -> None:
    """0.1 + 0.2 is 0.3 in a ledger. As floats, the finance team's sums differ in the last cents."""
    store = shop(orders=0)
    store.put(*(order(f"A-{n}", total=0.1, items=[item(1, unit_price=0.2)]) for n in range(10)))

    project.synchronise()

    assert project.scalar("SELECT sum(total) FROM ecommerce.orders") == Decimal("1.0")
    assert project.scalar("SELECT sum(unit_price) FROM ecommerce.orders__items") == Decimal("2.0")
    assert project.columns("orders")["total"].startswith("DECIMAL")


def test_the_first_fraction_in_a_later_run_widens_the_column(
    project: Project, shop: OpenShop
) -> None:
    """T18 across runs: a column that held only whole numbers becomes decimal, with its old values."""
    store = shop(orders=0)
    store.put(order("A-1", total=10, items=[item(1, unit_price=3)]))
    project.synchronise()
    assert project.columns("orders")["total"] == "BIGINT"

    store.put(order("A-2", total=10.5, items=[item(1, unit_price=3.25)]))
    project.synchronise()
    store.put(order("A-3", total=7))
    project.synchronise()

    assert project.scalar("SELECT sum(total) FROM ecommerce.orders") == Decimal("27.5")
    assert project.scalar("SELECT sum(unit_price) FROM ecommerce.orders__items") == Decimal("8.75")
    assert not [name for name in project.columns("orders") if name.startswith("total__")]


def test_times_are_utc_timestamps(project: Project, shop: OpenShop) -> None:
    """A date as text sorts by its spelling; two shops in two time zones would never compare."""
    store = shop(orders=0)
    store.put(
        order(
            "A-1", last_modified_date="2024-05-01T12:00:00+02:00", order_date="2024-05-01T10:00:00Z"
        )
    )

    project.synchronise()

    assert project.columns("orders")["last_modified_date"] == "TIMESTAMP WITH TIME ZONE"
    assert project.columns("orders")["order_date"] == "TIMESTAMP WITH TIME ZONE"
    ((modified, ordered),) = project.query(
        "SELECT last_modified_date, order_date FROM ecommerce.orders"
    )
    assert modified == ordered == datetime(2024, 5, 1, 10, tzinfo=UTC)


def test_a_new_field_becomes_a_column(project: Project, shop: OpenShop) -> None:
    """The shop may add fields whenever it likes; nobody has to edit a schema for that."""
    store = shop(orders=0)
    store.put(order("A-1"))
    project.synchronise()

    store.put(order("A-2", loyalty={"tier": "gold", "points": 12}))
    project.synchronise()

    assert project.query(
        "SELECT order_id, loyalty__tier, loyalty__points FROM ecommerce.orders ORDER BY 1"
    ) == [("A-1", None, None), ("A-2", "gold", 12)]


def test_a_field_that_changes_type_is_not_lost(project: Project, shop: OpenShop) -> None:
    """Numbers become text in real APIs. Both must be in the tables, "007" not as 7."""
    store = shop(orders=0)
    store.put(order("A-1", reference=7))
    project.synchronise()

    store.put(order("A-2", reference="R-8"), order("A-3", reference="007"))
    project.synchronise()

    assert project.query(
        "SELECT order_id, reference, reference__v_text FROM ecommerce.orders ORDER BY 1"
    ) == [("A-1", 7, None), ("A-2", None, "R-8"), ("A-3", None, "007")]


def test_an_awkward_order_arrives_whole(project: Project, shop: OpenShop) -> None:
    """One order in which every field is awkward on purpose: nothing of it may stop or be cut."""
    store = shop(orders=0)
    note = "“Grüße” 东京 🎁 \\ ' \" \n\t end"
    store.put(
        order(
            "Ä/1 ?&",
            note=note,
            big=12345678901234567890123,
            precise=0.1234567890123,
            empty={},
            nothing=None,
            tags=["a", "b"],
            matrix=[[1, 2], [3]],
            CamelCase=True,
        )
    )

    project.synchronise()

    ((found, big, precise, camel),) = project.query(
        "SELECT note, big__v_text, precise__v_text, camel_case FROM ecommerce.orders"
    )
    assert (found, big, precise, camel) == (
        note,
        "12345678901234567890123",
        "0.1234567890123",
        True,
    )
    assert project.query("SELECT value FROM ecommerce.orders__tags ORDER BY 1") == [("a",), ("b",)]


def test_a_nul_in_a_text_is_replaced(project: Project, shop: OpenShop) -> None:
    """JSON can write it, Postgres has no text that holds it: one order would stop every run."""
    store = shop(orders=0)
    store.put(order("A-1", note="a\0\0b", path="C:\\u0000", other="\\\0"))

    project.synchronise()

    assert project.query("SELECT note, path, other FROM ecommerce.orders") == [
        ("a\ufffd\ufffdb", "C:\\u0000", "\\\ufffd")
    ]


def test_orders_that_are_all_dated_in_the_future_are_compared_as_any(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """A shop that writes its local time as UTC. Read again they are unchanged, and an older copy of them
    overwrites nothing."""
    ahead = datetime.now(UTC) + timedelta(hours=9)

    def dated(n: int, hours: int, version: int) -> dict[str, Any]:
        time = (ahead + timedelta(hours=hours, seconds=n)).isoformat(timespec="milliseconds")
        return order(n, last_modified_date=time, version=version)

    orders = [dated(n, 0, 2) for n in range(5)]
    serve(lambda query: page(orders, query))
    project.synchronise()

    assert project.synchronise().unchanged == 5

    orders[:] = [dated(n, -1, 1) for n in range(5)]
    project.synchronise()
    assert project.query("SELECT DISTINCT version FROM ecommerce.orders") == [(2,)]


def test_an_order_dated_in_the_future_does_not_take_the_watermark_with_it(
    project: Project, shop: OpenShop
) -> None:
    """With the watermark in the year 2099, no change until then would ever be read."""
    store = shop(orders=0)
    store.put(order("A-1", last_modified_date="2099-01-01T00:00:00Z"))
    first = project.synchronise()
    store.put(order("A-2"))

    second = project.synchronise()

    assert set(project.orders()) == {"A-1", "A-2"}
    assert first.watermark_after is not None
    assert first.watermark_after <= datetime.now(UTC)
    assert second.watermark_after is not None
    assert second.watermark_after <= datetime.now(UTC)


def test_an_order_that_becomes_visible_late_is_read_within_the_lag(
    project: Project, shop: OpenShop
) -> None:
    """A transaction that commits late carries a date from before the watermark."""
    store = shop(orders=0)
    now = datetime.now(UTC)
    store.put(order("A-1", last_modified_date=now.isoformat()))
    project.synchronise()

    store.put(order("A-2", last_modified_date=(now - timedelta(seconds=200)).isoformat()))
    result = project.synchronise()

    assert set(project.orders()) == {"A-1", "A-2"}
    assert (result.new, result.unchanged) == (1, 1)


@pytest.mark.parametrize("paging", ["seek", "offset"])
@pytest.mark.parametrize("behaviour", [{}, {"no_total": True}, {"page_cap": 45}])
def test_both_ways_of_paging_read_everything(
    project: Project, shop: OpenShop, paging: str, behaviour: dict[str, Any]
) -> None:
    """Offset paging is the fallback for poor APIs; on a quiet shop both read all there is."""
    store = shop(orders=600, **behaviour)
    project.set(paging=paging, page_size=100)
    if "no_total" in behaviour:
        project.set(total_path="")

    project.synchronise()

    assert project.orders() == expected(store.orders())


def test_an_api_that_can_neither_filter_nor_sort_is_read_by_offset(
    project: Project, shop: OpenShop
) -> None:
    """The poorest API that can be kept in step: everything is read each time, and merged."""
    store = shop(orders=400, ignore_sort=True, ignore_filter=True)
    project.set(paging="offset", params={})

    project.synchronise()
    store.change(new=5, modify=5)
    project.synchronise()

    assert project.orders() == expected(store.orders())


def test_the_state_is_in_the_warehouse_not_in_the_working_directory(
    project: Project, shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new machine with the same warehouse goes on from the watermark."""
    shop(orders=800)
    first = project.synchronise()
    monkeypatch.setenv("DLT_DATA_DIR", str(project.directory / "another-machine"))

    second = project.synchronise()

    assert second.watermark_before == first.watermark_after
    assert second.pages < first.pages


def test_the_warehouse_keeps_each_order_once(project: Project, shop: OpenShop) -> None:
    """What dlt merges from stays full otherwise: the file is twice as large, and so is what has to be
    deleted when a customer asks for it."""
    store = shop(orders=10)
    project.synchronise()
    store.put(order("B-1"))
    project.synchronise()

    tables = project.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'ecommerce_staging' "
        "AND table_name LIKE 'orders%'"
    )
    assert {name for (name,) in tables} >= {"orders", "orders__items"}
    for (name,) in tables:
        assert project.query(f"SELECT count(*) FROM ecommerce_staging.{name}") == [(0,)], name


def test_a_rejected_order_is_no_reason_for_dlt_to_warn(
    project: Project, shop: OpenShop, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of columns without data, with each load: nobody would read the one warning that matters."""
    store = shop(orders=3)
    store.put({"order_id": None, "items": []}, {"order_id": "A-1", "last_modified_date": "soon"})

    result = project.synchronise()

    assert result.rejected == 2
    assert "WARN" not in "".join(capfd.readouterr())


def test_an_order_that_somebody_put_there_twice_is_merged_into_one(
    project: Project, shop: OpenShop
) -> None:
    """The table then has fewer rows than before, of which no number of new orders is made."""
    store = shop(orders=10)
    project.synchronise()
    project.execute("INSERT INTO ecommerce.orders SELECT * FROM ecommerce.orders")
    store.put(order("B-1"))
    store.change(modify=5)

    result = project.synchronise()

    assert (result.rows_in_table < 20, result.new) == (True, 0)
    assert result.updated == result.loaded >= 6


def test_a_dataset_and_tables_are_named_as_promised(project: Project, shop: OpenShop) -> None:
    """Dashboards are built on these names."""
    store = shop(orders=3)
    store.put(order("B-1", last_modified_date="never"))

    project.synchronise()

    tables = project.query(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = 'ecommerce' AND table_name NOT LIKE '\\_dlt%' ESCAPE '\\'"
    )
    assert {"orders", "orders__items", "orders_rejected"} <= {name for (name,) in tables}


@pytest.mark.parametrize("setting", ["primary_key", "cursor_path"])
@pytest.mark.parametrize("orders", [[], [order("A-1")]])
def test_a_key_or_date_that_has_loaded_nothing_may_be_corrected(
    project: Project, shop: OpenShop, setting: str, orders: list[dict[str, Any]]
) -> None:
    """There is nothing that was loaded by it, and no table that could be dropped."""
    store = shop(orders=0)
    store.put(*orders)
    project.set(paging="offset", **{setting: "misspelt"})
    assert project.synchronise().loaded == 0
    project.unset(setting)
    store.put(order("A-2"))

    project.synchronise()

    assert project.orders() == expected(store.orders())
    assert project.synchronise().was_gone == ()


@pytest.mark.parametrize(
    ("setting", "other", "loaded_by"),
    [
        ("primary_key", "order_number", "order_id"),
        ("cursor_path", "order_date", "last_modified_date"),
    ],
)
def test_another_key_or_date_than_the_tables_were_loaded_by_is_named(
    project: Project, shop: OpenShop, setting: str, other: str, loaded_by: str
) -> None:
    """A watermark says nothing of another date, and rows with another key are not known again."""
    store = shop(orders=30)
    project.set(paging="offset")  # which takes any date
    project.synchronise()
    project.set(**{setting: other})

    with pytest.raises(
        LoadedByAnother, match=rf"{loaded_by}, but sources.orders.{setting} names {other}"
    ):
        project.synchronise()
    project.execute("DROP TABLE ecommerce.orders")
    result = project.synchronise()

    assert result.new == 30
    assert project.orders() == expected(store.orders())
    project.unset(setting)
    with pytest.raises(LoadedByAnother, match=other):
        project.synchronise()
