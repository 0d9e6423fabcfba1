"""T1 to T19, kept: what loses, doubles or ages orders elsewhere does not do so here.

Each scenario of `scenarios.py` is played on the project, over real HTTP and into a real DuckDB file.
`test_bare_source.py` shows what the same does to a bare `rest_api_source`. More about each cure is in
the tests of its own room; here is what is promised.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from orders_dagster.errors import ResponseNotUnderstood, SettingsError
from orders_dagster_tests import scenarios
from orders_dagster_tests.scenarios import Stage, stage_for
from orders_dagster_tests.world import Closing, Project, expected


@pytest.fixture
def stage(project: Project, closing: Closing) -> Iterator[Stage]:
    """The project, and the shops that a scenario opens for it."""
    with stage_for(project, closing) as stage:
        yield stage


def test_every_scenario_has_its_promise() -> None:
    """A promise that nobody tests is an intention."""
    assert scenarios.numbers(scenarios) == set(range(1, 20))
    assert scenarios.numbers(sys.modules[__name__]) == set(range(1, 20))


def test_a_server_that_caps_the_page_size_loses_no_orders(project: Project, stage: Stage) -> None:
    """T1: the next page begins behind the rows received, not behind the rows asked for."""
    shop = scenarios.the_page_size_is_capped(stage)

    assert project.orders() == expected(shop.orders())


def test_a_page_that_is_empty_by_mistake_is_read_again(project: Project, stage: Stage) -> None:
    """T2: an empty page is no end as long as the total says that there is more."""
    shop = scenarios.a_page_comes_without_orders(stage, "empty")

    assert project.orders() == expected(shop.orders())


def test_an_answer_without_orders_stops_the_run(project: Project, stage: Stage) -> None:
    """T2: a body without the list is not a page; the run says so, and the next one heals."""
    with pytest.raises(ResponseNotUnderstood, match="answered 200, but there is no"):
        scenarios.a_page_comes_without_orders(stage, "nobody")

    assert project.synchronise().rows_in_table == 1000


def test_orders_that_change_while_they_are_read_are_not_skipped(
    project: Project, stage: Stage
) -> None:
    """T3: none missing and none stale, whatever moves, or vanishes, behind the reader."""
    living = expected(scenarios.orders_change_while_they_are_read(stage))

    # Orders that the shop deletes stay in the tables.
    assert {key: row for key, row in project.orders().items() if key in living} == living


def test_orders_that_vanish_while_they_are_read_hide_no_others(
    project: Project, stage: Stage
) -> None:
    """T3: one reading is enough, since it goes by the date."""
    left = expected(scenarios.orders_vanish_while_they_are_read(stage))

    assert set(left) - set(project.orders()) == set()


def test_an_offset_and_a_total_do_not_notice_orders_that_vanish(
    project: Project, stage: Stage
) -> None:
    """T3: for each order that vanishes, one is skipped, and the number read is the total all the same.
    It is why `paging` is "seek" by default; with "offset" the next reading has to find them."""
    project.set(paging="offset", params={})

    left = expected(scenarios.orders_vanish_while_they_are_read(stage))

    # Before the other four pages, and before the offset is tried.
    assert len(set(left) - set(project.orders())) == 5
    project.synchronise()
    assert set(left) - set(project.orders()) == set()


@pytest.mark.parametrize("before", [(), ("503",)])
def test_a_token_that_is_refused_is_renewed_and_the_request_repeated(
    project: Project, stage: Stage, before: tuple[str, ...]
) -> None:
    """T4: a revoked token costs one request, also when it is revoked during a retry's wait."""
    shop = scenarios.the_token_is_refused_in_mid_run(stage, *before)

    assert project.orders() == expected(shop.orders())
    assert [request["status"] for request in shop.requests()].count(401) == 1


def test_the_newest_of_several_versions_in_one_load_wins(project: Project, stage: Stage) -> None:
    """T5: wherever in the load it stands."""
    scenarios.an_order_comes_in_several_versions(stage)

    assert project.query("SELECT status FROM ecommerce.orders") == [("newest",)]


def test_a_second_change_within_one_timestamp_is_seen(project: Project, stage: Stage) -> None:
    """T6: an order with the date of the watermark is not taken for the one that was read before."""
    scenarios.an_order_changes_twice_within_one_timestamp(stage)

    assert project.query("SELECT status FROM ecommerce.orders") == [("second",)]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2024-05-01T12:00:00+02:00", "2024-05-01T11:00:00Z"),
        ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00.500Z"),
    ],
)
def test_dates_are_compared_as_instants(
    project: Project, stage: Stage, earlier: str, later: str
) -> None:
    """T7: an hour later is later, however it is spelled."""
    project.set(lag_seconds=0)  # which would hide it

    shop = scenarios.dates_are_spelled_differently(stage, earlier, later)

    assert project.orders() == expected(shop.orders())


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ({"last_modified_date": None}, "last_modified_date is missing"),
        ({"last_modified_date": "yesterday"}, "last_modified_date is not a readable time"),
        ({"order_id": None}, "order_id is missing"),
    ],
)
def test_an_order_that_cannot_be_merged_is_kept_aside_and_the_others_load(
    project: Project, stage: Stage, flaw: dict[str, Any], reason: str
) -> None:
    """T8: one bad order must not stop the others, nor vanish; seen again, it stays one row."""
    scenarios.an_order_cannot_be_merged(stage, **flaw)
    again = project.synchronise()

    assert set(project.orders()) == {"A-1", "A-3"}
    rejected = project.query(
        "SELECT reason, json_extract_string(order_json, '$.items[0].sku') "
        "FROM ecommerce.orders_rejected"
    )
    assert rejected == [(reason, "S1")]
    assert again.rejected == 1


