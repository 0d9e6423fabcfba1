"""The Dagster instance as dagster.yaml describes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance
from dagster._core.instance.config import PoolGranularity
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test

from orders_dagster.launcher import MonitoredRunLauncher

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with the dagster.yaml of the project."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def test_one_run_at_a_time_and_dead_ones_are_noticed(instance: DagsterInstance) -> None:
    """What the comments of dagster.yaml promise is what Dagster read from it."""
    pools = instance.get_concurrency_config().pool_config
    assert (pools.default_pool_limit, pools.pool_granularity) == (1, PoolGranularity.RUN)
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_settings.get("max_runtime_seconds") is None
    assert not instance.telemetry_enabled
    assert isinstance(instance.run_launcher, MonitoredRunLauncher)
    assert instance.run_launcher.supports_check_run_worker_health
    assert not instance.run_retries_enabled


def test_a_run_whose_server_is_gone_is_dead(instance: DagsterInstance, tmp_path: Path) -> None:
    """It would hold the pool for ever, and the schedule and the sensor would wait for it."""
    gone = {"host": "localhost", "socket": str(tmp_path / "gone.sock")}
    run = create_run_for_test(instance, tags={".dagster/grpc_info": json.dumps(gone)})

    health = instance.run_launcher.check_run_worker_health(run)

    assert health.status == WorkerStatus.FAILED


def test_a_run_that_something_else_started_is_left_alone(instance: DagsterInstance) -> None:
    """A run from the command line has no server that could be asked; it must not be failed for that."""
    run = create_run_for_test(instance)

    assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
