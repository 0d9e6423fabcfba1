"""A long first synchronisation is a sequence of complete loads, each of which is the last one's heir."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from urllib.parse import parse_qsl

import pytest

from orders_dagster.destination import orders_pipeline
from orders_dagster.errors import ApiUnavailable
from orders_dagster.warehouse import open_warehouse
from orders_dagster_tests.small_api import Answer, Api
from orders_dagster_tests.world import Project, Shop, expected

OpenShop = Callable[..., Shop]


def loads(project: Project) -> int:
    return int(project.scalar("SELECT count(*) FROM ecommerce._dlt_loads"))


def test_a_first_load_is_cut_into_checkpoints(project: Project, shop: OpenShop) -> None:
    """A load is a checkpoint and at most a window more, and the sums are those of the whole."""
    store = shop(orders=1000)
    project.set(checkpoint_orders=200, page_size=100)

    result = project.synchronise()

    assert project.orders() == expected(store.orders())
    assert loads(project) >= 4
    assert (result.loaded, result.new, result.updated, result.unchanged) == (1000, 1000, 0, 0)
    sizes = project.query("SELECT count(*) FROM ecommerce.orders GROUP BY _dlt_load_id")
    assert max(size for (size,) in sizes) <= 400


def test_an_increment_is_counted_over_its_checkpoints(project: Project, shop: OpenShop) -> None:
    """An order that two checkpoints read is loaded once."""
    store = shop(orders=300)
    project.synchronise()
    store.change(new=150, modify=120)
    project.set(checkpoint_orders=50, page_size=20)

    result = project.synchronise()

    assert project.orders() == expected(store.orders())
    assert (result.new, result.updated) == (150, 120)
    assert result.loaded == 270 + result.unchanged


def test_a_fraction_after_a_checkpoint_is_not_cut_where_no_column_can_be_widened(
    project: Project, shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T18: the column that the first load has made holds whole numbers, and stays; beside it nothing is
    lost."""
    file = project.directory / "orders.sqlite"
    monkeypatch.setenv("DESTINATION_TYPE", "sqlalchemy")
    monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", f"sqlite:///{file}")
    store = shop(orders=0)
    store.put(
        *(
            {
                "order_id": f"A-{n:03}",
                "last_modified_date": f"2026-01-01T{n // 60:02}:{n % 60:02}:00.000Z",
                "total": 10 if n < 150 else 10.5,
                "items": [],
            }
            for n in range(200)
        )
    )
    project.set(checkpoint_orders=50, page_size=20, workers=1)

    project.synchronise()

    with orders_pipeline(5) as pipeline, open_warehouse(pipeline, 5) as warehouse:
        found = warehouse.query(
            "SELECT total, total__v_decimal, count(*) "
            f"FROM {warehouse.name('orders')} GROUP BY 1, 2 ORDER BY 3"
        )
    assert [(row[0], row[2]) for row in found] == [(None, 50), (10, 150)]
    assert float(found[0][1]) == 10.5


def test_a_run_that_fails_keeps_its_checkpoints(project: Project, shop: OpenShop) -> None:
    """T15: hours of reading must not be read again for one bad minute of the shop."""
    store = shop(orders=1000)
    project.set(checkpoint_orders=200, page_size=100)
    store.script(*["ok"] * 9, *["503"] * 100)

    with pytest.raises(ApiUnavailable):
        project.synchronise()
    kept = len(project.orders())
    store.script()
    result = project.synchronise()

    assert kept >= 200
    assert result.watermark_before is not None
    assert result.new == 1000 - kept
    assert project.orders() == expected(store.orders())


BULK = "2024-05-01T12:00:00.000Z"


def bulk_import(store: Shop, orders: int) -> None:
    """So many orders with one date, and one behind them."""
    dated = {f"A-{n}": BULK for n in range(orders)} | {"B": "2024-05-02T12:00:00.000Z"}
    store.put(
        *(
            {"order_id": key, "last_modified_date": date, "items": [{"line": 1}]}
            for key, date in dated.items()
        )
    )


@pytest.mark.parametrize("paging", ["seek", "offset"])
def test_one_timestamp_larger_than_a_checkpoint_is_loaded_in_parts(
    project: Project, shop: OpenShop, paging: str
) -> None:
    """A bulk change of a million orders would be a million in memory. It is read once, and to its end: a
    run that stopped inside would start there for ever."""
    store = shop(orders=0)
    bulk_import(store, 400)
    project.set(checkpoint_orders=100, page_size=20, paging=paging)

    result = project.synchronise()

    assert project.orders() == expected(store.orders())
    assert (result.loaded, result.new, result.updated, result.unchanged) == (401, 401, 0, 0)
    sizes = project.query("SELECT count(*) FROM ecommerce.orders GROUP BY _dlt_load_id")
    assert max(size for (size,) in sizes) <= 200
    offsets = [dict(parse_qsl(one["query"])).get("offset", "0") for one in store.requests()]
    assert sum(offset != "0" for offset in offsets) <= 400 / 19 + 2


