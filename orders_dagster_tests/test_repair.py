"""What differs from the shop is found, mended, and what the shop no longer has is marked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orders_dagster.destination import orders_pipeline
from orders_dagster.reconcile import MOST_REQUESTS, Comparison, compare
from orders_dagster.repair import Repair, joined, repair
from orders_dagster.settings import read_settings
from orders_dagster.span import Span
from orders_dagster.warehouse import open_warehouse
from orders_dagster_tests.small_api import Answer, Api
from orders_dagster_tests.test_replay import page
from orders_dagster_tests.world import Project, Shop, expected

OpenShop = Callable[..., Shop]
START = datetime(2026, 1, 1, tzinfo=UTC)


def order(n: int, **fields: Any) -> dict[str, Any]:
    """An order each hour from the start of 2026 on."""
    modified = (START + timedelta(hours=n)).isoformat(timespec="milliseconds")
    return {
        "order_id": f"A-{n:04}",
        "last_modified_date": modified,
        "total": 10,
        "items": [{"line": 1}],
    } | fields


def deep() -> Any:
    """A value that makes an order one that cannot be merged."""
    value: Any = 1
    for _ in range(70):
        value = [value]
    return value


def compared() -> Comparison:
    with orders_pipeline(5) as pipeline, open_warehouse(pipeline, 5) as warehouse:
        pipeline.sync_destination()
        return compare(read_settings(), warehouse)


def repaired(span: Span | None = None) -> Repair:
    return repair(read_settings(), span=span)


def deleted(project: Project) -> set[str]:
    rows = project.query("SELECT order_id FROM ecommerce.orders WHERE deleted_at IS NOT NULL")
    return {key for (key,) in rows}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that loads the orders leaves a copy of what was loaded, for the others."""
    return tmp_path_factory.mktemp("loaded") / "orders.duckdb"


@pytest.fixture
def loaded(project: Project, shop: OpenShop, warehouse: Path) -> Shop:
    """A thousand orders, loaded, and a last one that is newer than the lag."""
    store = shop(orders=0)
    store.put(*(order(n) for n in range(1000)), order(1200))
    project.set(page_size=50)
    if warehouse.exists():
        shutil.copy(warehouse, project.database)
    else:
        project.synchronise()
        shutil.copy(project.database, warehouse)
    return store


@pytest.mark.usefixtures("loaded")
def test_a_warehouse_in_step_differs_nowhere() -> None:
    """No false alarm, and a request for each window only."""
    found = compared()

    assert (found.differences, found.not_compared) == ((), None)
    assert found.orders == 1000
    assert found.requests <= 30


def test_orders_that_are_missing_are_found_and_come_back(project: Project, loaded: Shop) -> None:
    """Deleted from the tables by hand, or lost before this project: exactly those are read again."""
    lost = [f"A-{n:04}" for n in (17, 500, 501, 502, 999)]
    project.execute(f"DELETE FROM ecommerce.orders WHERE order_id IN {tuple(lost)}")

    found = compared()
    result = repaired()

    assert sum(one.in_api - one.in_warehouse for one in found.differences) == 5
    for key in lost:
        hour = START + timedelta(hours=int(key[2:]))
        assert any(one.span.start <= hour < one.span.end for one in found.differences)
    assert sum(one.in_api for one in found.differences) <= 5 * 50, "windows of a page, not more"
    assert project.orders() == expected(loaded.orders())
    assert sum(run.new for run in result.runs) == 5
    assert result.marked == 0
    assert not deleted(project)
    assert compared().differences == ()


def test_items_whose_order_was_deleted_by_hand_go_with_the_repair(
    project: Project, loaded: Shop
) -> None:
    """The order comes back with its items; those of before would be counted twice in every sum."""
    loaded.put(order(7, tags=["new"], items=[{"line": 1, "serials": ["1", "2"]}]))
    project.synchronise(span=Span(START, START + timedelta(days=1)))
    items = "SELECT count(*) FROM ecommerce.orders__items"
    before = project.scalar(items)
    project.execute("DELETE FROM ecommerce.orders WHERE order_id IN ('A-0007', 'A-0500')")

    result = repaired()

    assert result.orphans == 2 + 1 + 2, "items, a tag, serials of an item"
    assert project.scalar(items) == before
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__items__serials") == 2
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__tags") == 1
    assert project.orders() == expected(loaded.orders())
    assert repaired().orphans == 0