def test_a_shop_without_orders_is_no_error(project: Project, stage: Stage) -> None:
    """T9: no table yet, no error, no watermark; and the first order is seen when it comes."""
    shop = scenarios.there_are_no_orders_yet(stage)
    still_empty = project.synchronise()
    shop.change(new=1)
    first = project.synchronise()

    assert (still_empty.loaded, still_empty.rows_in_table) == (0, 0)
    assert still_empty.lag_seconds is None
    assert still_empty.watermark_after is None
    assert (first.loaded, first.rows_in_table) == (1, 1)


def test_a_run_waits_for_a_file_that_is_open_elsewhere(project: Project, stage: Stage) -> None:
    """T10: somebody looks at the tables for a moment; the run waits and then succeeds."""
    said: list[str] = []

    shop = scenarios.the_file_is_open_elsewhere(stage, said.append)

    assert any(re.search(r"\(process \d+\); waiting up to 300 s", line) for line in said)
    assert project.orders() == expected(shop.orders())


def test_an_api_without_a_total_is_a_matter_of_one_setting(project: Project, stage: Stage) -> None:
    """T11: the run names the setting, and with it everything is read."""
    with pytest.raises(ResponseNotUnderstood, match="sources.orders.total_path"):
        scenarios.there_is_no_total(stage)

    project.set(total_path="")
    shop = scenarios.there_is_no_total(stage)

    assert project.orders() == expected(shop.orders())


def test_three_retries_are_four_attempts(project: Project, stage: Stage) -> None:
    """T12: what the third retry can still save is saved."""
    shop = scenarios.a_request_fails_three_times(stage)

    assert project.orders() == expected(shop.orders())


@pytest.mark.parametrize("answer", [{}, {"access_token": None}, {"access_token": ""}, []])
def test_a_token_answer_without_a_token_is_an_error(stage: Stage, answer: Any) -> None:
    """T13: nothing is signed with a token that is none, and the message names the token's address."""
    with pytest.raises(SettingsError, match="without an access_token.*sources.orders.token_url"):
        scenarios.the_token_answer_holds_no_token(stage, answer)


@pytest.mark.parametrize("fault", ["truncate", "garble"])
def test_a_damaged_body_is_asked_for_again(project: Project, stage: Stage, fault: str) -> None:
    """T14: a body that is cut off, or a proxy's page in between, is a fault of the wire."""
    shop = scenarios.a_body_is_damaged(stage, fault)

    assert project.orders() == expected(shop.orders())


def test_a_run_that_is_killed_leaves_its_checkpoints_to_the_next(
    project: Project, stage: Stage
) -> None:
    """T15: the next run goes on after the last checkpoint, and does not begin anew."""
    project.set(checkpoint_orders=200, page_size=100)

    shop = scenarios.the_process_is_killed(stage)

    assert project.orders() == expected(shop.orders)
    first_checkpoint = {order["order_id"] for order in shop.orders[:150]}
    assert first_checkpoint <= shop.given
    assert not first_checkpoint & shop.given_again


def test_ties_in_a_different_order_each_time_are_all_read(project: Project, stage: Stage) -> None:
    """T16: a timestamp that spreads over pages is read until all of its orders were seen."""
    orders = scenarios.ties_come_in_another_order_each_time(stage)

    assert project.orders() == expected(orders)


@pytest.mark.parametrize("switch", ["ignore_sort", "ignore_filter"])
def test_an_api_that_ignores_a_parameter_is_noticed(
    project: Project, stage: Stage, switch: str
) -> None:
    """T17: the run stops and names the settings; with paging by offset everything is read."""
    with pytest.raises(ResponseNotUnderstood, match="sources.orders.params.*paging"):
        scenarios.a_parameter_is_ignored(stage, switch)

    project.set(paging="offset", params={})
    shop = scenarios.a_parameter_is_ignored(stage, switch)

    assert project.orders() == expected(shop.orders())


def test_whole_and_fractional_amounts_share_one_decimal_column(
    project: Project, stage: Stage
) -> None:
    """T18: every sum over one of two columns would be wrong."""
    scenarios.amounts_are_whole_here_and_not_there(stage)

    assert project.scalar("SELECT sum(total) FROM ecommerce.orders") == Decimal("20.5")
    assert project.scalar("SELECT sum(unit_price) FROM ecommerce.orders__items") == Decimal("6.25")
    assert not [name for name in project.columns("orders") if name.startswith("total__")]


def test_a_token_that_expires_on_the_way_is_renewed(project: Project, stage: Stage) -> None:
    """T19: no margin helps a request that waits longer than its token lives."""
    shop = scenarios.the_token_expires_on_the_way(stage)

    assert project.orders() == expected(shop.orders())
    assert [request["status"] for request in shop.requests()].count(401) == 1