def test_a_run_that_fails_within_one_timestamp_starts_there_again(
    project: Project, shop: OpenShop
) -> None:
    """What was loaded of it stays, and the watermark is not behind it."""
    store = shop(orders=0)
    bulk_import(store, 400)
    project.set(checkpoint_orders=100, page_size=20, workers=1)
    store.script(*["ok"] * 18, *["503"] * 100)

    with pytest.raises(ApiUnavailable):
        project.synchronise()
    kept = len(project.orders())
    store.script()
    result = project.synchronise()

    assert 100 <= kept < 400
    assert result.watermark_before == datetime.fromisoformat(BULK)
    assert project.orders() == expected(store.orders())
    assert result.new == 401 - kept


def test_what_several_checkpoints_of_a_run_read_again_is_counted_once(
    project: Project, shop: OpenShop
) -> None:
    """An unstable order of ties is read over and over, and the tables hold what this run has loaded."""
    store = shop(orders=0, unstable_ties=True)
    bulk_import(store, 16)
    store.delete("B")  # the bulk is the newest, and read again
    project.set(checkpoint_orders=12, page_size=4, workers=1, lag_seconds=0)
    project.synchronise()
    store.put(
        *({"order_id": f"A-{n}", "last_modified_date": "2024-05-03T00:00:00Z"} for n in (1, 2))
    )
    store.put({"order_id": "new", "last_modified_date": "2024-05-03T00:00:01Z"})

    result = project.synchronise()

    assert (result.loaded, result.new, result.updated, result.unchanged) == (17, 1, 2, 14)


def test_an_order_that_changes_between_two_checkpoints_of_a_run_is_counted_as_updated(
    project: Project, shop: OpenShop
) -> None:
    """The first of them has read it as it was, and again, since the lag is long."""
    store = shop(orders=0)
    dates = [f"2024-05-01T00:{minute:02}:00Z" for minute in range(40)]
    orders = [{"order_id": at, "last_modified_date": at, "items": [{"line": 1}]} for at in dates]
    store.put(*orders[:20])
    project.set(checkpoint_orders=10, page_size=4, workers=1, lag_seconds=86400)
    project.synchronise()
    store.put(*orders[20:])

    def change(line: str) -> None:
        if line.startswith("Normalized"):
            store.put(
                {"order_id": dates[0], "last_modified_date": "2024-05-01T01:00:00Z", "items": []}
            )

    result = project.synchronise(change)

    assert (result.loaded, result.new, result.updated, result.unchanged) == (40, 20, 1, 19)
    assert project.orders() == expected(store.orders())


def test_an_older_version_in_a_later_checkpoint_overwrites_nothing(project: Project) -> None:
    """An API that answers from several copies of its data may show it, the newer one first."""
    dates = {f"A-{n}": f"2024-05-01T{n // 60:02}:{n % 60:02}:00Z" for n in range(300)}
    listed = [{"order_id": key, "last_modified_date": dates[key], "n": 0} for key in dates]
    listed.insert(0, {"order_id": "A-299", "last_modified_date": "2024-06-01T00:00:00Z", "n": 1})

    def answer(query: dict[str, str]) -> Answer:
        at = int(query["offset"])
        return {"orders": listed[at : at + int(query["limit"])]}

    with Api(answer).running() as api:
        project.point_at(api.url, login=False)
        project.set(checkpoint_orders=50, page_size=20, paging="offset", total_path="")
        result = project.synchronise()

    assert loads(project) > 1
    assert project.scalar("SELECT n FROM ecommerce.orders WHERE order_id = 'A-299'") == 1
    assert (result.new, result.updated, result.unchanged) == (300, 0, 0)


def test_orders_dated_in_the_future_end_the_checkpoints(project: Project, shop: OpenShop) -> None:
    """The watermark never passes now, so a reading that stops behind now would start there again."""
    store = shop(orders=0)
    store.put(
        *(
            {"order_id": f"F-{n}", "last_modified_date": f"2099-01-01T00:{n:02d}:00Z", "items": []}
            for n in range(60)
        )
    )
    project.set(checkpoint_orders=10, page_size=5)

    assert project.synchronise().loaded == 60


def test_the_first_fraction_after_a_checkpoint_widens_the_column(
    project: Project, shop: OpenShop
) -> None:
    """T18 within one run: the column was made for whole numbers a checkpoint ago."""
    store = shop(orders=0)
    store.put(
        *(
            {
                "order_id": n,
                "total": 10 if n < 55 else 10.25,
                "last_modified_date": f"2024-05-01T12:{n:02d}:00Z",
                "items": [],
            }
            for n in range(60)
        )
    )
    project.set(checkpoint_orders=10, page_size=5)

    project.synchronise()

    assert float(project.scalar("SELECT sum(total) FROM ecommerce.orders")) == 601.25
    assert not [name for name in project.columns("orders") if name.startswith("total__")]
