"""A span of time is read again: what was lost or changed behind the project's back is as in the shop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orders_dagster.errors import ApiRefused, SpanRefused
from orders_dagster.span import Span
from orders_dagster_tests.small_api import Answer, Answering, Api, Refusal
from orders_dagster_tests.world import Project, Shop, expected

OpenShop = Callable[..., Shop]

NOW = datetime(2026, 7, 1, tzinfo=UTC)
JANUARY = Span(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
MARCH = Span(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))


@pytest.fixture(autouse=True)
def small_pages(project: Project) -> None:
    """A few orders are several pages."""
    project.set(page_size=5)


def order(order_id: str, at: datetime, **fields: Any) -> dict[str, Any]:
    modified = at.isoformat(timespec="milliseconds")
    return {
        "order_id": order_id,
        "last_modified_date": modified,
        "total": 10,
        "items": [{"line": 1}, {"line": 2}],
    } | fields


def page(
    orders: list[dict[str, Any]], query: dict[str, str], excludes_start: bool = False
) -> dict[str, Any]:
    """A page of an API that filters, and sorts."""
    since = datetime.fromisoformat(query["modified_since"])
    before = datetime.fromisoformat(query.get("modified_before", "9999-01-01T00:00:00Z"))
    dated = sorted(
        (datetime.fromisoformat(one["last_modified_date"]), str(one["order_id"]), one)
        for one in orders
    )
    found = [
        one for at, _, one in dated if since < at < before or (at == since and not excludes_start)
    ]
    return {
        "orders": found[int(query["offset"]) :][: int(query["limit"])],
        "total": len(found),
    }


def months(each: int = 20) -> list[dict[str, Any]]:
    """Orders in each of the first four months of 2026."""
    return [
        order(f"{month}-{n:02}", datetime(2026, month, 1, tzinfo=UTC) + timedelta(days=n))
        for month in (1, 2, 3, 4)
        for n in range(each)
    ]


def test_a_span_is_read_again_and_nothing_else(project: Project, shop: OpenShop) -> None:
    """What somebody changed or deleted in the tables is as in the shop again; the watermark stays."""
    store = shop(orders=0)
    store.put(*months())
    project.synchronise()
    watermark = project.synchronise().watermark_after
    project.execute("DELETE FROM ecommerce.orders WHERE order_id IN ('1-03', '3-03')")
    project.execute("UPDATE ecommerce.orders SET total = 99 WHERE order_id IN ('1-05', '3-05')")
    project.execute(
        "DELETE FROM ecommerce.orders__items WHERE line = 2 AND _dlt_root_id IN "
        "(SELECT _dlt_id FROM ecommerce.orders WHERE order_id IN ('1-07', '3-07'))"
    )

    result = project.synchronise(span=JANUARY)

    wanted = expected(store.orders())
    wanted["3-07"] = (wanted["3-07"][0], 1)
    del wanted["3-03"]
    assert project.orders() == wanted
    wrong = project.query("SELECT order_id FROM ecommerce.orders WHERE total = 99")
    assert wrong == [("3-05",)]
    assert (result.loaded, result.new) == (20, 1)
    assert result.watermark_before == result.watermark_after == watermark
    assert project.synchronise().watermark_after == watermark

    project.synchronise(span=MARCH)

    assert project.orders() == expected(store.orders())


def test_a_month_that_is_read_after_the_dataset_was_dropped_hides_no_other(
    project: Project, shop: OpenShop
) -> None:
    """Whatever moved the watermark then would leave the other months out for good."""
    store = shop(orders=0)
    store.put(*months())
    project.synchronise()
    project.execute("DROP SCHEMA ecommerce CASCADE")

    project.synchronise(span=MARCH)

    assert {str(key)[0] for key in project.orders()} == {"3"}
    project.synchronise()
    assert project.orders() == expected(store.orders())


@pytest.mark.parametrize("excludes_start", [False, True])
def test_a_span_holds_its_start_and_not_its_end(
    project: Project, serve: Callable[[Answering], Api], excludes_start: bool
) -> None:
    """Months that are read one after another leave no gap, also if the filter excludes its start."""
    there = [order("start", JANUARY.start), order("end", JANUARY.end)]
    serve(lambda query: page(there, query, excludes_start))

    project.synchronise(span=JANUARY)

    assert project.query("SELECT order_id FROM ecommerce.orders") == [("start",)]


def test_a_span_finer_than_a_request_can_name_is_read_with_what_is_around_it(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """Cut to the same second, its start and its end would hold nothing, and lose what was asked for."""
    half_past = JANUARY.start + timedelta(seconds=10, milliseconds=500)
    project.set(cursor_format="%Y-%m-%dT%H:%M:%SZ")
    there = [order("inside", half_past), order("later", JANUARY.start + timedelta(seconds=30))]
    serve(lambda query: page(there, query))
    project.synchronise()
    project.execute("DELETE FROM ecommerce.orders WHERE order_id = 'inside'")

    project.synchronise(span=Span(half_past, half_past + timedelta(milliseconds=200)))

    found = project.query("SELECT order_id FROM ecommerce.orders ORDER BY 1")
    assert found == [("inside",), ("later",)]


def test_an_older_version_never_overwrites_a_newer_one(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """T5 beyond one load: an API that answers from several copies of its data may show what was before."""
    new = order("A", JANUARY.start + timedelta(days=20), status="paid", items=[{"line": 1}])
    old = order("A", JANUARY.start + timedelta(days=10), status="open")
    beside = order("B", JANUARY.start + timedelta(days=11), status="open")
    shown = [new]
    serve(lambda query: page(shown, query))
    project.synchronise()
    shown[:] = [old, beside]

    result = project.synchronise(span=JANUARY)

    found = project.query("SELECT order_id, status FROM ecommerce.orders ORDER BY 1")
    assert found == [("A", "paid"), ("B", "open")]
    assert {key: items for key, (_, items) in project.orders().items()} == {"A": 1, "B": 2}
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__items") == 3
    assert (result.loaded, result.new, result.updated, result.unchanged) == (1, 1, 0, 0)


@pytest.mark.parametrize("how", ["failed", "replay"])
def test_nor_after_a_run_that_left_newer_orders_than_its_watermark(
    project: Project, serve: Callable[[Answering], Api], how: str
) -> None:
    """It failed after a part of its loads, or was a replay: what it has loaded counts as there."""
    listed = [
        order(f"A-{n:02}", JANUARY.start + timedelta(days=n), status="paid") for n in range(30)
    ]
    answers = 0

    def answer(query: dict[str, str]) -> Answer:
        nonlocal answers
        answers += 1
        return Refusal(400) if how == "failed" and answers == 9 else page(listed, query)

    serve(answer)
    project.set(page_size=4, checkpoint_orders=8, workers=1)
    if how == "failed":
        project.set(paging="offset")
        with pytest.raises(ApiRefused):
            project.synchronise()
    else:
        project.synchronise(span=Span(JANUARY.start, JANUARY.start + timedelta(days=12)))
    kept = int(project.scalar("SELECT count(*) FROM ecommerce.orders"))
    current = listed[5]
    listed[5] = order("A-05", JANUARY.start + timedelta(days=4), status="open")

    result = project.synchronise()
    listed[5] = current
    project.synchronise()

    found = project.query("SELECT DISTINCT status FROM ecommerce.orders")
    assert found == [("paid",)]
    assert 8 <= kept < 30
    assert (result.new, result.updated, result.unchanged) == (30 - kept, 0, kept - 1)


def test_nor_does_an_increment_that_reads_the_lag_again(
    project: Project, serve: Callable[[Answering], Api]
) -> None:
    """The same, in the run that comes every hour."""
    now = datetime.now(UTC)
    new, old = (order("A", now - timedelta(seconds=s), status=f"{s}") for s in (60, 120))
    shown = [new]
    serve(lambda query: page(shown, query))
    project.synchronise()
    shown[:] = [old]

    result = project.synchronise()

    assert project.query("SELECT status FROM ecommerce.orders") == [("60",)]
    assert (result.loaded, result.updated, result.unchanged) == (0, 0, 0)
    assert result.watermark_before == result.watermark_after


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TABLE ecommerce.orders",
        "DROP TABLE ecommerce.orders__items",
        "DELETE FROM ecommerce.orders",
    ],
)
def test_if_a_table_is_gone_more_than_the_span_is_read(
    project: Project, shop: OpenShop, harm: str
) -> None:
    """With one month in it, the table would look whole to the next run, and older orders stay away."""
    store = shop(orders=0)
    store.put(*months(5))
    project.synchronise()
    project.execute(harm)

    project.synchronise(span=JANUARY)

    assert project.orders() == expected(store.orders())


def test_a_list_that_was_emptied_is_filled_by_a_replay_of_everything(
    project: Project, shop: OpenShop
) -> None:
    """A full refresh: every order of the shop is read and merged again."""
    store = shop(orders=0)
    store.put(*months(5))
    project.synchronise()
    project.execute("DELETE FROM ecommerce.orders__items")

    project.synchronise(span=Span.parse("2000-01-01", "", NOW))

    assert project.orders() == expected(store.orders())


def test_before_the_first_run_a_replay_loads_its_span_and_the_first_run_the_rest(
    project: Project, shop: OpenShop
) -> None:
    """Without a watermark of its own, nothing before or after the span may seem to be loaded."""
    store = shop(orders=0)
    store.put(*months(5))

    replayed = project.synchronise(span=MARCH)
    some = set(project.orders())
    project.synchronise()

    assert some == {key for key in expected(store.orders()) if key.startswith("3-")}
    assert replayed.watermark_after is None
    assert project.orders() == expected(store.orders())


@pytest.mark.parametrize(
    "settings",
    [
        {"params": {"modified_since": "{start}", "sort": "last_modified_date"}},
        {"params": {}, "paging": "offset"},
        {"total_path": ""},
        {"workers": 1, "checkpoint_orders": 7, "page_size": 3},
    ],
)
def test_a_span_can_be_read_again_from_any_api(
    project: Project, shop: OpenShop, settings: dict[str, Any]
) -> None:
    """Without an end in the request, or a filter, more is read; what is in the span is right."""
    store = shop(orders=0)
    store.put(*months(8))
    project.set(**settings)
    project.synchronise()
    project.execute("DELETE FROM ecommerce.orders WHERE order_id LIKE '1-%'")

    project.synchronise(span=JANUARY)

    assert project.orders() == expected(store.orders())


def test_orders_that_change_beside_a_replay_are_right_after_the_next_run(
    project: Project, shop: OpenShop
) -> None:
    """A replay is safe at any time: what moves out of its span meanwhile is newer than the watermark."""
    store = shop(orders=0)
    store.put(*months())
    project.synchronise()

    for _ in range(3):
        store.change(modify=15, remove_items=5, new=3)
        project.synchronise(span=JANUARY)
        store.change(modify=15)
        project.synchronise()

    assert project.orders() == expected(store.orders())


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        ("2026-02-01", "2026-01-01", "not after its start"),
        ("2026-02-01", "2026-02-01", "not after its start"),
        ("2026-02-01T00:00:00+01:00", "2026-01-31T23:00:00Z", "not after its start"),
        ("2026-08-01", "2026-09-01", "in the future"),
        ("2026-08-01", "", "in the future"),
        ("soon", "", "its start is no date"),
        ("", "", "its start is no date"),
        ("2026-01-01", "later", "its end is no date"),
        ("2026-13-01", "", "its start is no date"),
    ],
)
def test_a_span_that_cannot_be_meant_is_refused(start: str, end: str, reason: str) -> None:
    """Before anything runs, and in words: an empty replay would look like a successful one."""
    with pytest.raises(SpanRefused, match=reason):
        Span.parse(start, end, NOW)


@pytest.mark.parametrize("end", ["", "9999-12-31T23:59:59.999999"])
def test_a_span_may_begin_and_end_with_the_calendar(project: Project, end: str) -> None:
    """Whoever wants everything writes the first day there is and the last: nothing comes before it, so
    nothing is subtracted from it where the API leaves out the start of a window."""
    orders = months(3)
    api = Api(lambda query: page(orders, query, excludes_start=True))
    with api.running():
        project.point_at(api.url, login=False)
        project.synchronise(span=Span.parse("0001-01-01", end, NOW))

        assert project.orders() == expected(orders)


def test_a_span_is_read_in_utc_unless_it_says_otherwise() -> None:
    """Everywhere else in the project, too, a time without an offset is UTC."""
    found = Span.parse("2026-01-01", "2026-01-02T01:00:00+02:00", NOW)

    assert found == Span(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 23, tzinfo=UTC))
    assert Span.parse("2026-01-01", " ", NOW).end == NOW
