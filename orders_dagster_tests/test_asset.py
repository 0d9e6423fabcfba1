"""The asset as Dagster shows it: its definition, what a materialization reports, how it fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    ExecuteInProcessResult,
    FreshnessPolicy,
    TableSchema,
)

import orders_dagster.progress
from orders_dagster.definitions import build_defs, defs
from orders_dagster.records import loads_in
from orders_dagster_tests.small_api import Answering, Api, order, page
from orders_dagster_tests.world import Project, Shop, expected

OpenShop = Callable[..., Shop]


def run_job(instance: DagsterInstance, **how: Any) -> ExecuteInProcessResult:
    return defs.resolve_job_def("orders_job").execute_in_process(
        instance=instance, raise_on_error=False, **how
    )


def materialize(instance: DagsterInstance) -> ExecuteInProcessResult:
    """Without the checks and their report, which take as long and have tests of their own."""
    return run_job(instance, op_selection=["orders"])


def reported(result: ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success
    (materialization,) = result.asset_materializations_for_node("orders")
    return {name: value.value for name, value in materialization.metadata.items()}


def test_the_asset_says_what_it_is() -> None:
    """Group, kinds, owners, description and the upstream API: what the page shows before any run."""
    spec = defs.resolve_asset_graph().get(AssetKey("orders"))

    assert spec.group_name == "ecommerce"
    assert spec.kinds == {"dlt", "duckdb"}
    assert spec.owners == ["team:data"]
    assert "Every order of the shop once" in (spec.description or "")
    assert spec.parent_keys == {AssetKey("orders_api")}
    assert spec.metadata["dagster/table_name"] == "ecommerce.orders"
    assert not defs.resolve_asset_graph().get(AssetKey("orders_api")).is_executable


def test_a_materialization_reports_its_numbers_as_numbers(
    project: Project, shop: OpenShop, instance: DagsterInstance
) -> None:
    """The page plots numbers, and finance asks for them."""
    store = shop(orders=450)
    first = reported(materialize(instance))
    store.change(new=5, modify=6)
    store.put({"order_id": "X-1", "last_modified_date": "never"})
    second = reported(materialize(instance))

    assert (first["orders_loaded"], first["orders_new"], first["rows_in_table"]) == (450, 450, 450)
    assert (second["orders_new"], second["orders_updated"]) == (5, 6)
    assert (second["orders_rejected"], second["rows_in_table"]) == (1, 455)
    assert second["dagster/row_count"] == 455
    assert second["watermark_before"] == first["watermark_after"]
    newest = max(time for time, _ in project.orders().values())
    assert datetime.fromtimestamp(second["watermark_after"], UTC) == newest
    assert 0 <= second["lag_seconds"] < 3600
    assert first["pages"] >= 3
    assert first["requests"] == first["pages"] + 1, "one more for the token"
    assert first["retries"] == 0
    assert first["bytes"] > 100_000
    for step in ("extract_seconds", "normalize_seconds", "load_seconds"):
        assert first[step] > 0
    plotted = {name for name, value in first.items() if isinstance(value, (int, float))}
    assert {"orders_loaded", "lag_seconds", "bytes", "load_seconds"} <= plotted


def test_a_rebuilding_says_so_and_nothing_of_the_usual_volume(
    project: Project, shop: OpenShop, instance: DagsterInstance
) -> None:
    """All orders are new to the table, and none to the shop: for a month the check would be wrong."""
    shop(orders=50)
    reported(materialize(instance))
    loaded_at = datetime.now(UTC)
    project.execute("DROP TABLE ecommerce.orders__items")
    rebuilt = reported(materialize(instance))
    idle = reported(materialize(instance))

    assert rebuilt["orders_new"] == 50
    assert rebuilt["read_again"] == "everything: orders__items was gone"
    assert "read_again" not in idle
    loads = loads_in(instance, loaded_at, datetime.now(UTC))
    assert loads is not None
    assert [load.orders for load in loads] == [0]


def test_a_materialization_shows_the_columns_of_the_tables(
    project: Project, shop: OpenShop, instance: DagsterInstance
) -> None:
    """What is in the table, with types, without opening the warehouse."""
    shop(orders=20)

    metadata = reported(materialize(instance))

    schema: TableSchema = metadata["dagster/column_schema"]
    types = {column.name: column.type for column in schema.columns}
    assert types["order_id"] == "text"
    assert types["last_modified_date"] == "timestamp"
    assert types["total"] == "decimal"
    assert set(types) == set(project.columns("orders"))
    items: TableSchema = metadata["orders__items_columns"]
    assert {column.name for column in items.columns} == set(project.columns("orders__items"))


def test_what_the_page_calls_fresh_is_what_the_check_does(project: Project) -> None:
    """Who loads once a week sets it once, and sees no stale asset on the other days."""
    project.set(freshness_hours="200")

    (spec,) = (
        one for one in build_defs().resolve_all_asset_specs() if one.key == AssetKey("orders")
    )

    assert spec.freshness_policy == FreshnessPolicy.time_window(fail_window=timedelta(hours=200))


def test_progress_is_in_the_event_log(
    project: Project,
    shop: OpenShop,
    instance: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever watches a long first load in the page sees rows, rate and share of the total."""
    shop(orders=900)
    project.set(page_size=50)
    monkeypatch.setattr(orders_dagster.progress, "PROGRESS_SECONDS", 0)

    result = materialize(instance)

    logs = [
        entry.user_message
        for entry in instance.all_logs(result.run_id)
        if entry.user_message.startswith("Read")
    ]
    first = re.fullmatch(r"Reading (\d+) orders, (\d+)% of 900, [\d,]+ per second\.", logs[0])
    assert first, logs[0]
    assert 50 <= int(first[1]) < 900
    assert first[2] == f"{int(first[1]) / 9:.0f}"
    assert logs[-1].startswith("Read 9")


