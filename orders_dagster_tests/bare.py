"""A bare `rest_api_source` with the reference configuration and dlt's defaults, for the scenarios.

Only the waits between two retries are taken out of the reference, so that tests do not sleep.

    python -m orders_dagster_tests.bare DIRECTORY URL      one run in a process of its own
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dlt
from dlt.sources.rest_api import rest_api_source

from orders_dagster_tests.reference import ATTEMPTS, reference
from orders_dagster_tests.world import Log, Tables


class Bare(Tables):
    """Reads a shop into tables, as `Project` does."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "bare.duckdb")
        self.directory = directory
        self.attempts = ATTEMPTS
        self._url = ""
        self._login = True

    def point_at(self, url: str, *, login: bool = True) -> None:
        self._url, self._login = url, login

    def synchronise(self, log: Log = lambda message: None) -> None:  # noqa: ARG002, it says nothing
        pipeline = dlt.pipeline(
            "bare",
            destination=dlt.destinations.duckdb(str(self.database)),
            dataset_name="ecommerce",
            pipelines_dir=str(self.directory / "bare-pipelines"),
        )
        auth = {
            "type": "oauth2_client_credentials",
            "access_token_url": f"{self._url}/oauth/token",
            "client_id": "sandbox",
            "client_secret": "sandbox-secret",
        }
        config = reference(
            self._url, auth if self._login else None, attempts=self.attempts, backoff_factor=0
        )
        pipeline.run(rest_api_source(config))  # type: ignore[arg-type]

    def start(self) -> subprocess.Popen[bytes]:
        """A run in a process of its own, of an API without login."""
        return subprocess.Popen(
            [sys.executable, "-m", "orders_dagster_tests.bare", str(self.directory), self._url],
            stderr=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    bare = Bare(Path(sys.argv[1]))
    bare.point_at(sys.argv[2], login=False)
    bare.synchronise()
