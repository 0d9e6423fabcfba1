"""Each asset check is seen to pass, and to fail when its fault is planted in the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetSelection,
    DagsterInstance,
    Definitions,
    TableMetadataValue,
    asset,
    define_asset_job,
    materialize,
)

from orders_dagster.assets import API, ORDERS_KEY, orders_assets
from orders_dagster.checks import CHECKS, SAMPLE, orders_checks
from orders_dagster.definitions import defs
from orders_dagster.settings import CheckSeverity
from orders_dagster_tests.world import Project, Shop

OpenShop = Callable[..., Shop]

NEW_ITEM = """
    INSERT INTO ecommerce.orders__items (sku, _dlt_root_id, _dlt_parent_id, _dlt_list_idx, _dlt_id)
    SELECT 'S' || n, 'none', 'none', 0, 'orphan' || n FROM range({count}) t(n)
"""

PLANTED = {
    "order_id_unique": ["INSERT INTO ecommerce.orders SELECT * FROM ecommerce.orders LIMIT 3"],
    "order_id_not_null": [
        "ALTER TABLE ecommerce.orders ALTER order_id DROP NOT NULL",
        "UPDATE ecommerce.orders SET order_id = NULL WHERE order_id IN ("
        "SELECT order_id FROM ecommerce.orders ORDER BY 1 LIMIT 3)",
    ],
    "items_belong_to_an_order": [NEW_ITEM.format(count=3)],
    "last_modified_not_in_future": [
        "UPDATE ecommerce.orders SET last_modified_date = now() + INTERVAL 10 MINUTE "
        "WHERE order_id IN (SELECT order_id FROM ecommerce.orders ORDER BY 1 LIMIT 3)"
    ],
    "freshness": [
        "UPDATE ecommerce.orders SET last_modified_date = last_modified_date - INTERVAL 3 DAY"
    ],
}


def run_checks(instance: DagsterInstance | None = None) -> dict[str, AssetCheckEvaluation]:
    """All checks on the tables as they are, without loading anything."""
    only_checks = define_asset_job("only_checks", AssetSelection.checks_for_assets("orders"))
    everything = Definitions(
        [API, orders_assets()], asset_checks=[orders_checks()], jobs=[only_checks]
    )
    result = everything.resolve_job_def("only_checks").execute_in_process(
        instance=instance or DagsterInstance.ephemeral(), raise_on_error=False
    )
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def found(evaluation: AssetCheckEvaluation) -> dict[str, Any]:
    metadata = {name: value.value for name, value in evaluation.metadata.items()}
    sample = evaluation.metadata.get("sample")
    if isinstance(sample, TableMetadataValue):
        metadata["sample"] = sample.records
    return metadata


def test_all_checks_pass_on_what_was_loaded(project: Project, shop: OpenShop) -> None:
    """A check that cannot pass is as useless as one that cannot fail."""
    shop(orders=100)
    project.synchronise()

    checks = run_checks()

    assert set(checks) == {check.name for check in CHECKS}
    assert {name for name, check in checks.items() if not check.passed} == set()
    assert found(checks["order_id_unique"])["rows_looked_at"] == 100
    assert "GROUP BY" in found(checks["order_id_unique"])["sql"]
    items = project.scalar("SELECT count(*) FROM ecommerce.orders__items")
    tags = project.scalar("SELECT count(*) FROM ecommerce.orders__tags")
    assert found(checks["items_belong_to_an_order"])["rows_looked_at"] == items + tags


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_makes_its_check_fail(project: Project, shop: OpenShop, name: str) -> None:
    """Each check fails for its fault, for no other, and counts the offenders."""
    shop(orders=100)
    project.set(reconcile="false")  # it would find most of them, too
    project.synchronise()
    for statement in PLANTED[name]:
        project.execute(statement)

    checks = run_checks()

    assert {check.check_name for check in checks.values() if not check.passed} == {name}
    offenders = 1 if name == "freshness" else 3
    assert found(checks[name])["offenders"] == offenders
    assert len(found(checks[name])["sample"]) == offenders


def test_a_rejected_order_warns_until_it_is_loaded(project: Project, shop: OpenShop) -> None:
    """`no_rejected_orders` is open work: corrected in the shop and loaded, the order is off the list."""
    store = shop(orders=10)
    store.put({"order_id": "A-1", "last_modified_date": "never", "items": []})
    project.synchronise()
    warned = run_checks()["no_rejected_orders"]

    store.put({"order_id": "A-1", "items": []})
    project.synchronise()
    healed = run_checks()["no_rejected_orders"]

    assert not warned.passed
    assert warned.severity == AssetCheckSeverity.WARN
    (row,) = found(warned)["sample"]
    assert row.data["reason"] == "last_modified_date is not a readable time"
    assert "order_json" not in row.data, "what is in an order stays in the warehouse"
    assert healed.passed


def test_a_rejected_order_that_was_deleted_in_the_shop_is_no_open_work(
    project: Project, shop: OpenShop
) -> None:
    """A repair marks it; and until then it may be what the numbers of orders differ by."""
    store = shop(orders=10)
    store.put({"order_id": "A-1", "last_modified_date": "never", "items": []})
    project.synchronise()
    project.execute("DELETE FROM ecommerce.orders WHERE order_id = 'ORD-00000001'")
    differs = run_checks()["reconciles_with_source"]
    project.execute("UPDATE ecommerce.orders_rejected SET deleted_at = now()")

    checks = run_checks()

    assert "cannot be dated in orders_rejected: 1." in str(differs.description)
    assert "orders_rejected" not in str(checks["reconciles_with_source"].description)
    assert checks["no_rejected_orders"].passed


def test_rejected_orders_are_counted_by_reason(project: Project, shop: OpenShop) -> None:
    """One fault of the shop in a thousand orders is one line, not a thousand."""
    store = shop(orders=10)
    never = [
        {"order_id": f"A-{n}", "last_modified_date": "never", "items": []}
        for n in range(SAMPLE + 5)
    ]
    store.put({"order_id": "", "items": []}, *never)
    project.synchronise()

    check = run_checks()["no_rejected_orders"]

    assert found(check)["offenders"] == SAMPLE + 6
    by_reason = check.metadata["by_reason"]
    assert isinstance(by_reason, TableMetadataValue)
    assert [list(row.data.values()) for row in by_reason.records] == [
        ["last_modified_date is not a readable time", SAMPLE + 5],
        ["order_id is missing", 1],
    ]


def test_a_sample_of_the_offenders_is_shown(project: Project, shop: OpenShop) -> None:
    """A million offenders are counted, twenty are shown."""
    shop(orders=10)
    project.synchronise()
    project.execute(NEW_ITEM.format(count=500))

    check = run_checks()["items_belong_to_an_order"]

    assert found(check)["offenders"] == 500
    assert len(found(check)["sample"]) == SAMPLE


def test_the_checks_bear_that_there_is_no_table_yet(project: Project, shop: OpenShop) -> None:
    """T9: before the first order there is no table, and that is no fault of the data."""
    shop(orders=0)

    nothing_at_all = run_checks()
    project.synchronise()
    no_orders = run_checks()

    assert all(check.passed for check in (*nothing_at_all.values(), *no_orders.values()))
    assert found(no_orders["order_id_unique"])["rows_looked_at"] == 0


def test_the_checks_bear_that_a_table_was_dropped(project: Project, shop: OpenShop) -> None:
    """Somebody dropped a table by hand: the checks say what is there, they do not crash."""
    shop(orders=10)
    project.synchronise()
    project.execute("DROP TABLE ecommerce.orders")

    checks = run_checks()

    assert checks["order_id_unique"].passed
    assert not checks["items_belong_to_an_order"].passed, "every item has lost its order"


def test_the_two_checks_of_the_key_are_errors_and_block() -> None:
    """Nothing downstream may be built on orders that are in the table twice."""
    graph = defs.resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    severity = {check.name: check.severity(CheckSeverity()) for check in CHECKS}

    assert blocking == {"order_id_unique", "order_id_not_null"}
    assert severity["order_id_unique"] == severity["order_id_not_null"] == AssetCheckSeverity.ERROR


def test_the_checks_are_one_step_after_the_asset(shop: OpenShop) -> None:
    """One step, one connection: six processes would cost more than the loading."""
    shop(orders=10)

    result = materialize(
        [API, orders_assets(), orders_checks()], instance=DagsterInstance.ephemeral()
    )

    steps = [event.step_key for event in result.all_events if event.is_step_success]
    assert steps == ["orders", "orders_checks"]
    assert len(result.get_asset_check_evaluations()) == len(CHECKS)


def test_the_checks_ask_any_sql_destination(
    project: Project, shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No path of a DuckDB file in the checks: another destination serves as well."""
    monkeypatch.setenv("DESTINATION_TYPE", "sqlalchemy")
    monkeypatch.setenv(
        "DESTINATION__SQLALCHEMY__CREDENTIALS", f"sqlite:///{project.directory}/orders.sqlite"
    )
    store = shop(orders=50)
    first = project.synchronise()
    store.change(new=3, modify=4)
    second = project.synchronise()

    checks = run_checks()

    assert (first.loaded, first.rows_in_table) == (50, 50)
    assert (second.new, second.rows_in_table) == (3, 53)
    assert {name for name, check in checks.items() if not check.passed} == set()
    assert found(checks["order_id_unique"])["rows_looked_at"] == 53


