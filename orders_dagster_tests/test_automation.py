"""The schedule and the sensor: when they start a run, and what they say when they do not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from dagster import (
    AssetKey,
    DagsterEvent,
    DagsterInstance,
    DagsterRunStatus,
    RunRequest,
    SkipReason,
    build_schedule_context,
    build_sensor_context,
)
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from orders_dagster.automation import Failures, last_watermark
from orders_dagster.definitions import build_defs, defs
from orders_dagster.errors import SettingsError
from orders_dagster_tests.world import Project, Shop

OpenShop = Callable[..., Shop]


class Sensor:
    """The sensor as the daemon runs it: it keeps its cursor from tick to tick."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance
        self.cursor: str | None = None

    def tick(self) -> RunRequest | SkipReason:
        sensor = defs.get_sensor_def("orders_sensor")
        context = build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = sensor(context)
        self.cursor = context.cursor
        assert isinstance(result, (RunRequest, SkipReason))
        return result

    def skip(self) -> str:
        result = self.tick()
        assert isinstance(result, SkipReason), result
        return str(result.skip_message)

    def request(self) -> RunRequest:
        result = self.tick()
        assert isinstance(result, RunRequest), result
        return result


@pytest.fixture
def sensor(instance: DagsterInstance) -> Sensor:
    return Sensor(instance)


def run_job(instance: DagsterInstance) -> None:
    """Without its checks and their report, which take as long and which nothing here asks for."""
    job = defs.resolve_job_def("orders_job")
    assert job.execute_in_process(instance=instance, op_selection=["orders"]).success


def schedule_tick(instance: DagsterInstance) -> RunRequest | SkipReason:
    schedule = defs.get_schedule_def("orders_schedule")
    now = datetime(2024, 5, 1, 12, tzinfo=UTC)
    result = schedule(build_schedule_context(instance, scheduled_execution_time=now))
    assert isinstance(result, (RunRequest, SkipReason))
    return result


def test_the_sensor_asks_for_a_run_before_the_first_load(shop: OpenShop, sensor: Sensor) -> None:
    """With nothing loaded yet, any order is a change."""
    shop(orders=5)

    assert sensor.request().run_key


def test_the_sensor_says_that_nothing_has_changed(shop: OpenShop, sensor: Sensor) -> None:
    """A quiet shop starts no runs, and the page shows why."""
    shop(orders=5)
    run_job(sensor.instance)

    watermark = last_watermark(sensor.instance)
    assert watermark is not None
    assert sensor.skip() == f"The API has no order newer than {watermark.isoformat()}."


def test_the_sensor_asks_for_a_run_when_an_order_is_newer(shop: OpenShop, sensor: Sensor) -> None:
    """One order newer than the watermark is reason enough."""
    store = shop(orders=5)
    run_job(sensor.instance)
    store.change(modify=1)

    assert sensor.request().run_key


def test_the_sensor_asks_twice_with_one_run_key_for_one_change(
    shop: OpenShop, sensor: Sensor
) -> None:
    """Dagster starts one run for a run key, so that a failing run is not started every minute."""
    store = shop(orders=5)
    run_job(sensor.instance)
    store.change(modify=1)

    first, second = sensor.request(), sensor.request()
    store.put({"order_id": "Z", "items": []})
    run_job(sensor.instance)
    store.change(modify=1)

    assert first.run_key == second.run_key
    assert sensor.request().run_key != first.run_key


def test_an_order_dated_in_the_future_does_not_start_a_run_each_minute(
    shop: OpenShop, sensor: Sensor
) -> None:
    """It stays newer than every watermark; its run key stays the same, so one run is started."""
    store = shop(orders=5)
    store.put({"order_id": "F", "last_modified_date": "2099-01-01T00:00:00Z", "items": []})
    run_job(sensor.instance)
    first = sensor.request()
    run_job(sensor.instance)

    assert sensor.request().run_key == first.run_key


def test_an_order_dated_in_the_future_hides_no_change_from_the_sensor(
    shop: OpenShop, sensor: Sensor
) -> None:
    """Dagster starts one run for a key, and the newest date would be that order's until then."""
    store = shop(orders=5)
    store.put({"order_id": "F", "last_modified_date": "2099-01-01T00:00:00Z", "items": []})
    run_job(sensor.instance)
    known = sensor.request().run_key

    store.change(modify=1)

    assert sensor.request().run_key != known


def test_the_sensor_does_not_open_the_warehouse(
    project: Project, shop: OpenShop, sensor: Sensor
) -> None:
    """Asking every minute must not take the one-writer lock of the file from a run."""
    import duckdb

    shop(orders=5)
    run_job(sensor.instance)
    modified = project.database.stat().st_mtime_ns
    project.database.rename(project.database.with_suffix(".away"))

    sensor.skip()

    assert not project.database.exists()
    with duckdb.connect(str(project.database.with_suffix(".away")), read_only=True):
        assert project.database.with_suffix(".away").stat().st_mtime_ns == modified


