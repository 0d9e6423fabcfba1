"""A bare `rest_api_source` with the reference configuration and dlt's defaults: what users have today.

Nothing of the project is in it. It is not crippled either: it is what a reader of dlt's documentation
would write for this API, with the total as the rule when to stop. Only the waits between two retries
are taken out, so that tests do not sleep.

    python -m orders_dagster_tests.bare DIRECTORY URL      one run in a process of its own
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dlt
from dlt.sources.helpers.requests import Client
from dlt.sources.rest_api import rest_api_source

from orders_dagster_tests.world import Log, Tables

ATTEMPTS = 4
"""The reference says "at most 3 retries", and dlt counts the first try."""


def reference(url: str, *, login: bool = True, attempts: int = ATTEMPTS) -> dict[str, Any]:
    """The reference configuration, in dlt's words."""
    retrying = Client(
        raise_for_status=False,  # dlt's REST client looks at the status itself
        status_codes=(429, 500, 502, 503, 504),
        request_max_attempts=attempts,
        request_backoff_factor=0,  # 2 in the reference
    )
    client: dict[str, Any] = {"base_url": url, "session": retrying.session}
    if login:
        client["auth"] = {
            "type": "oauth2_client_credentials",
            "access_token_url": f"{url}/oauth/token",
            "client_id": "sandbox",
            "client_secret": "sandbox-secret",
        }
    return {
        "client": client,
        "resource_defaults": {"primary_key": "order_id", "write_disposition": "merge"},
        "resources": [
            {
                "name": "orders",
                "endpoint": {
                    "path": "/v1/orders",
                    "data_selector": "orders",
                    "params": {
                        "modified_since": "{incremental.start_value}",
                        "sort": "last_modified_date",
                    },
                    "paginator": {"type": "offset", "limit": 200, "offset_param": "offset"},
                    "incremental": {
                        "cursor_path": "last_modified_date",
                        "initial_value": "2000-01-01T00:00:00Z",
                    },
                },
            }
        ],
    }


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
        config = reference(self._url, login=self._login, attempts=self.attempts)
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
