"""The contender: a bare `rest_api_source` with the reference configuration, and dlt's defaults.

Not crippled: the configuration is the one a reader of dlt's documentation would write for this API,
the total is given as the stop rule, and the way of loading is dlt's own choice for DuckDB.
"""

from __future__ import annotations

import json
import time

import dlt
import duckdb  # noqa: F401 - dlt imports it when it first asks for it; floor.py does here
import sqlalchemy  # noqa: F401 - what dlt reads a connection string with; Dagster has imported it long before
from dlt.sources.helpers.rest_client.auth import OAuth2ClientCredentials
from dlt.sources.rest_api import rest_api_source

from orders_dagster_tests.reference import reference


def main() -> None:
    started = time.perf_counter()
    pipeline = dlt.pipeline("bare", destination="duckdb", dataset_name="ecommerce")
    auth = OAuth2ClientCredentials(
        access_token_url=dlt.secrets["sources.orders.token_url"],
        client_id=dlt.secrets["sources.orders.client_id"],
        client_secret=dlt.secrets["sources.orders.client_secret"],
    )
    config = reference(dlt.config["sources.orders.base_url"], auth)
    pipeline.run(rest_api_source(config))  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    counts = pipeline.last_trace.last_normalize_info.row_counts  # type: ignore[union-attr]
    rows = counts.get("orders", 0)
    print(json.dumps({"work_seconds": seconds, "note": f"{rows:,} orders"}))


if __name__ == "__main__":
    main()