def test_the_sensor_makes_one_request_for_a_few_orders(shop: OpenShop, sensor: Sensor) -> None:
    """It runs every minute, so it has to be cheap for the shop."""
    store = shop(orders=50)
    sensor.tick()

    asked = [request for request in store.requests() if request["path"] == "/v1/orders"]
    assert len(asked) == 1
    assert "limit=20&" in asked[0]["query"]


def test_an_order_that_cannot_be_merged_does_not_hide_newer_ones_from_the_sensor(
    shop: OpenShop, sensor: Sensor
) -> None:
    """It stays newer than every watermark, and would be the one order that is asked for."""
    store = shop(orders=5)
    run_job(sensor.instance)
    store.put({"order_id": "", "items": []})
    first = sensor.request()
    run_job(sensor.instance)
    store.change(modify=1)

    assert sensor.request().run_key != first.run_key


def test_the_sensor_backs_off_when_the_api_fails(shop: OpenShop, sensor: Sensor) -> None:
    """A shop in trouble is not asked every minute, and the page shows why and until when."""
    store = shop(orders=5)
    store.script("503", "503", "503")

    assert "answers 503" in sensor.skip()
    waiting = sensor.skip()

    assert "Failed 1 times; asking again after" in waiting
    assert sum(request["path"] == "/v1/orders" for request in store.requests()) == 1


def test_the_backoff_doubles_up_to_an_hour_and_is_forgotten_after_success(
    shop: OpenShop, sensor: Sensor
) -> None:
    """One minute, two, four … an hour."""
    last = datetime(2024, 5, 1, tzinfo=UTC)
    waits = [Failures(n, last.isoformat()).wait_until() - last for n in (1, 2, 3, 7, 50)]
    shop(orders=5)
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    sensor.cursor = Failures(9, long_ago, "It failed.").text()

    sensor.request()

    assert [wait / timedelta(minutes=1) for wait in waits] == [1, 2, 4, 60, 60]
    assert Failures.parse(sensor.cursor) == Failures()


def test_the_sensor_names_missing_settings(sensor: Sensor) -> None:
    """An unconfigured project says what is missing instead of failing."""
    assert "sources.orders.client_id is missing" in sensor.skip()


def test_the_sensor_says_when_the_api_cannot_be_asked(
    project: Project, shop: OpenShop, sensor: Sensor
) -> None:
    """An API without a filter has no cheap question; the schedule does the work."""
    shop(orders=5)
    project.set(paging="offset", params={})

    assert "The schedule still reads them" in sensor.skip()


@pytest.mark.parametrize("event", ["PIPELINE_ENQUEUED", "PIPELINE_STARTING", "PIPELINE_START"])
@pytest.mark.parametrize(
    ("job", "assets"), [("orders_job", None), ("__ASSET_JOB", frozenset({AssetKey("orders")}))]
)
def test_nothing_is_started_while_a_run_has_not_finished(
    shop: OpenShop,
    sensor: Sensor,
    event: str,
    job: str,
    assets: frozenset[AssetKey] | None,
) -> None:
    """A slow first load must not collect a queue of hourly runs behind it, also not one by hand."""
    shop(orders=5)
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="x"))
    run = create_run_for_test(
        sensor.instance,
        job_name=job,
        asset_selection=assets,
        remote_job_origin=RemoteRepositoryOrigin(location, "x").get_job_origin(job),
    )
    sensor.instance.report_dagster_event(DagsterEvent(event, job_name=job), run_id=run.run_id)

    assert sensor.skip() == f"Run {run.run_id} has not finished yet."
    assert isinstance(schedule_tick(sensor.instance), SkipReason)


def test_a_run_of_something_else_does_not_hold_ours_up(shop: OpenShop, sensor: Sensor) -> None:
    """The project may live in an instance with many others."""
    shop(orders=5)
    create_run_for_test(sensor.instance, job_name="theirs", status=DagsterRunStatus.STARTED)

    sensor.request()
    assert isinstance(schedule_tick(sensor.instance), RunRequest)


def test_the_schedule_is_hourly_and_a_setting(project: Project, instance: DagsterInstance) -> None:
    """The one setting that is needed before a run starts."""
    assert defs.get_schedule_def("orders_schedule").cron_schedule == "0 * * * *"

    project.set(schedule="*/15 * * * *")
    schedule = build_defs().get_schedule_def("orders_schedule")

    assert schedule.cron_schedule == "*/15 * * * *"
    assert isinstance(schedule_tick(instance), RunRequest)


def test_a_schedule_that_is_none_is_named(project: Project) -> None:
    """The definitions do not load with it, and say which setting it is."""
    project.set(schedule="hourly")

    with pytest.raises(SettingsError, match="SOURCES__ORDERS__SCHEDULE.*cron expression"):
        build_defs()


def test_both_run_by_themselves() -> None:
    """Whoever opens the page sees orders arrive, without switching anything on."""
    assert defs.get_sensor_def("orders_sensor").default_status.value == "RUNNING"
    assert defs.get_schedule_def("orders_schedule").default_status.value == "RUNNING"