def test_severities_are_settings(project: Project, shop: OpenShop) -> None:
    """What wakes somebody up is theirs to say: one check is made an error, another a warning."""
    shop(orders=10)
    project.synchronise()
    project.set(check_severity={"freshness": "error", "items_belong_to_an_order": "warn"})
    for statement in (*PLANTED["freshness"], *PLANTED["items_belong_to_an_order"]):
        project.execute(statement)

    checks = run_checks()

    failed = {name: check.severity for name, check in checks.items() if not check.passed}
    assert failed == {
        "freshness": AssetCheckSeverity.ERROR,
        "items_belong_to_an_order": AssetCheckSeverity.WARN,
    }


def test_the_clock_tolerance_is_a_setting(project: Project, shop: OpenShop) -> None:
    """A shop whose clock is known to be a quarter of an hour ahead is no news each hour."""
    shop(orders=10)
    project.synchronise()
    for statement in PLANTED["last_modified_not_in_future"]:
        project.execute(statement)
    project.set(clock_tolerance_minutes=15)

    assert run_checks()["last_modified_not_in_future"].passed


def test_a_check_that_is_made_a_warning_holds_nothing_back(
    project: Project, shop: OpenShop
) -> None:
    """Dagster blocks what is downstream by the severity of the result, whatever the definition says."""
    shop(orders=10)
    project.synchronise()
    for statement in PLANTED["order_id_unique"]:
        project.execute(statement)
    project.set(check_severity={"order_id_unique": "warn"})

    @asset(deps=[ORDERS_KEY])
    def downstream() -> None:
        """Something that is built on the orders."""

    result = materialize(
        [API, orders_assets(), orders_checks(), downstream],
        selection=AssetSelection.assets(downstream.key)
        | AssetSelection.checks_for_assets(ORDERS_KEY),
        instance=DagsterInstance.ephemeral(),
        raise_on_error=False,
    )

    assert not {e.check_name: e for e in result.get_asset_check_evaluations()}[
        "order_id_unique"
    ].passed
    assert [event.asset_key for event in result.get_asset_materialization_events()] == [
        downstream.key
    ]


