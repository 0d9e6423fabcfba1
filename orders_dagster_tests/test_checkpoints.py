"""A long first synchronisation is a sequence of complete loads, each of which is the last one's heir."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orders_dagster.destination import orders_pipeline
from orders_dagster.errors import ApiUnavailable
from orders_dagster.warehouse import open_warehouse
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
    store.script(*["ok"] * 7, *["503"] * 100)

    with pytest.raises(ApiUnavailable):
        project.synchronise()
    kept = len(project.orders())
    store.script()
    result = project.synchronise()

    assert kept >= 200
    assert result.watermark_before is not None
    assert result.new == 1000 - kept
    assert project.orders() == expected(store.orders())


def test_one_timestamp_larger_than_a_checkpoint_is_read_whole(
    project: Project, shop: OpenShop
) -> None:
    """A bulk import gives every order one date; stopping inside it would start there for ever."""
    store = shop(orders=0)
    bulk = "2024-05-01T12:00:00Z"
    store.put(
        *({"order_id": f"A-{n}", "last_modified_date": bulk, "items": []} for n in range(250))
    )
    store.put({"order_id": "B", "last_modified_date": "2024-05-02T12:00:00Z", "items": []})
    project.set(checkpoint_orders=50, page_size=20)

    result = project.synchronise()

    assert result.loaded == 251


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
