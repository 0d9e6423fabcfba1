"""The contender: all asset checks of this project, as a run asks them, on the tables as they are."""

from __future__ import annotations

import json
import time

from dagster import DagsterInstance

from orders_dagster.checks import CHECKS, tables_now, verdict
from orders_dagster.destination import orders_pipeline
from orders_dagster.settings import read_settings
from orders_dagster.warehouse import open_warehouse


def main() -> None:
    with DagsterInstance.ephemeral() as instance:
        started = time.perf_counter()
        seconds = {}
        with orders_pipeline(0) as pipeline, open_warehouse(pipeline, 0) as warehouse:
            tables = tables_now(warehouse, read_settings(), instance)
            for check in CHECKS:
                before = time.perf_counter()
                if not verdict(check, tables).passed:
                    raise SystemExit(f"{check.name} does not pass")
                seconds[check.name] = time.perf_counter() - before
        work_seconds = time.perf_counter() - started
    slowest = sorted(seconds.items(), key=lambda one: -one[1])[:3]
    note = f"{work_seconds:.1f} s; " + ", ".join(f"{name} {took:.1f}" for name, took in slowest)
    print(json.dumps({"work_seconds": work_seconds, "note": note}))


if __name__ == "__main__":
    main()
