"""T1 to T19 on a bare `rest_api_source`: what each cure of the project is there for.

The scenarios are those of `test_promises.py`, the configuration is the reference, and everything else is
dlt's default (`bare.py`). Each test says how it goes wrong today. One that fails after an upgrade of dlt
is good news: look whether the cure that belongs to it has become unnecessary.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import duckdb
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from orders_dagster_tests import scenarios
from orders_dagster_tests.bare import Bare
from orders_dagster_tests.scenarios import Stage, stage_for
from orders_dagster_tests.world import Closing, expected


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path)


@pytest.fixture
def stage(bare: Bare, closing: Closing) -> Iterator[Stage]:
    """The bare source, and the shops that a scenario opens for it."""
    with stage_for(bare, closing) as stage:
        yield stage


def has_no_table(bare: Bare) -> bool:
    with pytest.raises(duckdb.CatalogException, match="orders.* does not exist"):
        bare.query("SELECT * FROM ecommerce.orders")
    return True


def test_every_scenario_is_shown_on_the_bare_source() -> None:
    """A cure without its illness may be superstition."""
    assert scenarios.numbers(sys.modules[__name__]) == set(range(1, 20))


def test_a_server_that_caps_the_page_size_loses_half_of_the_orders(
    bare: Bare, stage: Stage
) -> None:
    """T1: green, with 500 of 1,000: the offset steps by what was asked for."""
    scenarios.the_page_size_is_capped(stage)

    assert len(bare.orders()) == 500


@pytest.mark.parametrize("fault", ["empty", "nobody"])
def test_an_answer_without_orders_ends_the_reading(bare: Bare, stage: Stage, fault: str) -> None:
    """T2: green, with 400 of 1,000: a page without rows, or a body without the list, is the end."""
    scenarios.a_page_comes_without_orders(stage, fault)

    assert len(bare.orders()) == 400


def test_orders_that_change_while_they_are_read_hide_others(bare: Bare, stage: Stage) -> None:
    """T3: green, twice. For each order that leaves its place, one is missing for good, and those
    that were read a second time are stale."""
    living = expected(scenarios.orders_change_while_they_are_read(stage))

    loaded = bare.orders()
    missing = set(living) - set(loaded)
    stale = {key for key in set(living) & set(loaded) if loaded[key] != living[key]}
    assert (len(missing), len(stale)) == (16, 12)


def test_orders_that_vanish_while_they_are_read_hide_others_for_good(
    bare: Bare, stage: Stage
) -> None:
    """T3: green, and as many are missing as were deleted; their dates are behind the watermark."""
    left = expected(scenarios.orders_vanish_while_they_are_read(stage))
    bare.synchronise()

    assert len(set(left) - set(bare.orders())) == 4


@pytest.mark.parametrize("before", [(), ("503",)])
def test_a_token_that_is_refused_ends_the_run(
    bare: Bare, stage: Stage, before: tuple[str, ...]
) -> None:
    """T4: red, though a new token was one request away."""
    with pytest.raises(PipelineStepFailed, match="401 Client Error"):
        scenarios.the_token_is_refused_in_mid_run(stage, *before)

    assert has_no_table(bare)


def test_the_first_of_several_versions_in_one_load_wins(bare: Bare, stage: Stage) -> None:
    """T5: green, with the oldest version in the table."""
    scenarios.an_order_comes_in_several_versions(stage)

    assert bare.query("SELECT status FROM ecommerce.orders") == [("old",)]


def test_a_second_change_within_one_timestamp_is_dropped(bare: Bare, stage: Stage) -> None:
    """T6: green, with the first version: dlt takes the order for the one it has seen."""
    scenarios.an_order_changes_twice_within_one_timestamp(stage)

    assert bare.query("SELECT status FROM ecommerce.orders") == [("first",)]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2024-05-01T12:00:00+02:00", "2024-05-01T11:00:00Z"),
        ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00.500Z"),
    ],
)
def test_dates_are_compared_as_text(bare: Bare, stage: Stage, earlier: str, later: str) -> None:
    """T7: green, without the later order: the API sends it, and dlt filters it out as an older one."""
    shop = scenarios.dates_are_spelled_differently(stage, earlier, later)

    assert set(bare.orders()) == {"A-1"}
    asked_from = parse_qs(shop.requests()[-1]["query"])["modified_since"]
    assert [datetime.fromisoformat(text) for text in asked_from] == [
        datetime.fromisoformat(earlier)
    ]


@pytest.mark.parametrize(
    ("flaw", "step"),
    [({"last_modified_date": None}, "extract"), ({"order_id": None}, "normalize")],
)
def test_an_order_that_cannot_be_merged_stops_all_others(
    bare: Bare, stage: Stage, flaw: dict[str, Any], step: str
) -> None:
    """T8: red, and nothing is loaded. An id that is null is met in normalize, earlier than noted."""
    with pytest.raises(PipelineStepFailed) as failed:
        scenarios.an_order_cannot_be_merged(stage, **flaw)

    assert failed.value.step == step
    assert has_no_table(bare)


def test_a_shop_without_orders_makes_no_table(bare: Bare, stage: Stage) -> None:
    """T9: green, and whatever counts the rows afterwards fails."""
    scenarios.there_are_no_orders_yet(stage)

    assert has_no_table(bare)


def test_a_file_that_is_open_elsewhere_ends_the_run(bare: Bare, stage: Stage) -> None:
    """T10: red, even for a reader: nothing waits."""
    with pytest.raises(PipelineStepFailed, match="Could not set lock"):
        scenarios.the_file_is_open_elsewhere(stage)

    assert len(bare.orders()) == 20


def test_an_api_without_a_total_fails_and_shows_its_orders(bare: Bare, stage: Stage) -> None:
    """T11: red. The message quotes whole orders, customers and all, into the log."""
    with pytest.raises(PipelineStepFailed, match="not found in the response") as failed:
        scenarios.there_is_no_total(stage)

    assert "shipping_address" in str(failed.value)
    assert has_no_table(bare)


def test_three_attempts_are_two_retries(bare: Bare, stage: Stage) -> None:
    """T12: red, if the three retries of the reference are written as dlt's `request_max_attempts`."""
    bare.attempts = 3

    with pytest.raises(PipelineStepFailed, match="503 Server Error"):
        scenarios.a_request_fails_three_times(stage)