def test_changes_of_the_columns_are_listed_once(
    project: Project, shop: OpenShop, instance: DagsterInstance
) -> None:
    """Whoever builds on the tables hears what has changed in them, and not again by the next run."""
    store = shop(orders=10)
    store.put({"order_id": "A-1", "items": [], "points": 7, "note": "n"})
    project.synchronise()
    first = run_checks(instance)["schema_stable"]
    store.put({"order_id": "A-2", "items": [], "points": "seven", "channel": "web"})
    store.put({"order_id": "A-3", "items": [], "refunds": [{"amount": 1}]})
    project.synchronise()
    project.execute("ALTER TABLE ecommerce.orders DROP COLUMN note")
    project.execute("ALTER TABLE ecommerce.orders ALTER is_gift SET DATA TYPE VARCHAR")
    second = run_checks(instance)["schema_stable"]
    third = run_checks(instance)["schema_stable"]

    assert (first.passed, second.passed, third.passed) == (True, False, True)
    assert first.description == "The first look at them."
    assert second.severity == AssetCheckSeverity.WARN
    assert second.description is not None
    assert second.description.startswith("5 changes since 20")
    assert [list(row.data.values()) for row in found(second)["sample"]] == [
        ["orders", "channel", "added", None, "text"],
        ["orders", "is_gift", "type changed", "bool", "text"],
        ["orders", "note", "dropped", "text", None],
        ["orders", "points__v_text", "split off from points", None, "text"],
        ["orders__refunds", "", "table added", None, None],
    ]
    assert third.description is not None
    assert third.description.startswith("As they were at 20")


def test_a_list_that_was_emptied_is_noticed_once(
    project: Project, shop: OpenShop, instance: DagsterInstance
) -> None:
    """No order is missing and no item without its order: every other check would pass."""
    shop(orders=10)
    project.synchronise()
    run_checks(instance)
    project.execute("DELETE FROM ecommerce.orders__items")
    second = run_checks(instance)["schema_stable"]
    third = run_checks(instance)["schema_stable"]

    assert (second.passed, third.passed) == (False, True)
    assert second.description is not None
    assert second.description.startswith("1 change since 20")
    assert [list(row.data.values())[:3] for row in found(second)["sample"]] == [
        ["orders__items", "", "emptied"]
    ]
