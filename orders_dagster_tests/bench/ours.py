"""The contender: this project, with its default settings but for those in the environment."""

from __future__ import annotations

import json
import time

import duckdb  # noqa: F401 - dlt imports it when it first asks for it; floor.py does here
import sqlalchemy  # noqa: F401 - what dlt reads a connection string with; Dagster has imported it long before

from orders_dagster.pipeline import synchronise
from orders_dagster.settings import read_settings


def main() -> None:
    started = time.perf_counter()
    done = synchronise(read_settings())
    seconds = time.perf_counter() - started
    note = (
        f"{done.loaded:,} orders, {done.requests:,} requests; extract {done.extract_seconds:.1f},"
        f" normalize {done.normalize_seconds:.1f}, load {done.load_seconds:.1f}"
    )
    print(json.dumps({"work_seconds": seconds, "note": note}))


if __name__ == "__main__":
    main()