@pytest.mark.parametrize("answer", [{}, {"access_token": None}, {"access_token": ""}])
def test_a_missing_token_is_sent_all_the_same(stage: Stage, answer: Any) -> None:
    """T13: red, and the orders' address gets the blame: 401, after "Bearer None" or "Bearer "."""
    with pytest.raises(PipelineStepFailed, match="401 Client Error.*/v1/orders") as failed:
        scenarios.the_token_answer_holds_no_token(stage, answer)

    assert "access_token" not in str(failed.value)


def test_a_body_that_is_no_json_ends_the_run(bare: Bare, stage: Stage) -> None:
    """T14: red, without a retry."""
    with pytest.raises(PipelineStepFailed, match="Expecting value"):
        scenarios.a_body_is_damaged(stage, "garble")

    assert has_no_table(bare)


def test_a_body_that_is_cut_off_is_retried_by_dlt_too(bare: Bare, stage: Stage) -> None:
    """T14, not so: where the length was announced, dlt 1.31.0 notices, and asks again."""
    shop = scenarios.a_body_is_damaged(stage, "truncate")

    assert set(bare.orders()) == {order["order_id"] for order in shop.orders()}


def test_a_run_that_is_killed_is_begun_anew(stage: Stage) -> None:
    """T15: all that was read is read again, from offset 0."""
    shop = scenarios.the_process_is_killed(stage)

    again = shop.queries_again[0]
    assert (again["offset"], again["modified_since"]) == ("0", "2000-01-01T00:00:00Z")
    assert shop.given <= shop.given_again


def test_ties_in_a_different_order_each_time_lose_orders(bare: Bare, stage: Stage) -> None:
    """T16: green, with orders missing that did not change at all."""
    orders = scenarios.ties_come_in_another_order_each_time(stage)

    missing = {order["order_id"] for order in orders} - set(bare.orders())
    assert len(missing) == 259  # the shuffles are seeded


@pytest.mark.parametrize("switch", ["ignore_sort", "ignore_filter"])
def test_an_api_that_ignores_a_parameter_is_not_noticed(
    bare: Bare, stage: Stage, switch: str
) -> None:
    """T17, not so: plain offset paging needs neither, and nothing is lost on a quiet shop. It is
    seek paging that has to notice. What it costs here: without the filter, each increment reads all."""
    shop = scenarios.a_parameter_is_ignored(stage, switch)
    first = len(shop.requests())
    shop.change(new=1)
    bare.synchronise()

    assert set(bare.orders()) == {order["order_id"] for order in shop.orders()}
    pages_of_the_increment = len(shop.requests()) - first - 1  # one is for the token
    assert pages_of_the_increment == {"ignore_sort": 1, "ignore_filter": 2}[switch]


def test_whole_and_fractional_amounts_get_two_columns(bare: Bare, stage: Stage) -> None:
    """T18: green, and the sum over `total` is wrong."""
    scenarios.amounts_are_whole_here_and_not_there(stage)

    (sums,) = bare.query("SELECT sum(total), sum(total__v_double) FROM ecommerce.orders")
    assert sums == (10, 10.5)


def test_a_token_that_expires_on_the_way_ends_the_run(bare: Bare, stage: Stage) -> None:
    """T19: red, for a request that waited a moment."""
    with pytest.raises(PipelineStepFailed, match="401 Client Error"):
        scenarios.the_token_expires_on_the_way(stage)

    assert has_no_table(bare)