def test_progress_has_no_share_of_a_total_that_is_none(
    project: Project, serve: Callable[[Answering], Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some APIs give the size of the page for the total: all would be done from the first line on."""
    orders = [order(n, n) for n in range(100)]
    serve(lambda query: page(orders, query, counts_page=True))
    project.set(page_size=20)
    monkeypatch.setattr(orders_dagster.progress, "PROGRESS_SECONDS", 0)
    logs: list[str] = []

    project.synchronise(logs.append)

    lines = {int(line.split()[1]): line for line in logs if line.startswith("Read")}
    assert max(lines) >= 100  # some are read twice
    assert not [line for orders, line in lines.items() if orders > 20 and "%" in line]


def test_a_wrong_setting_fails_with_a_message_and_without_a_stack(
    project: Project, shop: OpenShop, instance: DagsterInstance
) -> None:
    """The page shows what to correct; a stack of dlt's and ours would hide it."""
    shop(orders=10)
    project.set(client_secret="wrong-s3cret")

    result = run_job(instance)

    (failure,) = [e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
    data = failure.step_failure_data
    assert data.user_failure_data is not None
    assert "Correct sources.orders.client_id and client_secret" in (
        data.user_failure_data.description or ""
    )
    everything = "\n".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert "wrong-s3cret" not in everything
    assert "PipelineStepFailed" not in everything


def test_missing_settings_are_all_named_when_a_run_starts(instance: DagsterInstance) -> None:
    """Nothing configured: one error with every missing key, not one run for each."""
    result = run_job(instance)

    (failure,) = [e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
    assert failure.step_failure_data.user_failure_data is not None
    description = str(failure.step_failure_data.user_failure_data.description)
    for key in ("client_id", "client_secret", "token_url"):
        assert f"sources.orders.{key} is missing" in description


def test_a_materialization_after_a_failed_one_catches_up(
    project: Project, shop: OpenShop, instance: DagsterInstance
) -> None:
    """A failed run leaves nothing behind that a person would have to clean up."""
    store = shop(orders=300)
    store.script("ok", *["503"] * 4)
    assert not run_job(instance).success

    assert materialize(instance).success
    assert project.orders() == expected(store.orders())
