"""What moves, is empty or comes twice while it is read, in APIs that are odd as well: nothing is lost, no
run stops for nothing, and none goes on for ever.

Each of these was found by playing such APIs at random. The seeds are those that went wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count, cycle
from random import Random
from threading import Lock
from typing import Any

import pytest

from orders_dagster.errors import ApiRefused, ResponseNotUnderstood
from orders_dagster_tests.small_api import Answer, Answering, Api, Refusal, at, order, page
from orders_dagster_tests.world import Project, loaded

Serve = Callable[[Answering], Api]
Orders = list[dict[str, Any]]

TOTALS = pytest.mark.parametrize("total_path", ["total", ""])
PAGINGS = pytest.mark.parametrize("paging", ["seek", "offset"])


@pytest.fixture(autouse=True)
def small_pages(project: Project) -> None:
    """Enough orders for several pages, in a glance; one after the other, so that each run is the same."""
    project.set(page_size=4, workers=1)


def keys(orders: Orders) -> set[Any]:
    return {order["order_id"] for order in orders}


def in_any_order(orders: Orders, rng: Random) -> Orders:
    """Of one timestamp each time in another order, as a database without a second sort gives them."""
    return sorted(rng.sample(orders, len(orders)), key=at)


def test_what_offset_paging_has_missed_is_read_by_the_first_run_that_seeks(
    project: Project, serve: Serve
) -> None:
    """Also if that one ends within: only one that has read everything makes the watermark one to go by."""
    orders = [order(n, n * 600) for n in range(40)]
    fails = False

    def answer(query: dict[str, str]) -> Answer:
        if query["offset"] == "8" and len(orders) == 40:
            del orders[0]
        if fails and datetime.fromisoformat(query["modified_since"]) > at(orders[20]):
            return Refusal(400)
        return page(orders, query)

    serve(answer)
    project.set(paging="offset", checkpoint_orders=8)
    project.synchronise()
    assert not keys(orders) <= loaded(project)
    project.set(paging="seek")
    fails = True
    with pytest.raises(ApiRefused):
        project.synchronise()
    project.execute(f"DELETE FROM ecommerce.orders WHERE order_id = {orders[3]['order_id']}")
    fails = False

    project.synchronise()

    assert keys(orders) <= loaded(project)
    assert project.synchronise().loaded < 10


@TOTALS
def test_what_offset_paging_has_missed_is_read_by_the_next_run(
    project: Project, serve: Serve, total_path: str
) -> None:
    """Everything is read each time, also where the filter works: what moved is behind any watermark."""
    orders = Random(1).sample([order(n, n * 600) for n in range(40)], 40)

    def answer(query: dict[str, str]) -> Answer:
        if query["offset"] == "8" and len(orders) == 40:
            del orders[0]  # deleted in the shop: those behind it move up
        since = datetime.fromisoformat(query["modified_since"])
        found = [one for one in orders if at(one) >= since]
        first = int(query["offset"])
        return {"orders": found[first : first + int(query["limit"])], "total": len(found)}

    serve(answer)
    project.set(paging="offset", total_path=total_path)
    project.synchronise()

    project.synchronise()

    assert keys(orders) <= loaded(project)


@TOTALS
def test_an_offset_that_is_ignored_is_noticed_where_pages_are_capped(
    project: Project, serve: Serve, total_path: str
) -> None:
    """A page that is shorter than asked for shows all of a timestamp, or as much as the server gives."""
    times = [*range(5), *[9] * 30, *range(20, 25)]
    orders = [order(n, time) for n, time in enumerate(times)]
    serve(lambda query: page(orders, query, cap=4, ignores_offset=True))
    project.set(page_size=8, total_path=total_path)

    with pytest.raises(ResponseNotUnderstood, match="offset_param"):
        project.synchronise()


@TOTALS
@pytest.mark.parametrize("older", [0, 1])
def test_a_bulk_change_is_read_from_an_api_that_gives_all_on_one_page(
    project: Project, serve: Serve, total_path: str, older: int
) -> None:
    """Many a small API has no paging: the page that comes again is all there is, also in a run that reads
    nothing but these."""
    orders = [order(n, 0) for n in range(older)] + [order(10 + n, 9) for n in range(30)]
    serve(lambda query: page(orders, query, always=100, ignores_offset=True))
    project.set(page_size=200, total_path=total_path)
    project.synchronise()

    project.synchronise()

    assert loaded(project) == keys(orders)


@PAGINGS
@TOTALS
def test_an_offset_that_is_ignored_is_noticed_where_no_page_is_like_another(
    project: Project, serve: Serve, paging: str, total_path: str
) -> None:
    """The run went on for ever: there was always another page."""
    rng, orders = Random(1), [order(n, 0) for n in range(8)]
    api = serve(lambda query: page(in_any_order(orders, rng), query, ignores_offset=True))
    project.set(paging=paging, total_path=total_path)

    with pytest.raises(ResponseNotUnderstood, match="same 8 orders again and again.*offset_param"):
        project.synchronise()

    assert len(api.asked) < 300


def test_each_version_of_an_order_may_be_listed(project: Project, serve: Serve) -> None:
    """As a history of its states lists them: the same orders again and again, with other dates."""
    orders = [order(n, version * 60 + n) for version in range(30) for n in range(10)]
    serve(lambda query: page(orders, query))
    project.set(page_size=7, paging="offset", total_path="")

    project.synchronise()

    assert loaded(project) == set(range(10))


def test_a_filter_that_excludes_its_start_does_so_whatever_its_answers_cut(
    project: Project, serve: Serve
) -> None:
    """Dates are stored finer than they are shown, and those of the second before look like the start."""
    stored = [(n, n + 0.5) for n in range(10)] + [(100 + n, 10.0) for n in range(9)]
    stored += [(200 + n, 11.5 + n) for n in range(10)]
    epoch = datetime.fromisoformat("2024-01-01T00:00:00Z").timestamp()

    def answer(query: dict[str, str]) -> Answer:
        since, before = (
            datetime.fromisoformat(query.get(name, "2100-01-01T00:00:00Z")).timestamp() - epoch
            for name in ("modified_since", "modified_before")
        )
        found = [order(n, int(second)) for n, second in stored if since < second < before]
        first = int(query["offset"])
        return {"orders": found[first : first + int(query["limit"])], "total": len(found)}

    serve(answer)
    project.set(cursor_format="%Y-%m-%dT%H:%M:%SZ")

    project.synchronise()

    assert loaded(project) == {n for n, _ in stored}


@pytest.mark.parametrize("seed", [0, 2])
def test_ties_in_any_order_on_pages_of_any_size_are_all_read(
    project: Project, serve: Serve, seed: int
) -> None:
    """A short page is not all of them: there may be more behind it."""
    times = [*[0] * 20, *[9] * 60, *range(20, 25)]
    orders = [order(n, time) for n, time in enumerate(times)]
    rng, lock = Random(seed), Lock()

    def answer(query: dict[str, str]) -> Answer:
        with lock:
            return page(in_any_order(orders, rng), query, always=rng.choice([3, 5, 8]))

    serve(answer)
    project.set(page_size=8, workers=8)

    project.synchronise()

    assert loaded(project) == keys(orders)


@pytest.mark.parametrize("seed", [4, 7])
def test_ties_in_any_order_on_pages_of_one_are_all_read(
    project: Project, serve: Serve, seed: int
) -> None:
    """Such a page has no room for another beside the one that is to come again."""
    orders = [order(n, 0 if n < 12 else 9) for n in range(24)]
    rng = Random(seed)
    serve(lambda query: page(in_any_order(orders, rng), query, always=rng.choice([1, 2, 3, 4])))

    project.synchronise()

    assert loaded(project) == keys(orders)


def test_the_second_of_two_ties_is_read_where_a_page_holds_one(
    project: Project, serve: Serve
) -> None:
    """The first one moves away, and the other comes in its place."""
    orders = [order(0, 5), order(1, 5), order(2, 9)]

    def answer(query: dict[str, str]) -> Answer:
        if query["offset"] == "1":
            orders[0] = order(0, 3000)
        return page(sorted(orders, key=at), query, cap=1)

    serve(answer)

    project.synchronise()

    assert loaded(project) == {0, 1, 2}


@pytest.mark.parametrize("per_page", [2, 4, 20])
@pytest.mark.parametrize("orders", [2, 7, 20])
def test_an_offset_that_is_ignored_ends_no_reading_where_no_total_tells(
    project: Project, serve: Serve, orders: int, per_page: int
) -> None:
    """The page behind the last order is that of the last order, again and again."""
    there = [order(n, n) for n in range(orders)]

    def answer(query: dict[str, str]) -> Answer:
        assert len(api.asked) < 300
        return {"orders": page(there, query, ignores_offset=True)["orders"]}

    api = serve(answer)
    project.set(total_path="", workers=1, page_size=per_page)

    project.synchronise()

    assert loaded(project) == set(range(orders))


@pytest.mark.parametrize("becomes", [9, 4000, None])
def test_an_order_that_goes_beside_a_page_that_was_cut_hides_no_other(
    project: Project, serve: Serve, becomes: int | None
) -> None:
    """Of eight ties on pages of three, the last page was cut to the order that is read again."""
    orders = [*(order(n, 5) for n in range(8)), order(90, 9000)]
    cuts = [1]

    def answer(query: dict[str, str]) -> Answer:
        cap = cuts.pop() if query["offset"] == "4" and cuts else 3
        if query["offset"] == "5" and len(orders) == 9 and at(orders[3]) == at(orders[4]):
            orders[3:4] = [] if becomes is None else [order(3, becomes)]
        return {"orders": page(orders, query, cap=cap)["orders"]}

    serve(answer)
    project.set(total_path="", workers=1, page_size=3)

    project.synchronise()
    project.synchronise()

    assert at(orders[3]) != at(orders[4]) or len(orders) == 8, "it did not go"
    assert loaded(project) >= {one["order_id"] for one in orders}


@pytest.mark.parametrize("counts_up_to", [5, 7, 9])
def test_a_page_that_is_cut_where_the_total_ends_is_not_their_end(
    project: Project, serve: Serve, counts_up_to: int
) -> None:
    orders = [*(order(n, 5) for n in range(20)), order(90, 9000)]

    def answer(query: dict[str, str]) -> Answer:
        cap = 1 if int(query["offset"]) == counts_up_to - 1 else 3
        return page(orders, query, cap=cap, counts_up_to=counts_up_to)

    serve(answer)
    project.set(workers=1, page_size=3)

    project.synchronise()

    assert loaded(project) == {one["order_id"] for one in orders}


def test_a_page_of_one_order_within_ties_is_not_their_end_where_no_total_tells(
    project: Project, serve: Serve
) -> None:
    """It holds only the order that is read again; the server has cut it."""
    orders = [order(n, 5) for n in range(30)]
    caps = cycle([20, 1, 7])
    serve(lambda query: {"orders": page(orders, query, cap=next(caps))["orders"]})
    project.set(total_path="", workers=1)

    project.synchronise()

    assert loaded(project) == set(range(30))


def test_a_total_of_a_moment_before_is_still_a_total(project: Project, serve: Serve) -> None:
    """It is counted before the page is read, and an order comes in between. An empty page by mistake, later
    on, would then be the end of its window."""
    orders, done = [order(n, n * 600) for n in range(60)], set[str]()

    def answer(query: dict[str, str]) -> Answer:
        found = page(orders, query)
        rows = len(found["orders"])
        if "counted" not in done and 2 <= rows == found["total"]:
            done.add("counted")
            return found | {"total": rows - 1}
        if "counted" in done and "empty" not in done and found["total"] == 6:
            done.add("empty")
            return found | {"orders": []}
        return found

    serve(answer)

    project.synchronise()

    assert done == {"counted", "empty"}
    assert loaded(project) == keys(orders)


@PAGINGS
@TOTALS
def test_an_order_that_goes_while_the_offset_is_tried_stops_no_run(
    project: Project, serve: Serve, paging: str, total_path: str
) -> None:
    """Behind two of two there is nothing, whatever the offset counts."""
    orders = [order(n, 0) for n in range(3)]

    def answer(query: dict[str, str]) -> Answer:
        if query["offset"] == "2" and len(orders) == 3:
            del orders[0]
        return page(orders, query, counts_page=True)

    serve(answer)
    project.set(total_path=total_path, paging=paging)

    project.synchronise()

    assert keys(orders) <= loaded(project)


def test_a_day_of_which_there_is_ever_more_is_left_in_the_end(
    project: Project, serve: Serve
) -> None:
    """Requests name days, and orders of today come in and change with every other request."""
    orders: Orders = []
    rng, seconds = Random(1), count()

    def put(key: int) -> None:
        orders[:] = [one for one in orders if one["order_id"] != key]
        orders.append(order(key, next(seconds)))

    for key in range(40):
        put(key)

    def answer(query: dict[str, str]) -> Answer:
        asked = len(api.asked)
        if asked % 16 == 0:
            put(1000 + asked)
        if asked % 4 == 1:
            put(orders[rng.randrange(len(orders)) // 2]["order_id"])
        return page(list(orders), query)

    api = serve(answer)
    project.set(cursor_format="%Y-%m-%d", page_size=8)

    project.synchronise()

    assert set(range(40)) <= loaded(project)


def test_orders_without_an_id_among_ties_in_any_order_end_no_run(
    project: Project, serve: Serve
) -> None:
    """They are told apart by their place, which is another one each time."""
    orders = [order(n, 0, note=n) for n in range(60)] + [order(900, 9)]
    for one in orders[:3]:
        del one["order_id"]
    rng, lock = Random(0), Lock()

    def answer(query: dict[str, str]) -> Answer:
        with lock:
            return page(in_any_order(orders, rng), query)

    serve(answer)
    project.set(page_size=20)

    result = project.synchronise()

    assert loaded(project) == keys(orders[3:])
    assert result.rejected == 3


def test_an_empty_page_among_ties_in_any_order_is_asked_for_again(
    project: Project, serve: Serve
) -> None:
    """However often the timestamp had to be read before."""
    orders = [order(n, 0) for n in range(60)] + [order(100, 9)]
    rng = Random(3)

    def answer(query: dict[str, str]) -> Answer:
        found = page(in_any_order(orders, rng), query)
        return found | {"orders": []} if len(api.asked) == 150 else found

    api = serve(answer)

    project.synchronise()

    assert loaded(project) == keys(orders)


@PAGINGS
def test_empty_pages_far_apart_neither_stop_a_run_nor_begin_it_anew(
    project: Project, serve: Serve, paging: str
) -> None:
    """One in eight is empty by mistake, and the same page is there when it is asked for again."""
    orders = [order(n, 0) for n in range(200)] + [order(500, 9)]
    empty: list[str] = []

    def answer(query: dict[str, str]) -> Answer:
        found = page(orders, query)
        is_new = found["orders"] and query["offset"] != "0" and query["offset"] not in empty
        if is_new and len(api.asked) % 8 == 0:
            empty.append(query["offset"])
            return found | {"orders": []}
        return found

    api = serve(answer)
    project.set(paging=paging)

    project.synchronise()

    assert len(empty) > 3
    assert loaded(project) == keys(orders)
    for offset in empty:
        assert sum(query["offset"] == offset for query in api.asked) == 2


@TOTALS
def test_a_start_that_was_taken_for_excluded_because_of_another_copy(
    project: Project, serve: Serve, total_path: str
) -> None:
    """In one copy of the data an order has moved, in the other not yet; the two answer in turns."""
    old = [order(n, n * 3600) for n in range(8)]
    new = [one for one in old if one["order_id"] != 3] + [order(3, 50_000)]
    api = serve(lambda query: page(old if len(api.asked) in (1, 3) else new, query))
    project.set(total_path=total_path, params={"modified_since": "{start}"})

    project.synchronise()

    assert loaded(project) == keys(old)


class IndexedShop:
    """An index finds and sorts, and a database says what the orders are: it is ahead of the index."""

    def __init__(self, orders: Orders) -> None:
        self.orders = {o["order_id"]: o for o in orders}
        self.index = dict(self.orders)
        self.lock = Lock()

    def change(self, key: int) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.orders[key] = order(key, 0, last_modified_date=now, note="changed")

    def catch_up(self) -> None:
        self.index = dict(self.orders)

    def answer(self, query: dict[str, str]) -> Answer:
        found = page([*self.index.values()], query)
        found["orders"] = [self.orders[o["order_id"]] for o in found["orders"]]
        return found

    def is_equal_when_quiet(self, project: Project) -> None:
        """After one more run the table holds each order in its latest version."""
        self.catch_up()
        project.synchronise()
        in_table = project.query("SELECT order_id, last_modified_date FROM ecommerce.orders")
        assert dict(in_table) == {key: at(o) for key, o in self.orders.items()}


@TOTALS
@pytest.mark.parametrize("workers", [1, 8])
def test_an_order_that_changed_before_the_index_knows_hides_no_others(
    project: Project, serve: Serve, workers: int, total_path: str
) -> None:
    """Its new date stands at the place of the old one: who goes on from there leaves out all between."""
    shop = IndexedShop([order(n, 60 * n) for n in range(40)])
    asked = 0

    def answer(query: dict[str, str]) -> Answer:
        nonlocal asked
        asked += 1
        with shop.lock:
            if asked % 2:
                shop.catch_up()
            else:
                rows = page([*shop.index.values()], query)["orders"]
                if rows and "note" not in rows[-1]:
                    shop.change(rows[-1]["order_id"])
            return shop.answer(query)

    serve(answer)
    project.set(page_size=4, total_path=total_path, workers=workers)
    project.synchronise()

    assert sum("note" in o for o in shop.orders.values()) > 3, "they do change"
    shop.is_equal_when_quiet(project)


@pytest.mark.parametrize("workers", [1, 8])
@TOTALS
def test_an_order_that_changed_a_moment_ago_within_a_past_window_is_in_no_wrong_place(
    project: Project, serve: Serve, workers: int, total_path: str
) -> None:
    """Amid a page of years ago: the API has neither ignored its sort nor the end of the window."""
    shop = IndexedShop([order(n, 60 * n) for n in range(40)])

    def answer(query: dict[str, str]) -> Answer:
        with shop.lock:
            rows = page([*shop.index.values()], query)["orders"]
            if len(rows) > 2 and query.get("modified_before", "9") < "2025":
                shop.change(rows[1]["order_id"])
            return shop.answer(query)

    serve(answer)
    project.set(page_size=4, total_path=total_path, workers=workers)
    project.synchronise()

    assert any("note" in o for o in shop.orders.values()), "they do change"
    shop.is_equal_when_quiet(project)
