"""APIs that do not keep to the rules: each would cost orders in silence if it were believed."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orders_dagster.cursor import read_time, write_time
from orders_dagster.errors import (
    ApiRefused,
    PagesDisagree,
    ResponseNotUnderstood,
    SettingsError,
)
from orders_dagster.rows import Rows
from orders_dagster.settings import OrdersSettings, read_settings
from orders_dagster.source import Reading, paginator, stopping_others
from orders_dagster.step import Step
from orders_dagster_tests.small_api import Answer, Answering, Api, Refusal, at, order, page
from orders_dagster_tests.world import Project, loaded


@pytest.fixture(autouse=True)
def small_pages(project: Project) -> None:
    """A few orders are several pages."""
    project.set(page_size=4)


def in_dates(query: dict[str, str]) -> dict[str, str]:
    """A query that names the window in seconds since 1970, as `page` reads it."""
    return {
        name: datetime.fromtimestamp(int(value), UTC).isoformat()
        if name.startswith("modified")
        else value
        for name, value in query.items()
    }


THREE_PER_SECOND = [order(n, n // 3) for n in range(20)]
ONE_PER_SECOND = [order(n, n) for n in range(20)]


@pytest.mark.parametrize("total_path", ["total", ""])
@pytest.mark.parametrize(
    ("orders", "how"),
    [
        (THREE_PER_SECOND, {"excludes_start": True}),
        (ONE_PER_SECOND, {"excludes_start": True}),
        (THREE_PER_SECOND, {"counts_page": True}),
        (THREE_PER_SECOND, {"counts_page": True, "cap": 3}),
        (THREE_PER_SECOND, {"counts_page": True, "always": 3}),
        (ONE_PER_SECOND, {"counts_page": True, "always": 3}),
        (THREE_PER_SECOND, {"cap": 2}),
        (ONE_PER_SECOND, {"ignores_offset": True}),
        (THREE_PER_SECOND, {"ignores_offset": True}),
        (ONE_PER_SECOND[:1], {"ignores_offset": True}),
        (THREE_PER_SECOND, {"includes_end": True}),
        (THREE_PER_SECOND, {"includes_end": True, "excludes_start": True}),
    ],
)
def test_an_odd_api_is_read_completely(
    project: Project,
    serve: Callable[[Answering], Api],
    orders: list[dict[str, Any]],
    how: dict[str, Any],
    total_path: str,
) -> None:
    """A filter that excludes its start, a total of the page, a cap, no offset: all orders, or an end."""
    api = serve(lambda query: page(orders, query, **how))
    project.set(total_path=total_path)

    project.synchronise()

    assert loaded(project) == set(range(len(orders)))
    assert len(api.asked) < 100


def test_half_a_character_in_the_name_of_a_field_stops_no_run(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """JSON can write it, dlt's state cannot: names are remembered there."""
    one, other = "a\ud800b", "a\ud801b"
    orders = [order(1, 1, **{one: "x"}), order(2, 2, **{other: "y"})]
    serve(lambda query: page(orders, query))

    project.synchronise()
    orders += [order(3, 3, **{other: "z", one: "w"})]
    project.synchronise()

    rows = project.query("SELECT * EXCLUDE (_dlt_id, _dlt_load_id) FROM ecommerce.orders")
    assert sorted([value for value in row[2:] if value is not None] for row in rows) == [
        ["w", "z"],
        ["x"],
        ["y"],
    ]


