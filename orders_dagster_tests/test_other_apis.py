"""Other orders APIs, reached through the settings alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from orders_dagster.api.query import depending_on, in_window, templates
from orders_dagster_tests.world import Project, Shop

OpenShop = Callable[..., Shop]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ("nested", {"data_selector": "data.sales", "total_path": "paging.total"}),
        ("bare", {"data_selector": "$", "total_path": ""}),
    ],
)
def test_other_shapes_of_a_page(
    project: Project, shop: OpenShop, shape: str, settings: dict[str, Any]
) -> None:
    """A list under another name, deeper, or the body itself."""
    store = shop(orders=450, shape=shape)
    project.set(**settings)

    project.synchronise()
    store.change(new=3, modify=4)
    second = project.synchronise()

    assert set(project.orders()) == {order["order_id"] for order in store.orders()}
    assert (second.new, second.updated) == (3, 4)


@pytest.mark.parametrize(
    ("style", "cursor_format"),
    [
        ("epoch_seconds", "epoch_seconds"),
        ("epoch_milliseconds", "epoch_milliseconds"),
        ("rfc2822", "rfc2822"),
        ("offset", "iso"),
        ("iso", "%Y-%m-%dT%H:%M:%SZ"),
    ],
)
def test_other_ways_to_write_a_time(
    project: Project, shop: OpenShop, style: str, cursor_format: str
) -> None:
    """T7: read as an instant, whatever it looks like, and written as the API wants it."""
    store = shop(orders=450, cursor_style=style)
    project.set(cursor_format=cursor_format)

    project.synchronise()
    store.change(new=3, modify=4)
    second = project.synchronise()

    assert set(project.orders()) == {order["order_id"] for order in store.orders()}
    assert (second.new, second.updated) == (3, 4)
    assert project.columns("orders")["last_modified_date"] == "TIMESTAMP WITH TIME ZONE"


def test_other_names_in_the_request(project: Project, shop: OpenShop) -> None:
    """Only the start of the window is sent if only it is set; the values of others stay."""
    store = shop(orders=450)
    project.set(params={"modified_since": "{start}", "sort": "last_modified_date"}, page_size=100)

    project.synchronise()

    queries = [r["query"] for r in store.requests() if r["path"] == "/v1/orders"]
    assert all("modified_before" not in query for query in queries)
    assert all("sort=last_modified_date" in query and "limit=100" in query for query in queries)


def test_an_end_inside_a_longer_value_is_a_time_one_year_ahead() -> None:
    """`where = 'changed >= "{start}" and changed < "{end}"'` needs an end even for an open window."""
    params = {"where": 'changed >= "{start}" and changed < "{end}"', "to": "{end}"}

    opened = in_window(params, "A", None, "iso")
    bounded = in_window(params, "A", "B", "iso")

    year = datetime.now(UTC).year + 1
    assert opened["where"].startswith(f'changed >= "A" and changed < "{year}-')
    assert "to" not in opened, "a parameter that is just the open end is not sent"
    assert bounded == {"where": 'changed >= "A" and changed < "B"', "to": "B"}


def test_a_json_filter_keeps_its_braces() -> None:
    """dlt would read the braces of a JSON value as placeholders of its own, so they are doubled."""
    params = templates({"filter": '{"updated": {"gte": "{start}"}}', "flag": True})

    given = depending_on("windows", params)

    assert given["filter"] == '{{"updated": {{"gte": "{resources.windows.start}"}}}}'
    assert in_window(params, "A", "B", "iso") == {
        "filter": '{"updated": {"gte": "A"}}',
        "flag": "true",
    }