def test_items_that_go_with_the_repair_are_not_taken_for_emptied_at_the_cost_of_others(
    project: Project, loaded: Shop
) -> None:
    """Nobody has tags any more: the next run looks for some, and what the shop has deleted stays marked."""
    tagged = [order(n, tags=["new"]) for n in range(200)]
    loaded.put(*tagged)
    project.synchronise(span=Span(START, START + timedelta(days=30)))
    for one in (*tagged, order(700)):
        loaded.delete(one["order_id"])
    project.execute("DELETE FROM ecommerce.orders WHERE order_id < 'A-0200'")
    assert repaired().orphans > 200
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__tags") == 0

    after = [project.synchronise().was_gone, project.synchronise().was_gone]

    assert after == [("orders__tags",), ()]
    assert deleted(project) == {"A-0700"}


def test_orders_that_the_shop_deleted_are_marked_and_not_removed(
    project: Project, loaded: Shop
) -> None:
    """Finance may have booked them: they stay, with the time since when they are gone."""
    before = datetime.now(UTC)
    for n in (3, 700, 701):
        loaded.delete(f"A-{n:04}")

    found = compared()
    result = repaired()

    assert sum(one.in_warehouse - one.in_api for one in found.differences) == 3
    assert deleted(project) == {"A-0003", "A-0700", "A-0701"}
    assert result.marked == 3
    marked = "SELECT min(deleted_at), max(deleted_at) FROM ecommerce.orders"
    assert all(before <= at <= datetime.now(UTC) for at in project.query(marked)[0])
    assert project.scalar("SELECT count(*) FROM ecommerce.orders") == 1001
    assert compared().differences == (), "marked orders are not expected in the API"
    assert repaired().marked == 0


def test_what_equal_numbers_hide_behind_a_difference_is_mended_with_it(
    project: Project, loaded: Shop
) -> None:
    """One order lost and another one deleted in a window are as many as before."""
    loaded.delete("A-0003")
    project.execute("DELETE FROM ecommerce.orders WHERE order_id = 'A-0700'")
    loaded.delete("A-0701")

    repaired()

    assert deleted(project) == {"A-0003", "A-0701"}
    assert project.scalar("SELECT count(*) FROM ecommerce.orders") == 1001
    assert compared().differences == ()


def test_an_order_that_comes_back_loses_its_mark(project: Project, loaded: Shop) -> None:
    """Restored from the shop's bin, modified or as it was."""
    restored = [order(3), order(700)]
    for one in restored:
        loaded.delete(one["order_id"])
    repaired()
    assert deleted(project) == {"A-0003", "A-0700"}

    loaded.put(restored[0] | {"last_modified_date": datetime.now(UTC).isoformat()})
    project.synchronise()
    assert deleted(project) == {"A-0700"}

    loaded.put(restored[1])
    repaired()
    assert deleted(project) == set()
    assert project.orders() == expected(loaded.orders())


def test_orders_that_have_moved_since_are_neither_different_nor_deleted(
    project: Project, loaded: Shop
) -> None:
    """Modified after the load, an order is in the warehouse where the API no longer has it."""
    loaded.change(modify=30)

    assert compared().differences == ()
    loaded.change(modify=30)
    repaired(Span(START, START + timedelta(days=60)))

    assert not deleted(project)
    assert project.orders() == expected(loaded.orders())