def test_an_empty_page_by_mistake_is_no_filter_that_excludes_its_start(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T2: taken for one, it would send the reader back into the ties that it has just left, and stop it."""
    at_ms = [0, 0, 0, 10, *[20] * 9, 30]
    orders = [
        order(n, 0, last_modified_date=f"2024-01-01T00:00:00.{ms:03}Z")
        for n, ms in enumerate(at_ms)
    ]

    def answer(query: dict[str, str]) -> Answer:
        found = page(orders, query)
        return found | {"orders": []} if len(api.asked) == 2 else found

    api = serve(answer)
    project.set(workers=1)

    project.synchronise()

    assert loaded(project) == set(range(len(orders)))


@pytest.mark.parametrize("excludes_start", [False, True])
def test_ties_where_a_window_was_cut_are_all_read(
    project: Project, serve: Callable[[Answering], Api], excludes_start: bool
) -> None:
    """The next reader begins within them, and does not know yet that the API excludes a start."""
    times = [0, 1, 2, *[3] * 9, *range(4, 60)]
    orders = [order(n, second) for n, second in enumerate(times)]
    serve(lambda query: page(orders, query, excludes_start=excludes_start))

    project.synchronise()

    assert loaded(project) == set(range(len(orders)))


@pytest.mark.parametrize("paging", ["seek", "offset"])
@pytest.mark.parametrize("counts_up_to", [2, 3, 4, 8, 12])
def test_a_total_that_ends_somewhere_ends_no_reading(
    project: Project,
    serve: Callable[[Answering], Api],
    paging: str,
    counts_up_to: int,
) -> None:
    """Many a search counts no further than to 10,000, and it may be fewer than there are on a page."""
    serve(lambda query: page(ONE_PER_SECOND, query, counts_up_to=counts_up_to))
    project.set(paging=paging)

    project.synchronise()

    assert loaded(project) == set(range(len(ONE_PER_SECOND)))


@pytest.mark.parametrize("paging", ["seek", "offset"])
@pytest.mark.parametrize("nothing", [[], None])
def test_a_total_of_null_is_none_where_there_are_no_orders(
    project: Project, serve: Callable[[Answering], Api], paging: str, nothing: Any
) -> None:
    """Some count nothing as null: every run after the first would fail, as long as nothing changes."""
    orders: list[dict[str, Any]] = []

    def answer(query: dict[str, str]) -> Answer:
        there = page(orders, query)
        return there if there["orders"] else {"orders": nothing, "total": None}

    serve(answer)
    project.set(paging=paging)

    assert project.synchronise().loaded == 0
    orders += ONE_PER_SECOND
    project.synchronise()
    assert loaded(project) == set(range(len(ONE_PER_SECOND)))


@pytest.mark.parametrize("lag_seconds", [0, 300])
def test_orders_at_the_very_start_are_read_where_the_filter_excludes_it(
    project: Project, serve: Callable[[Answering], Api], lag_seconds: int
) -> None:
    """No run before has read them."""
    serve(lambda query: page(THREE_PER_SECOND, query, excludes_start=True))
    project.set(initial_value=START.isoformat(), lag_seconds=lag_seconds)

    project.synchronise()

    assert loaded(project) == set(range(len(THREE_PER_SECOND)))


def test_a_timestamp_in_which_a_run_failed_is_read_on_where_the_filter_excludes_its_start(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """The watermark is where not all has been read."""
    orders = [order(n, 5) for n in range(40)]
    answers = 0

    def answer(query: dict[str, str]) -> Answer:
        nonlocal answers
        answers += 1
        return Refusal(400) if answers == 14 else page(orders, query, excludes_start=True)

    serve(answer)
    project.set(checkpoint_orders=8, workers=1, lag_seconds=0)

    with pytest.raises(ApiRefused):
        project.synchronise()
    assert 0 < len(loaded(project)) < 40
    project.synchronise()

    assert loaded(project) == set(range(40))


@pytest.mark.parametrize("checkpoint", [50_000, 40])
def test_a_sort_by_id_is_noticed_where_the_lowest_ids_were_touched_last(
    project: Project, serve: Callable[[Answering], Api], checkpoint: int
) -> None:
    """Every page is in order, and the reading goes on behind it: what is older would stay away for good."""
    touched = [order(n, 50_000 + n) for n in range(60)]
    orders = [*touched, *(order(100 + n, n * 60) for n in range(200))]

    def answer(query: dict[str, str]) -> Answer:
        found = page(orders, query | {"offset": "0", "limit": "1000"})
        by_id = sorted(found["orders"], key=lambda one: one["order_id"])
        first = int(query["offset"])
        return found | {"orders": by_id[first : first + int(query["limit"])]}

    serve(answer)
    project.set(page_size=20, checkpoint_orders=checkpoint)

    with pytest.raises(PagesDisagree, match=r"reports 2\d\d orders.*sort.*sources.orders.params"):
        project.synchronise()


def test_a_bulk_larger_than_a_checkpoint_is_loaded_where_the_end_is_included(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """What is counted up to the bulk has that in it, of which only a part is read."""
    seconds = [*range(30), *[1000] * 300]
    orders = [order(n, second, items=[{"line": 1}]) for n, second in enumerate(seconds)]
    serve(lambda query: page(orders, query, includes_end=True))
    project.set(page_size=20, checkpoint_orders=100)

    project.synchronise()

    assert loaded(project) == {one["order_id"] for one in orders}


def test_a_day_larger_than_a_checkpoint_is_loaded_where_it_is_included_as_an_end(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """As most APIs do that are asked by the day."""
    orders = [
        order(n, n, items=[{"line": 1}])
        | {"last_modified_date": f"2024-01-0{1 + n // 100}T00:00:{n % 60:02d}Z"}
        for n in range(300)
    ]

    def answer(query: dict[str, str]) -> Answer:
        day = query.get("modified_before", "9999-12-31")
        return page(orders, query | {"modified_before": f"{day}T23:59:59Z"})

    serve(answer)
    project.set(page_size=20, checkpoint_orders=50, cursor_format="%Y-%m-%d")

    project.synchronise()

    assert loaded(project) == {one["order_id"] for one in orders}


def test_a_page_that_is_refused_behind_others_is_not_blamed_on_the_path(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Some take no offset above 10,000, or answer 404 behind the last page."""
    orders = [order(n, 5) for n in range(40)]
    serve(lambda query: Refusal(404) if int(query["offset"]) > 20 else page(orders, query))
    project.set(page_size=10)

    with pytest.raises(
        ApiRefused, match=r"404.*offset=\d\d.*Correct sources.orders.params, page_size"
    ):
        project.synchronise()


def test_an_order_that_moves_is_no_offset_that_counts_pages(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """The first page of ties is read again to see whether it is the same; from then on it is another."""
    orders = [order(n, 0) for n in range(12)]

    def answer(query: dict[str, str]) -> Answer:
        if query["offset"] == "2":
            orders[2] |= {"last_modified_date": order(2, 9)["last_modified_date"]}
        return page(orders, query)

    serve(answer)
    project.set(page_size=3, total_path="", workers=1)

    project.synchronise()

    assert loaded(project) == set(range(12))


@pytest.mark.parametrize("total_path", ["total", ""])
@pytest.mark.parametrize("how", [{}, {"includes_end": True}, {"ignores_end": True}])
@pytest.mark.parametrize("newest", [4, 5, 9])
def test_orders_that_come_newest_first_are_noticed_whatever_the_end_is(
    project: Project,
    serve: Callable[[Answering], Api],
    newest: int,
    how: dict[str, Any],
    total_path: str,
) -> None:
    """The newest order, which an included end brings, is no sign that nothing is older."""
    orders = ONE_PER_SECOND + [order(100 + n, 900) for n in range(newest)]
    serve(lambda query: page(orders, query, descending=True, **how))
    project.set(total_path=total_path)
    with pytest.raises(
        ResponseNotUnderstood, match="not sorted|from before the window|the window's end"
    ):
        project.synchronise()


@pytest.mark.parametrize("cursor_format", ["epoch_seconds", "epoch_milliseconds"])
def test_nothing_is_asked_for_from_before_1970_where_dates_are_numbers(
    project: Project, serve: Callable[[Answering], Api], cursor_format: str
) -> None:
    """An API that takes whole numbers only refused the step before its first moment."""
    date = 1704067200 * (1 if cursor_format == "epoch_seconds" else 1000)

    def answer(query: dict[str, str]) -> Answer:
        since, before = int(query["modified_since"]), int(query.get("modified_before") or 10**15)
        rows = [{"order_id": 1, "last_modified_date": date}] if since <= date < before else []
        return {"orders": rows, "total": len(rows)} if since >= 0 else Refusal(400)

    api = serve(answer)
    project.set(cursor_format=cursor_format, initial_value="1970-01-01T00:00:00Z")
    project.synchronise()
    assert loaded(project) == {1}
    assert api.asked[0]["modified_since"] == "0"


@pytest.mark.parametrize("paging", ["seek", "offset"])
def test_an_answer_without_content_is_an_empty_page_where_there_is_no_total(
    project: Project, serve: Callable[[Answering], Api], paging: str
) -> None:
    """BigCommerce answers 204 where its filter finds nothing: as long as nothing changes, and behind the
    last full page."""
    orders: list[dict[str, Any]] = []

    def answer(query: dict[str, str]) -> Answer:
        rows = page(orders, query)["orders"]
        return rows or Refusal(204)

    serve(answer)
    project.set(data_selector="$", total_path="", paging=paging)
    assert project.synchronise().loaded == 0
    orders += ONE_PER_SECOND
    project.synchronise()
    assert loaded(project) == {o["order_id"] for o in orders}
    del orders[:]
    assert project.synchronise().loaded == 0


def test_an_answer_without_content_is_named_where_there_is_to_be_a_total(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    serve(lambda query: Refusal(204))
    with pytest.raises(ResponseNotUnderstood, match="no count at 'total'; the answer is empty"):
        project.synchronise()


def test_a_total_of_null_beside_orders_is_named(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """It is not where the setting says; without it, less would be noticed."""
    serve(lambda query: page(ONE_PER_SECOND, query) | {"total": None})

    with pytest.raises(ResponseNotUnderstood, match="no count at 'total'"):
        project.synchronise()


def test_ties_whose_start_is_excluded_are_all_read_where_dates_are_finer_than_requests(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """What follows them within the same second is not them: the start seemed to be included."""
    seconds = [0, 1, 2, *[5] * 6, 5.3, 5.3, *range(9, 29)]
    orders = [
        order(n, 0, last_modified_date=(START + timedelta(seconds=second)).isoformat())
        for n, second in enumerate(seconds)
    ]

    def answer(query: dict[str, str]) -> Answer:
        return page(orders, in_dates(query), excludes_start=True)

    serve(answer)
    project.set(cursor_format="epoch_seconds")

    project.synchronise()

    assert loaded(project) == set(range(len(orders)))


@pytest.mark.parametrize("tied", [1, 3])
def test_a_start_that_is_excluded_loses_nothing_where_requests_name_minutes(
    project: Project, serve: Callable[[Answering], Api], tied: int
) -> None:
    """Each window begins where another ends, and what is dated there would be in neither."""
    orders = [order(n, n // tied * 60) for n in range(400)]
    serve(lambda query: page(orders, query, excludes_start=True))
    project.set(cursor_format="%Y-%m-%dT%H:%MZ")

    project.synchronise()

    assert loaded(project) == set(range(len(orders)))


def test_an_offset_that_ends_somewhere_within_ties_is_noticed(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Behind it every page is empty, though the total says that there is more."""
    orders = [order(n, second) for n, second in enumerate([*range(5), *[9] * 30, *range(20, 29)])]

    def answer(query: dict[str, str]) -> Answer:
        found = page(orders, query)
        return found if int(query["offset"]) <= 12 else found | {"orders": []}

    serve(answer)

    with pytest.raises(PagesDisagree):
        project.synchronise()


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("paging", ["seek", "offset"])
@pytest.mark.parametrize("orders", [10, 90])
def test_an_offset_that_counts_pages_is_noticed(
    project: Project,
    serve: Callable[[Answering], Api],
    orders: int,
    paging: str,
    first: int,
) -> None:
    """It does where it is a "page" by name; most orders would be left out, and no total tells."""

    def answer(query: dict[str, str]) -> Answer:
        at = max(0, int(query["offset"]) - first)
        return page(ties, query | {"offset": str(at * int(query["limit"]))})

    ties = [order(n, 5) for n in range(orders)]
    serve(answer)
    project.set(total_path="", paging=paging)

    with pytest.raises(ResponseNotUnderstood, match="offset_param"):
        project.synchronise()


def test_a_full_page_of_ties_at_the_watermark_does_not_count_pages(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """The total is that of the page, as it would be if it were no total: so one order is asked for. That
    page is not the first one, which the offset is tried with."""
    serve(lambda query: page([order(n, 5) for n in range(5)], query))
    project.set(page_size=5, lag_seconds=0)
    project.synchronise()

    assert project.synchronise().unchanged == 5


@pytest.mark.parametrize("ties", [1, 3, 7])
@pytest.mark.parametrize("limit", [3, 100])
def test_a_number_that_ends_where_pages_are_cut_is_not_all_there_is(
    project: Project, serve: Callable[[Answering], Api], limit: int, ties: int
) -> None:
    """A page of 100, and a total of 100, look like all of them: one more page tells."""
    orders = [order(n, n // ties * 20) for n in range(450 if limit == 100 else 40)]
    serve(lambda query: page(orders, query, cap=limit, counts_up_to=limit))
    project.set(page_size=2 * limit)

    project.synchronise()
    project.synchronise()

    assert loaded(project) == set(range(len(orders)))


@pytest.mark.parametrize("cursor_format", ["iso", "epoch_seconds", "%Y-%m-%d"])
def test_orders_on_the_last_day_of_the_calendar_end_no_run(
    project: Project, serve: Callable[[Answering], Api], cursor_format: str
) -> None:
    """Such a date stands for none; nothing is later."""
    never = [order(n, 0) | {"last_modified_date": "9999-12-31T23:59:59Z"} for n in range(20, 26)]

    def answer(query: dict[str, str]) -> Answer:
        times = {
            name: write_time(read_time(text, cursor_format), "iso")
            for name, text in query.items()
            if name.startswith("modified")
        }
        return page(ONE_PER_SECOND + never, query | times)

    serve(answer)
    project.set(page_size=4, cursor_format=cursor_format)

    project.synchronise()

    assert loaded(project) == set(range(26))


def test_a_page_of_one_order_within_ties_is_not_their_end(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Some servers fill a page with what they have at hand; the total says that there is more."""
    orders = [order(n, n // 300) for n in range(900)]
    sizes = random.Random(1)
    serve(lambda query: page(orders, query, always=sizes.choice([1, 50, 120, 200])))
    project.set(page_size=200)

    project.synchronise()

    assert loaded(project) == set(range(len(orders)))


def test_pages_of_orders_without_an_id_are_not_one_page(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """They have nothing that tells them apart but what they hold."""
    orders = [order(n, n) for n in range(20)]
    for one in orders[4:16]:
        del one["order_id"]
    serve(lambda query: page(orders, query))
    project.set(paging="offset")

    result = project.synchronise()

    assert (result.loaded, result.rejected) == (8, 12)


def test_a_last_page_that_comes_again_behind_the_end_is_the_end(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Magento answers so; the total says that everything has come."""

    def answer(query: dict[str, str]) -> Answer:
        last = len(ONE_PER_SECOND) - 4
        return page(ONE_PER_SECOND, query | {"offset": str(min(int(query["offset"]), last))})

    serve(answer)
    project.set(paging="offset")

    project.synchronise()

    assert loaded(project) == set(range(len(ONE_PER_SECOND)))


def test_a_last_page_that_comes_again_since_an_order_came_before_it_is_no_mistake(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """What becomes visible late pushes the last order on, to where the reader looks next."""
    orders = [order(n, n) for n in range(1, 6)]

    def answer(query: dict[str, str]) -> Answer:
        if query["offset"] == "5" and len(orders) == 5:
            orders.append(order(0, 0))
        return page(orders, query)

    serve(answer)
    project.set(paging="offset", total_path="")

    project.synchronise()

    assert loaded(project) >= set(range(1, 6))


START = datetime(2024, 1, 1, tzinfo=UTC)
NO_END = {"params": {"modified_since": "{start}"}}
EACH_MINUTE = [order(n, 60 * n) for n in range(180)]


@pytest.mark.parametrize("minutes", [30, 600])
@pytest.mark.parametrize("page_size", [4, 120, 500])
@pytest.mark.parametrize("params", [{}, NO_END], ids=["", "without an end"])
def test_a_filter_that_reads_dates_in_another_zone_is_noticed(
    project: Project,
    serve: Callable[[Answering], Api],
    minutes: int,
    page_size: int,
    params: dict[str, Any],
) -> None:
    """It leaves out what is dated behind the start of each window, and every page looks well."""
    serve(lambda query: page(EACH_MINUTE, query, zone=timedelta(minutes=minutes)))
    project.set(page_size=page_size, **params)

    with pytest.raises(ResponseNotUnderstood, match="in another time zone|the window's end"):
        project.synchronise()


@pytest.mark.parametrize("there_are", [1, 2, 9])
def test_the_oldest_orders_may_change_while_one_is_asked_for_again(
    project: Project, serve: Callable[[Answering], Api], there_are: int
) -> None:
    """An hour lies between them, so that one has to be asked for; it is always the first that changes."""
    orders = [order(n, n * 3600) for n in range(there_are)]

    def answer(query: dict[str, str]) -> Any:
        found = page([dict(one) for one in orders], query)
        if len(found["orders"]) > 1:
            newest = max(map(at, orders))
            changed = min(orders, key=at)
            changed["last_modified_date"] = (newest + timedelta(hours=1)).isoformat()
        return found

    serve(answer)

    project.synchronise()

    assert loaded(project) == set(range(there_are))


@pytest.mark.parametrize("paging", ["seek", "offset"])
def test_an_offset_that_is_ignored_is_named_when_it_is_needed(
    project: Project, serve: Callable[[Answering], Api], paging: str
) -> None:
    """More orders in one timestamp than on a page: without an offset nobody can read them."""
    ties = [order(n, 0) for n in range(9)]
    serve(lambda query: page(ties, query, ignores_offset=True))
    project.set(paging=paging)

    with pytest.raises(ResponseNotUnderstood, match="is the one before it again.*offset_param"):
        project.synchronise()


@pytest.mark.parametrize("cursor_format", ["iso", "%Y-%m-%d"])
def test_orders_that_come_newest_first_are_noticed(
    project: Project, serve: Callable[[Answering], Api], cursor_format: str
) -> None:
    """The first page would take the start of the window to the end, past everything else."""
    serve(lambda query: page(ONE_PER_SECOND, query, descending=True))
    project.set(cursor_format=cursor_format)

    with pytest.raises(ResponseNotUnderstood, match="not sorted by last_modified_date"):
        project.synchronise()


@pytest.mark.parametrize("total_path", ["total", ""])
@pytest.mark.parametrize(("page_size", "newest"), [(4, 4), (4, 5), (200, 250)])
@pytest.mark.parametrize("params", [{}, NO_END], ids=["", "without an end"])
def test_orders_that_come_newest_first_are_noticed_behind_a_page_of_one_timestamp(
    project: Project,
    serve: Callable[[Answering], Api],
    page_size: int,
    newest: int,
    total_path: str,
    params: dict[str, Any],
) -> None:
    """A bulk change fills the first page, which shows no order of its own: what is older is behind it."""
    orders = ONE_PER_SECOND + [order(100 + n, 900) for n in range(newest)]
    serve(lambda query: page(orders, query, descending=True))
    project.set(page_size=page_size, total_path=total_path, **params)

    with pytest.raises(ResponseNotUnderstood, match="not sorted by last_modified_date"):
        project.synchronise()


@pytest.mark.parametrize("how", [{}, {"includes_end": True}, {"excludes_start": True}])
@pytest.mark.parametrize("params", [{}, NO_END], ids=["", "without an end"])
def test_a_first_page_of_one_timestamp_is_no_mistake(
    project: Project,
    serve: Callable[[Answering], Api],
    how: dict[str, Any],
    params: dict[str, Any],
) -> None:
    """The shop was filled by an import, and nothing is older; but for one that becomes visible late."""
    orders = [order(100 + n, 900) for n in range(6)] + [order(n, 901 + n) for n in range(9)]

    def answer(query: dict[str, str]) -> Answer:
        if len(api.asked) == 2:
            orders.append(order(99, 899))
        return page(orders, query, **how)

    api = serve(answer)
    project.set(**params)

    project.synchronise()

    late = {99} if params else set()  # what cannot be asked for is read by the next run
    assert loaded(project) == {one["order_id"] for one in orders} - late


@pytest.mark.parametrize("total_path", ["total", ""])
@pytest.mark.parametrize("seconds", [1, 60])
def test_many_orders_in_a_row_whose_dates_cannot_be_read_hide_no_others(
    project: Project, serve: Callable[[Answering], Api], seconds: int, total_path: str
) -> None:
    """T8 with more than a page of them, where the API filters and sorts by what it does not show."""
    orders = [order(n, n * seconds) for n in range(150)]
    unreadable = range(60, 71)

    def answer(query: dict[str, str]) -> Answer:
        found = page(orders, query)
        hidden = {"last_modified_date": None}
        shown = [one | hidden if one["order_id"] in unreadable else one for one in found["orders"]]
        return found | {"orders": shown}

    serve(answer)
    project.set(total_path=total_path)

    project.synchronise()

    assert loaded(project) == set(range(150)) - set(unreadable)
    rejected = project.query("SELECT DISTINCT order_id FROM ecommerce.orders_rejected")
    assert {int(key) for (key,) in rejected} == set(unreadable)


def test_an_end_that_is_ignored_is_noticed(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T17: each window would read all that follows it, and the run take as many times as long."""
    serve(lambda query: page([order(n, n * 10) for n in range(200)], query, ignores_end=True))

    with pytest.raises(ResponseNotUnderstood, match="behind the window's end.*holds {end}"):
        project.synchronise()


@pytest.mark.parametrize(
    ("answer", "setting"),
    [
        ({"orders": "maintenance", "total": 1}, "data_selector"),
        ({"orders": {"A": {"id": 1}, "B": {"id": 2}}, "total": 2}, "data_selector"),
        ({"orders": [{"id": 1, "last_modified_date": "x"}] * 3, "total": 3}, "primary_key"),
        ({"orders": [{"order_id": 1, "changed": "x"}] * 3, "total": 3}, "cursor_path"),
    ],
)
def test_what_is_no_list_of_orders_names_the_setting(
    project: Project, serve: Callable[[Answering], Api], answer: Answer, setting: str
) -> None:
    """Rejecting every order of the shop is not what a wrong name asks for."""
    serve(lambda query: answer)

    with pytest.raises(ResponseNotUnderstood, match=f"sources.orders.{setting}"):
        project.synchronise()


def test_a_selector_of_elements_bears_an_empty_page(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """`orders[*]` finds nothing in an empty list; that is no wrong selector."""
    serve(lambda query: page([], query))
    project.set(data_selector="orders[*]")

    assert project.synchronise().loaded == 0


def test_an_answer_that_is_not_understood_ends_all_windows(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """One thread knows that the run fails; the others would read on for as long as their windows last."""
    ties = 1200
    shared = {"last_modified_date": "2025-01-01T00:00:00Z"}
    orders = [order(n, n) for n in range(40)] + [order(40 + n, 0) | shared for n in range(ties)]
    ties_are_read, is_bad = threading.Event(), threading.Event()
    after: list[dict[str, str]] = []

    def answer(query: dict[str, str]) -> Answer:
        if "modified_before" in query and query["modified_since"] < "2024-01-02":
            assert ties_are_read.wait(10), "no second window is being read"
            is_bad.set()
            return {"error": "no such shard"}
        if query["offset"] != "0":
            ties_are_read.set()
        if is_bad.is_set():
            after.append(query)
        return page(orders, query)

    serve(answer)
    project.set(workers=2)

    with pytest.raises(ResponseNotUnderstood, match="there is nothing at 'orders'"):
        project.synchronise()

    assert len(after) < ties // 4 // 2


def test_whatever_ends_a_window_lets_nobody_send_any_more(
    serve: Callable[[Answering], Api],
) -> None:
    """An error while a page is looked at stops the other threads at their next request."""
    api = serve(lambda query: {"error": "no such shard"})
    reading = reading_of(read_settings())
    session = reading.connection.session
    pages = paginator(reading.settings, reading.shape, reading.windows, session)

    with pytest.raises(ResponseNotUnderstood) as failure:
        pages.update_state(session.get(api.url), [])
    with pytest.raises(ResponseNotUnderstood) as theirs:
        session.get(api.url)

    assert theirs.value is failure.value
    assert len(api.asked) == 1


def test_rows_that_cannot_be_made_let_nobody_send_any_more(
    serve: Callable[[Answering], Api],
) -> None:
    """dlt makes rows in one thread, and would wait for all others before it says what went wrong."""
    api = serve(lambda query: page(ONE_PER_SECOND, query))
    reading = reading_of(read_settings())
    session = reading.connection.session
    step = Step(
        reading.rows,
        reading.personal,
        reading.windows,
        reading.started_at,
        False,
        reading.look_up,
        reading.on_orders,
    )
    no_list: Any = 5

    with pytest.raises(TypeError) as failure:
        list(stopping_others(step, session)(no_list))
    with pytest.raises(TypeError) as theirs:
        session.get(api.url)

    assert theirs.value is failure.value
    assert api.asked == []


def reading_of(settings: OrdersSettings) -> Reading:
    rows = Rows(settings.primary_key, settings.cursor_path, settings.cursor_format)
    return Reading(settings, settings.initial_value, datetime.now(UTC), rows)


IDS = [
    "6F9619FF-8B86-D011-B42D-00C04FC964FF",
    "epoch",
    "infinity",
    "01-02-2024",
    "1e5",
    "007",
    "12:30",
]


def test_text_that_looks_like_something_else_stays_as_it_is(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """DuckDB's reader of JSON takes an id for a UUID or a date by a sample, and merges others."""
    orders = [order(n, n, order_id=text, note=text) for n, text in enumerate(IDS)]
    serve(lambda query: page(orders, query))

    project.synchronise()
    project.synchronise()

    assert project.query("SELECT order_id, note FROM ecommerce.orders ORDER BY 1") == [
        (text, text) for text in sorted(IDS)
    ]


def test_a_field_that_appears_late_does_not_stop_the_load(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """A first load of years of orders, in which fields come and go."""
    orders = [order(n, n // 20) for n in range(12_000)]
    orders[-1] |= {"gift": True, "gift_note": "2024", "items": [{"sku": "S", "bonus": 1.5}]}
    serve(lambda query: page(orders, query))
    project.set(page_size=2000)

    project.synchronise()

    assert project.query("SELECT gift, gift_note FROM ecommerce.orders WHERE gift") == [
        (True, "2024")
    ]


@pytest.mark.parametrize(
    "key", ["meta.id", "$.meta.id", "metaData.orderId", "Meta.id", "meta__Data.id"]
)
def test_an_id_may_stand_deeper(
    project: Project, serve: Callable[[Answering], Api], key: str
) -> None:
    """The merge is on the column that the field gets, also beside another that is spelt like it."""
    parent, name = key.removeprefix("$.").split(".")
    beside = {
        other: {name: "another", "x": 2} for other in ("meta", "meta_data") if other != parent
    }
    orders = [order(n, n) | {parent: {name: f"A-{n}", "x": 1}} | beside for n in range(9)]
    serve(lambda query: page(orders, query))
    project.set(primary_key=key, cursor_path="$.last_modified_date")

    project.synchronise()
    again = project.synchronise()

    assert (again.new, again.rows_in_table) == (0, 9)


def test_fields_whose_names_become_one_column_do_not_overwrite_each_other(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """`orderId` beside `order_id`, `shipTo` beside `ship_to`: both are in the table."""
    orders = [order(n, n, orderId=f"other {n}", shipTo="a", ship_to="b") for n in range(5)]
    serve(lambda query: page(orders, query))

    project.synchronise()
    project.synchronise()

    found = project.query(
        "SELECT order_id, order_id_2, ship_to, ship_to_2 FROM ecommerce.orders ORDER BY 1"
    )
    assert found == [(n, f"other {n}", "b", "a") for n in range(5)]


def test_awkward_values_do_not_stop_the_load(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Dates beyond the calendar in UTC, lists of lists, dlt's own names, ids beyond 64 bits."""
    awkward = {
        "far": "9999-12-31T23:59:59-05:00",
        "early": "0001-01-01T00:00:00+02:00",
        "grid": [[1, 1.5], [2]],
        "deep": [[{"a": 1.5}]],
        "mixed": [1, "007", 99999999999999999999, None],
        "_dlt_id": "theirs",
        "_dlt_load_id": "theirs",
        "tax.rate": 10,
    }
    orders = [order(2**63 + n, n, **awkward) for n in range(3)]
    orders.append(order(7, 5, **(awkward | {"tax.rate": 10.5})))
    serve(lambda query: page(orders, query))

    result = project.synchronise()

    assert (result.loaded, result.rejected) == (4, 0)
    assert loaded(project) == {str(o["order_id"]) for o in orders}
    mixed = project.query("SELECT DISTINCT value, value__v_text FROM ecommerce.orders__mixed")
    assert set(mixed) == {(1, None), (None, "007"), (None, "99999999999999999999"), (None, None)}
    assert project.columns("orders")["tax_rate"].startswith("DECIMAL")


def test_a_redirect_to_another_host_gets_no_credentials(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """What signs a request is for the API, not for whoever it points at."""
    other = serve(lambda query: page(ONE_PER_SECOND, query))
    api = serve(lambda query: {})
    api.redirect = other.url.replace("127.0.0.1", "localhost") + "/v1/orders"
    project.set(auth__type="api_key", auth__api_key="k3y", auth__name="X-Key")

    with pytest.raises(ApiRefused, match="redirect to http://localhost.*sources.orders.base_url"):
        project.synchronise()

    assert other.asked == []


@pytest.mark.parametrize("secret", ["s3cr3t\n", "s3c\nr3t"])
def test_a_line_break_in_a_secret_is_cut_or_named_but_never_shown(
    project: Project, serve: Callable[[Answering], Api], secret: str
) -> None:
    """Secrets come from files that end in a line break; requests would quote the whole header."""
    api = serve(lambda query: page(ONE_PER_SECOND, query))
    project.set(auth__type="bearer", auth__token=secret)

    if secret.endswith("\n"):
        project.synchronise()
        assert api.headers[0]["Authorization"] == "Bearer s3cr3t"
    else:
        with pytest.raises(
            SettingsError, match=r"auth\.token .*must not hold a line break"
        ) as error:
            project.synchronise()
        assert "r3t" not in str(error.value)


def test_a_secret_among_the_parameters_is_not_shown(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """WooCommerce takes its consumer_secret in the address."""
    serve(lambda query: {"nothing": 1})
    secret = {"consumer_secret": "cs_123", "code": "Qx7Zr-cs_123", "pass": "letmein", "pin": "4711"}
    project.set(params={"since": "{start}", "page_of": "all", "v": "2024-10"} | secret)

    with pytest.raises(ResponseNotUnderstood) as error:
        project.synchronise()

    assert not re.search("cs_123|letmein|4711", str(error.value))
    assert "consumer_secret=***" in str(error.value)
    assert "page_of=all" in str(error.value)
    assert "v=2024-10" in str(error.value)


def test_braces_in_the_path_are_the_apis_own(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """dlt would read them as a placeholder of its own."""
    serve(lambda query: page(ONE_PER_SECOND, query))
    project.set(path="/v1/{shop}/orders")

    assert project.synchronise().loaded == len(ONE_PER_SECOND)


def test_a_row_that_leaves_its_ties_pulls_no_other_past_the_reader(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T3 where an offset is needed: of five orders in one second, the first is changed in between."""
    orders = [order(n, 0) for n in range(5)] + [order(n, n) for n in range(5, 12)]

    def answer(query: dict[str, str]) -> Answer:
        if (
            query["offset"] not in ("0",)
            and orders[0]["last_modified_date"] == order(0, 0)["last_modified_date"]
        ):
            orders[0] |= {"last_modified_date": order(0, 50)["last_modified_date"]}
        return page(orders, query)

    serve(answer)

    project.synchronise()
    project.synchronise()

    assert loaded(project) == set(range(12))


def test_ties_in_another_order_each_time_over_many_pages_are_all_read(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T16 with more ties than a page holds: no two requests see them in the same order."""
    ties = [order(n, 0) for n in range(23)] + [order(23, 1)]
    seed = 7
    print(f"seed {seed}")
    shuffle = random.Random(seed)

    def answer(query: dict[str, str]) -> Answer:
        mixed = ties[:-1]
        shuffle.shuffle(mixed)
        return page([*mixed, ties[-1]], query)

    serve(answer)

    project.synchronise()

    assert loaded(project) == set(range(24))


def test_ties_in_another_order_whose_pages_seem_to_join_are_all_read(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T16: the first row of a page is the last of the one before by chance; what follows it is not."""
    ties = [order(n, 0) for n in range(11)]
    last = ties[0]
    seed = 11
    print(f"seed {seed}")
    shuffle = random.Random(seed)

    def answer(query: dict[str, str]) -> Answer:
        nonlocal last
        mixed = shuffle.sample(ties, len(ties))
        if query["offset"] != "0":
            mixed.remove(last)
            mixed.insert(int(query["offset"]), last)
        found = page([*mixed, order(11, 9)], query)
        seen = [one for one in found["orders"] if one["order_id"] != 11]
        last = seen[-1] if seen else last
        return found

    serve(answer)
    project.set(workers=1)

    project.synchronise()

    assert loaded(project) == set(range(12))


def test_ties_of_which_one_moves_away_while_another_takes_its_place_are_all_read(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T3 and T16 at once: the pages join, and as many orders were seen as there are; one was not."""
    ties = [order(n, 0) for n in range(11)]

    def answer(query: dict[str, str]) -> Answer:
        if query["offset"] != "0" and ties[0]["order_id"] == 0:
            ties[0] |= {"last_modified_date": order(0, 9)["last_modified_date"]}
            ties[:5] = [ties[4], *ties[1:4], ties[0]]
        return page(ties, query)

    serve(answer)
    project.set(workers=1)

    project.synchronise()

    assert loaded(project) == set(range(11))


def test_the_row_that_is_read_again_may_have_moved_just_behind_its_ties(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T3: both orders of a page are modified before the next one, which begins with the last of them."""
    orders = [order(n, 0) for n in range(3)]

    def answer(query: dict[str, str]) -> Answer:
        if query["offset"] != "0" and at(orders[0]) == at(orders[2]):
            orders[1] |= {"last_modified_date": order(1, 8)["last_modified_date"]}
            orders[0] |= {"last_modified_date": order(0, 9)["last_modified_date"]}
        return page(orders, query)

    serve(answer)
    project.set(workers=1, page_size=2)

    project.synchronise()

    assert at(orders[0]) > at(orders[1]) > at(orders[2])
    assert loaded(project) == {0, 1, 2}


@pytest.mark.parametrize("total_path", ["", "total"])
def test_an_order_takes_the_place_of_one_that_was_alone_on_its_page(
    project: Project, serve: Callable[[Answering], Api], total_path: str
) -> None:
    """T3 where a server gives no more than one order at a time; or, with a total, two now and then."""
    orders = [order(n, n // 2) for n in range(8)]
    shown = 0

    def answer(query: dict[str, str]) -> Answer:
        nonlocal shown
        cap = 2 if total_path and query["modified_since"] < "2024-01-01T00:00:01.001" else 1
        found = page([dict(one) for one in orders], query, cap=cap)
        if query["modified_since"].startswith("2024-01-01T00:00:02.000"):
            shown += query["offset"] == "0"
            if shown == (2 if total_path else 1):  # with a total, it has been read again
                orders[4] |= {"last_modified_date": order(4, 9)["last_modified_date"]}
        return found

    serve(answer)
    project.set(total_path=total_path, workers=1, params={"modified_since": "{start}"})

    project.synchronise()

    assert at(orders[4]) > at(orders[7])
    assert loaded(project) == set(range(8))


def test_orders_that_pages_showed_which_did_not_join_do_not_stand_for_others(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T3 and T16: the second time the pages join by chance; with what the first time showed, before one of
    these moved away, they look complete."""
    orders = [order(n, 0) for n in range(6)]
    # Behind a page that only shows whether the offset skips orders.
    by_chance = iter((range(6), [0, 2, 5, 4, 1, 3], [3, 4, 2, 0, 1, 5], [0, 2, 3, 4, 1, 5]))

    def answer(query: dict[str, str]) -> Answer:
        turn = range(6) if query["offset"] == "0" else next(by_chance, range(6))
        found = page([dict(orders[n]) for n in turn], query)
        if turn[2] == 5:
            orders[5] |= {"last_modified_date": order(5, 9)["last_modified_date"]}
        return found

    serve(answer)
    project.set(workers=1, page_size=3)

    project.synchronise()

    assert next(by_chance, None) is None
    assert loaded(project) == set(range(6))


def test_an_order_that_moves_away_does_not_stand_for_one_that_many_passes_have_missed(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T3 and T16 at once: as many orders were seen as there are, and pass after pass shows nothing new."""
    ties = [order(n, 0) for n in range(9)]
    hidden = ties[8]
    passes = 0
    seed = 5
    print(f"seed {seed}")
    shuffle = random.Random(seed)

    def answer(query: dict[str, str]) -> Answer:
        nonlocal passes
        offset, limit = int(query["offset"]), int(query["limit"])
        passes += offset == 0
        if passes == 6:
            ties[0] |= {"last_modified_date": order(0, 9)["last_modified_date"]}
        mixed = [one for one in ties if at(one) == at(hidden)]
        shuffle.shuffle(mixed)
        if passes < 15:
            mixed.remove(hidden)
            mixed.insert(offset + limit if offset < len(mixed) // 2 else 0, hidden)
        return page([*mixed, *(one for one in ties if one not in mixed)], query)

    serve(answer)
    project.set(workers=1, page_size=3)

    project.synchronise()

    assert loaded(project) == set(range(9))
    assert passes >= 15


@pytest.mark.parametrize("seed", range(2))
def test_ties_in_a_random_order_are_all_read_from_the_smallest_pages(
    project: Project, serve: Callable[[Answering], Api], seed: int
) -> None:
    """T16: two pages in a row show the same row by chance; that is not the end of it."""
    print(f"seed {seed}")
    shuffle = random.Random(seed)
    ties = [order(n, n // 6) for n in range(30)]

    def answer(query: dict[str, str]) -> Answer:
        mixed = shuffle.sample(ties, len(ties))
        return page(mixed, query, cap=1)

    serve(answer)
    project.set(total_path="", workers=1, params={"modified_since": "{start}"})

    project.synchronise()

    assert loaded(project) == set(range(30))


def test_many_timestamps_in_a_row_with_ties_in_a_random_order_are_all_read(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T16 after a bulk change that took a while: each of them is given up only for itself."""
    seed = 3
    print(f"seed {seed}")
    shuffle = random.Random(seed)
    orders = [order(n, n // 6) for n in range(360)]

    def answer(query: dict[str, str]) -> Answer:
        return page(shuffle.sample(orders, len(orders)), in_dates(query))

    serve(answer)
    project.set(cursor_format="epoch_seconds", total_path="")

    project.synchronise()

    assert loaded(project) == set(range(len(orders)))


def test_a_bulk_before_orders_that_are_a_moment_apart_is_no_rate(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Without a total the rest is cut by the rate so far, which was a window of no time at all."""
    dates = [START] * 40 + [START + timedelta(microseconds=n) for n in (1, 2)]
    orders = [order(n, 0, last_modified_date=date.isoformat()) for n, date in enumerate(dates)]
    serve(lambda query: page(orders, query))
    project.set(cursor_format="%Y-%m-%dT%H:%M:%S.%f", total_path="")

    project.synchronise()

    assert loaded(project) == set(range(len(orders)))


@pytest.mark.parametrize("name", ["", " ", "__", "%", "a__b", "x__v_text"])
def test_an_odd_field_name_gets_a_column_and_loses_nothing(
    project: Project, serve: Callable[[Answering], Api], name: str
) -> None:
    """One such field must not stop every run, nor take the column of another."""
    orders = [order(n, n) | {name: f"odd {n}", "a": {"b": 1}, "x": 5} for n in range(3)]
    serve(lambda query: page(orders, query))

    project.synchronise()

    rows = project.query("SELECT * FROM ecommerce.orders")
    assert all(any(str(value).startswith("odd ") for value in row) for row in rows)
    assert project.query("SELECT DISTINCT a__b, x FROM ecommerce.orders") == [(1, 5)]


def test_two_spellings_keep_their_columns_from_run_to_run(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Which of them comes first differs from run to run; their columns must not."""
    orders: list[dict[str, Any]] = []
    serve(lambda query: page(orders, query))

    for n, fields in enumerate(
        [
            {"shipTo": "c"},
            {"shipTo": "c", "ship_to": "s"},
            {"ship_to": "s"},
            {"shipTo": "c"},
        ]
    ):
        orders.append(order(n, n * 400) | fields)
        project.synchronise()

    found = project.query("SELECT ship_to, ship_to_2 FROM ecommerce.orders ORDER BY order_id")
    assert found == [("c", None), ("c", "s"), (None, "s"), ("c", None)]


def test_one_order_beyond_all_bounds_does_not_stop_the_others(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """A number of 4,201 digits is kept as text, an order of 300 levels is rejected."""
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"in": deep}
    orders = [order(0, 0), order(1, 1, big=10**4200), order(2, 2, deep=deep)]
    serve(lambda query: page(orders, query))

    result = project.synchronise()

    assert (result.loaded, result.rejected) == (2, 1)
    assert project.query("SELECT DISTINCT reason FROM ecommerce.orders_rejected") == [
        ("the order is nested more than 60 levels deep",)
    ]
    assert project.scalar("SELECT max(length(big__v_text)) FROM ecommerce.orders") == 4201


def test_a_tree_whose_tables_have_longer_names_than_files_is_loaded(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """A table is called by all lists it is in, and its files by the table."""
    tree: dict[str, Any] = {"id": 0}
    for n in range(1, 17):
        tree = {"id": n, "sub_categories": [tree]}
    long = {"x" * 120: {"y" * 120: 7}}
    orders = [order(1, 1, **long), order(2, 2, category=tree)]
    serve(lambda query: page(orders, query))

    project.synchronise()

    tables = project.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'ecommerce'")
    ids = [
        project.scalar(f'SELECT id FROM ecommerce."{name}"')
        for (name,) in tables
        if "sub_categories" in name
    ]
    assert sorted(ids) == list(range(16))
    assert "x" * 120 + "__" + "y" * 120 in project.columns(
        "orders"
    )  # a column is in no file's name


def test_a_first_page_of_orders_without_a_date_is_a_page(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Those that were never modified, whose date is null: they are rejected, and the others load."""
    never = [order(100 + n, 0, last_modified_date=None) for n in range(6)]

    def answer(query: dict[str, str]) -> Answer:
        first, limit = int(query["offset"]), int(query["limit"])
        found = never + ONE_PER_SECOND
        return {"orders": found[first : first + limit], "total": len(found)}

    serve(answer)
    project.set(paging="offset")

    result = project.synchronise()

    assert loaded(project) == set(range(20))
    assert result.rejected == 6


def test_an_order_without_an_id_is_rejected_also_if_it_is_the_only_one_of_its_page(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """With `orders[*]` as the selector, it was taken for something that is no list."""
    serve(lambda query: page([order(1, 1) | {"order_id": None}], query))
    project.set(data_selector="orders[*]")

    assert project.synchronise().rejected == 1
