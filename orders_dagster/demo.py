"""`make demo`: orders loaded, changed in the shop, loaded again and checked, through Dagster.

Everything is real but the shop: a sandbox API over HTTP, the job that the schedule runs, a DuckDB
file, asset checks. Exit code 1 if a check fails or the warehouse differs from the shop.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import requests

from orders_dagster.local import sandbox_process, sandbox_settings

CHANGES = {"new": 30, "modify": 40, "modify_twice": 5, "remove_items": 10}


def main(directory: Path = Path(".demo"), orders: int = 2000) -> int:
    """Run the demo in a directory that is emptied first. Returns the exit code."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    directory = directory.resolve()
    with sandbox_process("--port", "0", "--orders", str(orders)) as url:
        _configure(url, directory)
        print(f"shop        a sandbox API with {orders:,} orders, {url}", flush=True)
        results = [_materialize(directory, "first load")]
        changed = requests.post(f"{url}/_sandbox/change", json=CHANGES, timeout=30)
        changed.raise_for_status()
        kinds = {kind: len(ids) for kind, ids in changed.json().items() if isinstance(ids, list)}
        print(
            "changed     " + ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in kinds.items())
        )
        results.append(_materialize(directory, "increment"))
        in_step = _in_step(url, directory / "orders.duckdb")
    print("checks")
    verdicts = [_print_check(evaluation) for evaluation in _evaluations(results[-1])]
    print(
        f"  {'PASS' if in_step else 'FAIL'}  the tables equal the shop: ids, dates, numbers of items"
    )
    print(f"warehouse   {directory / 'orders.duckdb'}")
    print('next        "make dev" opens the same in the Dagster page; README.md: your own API')
    return 0 if all([in_step, bool(verdicts), *verdicts]) else 1


def _configure(url: str, directory: Path) -> None:
    """Only the sandbox, whatever else is configured here: the demo never touches real orders."""
    for name in [name for name in os.environ if name.startswith("SOURCES__ORDERS__")]:
        del os.environ[name]
    os.environ |= sandbox_settings(url) | {
        "DLT_PROJECT_DIR": str(directory),  # where .dlt would be looked for
        "DLT_DATA_DIR": str(directory / "dlt"),
        "DESTINATION__DUCKDB__CREDENTIALS": str(directory / "orders.duckdb"),
        "PIPELINES__ORDERS__DESTINATION_TYPE": "duckdb",
        "PIPELINES__ORDERS__DATASET_NAME": "ecommerce",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }


def _materialize(directory: Path, title: str) -> Any:
    # Imported late: dlt reads its configuration files when it is first used.
    from dagster import DagsterInstance

    from orders_dagster.definitions import defs

    home = directory / "dagster"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").touch()  # or Dagster says that there is none
    started = time.monotonic()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    telemetry = {"telemetry": {"enabled": False}}
    with DagsterInstance.local_temp(str(home), overrides=telemetry) as instance:
        result = defs.resolve_job_def("orders_job").execute_in_process(
            instance=instance, run_config=quiet, raise_on_error=False
        )
    if not result.success:
        for event in result.all_events:
            if event.is_step_failure:
                print(event.message, event.step_failure_data.error, file=sys.stderr)
        raise SystemExit(1)
    (materialization,) = result.asset_materializations_for_node("orders")
    number = {name: value.value for name, value in materialization.metadata.items()}
    print(
        f"{title:<11} {number['orders_loaded']:,} orders: {number['orders_new']:,} new, "
        f"{number['orders_updated']:,} updated, {number['orders_unchanged']:,} unchanged; "
        f"{number['rows_in_table']:,} in the table ({time.monotonic() - started:.1f} s)",
        flush=True,
    )
    return result


def _evaluations(result: Any) -> Any:
    return sorted(
        result.get_asset_check_evaluations(), key=lambda evaluation: evaluation.check_name
    )


def _print_check(evaluation: Any) -> bool:
    looked_at = evaluation.metadata["rows_looked_at"].value
    verdict = "PASS" if evaluation.passed else "FAIL"
    print(f"  {verdict}  {evaluation.check_name:<28} {looked_at:>7,} rows looked at")
    return bool(evaluation.passed)


def _in_step(url: str, database: Path) -> bool:
    """Whether the tables hold exactly the shop's orders, by id, date and number of items."""
    import duckdb

    answer = requests.get(f"{url}/_sandbox/orders", timeout=60)
    answer.raise_for_status()
    truth = database.parent / "shop.ndjson"
    truth.write_bytes(answer.content)
    with duckdb.connect(str(database), read_only=True) as connection:
        orders = "SELECT order_id, CAST(last_modified_date AS TIMESTAMPTZ), len(items)"
        loaded = """
            SELECT o.order_id, o.last_modified_date, count(i._dlt_id)
            FROM ecommerce.orders o
            LEFT JOIN ecommerce.orders__items i ON i._dlt_parent_id = o._dlt_id
            GROUP BY ALL
        """
        shop = f"{orders} FROM read_json('{truth}', format = 'newline_delimited')"
        row = connection.execute(
            f"SELECT count(*) FROM (({shop} EXCEPT ALL {loaded}) UNION ALL ({loaded} EXCEPT ALL {shop}))"
        ).fetchone()
    truth.unlink()
    return row == (0,)


if __name__ == "__main__":
    sys.exit(main())