def test_an_order_that_is_rejected_now_is_not_taken_for_deleted(project: Project) -> None:
    """The API has it: it waits in orders_rejected, and its last good version stays."""
    there = [order(1), order(2), order(3)]
    with Api(lambda query: page(there, query)).running() as api:
        project.point_at(api.url, login=False)
        project.synchronise()
        there[1] = order(2, odd=deep())
        del there[2]
        result = repaired(Span(START, START + timedelta(days=1)))

    assert result.runs[0].rejected == 1
    assert deleted(project) == {"A-0003"}


def test_an_order_that_is_rejected_is_counted_where_the_api_has_it(
    project: Project, loaded: Shop
) -> None:
    """One with an id that was never there, two without, and one that is there in an older version: none
    is missing, and there is nothing to repair."""
    late = (START + timedelta(hours=900)).isoformat()
    loaded.put(
        order(600, order_id="B-1", odd=deep()),
        order(1, last_modified_date=late, odd=deep()),
        order(400, order_id=None),
        order(401, order_id=" "),
    )
    repaired(Span(START, START + timedelta(days=60)))

    assert project.scalar("SELECT count(*) FROM ecommerce.orders_rejected") == 4
    assert not deleted(project)
    assert compared().differences == ()


@pytest.mark.parametrize("key", [1234567890123456789, "A'1\"%s", "é\ud800"])
def test_an_order_that_is_not_loaded_is_not_taken_for_deleted_whatever_its_id(
    project: Project, key: int | str
) -> None:
    """Rejected now, or served in an older version by a copy of the shop: the API has it."""
    there = [order(0, order_id=key), order(900, order_id=str(key) + "2")]
    if isinstance(key, int):
        there[1]["order_id"] = key + 1
    with Api(lambda query: page(there, query)).running() as api:
        project.point_at(api.url, login=False)
        project.synchronise()
        kept = there[0]
        for change in ({"odd": deep()}, {"last_modified_date": START.isoformat()}):
            there[0] = kept | change

            assert repaired(Span(START, START + timedelta(days=1))).marked == 0


def test_an_order_whose_date_was_removed_by_hand_is_mended(project: Project, loaded: Shop) -> None:
    """It is missing where the API has it."""
    project.execute("ALTER TABLE ecommerce.orders ALTER last_modified_date DROP NOT NULL")
    project.execute(
        "UPDATE ecommerce.orders SET last_modified_date = NULL WHERE order_id = 'A-0007'"
    )

    repaired()

    assert project.orders() == expected(loaded.orders())


def test_a_rejected_order_that_the_shop_deletes_waits_no_longer(
    project: Project, loaded: Shop
) -> None:
    """It is marked, as any other; if it comes back, it waits again."""
    strange = order(600, order_id="B-1", odd=deep())
    loaded.put(strange, order(600, order_id=None))
    repaired(Span(START, START + timedelta(days=60)))
    loaded.delete("B-1")
    gone = compared().differences
    result = repaired()
    marked = project.query(
        "SELECT order_id FROM ecommerce.orders_rejected WHERE deleted_at IS NOT NULL"
    )

    assert [one.in_warehouse - one.in_api for one in gone] == [1]
    assert (marked, result.marked) == ([("B-1",)], 1)
    assert compared().differences == ()
    loaded.put(strange)
    assert sum(one.in_api - one.in_warehouse for one in compared().differences) == 1
    repaired()
    assert compared().differences == ()


def test_a_rejected_order_that_is_corrected_counts_once(project: Project, loaded: Shop) -> None:
    """What was rejected stays in its table, and is older than what was loaded."""
    loaded.put(order(600, order_id="B-1", odd=deep()))
    repaired(Span(START, START + timedelta(days=60)))
    loaded.put(order(700, order_id="B-1"))
    project.synchronise(span=Span(START, START + timedelta(days=60)))

    assert project.scalar("SELECT count(*) FROM ecommerce.orders_rejected") == 1
    assert compared().differences == ()


@pytest.mark.parametrize("harm", ["DROP TABLE ecommerce.orders", "DELETE FROM ecommerce.orders"])
def test_a_table_that_is_gone_is_repaired(project: Project, loaded: Shop, harm: str) -> None:
    """Whatever was done to it: after a repair it is as the shop."""
    project.execute(harm)

    repaired()

    assert project.orders() == expected(loaded.orders())
    assert compared().differences == ()


