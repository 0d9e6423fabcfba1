"""The run launcher of dagster.yaml: Dagster's default one, which can also tell that a run is dead.

With the default launcher, a run whose process was killed together with its code server (a power cut, an
out-of-memory kill, a container that is replaced) stays "started" for ever: it holds the pool, and the
schedule and the sensor wait for it. Run monitoring asks the launcher, which did not know.
"""

from collections.abc import Mapping
from typing import Any

from dagster import DagsterRun
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData


class MonitoredRunLauncher(DefaultRunLauncher):
    """A run is alive as long as the server that started it answers."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            # Started by something else, such as the command line. Monitoring takes every answer but
            # this one for a reason to mark the run as failed.
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            client.ping("are you there?")
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.FAILED, "The process of the run is gone.")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "MonitoredRunLauncher":
        return cls(inst_data=inst_data, **config_value)
