"""`replay_orders` and `repair_orders` as their users start them: a month, a span, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import AssetCheckEvaluation, DagsterInstance, ExecuteInProcessResult, job
from dagster._core.errors import DagsterUnknownPartitionError

from orders_dagster.automation import last_watermark
from orders_dagster.definitions import build_defs, defs
from orders_dagster.replay import OPS, config_of
from orders_dagster_tests.world import Project, Shop, expected

OpenShop = Callable[..., Shop]
THIS_MONTH = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
LAST_MONTH = (THIS_MONTH - timedelta(days=1)).replace(day=1)


def order(key: str, at: datetime) -> dict[str, Any]:
    modified = at.isoformat(timespec="milliseconds")
    return {"order_id": key, "last_modified_date": modified, "total": 1, "items": [{"line": 1}]}


@pytest.fixture
def store(shop: OpenShop) -> Shop:
    store = shop(orders=0)
    store.put(
        *(order(f"last-{n}", LAST_MONTH + timedelta(hours=n)) for n in range(10)),
        *(order(f"before-{n}", LAST_MONTH - timedelta(hours=n + 1)) for n in range(10)),
        order("first of this month", THIS_MONTH),
    )
    return store


def run(instance: DagsterInstance, name: str, **how: Any) -> ExecuteInProcessResult:
    return defs.resolve_job_def(name).execute_in_process(
        instance=instance, raise_on_error=False, **how
    )


def load(instance: DagsterInstance) -> None:
    """What was there before: without checks and their report, which take as long."""
    assert run(instance, "orders_job", op_selection=["orders"]).success


def metadata(result: ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success, failure(result)
    (made,) = result.asset_materializations_for_node(OPS[result.job_def.name])
    assert made.partition is None
    return {name: value.value for name, value in made.metadata.items()}


def failure(result: ExecuteInProcessResult) -> str:
    failures = [e.step_failure_data.user_failure_data for e in result.get_step_failure_events()]
    return "; ".join(str(one and one.description) for one in failures)


def check(result: ExecuteInProcessResult, name: str) -> AssetCheckEvaluation:
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == name]
    return found


def test_a_month_is_read_again_from_the_partitions_page(
    project: Project, store: Shop, instance: DagsterInstance
) -> None:
    """By a click: what was lost in that month is back, what was lost in another one is not."""
    load(instance)
    watermark = last_watermark(instance)
    project.execute("DELETE FROM ecommerce.orders WHERE order_id IN ('last-3', 'before-3')")

    told = metadata(run(instance, "replay_orders", partition_key=f"{LAST_MONTH:%Y-%m-%d}"))

    missing = expected(store.orders()).keys() - project.orders().keys()
    assert missing == {"before-3"}
    assert (told["orders_loaded"], told["orders_new"]) == (10, 1)
    assert told["read_again"] == f"{LAST_MONTH.isoformat()} to {THIS_MONTH.isoformat()}"
    assert last_watermark(instance) == watermark


def test_a_span_is_read_again_from_the_launchpad(
    project: Project, store: Shop, instance: DagsterInstance
) -> None:
    """Its checks run as after any other run."""
    load(instance)
    project.execute("DELETE FROM ecommerce.orders")
    load(instance)
    project.execute("DELETE FROM ecommerce.orders WHERE order_id LIKE 'before-%'")
    start = (LAST_MONTH - timedelta(days=2)).isoformat()

    result = run(instance, "replay_orders", run_config=config_of("replay_orders", start=start))

    assert project.orders() == expected(store.orders())
    assert check(result, "order_id_unique").passed
    assert check(result, "reconciles_with_source").passed


@pytest.mark.parametrize(
    ("job", "config", "reason"),
    [
        ("replay_orders", {}, "choose a month, or write its start"),
        ("replay_orders", {"start": "2026-02-01", "end": "2026-01-01"}, "not after its start"),
        ("replay_orders", {"start": "2999-01-01"}, "in the future"),
        ("replay_orders", {"start": "tomorrow"}, "its start is no date"),
        ("replay_orders", {"end": "2026-01-01"}, "an end and no start"),
        ("repair_orders", {"end": "2026-01-01"}, "an end and no start"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused_before_anything_is_read(
    store: Shop, instance: DagsterInstance, job: str, config: dict[str, Any], reason: str
) -> None:
    """A clear error, and no request: an empty replay would look like a successful one."""
    result = run(instance, job, run_config=config_of(job, **config))

    assert not result.success
    assert reason in failure(result)
    assert store.requests() == []


@pytest.mark.parametrize("month", [f"{THIS_MONTH + timedelta(days=40):%Y-%m-01}", "1999-12-01"])
def test_a_month_that_does_not_exist_is_refused(instance: DagsterInstance, month: str) -> None:
    """In the future, or before the initial value: Dagster knows the months there are."""
    with pytest.raises(DagsterUnknownPartitionError, match=month):
        run(instance, "replay_orders", partition_key=month)


def test_the_months_begin_with_the_initial_value(project: Project) -> None:
    """Three hundred months of nothing would hide the ones that matter."""
    project.set(initial_value=f"{LAST_MONTH + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}")

    months = build_defs().resolve_job_def("replay_orders").partitions_def

    assert months is not None
    assert months.get_partition_keys() == [f"{LAST_MONTH:%Y-%m-%d}", f"{THIS_MONTH:%Y-%m-%d}"]


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00Z", "0999-05-05"])
def test_an_initial_value_that_stands_for_no_date_is_one_since_1970(
    project: Project, value: str
) -> None:
    """Thousands of months would be of no use on the page; the Launchpad takes any start."""
    project.set(initial_value=value)

    months = build_defs().resolve_job_def("replay_orders").partitions_def

    assert months is not None
    assert months.get_partition_keys()[0] == "1970-01-01"


def test_a_repair_mends_what_differs_and_says_so(
    project: Project, store: Shop, instance: DagsterInstance
) -> None:
    """The check warns, one run of the job without any config mends it, the check passes again."""
    store.put(order("newest", datetime.now(UTC)))
    load(instance)
    project.execute("DELETE FROM ecommerce.orders WHERE order_id = 'last-3'")
    store.delete("before-2")

    warned = check(run(instance, "orders_job"), "reconciles_with_source")
    result = run(instance, "repair_orders")

    assert not warned.passed
    assert warned.metadata["offenders"].value in (1, 2)
    told = metadata(result)
    assert (told["orders_new"], told["marked_deleted"]) == (1, 1)
    assert told["differences"]
    assert check(result, "reconciles_with_source").passed
    deleted = "SELECT order_id FROM ecommerce.orders WHERE deleted_at IS NOT NULL"
    assert project.query(deleted) == [("before-2",)]
    there = expected(store.orders())
    assert {key: row for key, row in project.orders().items() if key in there} == there


def test_a_comparison_that_was_switched_off_says_so(
    project: Project, store: Shop, instance: DagsterInstance
) -> None:
    """Each costs some 25 requests, which not every API gives away."""
    project.set(reconcile="false")

    evaluation = check(run(instance, "orders_job"), "reconciles_with_source")

    assert evaluation.passed
    assert "switched off" in (evaluation.description or "")
    asked = [r for r in store.requests() if r["path"] == "/v1/orders"]
    assert len(asked) <= 3, "the page, and what its total and its filter are asked again with"


def test_an_api_that_fails_while_it_is_compared_is_no_silent_pass(
    store: Shop, instance: DagsterInstance, project: Project
) -> None:
    """Not compared is not in step; and the run itself is unharmed."""
    project.set(retry__max_retries="0")
    store.script("ok", "ok", "ok", "404")

    result = run(instance, "orders_job")

    evaluation = check(result, "reconciles_with_source")
    assert not evaluation.passed
    assert "Not compared" in (evaluation.description or "")
    assert result.success


def test_the_job_that_is_running_is_known_by_any_name(instance: DagsterInstance) -> None:
    """The schedule and the sensor wait for a replay or a repair as for any run."""
    from orders_dagster.automation import unfinished_runs

    @job(name="repair_orders")
    def theirs() -> None: ...

    run_id = instance.create_run_for_job(theirs).run_id

    assert unfinished_runs(instance) == [run_id]