def test_orders_of_before_the_initial_value_are_not_taken_for_deleted(project: Project) -> None:
    """A list was emptied, so that the run for a span reads everything: also that span."""
    orders = [order(n, tags=["a"]) for n in range(50)]
    with Api(lambda query: page(orders, query)).running() as api:
        project.point_at(api.url, login=False)
        project.set(initial_value=(START + timedelta(hours=20)).isoformat())
        span = Span(START, START + timedelta(hours=30))
        project.synchronise(span=span)
        project.synchronise()
        project.execute("DELETE FROM ecommerce.orders__tags")

        found = repaired(span)

    assert found.marked == 0
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__tags") == 50


def test_random_harm_is_found_and_mended(project: Project, loaded: Shop) -> None:
    """Orders lost here and deleted there, in many places, while the shop goes on."""
    project.execute(
        "DELETE FROM ecommerce.orders WHERE hash(order_id) % 10 = 3 AND order_id < 'A-0500'"
    )
    gone = [f"A-{n:04}" for n in range(500, 1000, 37)]
    for key in gone:
        loaded.delete(key)
    loaded.change(modify=10, new=5)
    known = set(project.orders())

    repaired()

    there = expected(loaded.orders())
    assert {key: row for key, row in project.orders().items() if key in there} == there
    assert deleted(project) == set(gone) & known


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"total_path": ""}, "reports no total"),
        ({"params": {"modified_since": "{start}", "sort": "last_modified_date"}}, "no parameter"),
        ({"params": {}, "paging": "offset"}, "no parameter"),
    ],
)
def test_an_api_that_cannot_be_compared_is_said_to_be(
    project: Project, shop: OpenShop, settings: dict[str, Any], why: str
) -> None:
    """Passing in silence would look like a comparison."""
    store = shop(orders=0)
    store.put(*(order(n) for n in range(20)))
    project.set(**settings)
    project.synchronise()

    assert why in (compared().not_compared or "")


@pytest.mark.parametrize("apart", [timedelta(hours=1), timedelta(milliseconds=1)])
@pytest.mark.parametrize("how", ["excludes its start", "includes its end"])
def test_an_api_with_other_edges_is_no_false_alarm(
    project: Project, how: str, apart: timedelta
) -> None:
    """Such an API is read completely, with the lag; a check that warns for ever is looked at by nobody."""
    there = []
    for n in range(60):
        # A pause now and then, as there is in a shop that is not busy in every millisecond.
        time = START + (n + n // 20) * apart
        there.append(order(n, last_modified_date=time.isoformat(timespec="milliseconds")))
    there.append(order(100))

    def answer(query: dict[str, str]) -> Any:
        moved = dict(query)
        if how == "includes its end" and "modified_before" in query:
            before = datetime.fromisoformat(query["modified_before"]) + timedelta(milliseconds=1)
            moved["modified_before"] = before.isoformat()
        return page(there, moved, excludes_start=how == "excludes its start")

    with Api(answer).running() as api:
        project.point_at(api.url, login=False)
        project.synchronise()
        found = compared()

    assert len(project.orders()) == 61
    assert (found.differences, found.not_compared) == ((), None)


def test_the_newest_orders_are_compared_where_there_is_no_lag(project: Project) -> None:
    """The newest one is dated where the windows end, and the API includes that."""
    there = [order(n) for n in range(60)]

    def answer(query: dict[str, str]) -> Any:
        before = query.get("modified_before", "2100-01-01T00:00:00Z")
        included = datetime.fromisoformat(before) + timedelta(milliseconds=1)
        return page(there, query | {"modified_before": included.isoformat()})

    with Api(answer).running() as api:
        project.point_at(api.url, login=False)
        project.set(lag_seconds=0)
        project.synchronise()
        assert compared().differences == ()
        project.execute("DELETE FROM ecommerce.orders WHERE order_id IN ('A-0058', 'A-0059')")
        assert sum(one.in_api - one.in_warehouse for one in compared().differences) == 2


@pytest.mark.parametrize("deleted", [(), (100, 101)])
@pytest.mark.parametrize("how", ["excludes its start", "includes its end"])
def test_an_api_of_days_with_other_edges_is_compared_as_it_counts(
    project: Project, how: str, deleted: tuple[int, ...]
) -> None:
    """With an order on each day, windows meet at one wherever they meet."""
    begin, day = datetime(2020, 1, 1, tzinfo=UTC), timedelta(days=1)
    there = {n: order(n, last_modified_date=f"{begin + n * day:%Y-%m-%d}") for n in range(300)}

    def answer(query: dict[str, str]) -> Any:
        found = dict(query)
        for name in ("modified_since", "modified_before"):
            if name in query:
                found[name] = f"{query[name]}T00:00:00+00:00"
        if how == "includes its end" and "modified_before" in query:
            end = datetime.fromisoformat(found["modified_before"]) + day
            found["modified_before"] = end.isoformat()
        dated = [
            one | {"last_modified_date": f"{one['last_modified_date']}T00:00:00+00:00"}
            for one in there.values()
        ]
        return page(dated, found, excludes_start=how == "excludes its start")

    with Api(answer).running() as api:
        project.point_at(api.url, login=False)
        project.set(cursor_format="%Y-%m-%d", initial_value="2019-12-01", page_size=50)
        project.synchronise(span=Span(begin - day, begin + 400 * day))
        project.synchronise()
        for n in deleted:
            del there[n]
        found = compared()

    assert sum(one.in_warehouse - one.in_api for one in found.differences) == len(deleted)
    assert sum(one.in_warehouse for one in found.differences) <= 2 * 50


@pytest.mark.parametrize("limit", [{}, {"limit": "7"}], ids=["", "whatever is asked for"])
def test_a_total_of_the_page_is_not_compared(project: Project, limit: dict[str, str]) -> None:
    """Every window would have one order in the API, or seven; the others would be taken for deleted."""
    there = [order(n) for n in range(60)]

    def answer(query: dict[str, str]) -> dict[str, Any]:
        found = page(there, query | limit)
        return found | {"total": len(found["orders"])}

    with Api(answer).running() as api:
        project.point_at(api.url, login=False)
        project.synchronise()
        found = compared()

    assert len(project.orders()) == 60
    assert "that of the page" in (found.not_compared or "")


def test_a_bulk_change_of_more_than_a_page_is_no_false_alarm(
    project: Project, loaded: Shop
) -> None:
    """One timestamp for all of them: all have moved, not only the first page of them."""
    now = datetime.now(UTC).isoformat()
    loaded.put(*(order(n, last_modified_date=now) for n in range(100, 220)))

    assert compared().differences == ()
    assert project.scalar("SELECT count(*) FROM ecommerce.orders") == 1001


@pytest.mark.parametrize("page_size", [20, 4])
def test_what_is_missing_is_found_while_the_shop_changes_many_pages_of_others(
    project: Project, page_size: int
) -> None:
    """A busy shop changes more than a few pages within the lag, and goes on while they are read: it is the
    orders that count, not the pages."""
    orders = {n: order(n) for n in range(1000)}
    changed: list[int] = []

    def modify(n: int) -> None:
        now = datetime.now(UTC) + timedelta(milliseconds=len(changed))
        orders[n] = order(n, last_modified_date=now.isoformat(timespec="milliseconds"))
        changed.append(n)

    def answer(query: dict[str, str]) -> Answer:
        found = page(list(orders.values()), query)
        if changed and "modified_before" not in query:
            modify(changed[len(changed) - 300])
        return found

    with Api(answer).running() as api:
        project.point_at(api.url, login=False)
        project.set(page_size=page_size)
        project.synchronise()
        project.execute("DELETE FROM ecommerce.orders WHERE order_id = 'A-0017'")
        for n in range(300, 600):
            modify(n)

        found = compared()

    (difference,) = found.differences
    assert START + timedelta(hours=17) in difference.span
    assert difference.in_api - difference.in_warehouse == 1


def test_an_order_dated_in_the_future_is_marked_once(project: Project, shop: OpenShop) -> None:
    """Marked before its own date, it would count as one that the API still lists."""
    store = shop(orders=0)
    ahead = datetime.now(UTC) + timedelta(days=30)
    store.put(order(1), order(2, last_modified_date=ahead.isoformat()))
    project.synchronise()
    store.delete("A-0002")
    span = Span(START, ahead + timedelta(days=1))

    assert repaired(span).marked == 1
    assert repaired(span).marked == 0
    mark = "SELECT deleted_at > last_modified_date FROM ecommerce.orders WHERE order_id = 'A-0002'"
    assert project.scalar(mark)


def test_an_id_that_is_text_here_and_a_number_there_is_one_order(project: Project) -> None:
    """Rejected under the number, the order in the table under its text is not gone."""
    there = [order(1, order_id="W-1"), order(2, order_id=7), order(3, order_id="W-3")]
    with Api(lambda query: page(there, query)).running() as api:
        project.point_at(api.url, login=False)
        project.synchronise()
        there[1] = order(2, order_id=7, odd=deep())

        assert repaired(Span(START, START + timedelta(days=1))).marked == 0


def test_an_order_that_moved_unseen_is_found_and_not_taken_for_deleted(
    project: Project, loaded: Shop
) -> None:
    """Its change was missed, which is what a repair is for: it is behind the span, before the watermark."""
    loaded.put(order(20) | {"last_modified_date": order(900)["last_modified_date"]})

    repaired(Span(START, START + timedelta(hours=100)))

    assert not deleted(project)
    assert project.orders() == expected(loaded.orders())


def test_before_the_first_load_there_is_nothing_to_compare(shop: OpenShop) -> None:
    """An empty warehouse beside a full shop is not a difference; it has not been loaded."""
    shop(orders=10)

    assert compared().not_compared == "Nothing has been loaded yet."


def test_the_search_ends_where_everything_differs(project: Project, loaded: Shop) -> None:
    """Half of the table lost: the windows are told as far as they were narrowed, within a limit."""
    project.execute("DELETE FROM ecommerce.orders WHERE hash(order_id) % 2 = 0")
    project.set(page_size=2)

    found = compared()

    assert found.requests <= MOST_REQUESTS
    assert sum(one.in_api for one in found.differences) >= 900
    repaired()
    assert project.orders() == expected(loaded.orders())


def test_a_field_of_the_api_can_mark_an_order_deleted(project: Project, shop: OpenShop) -> None:
    """Shops that delete softly go on listing the order, with a flag or a date."""
    store = shop(orders=0)
    store.put(order(1, meta={"removed": True}), order(2, meta={"removed": False}), order(900))
    project.set(soft_delete_path="meta.removed")
    project.synchronise()

    assert deleted(project) == {"A-0001"}
    assert compared().differences == (), "the API still has it"
    store.put(order(1, last_modified_date=datetime.now(UTC).isoformat(), meta={}))
    project.synchronise()
    assert not deleted(project)


def test_a_field_named_like_the_mark_is_another_column(project: Project, shop: OpenShop) -> None:
    """Only the setting makes a field a mark: what the API means by its own is not for us to guess."""
    store = shop(orders=0)
    store.put(order(1, deleted_at="2026-01-05T00:00:00Z"))

    project.synchronise()

    assert not deleted(project)
    assert project.scalar("SELECT api_deleted_at FROM ecommerce.orders") is not None


def test_windows_that_touch_are_read_in_one_run() -> None:
    """Each run costs its opening and its closing."""
    at = [START + timedelta(days=n) for n in range(5)]
    spans = [Span(at[0], at[1]), Span(at[1], at[2]), Span(at[3], at[4])]

    assert joined(spans) == (Span(at[0], at[2]), Span(at[3], at[4]))
